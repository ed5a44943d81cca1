//! A daemon without privileges, and files that are not its own.

use crate::harness::{program, skip, wait_until};
use crate::host::Host;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::time::Duration;

/// A user and a group nobody has.
const NOBODY: u32 = 4711;
/// A warning that must not come twice is waited for once.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// A stopped daemon of a user without any rights, whose own its directories are.
fn unprivileged(name: &str) -> Option<Host> {
    let setpriv = program("setpriv")?;
    if !rustix::process::getuid().is_root() {
        skip("needs root to give files away");
        return None;
    }
    let mut host = Host::stopped(name);
    for folder in ["", "out"] {
        chown(host.path(folder), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let ids = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".into()];
    host.daemon.run_under([vec![setpriv.display().to_string()], ids.into()].concat());
    Some(host)
}

/// confd without root left such a file as it was, and said nothing.
#[test]
fn a_file_of_another_user_is_replaced_and_that_is_told_once() {
    let Some(mut host) = unprivileged("owners") else { return };
    host.template("a.tera", "{{ getv(key='/v', default='new') }}");
    host.resource("a", &host.counted_reload());
    fs::write(host.out("a"), "old").unwrap();
    fs::set_permissions(host.out("a"), fs::Permissions::from_mode(0o4644)).unwrap();
    host.daemon.restart();
    host.wait_for_file(&host.out("a"), "new");
    host.wait_until_ok("a");
    let is = fs::metadata(host.out("a")).unwrap();
    assert_eq!((is.uid(), is.gid(), is.mode() & 0o7777), (NOBODY, NOBODY, 0o644));
    host.put("/v", "newer");
    host.wait_for_file(&host.out("a"), "newer");
    host.wait_until_ok("a");
    assert_eq!(told(&host), 1);
    host.daemon.terminate();
}

#[test]
fn an_owner_that_cannot_be_given_is_no_reason_to_reload_for_ever() {
    let Some(mut host) = unprivileged("wanted-owner") else { return };
    host.template("a.tera", "{{ getv(key='/v', default='1') }}");
    host.resource("a", &format!("uid = 0\ngid = 0\n{}", host.counted_reload()));
    host.daemon.restart();
    for value in ["1", "2", "3"] {
        host.put("/v", value);
        host.wait_for_file(&host.out("a"), value);
        host.wait_until_ok("a");
        // A pass that finds nothing to do: its revision is new.
        let before = host.status("a")["renders"].as_u64();
        host.put("/v", value);
        wait_until("it was looked at", TOLD_WITHIN, || {
            host.status("a")["renders"].as_u64() > before
        });
        host.wait_until_ok("a");
    }
    assert_eq!((host.reloads(), told(&host)), (3, 1), "{}", host.daemon.log());
    host.daemon.terminate();
}

fn told(host: &Host) -> usize {
    let log = || host.daemon.log();
    wait_until("it is told", TOLD_WITHIN, || log().contains("it may not give it to its owner"));
    log().matches("it may not give it to its owner").count()
}

/// It has no group of the daemon's.
#[test]
fn commands_run_as_another_user() {
    if !rustix::process::getuid().is_root() {
        skip("needs root to become another user");
        return;
    }
    let mut host = Host::stopped("another-user");
    let seen = host.path("seen");
    fs::create_dir(&seen).unwrap();
    chown(&seen, Some(65_534), None).unwrap();
    host.template("a.tera", "x");
    let reload = format!("id -u > {0}/user; id -G > {0}/groups", seen.display());
    host.resource("a", &format!("user = \"nobody\"\nreload_cmd = \"{reload}\""));
    host.template("b.tera", "x");
    host.resource("b", "user = \"no such user\"\nreload_cmd = \"true\"");
    fs::set_permissions(host.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    host.daemon.restart();
    host.wait_until_ok("a");
    assert_eq!(fs::read_to_string(seen.join("user")).unwrap(), "65534\n");
    assert_eq!(fs::read_to_string(seen.join("groups")).unwrap().split(' ').count(), 1);
    host.wait_for_error("b", "there is no user `no such user`");
    host.daemon.terminate();
}

#[test]
fn who_is_not_root_becomes_nobody_else() {
    let Some(mut host) = unprivileged("becomes") else { return };
    host.template("a.tera", "x");
    host.resource("a", "user = \"root\"\nreload_cmd = \"true\"");
    host.daemon.restart();
    host.wait_for_error("a", "need a daemon that runs as root");
    host.daemon.terminate();
}
