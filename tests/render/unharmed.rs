//! A voter serves on while its templates and resource files misbehave.

use crate::host::Host;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

/// Longest a write may take beside runaway templates, on a busy machine in a debug build.
const WRITE_WITHIN: Duration = Duration::from_secs(5);
/// Most memory the daemon itself may ever have had, whatever its workers needed.
const MEMORY_KIB_MAX: u64 = 200 * 1024;

const LOOPS: &str = "{% for a in range(end=100000) %}{% for b in range(end=100000) %}";
const END: &str = "{% endfor %}{% endfor %}";

fn peak_kib(host: &Host) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", host.daemon.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn runaway_templates_do_not_hold_the_voter_up() {
    let mut host = Host::stopped("runaway");
    let line = "x".repeat(4_000);
    for (name, text) in [
        ("loop", format!("{LOOPS}{END}")),
        ("gigabyte", format!("{LOOPS}{line}{END}")),
        ("memory", format!("{{% set x %}}{LOOPS}{line}{END}{{% endset %}}")),
        ("good", "{{ getv(key='/v', default='none') }}".to_owned()),
    ] {
        host.template(&format!("{name}.tera"), &text);
        host.resource(name, "");
    }
    host.daemon.restart();
    let mut slowest = Duration::ZERO;
    for number in 1..=200 {
        let begun = Instant::now();
        host.put("/v", &number.to_string());
        slowest = slowest.max(begun.elapsed());
    }
    assert!(slowest < WRITE_WITHIN, "a write took {slowest:?}");
    host.wait_for_file(&host.out("good"), "200");
    for (name, text) in [
        ("loop", "is it looping?"),
        ("gigabyte", "the output is larger than"),
        ("memory", "MiB of memory"),
    ] {
        host.wait_for_error(name, text);
        assert!(!host.out(name).exists());
    }
    assert!(peak_kib(&host) < MEMORY_KIB_MAX, "the daemon took {} KiB", peak_kib(&host));
    host.daemon.terminate();
}

#[test]
fn bad_files_never_stop_the_good_ones() {
    let mut host = Host::stopped("bad-files");
    let conf_d = host.path("confdir/conf.d");
    host.template("good.tera", "{{ getv(key='/v', default='none') }}");
    host.resource("good", &host.counted_reload());
    for (name, text) in [
        ("syntax", "{% if %}"),
        ("filter", "{{ 1 | no_such_filter }}"),
        ("key", "{{ getv(key='/no/such/key') }}"),
        ("include", "{% include 'missing.tera' %}"),
        ("include_itself", "{% include 'include_itself.tera' %}"),
    ] {
        host.template(&format!("{name}.tera"), text);
        host.resource(name, "");
    }
    host.resource("no_template", "");
    host.resource("typo", "relaod_cmd = \"x\"");
    host.resource_file("not_toml", "[template\nsrc = ");
    host.resource_file("empty", "");
    fs::write(conf_d.join("bytes.toml"), b"\xff\xfe\0\x01").unwrap();
    fs::write(conf_d.join(OsStr::from_bytes(b"not\xfftext.toml")), "x").unwrap();
    fs::create_dir(conf_d.join("folder.toml")).unwrap();
    std::os::unix::fs::symlink("nowhere", conf_d.join("dangling.toml")).unwrap();
    host.resource("closed", "");
    fs::set_permissions(conf_d.join("closed.toml"), fs::Permissions::from_mode(0o000)).unwrap();
    host.daemon.restart();
    host.wait_for_file(&host.out("good"), "none");
    for value in ["1", "2"] {
        host.put("/v", value);
        host.wait_for_file(&host.out("good"), value);
    }
    for (name, text) in [
        ("syntax", "syntax.tera:1:"),
        ("filter", "filter.tera:1:"),
        ("key", "key does not exist"),
        ("include", "missing.tera"),
        ("no_template", "cannot read template"),
        ("typo", "did you mean `reload_cmd`?"),
        ("not_toml", "not_toml.toml:1:"),
        ("empty", "no [template] table"),
        ("bytes", "bytes.toml"),
        ("dangling", "dangling.toml"),
    ] {
        host.wait_for_error(name, text);
    }
    // In the last version of a file that turned bad, the good one goes on.
    host.resource("good", "keys = 7");
    host.wait_for_error("good", "good.toml:4:8");
    host.put("/v", "3");
    host.wait_for_file(&host.out("good"), "3");
    host.daemon.terminate();
}
