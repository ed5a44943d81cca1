//! The base on LMDB: one environment, four tables, whole checkpoints.
//!
//! Commits use LMDB's default flags: two flushes, ACID. NOSYNC, WRITEMAP and MAPASYNC are faster
//! and can lose or corrupt what was acknowledged, so they are not even an option
//! (`docs/decisions/lmdb-flags.md`). Speed comes from committing seldom: see `checkpoint`.
//!
//! The map is address space, not memory; it is doubled before it is half full, between
//! transactions, while new readers wait at a gate for some microseconds. So "map full", which LMDB
//! cannot recover from without a restart, is not met in practice, and met with a retry otherwise.
//!
//! Invariants:
//! * One `Lmdb` per directory and process (LMDB's locks are per process); clones share it.
//! * The map never moves while a transaction is open.
//! * No program this process starts inherits the data file.
//!
//! This file needs `unsafe`: LMDB is a memory map, and its crate asks for a promise that nobody else
//! changes the file. The data directory's lock (`daemon`) keeps it.

use crate::base::Fault;
use crate::store::base::{Base, BaseRead, BaseWrite, CommitBody, Row, Table};
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvOpenOptions, PutFlags, RoTxn, RwTxn, WithoutTls};
use rustix::io::FdFlags;
use std::ops::Bound;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Map of a new environment: a fleet's configuration fits many times over.
const MAP_BYTES_MIN: usize = 256 * 1024 * 1024;

/// Concurrent read transactions: one a thread is normal, watches catching up may hold more.
const READERS_MAX: u32 = 1_024;

type Tables = [Database<'static, Bytes, Bytes>; Table::ALL.len()];

/// An LMDB environment.
#[derive(Clone)]
pub struct Lmdb {
    shared: Arc<Shared>,
}

struct Shared {
    env: Env<WithoutTls>,
    tables: Tables,
    gate: Arc<Gate>,
}

impl Lmdb {
    /// Opens or makes the environment in a directory, which must exist.
    ///
    /// # Errors
    /// When LMDB cannot open it; the message names the directory.
    pub fn open(directory: &Path) -> Result<Self, Fault> {
        let doing = || format!("opening the database in {}", directory.display());
        let on_disk = std::fs::metadata(directory.join("data.mdb")).map_or(0, |data| data.len());
        let on_disk = usize::try_from(on_disk).unwrap_or(usize::MAX);
        let map_bytes = on_disk.saturating_mul(2).max(MAP_BYTES_MIN).next_power_of_two();
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        let tables_max = u32::try_from(Table::ALL.len()).unwrap_or(u32::MAX);
        options.map_size(map_bytes).max_dbs(tables_max).max_readers(READERS_MAX);
        // SAFETY: the data directory is locked, so no other process maps this file.
        #[expect(unsafe_code, reason = "LMDB maps the file")]
        let env = unsafe { options.open(directory) }.map_err(|error| fault(doing(), error))?;
        close_on_exec(&env).map_err(|error| fault(doing(), error))?;
        let tables = open_tables(&env).map_err(|error| fault(doing(), error))?;
        Ok(Self { shared: Arc::new(Shared { env, tables, gate: Arc::default() }) })
    }

    /// Bytes of the data file in use.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.shared.env.info().last_page_number.saturating_mul(page_bytes())
    }

    fn map_bytes(&self) -> usize {
        self.shared.env.info().map_size
    }

    /// Doubles the map. Waits for open readers and holds new ones off meanwhile.
    fn grow(&self) -> Result<(), Fault> {
        let closed = self.shared.gate.close();
        let bytes = self.map_bytes().saturating_mul(2);
        // SAFETY: the gate is closed, so no read transaction is open; the caller, the one writer,
        // has none open either.
        #[expect(unsafe_code, reason = "the map may only move between transactions")]
        let resized = unsafe { self.shared.env.resize(bytes) };
        drop(closed);
        tracing::debug!(map_bytes = bytes, "database map grown");
        resized.map_err(|error| fault(format!("growing the database map to {bytes} bytes"), error))
    }

    fn commit_once(&self, body: &mut CommitBody<'_>) -> Result<Committed, Fault> {
        let begun = self.shared.env.write_txn();
        let txn = begun.map_err(|error| fault("beginning a checkpoint".into(), error))?;
        let mut write = Write { txn, tables: &self.shared.tables, is_full: false };
        let done = body(&mut write);
        if write.is_full {
            return Ok(Committed::MapFull);
        }
        done?;
        match write.txn.commit() {
            Ok(()) => Ok(Committed::Durable),
            Err(error) if is_map_full(&error) => Ok(Committed::MapFull),
            Err(error) => Err(fault("committing a checkpoint".into(), error)),
        }
    }
}

