//! What this process takes of its host, as the kernel counts it.
//!
//! Read from `/proc` when somebody asks, never in between. A number that cannot be read is left
//! out rather than guessed. What is changed here is how many descriptors the process may have, and
//! that its children get none it inherited.
//!
//! Source: proc_pid_stat(5); the names and units a Prometheus client library gives a process.

use crate::base::limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;
use std::io;

/// One look at this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU time, user and system together.
    pub cpu_seconds: f64,
    /// Memory that is really there.
    pub resident_bytes: u64,
    /// Addresses that are mapped.
    pub virtual_bytes: u64,
    /// When it began, in seconds since 1970.
    pub started_seconds: f64,
    /// Descriptors in use.
    pub open_descriptors: u64,
    /// Descriptors it may have.
    pub descriptors_max: u64,
}

/// Looks at this process; `None` without a readable `/proc`.
#[must_use]
pub fn look() -> Option<Usage> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let descriptors = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    let mut usage = read_stat(&stat, boot)?;
    // The directory that was just read is one of them.
    usage.open_descriptors = descriptors.saturating_sub(1);
    usage.descriptors_max = descriptors_max();
    Some(usage)
}

/// Descriptors this process may have.
#[must_use]
pub fn descriptors_max() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Lets this process have the descriptors its listeners can use, as far as the host allows: shells
/// give 1,024.
///
/// # Errors
/// When the kernel refuses.
pub fn raise_descriptors() -> io::Result<()> {
    let useful = (limits::CONNECTIONS_MAX + limits::DESCRIPTORS_RESERVED) as u64;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(useful, |maximum| maximum.min(useful));
    match current {
        Some(current) if current < wanted => {
            Ok(setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })?)
        }
        Some(_) | None => Ok(()),
    }
}

/// Keeps what this process inherited, beyond the three standard streams, from what it starts: the
/// lock of a script that started us must not live on in a service that a template's command starts.
pub fn keep_inherited_descriptors() {
    const FIRST_OTHER: i32 = 3;
    close_fds::set_fds_cloexec(FIRST_OTHER, &[]);
}

/// Reads the fields of `/proc/PID/stat`; the second, the program's name, may hold anything.
fn read_stat(stat: &str, boot_seconds: u64) -> Option<Usage> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    // The first field here is the third of the manual.
    let number = |field: usize| fields.get(field - 3)?.trim().parse::<u64>().ok();
    let tick_rate = rustix::param::clock_ticks_per_second() as f64;
    let page_bytes = rustix::param::page_size() as u64;
    Some(Usage {
        cpu_seconds: (number(14)? + number(15)?) as f64 / tick_rate,
        resident_bytes: number(24)?.saturating_mul(page_bytes),
        virtual_bytes: number(23)?,
        started_seconds: boot_seconds as f64 + number(22)? as f64 / tick_rate,
        ..Usage::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_can_be_seen() {
        let usage = look().unwrap();
        assert!(usage.resident_bytes > 1_000_000 && usage.virtual_bytes >= usage.resident_bytes);
        assert!(usage.open_descriptors > 2 && usage.open_descriptors < usage.descriptors_max);
        assert!(usage.started_seconds > 1.5e9 && usage.cpu_seconds >= 0.0);
    }

    #[test]
    fn descriptors_are_raised_to_what_the_host_allows() {
        raise_descriptors().unwrap();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let useful = (limits::CONNECTIONS_MAX + limits::DESCRIPTORS_RESERVED) as u64;
        let had = current.unwrap_or(u64::MAX);
        assert!(had >= useful.min(maximum.unwrap_or(u64::MAX)), "{current:?} of {maximum:?}");
    }

    #[test]
    fn a_strange_program_name_moves_no_field() {
        let tail = "S 1 1 1 0 -1 4 9 0 0 0 300 200 0 0 20 0 3 0 5000 8192 7 18446744073709551615";
        let usage = read_stat(&format!("42 (a) b) {tail}"), 1_000).unwrap();
        let tick_rate = rustix::param::clock_ticks_per_second() as f64;
        assert!((usage.cpu_seconds - 500.0 / tick_rate).abs() < 1e-9);
        assert_eq!(usage.virtual_bytes, 8_192);
        assert_eq!(usage.resident_bytes, 7 * rustix::param::page_size() as u64);
        assert!((usage.started_seconds - 1_000.0 - 5_000.0 / tick_rate).abs() < 1e-9);
        assert_eq!(read_stat("42 (a) S 1", 0), None);
    }
}
