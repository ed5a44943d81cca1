//! `strace` between the daemon and its log: system calls on chosen files fail, or lie.
//!
//! What cannot be had from outside otherwise: a write that is confirmed and not done, a flush that
//! fails once and then succeeds. The tracer runs beside the daemon (`-D`), so that the daemon's
//! process id, signals and exit code stay its own.
//!
//! Deliberately without knowledge of the log's format. It knows one thing: the log's files end in
//! `.wal` and are numbered, and a start may begin the next one; so the files that are there and
//! the few names that follow are watched.

use crate::common::{Daemon, program};
use std::fs;
use std::path::{Path, PathBuf};

/// Names watched beyond those that exist.
const NAMES_AHEAD: u64 = 8;

/// A command line that runs the daemon with `inject`, such as `fdatasync:error=EIO:when=9`, on the
/// files of its log. `None` after saying that strace is missing.
///
/// # Panics
/// When the data directory holds no log.
#[track_caller]
pub(crate) fn on_the_log(daemon: &Daemon, injects: &[&str]) -> Option<Vec<String>> {
    let strace = program("strace")?;
    let mut words = vec![strace.display().to_string()];
    words.extend(["-D", "-f", "-qq", "-s", "0", "-o"].map(str::to_owned));
    words.push(trace_file(daemon).display().to_string());
    for inject in injects {
        words.extend(["-e".to_owned(), format!("inject={inject}")]);
    }
    let files = log_files(&daemon.data_dir());
    assert!(!files.is_empty(), "no *.wal below {}", daemon.data_dir().display());
    for file in files {
        words.extend(["-P".to_owned(), file.display().to_string()]);
    }
    Some(words)
}

/// Whether the tracer has changed a system call yet.
pub(crate) fn has_injected(daemon: &Daemon) -> bool {
    let trace = fs::read(trace_file(daemon)).unwrap_or_default();
    String::from_utf8_lossy(&trace).contains("(INJECTED)")
}

fn trace_file(daemon: &Daemon) -> PathBuf {
    daemon.home().join("trace")
}

/// The log's files below `folder`, and names that may come.
fn log_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(log_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "wal") {
            files.push(path);
        }
    }
    files.sort();
    let last = files.last().cloned();
    let stem = last.iter().find_map(|path| path.file_stem()?.to_str());
    if let (Some(last), Some(stem)) = (&last, stem)
        && let Ok(number) = stem.parse::<u64>()
    {
        let width = stem.len();
        let ahead = (1..=NAMES_AHEAD).map(|more| format!("{:0width$}.wal", number + more));
        files.extend(ahead.map(|name| last.with_file_name(name)));
    }
    files
}
