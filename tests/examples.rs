//! The whole stories under `examples/`, run as a reader would run them.
//!
//! Each has a `run.sh` that ends by itself, within a bound, and an `expected.txt` with what it
//! prints. Here it gets the binary under test and a scratch directory.

#![expect(clippy::unwrap_used, reason = "a story that cannot be read fails the test")]

mod common;

use common::{binary, clean, program, run, scratch};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// Each wait inside a story has its own bound of 20 s; a story takes about 10 s.
const STORY_WITHIN: Duration = Duration::from_secs(150);

#[track_caller]
fn play(name: &str, needs: &[&str]) {
    if !needs.iter().all(|need| program(need).is_some()) {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    let expected = fs::read_to_string(folder.join("expected.txt")).unwrap();
    let work = scratch(name);
    let mut story = clean("bash".into());
    story.arg(folder.join("run.sh")).stdin(Stdio::null());
    story.env("ALTHING", binary()).env("TMPDIR", work.path()).current_dir(work.path());
    let finished = run(&mut story, work.path(), STORY_WITHIN);
    assert!(finished.status.success(), "{}{}", finished.stdout, finished.stderr);
    assert_eq!(finished.stdout, expected);
    let left: Vec<_> =
        fs::read_dir(work.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left.len(), 2, "only the test's own two files are left, not {left:?}");
}

#[test]
fn one_host_in_curl() {
    play("one-host", &["bash", "curl"]);
}

#[test]
fn haproxy_follows_its_backends() {
    play("haproxy", &["bash", "haproxy", "curl", "python3"]);
}
