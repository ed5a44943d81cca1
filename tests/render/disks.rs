//! Destinations on disks that are full, read-only, or not to be renamed over.
//!
//! The daemon runs in a mount namespace of its own, so nothing of this reaches the host. Where the
//! kernel allows no such thing, the tests say that they are skipped.

use crate::harness::{program, run, scratch, skip, wait_until};
use crate::host::Host;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// One call of a small program.
const COMMAND_WITHIN: Duration = Duration::from_secs(20);
/// A warning that must not come twice is waited for once.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// What makes a mount namespace; who is not root needs a user namespace around it.
fn unshare() -> Vec<&'static str> {
    let flags = if rustix::process::getuid().is_root() { "-m" } else { "-rm" };
    vec!["unshare", flags, "sh", "-c"]
}

/// A host whose `out` has been prepared by `setup`, where `$OUT` is its path.
fn mounted(name: &str, setup: &str) -> Option<Host> {
    let (_, _) = (program("unshare")?, program("nsenter")?);
    let probe = scratch("probe");
    let mut mount = Command::new("unshare");
    mount.args(&unshare()[1..]).arg("mount -t tmpfs none \"$0\"").arg(probe.path());
    if !run(&mut mount, scratch("probe-output").path(), COMMAND_WITHIN).status.success() {
        skip("needs the right to mount: run as root, or allow user namespaces");
        return None;
    }
    let mut host = Host::stopped(name);
    let script = format!("set -e; OUT={:?}; {setup}; exec \"$0\" \"$@\"", host.path("out"));
    let runner = unshare().into_iter().map(str::to_owned).chain([script]);
    host.daemon.run_under(runner.collect());
    host.template("a.tera", "{{ getv(key='/v', default='old') }}");
    host.resource("a", &host.counted_reload());
    host.daemon.restart();
    Some(host)
}

/// A rendered file as its daemon sees it.
fn inside(host: &Host, name: &str) -> PathBuf {
    let out = host.out(name);
    PathBuf::from(format!("/proc/{}/root{}", host.daemon.pid(), out.display()))
}

fn names(host: &Host) -> Vec<String> {
    let entries = fs::read_dir(inside(host, "")).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn remount(host: &Host, how: &str) {
    let pid = host.daemon.pid().to_string();
    let mut command = Command::new("nsenter");
    command.args(["-t", &pid, "-m"]);
    if !rustix::process::getuid().is_root() {
        command.args(["-U", "--preserve-credentials"]);
    }
    let words = [OsStr::new("mount"), OsStr::new("-o"), OsStr::new(how)];
    command.args(words).arg(host.path("out"));
    let done = run(&mut command, scratch("remount").path(), COMMAND_WITHIN);
    assert!(done.status.success(), "{done:?}");
}

/// Writes zeros until `bytes` are written or nothing more fits.
fn fill(host: &Host, bytes: usize) {
    let mut filler = fs::File::create(inside(host, "filler")).unwrap();
    for _ in 0..bytes / 4096 {
        if filler.write_all(&[0; 4096]).is_err() {
            return;
        }
    }
}

#[test]
fn a_full_disk_leaves_the_old_file_until_there_is_room() {
    let Some(host) = mounted("full", "mount -t tmpfs -o size=64k none $OUT") else { return };
    host.wait_for_file(&inside(&host, "a"), "old");
    host.wait_until_ok("a");
    fill(&host, usize::MAX);
    let new = "n".repeat(30_000);
    host.put("/v", &new);
    host.wait_for_error("a", "No space left on device");
    assert_eq!(fs::read_to_string(inside(&host, "a")).unwrap(), "old");
    assert_eq!(names(&host), ["a", "filler"], "a stage is left");
    assert_eq!(host.reloads(), 1);
    fs::remove_file(inside(&host, "filler")).unwrap();
    host.wait_for_file(&inside(&host, "a"), &new);
    host.wait_until_ok("a");
    assert_eq!(host.reloads(), 2);
}

#[test]
fn a_read_only_disk_leaves_the_old_file_until_it_can_be_written() {
    let Some(host) = mounted("read-only", "mount -t tmpfs none $OUT") else { return };
    host.wait_for_file(&inside(&host, "a"), "old");
    host.wait_until_ok("a");
    remount(&host, "remount,bind,ro");
    host.put("/v", "new");
    host.wait_for_error("a", "Read-only file system");
    assert_eq!(fs::read_to_string(inside(&host, "a")).unwrap(), "old");
    assert_eq!(host.reloads(), 1);
    remount(&host, "remount,bind,rw");
    host.wait_for_file(&inside(&host, "a"), "new");
    host.wait_until_ok("a");
    assert_eq!(host.reloads(), 2);
}

#[test]
fn a_bind_mount_is_written_in_place_and_told_once() {
    let setup = "echo before > $OUT/real; touch $OUT/a; mount --bind $OUT/real $OUT/a";
    let Some(host) = mounted("bind-mount", setup) else { return };
    for value in ["a long value", "short", "the last value"] {
        host.put("/v", value);
        host.wait_for_file(&inside(&host, "a"), value);
        host.wait_until_ok("a");
    }
    assert_eq!(fs::read_to_string(inside(&host, "real")).unwrap(), "the last value");
    assert_eq!(names(&host), ["a", "real"]);
    assert_eq!(host.status("a")["changes"], host.reloads() as u64);
    let told = || host.daemon.log().matches("is a mount point").count();
    wait_until("it is told", TOLD_WITHIN, || told() > 0);
    assert_eq!(told(), 1);
}

/// The stage fits beside the file, the grown file does not.
#[test]
fn a_bind_mount_on_a_full_disk_keeps_its_old_bytes() {
    let setup = "mount -t tmpfs -o size=64k none $OUT; printf before > $OUT/real; \
                 touch $OUT/a; mount --bind $OUT/real $OUT/a";
    let Some(host) = mounted("bind-full", setup) else { return };
    host.wait_for_file(&inside(&host, "a"), "old");
    host.wait_until_ok("a");
    fill(&host, 6 * 4096);
    let new = "n".repeat(7 * 4096);
    host.put("/v", &new);
    host.wait_for_error("a", "No space left on device");
    assert!(host.status("a")["error"].to_string().contains("cannot make room in"));
    assert_eq!(fs::read_to_string(inside(&host, "a")).unwrap(), "old");
    assert_eq!((host.reloads(), host.status("a")["owedSince"].is_null()), (1, true));
    fs::remove_file(inside(&host, "filler")).unwrap();
    host.wait_for_file(&inside(&host, "a"), &new);
    host.wait_until_ok("a");
    assert_eq!(host.reloads(), 2);
}
