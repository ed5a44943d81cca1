//! A whole daemon with a confdir, for what only shows when store, renderer and disk are real.

use crate::harness::{Daemon, http, wait_until};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// From a change to its end: a retry's pause, a slow check, a busy machine.
const SETTLED_WITHIN: Duration = Duration::from_secs(40);

/// A daemon that renders into `out` and, where a test says so, counts reloads.
pub(crate) struct Host {
    pub(crate) daemon: Daemon,
}

impl Host {
    /// A daemon that is started by `restart`; resources can be written before.
    pub(crate) fn stopped(name: &str) -> Self {
        let daemon = Daemon::stopped(name, &["--confdir", "confdir"]);
        for folder in ["confdir/conf.d", "confdir/templates", "out"] {
            fs::create_dir_all(daemon.home().join(folder)).unwrap();
        }
        Self { daemon }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.daemon.home().join(name)
    }

    pub(crate) fn out(&self, name: &str) -> PathBuf {
        self.path("out").join(name)
    }

    pub(crate) fn template(&self, name: &str, text: &str) {
        fs::write(self.path("confdir/templates").join(name), text).unwrap();
    }

    /// A resource `NAME` of template `NAME.tera` with destination `out/NAME`, and more lines.
    pub(crate) fn resource(&self, name: &str, more: &str) {
        let dest = self.out(name);
        let text = format!("[template]\nsrc = \"{name}.tera\"\ndest = {dest:?}\n{more}\n");
        self.resource_file(name, &text);
    }

    pub(crate) fn resource_file(&self, name: &str, text: &str) {
        fs::write(self.path("confdir/conf.d").join(format!("{name}.toml")), text).unwrap();
    }

    /// A reload that leaves a line for each of its runs.
    pub(crate) fn counted_reload(&self) -> String {
        format!("reload_cmd = \"echo $ALTHING_REVISION >> {}\"", self.path("reloads").display())
    }

    pub(crate) fn reloads(&self) -> usize {
        fs::read_to_string(self.path("reloads")).unwrap_or_default().lines().count()
    }

    #[track_caller]
    pub(crate) fn put(&self, key: &str, value: &str) {
        let body = format!("value={}", percent(value));
        let answer = http("PUT", &self.url_of(key), &body);
        assert!([200, 201].contains(&answer.status), "{key}: {answer:?}");
    }

    #[track_caller]
    pub(crate) fn delete(&self, key: &str) {
        let answer = http("DELETE", &self.url_of(key), "");
        assert_eq!(answer.status, 200, "{key}: {answer:?}");
    }

    fn url_of(&self, key: &str) -> String {
        let names: Vec<String> = key.split('/').map(percent).collect();
        format!("{}/v2/keys{}", self.daemon.url(), names.join("/"))
    }

    /// What the status page says of a resource; null while it says nothing.
    pub(crate) fn status(&self, name: &str) -> Value {
        let status = http("GET", &format!("{}/althing/v1/status", self.daemon.url()), "").json();
        let files = status["renderer"]["files"].as_array().cloned().unwrap_or_default();
        files.into_iter().find(|file| file["name"] == name).unwrap_or_default()
    }

    #[track_caller]
    pub(crate) fn wait_until_ok(&self, name: &str) {
        // While a pass or reload runs, `ok` is what the one before has left.
        let rests = |status: &Value| status["waitingFor"] == "a change";
        self.wait(name, "is in order", |status| status["ok"] == true && rests(status));
    }

    #[track_caller]
    pub(crate) fn wait_for_error(&self, name: &str, text: &str) {
        let has = |status: &Value| status["error"].as_str().is_some_and(|e| e.contains(text));
        self.wait(name, &format!("fails with {text:?}"), has);
    }

    #[track_caller]
    fn wait(&self, name: &str, what: &str, condition: impl Fn(&Value) -> bool) {
        wait_until(&format!("{name} {what}"), SETTLED_WITHIN, || condition(&self.status(name)));
    }

    #[track_caller]
    pub(crate) fn wait_for_file(&self, file: &Path, text: &str) {
        let what = format!("{} is {text:?}", file.display());
        wait_until(&what, SETTLED_WITHIN, || fs::read_to_string(file).is_ok_and(|is| is == text));
    }
}

/// Every byte that is no letter or digit as `%XX`: for forms and paths alike.
fn percent(text: &str) -> String {
    let byte = |byte: u8| match byte {
        plain if plain.is_ascii_alphanumeric() => char::from(plain).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}
