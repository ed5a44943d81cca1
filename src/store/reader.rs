//! Reading one published state: the overlay first, then the base.
//!
//! A `Reader` belongs to a `View` and one base snapshot. Every question names a revision between
//! the compacted one and the View's; the answer is the same however often checkpoints happen in
//! between, because a base that is ahead of the View still holds the older versions.
//!
//! Invariants: the View is taken before the base snapshot, so no record is in neither; a reader is
//! short-lived and never crosses an await. It does not refuse compacted revisions: the machine
//! knows when, and with which words.

use crate::base::codec::{Malformed, Reader as Fields};
use crate::base::{ClusterTime, Fault, KeyRange, Revision, Space};
use crate::store::base::{Base, BaseRead, Row, Table};
use crate::store::memtable::Memtable;
use crate::store::record::{Position, Record};
use crate::store::row::{self, KeyRow, Links};
use bytes::Bytes;
use std::iter::Peekable;
use std::ops::Bound;
use std::sync::Arc;

/// Reads of one View.
pub struct Reader<B: Base> {
    pub(super) generations: Vec<Arc<Memtable>>,
    pub(super) base: B::Snapshot,
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
    pub(super) note: u64,
}

impl<B: Base> Reader<B> {
    /// The newest revision this reader sees.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The oldest revision that can be asked for.
    #[must_use]
    pub fn compacted(&self) -> Revision {
        self.compacted
    }

    /// What the machine says of the state.
    #[must_use]
    pub fn note(&self) -> u64 {
        self.note
    }

    /// The live record of a key at the reader's revision.
    ///
    /// # Errors
    /// When stored bytes are damaged or the database fails, as for every method here.
    pub fn get(&self, space: Space, key: &Bytes) -> Result<Option<Arc<Record>>, Fault> {
        self.get_at(space, key, self.revision)
    }

    /// The live record of a key at a revision.
    ///
    /// # Errors
    /// As `get`.
    pub fn get_at(
        &self,
        space: Space,
        key: &Bytes,
        at: Revision,
    ) -> Result<Option<Arc<Record>>, Fault> {
        let newest = self.newest_before(space, key, Position::end_of(at))?;
        Ok(newest.filter(|record| record.live))
    }

    /// The newest record, tombstones included, of a key at or before a position.
    ///
    /// # Errors
    /// As `get`.
    pub fn newest_before(
        &self,
        space: Space,
        key: &Bytes,
        at: Position,
    ) -> Result<Option<Arc<Record>>, Fault> {
        for generation in &self.generations {
            if let Some(found) = generation.newest(space, key, at) {
                return Ok(Some(found));
            }
        }
        let table_key = row::table_key(space, key);
        match self.base.get(Table::Keys, &table_key)? {
            Some(value) => version_at(&self.base, &decode_row(&table_key, value)?, at),
            None => Ok(None),
        }
    }

