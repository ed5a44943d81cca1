//! How large the history is, without looking: what the leader's compaction duty goes by.
//!
//! Bytes of records are summed as they are written; every so many bytes a *mark* remembers the sum
//! at a revision. A compaction then knows, to the nearest mark, how much it forgot. When the marks
//! become too many every second one goes and they are set half as often.
//!
//! Invariants: a function of the log; marks rise in both numbers.
//!
//! Deliberately rough: records that stay because they are still live count as forgotten.

use crate::base::Revision;
use crate::base::codec::{Malformed, Reader, Writer};
use crate::base::limits::{HISTORY_MARK_BYTES_MIN, HISTORY_MARKS_MAX};

/// What could be compacted away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistorySize {
    /// Revisions behind the compacted one.
    pub revisions: u64,
    /// Bytes of their records, roughly.
    pub bytes: u64,
}

/// A revision, and the bytes written up to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    revision: Revision,
    bytes: u64,
}

/// The bytes of history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct History {
    /// Written since the cluster was made.
    written: u64,
    /// Of those, forgotten.
    forgotten: u64,
    stride: u64,
    marks: Vec<Mark>,
}

impl Default for History {
    fn default() -> Self {
        Self { written: 0, forgotten: 0, stride: HISTORY_MARK_BYTES_MIN, marks: Vec::new() }
    }
}

impl History {
    /// Counts a written record.
    pub(super) fn add(&mut self, bytes: usize) {
        self.written = self.written.saturating_add(bytes as u64);
    }

    /// Closes a revision that was written.
    pub(super) fn close(&mut self, revision: Revision) {
        let marked = self.marks.last().map_or(self.forgotten, |mark| mark.bytes);
        if self.written - marked < self.stride {
            return;
        }
        self.marks.push(Mark { revision, bytes: self.written });
        if self.marks.len() > HISTORY_MARKS_MAX {
            let mut keep = false;
            self.marks.retain(|_| {
                keep = !keep;
                keep
            });
            self.stride = self.stride.saturating_mul(2);
        }
    }

    /// Follows a compaction.
    pub(super) fn compact(&mut self, upto: Revision) {
        let gone = self.marks.partition_point(|mark| mark.revision <= upto);
        if let Some(last) = self.marks.drain(..gone).next_back() {
            self.forgotten = last.bytes;
        }
        if self.marks.len() < HISTORY_MARKS_MAX / 4 {
            self.stride = (self.stride / 2).max(HISTORY_MARK_BYTES_MIN);
        }
    }

    /// Bytes not yet forgotten.
    pub(super) fn bytes(&self) -> u64 {
        self.written - self.forgotten
    }

    /// The revision to compact to so that about `bytes` remain; `None` if no more are there.
    pub(super) fn oldest_within(&self, bytes: u64) -> Option<Revision> {
        if self.bytes() <= bytes {
            return None;
        }
        let fits = |mark: &&Mark| self.written - mark.bytes <= bytes;
        self.marks.iter().find(fits).or(self.marks.last()).map(|mark| mark.revision)
    }

    /// Appends it.
    pub(super) fn encode(&self, writer: &mut Writer) {
        writer.uint(self.written).uint(self.forgotten).uint(self.stride);
        writer.uint(self.marks.len() as u64);
        for mark in &self.marks {
            writer.uint(mark.revision.0).uint(mark.bytes);
        }
    }

    /// Takes it.
    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (written, forgotten, stride) = (reader.uint()?, reader.uint()?, reader.uint()?);
        let count = reader.uint()?;
        let mut marks: Vec<Mark> = Vec::new();
        for _ in 0..count {
            let mark = Mark { revision: Revision(reader.uint()?), bytes: reader.uint()? };
            let rises = marks.last().is_none_or(|last| last.bytes <= mark.bytes);
            if !rises || mark.bytes > written || mark.bytes < forgotten {
                return Err(Malformed::Unknown { what: "history mark", value: mark.bytes });
            }
            marks.push(mark);
        }
        if forgotten > written {
            return Err(Malformed::Overflow);
        }
        Ok(Self { written, forgotten, stride, marks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_stays_close_and_small() {
        const RECORD: u64 = 10_000;
        let mut history = History::default();
        for revision in 2..=100_001 {
            history.add(10_000);
            history.close(Revision(revision));
        }
        assert_eq!(history.bytes(), 100_000 * RECORD);
        assert!(history.marks.len() <= HISTORY_MARKS_MAX);
        let half = history.oldest_within(50_000 * RECORD).unwrap();
        assert!((50_000..55_000).contains(&half.0), "{half}");
        history.compact(half);
        let left = history.bytes();
        assert!((45_000 * RECORD..=50_000 * RECORD).contains(&left), "{left}");
        assert_eq!(history.oldest_within(left), None);
        let mut writer = Writer::new();
        history.encode(&mut writer);
        assert_eq!(History::decode(&mut Reader::new(writer.as_slice())), Ok(history));
    }
}
