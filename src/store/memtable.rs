//! A generation of the overlay: records since a checkpoint, in memory.
//!
//! One thread inserts, any number read, nobody locks: the maps are lock-free skip lists, records
//! are immutable, and a reader asks for "the newest version at or before revision R", which later
//! inserts cannot change. That is LevelDB's memtable with revisions for sequence numbers.
//!
//! Invariant: records are inserted in position order, each key at most once per position.

use crate::base::{KeyRange, Revision, Space};
use crate::store::record::{Position, Record};
use bytes::Bytes;
use crossbeam_skiplist::SkipMap;
use std::cmp::Reverse;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Sorts by key, newest version first.
type VersionKey = (Space, Bytes, Reverse<Position>);

/// One generation of the overlay.
#[derive(Default)]
pub struct Memtable {
    versions: SkipMap<VersionKey, Arc<Record>>,
    history: SkipMap<Position, Arc<Record>>,
    bytes: AtomicUsize,
}

impl Memtable {
    /// Adds a record behind every earlier one.
    pub fn insert(&self, record: &Arc<Record>) {
        // What a version costs besides its record: two skip-list nodes and the Arc.
        const NODES_BYTES: usize = 200;
        let key = (record.space, record.key.clone(), Reverse(record.position));
        self.versions.insert(key, Arc::clone(record));
        self.history.insert(record.position, Arc::clone(record));
        self.bytes.fetch_add(record.cost_bytes() + NODES_BYTES, Ordering::Relaxed);
    }

    /// Memory the generation holds, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether nothing was inserted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.history.is_empty()
    }

    /// The newest version of a key at or before a position.
    #[must_use]
    pub fn newest(&self, space: Space, key: &Bytes, at: Position) -> Option<Arc<Record>> {
        let entry =
            self.versions.lower_bound(Bound::Included(&(space, key.clone(), Reverse(at))))?;
        let found = entry.value();
        (found.space == space && found.key == *key).then(|| Arc::clone(found))
    }

    /// The first key at or behind a bound that has a version at or before `at`, with that version.
    #[must_use]
    pub fn first_at(
        &self,
        space: Space,
        from: Bound<&Bytes>,
        range: &KeyRange,
        at: Position,
    ) -> Option<Arc<Record>> {
        const OLDEST: Position = Position { revision: Revision(0), sub: 0 };
        let mut bound = match from {
            Bound::Included(key) => Bound::Included((space, key.clone(), Reverse(at))),
            Bound::Excluded(key) => Bound::Excluded((space, key.clone(), Reverse(OLDEST))),
            Bound::Unbounded => Bound::Included((space, range.start.clone(), Reverse(at))),
        };
        loop {
            let entry = self.versions.lower_bound(bound.as_ref())?;
            let record = entry.value();
            if record.space != space || !range.contains(&record.key) {
                return None;
            }
            if record.position <= at {
                return Some(Arc::clone(record));
            }
            // Too new: look for this key's version at `at`, or fall through to the next key.
            bound = Bound::Included((space, record.key.clone(), Reverse(at)));
        }
    }

    /// Records from a position on, in order.
    pub fn since(&self, from: Position) -> impl Iterator<Item = Arc<Record>> + '_ {
        self.history.range(from..).map(|entry| Arc::clone(entry.value()))
    }

    /// Every version in key order, newest first: what a checkpoint writes.
    pub fn by_key(&self) -> impl Iterator<Item = Arc<Record>> + '_ {
        self.versions.iter().map(|entry| Arc::clone(entry.value()))
    }
}

impl std::fmt::Debug for Memtable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memtable").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::tests::record;

    fn table(records: &[(&str, u64)]) -> Memtable {
        let table = Memtable::default();
        for (key, revision) in records {
            table.insert(&Arc::new(record(key, *revision, "v")));
        }
        table
    }

    fn at(revision: u64) -> Position {
        Position::end_of(Revision(revision))
    }

    #[test]
    fn reads_the_version_of_a_revision() {
        let table = table(&[("/a", 2), ("/b", 3), ("/a", 4), ("/a", 6)]);
        let newest = |key: &'static str, revision| {
            let key = Bytes::from_static(key.as_bytes());
            table.newest(Space::Keys, &key, at(revision)).map(|r| r.position.revision.0)
        };
        assert_eq!(newest("/a", 1), None);
        assert_eq!(newest("/a", 5), Some(4));
        assert_eq!(newest("/a", 9), Some(6));
        assert_eq!(newest("/b", 9), Some(3));
        assert_eq!(newest("/c", 9), None);
    }

    #[test]
    fn walks_keys_at_a_revision() {
        let table = table(&[("/a", 2), ("/b", 5), ("/c", 3), ("/c", 6), ("/d", 4)]);
        let walk = |revision| {
            let (range, mut from, mut seen) = (KeyRange::all(), Bound::Unbounded, Vec::new());
            while let Some(found) = table.first_at(Space::Keys, from.as_ref(), &range, at(revision))
            {
                seen.push((String::from_utf8_lossy(&found.key).into_owned(), found.position));
                from = Bound::Excluded(found.key.clone());
            }
            seen.into_iter().map(|(key, p)| format!("{key}@{}", p.revision)).collect::<Vec<_>>()
        };
        assert_eq!(walk(4), ["/a@2", "/c@3", "/d@4"]);
        assert_eq!(walk(6), ["/a@2", "/b@5", "/c@6", "/d@4"]);
        assert!(walk(1).is_empty());
    }
}
