//! How much history stays: what the leader's compaction duty asks.
//!
//! Kept are the last `limits::HISTORY_REVISIONS_MIN` revisions, and older ones up to
//! `limits::HISTORY_AGE_MS_MAX`; above `limits::HISTORY_BYTES_MAX` the oldest go whatever the
//! rules before say (bytes win). The machine knows the bytes; nobody stores *when* a revision was
//! made, so every member notes now and then where history stands, and a new leader has its notes
//! ready.
//!
//! Invariant: notes are in order of time and of revision; only one of them is older than the age
//! that counts, so their number is bounded.

use crate::base::limits;
use crate::base::{ClusterTime, Revision};
use std::collections::VecDeque;

/// Notes about the age of history.
#[derive(Debug, Default)]
pub(super) struct HistoryNotes {
    notes: VecDeque<(ClusterTime, Revision)>,
}

impl HistoryNotes {
    /// Notes where history stands, when it is time to.
    pub(super) fn note(&mut self, time: ClusterTime, revision: Revision) {
        let due = self.notes.back().is_none_or(|(last, at)| {
            revision > *at && time.ms_since(*last) >= limits::HISTORY_NOTE_MS
        });
        if due {
            self.notes.push_back((time, revision));
        }
        while self.notes.get(1).is_some_and(|(noted, _)| is_old(time, *noted)) {
            self.notes.pop_front();
        }
    }

    /// The revision to compact to, if there is enough to gain. `within_bytes` is the one that
    /// leaves no more bytes than allowed, when there are more.
    pub(super) fn compaction(
        &self,
        time: ClusterTime,
        revision: Revision,
        compacted: Revision,
        within_bytes: Option<Revision>,
    ) -> Option<Revision> {
        // A little is not worth an entry.
        let worth = compacted.0 + limits::HISTORY_REVISIONS_MIN / 10;
        let by_age = self.by_age(time, revision).filter(|target| target.0 >= worth);
        by_age.max(within_bytes.filter(|target| *target > compacted))
    }

    fn by_age(&self, time: ClusterTime, revision: Revision) -> Option<Revision> {
        let (noted, at) = self.notes.front()?;
        let young = revision.0.saturating_sub(limits::HISTORY_REVISIONS_MIN);
        is_old(time, *noted).then(|| (*at).min(Revision(young)))
    }
}

fn is_old(time: ClusterTime, noted: ClusterTime) -> bool {
    time.ms_since(noted) >= limits::HISTORY_AGE_MS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One revision a second.
    fn after(seconds: u64) -> HistoryNotes {
        let mut notes = HistoryNotes::default();
        (1..=seconds).for_each(|at| notes.note(ClusterTime(at * 1_000), Revision(at)));
        notes
    }

    fn compaction(seconds: u64, within_bytes: Option<u64>) -> Option<u64> {
        let (time, revision) = (ClusterTime(seconds * 1_000), Revision(seconds));
        let notes = after(seconds);
        let upto = notes.compaction(time, revision, Revision(0), within_bytes.map(Revision));
        upto.map(|upto| upto.0)
    }

    #[test]
    fn the_youngest_revisions_stay_however_old() {
        assert_eq!(compaction(3_000, None), None);
        assert_eq!(compaction(10_500, None), None);
        assert_eq!(compaction(12_000, None), Some(2_000));
        let most = limits::HISTORY_AGE_MS_MAX / limits::HISTORY_NOTE_MS + 2;
        assert!(after(50_000).notes.len() as u64 <= most);
    }

    #[test]
    fn bytes_win() {
        assert_eq!(compaction(300, Some(70)), Some(70));
        assert_eq!(compaction(12_000, Some(70)), Some(2_000));
        assert_eq!(compaction(12_000, Some(9_000)), Some(9_000));
    }
}
