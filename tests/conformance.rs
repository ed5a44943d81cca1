//! The v2 door against what a real etcd 3.4.23 answered.
//!
//! `data/v2/public.jsonl` holds recorded scenarios, `data/v2/replay.py` plays them to a server and
//! compares status, headers and JSON, the order of fields included; `data/README.md` describes the
//! format. The real etcd passes all of it, so a difference is ours.
//!
//! Deliberately partial: `TOPICS` names what this version promises; a topic joins when its part of
//! the API does.

mod common;

use common::{Daemon, program, run};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Topics of the corpus that must pass without a difference.
const TOPICS: &[&str] = &[
    "set", "get", "create", "update", "cas", "delete", "cad", "post", "ttl", "hidden", "refresh",
    "watch", "params", "method", "format", "novalue", "path", "limits", "http", "index", "flow",
    "race", "soak",
];
/// Scenarios that pin what is better here, each on purpose.
const BETTER: &[&str] = &[
    // The end of /foo is no news for /foobar.
    "watch.dir-delete-prefix-match",
    // A stream goes on behind the past event it began with.
    "watch.stream-past-index",
    // History is longer than 1,000 events.
    "watch.cleared-history",
    // Paths are normalised: a redirected PUT loses its body.
    "path.redirects",
];
/// The topics take about 30 s on real etcd, most of it waiting for keys to expire.
const REPLAY_WITHIN: Duration = Duration::from_secs(180);

#[test]
fn v2_keys_answer_as_etcd_does() {
    let Some(python) = program("python3") else { return };
    let daemon = Daemon::start("conformance");
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/v2");
    let mut command = Command::new(python);
    command.arg(data.join("replay.py")).arg(daemon.url()).arg(data.join("public.jsonl"));
    command.arg("--exact-json-order");
    for topic in TOPICS {
        command.args(["--topic", topic]);
    }
    for scenario in BETTER {
        command.args(["--skip", scenario]);
    }
    let replay = run(&mut command, daemon.home(), REPLAY_WITHIN);
    assert!(replay.status.success(), "{}{}", replay.stdout, replay.stderr);
}
