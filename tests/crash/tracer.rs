//! `strace` between the daemon and its files: system calls on chosen ones fail, or lie.
//!
//! What cannot be had from outside otherwise: a write that is confirmed and not done, a flush that
//! fails once and then succeeds. The tracer runs beside the daemon (`-D`), so that the daemon's
//! process id, signals and exit code stay its own.
//!
//! Deliberately without knowledge of what is in a file. It knows names: the log's end in `.wal` and
//! are numbered, and a start may begin the next one, so the files that are there and the few names
//! that follow are watched; the checkpoint's is `data.mdb`.

use crate::common::{Daemon, program};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// Names watched beyond those that exist.
const NAMES_AHEAD: u64 = 8;

/// A command line that runs the daemon with each of `injects`, such as `fdatasync:error=EIO:when=9`,
/// on the files of its log. `None` after saying that strace is missing.
///
/// # Panics
/// When the data directory holds no log.
#[track_caller]
pub(crate) fn on_the_log(daemon: &Daemon, injects: &[&str]) -> Option<Vec<String>> {
    let mut files = files_called(&daemon.data_dir(), ".wal");
    files.extend(names_ahead(files.last()));
    on(daemon, &files, injects)
}

/// `on_the_log` for the file that checkpoints are written to.
#[track_caller]
pub(crate) fn on_the_checkpoint(daemon: &Daemon, injects: &[&str]) -> Option<Vec<String>> {
    on(daemon, &files_called(&daemon.data_dir(), "data.mdb"), injects)
}

#[track_caller]
fn on(daemon: &Daemon, files: &[PathBuf], injects: &[&str]) -> Option<Vec<String>> {
    assert!(!files.is_empty(), "no such file below {}", daemon.data_dir().display());
    let strace = program("strace")?;
    let mut words = vec![strace.display().to_string()];
    words.extend(["-D", "-f", "-qq", "-s", "0", "-o"].map(str::to_owned));
    words.push(trace_file(daemon).display().to_string());
    for inject in injects {
        words.extend(["-e".to_owned(), format!("inject={inject}")]);
    }
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

/// The files below `folder` whose names end so, in order.
fn files_called(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_called(&path, end));
        } else if path.to_string_lossy().ends_with(end) {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The names that follow a numbered file's.
fn names_ahead(last: Option<&PathBuf>) -> Vec<PathBuf> {
    let Some(last) = last else { return Vec::new() };
    let stem = last.file_stem().and_then(OsStr::to_str).unwrap_or_default();
    let Ok(number) = stem.parse::<u64>() else { return Vec::new() };
    let width = stem.len();
    let ahead = (1..=NAMES_AHEAD).map(|more| format!("{:0width$}.wal", number + more));
    ahead.map(|name| last.with_file_name(name)).collect()
}
