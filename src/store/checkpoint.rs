//! Carrying a frozen memtable to the base: one transaction, durable, then the memtable may go.
//!
//! For every changed key the row in `Keys` is written once, in key order; every version goes
//! behind the last row of `History`, linked to the version before. The same transaction moves the
//! key's deadline, removes some dead records of a compaction, and writes the meta row, so a crash
//! leaves the state of the last checkpoint or of this one.
//!
//! Compaction: a record is dead when it is a tombstone before the compacted revision, or when a
//! newer one of its key stands there, before it. So the compacted revision itself can still be
//! read and watched in full, with what its records replaced. Each record names its predecessor:
//! walking the records between the old and the new compacted revision finds all dead ones without
//! a search, and the walk can stop anywhere and go on with the next checkpoint.
//!
//! Why this is not the core's work: it only repeats what is already decided. Members may purge at
//! different times; no reader can tell.

use crate::base::codec::Writer;
use crate::base::limits::PURGE_RECORDS_PER_CHECKPOINT;
use crate::base::{Fault, LogIndex, Revision};
use crate::store::base::{Base, BaseWrite, Table};
use crate::store::memtable::Memtable;
use crate::store::meta::Meta;
use crate::store::mvcc::META_KEY;
use crate::store::reader::{decode_row, decode_version};
use crate::store::record::{Position, Record};
use crate::store::row::{self, KeyRow, Links};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One frozen generation on its way to the base.
pub struct Checkpoint<B: Base> {
    base: B,
    frozen: Arc<Memtable>,
    meta: Meta,
    /// Where readers learn how far the base is purged.
    purged_to: Arc<AtomicU64>,
    /// Records the purge may look at.
    purge_limit: usize,
}

/// What a checkpoint did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The base holds the effects of every entry up to here.
    pub applied: LogIndex,
    /// Records removed because of a compaction.
    pub purged: usize,
    /// Whether more dead records wait for the next checkpoint.
    pub more_to_purge: bool,
}

impl<B: Base> Checkpoint<B> {
    pub(super) fn new(
        base: B,
        frozen: Arc<Memtable>,
        meta: Meta,
        purged_to: Arc<AtomicU64>,
    ) -> Self {
        Self { base, frozen, meta, purged_to, purge_limit: PURGE_RECORDS_PER_CHECKPOINT }
    }

    /// Writes the generation; when this returns `Ok` it survives a power cut.
    ///
    /// # Errors
    /// When stored bytes are damaged or the database fails. The base is unchanged then.
    pub fn run(&self) -> Result<Written, Fault> {
        let mut written = None;
        // Before the commit, so that no reader of a thinned base misses it.
        self.purged_to.fetch_max(self.meta.compacted.0, Ordering::AcqRel);
        self.base.commit(&mut |tables| {
            let links = self.write_keys(tables)?;
            self.write_history(tables, &links)?;
            let mut meta = self.meta.clone();
            meta.purged = read_purged(tables)?;
            let purged = purge(tables, &mut meta, self.purge_limit)?;
            tables.put(Table::Meta, META_KEY, &meta.encode())?;
            written = Some(Written {
                applied: meta.applied,
                purged,
                more_to_purge: meta.purged.revision < meta.compacted,
            });
            Ok(())
        })?;
        written.ok_or_else(|| Fault::Invariant("a checkpoint committed without running".into()))
    }

    /// Writes each changed key's row, and finds the links of each of its new versions.
    fn write_keys(&self, tables: &mut dyn BaseWrite) -> Result<BTreeMap<Position, Links>, Fault> {
        let mut links = BTreeMap::new();
        let mut versions: Vec<Arc<Record>> = Vec::new();
        for record in self.frozen.by_key() {
            let other_key = versions
                .first()
                .is_some_and(|first| (first.space, &first.key) != (record.space, &record.key));
            if other_key {
                write_key(tables, &mut versions, &mut links)?;
            }
            versions.push(record);
        }
        write_key(tables, &mut versions, &mut links)?;
        Ok(links)
    }