    /// Live records of a range at a revision, in key order.
    ///
    /// # Errors
    /// As `get`; also each item may fail.
    pub fn range<'a>(
        &'a self,
        space: Space,
        range: &'a KeyRange,
        at: Revision,
    ) -> Result<impl Iterator<Item = Result<Arc<Record>, Fault>> + 'a, Fault> {
        let at = Position::end_of(at);
        let mut layers = Vec::with_capacity(self.generations.len() + 1);
        for generation in &self.generations {
            layers.push(memtable_range(generation, space, range, at).peekable());
        }
        layers.push(base_range(&self.base, space, range, at)?.peekable());
        let merged = Merge { layers };
        Ok(merged.filter(|item| item.as_ref().map_or(true, |record| record.live)))
    }

    /// Records from a position on, up to and with a revision, in order: what happened.
    ///
    /// # Errors
    /// As `get`; also each item may fail.
    pub fn history(
        &self,
        from: Position,
        upto: Revision,
    ) -> Result<impl Iterator<Item = Result<Arc<Record>, Fault>> + '_, Fault> {
        let end = Position::end_of(upto.min(self.revision));
        let rows = self.base.scan(Table::History, Bound::Included(&from.to_key()))?;
        let mut sources: Vec<Records<'_>> = vec![Box::new(rows.map(|row| decode_history(row?)))];
        for generation in self.generations.iter().rev() {
            sources.push(Box::new(generation.since(from).map(Ok)));
        }
        // The sources follow each other, but a base ahead of the View repeats what a generation
        // holds: only what lies behind the last record counts.
        let mut last = None;
        let inside = move |item: &Result<Arc<Record>, Fault>| {
            item.as_ref().map_or(true, |record| record.position <= end)
        };
        let bounded = sources.into_iter().flat_map(move |source| source.take_while(inside));
        Ok(bounded.filter(move |item| {
            let Ok(record) = item else { return true };
            let news = last.is_none_or(|last| record.position > last);
            last = last.max(Some(record.position));
            news
        }))
    }

    /// Live keys with deadlines as the base knows them, in order of expiry: for a restart.
    ///
    /// # Errors
    /// As `get`.
    pub fn base_deadlines(&self) -> Result<Vec<(ClusterTime, Space, Bytes)>, Fault> {
        let rows = self.base.scan(Table::Deadlines, Bound::Unbounded)?;
        rows.map(|row| {
            let (key, value) = row?;
            read_deadline(key, value).map_err(|error| Fault::damaged("deadline row", error))
        })
        .collect()
    }
}

fn read_deadline(key: &[u8], value: &[u8]) -> Result<(ClusterTime, Space, Bytes), Malformed> {
    let (deadline, rest) = key.split_first_chunk::<8>().ok_or(Malformed::Truncated)?;
    let space = *rest.first().ok_or(Malformed::Truncated)?;
    let space =
        Space::from_byte(space).ok_or(Malformed::Unknown { what: "space", value: space.into() })?;
    Ok((ClusterTime(u64::from_be_bytes(*deadline)), space, Bytes::copy_from_slice(value)))
}

/// Records as a source yields them.
type Records<'a> = Box<dyn Iterator<Item = Result<Arc<Record>, Fault>> + 'a>;

/// Each key's version at a position in a generation, tombstones included.
fn memtable_range<'a>(
    table: &'a Memtable,
    space: Space,
    range: &'a KeyRange,
    at: Position,
) -> Records<'a> {
    let mut from = Bound::Unbounded;
    Box::new(std::iter::from_fn(move || {
        let record = table.first_at(space, from.as_ref(), range, at)?;
        from = Bound::Excluded(record.key.clone());
        Some(Ok(record))
    }))
}

/// Each key's version at a position in the base; some tombstones are left out.
fn base_range<'a, R: BaseRead>(
    base: &'a R,
    space: Space,
    range: &'a KeyRange,
    at: Position,
) -> Result<Records<'a>, Fault> {
    let start = row::scan_start(space, &range.start);
    let rows = base.scan(Table::Keys, Bound::Included(&start))?;
    // The stored forms of long keys begin a little before and end a little after their place.
    let in_space = rows.take_while(move |row| match row {
        Ok((key, _)) => key.first() == Some(&(space as u8)),
        Err(_) => true,
    });
    let ordered = InKeyOrder { rows: in_space.peekable(), group: Vec::new() };
    let inside = ordered
        .take_while(move |row| match row {
            Ok(row) => range.end.as_ref().is_none_or(|end| row.key < *end),
            Err(_) => true,
        })
        .filter(|row| row.as_ref().map_or(true, |row| range.contains(&row.key)))
        // A key that ended before `at` has nothing below it to hide: its records stay unread.
        .filter(move |row| row.as_ref().map_or(true, |row| row.live || row.newest > at));
    Ok(Box::new(
        inside.filter_map(move |row| row.and_then(|row| version_at(base, &row, at)).transpose()),
    ))
}

/// Decodes key rows of one space, putting long keys that share a stored prefix into order.
struct InKeyOrder<'a, I: Iterator<Item = Row<'a>>> {
    rows: Peekable<I>,
    /// Rows of one group of long keys, last first.
    group: Vec<KeyRow>,
}

