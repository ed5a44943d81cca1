//! A disk in memory that forgets what was not flushed.
//!
//! The simulator and the crash tests run the log on it. It models what a real disk and file
//! system owe: written bytes are visible at once and durable after `sync`; names are durable
//! after `sync_dir`; a power cut keeps any part of the rest, down to single sectors. A failed
//! `sync` leaves its writes readable but never durable, as Linux does once it has marked the
//! dirty pages clean.
//!
//! Clones share the disk: the simulator keeps one while the member on top of it comes and goes.
//!
//! Invariant: chance comes only from the caller's `pick`, so that a seed replays exactly.
//!
//! Deliberately simple: names become durable in the order they changed, as in a journalling file
//! system.

use crate::store::wal::medium::Medium;
use crate::store::wal::medium::SegmentNumber;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes a device writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// What a power cut leaves of the writes that were not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// None of them.
    Nothing,
    /// All of them.
    Everything,
    /// All bytes, but no change of a name: bytes and names reach the disk by different ways.
    NamesLost,
    /// The first few.
    Prefix,
    /// Any of them.
    Subset,
    /// Any sectors of any of them.
    Torn,
}

/// A shared disk in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryMedium {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug, Default)]
struct Disk {
    files: BTreeMap<FileId, Content>,
    /// Names as programs see them.
    names: BTreeMap<SegmentNumber, FileId>,
    /// Names as they are after a power cut that keeps nothing.
    durable_names: BTreeMap<SegmentNumber, FileId>,
    /// Changes of names since the last `sync_dir`.
    name_changes: Vec<NameChange>,
    next_file: u64,
    syncs: u64,
    sync_fails: bool,
    /// Changing calls until the power goes out.
    calls_left: Option<u64>,
    capacity_bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FileId(u64);

#[derive(Debug, Default)]
struct Content {
    durable: Vec<u8>,
    unsynced: Vec<Write>,
}

#[derive(Debug)]
struct Write {
    offset: usize,
    bytes: Vec<u8>,
    /// A failed sync let go of it: readable, never durable.
    doomed: bool,
}

#[derive(Debug)]
enum NameChange {
    Set(SegmentNumber, FileId),
    Unset(SegmentNumber),
    Move(SegmentNumber, SegmentNumber),
}

impl MemoryMedium {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cuts the power: of what was not flushed, what `survival` says is kept. `pick(n)` returns a
    /// number below `n`. Whoever has the log open on this disk must not use it any more.
    pub fn crash(&self, survival: Survival, pick: &mut dyn FnMut(u64) -> u64) {
        let mut disk = self.disk();
        (disk.calls_left, disk.sync_fails) = (None, false);
        for content in disk.files.values_mut() {
            content.crash(survival, pick);
        }
        let changes = std::mem::take(&mut disk.name_changes);
        let kept = match survival {
            Survival::Nothing | Survival::NamesLost => 0,
            Survival::Everything => changes.len(),
            Survival::Prefix | Survival::Subset | Survival::Torn => {
                index(pick(changes.len() as u64 + 1))
            }
        };
        let mut names = std::mem::take(&mut disk.durable_names);
        changes.iter().take(kept).for_each(|change| change.apply(&mut names));
        disk.files.retain(|id, _| names.values().any(|named| named == id));
        disk.durable_names.clone_from(&names);
        disk.names = names;
    }

    /// Makes the next `sync` fail with an I/O error.
    pub fn fail_next_sync(&self) {
        self.disk().sync_fails = true;
    }

    /// Lets the power go out after this many more calls that change something: every later one
    /// fails, until `crash` says what is left.
    pub fn fail_after_calls(&self, calls: u64) {
        self.disk().calls_left = Some(calls);
    }

    /// Bounds the disk: growing past this many bytes is refused as a full disk. `None` = no bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk().capacity_bytes = bytes;
    }

