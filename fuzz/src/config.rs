//! The operator's TOML: the daemon's settings and template resources.

use althing::base::diagnostic::Diagnostic;
use althing::base::limits;
use althing::config::{BadConfig, Config, Flags, Surroundings, load};
use althing::render::resource::{self, Resource};
use rustix::fs::{MemfdFlags, memfd_create};
use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::path::{Component, Path};
use std::time::Duration;

/// Reads `data` as a settings file and as a resource file.
pub fn check(data: &[u8]) {
    let text = std::str::from_utf8(data).ok();
    match settings(data) {
        Ok(config) => {
            let again = settings(shown(&config).as_bytes());
            assert_eq!(again.map(|again| shown(&again)), Ok(shown(&config)));
        }
        Err(BadConfig(problems)) => mistakes(&problems, text),
    }
    let Some(text) = text else { return };
    match resource::parse(Path::new("conf.d/fuzz.toml"), "fuzz", text) {
        Ok(resources) => {
            assert!(!resources.is_empty());
            resources.iter().for_each(complete);
        }
        Err(problems) => mistakes(&problems, Some(text)),
    }
}

/// The settings of a file that holds `data`, and nothing else said anywhere.
fn settings(data: &[u8]) -> Result<Config, BadConfig> {
    let Ok(memory) = memfd_create("settings", MemfdFlags::CLOEXEC) else { panic!("no memory") };
    let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
    assert!(std::fs::write(&path, data).is_ok());
    let surroundings = Surroundings {
        hostname: "fuzz".to_owned(),
        environment: BTreeMap::new(),
        default_file: Some(path.into()),
    };
    load(&Flags::default(), &surroundings)
}

/// As `althing config show` prints it.
fn shown(config: &Config) -> String {
    config.shown().iter().map(|row| format!("{} = {}\n", row.spec.key, row.value)).collect()
}

/// Every mistake names the file, and its place if the file is text.
fn mistakes(problems: &[Diagnostic], text: Option<&str>) {
    assert!(!problems.is_empty());
    for problem in problems {
        let shown = problem.to_string();
        assert!(!problem.file.is_empty() && !problem.message.is_empty(), "{shown}");
        if let Some(text) = text.filter(|text| text.len() as u64 <= limits::CONFIG_BYTES_MAX) {
            let Some(place) = &problem.place else { panic!("no place: {shown}") };
            let line = text.split('\n').nth(place.line - 1);
            assert!(line.is_some_and(|line| line.starts_with(&place.text)), "{shown}");
        }
    }
}

/// What the renderer relies on without looking again.
fn complete(resource: &Resource) {
    let inside = |part| matches!(part, Component::Normal(_));
    assert!(Path::new(&resource.src).components().all(inside), "{resource:?}");
    assert!(resource.dest.is_absolute() && resource.dest.file_name().is_some(), "{resource:?}");
    assert!(resource.mode.is_none_or(|mode| mode <= 0o7777), "{resource:?}");
    assert!(resource.wait.min <= resource.wait.max, "{resource:?}");
    assert!(resource.backup <= limits::BACKUPS_MAX, "{resource:?}");
    let times = [resource.check_timeout, resource.reload_timeout];
    assert!(times.iter().all(|time| *time > Duration::ZERO), "{resource:?}");
}
