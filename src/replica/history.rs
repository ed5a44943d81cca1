//! How much history stays: what the leader's compaction duty asks.
//!
//! Kept are the last `limits::HISTORY_REVISIONS_MIN` revisions, and older ones up to
//! `limits::HISTORY_AGE_MS_MAX`; above `limits::HISTORY_BYTES_MAX` the oldest go whatever the
//! rules before say (bytes win). Nobody stores when a revision was made, so every member notes now
//! and then where history stands; a new leader has its notes ready.
//!
//! Invariants: notes are in order of time and of revision, and at most
//! `limits::HISTORY_SAMPLES_MAX`: when full, every second one goes, so old ones get coarser, never
//! wrong.

use crate::base::limits;
use crate::base::{ClusterTime, Revision};
use crate::machine::HistorySize;
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug)]
struct Sample {
    time: ClusterTime,
    revision: Revision,
    /// Bytes of history ever written, up to here, since the first note.
    bytes: u64,
}

/// Notes about the growth of history.
#[derive(Debug, Default)]
pub(super) struct HistoryNotes {
    samples: VecDeque<Sample>,
    /// Bytes written in total: grows with history, and does not shrink at a compaction.
    written: u64,
    last_bytes: u64,
}

impl HistoryNotes {
    /// Notes where history stands, when it is time to.
    pub(super) fn note(&mut self, time: ClusterTime, revision: Revision, size: HistorySize) {
        self.written += size.bytes.saturating_sub(self.last_bytes);
        self.last_bytes = size.bytes;
        let due = self.samples.back().is_none_or(|last| {
            let grown = self.written - last.bytes >= limits::HISTORY_SAMPLE_BYTES;
            let old = time.ms_since(last.time) >= limits::HISTORY_SAMPLE_MS;
            revision > last.revision && (grown || old)
        });
        if !due {
            return;
        }
        if self.samples.len() >= limits::HISTORY_SAMPLES_MAX {
            let mut odd = false;
            self.samples.retain(|_| {
                odd = !odd;
                odd
            });
        }
        self.samples.push_back(Sample { time, revision, bytes: self.written });
    }

    /// The revision to compact to, if there is anything to gain.
    pub(super) fn compaction(
        &self,
        time: ClusterTime,
        revision: Revision,
        compacted: Revision,
        size: HistorySize,
    ) -> Option<Revision> {
        let target = self.by_age(time, revision).max(self.by_bytes(revision, size));
        // A little is not worth an entry.
        let worth = compacted.0 + limits::HISTORY_REVISIONS_MIN / 10;
        target.filter(|target| {
            target.0 >= worth || (size.bytes > limits::HISTORY_BYTES_MAX && *target > compacted)
        })
    }

    fn by_age(&self, time: ClusterTime, revision: Revision) -> Option<Revision> {
        let old = |sample: &&Sample| time.ms_since(sample.time) >= limits::HISTORY_AGE_MS_MAX;
        let newest_old = self.samples.iter().take_while(old).last()?;
        let young = revision.0.saturating_sub(limits::HISTORY_REVISIONS_MIN);
        Some(newest_old.revision.min(Revision(young)))
    }

    fn by_bytes(&self, revision: Revision, size: HistorySize) -> Option<Revision> {
        let excess = size.bytes.checked_sub(limits::HISTORY_BYTES_MAX).filter(|it| *it > 0)?;
        // History begins where `written` was this much lower; the first note behind the excess
        // ends it. Without such a note all but the newest revisions go.
        let begin = self.written.saturating_sub(size.bytes);
        let enough = self.samples.iter().find(|sample| sample.bytes >= begin + excess);
        let newest = Revision(revision.0.saturating_sub(limits::HISTORY_REVISIONS_MIN));
        Some(enough.map_or(newest, |sample| sample.revision))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1024 * 1024;

    /// One revision a second, of `bytes` each.
    fn notes(seconds: u64, bytes: u64) -> (HistoryNotes, HistorySize) {
        let mut notes = HistoryNotes::default();
        let mut size = HistorySize::default();
        for second in 1..=seconds {
            size = HistorySize { revisions: second, bytes: second * bytes };
            notes.note(ClusterTime(second * 1_000), Revision(second), size);
        }
        (notes, size)
    }

    fn compaction(seconds: u64, bytes: u64) -> Option<Revision> {
        let (notes, size) = notes(seconds, bytes);
        notes.compaction(ClusterTime(seconds * 1_000), Revision(seconds), Revision(0), size)
    }

    #[test]
    fn the_youngest_revisions_stay_however_old() {
        assert_eq!(compaction(10_500, 100), None);
        assert_eq!(compaction(12_000, 100), Some(Revision(2_000)));
        let (notes, _) = notes(50_000, 1);
        assert!(notes.samples.len() <= limits::HISTORY_SAMPLES_MAX);
    }

    #[test]
    fn bytes_win() {
        let upto = compaction(300, MB).unwrap();
        assert!((44..=75).contains(&upto.0), "{upto}");
    }
}
