//! What this member counts of itself, for monitoring.
//!
//! Why on this floor: only the driver, its helpers and the waist see flushes, checkpoints and what
//! became of a proposal. They count here, with a few relaxed atomics and no lock; whoever asks
//! (`Handle::figures`) gets a copy, and a door gives the numbers their public names.
//!
//! Invariants:
//! * Counters start at 0 with the process and only grow; nothing waits in order to count.
//! * A proposal counts once: done, refused by the store, or unserved; one whose client left counts
//!   as nothing.
//!
//! Deliberately not here: names, labels and text of any monitoring system (`api::metrics`).

use crate::base::{LogIndex, Revision};
use crate::machine::{Action, Answer, Change, Command, event_of};
use crate::node::handle::Unserved;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper end of the first bucket of a `Timings`; each next one is twice as long.
const FIRST_BUCKET_NANOS: u64 = 16_000;
/// Buckets with an end: 16 us to 8.4 s. What takes longer is in one more.
const BUCKETS: usize = 20;
/// v2's kinds of writes, in the order of their numbers on disk.
const ACTIONS: [Action; 7] = [
    Action::Set,
    Action::Create,
    Action::Update,
    Action::CompareAndSwap,
    Action::Delete,
    Action::CompareAndDelete,
    Action::Expire,
];

/// How long something took, each time.
#[derive(Debug, Default)]
pub(super) struct Timings {
    buckets: [AtomicU64; BUCKETS + 1],
    sum_nanos: AtomicU64,
}

impl Timings {
    pub(super) fn record(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let steps = nanos.div_ceil(FIRST_BUCKET_NANOS).max(1);
        let bucket = steps
            .checked_next_power_of_two()
            .map_or(BUCKETS, |power| usize::try_from(power.trailing_zeros()).unwrap_or(BUCKETS));
        if let Some(count) = self.buckets.get(bucket.min(BUCKETS)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    fn seen(&self) -> Durations {
        let mut counts = self.buckets.iter().map(load);
        let ends = (0..BUCKETS).map(|power| Duration::from_nanos(FIRST_BUCKET_NANOS << power));
        let buckets: Vec<_> = ends.zip(counts.by_ref()).collect();
        let longer = counts.sum();
        Durations { buckets, longer, sum: Duration::from_nanos(load(&self.sum_nanos)) }
    }
}

/// How long something took so far: a histogram.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// The longest duration of each bucket, and how many fell into it (and into no shorter one).
    pub buckets: Vec<(Duration, u64)>,
    /// How many took longer than the last bucket's.
    pub longer: u64,
    /// All of them together.
    pub sum: Duration,
}

/// How often something was tried, by its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// It was done.
    pub done: u64,
    /// The store refused it.
    pub refused: u64,
}

/// A member's numbers at one moment, each counted since its process began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Flushes of the log.
    pub flushes: Durations,
    /// Checkpoints written to the database.
    pub checkpoints: Durations,
    /// Writes clients asked this member for, and what expired here, by kind.
    pub writes: Vec<(Action, Tally)>,
    /// Proposals without a verdict: no leader, a full queue, no answer in time.
    pub unserved: u64,
    /// Proposals without an answer so far.
    pub pending: u64,
    /// Leaders this member has seen come.
    pub leader_changes: u64,
    /// The highest entry known to be committed, a tick ago at most.
    pub committed: LogIndex,
    /// The oldest revision that can be read.
    pub compacted: Revision,
    /// Registered watchers.
    pub watchers: usize,
    /// Memory held by records that are not yet in the database, in bytes, a tick ago.
    pub overlay_bytes: u64,
    /// History that is kept, in bytes, roughly, a tick ago.
    pub history_bytes: u64,
    /// The database file, in bytes.
    pub database_bytes: u64,
}

impl Figures {
    /// The writes of one kind.
    #[must_use]
    pub fn writes_of(&self, action: Action) -> Tally {
        let found = self.writes.iter().find(|(kind, _)| *kind == action);
        found.map_or(Tally::default(), |(_, tally)| *tally)
    }
}

/// The counters of one member.
#[derive(Debug, Default)]
pub(super) struct Meters {
    pub(super) flushes: Timings,
    pub(super) checkpoints: Timings,
    done: [AtomicU64; ACTIONS.len()],
    refused: [AtomicU64; ACTIONS.len()],
    unserved: AtomicU64,
    pending: AtomicU64,
    leader_changes: AtomicU64,
    committed: AtomicU64,
    overlay_bytes: AtomicU64,
    history_bytes: AtomicU64,
}