enum Committed {
    Durable,
    MapFull,
}

impl Base for Lmdb {
    type Snapshot = Snapshot;

    fn snapshot(&self) -> Result<Snapshot, Fault> {
        let pass = Gate::enter(&self.shared.gate);
        let txn = self.shared.env.clone().static_read_txn();
        let txn = txn.map_err(|error| fault("beginning a read".into(), error))?;
        Ok(Snapshot { txn, tables: self.shared.tables, _pass: pass })
    }

    fn commit(&self, mut body: CommitBody<'_>) -> Result<(), Fault> {
        if self.used_bytes() > self.map_bytes() / 2 {
            self.grow()?;
        }
        while let Committed::MapFull = self.commit_once(&mut body)? {
            self.grow()?;
        }
        Ok(())
    }
}

/// LMDB opens its data file so that every child inherits it, for writing: a template's command, and
/// the service it starts. The number of that descriptor is not to be had, so it is looked for.
fn close_on_exec(env: &Env<WithoutTls>) -> heed::Result<()> {
    let file_of = |of: std::fs::Metadata| (of.dev(), of.ino());
    let copy = env.try_clone_inner_file()?;
    let data = file_of(copy.metadata()?);
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        // Whatever another thread closes meanwhile is not the data file.
        let Ok(found) = std::fs::metadata(entry.path()) else { continue };
        let Some(Ok(number)) = entry.file_name().to_str().map(str::parse::<RawFd>) else {
            continue;
        };
        if file_of(found) == data {
            // SAFETY: the descriptor is LMDB's or `copy`, the only ones of this file here, and
            // both stay open beyond this block.
            #[expect(unsafe_code, reason = "the descriptor is LMDB's own and has no safe owner")]
            let file = unsafe { BorrowedFd::borrow_raw(number) };
            rustix::io::fcntl_setfd(file, FdFlags::CLOEXEC).map_err(std::io::Error::from)?;
        }
    }
    Ok(())
}

fn open_tables(env: &Env<WithoutTls>) -> heed::Result<Tables> {
    let txn = env.write_txn()?;
    let created = env.create_databases_and_commit(txn, |opener, txn| -> heed::Result<_> {
        let mut create = |table: Table| opener.create_database(txn, Some(table.name()));
        let tables = (
            create(Table::Meta)?,
            create(Table::Keys)?,
            create(Table::History)?,
            create(Table::Deadlines)?,
        );
        Ok(CommitOrAbort::<_, ()>::Commit(tables))
    })?;
    let (meta, keys, history, deadlines) = created.unwrap_commit();
    Ok([meta, keys, history, deadlines])
}

/// A read transaction.
pub struct Snapshot {
    // Dropped in this order: the gate opens only after the transaction has ended.
    txn: RoTxn<'static, WithoutTls>,
    tables: Tables,
    _pass: Pass,
}

impl BaseRead for Snapshot {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, Fault> {
        get(&self.tables, &self.txn, table, key)
    }

    fn scan<'a>(
        &'a self,
        table: Table,
        from: Bound<&[u8]>,
    ) -> Result<Box<dyn Iterator<Item = Row<'a>> + 'a>, Fault> {
        scan(&self.tables, &self.txn, table, from)
    }
}

struct Write<'a> {
    txn: RwTxn<'a>,
    tables: &'a Tables,
    /// The map ended in the middle: whatever the body says, it must run again.
    is_full: bool,
}

impl Write<'_> {
    fn check(&mut self, table: Table, result: heed::Result<()>) -> Result<(), Fault> {
        result.map_err(|error| {
            self.is_full |= is_map_full(&error);
            fault(format!("writing table {}", table.name()), error)
        })
    }
}

impl BaseRead for Write<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, Fault> {
        get(self.tables, &self.txn, table, key)
    }

    fn scan<'a>(
        &'a self,
        table: Table,
        from: Bound<&[u8]>,
    ) -> Result<Box<dyn Iterator<Item = Row<'a>> + 'a>, Fault> {
        scan(self.tables, &self.txn, table, from)
    }
}

impl BaseWrite for Write<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        let done = self.tables[table as usize].put(&mut self.txn, key, value);
        self.check(table, done)
    }

    fn append(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        let tables = self.tables;
        let done =
            tables[table as usize].put_with_flags(&mut self.txn, PutFlags::APPEND, key, value);
        self.check(table, done)
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), Fault> {
        let done = self.tables[table as usize].delete(&mut self.txn, key);
        self.check(table, done.map(drop))
    }
}

