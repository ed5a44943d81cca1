//! A watcher's place in history.
//!
//! The cursor's owner loops: `advance` under the hub's lock; on `Behind`, `catch_up` from a fresh
//! View without the lock; on `Idle`, sleep until woken. Both take a bounded number of changes and
//! may stop in the middle of a revision; the position says where.
//!
//! Invariants:
//! * What was given lies before `next`, what was not lies at or behind it.
//! * Of a revision that ends a directory, the farewell is given once, in its place or, when the
//!   proof comes behind it, in the place of the proof.
//! * History that a compaction may have thinned while it was read is not given.

use crate::base::limits::{WATCH_BATCH_BYTES_MAX, WATCH_BATCH_CHANGES_MAX, WATCH_SCAN_RECORDS_MAX};
use crate::base::{Fault, Revision};
use crate::machine::Change;
use crate::machine::tree::event::change_of;
use crate::store::{Base, Position, Reader, Record};
use crate::watch::hub::{Hub, cost_bytes};
use crate::watch::interest::{Concern, Interest};
use std::convert::Infallible;
use std::sync::Arc;

/// What a cursor found.
#[derive(Debug)]
pub enum Step {
    /// The next changes, at least one, in order.
    Changes(Vec<Change>),
    /// Nothing yet: wait to be woken, then `advance`.
    Idle,
    /// The ring no longer reaches back so far: `catch_up`.
    Behind,
    /// The next revision is compacted away; this is the oldest one left.
    Compacted {
        /// Where a new watch can begin.
        oldest: Revision,
    },
}

/// An interest, and how far it has been served.
#[derive(Debug)]
pub struct Cursor {
    interest: Interest,
    next: Position,
    /// The end of a directory above the watched path, waiting for proof that the path was there.
    farewell: Option<Change>,
    /// The revision that ended the watched path together with a directory above it.
    proof: Option<Revision>,
}

impl Cursor {
    /// A cursor whose first revision is `from`, which may be in the future.
    #[must_use]
    pub fn new(interest: Interest, from: Revision) -> Self {
        Self { interest, next: Position::start_of(from), farewell: None, proof: None }
    }

    /// The position everything before which has been given.
    #[must_use]
    pub fn next(&self) -> Position {
        self.next
    }

    /// Takes changes from the ring: `Changes`, `Idle` or `Behind`.
    pub fn advance<W>(&mut self, hub: &Hub<W>) -> Step {
        if self.next >= hub.end() {
            return Step::Idle;
        }
        let Some(changes) = hub.since(self.next) else { return Step::Behind };
        let mut given = Batch::default();
        for change in changes {
            let Ok(due) = self.offer(&change.record, || Ok::<_, Infallible>(change.clone()));
            given.extend(due);
            if given.is_full() {
                return Step::Changes(given.changes);
            }
        }
        self.next = hub.end();
        given.end()
    }

    /// Takes changes from history: `Changes`, `Compacted`, `Behind` when there is more to read,
    /// or `Idle` when the reader's revision is reached and the ring comes next.
    ///
    /// `newest_compacted` is asked after reading for the compacted revision of the newest View:
    /// a checkpoint of a later state than the reader's may purge what the reader still counts on.
    ///
    /// # Errors
    /// When stored bytes are damaged or the database fails.
    pub fn catch_up<B: Base>(
        &mut self,
        reader: &Reader<B>,
        newest_compacted: impl FnOnce() -> Revision,
    ) -> Result<Step, Fault> {
        let from = self.next;
        let step = self.read_history(reader)?;
        let oldest = newest_compacted().max(reader.compacted());
        if from.revision < oldest {
            self.next = from;
            return Ok(Step::Compacted { oldest });
        }
        Ok(step)
    }

    fn read_history<B: Base>(&mut self, reader: &Reader<B>) -> Result<Step, Fault> {
        let end = Position::start_of(reader.revision().next());
        if self.next >= end {
            return Ok(Step::Idle);
        }
        let mut given = Batch::default();
        for (scanned, record) in (1..).zip(reader.history(self.next, reader.revision())?) {
            let record = record?;
            given.extend(self.offer(&record, || change_of(reader, Arc::clone(&record)))?);
            if given.is_full() {
                return Ok(Step::Changes(given.changes));
            }
            if scanned >= WATCH_SCAN_RECORDS_MAX {
                let nothing = given.changes.is_empty();
                return Ok(if nothing { Step::Behind } else { Step::Changes(given.changes) });
            }
        }
        self.next = end;
        Ok(given.end())
    }