impl Meters {
    /// Counts a proposal in; its end is told to what this returns.
    pub(super) fn begin(&self, commands: &[Command]) -> Pending<'_> {
        self.pending.fetch_add(1, Ordering::Relaxed);
        let action = if let [only] = commands { action_of(only) } else { None };
        Pending { meters: self, action }
    }

    /// Counts what expired.
    pub(super) fn published(&self, changes: &[Change]) {
        let expired = |change: &&Change| change.record.action == Action::Expire as u8;
        let events = changes.iter().filter(expired).filter(|change| event_of(change).is_some());
        let count = events.count() as u64;
        if count > 0 {
            add(&self.done, Action::Expire, count);
        }
    }

    pub(super) fn leader_came(&self) {
        self.leader_changes.fetch_add(1, Ordering::Relaxed);
    }

    /// How far things are, and how large.
    pub(super) fn ticked(&self, committed: LogIndex, overlay_bytes: usize, history_bytes: u64) {
        self.committed.store(committed.0, Ordering::Relaxed);
        self.overlay_bytes.store(overlay_bytes as u64, Ordering::Relaxed);
        self.history_bytes.store(history_bytes, Ordering::Relaxed);
    }

    /// A copy of everything; what others know is given.
    pub(super) fn figures(&self, compacted: Revision, watchers: usize, database: usize) -> Figures {
        let tally = |(done, refused)| Tally { done: load(done), refused: load(refused) };
        let tallies = self.done.iter().zip(&self.refused).map(tally);
        Figures {
            flushes: self.flushes.seen(),
            checkpoints: self.checkpoints.seen(),
            writes: ACTIONS.into_iter().zip(tallies).collect(),
            unserved: load(&self.unserved),
            pending: load(&self.pending),
            leader_changes: load(&self.leader_changes),
            committed: LogIndex(load(&self.committed)),
            compacted,
            watchers,
            overlay_bytes: load(&self.overlay_bytes),
            history_bytes: load(&self.history_bytes),
            database_bytes: database as u64,
        }
    }
}

/// A proposal on its way; dropped without an end when its client has left.
pub(super) struct Pending<'a> {
    meters: &'a Meters,
    action: Option<Action>,
}

impl Pending<'_> {
    pub(super) fn ended(self, end: &Result<Answer, Unserved>) {
        match (end, self.action) {
            (Err(_), _) => _ = self.meters.unserved.fetch_add(1, Ordering::Relaxed),
            (Ok(answer), Some(action)) if answer.verdict.is_ok() => {
                add(&self.meters.done, action, 1);
            }
            (Ok(_), Some(action)) => add(&self.meters.refused, action, 1),
            (Ok(_), None) => {}
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.meters.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The kind of write a command is; `None` for what no client of v2 asks.
fn action_of(command: &Command) -> Option<Action> {
    match command {
        Command::Set(_) => Some(Action::Set),
        Command::Create(_) | Command::CreateInOrder(_) => Some(Action::Create),
        Command::Update(_) => Some(Action::Update),
        Command::CompareAndSwap(..) => Some(Action::CompareAndSwap),
        Command::Delete { .. } => Some(Action::Delete),
        Command::CompareAndDelete { .. } => Some(Action::CompareAndDelete),
        Command::Clock | Command::Expire(_) | Command::Compact { .. } => None,
    }
}

fn add(counters: &[AtomicU64; ACTIONS.len()], action: Action, count: u64) {
    let at = ACTIONS.iter().position(|known| *known == action);
    if let Some(counter) = at.and_then(|at| counters.get(at)) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_shortest_bucket_that_holds_it() {
        let timings = Timings::default();
        let micros = [0, 16, 17, 32, 33, 8_388_608, 8_388_609, 999_999_999_999];
        for took in micros {
            timings.record(Duration::from_micros(took));
        }
        let seen = timings.seen();
        let filled: Vec<_> = seen
            .buckets
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(end, count)| (end.as_micros(), *count))
            .collect();
        assert_eq!(filled, [(16, 2), (32, 2), (64, 1), (8_388_608, 1)]);
        assert_eq!((seen.longer, seen.buckets.len()), (2, BUCKETS));
        assert_eq!(seen.sum, Duration::from_micros(micros.iter().sum()));
    }

    #[test]
    fn a_proposal_counts_by_its_end_and_stops_being_pending() {
        let meters = Meters::default();
        let figures = || meters.figures(Revision(1), 0, 0);
        let delete = [Command::Clock];
        let pending = meters.begin(&delete);
        assert_eq!(figures().pending, 1);
        pending.ended(&Err(Unserved::Busy));
        drop(meters.begin(&delete));
        let figures = figures();
        assert_eq!((figures.pending, figures.unserved), (0, 1));
        assert_eq!(figures.writes_of(Action::Set), Tally::default());
    }
}
