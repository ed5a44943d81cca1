//! Other people's clients against althing, as they are installed: Debian's `etcdctl` with version 2
//! of its API, and python-etcd.
//!
//! What: everyday work (set, get, list, directories, compare, lives, watches, exec-watch, locks),
//! and recorded runs of `etcdctl` on a real etcd, of which everything but users, roles and changes
//! of members must come out the same.
//!
//! Each is told the address and nothing else. `etcdctl` first asks for the members and then talks
//! to the address they publish, unless it is told not to; both ways are tried.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test, as tests do")]

mod common;

use common::{Daemon, Finished, clean, program, run, scratch, skip, wait_until};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
/// Most of it is keys that die, and watches that are given time to begin.
const REPLAY_WITHIN: Duration = Duration::from_secs(120);
/// Runs that are not replayed: what is not there yet, and what is better here.
const NOT_REPLAYED: &[&str] = &[
    "role-commands",
    "member-errors",
    // History is longer than 1,000 events.
    "watch-cleared",
];

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(path)
}

/// The real `etcdctl`, told where the daemon is.
struct Etcdctl<'a> {
    program: PathBuf,
    flags: &'a [&'a str],
    url: &'a str,
}

impl Etcdctl<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = clean(self.program.clone());
        command.env("ETCDCTL_API", "2").args(["--endpoints", self.url]).args(self.flags);
        command.args(arguments).stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Finished {
        run(&mut self.command(arguments), scratch("etcdctl").path(), SOON)
    }

    /// What a command prints that succeeds.
    #[track_caller]
    fn says(&self, arguments: &[&str]) -> String {
        let finished = self.run(arguments);
        assert_eq!(finished.status.code(), Some(0), "{arguments:?}: {finished:?}");
        finished.stdout
    }

    /// What a command complains of that the server refuses.
    #[track_caller]
    fn is_refused(&self, arguments: &[&str]) -> String {
        let finished = self.run(arguments);
        assert_eq!(finished.status.code(), Some(4), "{arguments:?}: {finished:?}");
        finished.stderr
    }

    /// Starts a command that goes on, its output in `out`.
    fn start(&self, arguments: &[&str], out: &Path) -> Running {
        let mut command = self.command(arguments);
        command.stdout(File::create(out).unwrap()).stderr(Stdio::null());
        Running(command.spawn().unwrap())
    }

    /// The index the store is at.
    #[track_caller]
    fn index(&self) -> String {
        let shown = self.says(&["-o", "extended", "get", "/message"]);
        shown.lines().find_map(|line| line.strip_prefix("Index: ")).unwrap().to_owned()
    }
}

/// A process that is killed when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn etcdctl_does_everyday_work(flags: &[&str]) {
    let Some(program) = program("etcdctl") else { return };
    let daemon = Daemon::start("etcdctl");
    let etcdctl = Etcdctl { program, flags, url: daemon.url() };
    keys_and_compares(&etcdctl);
    directories(&etcdctl);
    lives(&etcdctl);
    watches(&etcdctl, daemon.home());
}

#[track_caller]
fn keys_and_compares(etcdctl: &Etcdctl<'_>) {
    assert_eq!(etcdctl.says(&["set", "/message", "Hello"]), "Hello\n");
    assert_eq!(etcdctl.says(&["get", "/message"]), "Hello\n");
    let swapped = etcdctl.says(&["set", "/message", "Hi", "--swap-with-value", "Hello"]);
    assert_eq!(swapped, "Hi\n");
    let lost = etcdctl.is_refused(&["set", "/message", "x", "--swap-with-value", "Hello"]);
    assert!(lost.starts_with("Error:  101: Compare failed ([Hello != Hi]) ["), "{lost}");
    assert_eq!(etcdctl.says(&["update", "/message", "Grüße"]), "Grüße\n");
    let there = etcdctl.is_refused(&["mk", "/message", "x"]);
    assert!(there.starts_with("Error:  105: Key already exists (/message) ["), "{there}");
    assert_eq!(etcdctl.says(&["mk", "/other", "x"]), "x\n");
    assert_eq!(etcdctl.says(&["rm", "/other"]), "PrevNode.Value: x\n");
    let gone = etcdctl.is_refused(&["get", "/other"]);
    assert!(gone.starts_with("Error:  100: Key not found (/other) ["), "{gone}");
}

#[track_caller]
fn directories(etcdctl: &Etcdctl<'_>) {
    assert_eq!(etcdctl.says(&["mkdir", "/service"]), "");
    assert_eq!(etcdctl.says(&["set", "/service/container1", "localhost:1111"]), "localhost:1111\n");
    assert_eq!(etcdctl.says(&["set", "/service/deep/container2", "x"]), "x\n");
    assert_eq!(etcdctl.says(&["ls", "--sort", "/service"]), "/service/container1\n/service/deep\n");
    let all = etcdctl.says(&["ls", "--sort", "--recursive", "-p", "/service"]);
    assert_eq!(all, "/service/container1\n/service/deep/\n/service/deep/container2\n");
    let full = etcdctl.is_refused(&["rmdir", "/service"]);
    assert!(full.starts_with("Error:  108: Directory not empty (/service) ["), "{full}");
    assert_eq!(etcdctl.says(&["rm", "--recursive", "/service"]), "");
    assert_eq!(etcdctl.says(&["ls"]), "/message\n");
}

