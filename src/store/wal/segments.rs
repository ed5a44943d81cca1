//! The log's files: starting, filling, recycling and removing segments.
//!
//! The other half of `Wal`: `mod` decides what a frame says and when it is durable, this file
//! where it goes. A segment is made from a spare file if there is one, so that a steady log
//! neither grows nor touches the file system's journal.
//!
//! Invariants:
//! * A file's name is durable before its header is written, and that before its first frame: so
//!   a number stands for one content for ever, whatever a power cut leaves.
//! * Only files that hold nothing needed are reused or removed.
//! * A full disk changes nothing: the tail stays the tail.
//!
//! Deliberately not here: flushing names after a removal. A file that comes back is older than
//! the chain's start and holds nothing that counts.

use crate::base::LogIndex;
use crate::base::limits;
use crate::store::wal::Wal;
use crate::store::wal::WalError;
use crate::store::wal::frame::{self, SegmentHeader};
use crate::store::wal::medium::Medium;
use crate::store::wal::medium::SegmentNumber;

/// Zeros are written in pieces of this many bytes.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// A segment that is not written to any more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Full {
    pub(super) number: SegmentNumber,
    /// Highest index that counts in it; 0 = none.
    pub(super) last_index: LogIndex,
    pub(super) bytes: u64,
}

/// The segment that is written to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail {
    pub(super) header: SegmentHeader,
    /// Where the next frame goes.
    pub(super) offset: u64,
    /// Bytes that exist already.
    pub(super) filled: u64,
    pub(super) last_index: LogIndex,
}

/// How a new segment is linked to the chain.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Link {
    pub(super) previous: SegmentNumber,
    pub(super) previous_end: u64,
    pub(super) replaces: SegmentNumber,
}

impl<M: Medium> Wal<M> {
    /// Starts the next segment. The tail is full and durable.
    pub(super) fn rotate(&mut self) -> Result<(), WalError> {
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
    pub(super) fn start_segment(&mut self, link: Link) -> Result<(), WalError> {
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
        // The name first: a header that outlived its file's new name would bring its number into
        // the world twice, with two contents.
        self.sync_names()?;
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
        let offset = frame::SEGMENT_HEADER_BYTES;
        self.tail = Some(Tail { header, offset, filled, last_index: LogIndex(0) });
        Ok(())
    }

    /// Writes zeros ahead so that `end` bytes exist; returns how many do.
    pub(super) fn fill(
        &mut self,
        number: SegmentNumber,
        filled: u64,
        end: u64,
    ) -> Result<u64, WalError> {
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
    pub(super) fn retire_released(&mut self) -> Result<(), WalError> {
        let released = self.released_written;
        let needless = |full: &mut Full| full.last_index.0 == 0 || full.last_index < released;
        while let Some(full) = self.full.pop_front_if(needless) {
            self.retire(full.number)?;
        }
        Ok(())
    }

    /// Keeps a file as a spare, or removes it when there are enough or it is too long.
    pub(super) fn retire(&mut self, number: SegmentNumber) -> Result<(), WalError> {
        let enough = self.spares.len() >= limits::WAL_SPARE_SEGMENTS_MAX;
        if enough || self.length(number)? > self.options.segment_bytes {
            return self.remove(number);
        }
        self.spares.push(number);
        Ok(())
    }

    pub(super) fn length(&mut self, number: SegmentNumber) -> Result<u64, WalError> {
        let length = self.medium.length(number);
        length.map_err(|error| WalError::read(self.medium.path_of(number), error))
    }

    pub(super) fn write_at(
        &mut self,
        number: SegmentNumber,
        at: u64,
        bytes: &[u8],
    ) -> Result<(), WalError> {
        let written = self.medium.write_at(number, at, bytes);
        written.map_err(|error| WalError::write(self.medium.path_of(number), error))
    }

    fn remove(&mut self, number: SegmentNumber) -> Result<(), WalError> {
        let removed = self.medium.remove(number);
        removed.map_err(|error| WalError::write(self.medium.path_of(number), error))
    }

    pub(super) fn sync_segment(&mut self, number: SegmentNumber) -> Result<(), WalError> {
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