    fn write_history(
        &self,
        tables: &mut dyn BaseWrite,
        links: &BTreeMap<Position, Links>,
    ) -> Result<(), Fault> {
        for record in self.frozen.since(Position::default()) {
            let mut writer = Writer::with_capacity(record.cost_bytes());
            links.get(&record.position).copied().unwrap_or_default().write(&mut writer);
            record.encode(&mut writer);
            tables.append(Table::History, &record.position.to_key(), writer.as_slice())?;
        }
        Ok(())
    }
}

/// Writes the row of the key whose new versions, newest first, are drained from `versions`.
fn write_key(
    tables: &mut dyn BaseWrite,
    versions: &mut Vec<Arc<Record>>,
    links: &mut BTreeMap<Position, Links>,
) -> Result<(), Fault> {
    let Some(newest) = versions.first().cloned() else { return Ok(()) };
    let table_key = row::table_key(newest.space, &newest.key);
    let old = tables.get(Table::Keys, &table_key)?;
    let old = old.map(|value| decode_row(&table_key, value)).transpose()?;
    let mut tip = old.as_ref().map(|row| (row.newest, row.links));
    for record in versions.drain(..).rev() {
        let next = match tip {
            None => Links::default(),
            Some((parent, parent_links)) => {
                parent_links.next(parent, |at| links_of(tables, links, at))?
            }
        };
        links.insert(record.position, next);
        tip = Some((record.position, next));
    }
    if let Some(deadline) = old.and_then(|row| row.deadline) {
        let key = row::deadline_key(deadline, newest.space, &newest.key);
        tables.delete(Table::Deadlines, &key)?;
    }
    let deadline = newest.deadline.filter(|_| newest.live);
    if let Some(deadline) = deadline {
        let key = row::deadline_key(deadline, newest.space, &newest.key);
        tables.put(Table::Deadlines, &key, &newest.key)?;
    }
    let (_, newest_links) = tip.unwrap_or_default();
    let row = KeyRow {
        key: newest.key.clone(),
        newest: newest.position,
        live: newest.live,
        deadline,
        links: newest_links,
    };
    tables.put(Table::Keys, &table_key, &row.encode())
}

/// Links of an older record: of this checkpoint, or already in the base.
fn links_of(
    tables: &dyn BaseWrite,
    fresh: &BTreeMap<Position, Links>,
    at: Position,
) -> Result<Option<Links>, Fault> {
    if let Some(links) = fresh.get(&at) {
        return Ok(Some(*links));
    }
    let stored = tables.get(Table::History, &at.to_key())?;
    stored.map(|value| decode_version(value).map(|(links, _)| links)).transpose()
}

fn read_purged(tables: &dyn BaseWrite) -> Result<Position, Fault> {
    let row = tables.get(Table::Meta, META_KEY)?;
    let meta = row.map(Meta::decode).transpose();
    let meta = meta.map_err(|error| Fault::damaged("the meta row", error))?;
    Ok(meta.map(|meta| meta.purged).unwrap_or_default())
}

/// Removes dead records, looking at up to `limit` from where the last purge stopped. Returns how
/// many went.
fn purge(tables: &mut dyn BaseWrite, meta: &mut Meta, limit: usize) -> Result<usize, Fault> {
    if meta.purged.revision >= meta.compacted {
        return Ok(0);
    }
    let (dead, reached) = find_dead(tables, meta.purged, meta.compacted, limit)?;
    let mut removed = 0;
    for victim in &dead {
        if tables.get(Table::History, &victim.position.to_key())?.is_some() {
            tables.delete(Table::History, &victim.position.to_key())?;
            removed += 1;
        }
        if let Some(table_key) = &victim.last_of {
            let row = tables.get(Table::Keys, table_key)?;
            let row = row.map(|value| decode_row(table_key, value)).transpose()?;
            if row.is_some_and(|row| row.newest == victim.position) {
                tables.delete(Table::Keys, table_key)?;
            }
        }
    }
    meta.purged = reached;
    Ok(removed)
}

/// A record nobody may ask for any more.
struct Dead {
    position: Position,
    /// For a tombstone, the key row that goes with it if nothing came after.
    last_of: Option<Vec<u8>>,
}

