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
use crate::render::window::Window;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

/// What keeps one resource from replacing its file now.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Shortest time between two reloads.
    interval: Duration,
    /// When the next reload may begin, as far as `interval` goes.
    rested: Option<Instant>,
    window: Option<Window>,
    /// How much later than the first this host is.
    delay: Duration,
    /// When it is this host's turn.
    turn: Option<Instant>,
}

impl Gate {
    pub(crate) fn of(resource: &Resource, host: &str) -> Self {
        let chance = xxh3_64(format!("{host}\n{}", resource.name).as_bytes());
        let delay = resource.splay.mul_f64(f64::from((chance >> 32) as u32) / f64::from(u32::MAX));
        let (interval, window) = (resource.min_reload_interval, resource.window.clone());
        Self { interval, rested: None, window, delay, turn: None }
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

    /// All hosts have just seen the same.
    pub(crate) fn spreads(&mut self) {
        self.turn = Some(Instant::now() + self.delay);
    }

    /// Until when it is shut, and by what; `None` = it is open.
    pub(crate) fn shut(&self) -> Option<(Instant, Waiting)> {
        let now = Instant::now();
        let opens = self.window.as_ref().map(|window| now + window.opens_in(wall_now()));
        let all = [
            (self.rested, Waiting::ReloadInterval),
            (opens, Waiting::Window),
            (self.turn, Waiting::Turn),
        ];
        let all = all.into_iter().filter_map(|(until, waiting)| Some((until?, waiting)));
        all.filter(|(until, _)| *until > now).max_by_key(|(until, _)| *until)
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
    use std::path::Path;

    fn gate(more: &str, host: &str) -> Gate {
        let text = format!("[template]\nsrc = \"a.tera\"\ndest = \"/a\"\n{more}");
        let resources = crate::render::resource::parse(Path::new("a.toml"), "a", &text);
        Gate::of(&resources.unwrap()[0], host)
    }

    #[test]
    fn hosts_have_turns_of_their_own_that_stay() {
        let delay = |host: u32| gate("splay = \"10s\"", &format!("host{host}")).delay;
        let delays: Vec<Duration> = (0..100).map(delay).collect();
        assert_eq!(delays, (0..100).map(delay).collect::<Vec<_>>());
        assert!(delays.iter().all(|delay| *delay <= Duration::from_secs(10)));
        for second in 0..10 {
            let spread = delays.iter().filter(|delay| delay.as_secs() == second).count();
            assert!((2..=25).contains(&spread), "{spread} hosts in second {second}");
        }
        let mut gate = gate("splay = \"1h\"", "h");
        assert_eq!(gate.shut(), None);
        gate.spreads();
        assert_eq!(gate.shut().unwrap().1, Waiting::Turn);
    }

    #[test]
    fn a_clock_that_was_set_back_holds_nothing_up_for_longer() {
        let mut gate = gate("min_reload_interval = \"60s\"", "h");
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