    /// Moves over a record; gives the change it makes due, if any.
    fn offer<E>(
        &mut self,
        record: &Record,
        change: impl FnOnce() -> Result<Change, E>,
    ) -> Result<Option<Change>, E> {
        let revision = record.position.revision;
        let due = match self.interest.concern(record) {
            Concern::None => None,
            Concern::Event => Some(change()?),
            Concern::Farewell if self.proof == Some(revision) => Some(change()?),
            Concern::Farewell => {
                self.farewell = Some(change()?);
                None
            }
            Concern::Proof => {
                self.proof = Some(revision);
                self.farewell.take().filter(|held| held.record.position.revision == revision)
            }
        };
        self.next = behind(record.position);
        Ok(due)
    }
}

/// The changes of one step.
#[derive(Default)]
struct Batch {
    changes: Vec<Change>,
    bytes: usize,
}

impl Batch {
    fn extend(&mut self, due: Option<Change>) {
        self.bytes += due.as_ref().map_or(0, cost_bytes);
        self.changes.extend(due);
    }

    fn is_full(&self) -> bool {
        self.changes.len() >= WATCH_BATCH_CHANGES_MAX || self.bytes >= WATCH_BATCH_BYTES_MAX
    }

    /// The step when there is no more to look at.
    fn end(self) -> Step {
        if self.changes.is_empty() { Step::Idle } else { Step::Changes(self.changes) }
    }
}

