//! What the crash tests share: writers, the checker, a disk that loses power, a tracer that makes
//! system calls fail.
//!
//! A test starts `Writers`, lets something happen to the daemon, collects their calls, starts the
//! daemon again and hands the round to its `Trial`, which reads everything back and asks
//! `history::check`. Nothing here knows how the daemon stores: the checks see only what clients
//! see, so the same test may judge another build (`ALTHING_TEST_BINARY`).
//!
//! Environment: `ALTHING_CRASH_SEED` repeats the choices of a run (not its timing); each test
//! prints the seed it used.

#![allow(dead_code, reason = "each crash test uses its part of this folder")]

pub(crate) mod disk;
pub(crate) mod history;
pub(crate) mod tracer;
mod writers;

pub(crate) use writers::Writers;

use crate::common::Daemon;
use history::{Call, Outcome, Reading, Round, Settled};
use std::env;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where all writes go.
const ROOT: &str = "/crash";
/// Breaches printed when a round fails: one mistake often makes hundreds.
const BREACHES_SHOWN: usize = 20;

/// A small generator of numbers that a seed repeats: Steele, Lea, Flood, `SplitMix64` (2014).
#[derive(Clone, Debug)]
pub(crate) struct Seeded(u64);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A time up to `longest`, short ones more often.
    pub(crate) fn moment(&mut self, longest: Duration) -> Duration {
        let share = f64::from(u16::try_from(self.below(1 << 16)).unwrap()) / f64::from(1 << 16);
        longest.mul_f64(share * share)
    }
}

/// A whole number from the environment, or `otherwise`.
///
/// # Panics
/// When it is set to something else.
pub(crate) fn number(name: &str, otherwise: u64) -> u64 {
    let Some(text) = env::var_os(name) else { return otherwise };
    let number = text.to_str().and_then(|text| text.parse().ok());
    number.unwrap_or_else(|| panic!("{name}={}: not a whole number", text.display()))
}

/// The run's seed: `ALTHING_CRASH_SEED`, or the same new one wherever it is asked for.
pub(crate) fn seed() -> u64 {
    static NEW: OnceLock<u64> = OnceLock::new();
    *NEW.get_or_init(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        number("ALTHING_CRASH_SEED", u64::from(now.subsec_nanos()))
    })
}

/// What one test did, round after round on one data directory.
pub(crate) struct Trial {
    test: &'static str,
    seed: u64,
    pub(crate) choices: Seeded,
    clock: Instant,
    deadline: Instant,
    settled: Settled,
    rounds: u64,
    acknowledged: usize,
    refused: usize,
    unknown: usize,
    slowest_start: Duration,
}

impl Trial {
    /// Reads what the daemon holds and starts the clock. The test must end `within`.
    #[track_caller]
    pub(crate) fn begin(test: &'static str, daemon: &Daemon, within: Duration) -> Self {
        let seed = seed();
        eprintln!("{test}: ALTHING_CRASH_SEED={seed}");
        let clock = Instant::now();
        Self {
            test,
            seed,
            choices: Seeded::new(seed),
            clock,
            deadline: clock + within,
            settled: Settled::at(&writers::read_all(daemon.url(), clock)),
            rounds: 0,
            acknowledged: 0,
            refused: 0,
            unknown: 0,
            slowest_start: daemon.served_after(),
        }
    }

    /// Starts the writers of the next round.
    #[track_caller]
    pub(crate) fn writers(&mut self, daemon: &Daemon) -> Writers {
        assert!(Instant::now() < self.deadline, "{self:?} is not done in time");
        self.rounds += 1;
        let seed = self.choices.next();
        Writers::start(daemon.url(), self.rounds, seed, self.clock, self.deadline)
    }

    /// Reads everything from the daemon, which was started `starts` times since the last reading,
    /// and judges the round.
    ///
    /// # Errors
    /// The breaches.
    pub(crate) fn judge(
        &mut self,
        daemon: &Daemon,
        (calls, readings): (Vec<Call>, Vec<Reading>),
        starts: u64,
    ) -> Result<(), Vec<String>> {
        for call in &calls {
            match call.outcome {
                Outcome::Done(..) => self.acknowledged += 1,
                Outcome::Refused(_) => self.refused += 1,
                Outcome::Unknown => self.unknown += 1,
            }
        }
        self.slowest_start = self.slowest_start.max(daemon.served_after());
        let after = writers::read_all(daemon.url(), self.clock);
        let round = Round { calls, readings, starts, after };
        self.settled = history::check(&self.settled, &round)?;
        Ok(())
    }

    /// `judge` where a breach fails the test.
    #[track_caller]
    pub(crate) fn expect_clean(
        &mut self,
        daemon: &Daemon,
        seen: (Vec<Call>, Vec<Reading>),
        starts: u64,
    ) {
        let Err(breaches) = self.judge(daemon, seen, starts) else { return };
        let shown = breaches[..breaches.len().min(BREACHES_SHOWN)].join("\n");
        panic!("{} breaches in {self:?}:\n{shown}", breaches.len());
    }

    /// Says what was done, and that it was enough to prove something.
    #[track_caller]
    pub(crate) fn end(self) {
        eprintln!("{self:?}");
        assert!(self.acknowledged > 0, "nothing was acknowledged");
        assert!(self.unknown > 0, "no request was under way when the daemon died");
    }
}

impl std::fmt::Debug for Trial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { test, seed, rounds, acknowledged, refused, unknown, slowest_start, .. } = self;
        write!(
            f,
            "{test}: seed {seed}, round {rounds}, {acknowledged} writes acknowledged, \
             {refused} refused, {unknown} unknown; slowest start to serving {slowest_start:.3?}"
        )
    }
}
