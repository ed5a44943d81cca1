//! When a resource may replace its file and tell its service.
//!
//! Why: a service can be told too often. What is put off is never dropped: the pass waits, and
//! then renders what the keys are by that time.
//!
//! Invariants:
//! * A restart and an edit of the resource forget nothing: the time of the last reload is in the
//!   mark of its file. It is by a clock that can be set, so no pause is longer than was asked for.
//!
//! Deliberately not here: waiting (`tender`).

use crate::base::time::WallTime;
use crate::render::resource::Resource;
use crate::render::status::Waiting;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// What keeps one resource from replacing its file now.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Shortest time between two reloads.
    interval: Duration,
    /// When the next reload may begin, as far as `interval` goes.
    rested: Option<Instant>,
}

impl Gate {
    pub(crate) fn of(resource: &Resource) -> Self {
        Self { interval: resource.min_reload_interval, rested: None }
    }

    /// A reload begins.
    pub(crate) fn reloads(&mut self) {
        self.rested = Some(Instant::now() + self.interval);
    }

    /// A reload began then.
    pub(crate) fn recall(&mut self, reloaded: WallTime) {
        let since = Duration::from_nanos(wall_now().0.saturating_sub(reloaded.0));
        self.rested = Some(Instant::now() + self.interval.saturating_sub(since));
    }

    /// Until when it is shut, and by what; `None` = it is open.
    pub(crate) fn shut(&self) -> Option<(Instant, Waiting)> {
        let rested = self.rested.filter(|at| *at > Instant::now())?;
        Some((rested, Waiting::ReloadInterval))
    }
}

/// The time of day, for a mark.
pub(crate) fn wall_now() -> WallTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    WallTime(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_holds_nothing_up_for_longer() {
        let mut gate = Gate { interval: Duration::from_secs(60), rested: None };
        let now = wall_now().0;
        let minute = 60_000_000_000;
        for (reloaded, longest) in [(now, 60), (now + 100 * minute, 60), (now - minute / 2, 31)] {
            gate.recall(WallTime(reloaded));
            let (until, waiting) = gate.shut().unwrap();
            assert_eq!(waiting, Waiting::ReloadInterval);
            assert!(until <= Instant::now() + Duration::from_secs(longest));
        }
        gate.recall(WallTime(now - 2 * minute));
        assert_eq!(gate.shut(), None);
    }
}
