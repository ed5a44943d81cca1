//! Every live deadline, in order: derived from the records, never stored by itself.
//!
//! The base keeps rows of deadlines for a restart; from there on apply keeps the set. The leader
//! asks what is due and proposes it; apply checks the generation again, so a set that is ahead of
//! or behind the log could only make an expiry do nothing.
//!
//! Invariant: the set holds exactly the deadlines of live records, each with its record's position.

use crate::base::limits::EXPIRE_KEYS_PER_ENTRY;
use crate::base::{ClusterTime, Fault, Revision, Space};
use crate::machine::command::Due;
use crate::machine::outcome::Change;
use crate::store::{Base, Position, Reader, Record};
use bytes::Bytes;
use std::collections::BTreeSet;

/// The deadlines a new leader found, which it gives a grace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited {
    /// The revision at which it became leader: the records up to here are inherited.
    pub upto: Revision,
    /// None of them is due before this.
    pub not_before: ClusterTime,
}

/// The set of deadlines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Deadlines {
    rows: BTreeSet<(ClusterTime, Space, Bytes, Position)>,
}

impl Deadlines {
    /// The deadlines of a base nothing was applied to yet.
    pub(super) fn open<B: Base>(reader: &Reader<B>) -> Result<Self, Fault> {
        let mut deadlines = Self::default();
        for (deadline, space, key) in reader.base_deadlines()? {
            let record = reader.get(space, &key)?;
            let Some(record) = record.filter(|record| record.deadline == Some(deadline)) else {
                let key = String::from_utf8_lossy(&key);
                let what = format!("the deadline of {key:?} belongs to none of its records");
                return Err(Fault::Damaged { what });
            };
            deadlines.rows.extend(row_of(&record));
        }
        Ok(deadlines)
    }

    /// Follows a change.
    pub(super) fn change(&mut self, change: &Change) {
        if let Some(row) = change.previous.as_deref().and_then(row_of) {
            self.rows.remove(&row);
        }
        if change.record.live {
            self.rows.extend(row_of(&change.record));
        }
    }

    /// The earliest deadline.
    pub(super) fn earliest(&self) -> Option<ClusterTime> {
        self.rows.first().map(|(deadline, ..)| *deadline)
    }

    /// What is due at `now`, the earliest first.
    pub(super) fn due(&self, now: ClusterTime, inherited: Option<Inherited>) -> Vec<Due> {
        let grace = inherited.filter(|inherited| now < inherited.not_before);
        let ripe = self.rows.iter().take_while(|(deadline, ..)| *deadline <= now);
        let ours =
            ripe.filter(|(.., at)| grace.is_none_or(|inherited| at.revision > inherited.upto));
        ours.take(EXPIRE_KEYS_PER_ENTRY)
            .map(|(_, space, key, at)| Due { space: *space, key: key.clone(), generation: *at })
            .collect()
    }
}

fn row_of(record: &Record) -> Option<(ClusterTime, Space, Bytes, Position)> {
    Some((record.deadline?, record.space, record.key.clone(), record.position))
}