fn get<'a>(
    tables: &Tables,
    txn: &'a RoTxn<'_>,
    table: Table,
    key: &[u8],
) -> Result<Option<&'a [u8]>, Fault> {
    let found = tables[table as usize].get(txn, key);
    found.map_err(|error| fault(format!("reading table {}", table.name()), error))
}

fn scan<'a>(
    tables: &Tables,
    txn: &'a RoTxn<'_>,
    table: Table,
    from: Bound<&[u8]>,
) -> Result<Box<dyn Iterator<Item = Row<'a>> + 'a>, Fault> {
    let failed = move |error| fault(format!("scanning table {}", table.name()), error);
    let rows = tables[table as usize].range(txn, &(from, Bound::Unbounded)).map_err(failed)?;
    Ok(Box::new(rows.map(move |row| row.map_err(failed))))
}

fn is_map_full(error: &heed::Error) -> bool {
    matches!(error, heed::Error::Mdb(heed::MdbError::MapFull))
}

fn fault(doing: String, error: heed::Error) -> Fault {
    match error {
        heed::Error::Io(source) => Fault::Storage { doing, source },
        other => Fault::Database { doing, message: other.to_string() },
    }
}

fn page_bytes() -> usize {
    rustix::param::page_size()
}

/// Keeps the map still while transactions are open.
#[derive(Default)]
struct Gate {
    guests: Mutex<Guests>,
    emptied: Condvar,
}

#[derive(Default)]
struct Guests {
    inside: usize,
    /// Whether somebody waits for the last to leave: a notification that nobody hears is still a
    /// system call, and this one would follow every read.
    awaited: bool,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(gate: &Arc<Self>) -> Pass {
        gate.lock().inside += 1;
        Pass { gate: Arc::clone(gate) }
    }

    /// Waits until nobody is inside; nobody enters while the guard lives.
    fn close(&self) -> MutexGuard<'_, Guests> {
        let waited = self.emptied.wait_while(self.lock(), |guests| {
            guests.awaited = guests.inside > 0;
            guests.awaited
        });
        waited.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leave to hold a transaction open.
struct Pass {
    gate: Arc<Gate>,
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut guests = self.gate.lock();
        guests.inside -= 1;
        if guests.inside == 0 && guests.awaited {
            self.gate.emptied.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> tempfile::TempDir {
        std::fs::create_dir_all("target").unwrap();
        tempfile::tempdir_in("target").unwrap()
    }

    #[test]
    fn a_commit_is_whole_and_survives_reopening() {
        let directory = scratch();
        {
            let base = Lmdb::open(directory.path()).unwrap();
            let before = base.snapshot().unwrap();
            base.commit(&mut |tables| tables.put(Table::Keys, b"a", b"1")).unwrap();
            let failed = base.commit(&mut |tables| {
                tables.put(Table::Keys, b"b", b"2")?;
                Err(Fault::Invariant("on purpose".into()))
            });
            assert!(failed.is_err());
            assert_eq!(before.get(Table::Keys, b"a").unwrap(), None);
        }
        let base = Lmdb::open(directory.path()).unwrap();
        let after = base.snapshot().unwrap();
        let rows = after.scan(Table::Keys, Bound::Unbounded).unwrap();
        let rows: Vec<_> = rows.map(|row| row.unwrap()).collect();
        assert_eq!(rows, [(&b"a"[..], &b"1"[..])]);
    }

    #[test]
    fn no_child_inherits_the_data_file() {
        let directory = scratch();
        let _base = Lmdb::open(directory.path()).unwrap();
        let listing = std::process::Command::new("ls").args(["-l", "/proc/self/fd"]).output();
        let listing = String::from_utf8(listing.unwrap().stdout).unwrap();
        let name = directory.path().file_name().unwrap().to_str().unwrap();
        assert!(listing.contains(" -> ") && !listing.contains(name), "{listing}");
    }

    #[test]
    fn the_map_grows_while_readers_come_and_go() {
        let directory = scratch();
        let base = Lmdb::open(directory.path()).unwrap();
        let map_bytes = base.map_bytes();
        let value = vec![7; 1024 * 1024];
        let reading = base.clone();
        let readers = std::thread::spawn(move || {
            let mut seen = 0;
            while seen < 300 {
                let snapshot = reading.snapshot().unwrap();
                seen = snapshot.scan(Table::Keys, Bound::Unbounded).unwrap().count();
            }
        });
        for at in 0..30_u32 {
            base.commit(&mut |tables| {
                for part in 0..10_u32 {
                    let key = (at * 10 + part).to_be_bytes();
                    tables.append(Table::Keys, &key, &value)?;
                }
                Ok(())
            })
            .unwrap();
        }
        readers.join().unwrap();
        assert!(base.map_bytes() > map_bytes);
    }
}
