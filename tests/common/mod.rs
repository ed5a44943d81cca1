//! What the tests of the whole program share: external programs, waiting, directories, the daemon
//! under test, a real etcd to compare it with, and a small HTTP client.
//!
//! Why a client of our own: a door test must see the bytes of an answer, and a dependency for it
//! would be larger than these lines. It is blocking, opens one connection a request, and reads
//! bodies by length, by chunks, or to the end.
//!
//! Invariants:
//! * a program that is missing is reported by name, never passed over in silence; with
//!   `ALTHING_REQUIRE_ALL=1` it is a failure;
//! * nothing waits by sleeping a fixed time: a condition is looked at until a deadline;
//! * everything a test starts is killed when its guard is dropped, a failing test's too;
//! * test directories are on the disk of the target folder, not on a tmpfs: flushes are real.
//!
//! Environment: `ALTHING_REQUIRE_ALL=1` (above); `ALTHING_TEST_BINARY=/path` tests another build,
//! such as the packaged one.

#![allow(dead_code, unused_imports, reason = "each test program uses its part of this folder")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "the runner shows it when the test fails")]

mod daemon;
mod etcd;
mod http;

pub(crate) use daemon::{Daemon, clean};
pub(crate) use etcd::Etcd;
pub(crate) use http::{Response, http, read_head, read_response, try_http};

use std::env;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Debian packages whose name differs from their program's.
const PACKAGES: &[(&str, &str)] = &[
    ("etcd", "etcd-server"),
    ("etcdctl", "etcd-client"),
    ("promtool", "prometheus"),
    ("ssh-keygen", "openssh-client"),
    ("ip", "iproute2"),
    ("fusermount", "fuse"),
    ("systemd-analyze", "systemd"),
    ("systemd-sysusers", "systemd"),
    ("systemd-tmpfiles", "systemd"),
];

/// Where the external program `name` is, or `None` after saying on stderr (past the test runner's
/// capture) which test goes on without it.
///
/// # Panics
/// When it is missing and `ALTHING_REQUIRE_ALL=1`.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // Debian keeps servers in sbin, which is not on the PATH of every user.
    let sbin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let candidates = env::split_paths(&path).chain(sbin).map(|folder| folder.join(name));
    if let Some(found) = candidates.into_iter().find(|candidate| candidate.is_file()) {
        return Some(found);
    }
    let package = PACKAGES.iter().find(|(program, _)| *program == name).map_or(name, |row| row.1);
    skip(&format!("needs {name}: install it, on Debian with `apt-get install {package}`"));
    None
}

/// Says on stderr that the test ends here for want of `need`.
///
/// # Panics
/// When `ALTHING_REQUIRE_ALL=1`.
pub(crate) fn skip(need: &str) {
    assert!(env::var_os("ALTHING_REQUIRE_ALL").is_none_or(|value| value != "1"), "{need}");
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(io::stderr(), "skipped {test}: {need}");
}

/// Looks at `condition` until it holds.
///
/// # Panics
/// With `what` when it does not hold within `deadline`.
#[track_caller]
pub(crate) fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, deadline, || condition().then_some(()));
}

/// Asks `question` until it has an answer, and returns it.
///
/// # Panics
/// With `what` when there is no answer within `deadline`.
#[track_caller]
pub(crate) fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut question: impl FnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = question() {
            return answer;
        }
        assert!(start.elapsed() < deadline, "not within {deadline:?}: {what}");
        thread::sleep(LOOK_EVERY);
    }
}

/// A fresh directory on the disk of the target folder, removed when dropped.
pub(crate) fn scratch(name: &str) -> TempDir {
    let prefix = format!("{name}-");
    tempfile::Builder::new().prefix(&prefix).tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// The program under test.
pub(crate) fn binary() -> PathBuf {
    let other = env::var_os("ALTHING_TEST_BINARY").map(PathBuf::from);
    other.unwrap_or_else(|| env!("CARGO_BIN_EXE_althing").into())
}

/// What a finished command said.
#[derive(Debug)]
pub(crate) struct Finished {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// Its standard output.
    pub(crate) stdout: String,
    /// Its standard error.
    pub(crate) stderr: String,
}

/// Runs `command` with its output in files of `folder`, so that a grandchild that keeps the output
/// open holds nothing up.
///
/// # Panics
/// When it cannot be started, or after killing it at the `deadline`.
#[track_caller]
pub(crate) fn run(command: &mut Command, folder: &Path, deadline: Duration) -> Finished {
    let (out, err) = (folder.join(".stdout"), folder.join(".stderr"));
    command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let start = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if start.elapsed() > deadline => break None,
            None => thread::sleep(LOOK_EVERY),
        }
    };
    if status.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let read = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    let (stdout, stderr) = (read(&out), read(&err));
    let Some(status) = status else {
        panic!("{command:?} still ran after {deadline:?}\n{stdout}\n{stderr}");
    };
    Finished { status, stdout, stderr }
}
