//! Looking up live records: in a state at a revision, or in that state under an entry's draft.
//!
//! The tree's rules are written once against `Look`. Doors read through `At`; apply works in a
//! `Workspace`, where the earlier commands of an entry are visible to the later ones and to
//! nobody else.
//!
//! Invariant: both show live records only, each key's newest, in bytewise key order.

use crate::base::{Fault, KeyRange, Rejected, Revision, Space};
use crate::machine::draft::Draft;
use crate::store::{Base, Reader, Record};
use bytes::Bytes;
use std::cmp::Ordering;
use std::iter::Peekable;
use std::sync::Arc;

/// Records in key order.
pub(super) type Records<'a> = Box<dyn Iterator<Item = Result<Arc<Record>, Fault>> + 'a>;

/// Why a command goes no further: a refusal for the client, or a fault of this member.
#[derive(Debug)]
pub(super) enum Stop {
    /// The same on every member.
    Rejected(Rejected),
    /// This member's alone.
    Fault(Fault),
}

impl From<Rejected> for Stop {
    fn from(rejected: Rejected) -> Self {
        Self::Rejected(rejected)
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// The note of a state that v3 may have written to: its keys need not follow the tree's rules.
pub(super) const MIXED: u64 = 1;

/// Where live records are looked up.
pub(super) trait Look {
    /// Whether only the tree's own rules made this state: then a key is a file, never also a
    /// directory, and all its parents are explicit. It spares two of three lookups.
    fn is_pure(&self) -> bool;

    /// The live record of a key.
    fn live(&self, space: Space, key: &Bytes) -> Result<Option<Arc<Record>>, Fault>;

    /// The live records of a range.
    fn scan<'a>(&'a self, space: Space, range: &'a KeyRange) -> Result<Records<'a>, Fault>;
}

/// The state at one revision.
pub(super) struct At<'r, B: Base> {
    /// Where to read.
    pub(super) reader: &'r Reader<B>,
    /// A revision the reader can answer for.
    pub(super) revision: Revision,
}

impl<B: Base> Look for At<'_, B> {
    fn is_pure(&self) -> bool {
        // Once mixed, always mixed: a pure state was pure at every revision before it.
        self.reader.note() & MIXED == 0
    }

    fn live(&self, space: Space, key: &Bytes) -> Result<Option<Arc<Record>>, Fault> {
        self.reader.get_at(space, key, self.revision)
    }

    fn scan<'a>(&'a self, space: Space, range: &'a KeyRange) -> Result<Records<'a>, Fault> {
        Ok(Box::new(self.reader.range(space, range, self.revision)?))
    }
}

/// The published state with an entry's pending writes on top.
pub(super) struct Workspace<'w, B: Base> {
    /// The published state.
    pub(super) reader: &'w Reader<B>,
    /// The pending writes.
    pub(super) draft: &'w mut Draft,
}

impl<B: Base> Look for Workspace<'_, B> {
    fn is_pure(&self) -> bool {
        self.reader.note() & MIXED == 0
    }

    fn live(&self, space: Space, key: &Bytes) -> Result<Option<Arc<Record>>, Fault> {
        match self.draft.newest(space, key) {
            Some(pending) => Ok(Some(Arc::clone(pending)).filter(|record| record.live)),
            None => self.reader.get(space, key),
        }
    }

    fn scan<'a>(&'a self, space: Space, range: &'a KeyRange) -> Result<Records<'a>, Fault> {
        let stored = self.reader.range(space, range, self.reader.revision())?;
        Ok(Box::new(Overlaid {
            pending: self.draft.range(space, range).peekable(),
            stored: stored.peekable(),
        }))
    }
}

/// Stored records with pending ones on top; pending tombstones hide what they end.
struct Overlaid<'a, P, S>
where
    P: Iterator<Item = &'a Arc<Record>>,
    S: Iterator<Item = Result<Arc<Record>, Fault>>,
{
    pending: Peekable<P>,
    stored: Peekable<S>,
}

impl<'a, P, S> Iterator for Overlaid<'a, P, S>
where
    P: Iterator<Item = &'a Arc<Record>>,
    S: Iterator<Item = Result<Arc<Record>, Fault>>,
{
    type Item = Result<Arc<Record>, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let order = match (self.pending.peek(), self.stored.peek()) {
                (Some(pending), Some(Ok(stored))) => pending.key.cmp(&stored.key),
                (Some(_), None) => Ordering::Less,
                (_, _) => Ordering::Greater,
            };
            if order == Ordering::Greater {
                return self.stored.next();
            }
            if order == Ordering::Equal {
                self.stored.next();
            }
            let pending = self.pending.next()?;
            if pending.live {
                return Some(Ok(Arc::clone(pending)));
            }
        }
    }
}
