//! The Raft log in memory: what `raft::Storage` asks for.
//!
//! Raft reads its log synchronously and often, so the part it may ask for lives here: every entry
//! above the last checkpoint's applied index, and below it a bounded tail for slow followers. The
//! WAL makes the same entries durable; this type never touches a disk.
//!
//! How data passes: the owner appends a `Ready`'s entries here before it advances Raft, and gives
//! the same entries to the WAL. After a checkpoint it calls `compact`, whose answer is what the
//! WAL may release. A snapshot that was installed calls `restore`.
//!
//! Invariants:
//! * Entries are contiguous and start right after the *point*, whose term stays answerable.
//! * Nothing at or below the commit index is ever cut off the end.
//! * The point never passes the last checkpoint, so every entry a restart needs is still here.
//!
//! Deliberately not here: building snapshots. `snapshot` notes that one is wanted and answers
//! "temporarily unavailable" until the owner offers one; Raft asks again.
//!
//! Sources: contracts/raft.md sections 1, 4 and 9; raft 0.7 `storage.rs` for what each verb owes.

use crate::base::limits;
use crate::base::{LogIndex, Term};
use crate::store::wal::Recovered;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use std::cell::Cell;
use std::collections::VecDeque;

/// What an entry costs besides its data and context: an upper bound of its message fields, so
/// that a message never exceeds the size Raft asked for.
const ENTRY_OVERHEAD_BYTES: usize = 40;

/// The tail of the Raft log. Owned by `RawNode`; one thread.
#[derive(Debug, Default)]
pub struct Log {
    hard_state: HardState,
    conf_state: ConfState,
    /// The position right before the first entry.
    point: (LogIndex, Term),
    entries: VecDeque<Entry>,
    entries_bytes: usize,
    offered: Option<Snapshot>,
    /// Interior, because `Storage` asks through `&self`.
    snapshot_wanted: Cell<bool>,
}

impl Log {
    /// The log as the WAL recovered it. `conf_state` is the one of the checkpoint.
    ///
    /// When what comes before the first entry was released, that entry becomes the point: it is
    /// at or below what the last checkpoint holds.
    ///
    /// # Panics
    /// When the entries are not contiguous.
    #[must_use]
    pub fn recovered(recovered: Recovered, conf_state: ConfState) -> Self {
        let point = recovered.snapshot.unwrap_or_default();
        let mut log =
            Self { hard_state: recovered.hard_state, conf_state, point, ..Self::default() };
        let mut entries = recovered.entries.as_slice();
        if let Some((first, rest)) =
            entries.split_first().filter(|(it, _)| it.index != point.0.next().0)
        {
            log.point = (LogIndex(first.index), Term(first.term));
            entries = rest;
        }
        log.append_unchecked(entries);
        log
    }

    /// Index and term right before the first entry.
    #[must_use]
    pub fn point(&self) -> (LogIndex, Term) {
        self.point
    }

    /// Index of the last entry, or the point when there is none.
    #[must_use]
    pub fn last(&self) -> LogIndex {
        self.entries.back().map_or(self.point.0, |entry| LogIndex(entry.index))
    }

