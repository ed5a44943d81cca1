//! The daemon as the kernel sees it: memory, descriptors, CPU; and its term.
//!
//! Memory is `RssAnon`: pages of the database belong to the page cache. "Flat" means that a fault
//! leaves no more than a stated number of bytes behind, for the allocator's spare pages and for
//! what the store keeps of writes (`limits::WATCH_RING_BYTES_MAX` and `LOG_CACHE_BYTES_MAX`), and
//! that a daemon without work gets there by itself.

use crate::common::{Daemon, try_http, wait_until};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;
use std::time::{Duration, Instant};

/// From the end of a fault to a daemon that is as it was.
const BACK_WITHIN: Duration = Duration::from_secs(45);

/// What a fault may leave behind.
pub(crate) const MEMORY_SPARE: u64 = 12 * 1024 * 1024;

/// The daemon before a fault.
pub(crate) struct Before {
    what: &'static str,
    memory: u64,
    descriptors: usize,
    term: String,
    began: Instant,
}

impl Before {
    /// A look at the daemon, for which a few requests have been served: what a first request
    /// brings into memory is not the fault's.
    #[track_caller]
    pub(crate) fn of(daemon: &Daemon, what: &'static str) -> Self {
        let term = term(daemon);
        wait_until("the warming request is over", BACK_WITHIN, || sockets(daemon) == 0);
        Self::now(daemon, what, term)
    }

    /// A look at a daemon that has clients which stay.
    #[track_caller]
    pub(crate) fn of_busy(daemon: &Daemon, what: &'static str) -> Self {
        let clients = sockets(daemon);
        let term = term(daemon);
        wait_until("the request is over", BACK_WITHIN, || sockets(daemon) <= clients);
        Self::now(daemon, what, term)
    }

    fn now(daemon: &Daemon, what: &'static str, term: String) -> Self {
        let (memory, descriptors) = (memory(daemon), descriptors(daemon));
        Self { what, memory, descriptors, term, began: Instant::now() }
    }

    /// Memory at that time, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.memory
    }

    /// Descriptors at that time.
    pub(crate) fn descriptors(&self) -> usize {
        self.descriptors
    }

    /// How long ago that was.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Expects that no more than `bytes` have been added.
    #[track_caller]
    pub(crate) fn costs_at_most(&self, daemon: &Daemon, bytes: u64) {
        let more = memory(daemon).saturating_sub(self.memory);
        eprintln!("{}: {:.1} MB meanwhile", self.what, megabytes(more));
        assert!(more <= bytes, "{}: {more} bytes, at most {bytes} are allowed", self.what);
    }

    /// Waits until descriptors are what they were and memory is no more than `spare` above it, and
    /// expects the same term.
    #[track_caller]
    pub(crate) fn is_back(&self, daemon: &Daemon, spare: u64) {
        let peak = peak(daemon);
        let end = Instant::now() + BACK_WITHIN;
        let is_back =
            || descriptors(daemon) <= self.descriptors && memory(daemon) <= self.memory + spare;
        while !is_back() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        let now = (memory(daemon), descriptors(daemon));
        let figures = format!(
            "{}: {:.1} MB before, {:.1} MB after (RSS at most {:.1}), {} and {} descriptors, {:.1} s",
            self.what,
            megabytes(self.memory),
            megabytes(now.0),
            megabytes(peak),
            self.descriptors,
            now.1,
            self.began.elapsed().as_secs_f64(),
        );
        eprintln!("{figures}");
        assert!(now.1 <= self.descriptors, "descriptors do not come back\n{figures}");
        let is_flat = now.0 <= self.memory + spare;
        assert!(is_flat, "memory is not flat\n{figures}\n{}", largest(daemon));
        assert_eq!(term(daemon), self.term, "{}: the term changed", self.what);
    }
}

pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

/// Memory that is the process's own, in bytes.
pub(crate) fn memory(daemon: &Daemon) -> u64 {
    status_kib(daemon, "RssAnon:") * 1_024
}

/// The most memory it ever had, with what it shares.
pub(crate) fn peak(daemon: &Daemon) -> u64 {
    status_kib(daemon, "VmHWM:") * 1_024
}

fn status_kib(daemon: &Daemon, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Where most of that is: the mappings with more than a megabyte of it.
fn largest(daemon: &Daemon) -> String {
    let maps = fs::read_to_string(format!("/proc/{}/smaps", daemon.pid())).unwrap();
    let (mut mapping, mut found) = ("", String::new());
    for line in maps.lines() {
        let kib = line.strip_prefix("Anonymous:").and_then(|rest| rest.trim().strip_suffix(" kB"));
        match kib.map(|kib| kib.parse::<u64>().unwrap()) {
            Some(1_024..) => found += &format!("{mapping}: {line}\n"),
            None if line.contains('-') => mapping = line,
            Some(_) | None => {}
        }
    }
    found
}

/// Open descriptors.
pub(crate) fn descriptors(daemon: &Daemon) -> usize {
    fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count()
}

/// Connections of clients, those that are being closed too.
fn sockets(daemon: &Daemon) -> usize {
    const TIME_WAIT: &str = "06";
    const LISTEN: &str = "0A";
    let port = daemon.url().rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
    let table = fs::read_to_string(format!("/proc/{}/net/tcp", daemon.pid())).unwrap();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ours = rows.filter(|row| row[1].ends_with(&format!(":{port:04X}")));
    ours.filter(|row| ![TIME_WAIT, LISTEN].contains(&row[3])).count()
}

/// CPU time so far.
pub(crate) fn cpu(daemon: &Daemon) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Raft's term, as every answer tells it.
#[track_caller]
pub(crate) fn term(daemon: &Daemon) -> String {
    let answer = try_http("GET", &format!("{}/v2/keys/", daemon.url()), "").unwrap();
    answer.header("X-Raft-Term").unwrap().to_owned()
}

/// Lets this test program have as many descriptors as it may; the daemons it starts have to see to
/// theirs. `false` when that is less than `wanted`.
pub(crate) fn allow_descriptors(wanted: u64) -> bool {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let most = maximum.unwrap_or(u64::MAX);
    let enough = current.unwrap_or(u64::MAX).max(wanted.min(most));
    setrlimit(Resource::Nofile, Rlimit { current: Some(enough), maximum }).unwrap();
    enough >= wanted
}
