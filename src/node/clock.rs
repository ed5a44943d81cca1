//! The two clocks of this process, and what others may know of the cluster's.
//!
//! This is the only place that asks the system for the time of day. The monotonic clock drives
//! ticks; the wall clock is stamped into entries for people to read. Doors want to know how long a
//! key has still to live: they get the cluster time of the last stamp plus what has passed since.

use crate::base::{ClusterTime, WallTime};
use crate::replica::Now;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The clocks.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    /// Cluster time minus monotonic time at the last stamp, both in ms. Monotonic time starts at 0
    /// with this process and cluster time never below 0, so the difference wraps harmlessly.
    offset_ms: AtomicU64,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { started: Instant::now(), offset_ms: AtomicU64::new(0) }
    }

    fn mono_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The time of an input to the core.
    pub(super) fn now(&self) -> Now {
        Now { mono_ms: self.mono_ms(), wall: wall() }
    }

    /// Learns that the cluster's time is `stamp` now.
    pub(super) fn learn(&self, stamp: ClusterTime) {
        self.offset_ms.store(stamp.0.wrapping_sub(self.mono_ms()), Ordering::Relaxed);
    }

    /// The cluster's time, as far as this member can tell.
    pub(super) fn cluster(&self) -> ClusterTime {
        ClusterTime(self.mono_ms().wrapping_add(self.offset_ms.load(Ordering::Relaxed)))
    }
}

/// The wall clock; the epoch if it stands before it.
pub(super) fn wall() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
