//! This machine, as far as a benchmark has to know it: whether it is at rest, how long a flush of
//! its disk takes, where its programs are.
//!
//! Invariant: where the system does not tell, the answer is the one that lets the benchmark go on.
//!
//! Sources: proc(5) (`/proc/stat`), getrlimit(2).

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::base::limits::BENCH_STALL_SECONDS;
use crate::ctl::bench::stats::median;

/// Busy share of all processors, in per cent, up to which a window is quiet.
const QUIET_PERCENT: u64 = 10;
/// Flushes timed to describe the disk.
const FLUSHES: usize = 200;

/// Time of all processors since boot, in clock ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processors {
    all: u64,
    idle: u64,
}

impl Processors {
    /// Now; `None` where the system does not say.
    #[must_use]
    pub fn now() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/stat").ok()?)
    }

    /// The first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal.
    fn parse(stat: &str) -> Option<Self> {
        let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
        let ticks: Vec<u64> = fields.take(8).map_while(|field| field.parse().ok()).collect();
        let idle = ticks.get(3)? + ticks.get(4)?;
        Some(Self { all: ticks.iter().sum(), idle })
    }

    /// Whether little enough was done between two readings; yes where nobody can tell.
    #[must_use]
    pub fn were_quiet(before: Option<Self>, after: Option<Self>) -> bool {
        let (Some(before), Some(after)) = (before, after) else { return true };
        let all = after.all.saturating_sub(before.all);
        let busy = all.saturating_sub(after.idle.saturating_sub(before.idle));
        busy * 100 <= all * QUIET_PERCENT
    }
}

/// A thousand long polls need more descriptors than the usual soft limit; the children inherit
/// the raised one. If it cannot be raised, only that line fails, and says why.
pub fn raise_descriptor_limit() {
    let resource = rustix::process::Resource::Nofile;
    let limit = rustix::process::getrlimit(resource);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    let _ = rustix::process::setrlimit(resource, raised);
}

/// A name without a slash is looked up in PATH; what is not found stays as it is, and the start
/// says so.
#[must_use]
pub fn find_program(program: &Path) -> PathBuf {
    if program.components().count() > 1 {
        return program.to_owned();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).map(|folder| folder.join(program));
    places.into_iter().find(|place| place.is_file()).unwrap_or_else(|| program.to_owned())
}

/// The first line of `PROGRAM --version`.
#[must_use]
pub fn version_of(program: &Path) -> String {
    let output = std::process::Command::new(program).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    text.lines().next().unwrap_or("etcd (not found)").to_owned()
}

/// The median time in microseconds of writing and flushing 4 KiB in place: what one durable
/// write costs here at least.
///
/// # Errors
/// If the disk refuses.
pub fn time_flushes(place: &Path) -> std::io::Result<f64> {
    let block = [0x5A_u8; 4_096];
    let mut file = File::create(place)?;
    for _ in 0..64 {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    let mut took = Vec::with_capacity(FLUSHES);
    let patience = Instant::now() + Duration::from_secs(BENCH_STALL_SECONDS);
    for number in 0..FLUSHES as u64 {
        let begun = Instant::now();
        file.write_all_at(&block, number % 64 * 4_096)?;
        file.sync_data()?;
        took.push(begun.elapsed().as_secs_f64() * 1e6);
        if Instant::now() > patience {
            break;
        }
    }
    fs::remove_file(place)?;
    Ok(median(&took).unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_the_processors_is_quiet_enough() {
        let at = |all, idle| Some(Processors { all, idle });
        assert!(Processors::were_quiet(at(1_000, 500), at(1_040, 536)));
        assert!(!Processors::were_quiet(at(1_000, 500), at(1_040, 535)));
        assert!(Processors::were_quiet(None, at(1, 1)));
    }

    #[test]
    fn idle_time_includes_waiting_for_the_disk() {
        let stat = "cpu  10 1 5 70 4 0 2 8 3 3\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        assert_eq!(Processors::parse(stat), Some(Processors { all: 100, idle: 74 }));
        assert_eq!(Processors::parse("cpu 1 2"), None);
        assert_eq!(Processors::parse(""), None);
    }

    #[test]
    fn programs_are_found_in_the_path() {
        assert_eq!(find_program(Path::new("./etcd")), Path::new("./etcd"));
        assert_eq!(find_program(Path::new("no-such-program")), Path::new("no-such-program"));
        assert!(find_program(Path::new("sh")).is_absolute());
    }
}
