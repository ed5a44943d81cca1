//! The base: ordered tables under the overlay, replaced only by whole checkpoints.
//!
//! Two implementations stand behind one small trait: LMDB (`env`) on a host, and an ordered map
//! here, so that a thousand simulated members run in memory. What the tables hold is `row`'s and
//! `record`'s affair; a base sees bytes.
//!
//! Invariants: a snapshot never changes; a commit is seen whole or not at all, and when it has
//! returned it survives a power cut.

use crate::base::Fault;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

/// The tables of a base. The names are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// One row: everything a checkpoint says about itself.
    Meta,
    /// Key to the place of its newest record.
    Keys,
    /// Position to record.
    History,
    /// Deadline and key, in order of expiry.
    Deadlines,
}

impl Table {
    /// Every table.
    pub const ALL: [Table; 4] = [Table::Meta, Table::Keys, Table::History, Table::Deadlines];

    /// The table's name on disk.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Table::Meta => "meta",
            Table::Keys => "keys",
            Table::History => "history",
            Table::Deadlines => "deadlines",
        }
    }
}

/// A row as a scan yields it.
pub type Row<'a> = Result<(&'a [u8], &'a [u8]), Fault>;

/// Reads of one unchanging state.
pub trait BaseRead {
    /// The value of a key.
    ///
    /// # Errors
    /// When the database fails.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, Fault>;

    /// Rows in key order, beginning at a bound.
    ///
    /// # Errors
    /// When the database fails.
    fn scan<'a>(
        &'a self,
        table: Table,
        from: Bound<&[u8]>,
    ) -> Result<Box<dyn Iterator<Item = Row<'a>> + 'a>, Fault>;
}

/// Writes of one commit.
pub trait BaseWrite: BaseRead {
    /// Sets a row.
    ///
    /// # Errors
    /// When the database fails.
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), Fault>;

    /// Sets a row that sorts behind every other of its table.
    ///
    /// # Errors
    /// When the database fails.
    fn append(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), Fault>;

    /// Removes a row, if it is there.
    ///
    /// # Errors
    /// When the database fails.
    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), Fault>;
}

/// What a commit runs between its begin and its end.
pub type CommitBody<'a> = &'a mut dyn FnMut(&mut dyn BaseWrite) -> Result<(), Fault>;

/// Where checkpoints live.
pub trait Base: Clone + Send + Sync + 'static {
    /// A consistent state to read from. Short-lived: an LMDB snapshot pins pages.
    type Snapshot: BaseRead + Send;

    /// The state after the last commit.
    ///
    /// # Errors
    /// When the database fails.
    fn snapshot(&self) -> Result<Self::Snapshot, Fault>;

    /// Runs `body` in one transaction and makes it durable; `body`'s error undoes it. `body` may
    /// run again from the start when the database had to grow.
    ///
    /// # Errors
    /// When `body` or the database fails; nothing is changed then.
    fn commit(&self, body: CommitBody<'_>) -> Result<(), Fault>;
}

type Rows = BTreeMap<Vec<u8>, Bytes>;

/// One state of a `MemoryBase`.
#[derive(Clone, Debug, Default)]
pub struct MemoryTables {
    tables: [Rows; Table::ALL.len()],
}

impl MemoryTables {
    fn rows(&self, table: Table) -> &Rows {
        &self.tables[table as usize]
    }

    fn rows_mut(&mut self, table: Table) -> &mut Rows {
        &mut self.tables[table as usize]
    }
}

impl BaseRead for MemoryTables {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, Fault> {
        Ok(self.rows(table).get(key).map(|value| &**value))
    }

    fn scan<'a>(
        &'a self,
        table: Table,
        from: Bound<&[u8]>,
    ) -> Result<Box<dyn Iterator<Item = Row<'a>> + 'a>, Fault> {
        let rows = self.rows(table).range::<[u8], _>((from, Bound::Unbounded));
        Ok(Box::new(rows.map(|(key, value)| Ok((&**key, &**value)))))
    }
}

impl BaseWrite for MemoryTables {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        self.rows_mut(table).insert(key.to_vec(), Bytes::copy_from_slice(value));
        Ok(())
    }

    fn append(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        let last = self.rows(table).last_key_value();
        assert!(last.is_none_or(|(last, _)| **last < *key), "append out of order");
        self.put(table, key, value)
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), Fault> {
        self.rows_mut(table).remove(key);
        Ok(())
    }
}

impl BaseRead for Arc<MemoryTables> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, Fault> {
        (**self).get(table, key)
    }

    fn scan<'a>(
        &'a self,
        table: Table,
        from: Bound<&[u8]>,
    ) -> Result<Box<dyn Iterator<Item = Row<'a>> + 'a>, Fault> {
        (**self).scan(table, from)
    }
}

/// A base in memory, for simulations and tests. Clones share the tables, as two handles of one
/// database do.
#[derive(Clone, Debug, Default)]
pub struct MemoryBase {
    current: Arc<RwLock<Arc<MemoryTables>>>,
}

impl Base for MemoryBase {
    type Snapshot = Arc<MemoryTables>;

    fn snapshot(&self) -> Result<Self::Snapshot, Fault> {
        Ok(self.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn commit(&self, body: CommitBody<'_>) -> Result<(), Fault> {
        let mut next = MemoryTables::clone(&*self.snapshot()?);
        body(&mut next)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        Ok(())
    }
}