    /// The hard state.
    #[must_use]
    pub fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    /// The membership.
    #[must_use]
    pub fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    /// Bytes of the entries held, data and context.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.entries_bytes
    }

    /// Replaces the hard state. On restart its commit must be raised to the applied index first,
    /// or Raft ends the process.
    pub fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    /// Replaces the membership.
    pub fn set_conf_state(&mut self, conf_state: ConfState) {
        self.conf_state = conf_state;
    }

    /// Appends contiguous entries; those from the first one's index on are cut off before.
    ///
    /// # Panics
    /// When they leave a gap, or would cut off something committed.
    pub fn append(&mut self, entries: &[Entry]) {
        if let Some(first) = entries.first() {
            let (commit, last) = (self.hard_state.commit, self.last());
            let cuts = first.index <= last.0;
            assert!(!cuts || first.index > commit, "entry {} overwrites a committed", first.index);
        }
        self.append_unchecked(entries);
    }

    fn append_unchecked(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else {
            return;
        };
        assert!(first.index > self.point.0.0, "entry {} is compacted", first.index);
        assert!(first.index <= self.last().0 + 1, "entry {} leaves a gap", first.index);
        while let Some(cut) = self.entries.pop_back_if(|entry| entry.index >= first.index) {
            self.entries_bytes -= held_bytes(&cut);
        }
        for entry in entries {
            assert!(entry.index == self.last().0 + 1, "entry {} is not contiguous", entry.index);
            self.entries_bytes += held_bytes(entry);
            self.entries.push_back(entry.clone());
        }
    }

    /// Lets go of the oldest entries at or below `checkpoint` (the applied index of the last
    /// durable checkpoint). For slow followers, at most `LOG_CACHE_ENTRIES_MAX` and
    /// `LOG_CACHE_BYTES_MAX` of them stay; a member that is alone needs none. Returns the new
    /// point, which is what the WAL may release.
    ///
    /// # Panics
    /// When the log does not reach `checkpoint`.
    pub fn compact(&mut self, checkpoint: LogIndex) -> LogIndex {
        assert!(checkpoint <= self.last(), "the checkpoint {checkpoint} is ahead of the log");
        let newer = self.entries.iter().rev().take_while(|entry| entry.index > checkpoint.0);
        let newer_bytes: usize = newer.map(held_bytes).sum();
        let (entries_max, bytes_max) = match self.is_alone() {
            true => (0, 0),
            false => (limits::LOG_CACHE_ENTRIES_MAX as u64, limits::LOG_CACHE_BYTES_MAX),
        };
        let too_many = |log: &Self| {
            let older = checkpoint.0.saturating_sub(log.point.0.0);
            older > entries_max || log.entries_bytes - newer_bytes > bytes_max
        };
        while too_many(self) {
            let Some(entry) = self.entries.pop_front() else { break };
            self.entries_bytes -= held_bytes(&entry);
            self.point = (LogIndex(entry.index), Term(entry.term));
        }
        self.point.0
    }

    /// Whether there is nobody to send entries to.
    fn is_alone(&self) -> bool {
        let conf = &self.conf_state;
        let members = [&conf.voters, &conf.voters_outgoing, &conf.learners, &conf.learners_next];
        members.iter().map(|group| group.len()).sum::<usize>() <= 1
    }

    /// Restarts the log after a snapshot that was installed.
    pub fn restore(&mut self, index: LogIndex, term: Term, conf_state: ConfState) {
        assert!(index > self.point.0, "a snapshot at {index} goes back");
        self.point = (index, term);
        self.entries.clear();
        self.entries_bytes = 0;
        self.conf_state = conf_state;
        self.hard_state.commit = self.hard_state.commit.max(index.0);
        self.hard_state.term = self.hard_state.term.max(term.0);
        self.offered = None;
    }

    /// Places a snapshot that is ready to be sent. It is handed out until the log is compacted
    /// past it or another one is offered.
    pub fn offer_snapshot(&mut self, snapshot: Snapshot) {
        self.offered = Some(snapshot);
    }

    /// Takes the offered snapshot back, once its data is gone.
    pub fn withdraw_snapshot(&mut self) {
        self.offered = None;
    }

    /// Whether Raft asked for a snapshot and got none since this was called last.
    pub fn take_snapshot_request(&self) -> bool {
        self.snapshot_wanted.take()
    }

    /// Position in `entries` of this index.
    fn position(&self, index: u64) -> usize {
        usize::try_from(index.saturating_sub(self.point.0.0 + 1)).unwrap_or(usize::MAX)
    }
}