#[track_caller]
fn lives(etcdctl: &Etcdctl<'_>) {
    assert_eq!(etcdctl.says(&["set", "/short", "life", "--ttl", "1"]), "life\n");
    wait_until("the key dies", SOON, || etcdctl.run(&["get", "/short"]).status.code() == Some(4));
}

#[track_caller]
fn watches(etcdctl: &Etcdctl<'_>, folder: &Path) {
    let index = etcdctl.index();
    etcdctl.says(&["set", "/watched/a", "1"]);
    etcdctl.says(&["rm", "/watched/a"]);
    let once = ["watch", "--recursive", "--after-index", &index, "/watched"];
    assert_eq!(etcdctl.says(&once), "[set] /watched/a\n1\n");
    let shows = |out: &Path, end: &str| {
        wait_until(end, SOON, || fs::read_to_string(out).unwrap().ends_with(end));
        fs::read_to_string(out).unwrap()
    };

    let out = folder.join("watch");
    let ever = ["watch", "--forever", "--recursive", "--after-index", &index, "/watched"];
    let following = etcdctl.start(&ever, &out);
    shows(&out, "[delete] /watched/a\nPrevNode.Value: 1\n");
    etcdctl.says(&["set", "/watched/b", "live"]);
    let all = shows(&out, "[set] /watched/b\nlive\n");
    assert!(all.starts_with("[set] /watched/a\n1\n[delete]"), "{all}");
    drop(following);

    let out = folder.join("exec-watch");
    let script = "echo \"$ETCD_WATCH_ACTION $ETCD_WATCH_KEY $ETCD_WATCH_VALUE\"";
    // Without a switch right before the key, this etcdctl takes its last word for the key.
    let exec = ["exec-watch", "--after-index", &index, "--recursive", "/watched"];
    let _running = etcdctl.start(&[&exec[..], &["--", "sh", "-c", script]].concat(), &out);
    // It does not wait for a command before it starts the next.
    for line in ["set /watched/a 1", "delete /watched/a ", "set /watched/b live"] {
        let has_line = |text: String| text.lines().any(|shown| shown == line);
        wait_until(line, SOON, || has_line(fs::read_to_string(&out).unwrap()));
    }
}

#[test]
fn etcdctl_works_without_asking_for_members() {
    etcdctl_does_everyday_work(&["--no-sync"]);
}

#[test]
fn etcdctl_works() {
    etcdctl_does_everyday_work(&[]);
}

#[test]
fn etcdctl_prints_what_it_prints_with_etcd() {
    let (Some(etcdctl), Some(python)) = (program("etcdctl"), program("python3")) else { return };
    let daemon = Daemon::start_with("etcdctl-replay", &["--name", "n1"]);
    let corpus = data("data/etcdctl-v2/public.jsonl");
    let mut command = clean(python);
    command.arg(data("data/etcdctl-v2/replay.py")).arg(etcdctl).arg(daemon.url()).arg(&corpus);
    for name in replayed(&fs::read_to_string(corpus).unwrap()) {
        command.args(["--only", &name]);
    }
    let replay = run(&mut command, daemon.home(), REPLAY_WITHIN);
    assert!(replay.status.success(), "{}{}", replay.stdout, replay.stderr);
}

/// The names of the runs that must come out the same.
fn replayed(corpus: &str) -> Vec<String> {
    let names = corpus.lines().map(|line| {
        let run: serde_json::Value = serde_json::from_str(line).unwrap();
        run["name"].as_str().unwrap().to_owned()
    });
    let names: Vec<String> = names.collect();
    assert!(NOT_REPLAYED.iter().all(|name| names.iter().any(|known| known == name)));
    names.into_iter().filter(|name| !NOT_REPLAYED.contains(&name.as_str())).collect()
}

/// A Python that has python-etcd: the first on the PATH need not be the system's.
fn python_with_etcd() -> Option<PathBuf> {
    let system = PathBuf::from("/usr/bin/python3");
    let has_etcd = |python: &PathBuf| {
        let mut command = clean(python.clone());
        command.args(["-c", "import etcd"]).stdin(Stdio::null());
        python.is_file() && run(&mut command, scratch("python").path(), SOON).status.success()
    };
    let found = [program("python3")?, system].into_iter().find(has_etcd);
    if found.is_none() {
        skip("needs python-etcd: install it, on Debian with `apt-get install python3-etcd`");
    }
    found
}

#[track_caller]
fn python_does_everyday_work(more: &[&str]) {
    let Some(python) = python_with_etcd() else { return };
    let daemon = Daemon::start("python-etcd");
    let mut command = clean(python);
    command.arg(data("clients/everyday.py")).arg(daemon.url()).args(more);
    let finished = run(&mut command, daemon.home(), SOON * 3);
    assert!(finished.status.success(), "{}{}", finished.stdout, finished.stderr);
    assert_eq!(finished.stdout, "done\n");
}

#[test]
fn python_etcd_works() {
    python_does_everyday_work(&[]);
}

#[test]
fn python_etcd_finds_the_members() {
    python_does_everyday_work(&["members"]);
}