    /// Flushes of files so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.disk().syncs
    }

    /// Inverts the bits of `mask` in one durable byte of a segment: rot.
    pub fn rot(&self, segment: SegmentNumber, offset: u64, mask: u8) {
        if let Ok(content) = self.disk().content(segment)
            && let Some(byte) = content.durable.get_mut(index(offset))
        {
            *byte ^= mask;
        }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    fn content(&mut self, segment: SegmentNumber) -> io::Result<&mut Content> {
        let id = self.names.get(&segment).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.files.entry(*id).or_default())
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
    }

    /// Counts a call that changes something.
    fn count_call(&mut self) -> io::Result<()> {
        match &mut self.calls_left {
            Some(0) => Err(io::Error::other("the power is out")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn used_bytes(&self) -> u64 {
        self.files.values().map(|content| content.length() as u64).sum()
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<SegmentNumber, FileId>) {
        match self {
            Self::Set(name, file) => {
                names.insert(*name, *file);
            }
            Self::Unset(name) => {
                names.remove(name);
            }
            Self::Move(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(*to, file);
                }
            }
        }
    }
}

impl Content {
    fn length(&self) -> usize {
        let ends = self.unsynced.iter().map(|write| write.offset + write.bytes.len());
        ends.max().unwrap_or(0).max(self.durable.len())
    }

    fn read(&self, offset: usize, buffer: &mut [u8]) -> usize {
        let count = buffer.len().min(self.length().saturating_sub(offset));
        let buffer = buffer.get_mut(..count).unwrap_or_default();
        buffer.fill(0);
        overlay(buffer, offset, 0, &self.durable);
        for write in &self.unsynced {
            overlay(buffer, offset, write.offset, &write.bytes);
        }
        count
    }

    fn sync(&mut self) {
        for write in std::mem::take(&mut self.unsynced) {
            if write.doomed {
                self.unsynced.push(write);
            } else {
                self.store(write.offset, &write.bytes);
            }
        }
    }

    /// A write over bytes that a failed flush let go of makes their pages dirty again.
    fn write(&mut self, write: Write) {
        for earlier in &mut self.unsynced {
            let apart = earlier.offset + earlier.bytes.len() <= write.offset
                || write.offset + write.bytes.len() <= earlier.offset;
            earlier.doomed &= apart;
        }
        self.unsynced.push(write);
    }

    fn store(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        overlay(&mut self.durable, 0, offset, bytes);
    }

    fn crash(&mut self, survival: Survival, pick: &mut dyn FnMut(u64) -> u64) {
        let mut writes = std::mem::take(&mut self.unsynced);
        writes.retain(|write| !write.doomed);
        match survival {
            Survival::Nothing => writes.clear(),
            Survival::Everything | Survival::NamesLost | Survival::Torn => {}
            Survival::Prefix => writes.truncate(index(pick(writes.len() as u64 + 1))),
            Survival::Subset => writes.retain(|_| pick(2) == 1),
        }
        for write in &writes {
            if survival == Survival::Torn {
                self.store_some_sectors(write, pick);
            } else {
                self.store(write.offset, &write.bytes);
            }
        }
    }

    fn store_some_sectors(&mut self, write: &Write, pick: &mut dyn FnMut(u64) -> u64) {
        let mut start = 0;
        while start < write.bytes.len() {
            let to_boundary = SECTOR_BYTES - (write.offset + start) % SECTOR_BYTES;
            let end = write.bytes.len().min(start + to_boundary);
            if pick(2) == 1 {
                self.store(write.offset + start, write.bytes.get(start..end).unwrap_or_default());
            }
            start = end;
        }
    }
}

/// Copies the part of `from` (which starts at `from_offset`) that falls into `to` (which starts at
/// `to_offset`).
fn overlay(to: &mut [u8], to_offset: usize, from_offset: usize, from: &[u8]) {
    let start = to_offset.max(from_offset);
    let end = (to_offset + to.len()).min(from_offset + from.len());
    if start < end
        && let Some(to) = to.get_mut(start - to_offset..end - to_offset)
        && let Some(from) = from.get(start - from_offset..end - from_offset)
    {
        to.copy_from_slice(from);
    }
}

/// A place in memory. Offsets beyond it cannot have been written.
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

impl Medium for MemoryMedium {
    fn segments(&mut self) -> io::Result<Vec<SegmentNumber>> {
        Ok(self.disk().names.keys().copied().collect())
    }

    fn length(&mut self, segment: SegmentNumber) -> io::Result<u64> {
        Ok(self.disk().content(segment)?.length() as u64)
    }

    fn read_at(
        &mut self,
        segment: SegmentNumber,
        offset: u64,
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        Ok(self.disk().content(segment)?.read(index(offset), buffer))
    }

    fn write_at(&mut self, segment: SegmentNumber, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk();
        disk.count_call()?;
        let (used, capacity) = (disk.used_bytes(), disk.capacity_bytes);
        let content = disk.content(segment)?;
        let growth = (index(offset) + bytes.len()).saturating_sub(content.length()) as u64;
        if growth > 0 && capacity.is_some_and(|capacity| used + growth > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        content.write(Write { offset: index(offset), bytes: bytes.to_vec(), doomed: false });
        Ok(())
    }

    fn sync(&mut self, segment: SegmentNumber) -> io::Result<()> {
        let mut disk = self.disk();
        disk.count_call()?;
        disk.syncs += 1;
        let fails = std::mem::take(&mut disk.sync_fails);
        let content = disk.content(segment)?;
        if fails {
            content.unsynced.iter_mut().for_each(|write| write.doomed = true);
            return Err(io::Error::other("injected flush failure"));
        }
        content.sync();
        Ok(())
    }

    fn create(&mut self, segment: SegmentNumber) -> io::Result<()> {
        let mut disk = self.disk();
        disk.count_call()?;
        if disk.names.contains_key(&segment) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = FileId(disk.next_file);
        disk.next_file += 1;
        disk.files.insert(id, Content::default());
        disk.change(NameChange::Set(segment, id));
        Ok(())
    }

    fn recycle(&mut self, from: SegmentNumber, to: SegmentNumber) -> io::Result<()> {
        let mut disk = self.disk();
        disk.count_call()?;
        disk.names.get(&from).ok_or(io::ErrorKind::NotFound)?;
        disk.change(NameChange::Move(from, to));
        Ok(())
    }

    fn remove(&mut self, segment: SegmentNumber) -> io::Result<()> {
        let mut disk = self.disk();
        disk.count_call()?;
        disk.names.get(&segment).ok_or(io::ErrorKind::NotFound)?;
        disk.change(NameChange::Unset(segment));
        Ok(())
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        let mut disk = self.disk();
        disk.count_call()?;
        disk.name_changes.clear();
        let names = disk.names.clone();
        disk.files.retain(|id, _| names.values().any(|named| named == id));
        disk.durable_names = names;
        Ok(())
    }

    fn place(&self) -> String {
        "memory".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: SegmentNumber = SegmentNumber(1);

    fn content(medium: &mut MemoryMedium, segment: SegmentNumber) -> Vec<u8> {
        let mut buffer = vec![0; index(medium.length(segment).unwrap())];
        medium.read_at(segment, 0, &mut buffer).unwrap();
        buffer
    }

    #[test]
    fn only_what_was_flushed_must_survive() {
        for (survival, left) in [(Survival::Nothing, &b"ab"[..]), (Survival::Everything, b"axyz")] {
            let mut medium = MemoryMedium::new();
            medium.create(ONE).unwrap();
            medium.write_at(ONE, 0, b"ab").unwrap();
            medium.sync(ONE).unwrap();
            medium.sync_dir().unwrap();
            medium.write_at(ONE, 1, b"xyz").unwrap();
            assert_eq!(content(&mut medium, ONE), b"axyz");
            medium.crash(survival, &mut |_| 0);
            assert_eq!(content(&mut medium, ONE), left);
        }
    }

    #[test]
    fn sectors_tear_apart() {
        let mut medium = MemoryMedium::new();
        medium.create(ONE).unwrap();
        medium.sync_dir().unwrap();
        medium.write_at(ONE, 0, &[7; 3 * SECTOR_BYTES]).unwrap();
        let mut coins = [0, 1, 0, 0].into_iter();
        medium.crash(Survival::Torn, &mut |_| coins.next().unwrap());
        let left = content(&mut medium, ONE);
        assert_eq!(left.len(), 2 * SECTOR_BYTES);
        assert!(left[..SECTOR_BYTES].iter().all(|byte| *byte == 0));
        assert!(left[SECTOR_BYTES..].iter().all(|byte| *byte == 7));
    }

    #[test]
    fn names_need_their_own_flush() {
        let mut medium = MemoryMedium::new();
        medium.create(ONE).unwrap();
        medium.write_at(ONE, 0, b"a").unwrap();
        medium.sync(ONE).unwrap();
        medium.sync_dir().unwrap();
        medium.recycle(ONE, SegmentNumber(2)).unwrap();
        assert_eq!(medium.segments().unwrap(), [SegmentNumber(2)]);
        medium.crash(Survival::Nothing, &mut |_| 0);
        assert_eq!(medium.segments().unwrap(), [ONE]);
        assert_eq!(content(&mut medium, ONE), b"a");
        medium.remove(ONE).unwrap();
        medium.sync_dir().unwrap();
        medium.crash(Survival::Nothing, &mut |_| 0);
        assert!(medium.segments().unwrap().is_empty());
    }

    #[test]
    fn a_failed_flush_keeps_bytes_readable_but_never_durable() {
        let mut medium = MemoryMedium::new();
        medium.create(ONE).unwrap();
        medium.sync_dir().unwrap();
        medium.write_at(ONE, 0, b"a").unwrap();
        medium.fail_next_sync();
        medium.sync(ONE).unwrap_err();
        medium.sync(ONE).unwrap();
        assert_eq!(content(&mut medium, ONE), b"a");
        medium.crash(Survival::Everything, &mut |_| 0);
        assert!(content(&mut medium, ONE).is_empty());
    }
}
