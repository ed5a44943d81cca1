//! `tests/data/render/*`: keys and template in, exact bytes out of a running daemon, accepted by
//! the real program, whose service is told once for each new file.

use crate::harness::program;
use crate::host::Host;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A case and the daemon it runs in.
struct Case {
    dir: PathBuf,
    host: Host,
    /// The resource, its destination moved into the test.
    resource: String,
    /// Whether the real program is here.
    checked: bool,
}

impl Case {
    fn new(name: &str, programs: &[&str]) -> Self {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/render").join(name);
        let checked = programs.iter().all(|name| program(name).is_some());
        let mut case = Self { host: Host::stopped(name), dir, resource: String::new(), checked };
        case.resource = case.moved_resource();
        let template = case.read("template.tera").unwrap();
        case.host.template(case.value("src").unwrap(), &template);
        case
    }

    /// Without what names this host's users and services; the reload is one that counts.
    fn moved_resource(&self) -> String {
        let text = self.read("resource.toml").unwrap();
        let mut foreign = vec!["dest", "owner", "group", "reload_cmd"];
        if !self.checked {
            foreign.push("check_cmd");
        }
        let kept = text.lines().filter(|line| !foreign.iter().any(|key| line.starts_with(key)));
        let me = rustix::process::getuid().as_raw();
        format!(
            "{}\ndest = {:?}\nuid = {me}\n{}\n",
            kept.collect::<Vec<_>>().join("\n"),
            self.host.out("file"),
            self.host.counted_reload()
        )
    }

    /// A string of the resource.
    fn value(&self, key: &str) -> Option<&str> {
        let start = format!("{key} = \"");
        self.resource.lines().find_map(|line| line.strip_prefix(&start)?.strip_suffix('"'))
    }

    fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.dir.join(file)).ok()
    }

    fn keys(&self, file: &str) -> BTreeMap<String, String> {
        self.read(file).map(|text| serde_json::from_str(&text).unwrap()).unwrap_or_default()
    }

    /// Waits for exactly the bytes of `expected`, and asks the real program.
    #[track_caller]
    fn expect(&self, expected: &str) {
        let (dest, expected) = (self.host.out("file"), self.read(expected).unwrap());
        self.host.wait_for_file(&dest, &expected);
        self.host.wait_until_ok("case");
        if let Some(mode) = self.value("mode") {
            let is = fs::metadata(&dest).unwrap().permissions().mode() & 0o7777;
            assert_eq!(format!("{is:04o}"), mode);
        }
        let confdir = self.host.path("confdir");
        let words = ["render", "case", "--to", "-", "--confdir", confdir.to_str().unwrap()];
        let rendered = self.host.daemon.althing(&words);
        assert_eq!(rendered.stdout, expected, "{rendered:?}");
        if self.checked {
            let check = Command::new("/bin/sh").arg(self.dir.join("check.sh")).arg(&dest).status();
            assert!(check.unwrap().success(), "the real program refuses the file");
        }
        assert_eq!(fs::read_dir(self.host.path("out")).unwrap().count(), 1, "a stage is left");
    }

    /// Each time the file was replaced, the service was told once.
    #[track_caller]
    fn expect_a_reload_for_each_change(&self) -> u64 {
        let status = self.host.status("case");
        assert_eq!(status["reloads"], status["changes"], "{status}");
        assert_eq!(status["changes"], self.host.reloads() as u64, "{status}");
        assert_eq!(
            (&status["waitingFor"], &status["owedSince"]),
            (&"a change".into(), &Value::Null)
        );
        self.host.reloads() as u64
    }
}

fn run(name: &str, programs: &[&str]) {
    let mut case = Case::new(name, programs);
    case.host.daemon.restart();
    let first = case.keys("keys.json");
    for (key, value) in &first {
        case.host.put(key, value);
    }
    case.host.resource_file("case", &case.resource);
    case.expect("expected");
    assert_eq!(case.expect_a_reload_for_each_change(), 1);
    let second = case.keys("keys2.json");
    if !second.is_empty() {
        for (key, value) in second.iter().filter(|(key, value)| first.get(*key) != Some(*value)) {
            case.host.put(key, value);
        }
        for key in first.keys().filter(|key| !second.contains_key(*key)) {
            case.host.delete(key);
        }
        case.expect("expected2");
        assert!(case.expect_a_reload_for_each_change() > 1);
    }
    let told = case.host.reloads();
    case.host.daemon.restart();
    case.host.wait_until_ok("case");
    assert_eq!(case.host.reloads(), told, "a restart is no reason to reload");
}

#[test]
fn haproxy_vhosts() {
    run("01-haproxy-vhosts", &["haproxy"]);
}

#[test]
fn nginx_upstreams() {
    run("03-nginx-upstreams", &["nginx"]);
}

#[test]
fn prometheus_file_sd() {
    run("05-prometheus-file-sd", &["promtool", "jq"]);
}

#[test]
fn authorized_keys() {
    run("08-authorized-keys", &["ssh-keygen"]);
}

#[test]
fn systemd_environment_file() {
    run("10-systemd-envfile", &["python3"]);
}

#[test]
fn hosts_file() {
    run("13-etc-hosts", &["python3"]);
}
