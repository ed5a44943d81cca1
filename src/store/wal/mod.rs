//! The write-ahead log: what makes an answer durable.
//!
//! **What.** One `fdatasync` for each batch of Raft entries and hard states, appended in place to
//! zero-filled, recycled segment files. **Why own.** A flush that writes data only, without the
//! file system's journal, is twice as fast as appending to a growing file, and an eighth of the
//! writes of an LMDB commit (DESIGN decision 4); and the simulator can run this very code on a
//! disk that tears.
//!
//! **How data passes.** `write` codes a `LogBatch` into one frame (`frame`) and writes it to the
//! medium (`medium`, `memory`; `segments` says where); `sync` makes it durable. After a stop `open` reads everything back
//! (`recover`), then copies what lives in the tail segment to a fresh one and flushes that, before
//! anything is handed out. `release` says which entries a durable checkpoint made needless; it
//! takes effect with the next flush, which records it, so that a start can tell a segment that was
//! released from one that was lost.
//!
//! Invariants:
//! * One flush is in flight: a frame is written only when the one before it is durable.
//! * An old segment is never appended to: its last frames may have come from the page cache, and
//!   a flush that failed once leaves pages that look clean.
//! * Each segment starts with the hard state, snapshot marker and released index, so older ones
//!   can go without losing them.
//! * Numbers of segments and flushes only rise; a recycled file gets a new header and salt before
//!   its first frame, and its name is durable by then.
//! * After a failed write or flush every call fails. Only a full disk is no failure: `write`
//!   refuses the batch, nothing of it counts, and the same batch may be tried again.
//!
//! Deliberately not here: what an entry means, when to flush, threads.
//!
//! Sources: contracts/storage-limits.md sections 1 and 4; Ongaro, "Consensus: Bridging Theory and
//! Practice", 3.8 and 10.2.1, for what must be durable when.

mod error;
mod frame;
pub mod medium;
mod memory;
mod recover;
mod segments;

pub use error::WalError;
pub use medium::{FileMedium, Medium, SegmentNumber};
pub use memory::{MemoryMedium, Survival};

use crate::base::limits;
use crate::base::{ClusterId, LogIndex, MemberId, Term};
use frame::{FrameWriter, State};
use raft::eraftpb::{Entry, HardState};
use recover::Found;
use segments::{Full, Link, Tail};
use std::collections::VecDeque;

/// Whose log it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member.
    pub member: MemberId,
}

/// How the log lays out its files.
#[derive(Clone, Copy, Debug)]
pub struct WalOptions {
    /// Length of a segment in bytes; a single larger frame makes its segment longer.
    pub segment_bytes: u64,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self { segment_bytes: limits::WAL_SEGMENT_BYTES }
    }
}

/// What one flush makes durable, in this order: snapshot, entries, hard state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogBatch {
    /// The log restarts after this index; everything before goes.
    pub snapshot: Option<(LogIndex, Term)>,
    /// Contiguous entries. The log is cut before the first one.
    pub entries: Vec<Entry>,
    /// The hard state from here on.
    pub hard_state: Option<HardState>,
}

impl LogBatch {
    /// An upper bound of the frame's length.
    fn frame_bytes_max(&self) -> usize {
        self.entries.iter().map(entry_bytes_max).sum::<usize>() + frame::FRAME_OVERHEAD_BYTES
    }
}

fn entry_bytes_max(entry: &Entry) -> usize {
    entry.data.len() + entry.context.len() + frame::ENTRY_OVERHEAD_BYTES
}

/// What the log held when it was opened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recovered {
    /// The last durable hard state; the default one if there was none.
    pub hard_state: HardState,
    /// The newest snapshot marker.
    pub snapshot: Option<(LogIndex, Term)>,
    /// Contiguous entries up to the log's end. The first one follows the snapshot, or is at or
    /// below the index released last: that entry is always here.
    pub entries: Vec<Entry>,
    /// Whether the log was closed.
    pub was_closed: bool,
    /// Bytes of a frame that was cut short and dropped, as far as can be told.
    pub torn_bytes: u64,
}