/// The first position after another.
fn behind(position: Position) -> Position {
    match position.sub.checked_add(1) {
        Some(sub) => Position { sub, ..position },
        None => Position::start_of(position.revision.next()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{KeyPath, KeyRange, LogIndex, Space, Term};
    use crate::store::record::tests::record;
    use crate::store::{MemoryBase, Meta, Store};
    use bytes::Bytes;
    use proptest::prelude::*;

    /// A store and a hub, fed as the node feeds them, and everything that ever happened.
    struct World {
        store: Store<MemoryBase>,
        hub: Hub<()>,
        all: Vec<Change>,
    }

    /// What is written: key, whether it lives, whether it is hushed.
    type Written = (&'static str, Space, bool, bool);

    impl World {
        fn new(ring_changes: usize) -> Self {
            let meta = Meta { revision: Revision(1), ..Meta::default() };
            let store = Store::create(MemoryBase::default(), meta).unwrap();
            let hub = Hub::with_bounds(Revision(1), ring_changes, usize::MAX);
            Self { store, hub, all: Vec::new() }
        }

        fn revision(&self) -> Revision {
            self.store.meta().revision
        }

        fn entry(&mut self, writes: &[Written]) {
            let revision = self.revision().next();
            let mut changes = Vec::new();
            for (sub, (key, space, live, hushed)) in (0..).zip(writes) {
                let position = Position { revision, sub };
                let record = Record {
                    space: *space,
                    live: *live,
                    hushed: *hushed,
                    position,
                    ..record(key, revision.0, "v")
                };
                let record = Arc::new(record);
                let reader = self.store.read().unwrap();
                self.store.insert(&record);
                changes.push(change_of(&reader, record).unwrap());
            }
            let applied = LogIndex(self.store.meta().applied.0 + 1);
            self.store.publish(applied, Term(1), revision);
            self.all.extend(changes.iter().cloned());
            self.hub.publish(changes);
        }

        fn checkpoint(&mut self) {
            let checkpoint = self.store.freeze(Bytes::new()).unwrap();
            checkpoint.run().unwrap();
            self.store.thaw();
        }

        fn compact(&mut self, upto: Revision) {
            let compacted = self.store.meta().compacted.max(upto.min(self.revision()));
            self.store.meta_mut().compacted = compacted;
        }

        /// What a watcher task does until there is nothing more: the step that ended it.
        fn serve(&self, cursor: &mut Cursor, given: &mut Vec<Change>) -> Step {
            loop {
                let mut step = cursor.advance(&self.hub);
                if let Step::Behind = step {
                    let reader = self.store.read().unwrap();
                    let compacted = || self.store.meta().compacted;
                    step = cursor.catch_up(&reader, compacted).unwrap();
                    if let Step::Idle = step {
                        continue;
                    }
                }
                match step {
                    Step::Changes(changes) => given.extend(changes),
                    Step::Behind => {}
                    Step::Idle | Step::Compacted { .. } => return step,
                }
            }
        }
    }

    fn tree(path: &str, recursive: bool) -> Interest {
        let path = KeyPath::clean(path.as_bytes()).unwrap();
        Interest::Tree { path, recursive, hides_after: Revision(0) }
    }

    fn keys(changes: &[Change]) -> Vec<String> {
        let show = |change: &Change| {
            let key = String::from_utf8_lossy(&change.record.key).into_owned();
            format!("{key}@{}.{}", change.record.position.revision, change.record.position.sub)
        };
        changes.iter().map(show).collect()
    }

    const PUT: (Space, bool, bool) = (Space::Keys, true, false);

    fn put(key: &'static str) -> Written {
        (key, PUT.0, PUT.1, PUT.2)
    }

    fn served(world: &World, interest: Interest, from: u64) -> Vec<String> {
        let (mut cursor, mut given) = (Cursor::new(interest, Revision(from)), Vec::new());
        world.serve(&mut cursor, &mut given);
        keys(&given)
    }

    /// Live and from history, a deleted directory says farewell to those that were in it.
    #[test]
    fn the_end_of_a_directory_reaches_watchers_of_what_was_in_it() {
        for proof_first in [true, false] {
            let mut world = World::new(100);
            world.entry(&[("/a", Space::Dirs, true, true), put("/a/b/c")]);
            let mut gone = vec![
                ("/a/b/c", Space::Keys, false, true),
                ("/a/b", Space::Dirs, false, true),
                ("/a", Space::Dirs, false, false),
            ];
            if !proof_first {
                gone.reverse();
            }
            world.entry(&gone);
            world.entry(&[put("/a/none")]);
            for ring in [true, false] {
                if !ring {
                    world.hub.reset(world.revision());
                }
                let end = format!("/a@3.{}", if proof_first { 2 } else { 0 });
                let end = [end];
                assert_eq!(served(&world, tree("/a/b/c", false), 3), end);
                assert_eq!(served(&world, tree("/a/b", true), 3), end);
                assert_eq!(served(&world, tree("/a", false), 3), end);
                assert_eq!(served(&world, tree("/a/none", false), 3), ["/a/none@4.0"]);
                assert_eq!(served(&world, tree("/a/b/c/d", true), 3), Vec::<String>::new());
                assert_eq!(served(&world, tree("/", true), 3)[..1], end);
            }
        }
    }

    #[test]
    fn a_directory_that_replaced_a_file_has_it_for_previous() {
        let mut world = World::new(0);
        world.entry(&[put("/a")]);
        world.entry(&[("/a", Space::Keys, false, true), ("/a", Space::Dirs, true, false)]);
        let mut given = Vec::new();
        world.serve(&mut Cursor::new(tree("/a", false), Revision(3)), &mut given);
        assert_eq!(keys(&given), ["/a@3.1"]);
        let previous = given[0].previous.as_ref().unwrap();
        assert_eq!((previous.space, previous.position.revision), (Space::Keys, Revision(2)));
    }

    #[test]
    fn a_large_revision_comes_in_pieces() {
        let count = WATCH_BATCH_CHANGES_MAX * 2 + 7;
        for ring_changes in [usize::MAX, 0] {
            let mut world = World::new(ring_changes);
            let names: Vec<&'static str> =
                (0..count).map(|n| &*format!("/k{n:06}").leak()).collect();
            world.entry(&names.into_iter().map(put).collect::<Vec<_>>());
            let mut cursor = Cursor::new(Interest::Range(KeyRange::all()), Revision(2));
            let mut given = Vec::new();
            let first = match cursor.advance(&world.hub) {
                Step::Behind => cursor.catch_up(&world.store.read().unwrap(), Revision::default),
                step => Ok(step),
            };
            let Ok(Step::Changes(first)) = first else { panic!("{first:?}") };
            assert_eq!(first.len(), WATCH_BATCH_CHANGES_MAX);
            given.extend(first);
            world.serve(&mut cursor, &mut given);
            assert_eq!(keys(&given), keys(&world.all));
        }
    }

    #[test]
    fn a_future_revision_is_waited_for() {
        let mut world = World::new(10);
        let (mut cursor, mut given) = (Cursor::new(tree("/", true), Revision(4)), Vec::new());
        for _ in 2..=5 {
            world.serve(&mut cursor, &mut given);
            world.entry(&[put("/k")]);
        }
        world.serve(&mut cursor, &mut given);
        assert_eq!(keys(&given), ["/k@4.0", "/k@5.0"]);
    }

    #[test]
    fn what_a_compaction_thinned_while_it_was_read_is_not_given() {
        let mut world = World::new(0);
        for _ in 2..=6 {
            world.entry(&[put("/k")]);
        }
        let reader = world.store.read().unwrap();
        let mut cursor = Cursor::new(tree("/k", false), Revision(2));
        let step = cursor.catch_up(&reader, || Revision(4)).unwrap();
        assert!(matches!(step, Step::Compacted { oldest: Revision(4) }), "{step:?}");
        assert_eq!(cursor.next(), Position::start_of(Revision(2)));
    }

    #[derive(Clone, Debug)]
    enum Op {
        Entry(Vec<(usize, bool, bool)>),
        Serve(usize),
        Checkpoint,
        Compact(u64),
        Install,
    }

    const KEYS: [&str; 6] = ["/d", "/d/a", "/d/_h", "/e", "/d/a/b", "x"];

    fn op() -> impl Strategy<Value = Op> {
        let write = (0..KEYS.len(), any::<bool>(), prop::bool::weighted(0.2));
        prop_oneof![
            6 => prop::collection::vec(write, 1..4).prop_map(Op::Entry),
            4 => (0..4_usize).prop_map(Op::Serve),
            2 => Just(Op::Checkpoint),
            1 => (0..8_u64).prop_map(Op::Compact),
            1 => Just(Op::Install),
        ]
    }

    /// A cursor beside the naive list: what it gives next must be what the list has next.
    struct Checked {
        cursor: Cursor,
        seen_upto: Position,
    }

    impl Checked {
        fn check(&mut self, world: &World) {
            let mut given = Vec::new();
            let end = world.serve(&mut self.cursor, &mut given);
            let interest = self.cursor.interest.clone();
            let due = |change: &&Change, from| {
                change.record.position >= from && interest.concern(&change.record) == Concern::Event
            };
            let mut naive = world.all.iter().filter(|change| due(change, self.seen_upto));
            for change in &given {
                let expected = naive.next().expect("an invented change");
                assert_eq!(change.record, expected.record);
                let thinned = change.record.position.revision <= world.store.meta().compacted;
                assert!(thinned || change.previous == expected.previous, "{change:?}");
            }
            match end {
                Step::Compacted { oldest } => {
                    assert!(self.cursor.next().revision < oldest, "could have gone on");
                    self.cursor = Cursor::new(interest, oldest);
                    self.seen_upto = Position::start_of(oldest);
                }
                _ => {
                    assert!(naive.next().is_none(), "a missed change");
                    self.seen_upto = self.cursor.next();
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_cursor_never_misses_doubles_or_reorders(ops in prop::collection::vec(op(), 1..80)) {
            let mut world = World::new(4);
            let interests = [
                tree("/d", true),
                tree("/d/a", false),
                Interest::Range(KeyRange::all()),
                Interest::Range(KeyRange::prefix(b"/d/")),
            ];
            let mut cursors = interests.map(|interest| Checked {
                cursor: Cursor::new(interest, Revision(2)),
                seen_upto: Position::start_of(Revision(2)),
            });
            for op in ops.into_iter().chain((0..4).map(Op::Serve)) {
                match op {
                    Op::Entry(mut writes) => {
                        writes.sort_unstable();
                        writes.dedup_by_key(|write| write.0);
                        let named = |(at, live, hushed): (usize, bool, bool)|
                            (KEYS[at], Space::Keys, live, hushed);
                        world.entry(&writes.into_iter().map(named).collect::<Vec<_>>());
                    }
                    Op::Serve(at) => cursors[at].check(&world),
                    Op::Checkpoint => world.checkpoint(),
                    Op::Compact(back) => {
                        world.compact(Revision(world.revision().0.saturating_sub(back)));
                    }
                    Op::Install => {
                        world.hub.reset(world.revision());
                    }
                }
            }
        }
    }
}
