//! The pending writes of one entry: all of them become records, or none does.
//!
//! A command says what changes about a key; the draft adds what follows from the key's life so
//! far (v3's create revision and version) and from the entry (position, clocks). Records get one
//! revision and the subs 0, 1, 2... in order of execution; an expiry begins a new revision for
//! each thing that expires.
//!
//! Invariants: positions rise; a change's `previous` is the live record it ended, which lies in
//! the same space, but for a directory that took the place of a file.

use crate::base::{ClusterTime, KeyRange, LeaseId, Revision, Space, Ttl, WallTime};
use crate::machine::outcome::{Action, Change};
use crate::store::{Position, Record};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// When something expires: what decides, and what is shown.
pub(super) type Expiry = (ClusterTime, WallTime);

/// What a command writes under a key.
pub(super) struct Write {
    /// The space it goes to.
    pub(super) space: Space,
    /// The key.
    pub(super) key: Bytes,
    /// What does it.
    pub(super) action: Action,
    /// Whether v2 watchers hear nothing of it.
    pub(super) hushed: bool,
    /// v2's createdIndex.
    pub(super) created_index: Revision,
    /// v2's modifiedIndex.
    pub(super) modified_index: Revision,
    /// When it expires.
    pub(super) expiry: Option<Expiry>,
    /// The value; empty for a directory.
    pub(super) value: Bytes,
}

/// Pending writes.
pub(super) struct Draft {
    next: Position,
    stamp: ClusterTime,
    wall: WallTime,
    changes: Vec<Change>,
    newest: BTreeMap<(Space, Bytes), Arc<Record>>,
}

impl Draft {
    /// No writes yet, on top of the state at `published`, with an entry's clocks.
    pub(super) fn new(published: Revision, stamp: ClusterTime, wall: WallTime) -> Self {
        let next = Position::start_of(published.next());
        Self { next, stamp, wall, changes: Vec::new(), newest: BTreeMap::new() }
    }

    /// The revision of the next write.
    pub(super) fn revision(&self) -> Revision {
        self.next.revision
    }

    /// The entry's cluster time.
    pub(super) fn stamp(&self) -> ClusterTime {
        self.stamp
    }

    /// How many writes there are.
    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    /// The writes, in order.
    pub(super) fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Gives up the draft for its writes.
    pub(super) fn into_changes(self) -> Vec<Change> {
        self.changes
    }

    /// The revision of the last write.
    pub(super) fn reached(&self) -> Option<Revision> {
        self.changes.last().map(|change| change.record.position.revision)
    }

    /// When something written now with this time to live ends.
    pub(super) fn expiry(&self, ttl: Option<Ttl>) -> Option<Expiry> {
        ttl.map(|ttl| (self.stamp.plus_ms(ttl.ms()), self.wall.plus(ttl)))
    }

    /// The pending record of a key, tombstones included.
    pub(super) fn newest(&self, space: Space, key: &Bytes) -> Option<&Arc<Record>> {
        self.newest.get(&(space, key.clone()))
    }

    /// The pending records of a range, tombstones included, in key order.
    pub(super) fn range<'a>(
        &'a self,
        space: Space,
        range: &KeyRange,
    ) -> impl Iterator<Item = &'a Arc<Record>> + use<'a> {
        let start = Bound::Included((space, range.start.clone()));
        let end = range.end.clone();
        let rows = (!range.is_empty()).then(|| self.newest.range((start, Bound::Unbounded)));
        rows.into_iter().flatten().map(|(_, record)| record).take_while(move |record| {
            record.space == space && end.as_ref().is_none_or(|end| record.key < *end)
        })
    }

    /// Lets the next write begin a revision of its own.
    pub(super) fn start_revision(&mut self) {
        if self.next.sub > 0 {
            self.next = Position::start_of(self.next.revision.next());
        }
    }

    /// Writes a live record in the place of `previous`.
    pub(super) fn put(&mut self, write: Write, previous: Option<Arc<Record>>) -> Change {
        let continued = previous.as_ref().filter(|record| record.space == write.space);
        let record = Record {
            space: write.space,
            key: write.key,
            position: self.next,
            live: true,
            hushed: write.hushed,
            action: write.action as u8,
            create_revision: continued.map_or(self.next.revision, |record| record.create_revision),
            version: continued.map_or(1, |record| record.version + 1),
            created_index: write.created_index,
            modified_index: write.modified_index,
            lease: LeaseId(0),
            deadline: write.expiry.map(|(deadline, _)| deadline),
            expiration: write.expiry.map(|(_, expiration)| expiration),
            value: write.value,
        };
        self.push(record, previous)
    }

    /// Writes a tombstone over a live record.
    pub(super) fn end(&mut self, ended: Arc<Record>, action: Action, hushed: bool) -> Change {
        let record = Record {
            space: ended.space,
            key: ended.key.clone(),
            position: self.next,
            live: false,
            hushed,
            action: action as u8,
            // v3 shows nothing but the key and the revision of a deleted key.
            create_revision: Revision(0),
            version: 0,
            created_index: ended.created_index,
            modified_index: self.next.revision,
            lease: LeaseId(0),
            deadline: None,
            expiration: None,
            value: Bytes::new(),
        };
        self.push(record, Some(ended))
    }

    fn push(&mut self, record: Record, previous: Option<Arc<Record>>) -> Change {
        let record = Arc::new(record);
        self.next.sub += 1;
        self.newest.insert((record.space, record.key.clone()), Arc::clone(&record));
        let change = Change { record, previous };
        self.changes.push(change.clone());
        change
    }
}