/// The write-ahead log of one member.
#[derive(Debug)]
pub struct Wal<M> {
    medium: M,
    identity: Identity,
    salt_seed: u64,
    options: WalOptions,
    /// As of the last frame written, without `released`: that is what was asked for.
    state: State,
    released_written: LogIndex,
    full: VecDeque<Full>,
    /// `None` only until `adopt` has started the first segment of this run.
    tail: Option<Tail>,
    spares: Vec<SegmentNumber>,
    next_number: SegmentNumber,
    next_flush: u64,
    in_flight: bool,
    poisoned: bool,
}

impl<M: Medium> Wal<M> {
    /// Whether there is something to open, if only a creation that was cut short.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn exists(medium: &mut M) -> Result<bool, WalError> {
        let numbers = medium.segments().map_err(|error| WalError::read(medium.place(), error))?;
        Ok(!numbers.is_empty())
    }

    /// Makes an empty log, durably. `salt_seed` must be drawn anew for each run of the process
    /// and stay unknown to clients: it keeps stale and forged frames from passing for live ones.
    ///
    /// # Errors
    /// `Exists`, or what the disk says.
    pub fn create(
        mut medium: M,
        identity: Identity,
        salt_seed: u64,
        options: WalOptions,
    ) -> Result<Self, WalError> {
        if Self::exists(&mut medium)? {
            return Err(WalError::Exists { path: medium.place() });
        }
        let found = Found { next_number: SegmentNumber(1), next_flush: 1, ..Found::default() };
        let mut wal = Self::assemble(medium, identity, salt_seed, options, found.next_number);
        wal.adopt(&found)?;
        Ok(wal)
    }

    /// Reads the log back and makes it ready to be written to. What is handed out is durable.
    /// `salt_seed` as in `create`.
    ///
    /// # Errors
    /// `Absent` when there is no log, `Corrupt` when it is damaged, `Foreign` when it is not this
    /// member's, `TooNew`, or what the disk says.
    pub fn open(
        mut medium: M,
        identity: Identity,
        salt_seed: u64,
        options: WalOptions,
    ) -> Result<(Self, Recovered), WalError> {
        let found = recover::scan(&mut medium, identity)?;
        let mut wal = Self::assemble(medium, identity, salt_seed, options, found.next_number);
        wal.adopt(&found)?;
        let recovered = Recovered {
            hard_state: found.replay.hard_state.unwrap_or_default(),
            snapshot: found.replay.snapshot,
            entries: found.replay.entries.into(),
            was_closed: found.replay.closed,
            torn_bytes: found.torn_bytes,
        };
        Ok((wal, recovered))
    }

    /// Writes a batch as one frame; `sync` makes it durable.
    ///
    /// # Errors
    /// `NoSpace` leaves the log as it was: free space and write the batch again. After any other
    /// error the log is dead.
    ///
    /// # Panics
    /// When the batch before was not flushed, or this one does not continue the log.
    pub fn write(&mut self, batch: &LogBatch) -> Result<(), WalError> {
        self.refuse_poisoned()?;
        assert!(!self.in_flight, "one flush in flight: the last frame is not durable yet");
        self.assert_continues(batch);
        let result = self.append(batch);
        self.poison_on_error(result)
    }

    /// Makes the frame written last durable, then recycles segments that were released. Does
    /// nothing when there is no such frame.
    ///
    /// # Errors
    /// What the disk says; the log is dead then, and nothing may be acknowledged any more.
    pub fn sync(&mut self) -> Result<(), WalError> {
        self.refuse_poisoned()?;
        if !self.in_flight {
            return Ok(());
        }
        let result = self.flush().and_then(|()| self.retire_released());
        self.poison_on_error(result)
    }

    /// Says that entries up to and including `upto` are in a durable checkpoint and needed by
    /// nobody. The next flush records it and frees the segments. The entry at `upto` itself is still
    /// recovered: its term is what the entry after it is matched by.
    ///
    /// # Errors
    /// `Poisoned`.
    pub fn release(&mut self, upto: LogIndex) -> Result<(), WalError> {
        self.refuse_poisoned()?;
        self.state.released = self.state.released.max(upto.min(self.state.last_index));
        Ok(())
    }

    /// Flushes what is in flight and marks a clean shutdown, which makes the next start faster.
    ///
    /// # Errors
    /// As `write` and `sync`.
    pub fn close(mut self) -> Result<(), WalError> {
        self.sync()?;
        let mut frame = self.start_frame(0);
        frame.closed();
        // No rotation: a segment a little too long is cheaper than a fresh one for this record.
        self.put(frame)?;
        self.flush()?;
        self.retire_released()
    }

    /// Index of the last entry written, or of the snapshot the log restarted after.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        self.state.last_index
    }

    /// Bytes of the segments that are needed, spares not counted.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        let full: u64 = self.full.iter().map(|full| full.bytes).sum();
        full + self.tail.map_or(0, |tail| tail.filled)
    }

    fn assemble(
        medium: M,
        identity: Identity,
        salt_seed: u64,
        options: WalOptions,
        next_number: SegmentNumber,
    ) -> Self {
        Self {
            medium,
            identity,
            salt_seed,
            options,
            state: State::default(),
            released_written: LogIndex(0),
            full: VecDeque::new(),
            tail: None,
            spares: Vec::new(),
            next_number,
            next_flush: 1,
            in_flight: false,
            poisoned: false,
        }
    }

    /// Goes on from what was found: a fresh segment takes the place of the tail.
    fn adopt(&mut self, found: &Found) -> Result<(), WalError> {
        let replay = &found.replay;
        self.next_flush = found.next_flush;
        self.released_written = replay.released;
        for &(number, last_index) in &replay.segments {
            if found.tail.is_none_or(|tail| tail.number != number) {
                let bytes = self.length(number)?;
                self.full.push_back(Full { number, last_index, bytes });
            }
        }
        // Only files older than any possible tail are reused for the copy: what was found was
        // perhaps read from the cache, and must still be there if that is lost.
        found.spares.iter().try_for_each(|spare| self.retire(*spare))?;
        let link = found.tail.map_or(Link::default(), |tail| Link {
            previous: tail.previous,
            previous_end: tail.previous_end,
            replaces: tail.number,
        });
        self.start_segment(link)?;
        self.copy_tail(found)?;
        found.replaced.iter().try_for_each(|number| self.retire(*number))?;
        self.retire_released()
    }

    /// Writes all that lives in the old tail to the fresh segment. Each frame is flushed before
    /// the next one, so that a crash in between leaves a torn tail and not a damaged middle.
    fn copy_tail(&mut self, found: &Found) -> Result<(), WalError> {
        let replay = &found.replay;
        let copied: Vec<&Entry> = match replay.tail_first {
            Some(first) => replay.entries.iter().filter(|it| it.index >= first.0).collect(),
            None => Vec::new(),
        };
        self.state = State {
            hard_state: replay.hard_state.clone(),
            snapshot: replay.snapshot,
            released: replay.released,
            last_index: copied
                .first()
                .map_or(replay.last_index, |entry| LogIndex(entry.index.saturating_sub(1))),
        };
        // Small segments are copied in small pieces, so that tests see copies of several frames.
        let quarter = frame::to_index(self.options.segment_bytes / 4);
        let piece_bytes = limits::WAL_COPY_BYTES.min(quarter);
        let mut rest = copied.as_slice();
        loop {
            let mut bytes = 0;
            let fits = |entry: &&&Entry| {
                bytes += entry_bytes_max(entry);
                bytes <= piece_bytes
            };
            let count = rest.iter().take_while(fits).count().max(1).min(rest.len());
            let (now, later) = rest.split_at(count);
            let mut frame = self.start_frame(piece_bytes.min(bytes));
            frame.entries(now.iter().copied());
            if later.is_empty() && found.tail.is_some() {
                frame.copied();
            }
            self.put(frame)?;
            self.flush()?;
            self.note_entries(now.first().copied(), now.last().copied());
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        self.state.last_index = replay.last_index;
        Ok(())
    }

    fn append(&mut self, batch: &LogBatch) -> Result<(), WalError> {
        let bytes = batch.frame_bytes_max();
        let full = self.tail.is_some_and(|tail| {
            let used = tail.offset > frame::SEGMENT_HEADER_BYTES;
            used && tail.offset + bytes as u64 > self.options.segment_bytes
        });
        if full {
            self.rotate()?;
        }
        let mut frame = self.start_frame(bytes);
        if let Some((index, term)) = batch.snapshot {
            frame.snapshot(index, term);
        }
        frame.entries(batch.entries.iter());
        if let Some(hard_state) = &batch.hard_state {
            frame.hard_state(hard_state);
        }
        self.put(frame)?;
        self.note(batch);
        Ok(())
    }

    /// A frame with what must stand in front of the batch.
    fn start_frame(&self, payload_bytes: usize) -> FrameWriter {
        let mut frame = FrameWriter::with_capacity(payload_bytes);
        let first = self.tail.is_none_or(|tail| tail.offset == frame::SEGMENT_HEADER_BYTES);
        if first {
            frame.state(&self.state);
        } else if self.state.released > self.released_written {
            frame.released(self.state.released);
        }
        frame
    }

    /// Writes a frame behind the last one.
    fn put(&mut self, frame: FrameWriter) -> Result<(), WalError> {
        let Some(mut tail) = self.tail else {
            return Err(WalError::Poisoned);
        };
        let number = tail.header.number;
        let bytes = frame.finish(tail.header.salt, self.next_flush, tail.offset);
        let end = tail.offset + bytes.len() as u64;
        tail.filled = self.fill(number, tail.filled, end)?;
        self.write_at(number, tail.offset, &bytes)?;
        tail.offset = end;
        self.tail = Some(tail);
        self.next_flush += 1;
        self.in_flight = true;
        self.released_written = self.state.released;
        Ok(())
    }

    /// Takes over what a written batch changes.
    fn note(&mut self, batch: &LogBatch) {
        if let Some((index, term)) = batch.snapshot {
            self.state.snapshot = Some((index, term));
            self.state.last_index = index;
            // No entry before the marker counts any more, whatever its index.
            self.full.iter_mut().for_each(|full| full.last_index = LogIndex(0));
            if let Some(tail) = &mut self.tail {
                tail.last_index = LogIndex(0);
            }
        }
        self.note_entries(batch.entries.first(), batch.entries.last());
        if let Some(hard_state) = &batch.hard_state {
            self.state.hard_state = Some(hard_state.clone());
        }
    }

    fn note_entries(&mut self, first: Option<&Entry>, last: Option<&Entry>) {
        if let (Some(_), Some(last), Some(tail)) = (first, last, &mut self.tail) {
            self.state.last_index = LogIndex(last.index);
            tail.last_index = tail.last_index.max(LogIndex(last.index));
        }
    }

    fn flush(&mut self) -> Result<(), WalError> {
        if let Some(tail) = self.tail {
            self.sync_segment(tail.header.number)?;
        }
        self.in_flight = false;
        Ok(())
    }

    fn assert_continues(&self, batch: &LogBatch) {
        let mut last = self.state.last_index;
        if let Some((index, _)) = batch.snapshot {
            let before = self.state.snapshot.map_or(LogIndex(0), |(index, _)| index);
            assert!(index > before, "a snapshot marker goes back");
            last = index;
        }
        let floor = batch.snapshot.or(self.state.snapshot).map_or(LogIndex(0), |(index, _)| index);
        if let Some(first) = batch.entries.first().map(|entry| LogIndex(entry.index)) {
            assert!(first <= last.next(), "entry {first} leaves a gap after {last}");
            assert!(first > floor, "entry {first} is covered by the snapshot at {floor}");
            assert!(first > self.state.released, "entry {first} was released");
        }
        let contiguous = batch.entries.windows(2).all(|pair| match pair {
            [one, two] => one.index + 1 == two.index,
            _ => true,
        });
        assert!(contiguous, "the entries of a batch are not contiguous");
        if let (Some(old), Some(new)) = (&self.state.hard_state, &batch.hard_state) {
            assert!(new.term >= old.term, "the term goes back");
        }
    }

    fn refuse_poisoned(&self) -> Result<(), WalError> {
        if self.poisoned { Err(WalError::Poisoned) } else { Ok(()) }
    }

    fn poison_on_error(&mut self, result: Result<(), WalError>) -> Result<(), WalError> {
        self.poisoned |= result.as_ref().is_err_and(|error| !error.is_no_space());
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    const IDENTITY: Identity = Identity { cluster: ClusterId(1), member: MemberId(2) };
    const OPTIONS: WalOptions = WalOptions { segment_bytes: 64 * 1024 };

    fn batch(index: u64, bytes: usize) -> LogBatch {
        let data = vec![7; bytes].into();
        LogBatch {
            entries: vec![Entry { index, term: 1, data, ..Entry::default() }],
            hard_state: Some(HardState { term: 1, vote: 2, commit: index, ..HardState::default() }),
            snapshot: None,
        }
    }

    fn commit<M: Medium>(wal: &mut Wal<M>, batch: &LogBatch) -> Result<(), WalError> {
        wal.write(batch)?;
        wal.sync()
    }

    fn memory(options: WalOptions) -> (MemoryMedium, Wal<MemoryMedium>) {
        let medium = MemoryMedium::new();
        let wal = Wal::create(medium.clone(), IDENTITY, 1, options).unwrap();
        (medium, wal)
    }

    fn directory() -> (tempfile::TempDir, PathBuf) {
        std::fs::create_dir_all("target").unwrap();
        let parent = tempfile::tempdir_in("target").unwrap();
        let path = parent.path().join("wal");
        (parent, path)
    }

    fn open_files(path: &std::path::Path) -> (Wal<FileMedium>, Recovered) {
        Wal::open(FileMedium::open(path).unwrap(), IDENTITY, 3, OPTIONS).unwrap()
    }

    #[test]
    fn files_are_read_back_twice_and_recycled() {
        let (_parent, path) = directory();
        let medium = FileMedium::open(&path).unwrap();
        let mut wal = Wal::create(medium, IDENTITY, 2, OPTIONS).unwrap();
        for index in 1..=200 {
            commit(&mut wal, &batch(index, 2000)).unwrap();
            wal.release(LogIndex(index.saturating_sub(10))).unwrap();
        }
        drop(wal); // as a kill would
        let (mut wal, found) = open_files(&path);
        assert!(!found.was_closed);
        assert_eq!(found.hard_state.commit, 200);
        assert_eq!((found.entries[0].index, found.entries.len()), (189, 12));
        commit(&mut wal, &batch(201, 10)).unwrap();
        wal.close().unwrap();
        let (wal, found) = open_files(&path);
        assert!(found.was_closed);
        // The last release was not flushed before the kill, so the one before it counts.
        assert_eq!((found.entries[0].index, wal.last_index()), (189, LogIndex(201)));

        // 200 frames of 2 KB filled seven segments; the files of the first ones went round.
        let files: Vec<_> = path.read_dir().unwrap().map(|file| file.unwrap()).collect();
        assert!(files.len() <= 2 + limits::WAL_SPARE_SEGMENTS_MAX, "{files:?}");
        for file in &files {
            let meta = file.metadata().unwrap();
            assert_eq!(meta.permissions().mode() & 0o777, 0o600);
            assert_eq!(meta.len(), OPTIONS.segment_bytes);
        }
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_steady_log_makes_no_new_files_and_one_flush_a_batch() {
        let (mut medium, mut wal) = memory(OPTIONS);
        for index in 1..=400 {
            commit(&mut wal, &batch(index, 1000)).unwrap();
            wal.release(LogIndex(index)).unwrap();
        }
        assert!(medium.segments().unwrap().len() <= 2 + limits::WAL_SPARE_SEGMENTS_MAX);
        let (flushes, number) = (medium.syncs(), wal.next_number);
        for index in 401..=440 {
            commit(&mut wal, &batch(index, 1000)).unwrap();
        }
        let rotations = wal.next_number.0 - number.0;
        assert_eq!(medium.syncs() - flushes, 40 + rotations);
    }

    #[test]
    fn a_failed_flush_ends_the_log() {
        let (medium, mut wal) = memory(OPTIONS);
        wal.write(&batch(1, 10)).unwrap();
        medium.fail_next_sync();
        let error = wal.sync().unwrap_err();
        assert!(matches!(error, WalError::Sync { .. }) && error.source().is_some());
        for result in [wal.sync(), wal.write(&batch(2, 1)), wal.release(LogIndex(1)), wal.close()] {
            assert!(matches!(result, Err(WalError::Poisoned)));
        }
    }

    #[test]
    fn a_failed_write_ends_the_log() {
        let (medium, mut wal) = memory(OPTIONS);
        medium.fail_after_calls(0);
        assert!(matches!(wal.write(&batch(1, 10)), Err(WalError::Write { .. })));
        medium.fail_after_calls(u64::MAX);
        assert!(matches!(wal.write(&batch(1, 10)), Err(WalError::Poisoned)));
    }

    #[test]
    fn a_full_disk_refuses_the_batch_and_nothing_else() {
        let (medium, mut wal) = memory(OPTIONS);
        medium.set_capacity(Some(OPTIONS.segment_bytes + 5000));
        let mut index = 1;
        let error = loop {
            match commit(&mut wal, &batch(index, 3000)) {
                Ok(()) => index += 1,
                Err(error) => break error,
            }
        };
        assert!(error.is_no_space(), "{error}");
        assert!(wal.write(&batch(index, 3000)).unwrap_err().is_no_space());
        medium.set_capacity(None);
        commit(&mut wal, &batch(index, 3000)).unwrap();
        medium.crash(Survival::Nothing, &mut |_| 0);
        let (_, found) = Wal::open(medium, IDENTITY, 1, OPTIONS).unwrap();
        assert_eq!(found.entries.len() as u64, index);
    }

    #[test]
    fn a_frame_larger_than_a_segment_fits() {
        let (medium, mut wal) = memory(OPTIONS);
        commit(&mut wal, &batch(1, 200_000)).unwrap();
        commit(&mut wal, &batch(2, 10)).unwrap();
        medium.crash(Survival::Nothing, &mut |_| 0);
        let (_, found) = Wal::open(medium, IDENTITY, 1, OPTIONS).unwrap();
        assert_eq!(found.entries.len(), 2);
    }

    #[test]
    fn creation_cut_short_opens_as_an_empty_log() {
        for calls in 1..8 {
            let mut medium = MemoryMedium::new();
            medium.fail_after_calls(calls);
            let created = Wal::create(medium.clone(), IDENTITY, 1, OPTIONS);
            medium.crash(Survival::Everything, &mut |_| 0);
            assert!(Wal::exists(&mut medium).unwrap());
            let (wal, found) = Wal::open(medium, IDENTITY, 1, OPTIONS).unwrap();
            assert_eq!((found, wal.last_index()), (Recovered::default(), LogIndex(0)), "{calls}");
            drop(created);
        }
    }

    #[test]
    fn there_is_one_log_in_a_directory_or_none() {
        let absent = Wal::open(MemoryMedium::new(), IDENTITY, 1, OPTIONS).unwrap_err();
        assert!(matches!(absent, WalError::Absent { .. }));
        let (medium, _wal) = memory(OPTIONS);
        let exists = Wal::create(medium, IDENTITY, 1, OPTIONS).unwrap_err();
        assert!(matches!(exists, WalError::Exists { .. }));
    }

    #[test]
    #[should_panic(expected = "one flush in flight")]
    fn a_second_frame_waits_for_the_flush() {
        let (_, mut wal) = memory(OPTIONS);
        wal.write(&batch(1, 1)).unwrap();
        let _ = wal.write(&batch(2, 1));
    }

    #[test]
    #[should_panic(expected = "leaves a gap")]
    fn a_batch_continues_the_log() {
        let (_, mut wal) = memory(OPTIONS);
        let _ = wal.write(&batch(2, 1));
    }
}