/// Walks the records from `from` up to the compacted revision; returns the dead ones it came
/// upon, and where the next walk begins.
fn find_dead(
    tables: &dyn BaseWrite,
    from: Position,
    compacted: Revision,
    limit: usize,
) -> Result<(Vec<Dead>, Position), Fault> {
    let mut dead = Vec::new();
    let rows = tables.scan(Table::History, Bound::Included(&from.to_key()))?;
    for (walked, row) in rows.enumerate() {
        let (_, value) = row?;
        let (links, record) = decode_version(value)?;
        if record.position.revision >= compacted {
            break;
        }
        if walked >= limit {
            return Ok((dead, record.position));
        }
        dead.extend(links.previous.map(|position| Dead { position, last_of: None }));
        if !record.live {
            let last_of = Some(row::table_key(record.space, &record.key));
            dead.push(Dead { position: record.position, last_of });
        }
    }
    Ok((dead, Position::start_of(compacted)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ClusterTime, KeyRange, LeaseId, MemberId, Space, Term};
    use crate::store::base::{BaseRead, MemoryBase};
    use crate::store::mvcc::{Store, View};
    use crate::store::reader::Reader;
    use crate::store::row::STORED_KEY_BYTES;
    use crate::store::stream::{self, Installer};
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Keys around every edge of the stored form: short, as long as fits, longer, with one stored
    /// prefix, and neighbours before and behind them.
    fn keys() -> Vec<Bytes> {
        let long = |fill: u8, count: usize, tail: &str| {
            let mut key = vec![fill; count];
            key.extend_from_slice(tail.as_bytes());
            Bytes::from(key)
        };
        let most = STORED_KEY_BYTES;
        vec![
            Bytes::new(),
            long(b'/', 1, "a"),
            long(b'/', 1, "a/b"),
            long(b'k', most - 1, ""),
            long(b'k', most - 1, "j tail behind a lower prefix"),
            long(b'k', most, ""),
            long(b'k', most, "\0"),
            long(b'k', most, "a"),
            long(b'k', most, "b"),
            long(b'k', most, "sixteen bytes ..!"),
            long(b'k', most, &"c".repeat(200)),
            long(b'k', most - 1, "l"),
            long(b'l', 1, ""),
            long(0xff, most + 7, ""),
        ]
    }

    /// Every record ever written, looked through from end to end.
    #[derive(Default)]
    struct Naive {
        records: Vec<Arc<Record>>,
    }

    impl Naive {
        fn newest(&self, space: Space, key: &[u8], at: Position) -> Option<&Arc<Record>> {
            let same = |record: &&Arc<Record>| record.space == space && *record.key == *key;
            self.records.iter().filter(same).rfind(|record| record.position <= at)
        }

        fn live(&self, space: Space, key: &[u8], at: Revision) -> Option<&Arc<Record>> {
            self.newest(space, key, Position::end_of(at)).filter(|record| record.live)
        }

        fn range(&self, space: Space, range: &KeyRange, at: Revision) -> Vec<Arc<Record>> {
            let keys: BTreeSet<&Bytes> = self.records.iter().map(|record| &record.key).collect();
            let inside = keys.into_iter().filter(|key| range.contains(key));
            inside.filter_map(|key| self.live(space, key, at).cloned()).collect()
        }

        fn history(&self, from: Position, upto: Revision) -> Vec<Arc<Record>> {
            let inside =
                |record: &&Arc<Record>| record.position >= from && record.position.revision <= upto;
            self.records.iter().filter(inside).cloned().collect()
        }

        fn is_dead(&self, record: &Record, compacted: Revision) -> bool {
            let before = Position::start_of(compacted);
            let superseded = self.records.iter().any(|other| {
                (other.space, &other.key) == (record.space, &record.key)
                    && other.position > record.position
                    && other.position < before
            });
            record.position < before && (superseded || !record.live)
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// One revision: key, space, and a value or the end of it, with a deadline.
        Write(Vec<(usize, bool, Option<Option<u64>>)>),
        Freeze,
        Run,
        Thaw,
        /// To so many revisions before the newest.
        Compact(u64),
        KeepView,
        KeepReader,
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let change = (0..keys().len(), prop::bool::weighted(0.2), any::<Option<Option<u64>>>());
        prop_oneof![
            8 => prop::collection::vec(change, 1..5).prop_map(Step::Write),
            2 => Just(Step::Freeze),
            2 => Just(Step::Run),
            2 => Just(Step::Thaw),
            2 => (0u64..6).prop_map(Step::Compact),
            1 => Just(Step::KeepView),
            1 => Just(Step::KeepReader),
        ]
    }

    /// A store beside the naive records, in any state of its checkpoints.
    struct Pair {
        base: MemoryBase,
        store: Store<MemoryBase>,
        naive: Naive,
        purge_limit: usize,
        pending: Option<Checkpoint<MemoryBase>>,
        views: Vec<View<MemoryBase>>,
        readers: Vec<Reader<MemoryBase>>,
    }

    impl Pair {
        fn new(purge_limit: usize) -> Self {
            let base = MemoryBase::default();
            let meta = Meta { revision: Revision(1), ..Meta::default() };
            let store = Store::create(base.clone(), meta).unwrap();
            let (naive, pending) = (Naive::default(), None);
            let (views, readers) = (Vec::new(), Vec::new());
            Self { base, store, naive, purge_limit, pending, views, readers }
        }

        fn step(&mut self, step: &Step) {
            match step {
                Step::Write(changes) => self.write(changes),
                Step::Freeze => {
                    if let Some(checkpoint) = self.store.freeze(Bytes::from_static(b"state")) {
                        let purge_limit = self.purge_limit;
                        self.pending = Some(Checkpoint { purge_limit, ..checkpoint });
                    }
                }
                Step::Run => {
                    self.run();
                }
                Step::Thaw => {
                    if self.pending.is_none() && self.store.is_frozen() {
                        self.store.thaw();
                    }
                }
                Step::Compact(back) => {
                    let upto = Revision(self.store.meta().revision.0.saturating_sub(*back));
                    let meta = self.store.meta_mut();
                    meta.compacted = meta.compacted.max(upto);
                }
                Step::KeepView => self.views.push(self.store.view()),
                Step::KeepReader => self.readers.push(self.store.view().read().unwrap().unwrap()),
            }
        }

        fn run(&mut self) -> Option<Written> {
            Some(self.pending.take()?.run().unwrap())
        }

        fn write(&mut self, changes: &[(usize, bool, Option<Option<u64>>)]) {
            let revision = self.store.meta().revision.next();
            let mut sub = 0;
            for (key, other_space, value) in changes {
                let space = if *other_space { Space::Dirs } else { Space::Keys };
                let key = keys().swap_remove(*key);
                let was_live = self.naive.live(space, &key, revision).is_some();
                if value.is_none() && !was_live {
                    continue;
                }
                let record = Arc::new(Record {
                    space,
                    key,
                    position: Position { revision, sub },
                    live: value.is_some(),
                    hushed: false,
                    action: 1,
                    create_revision: revision,
                    version: 1,
                    created_index: revision,
                    modified_index: revision,
                    lease: LeaseId(0),
                    deadline: value.flatten().map(ClusterTime),
                    expiration: None,
                    value: Bytes::from(sub.to_string()),
                });
                self.store.insert(&record);
                self.naive.records.push(record);
                sub += 1;
            }
            let applied = self.store.meta().applied.next();
            let reached = if sub > 0 { revision } else { self.store.meta().revision };
            self.store.publish(applied, Term(1), reached);
        }

        /// What a reader says from `oldest` on.
        fn check(&self, reader: &Reader<MemoryBase>, oldest: Revision) {
            let all = keys();
            let ranges = [
                KeyRange::all(),
                KeyRange { start: all[4].clone(), end: Some(all[9].clone()) },
                KeyRange { start: all[7].clone(), end: None },
                KeyRange::prefix(&all[5]),
                KeyRange::single(&all[8]),
            ];
            for at in (oldest.0..=reader.revision().0).map(Revision) {
                for (space, key) in
                    all.iter().map(|key| (Space::Keys, key)).chain([(Space::Dirs, &all[8])])
                {
                    let found = reader.get_at(space, key, at).unwrap();
                    assert_eq!(found.as_ref(), self.naive.live(space, key, at), "{key:?} at {at}");
                    // What a record of this revision replaced.
                    let before = Position::end_of(Revision(at.0.saturating_sub(1)));
                    let newest = reader.newest_before(space, key, before).unwrap();
                    let live = newest.filter(|record| record.live);
                    let expected = self.naive.newest(space, key, before).filter(|r| r.live);
                    assert_eq!(live.as_ref(), expected, "{key:?} before {at}");
                }
                for range in &ranges {
                    for space in [Space::Keys, Space::Dirs, Space::Auth] {
                        let read = reader.range(space, range, at).unwrap().map(Result::unwrap);
                        assert_eq!(read.collect::<Vec<_>>(), self.naive.range(space, range, at));
                    }
                }
                let from = Position::start_of(at);
                let read = reader.history(from, reader.revision()).unwrap().map(Result::unwrap);
                let expected = self.naive.history(from, reader.revision());
                assert_eq!(read.collect::<Vec<_>>(), expected, "history from {at}");
            }
        }

        fn check_all(&self) {
            let compacted = self.store.meta().compacted;
            self.check(&self.store.view().read().unwrap().unwrap(), compacted);
            for view in &self.views {
                // A View that a compaction has outrun says so, and tells nothing else.
                match view.read().unwrap() {
                    Some(reader) => self.check(&reader, reader.compacted()),
                    None => assert!(view.revision < compacted),
                }
            }
            for reader in &self.readers {
                self.check(reader, reader.compacted());
            }
        }

        /// Carries everything to the base and purges to the end.
        fn settle(&mut self) {
            loop {
                self.run();
                self.step(&Step::Thaw);
                self.step(&Step::Freeze);
                let written = self.run().unwrap();
                assert_eq!(written.applied, self.store.meta().applied);
                if !written.more_to_purge {
                    break;
                }
            }
            self.step(&Step::Thaw);
        }

        /// The tables hold what is not dead, and nothing else.
        fn check_tables(&self) {
            let compacted = self.store.meta().compacted;
            let alive: Vec<_> =
                self.naive.records.iter().filter(|r| !self.naive.is_dead(r, compacted)).collect();
            let snapshot = self.base.snapshot().unwrap();
            let rows = |table| {
                let rows = snapshot.scan(table, Bound::Unbounded).unwrap();
                rows.map(|row| row.unwrap().0.to_vec()).collect::<BTreeSet<_>>()
            };
            let history = alive.iter().map(|record| record.position.to_key().to_vec());
            assert_eq!(rows(Table::History), history.collect());
            let keys = alive.iter().map(|record| row::table_key(record.space, &record.key));
            assert_eq!(rows(Table::Keys), keys.collect());
            let latest = Position::end_of(self.store.meta().revision);
            let newest = alive.iter().filter(|record| {
                self.naive.newest(record.space, &record.key, latest) == Some(**record)
            });
            let deadlines = newest.filter_map(|record| {
                Some(row::deadline_key(record.deadline?, record.space, &record.key))
            });
            assert_eq!(rows(Table::Deadlines), deadlines.collect());
        }
    }

    /// The store that a snapshot of this one makes.
    fn install(store: &Store<MemoryBase>) -> Store<MemoryBase> {
        let base = MemoryBase::default();
        let mut installer = Installer::new(base.clone(), MemberId(2));
        stream::write(&store.view(), store.meta(), &mut |chunk| installer.feed(&chunk)).unwrap();
        installer.finish().unwrap();
        Store::open(base).unwrap().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        #[test]
        fn the_store_answers_as_a_list_of_all_records_would(
            steps in prop::collection::vec(any_step(), 1..40),
            purge_limit in prop_oneof![1usize..4, Just(1_000)],
        ) {
            let mut pair = Pair::new(purge_limit);
            for step in &steps {
                pair.step(step);
            }
            pair.check_all();
            pair.settle();
            pair.check_all();
            pair.check_tables();
            let reopened = Store::open(pair.base.clone()).unwrap().unwrap();
            prop_assert_eq!(reopened.meta().revision, pair.store.meta().revision);
            pair.check(&reopened.read().unwrap(), reopened.meta().compacted);
            let installed = install(&pair.store);
            pair.check(&installed.read().unwrap(), installed.meta().compacted);
        }
    }
}