impl<'a, I: Iterator<Item = Row<'a>>> InKeyOrder<'a, I> {
    fn read(&mut self) -> Result<Option<KeyRow>, Fault> {
        if let Some(row) = self.group.pop() {
            return Ok(Some(row));
        }
        let Some((key, value)) = self.rows.next().transpose()? else { return Ok(None) };
        let row = decode_row(key, value)?;
        let Some(prefix) = row::long_group(key) else { return Ok(Some(row)) };
        self.group.push(row);
        let same_group =
            |row: &Row<'_>| row.as_ref().is_ok_and(|(key, _)| row::long_group(key) == Some(prefix));
        while let Some(row) = self.rows.next_if(same_group) {
            let (key, value) = row?;
            self.group.push(decode_row(key, value)?);
        }
        self.group.sort_by(|a, b| b.key.cmp(&a.key));
        Ok(self.group.pop())
    }
}

impl<'a, I: Iterator<Item = Row<'a>>> Iterator for InKeyOrder<'a, I> {
    type Item = Result<KeyRow, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// Merges layers by key; of one key the first layer's version counts.
struct Merge<I: Iterator<Item = Result<Arc<Record>, Fault>>> {
    layers: Vec<Peekable<I>>,
}

impl<I: Iterator<Item = Result<Arc<Record>, Fault>>> Iterator for Merge<I> {
    type Item = Result<Arc<Record>, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut winner: Option<(usize, Bytes)> = None;
        for (at, layer) in self.layers.iter_mut().enumerate() {
            match layer.peek() {
                None => {}
                Some(Err(_)) => return layer.next(),
                Some(Ok(record)) if winner.as_ref().is_some_and(|(_, key)| *key <= record.key) => {}
                Some(Ok(record)) => winner = Some((at, record.key.clone())),
            }
        }
        let (first, key) = winner?;
        let mut found = None;
        for (at, layer) in self.layers.iter_mut().enumerate().skip(first) {
            let same = layer.next_if(|item| item.as_ref().is_ok_and(|record| record.key == key));
            if at == first {
                found = same;
            }
        }
        found
    }
}

pub(super) fn decode_row(table_key: &[u8], value: &[u8]) -> Result<KeyRow, Fault> {
    KeyRow::decode(table_key, value).map_err(|error| Fault::damaged("key row", error))
}

/// A `History` row: links, then the record.
pub(super) fn decode_version(value: &[u8]) -> Result<(Links, Arc<Record>), Fault> {
    let mut fields = Fields::new(value);
    let read = |fields: &mut Fields<'_>| -> Result<_, Malformed> {
        Ok((Links::read(fields)?, Record::decode(fields)?))
    };
    let (links, record) =
        read(&mut fields).map_err(|error| Fault::damaged("history row", error))?;
    Ok((links, Arc::new(record)))
}

fn decode_history((_, value): (&[u8], &[u8])) -> Result<Arc<Record>, Fault> {
    decode_version(value).map(|(_, record)| record)
}

/// Finds the version at or before a position, from the newest record of a row backwards.
fn version_at<R: BaseRead>(
    base: &R,
    row: &KeyRow,
    at: Position,
) -> Result<Option<Arc<Record>>, Fault> {
    let (mut position, mut links) = (row.newest, row.links);
    while position > at {
        let jump = links.jump.map(|(target, _)| target).filter(|target| *target > at);
        let Some(next) = jump.or(links.previous) else { return Ok(None) };
        position = next;
        if position > at {
            let Some(value) = base.get(Table::History, &position.to_key())? else {
                return Ok(None);
            };
            links = Links::read(&mut Fields::new(value))
                .map_err(|error| Fault::damaged("history row", error))?;
        }
    }
    match base.get(Table::History, &position.to_key())? {
        Some(value) => {
            let (_, record) = decode_version(value)?;
            if record.key != row.key {
                let what =
                    format!("the history row at revision {} is another key's", position.revision);
                return Err(Fault::Damaged { what });
            }
            Ok(Some(record))
        }
        // Compacted away: there was nothing at any revision that may still be asked for.
        None => Ok(None),
    }
}
