//! The write-ahead log: what makes an answer durable.
//!
//! **What.** One `fdatasync` for each batch of Raft entries and hard states, appended in place to
//! zero-filled, recycled segment files. **Why own.** A flush that writes data only, without the
//! file system's journal, is twice as fast as appending to a growing file, and an eighth of the
//! writes of an LMDB commit (DESIGN decision 4); and the simulator can run this very code on a
//! disk that tears.
//!
//! **How data passes.** `write` codes a `LogBatch` into one frame (`frame`) and writes it to the
//! medium (`medium`, `memory`); `sync` makes it durable. After a stop `open` reads everything back
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
//! Deliberately not here: what an entry means, when to flush, threads. Names are flushed when a
//! segment is started but not when one is removed: a file that comes back is older than the
//! chain's start and holds nothing that counts.
//!
//! Sources: contracts/storage-limits.md sections 1 and 4; Ongaro, "Consensus: Bridging Theory and
//! Practice", 3.8 and 10.2.1, for what must be durable when.

mod error;
mod frame;
pub mod medium;
mod memory;
mod recover;

pub use error::WalError;
pub use medium::{FileMedium, Medium, SegmentNumber};
pub use memory::{MemoryMedium, Survival};

use crate::base::limits;
use crate::base::{ClusterId, LogIndex, MemberId, Term};
use frame::{FrameWriter, SegmentHeader, State};
use raft::eraftpb::{Entry, HardState};
use recover::Found;
use std::collections::VecDeque;

/// Zeros are written in pieces of this many bytes.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

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

/// A segment that is not written to any more.
#[derive(Clone, Copy, Debug)]
struct Full {
    number: SegmentNumber,
    /// Highest index that counts in it; 0 = none.
    last_index: LogIndex,
    bytes: u64,
}

/// The segment that is written to.
#[derive(Clone, Copy, Debug)]
struct Tail {
    header: SegmentHeader,
    /// Where the next frame goes.
    offset: u64,
    /// Bytes that exist already.
    filled: u64,
    last_index: LogIndex,
}

/// How a new segment is linked to the chain.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    previous: SegmentNumber,
    previous_end: u64,
    replaces: SegmentNumber,
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
        // Only what cannot matter is reused for the copy. The tail, and what it replaced, must
        // stay until the copy is durable: that they count no more was perhaps read from the cache.
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
        let mut rest = copied.as_slice();
        loop {
            let mut bytes = 0;
            let fits = |entry: &&&Entry| {
                bytes += entry_bytes_max(entry);
                bytes <= limits::WAL_COPY_BYTES
            };
            let count = rest.iter().take_while(fits).count().max(1).min(rest.len());
            let (now, later) = rest.split_at(count);
            let mut frame = self.start_frame(limits::WAL_COPY_BYTES.min(bytes));
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

    /// Starts the next segment. The tail is full and durable.
    fn rotate(&mut self) -> Result<(), WalError> {
        let Some(tail) = self.tail else {
            return Err(WalError::Poisoned);
        };
        let number = tail.header.number;
        let link =
            Link { previous: number, previous_end: self.next_flush, replaces: SegmentNumber(0) };
        self.start_segment(link)?;
        let (last_index, bytes) = (tail.last_index, tail.filled);
        self.full.push_back(Full { number, last_index, bytes });
        Ok(())
    }

    /// Makes a spare file, or a new one, the tail: header and name are durable before any frame.
    fn start_segment(&mut self, link: Link) -> Result<(), WalError> {
        let number = self.next_number;
        self.next_number = number.next();
        let header = SegmentHeader {
            identity: self.identity,
            number,
            salt: salt(self.salt_seed, number, self.next_flush),
            first_flush: self.next_flush,
            previous: link.previous,
            previous_end: link.previous_end,
            replaces: link.replaces,
        };
        let path = self.medium.path_of(number);
        let placed = match self.spares.last() {
            Some(spare) => self.medium.recycle(*spare, number),
            None => self.medium.create(number),
        };
        placed.map_err(|error| WalError::write(path, error))?;
        self.spares.pop();
        let filled = self.length(number)?;
        let prepared = self
            .fill(number, filled, frame::SEGMENT_HEADER_BYTES)
            .and_then(|filled| self.write_at(number, 0, &header.encode()).map(|()| filled));
        let filled = match prepared {
            Ok(filled) => filled,
            Err(error) => {
                // A full disk: give back what there is, so that the next try starts afresh.
                self.remove(number)?;
                return Err(error);
            }
        };
        self.sync_segment(number)?;
        self.sync_names()?;
        let offset = frame::SEGMENT_HEADER_BYTES;
        self.tail = Some(Tail { header, offset, filled, last_index: LogIndex(0) });
        Ok(())
    }

    /// Writes zeros ahead so that `end` bytes exist; returns how many do.
    fn fill(&mut self, number: SegmentNumber, filled: u64, end: u64) -> Result<u64, WalError> {
        if end <= filled {
            return Ok(filled);
        }
        let target = (filled + limits::WAL_FILL_BYTES).min(self.options.segment_bytes).max(end);
        let mut at = filled;
        while at < target {
            let piece = frame::to_index(target - at).min(ZEROS.len());
            self.write_at(number, at, ZEROS.get(..piece).unwrap_or_default())?;
            at += piece as u64;
        }
        Ok(target)
    }

    /// Frees segments that hold nothing needed: only entries below what is durably released, or
    /// none. The entry at that index stays, or a restarted log would not know its own beginning.
    fn retire_released(&mut self) -> Result<(), WalError> {
        let released = self.released_written;
        let needless = |full: &mut Full| full.last_index.0 == 0 || full.last_index < released;
        while let Some(full) = self.full.pop_front_if(needless) {
            self.retire(full.number)?;
        }
        Ok(())
    }

    /// Keeps a file as a spare, or removes it when there are enough or it is too long.
    fn retire(&mut self, number: SegmentNumber) -> Result<(), WalError> {
        let enough = self.spares.len() >= limits::WAL_SPARE_SEGMENTS_MAX;
        if enough || self.length(number)? > self.options.segment_bytes {
            return self.remove(number);
        }
        self.spares.push(number);
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

    fn length(&mut self, number: SegmentNumber) -> Result<u64, WalError> {
        let length = self.medium.length(number);
        length.map_err(|error| WalError::read(self.medium.path_of(number), error))
    }

    fn write_at(&mut self, number: SegmentNumber, at: u64, bytes: &[u8]) -> Result<(), WalError> {
        let written = self.medium.write_at(number, at, bytes);
        written.map_err(|error| WalError::write(self.medium.path_of(number), error))
    }

    fn remove(&mut self, number: SegmentNumber) -> Result<(), WalError> {
        let removed = self.medium.remove(number);
        removed.map_err(|error| WalError::write(self.medium.path_of(number), error))
    }

    fn sync_segment(&mut self, number: SegmentNumber) -> Result<(), WalError> {
        let synced = self.medium.sync(number);
        synced.map_err(|error| WalError::sync(self.medium.path_of(number), error))
    }

    fn sync_names(&mut self) -> Result<(), WalError> {
        let synced = self.medium.sync_dir();
        synced.map_err(|error| WalError::sync(self.medium.place(), error))
    }
}

/// A segment's salt: unlike any other's, even when two runs draw the same seed. The mixing is
/// Steele et al.'s SplitMix64 finalizer.
fn salt(seed: u64, number: SegmentNumber, flush: u64) -> u64 {
    let mut mixed = seed;
    for part in [number.0, flush] {
        mixed = (mixed ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
    }
    mixed
}