/// Bytes an entry counts for in the cache.
fn held_bytes(entry: &Entry) -> usize {
    entry.data.len() + entry.context.len() + ENTRY_OVERHEAD_BYTES
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.point.0.0 {
            return Err(StorageError::Compacted.into());
        }
        assert!(high <= self.last().0 + 1, "entries up to {high} were asked for");
        let mut left = max_size.into().unwrap_or(u64::MAX);
        let mut taken = Vec::new();
        let (start, count) = (self.position(low), high.saturating_sub(low));
        for entry in self.entries.iter().skip(start).take(usize::try_from(count).unwrap_or(0)) {
            let bytes = held_bytes(entry) as u64;
            if bytes > left && !taken.is_empty() {
                break;
            }
            left = left.saturating_sub(bytes);
            taken.push(entry.clone());
        }
        Ok(taken)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let (point, term) = self.point;
        if index == point.0 {
            return Ok(term.0);
        }
        if index < point.0 {
            return Err(StorageError::Compacted.into());
        }
        let entry = self.entries.get(self.position(index));
        entry.map(|entry| entry.term).ok_or_else(|| StorageError::Unavailable.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.point.0.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last().0)
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        // Older than the point, it would leave its follower before a gap.
        let needed = request_index.max(self.point.0.0);
        match &self.offered {
            Some(snapshot) if snapshot.get_metadata().index >= needed => Ok(snapshot.clone()),
            Some(_) | None => {
                self.snapshot_wanted.set(true);
                Err(StorageError::SnapshotTemporarilyUnavailable.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64, bytes: usize) -> Entry {
        Entry { index, term, data: vec![0; bytes].into(), ..Entry::default() }
    }

    fn entries(from: u64, to: u64, term: u64) -> Vec<Entry> {
        (from..=to).map(|index| entry(index, term, 10)).collect()
    }

    fn read(log: &Log, low: u64, high: u64, max: Option<u64>) -> raft::Result<Vec<u64>> {
        let found = log.entries(low, high, max, GetEntriesContext::empty(false))?;
        Ok(found.iter().map(|entry| entry.index).collect())
    }

    fn is(error: &raft::Error, expected: &StorageError) -> bool {
        matches!(error, raft::Error::Store(found) if found == expected)
    }

    /// Point (5, 2), entries 6 to 10 of term 2.
    fn sample() -> Log {
        let recovered = Recovered {
            snapshot: Some((LogIndex(5), Term(2))),
            entries: entries(6, 10, 2),
            ..Recovered::default()
        };
        Log::recovered(recovered, ConfState::default())
    }

    #[test]
    fn an_empty_log_starts_at_one() {
        let log = Log::default();
        assert_eq!((log.first_index().unwrap(), log.last_index().unwrap()), (1, 0));
        assert_eq!(log.term(0).unwrap(), 0);
        assert!(is(&log.term(1).unwrap_err(), &StorageError::Unavailable));
        assert_eq!(log.initial_state().unwrap().hard_state, HardState::default());
    }

    #[test]
    fn terms_are_known_from_the_point_on() {
        let log = sample();
        assert_eq!((log.first_index().unwrap(), log.last_index().unwrap()), (6, 10));
        assert!(is(&log.term(4).unwrap_err(), &StorageError::Compacted));
        assert_eq!(log.term(5).unwrap(), 2);
        assert_eq!(log.term(10).unwrap(), 2);
        assert!(is(&log.term(11).unwrap_err(), &StorageError::Unavailable));
    }

    #[test]
    fn without_its_predecessor_the_first_entry_is_the_point() {
        let recovered = Recovered { entries: entries(7, 9, 3), ..Recovered::default() };
        let log = Log::recovered(recovered, ConfState::default());
        assert_eq!(log.point(), (LogIndex(7), Term(3)));
        assert_eq!(read(&log, 8, 10, None).unwrap(), [8, 9]);
        assert!(is(&read(&log, 7, 9, None).unwrap_err(), &StorageError::Compacted));
    }

    #[test]
    fn reads_stop_at_the_size_but_give_one_entry() {
        let log = sample();
        let one = held_bytes(&entry(6, 2, 10)) as u64;
        let cases = [
            (6, 11, None, vec![6, 7, 8, 9, 10]),
            (7, 9, None, vec![7, 8]),
            (6, 11, Some(2 * one), vec![6, 7]),
            (6, 11, Some(2 * one - 1), vec![6]),
            (6, 11, Some(0), vec![6]),
            (11, 11, None, vec![]),
        ];
        for (low, high, max, expected) in cases {
            assert_eq!(read(&log, low, high, max).unwrap(), expected, "{low} {high} {max:?}");
        }
    }

    #[test]
    fn an_overlapping_append_cuts_the_tail() {
        let mut log = sample();
        log.append(&entries(8, 9, 3));
        assert_eq!(log.last(), LogIndex(9));
        assert_eq!((log.term(7).unwrap(), log.term(8).unwrap()), (2, 3));
        assert_eq!(log.bytes(), 4 * held_bytes(&entry(6, 2, 10)));
        log.append(&[]);
        log.append(&entries(10, 12, 3));
        assert_eq!(log.last(), LogIndex(12));
    }

    #[test]
    #[should_panic(expected = "overwrites a committed")]
    fn committed_entries_stay() {
        let mut log = sample();
        log.set_hard_state(HardState { term: 3, commit: 8, ..HardState::default() });
        log.append(&entries(8, 8, 3));
    }

    #[test]
    #[should_panic(expected = "leaves a gap")]
    fn gaps_are_refused() {
        sample().append(&entries(12, 12, 3));
    }

    #[test]
    fn compaction_keeps_a_bounded_tail_and_all_above_the_checkpoint() {
        let two = || {
            let conf_state = ConfState { voters: vec![1, 2], ..ConfState::default() };
            Log { conf_state, ..Log::default() }
        };
        let mut log = two();
        let count = limits::LOG_CACHE_ENTRIES_MAX as u64;
        log.append(&entries(1, count + 100, 1));
        assert_eq!(log.compact(LogIndex(50)), LogIndex(0));
        assert_eq!(log.compact(LogIndex(count + 30)), LogIndex(30));
        assert_eq!((log.term(30).unwrap(), log.last()), (1, LogIndex(count + 100)));
        assert!(is(&log.term(29).unwrap_err(), &StorageError::Compacted));

        let mut log = two();
        let quarter = limits::LOG_CACHE_BYTES_MAX / 4;
        log.append(&(1..=10).map(|index| entry(index, 1, quarter)).collect::<Vec<_>>());
        assert_eq!(log.compact(LogIndex(2)), LogIndex(0));
        assert_eq!(log.compact(LogIndex(8)), LogIndex(5));
        assert_eq!(log.last(), LogIndex(10));

        let mut log = Log::default();
        log.append(&entries(1, 10, 1));
        assert_eq!(log.compact(LogIndex(8)), LogIndex(8), "nobody needs them");
    }

    #[test]
    fn a_snapshot_restarts_the_log() {
        let mut log = sample();
        let conf_state = ConfState { voters: vec![1, 2], ..ConfState::default() };
        log.restore(LogIndex(20), Term(4), conf_state.clone());
        assert_eq!((log.first_index().unwrap(), log.last_index().unwrap()), (21, 20));
        assert_eq!(log.term(20).unwrap(), 4);
        assert_eq!((log.hard_state().commit, log.hard_state().term), (20, 4));
        assert_eq!((log.conf_state(), log.bytes()), (&conf_state, 0));
        log.append(&entries(21, 22, 4));
        assert_eq!(read(&log, 21, 23, None).unwrap(), [21, 22]);
    }

    #[test]
    fn snapshots_are_wanted_until_offered() {
        let mut log = sample();
        let unavailable = StorageError::SnapshotTemporarilyUnavailable;
        assert!(!log.take_snapshot_request());
        assert!(is(&log.snapshot(0, 2).unwrap_err(), &unavailable));
        assert!(log.take_snapshot_request() && !log.take_snapshot_request());
        let mut snapshot = Snapshot::default();
        snapshot.mut_metadata().index = 4;
        log.offer_snapshot(snapshot.clone());
        assert!(is(&log.snapshot(0, 2).unwrap_err(), &unavailable), "older than the point");
        snapshot.mut_metadata().index = 9;
        log.offer_snapshot(snapshot);
        assert_eq!(log.snapshot(9, 2).unwrap().get_metadata().index, 9);
        assert!(log.take_snapshot_request());
        assert!(is(&log.snapshot(10, 2).unwrap_err(), &unavailable));
        log.withdraw_snapshot();
        assert!(log.snapshot(0, 2).is_err() && log.take_snapshot_request());
    }
}
