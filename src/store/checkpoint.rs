//! Carrying a frozen memtable to the base: one transaction, durable, then the memtable may go.
//!
//! For every changed key the row in `Keys` is written once, in key order; every version goes
//! behind the last row of `History`, linked to the version before. The same transaction moves the
//! key's deadline, removes some dead records of a compaction, and writes the meta row, so a crash
//! leaves the state of the last checkpoint or of this one.
//!
//! Compaction: a record is dead when a newer one of its key stands at or before the compacted
//! revision, or when it is a tombstone before it. Each record names its predecessor, so walking
//! the records between the old and the new compacted revision finds all dead ones without a
//! search, and the walk can stop anywhere and go on with the next checkpoint.
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
    purged_to: Arc<AtomicU64>,
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
        Self { base, frozen, meta, purged_to }
    }

    /// Writes the generation; when this returns `Ok` it survives a power cut.
    ///
    /// # Errors
    /// When stored bytes are damaged or the database fails. The base is unchanged then.
    pub fn run(self) -> Result<Written, Fault> {
        let mut written = None;
        // Before the commit, so that no reader of a thinned base misses it.
        self.purged_to.fetch_max(self.meta.compacted.0, Ordering::AcqRel);
        self.base.commit(&mut |tables| {
            let links = self.write_keys(tables)?;
            self.write_history(tables, &links)?;
            let mut meta = self.meta.clone();
            meta.purged = read_purged(tables)?;
            let purged = purge(tables, &mut meta)?;
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

/// Removes dead records, at most `PURGE_RECORDS_PER_CHECKPOINT`, from where the last purge
/// stopped. Returns how many went.
fn purge(tables: &mut dyn BaseWrite, meta: &mut Meta) -> Result<usize, Fault> {
    if meta.purged.revision >= meta.compacted {
        return Ok(0);
    }
    let (dead, reached) = find_dead(tables, meta.purged, meta.compacted)?;
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

/// Walks the records from `from` to the compacted revision; returns the dead ones it came upon,
/// and where the next walk begins.
fn find_dead(
    tables: &dyn BaseWrite,
    from: Position,
    compacted: Revision,
) -> Result<(Vec<Dead>, Position), Fault> {
    let mut dead = Vec::new();
    let rows = tables.scan(Table::History, Bound::Included(&from.to_key()))?;
    for (walked, row) in rows.enumerate() {
        let (_, value) = row?;
        let (links, record) = decode_version(value)?;
        if record.position.revision > compacted {
            break;
        }
        if walked >= PURGE_RECORDS_PER_CHECKPOINT {
            return Ok((dead, record.position));
        }
        dead.extend(links.previous.map(|position| Dead { position, last_of: None }));
        // The tombstone at the compacted revision itself still answers a watch from there.
        if !record.live && record.position.revision < compacted {
            let last_of = Some(row::table_key(record.space, &record.key));
            dead.push(Dead { position: record.position, last_of });
        }
    }
    Ok((dead, Position::start_of(compacted)))
}
