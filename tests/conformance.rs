//! The v2 door against what a real etcd 3.4.23 answered.
//!
//! `data/v2/public.jsonl` holds recorded scenarios, `data/v2/replay.py` plays them to a server and
//! compares status, headers and JSON, the order of fields included; `data/README.md` describes the
//! format. The real etcd passes all of it, so a difference is ours.
//!
//! Everything is played but `auth`, which this version does not have, and the scenarios of
//! `BETTER`. Three rounds share one data directory, the last after a restart: no answer may depend
//! on what was there before.

mod common;

use common::{Daemon, program, run};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Scenarios of what this version does not have.
const LATER: &[&str] = &["auth.*"];
/// Scenarios that pin what is better here, each on purpose: rows of docs/divergence.md.
const BETTER: &[&str] = &[
    // Web pages may not use the API unless the operator says so.
    "misc.cors",
    // History is longer than 1,000 events.
    "watch.cleared-history",
    // A quirk: the end of /foo is no news for /foobar.
    "watch.dir-delete-prefix-match",
    // A quirk: a stream goes on behind the past event it began with.
    "watch.stream-past-index",
    // A quirk: paths are normalised; a redirected PUT loses its body.
    "path.redirects",
];
/// One round takes about 40 s, most of it waiting for keys to expire.
const REPLAY_WITHIN: Duration = Duration::from_secs(180);

#[test]
fn v2_answers_as_etcd_does_twice_and_after_a_restart() {
    let Some(python) = program("python3") else { return };
    let mut daemon = Daemon::start("conformance");
    replay(&python, &daemon);
    replay(&python, &daemon);
    daemon.restart();
    replay(&python, &daemon);
}

#[track_caller]
fn replay(python: &Path, daemon: &Daemon) {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/v2");
    let mut command = Command::new(python);
    command.arg(data.join("replay.py")).arg(daemon.url()).arg(data.join("public.jsonl"));
    command.arg("--exact-json-order");
    for scenario in LATER.iter().chain(BETTER) {
        command.args(["--skip", scenario]);
    }
    let replay = run(&mut command, daemon.home(), REPLAY_WITHIN);
    assert!(replay.status.success(), "{}{}", replay.stdout, replay.stderr);
}

#[test]
fn every_difference_is_in_the_book() {
    let book = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/divergence.md");
    let book = std::fs::read_to_string(book).unwrap();
    for scenario in BETTER {
        assert!(book.contains(&format!("`{scenario}`")), "{scenario} is not in docs/divergence.md");
    }
}
