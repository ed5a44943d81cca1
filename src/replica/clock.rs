//! The cluster's clock, as its leader keeps it.
//!
//! Cluster time is milliseconds during which a leader lived. A new leader goes on from the last
//! stamp of its log, so the time in which nobody led does not count and no stamp is ever lower
//! than one before it. The leader's own monotonic clock moves it; a gap between two looks counts
//! at most one election timeout, because a leader that slept longer was no leader (a paused
//! machine must not wake up and expire what nobody could renew).
//!
//! Invariants: stamps never go back along the log; nothing here reads a clock.
//!
//! Sources: DESIGN decision 8.

use crate::base::ClusterTime;
use crate::base::limits;

/// What one gap may add.
const GAP_MS_MAX: u64 = limits::ELECTION_TICKS as u64 * limits::TICK_MS;

/// The clock of one leadership.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeaderClock {
    time: ClusterTime,
    seen_ms: u64,
    logged: ClusterTime,
}

impl LeaderClock {
    /// Starts at the last stamp of the leader's log.
    pub(super) fn start(last_stamp: ClusterTime, now_ms: u64) -> Self {
        Self { time: last_stamp, seen_ms: now_ms, logged: last_stamp }
    }

    /// Lets the time pass that the leader's clock says.
    pub(super) fn advance(&mut self, now_ms: u64) {
        let gap_ms = now_ms.saturating_sub(self.seen_ms).min(GAP_MS_MAX);
        self.time = self.time.plus_ms(gap_ms);
        self.seen_ms = self.seen_ms.max(now_ms);
    }

    /// The time now.
    pub(super) fn time(&self) -> ClusterTime {
        self.time
    }

    /// The time, for an entry that goes into the log.
    pub(super) fn stamp(&mut self) -> ClusterTime {
        self.logged = self.time;
        self.time
    }

    /// Whether the log has not heard of the time for too long.
    pub(super) fn is_silent(&self) -> bool {
        self.time.ms_since(self.logged) >= limits::CLOCK_INTERVAL_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes_with_the_leader_and_stops_with_it() {
        let mut clock = LeaderClock::start(ClusterTime(700), 5_000);
        clock.advance(5_100);
        assert_eq!(clock.stamp(), ClusterTime(800));
        clock.advance(90_000);
        assert_eq!(clock.time(), ClusterTime(800 + GAP_MS_MAX));
        clock.advance(1);
        assert_eq!(clock.time(), ClusterTime(800 + GAP_MS_MAX));
    }

    #[test]
    fn any_entry_tells_the_time() {
        let mut clock = LeaderClock::start(ClusterTime(0), 0);
        let later = |clock: &mut LeaderClock, seconds: u64| {
            (1..=seconds).for_each(|_| clock.advance(clock.seen_ms + 1_000));
        };
        later(&mut clock, 4);
        assert!(!clock.is_silent());
        later(&mut clock, 1);
        assert!(clock.is_silent());
        clock.stamp();
        assert!(!clock.is_silent());
    }
}
