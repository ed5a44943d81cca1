//! The bytes of the log: segment header, frames, records.
//!
//! A segment starts with a header in its first 4,096 bytes; after it come *frames*, one for each
//! flush, each at a multiple of 64 bytes:
//!
//! ```text
//! magic 4 | crc32c 4 | salt 8 | flush 8 | offset 8 | payload length 4 | zero 4 | payload
//! ```
//!
//! A frame proves by itself that it belongs where it stands: its checksum covers the segment's
//! salt, the flush number (which only ever rises, over all segments) and its own offset. So bytes
//! of an earlier life of a recycled file never pass for live ones, and recovery can tell a torn
//! tail from damage in the middle by looking for any frame behind the bad one. A client cannot
//! forge a frame inside a value, because the salt never leaves this host.
//!
//! The payload is a run of records: a type byte, then fields in the strict codec of
//! `base::codec`. An unknown type is refused, never skipped.
//!
//! Invariants: encoding and decoding are pure; a header fits one sector, so it is whole or absent.
//!
//! Deliberately not stored: `Entry::sync_log`, which raft 0.7 keeps for old logs only.

use crate::base::codec::{Malformed, Reader, Writer};
use crate::base::limits;
use crate::base::{ClusterId, LogIndex, MemberId, Term};
use crate::store::wal::Identity;
use crate::store::wal::medium::SegmentNumber;
use raft::eraftpb::{Entry, EntryType, HardState};

/// Bytes in front of the first frame of a segment.
pub(super) const SEGMENT_HEADER_BYTES: u64 = 4096;

/// Frames start at multiples of this.
pub(super) const FRAME_ALIGNMENT: u64 = 64;

/// Bytes of a frame in front of its payload.
pub(super) const FRAME_HEADER_BYTES: usize = 40;

/// Upper bound of what coding adds to one entry's data and context: type, term, two lengths.
pub(super) const ENTRY_OVERHEAD_BYTES: usize = 1 + 10 + 10 + 10;

/// Upper bound of every other record of one frame together, with the frame's own header.
pub(super) const FRAME_OVERHEAD_BYTES: usize = 512;

const SEGMENT_MAGIC: &[u8; 8] = b"althwal\n";
const FRAME_MAGIC: &[u8; 4] = b"alfr";
const FORMAT: u64 = 1;

const STATE: u8 = 1;
const ENTRIES: u8 = 2;
const HARD_STATE: u8 = 3;
const SNAPSHOT: u8 = 4;
const RELEASED: u8 = 5;
const COPIED: u8 = 6;
const CLOSED: u8 = 7;

/// What a segment says about itself, and how it is linked to the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) identity: Identity,
    pub(super) number: SegmentNumber,
    pub(super) salt: u64,
    /// Flush number of its first frame.
    pub(super) first_flush: u64,
    /// The segment before it in the chain; 0 = none.
    pub(super) previous: SegmentNumber,
    /// Flush number at which the frames of `previous` end (exclusive).
    pub(super) previous_end: u64,
    /// The segment whose content recovery copied here; it counts no more once the copy is
    /// complete. 0 = none.
    pub(super) replaces: SegmentNumber,
}

impl SegmentHeader {
    /// The header, whole: `SEGMENT_HEADER_BYTES` long.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut fields = Writer::new();
        fields.fixed(self.identity.cluster.0).fixed(self.identity.member.0);
        fields.fixed(self.number.0).fixed(self.salt).fixed(self.first_flush);
        fields.fixed(self.previous.0).fixed(self.previous_end).fixed(self.replaces.0);
        let mut header = Writer::with_capacity(to_index(SEGMENT_HEADER_BYTES));
        // Format and length stand first in every format to come, so that a newer header can be
        // told from a damaged one.
        header.raw(SEGMENT_MAGIC).fixed(FORMAT).fixed(fields.as_slice().len() as u64);
        header.raw(fields.as_slice());
        let sum = crc32c::crc32c(header.as_slice());
        header.fixed(sum.into());
        let mut bytes = header.into_vec();
        bytes.resize(to_index(SEGMENT_HEADER_BYTES), 0);
        bytes
    }

    /// Reads a header.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let damaged = Malformed::Checksum { what: "the segment header" };
        if reader.raw(SEGMENT_MAGIC.len())? != SEGMENT_MAGIC {
            return Err(damaged);
        }
        let format = reader.fixed()?;
        let length = usize::try_from(reader.fixed()?).map_err(|_| damaged)?;
        let mut fields = Reader::new(reader.raw(length)?);
        let covered = bytes.len() - reader.rest().len();
        let sum = crc32c::crc32c(bytes.get(..covered).unwrap_or_default());
        if reader.fixed()? != u64::from(sum) {
            return Err(damaged);
        }
        if format > FORMAT {
            let what = "the write-ahead log";
            return Err(Malformed::NewerFormat { what, found: format, newest: FORMAT });
        }
        let header = Self {
            identity: Identity {
                cluster: ClusterId(fields.fixed()?),
                member: MemberId(fields.fixed()?),
            },
            number: SegmentNumber(fields.fixed()?),
            salt: fields.fixed()?,
            first_flush: fields.fixed()?,
            previous: SegmentNumber(fields.fixed()?),
            previous_end: fields.fixed()?,
            replaces: SegmentNumber(fields.fixed()?),
        };
        fields.finish()?;
        Ok(header)
    }
}

/// What every segment repeats in its first frame, so that older segments can go.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct State {
    pub(super) hard_state: Option<HardState>,
    pub(super) snapshot: Option<(LogIndex, Term)>,
    pub(super) released: LogIndex,
    /// Where the log ends in front of this segment's own entries.
    pub(super) last_index: LogIndex,
}

/// One record of a payload.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Record {
    /// First record of each segment.
    State(State),
    /// Contiguous entries; the log is cut before the first of them.
    Entries(Vec<Entry>),
    /// The hard state from here on.
    HardState(HardState),
    /// The log restarts after this index.
    Snapshot(LogIndex, Term),
    /// Entries below this index are not needed any more.
    Released(LogIndex),
    /// All that was live in the replaced segment stands above.
    Copied,
    /// Clean shutdown: nothing follows.
    Closed,
}

/// Builds one frame.
#[derive(Debug)]
pub(super) struct FrameWriter(Writer);

impl FrameWriter {
    /// An empty frame with room for `payload_bytes`.
    pub(super) fn with_capacity(payload_bytes: usize) -> Self {
        let mut writer = Writer::with_capacity(payload_bytes + FRAME_OVERHEAD_BYTES);
        writer.raw(&[0; FRAME_HEADER_BYTES]);
        Self(writer)
    }

    /// Adds the state a segment starts with.
    pub(super) fn state(&mut self, state: &State) -> &mut Self {
        self.0.u8(STATE).option(state.hard_state.as_ref(), put_hard_state);
        self.0.option(state.snapshot, |w, (index, term)| {
            w.uint(index.0).uint(term.0);
        });
        self.0.uint(state.released.0).uint(state.last_index.0);
        self
    }

    /// Adds entries, which must be contiguous. Their index is stored once.
    pub(super) fn entries<'a>(
        &mut self,
        entries: impl ExactSizeIterator<Item = &'a Entry>,
    ) -> &mut Self {
        let mut entries = entries.peekable();
        if let Some(first) = entries.peek() {
            let index = first.index;
            self.0.u8(ENTRIES).uint(entries.len() as u64).uint(index);
            for entry in entries {
                self.0.u8(entry_type_code(entry.entry_type)).uint(entry.term);
                self.0.bytes(&entry.data).bytes(&entry.context);
            }
        }
        self
    }

    /// Adds a hard state.
    pub(super) fn hard_state(&mut self, hard_state: &HardState) -> &mut Self {
        self.0.u8(HARD_STATE);
        put_hard_state(&mut self.0, hard_state);
        self
    }

    /// Adds a snapshot marker.
    pub(super) fn snapshot(&mut self, index: LogIndex, term: Term) -> &mut Self {
        self.0.u8(SNAPSHOT).uint(index.0).uint(term.0);
        self
    }

    /// Adds what was released.
    pub(super) fn released(&mut self, upto: LogIndex) -> &mut Self {
        self.0.u8(RELEASED).uint(upto.0);
        self
    }

    /// Marks a recovery's copy complete.
    pub(super) fn copied(&mut self) -> &mut Self {
        self.0.u8(COPIED);
        self
    }

    /// Marks a clean shutdown; the last record.
    pub(super) fn closed(&mut self) -> &mut Self {
        self.0.u8(CLOSED);
        self
    }

    /// The frame's bytes for this place, padded to the alignment.
    pub(super) fn finish(self, salt: u64, flush: u64, offset: u64) -> Vec<u8> {
        let mut bytes = self.0.into_vec();
        let length = bytes.len() - FRAME_HEADER_BYTES;
        assert!(length <= limits::WAL_FRAME_BYTES_MAX, "a batch larger than Raft has in flight");
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let mut fields = Writer::with_capacity(FRAME_HEADER_BYTES);
        fields.fixed(salt).fixed(flush).fixed(offset);
        fields.raw(&length.to_le_bytes()).raw(&[0; 4]);
        if let Some(place) = bytes.get_mut(8..FRAME_HEADER_BYTES) {
            place.copy_from_slice(fields.as_slice());
        }
        let sum = crc32c::crc32c(bytes.get(8..).unwrap_or_default());
        let front = FRAME_MAGIC.iter().copied().chain(sum.to_le_bytes());
        bytes.iter_mut().zip(front).for_each(|(to, from)| *to = from);
        bytes.resize(bytes.len().next_multiple_of(to_index(FRAME_ALIGNMENT)), 0);
        bytes
    }
}

/// The front of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    sum: u32,
    /// Checksum of the header's own fields, to be carried on over the payload.
    sum_of_fields: u32,
    pub(super) salt: u64,
    pub(super) flush: u64,
    pub(super) offset: u64,
    pub(super) payload_bytes: usize,
}

impl FrameHeader {
    /// Reads what may be a frame's front; `None` when it is clearly none.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        if reader.raw(4).ok()? != FRAME_MAGIC {
            return None;
        }
        let sum = u32::from_le_bytes(reader.raw(4).ok()?.try_into().ok()?);
        let sum_of_fields = crc32c::crc32c(bytes.get(8..FRAME_HEADER_BYTES)?);
        let (salt, flush, offset) =
            (reader.fixed().ok()?, reader.fixed().ok()?, reader.fixed().ok()?);
        let length = u32::from_le_bytes(reader.raw(4).ok()?.try_into().ok()?);
        let payload_bytes = usize::try_from(length).ok()?;
        (payload_bytes <= limits::WAL_FRAME_BYTES_MAX).then_some(Self {
            sum,
            sum_of_fields,
            salt,
            flush,
            offset,
            payload_bytes,
        })
    }

    /// Whether the checksum matches this payload.
    pub(super) fn matches(&self, payload: &[u8]) -> bool {
        crc32c::crc32c_append(self.sum_of_fields, payload) == self.sum
    }

    /// Bytes up to the next frame.
    pub(super) fn frame_bytes(&self) -> u64 {
        ((FRAME_HEADER_BYTES + self.payload_bytes) as u64).next_multiple_of(FRAME_ALIGNMENT)
    }
}

/// Takes the next record off a payload.
pub(super) fn next_record(reader: &mut Reader<'_>) -> Result<Option<Record>, Malformed> {
    if reader.rest().is_empty() {
        return Ok(None);
    }
    Ok(Some(match reader.u8()? {
        STATE => Record::State(State {
            hard_state: reader.option(get_hard_state)?,
            snapshot: reader.option(get_position)?,
            released: get_index(reader)?,
            last_index: get_index(reader)?,
        }),
        ENTRIES => Record::Entries(get_entries(reader)?),
        HARD_STATE => Record::HardState(get_hard_state(reader)?),
        SNAPSHOT => {
            let (index, term) = get_position(reader)?;
            Record::Snapshot(index, term)
        }
        RELEASED => Record::Released(get_index(reader)?),
        COPIED => Record::Copied,
        CLOSED => Record::Closed,
        other => return Err(Malformed::Unknown { what: "record type", value: other.into() }),
    }))
}

fn put_hard_state(writer: &mut Writer, hard_state: &HardState) {
    writer.uint(hard_state.term).uint(hard_state.vote).uint(hard_state.commit);
}

fn get_hard_state(reader: &mut Reader<'_>) -> Result<HardState, Malformed> {
    let (term, vote, commit) = (reader.uint()?, reader.uint()?, reader.uint()?);
    Ok(HardState { term, vote, commit, ..HardState::default() })
}

fn get_position(reader: &mut Reader<'_>) -> Result<(LogIndex, Term), Malformed> {
    Ok((get_index(reader)?, Term(reader.uint()?)))
}

/// An index that one can follow.
fn get_index(reader: &mut Reader<'_>) -> Result<LogIndex, Malformed> {
    let index = reader.uint()?;
    if index == u64::MAX { Err(Malformed::Overflow) } else { Ok(LogIndex(index)) }
}

fn get_entries(reader: &mut Reader<'_>) -> Result<Vec<Entry>, Malformed> {
    let count = reader.uint()?;
    let first = reader.uint()?;
    let end = first.checked_add(count).ok_or(Malformed::Overflow)?;
    // No room is set aside on the word of `count`: the vector grows with what is really there.
    let mut entries = Vec::new();
    for index in first..end {
        entries.push(Entry {
            entry_type: entry_type_of(reader.u8()?)?,
            term: reader.uint()?,
            index,
            data: reader.owned()?,
            context: reader.owned()?,
            ..Entry::default()
        });
    }
    Ok(entries)
}

fn entry_type_code(entry_type: EntryType) -> u8 {
    match entry_type {
        EntryType::EntryNormal => 0,
        EntryType::EntryConfChange => 1,
        EntryType::EntryConfChangeV2 => 2,
    }
}

fn entry_type_of(code: u8) -> Result<EntryType, Malformed> {
    match code {
        0 => Ok(EntryType::EntryNormal),
        1 => Ok(EntryType::EntryConfChange),
        2 => Ok(EntryType::EntryConfChangeV2),
        other => Err(Malformed::Unknown { what: "entry type", value: other.into() }),
    }
}

/// A small constant or a checked length as an index: `usize` has 64 bits wherever this runs.
pub(super) fn to_index(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn entry(index: u64, entry_type: EntryType, data: &'static [u8]) -> Entry {
        let (data, context) = (Bytes::from_static(data), Bytes::from_static(b"ctx"));
        Entry { entry_type, term: 7, index, data, context, ..Entry::default() }
    }

    fn header() -> SegmentHeader {
        SegmentHeader {
            identity: Identity { cluster: ClusterId(0xc), member: MemberId(0xa) },
            number: SegmentNumber(7),
            salt: 99,
            first_flush: 1000,
            previous: SegmentNumber(5),
            previous_end: 998,
            replaces: SegmentNumber(6),
        }
    }

    fn records(payload: &[u8]) -> Result<Vec<Record>, Malformed> {
        let mut reader = Reader::new(payload);
        std::iter::from_fn(|| next_record(&mut reader).transpose()).collect()
    }

    #[test]
    fn every_record_reads_back() {
        let state = State {
            hard_state: Some(HardState { term: 3, vote: 2, commit: 9, ..HardState::default() }),
            snapshot: Some((LogIndex(4), Term(2))),
            released: LogIndex(5),
            last_index: LogIndex(11),
        };
        let entries = vec![
            entry(12, EntryType::EntryNormal, b""),
            entry(13, EntryType::EntryConfChange, b"x"),
            entry(14, EntryType::EntryConfChangeV2, &[0xff; 300]),
        ];
        let hard_state = HardState { term: u64::MAX, ..HardState::default() };
        let mut writer = FrameWriter::with_capacity(0);
        writer.state(&state).snapshot(LogIndex(11), Term(3)).entries(entries.iter());
        writer.hard_state(&hard_state).released(LogIndex(11)).copied().closed();
        let bytes = writer.finish(1, 2, 4096);
        let front = FrameHeader::parse(&bytes).unwrap();
        assert_eq!((front.salt, front.flush, front.offset), (1, 2, 4096));
        assert_eq!(front.frame_bytes(), bytes.len() as u64);
        let payload = &bytes[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + front.payload_bytes];
        assert!(front.matches(payload));
        let expected = [
            Record::State(state),
            Record::Snapshot(LogIndex(11), Term(3)),
            Record::Entries(entries),
            Record::HardState(hard_state),
            Record::Released(LogIndex(11)),
            Record::Copied,
            Record::Closed,
        ];
        assert_eq!(records(payload).unwrap(), expected);
    }

    #[test]
    fn every_flipped_bit_of_a_frame_shows() {
        let mut writer = FrameWriter::with_capacity(0);
        writer.entries([entry(1, EntryType::EntryNormal, b"value")].iter());
        let good = writer.finish(0x5a17, 3, 64 * 100);
        let whole = FrameHeader::parse(&good).unwrap();
        let covered = FRAME_HEADER_BYTES + whole.payload_bytes;
        for (at, bit) in (0..covered).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            let valid = FrameHeader::parse(&bad).is_some_and(|front| {
                let end = FRAME_HEADER_BYTES + front.payload_bytes;
                bad.get(FRAME_HEADER_BYTES..end).is_some_and(|payload| front.matches(payload))
            });
            assert!(!valid, "byte {at} bit {bit}");
        }
    }

    #[test]
    fn segment_headers_read_back_or_are_refused() {
        let bytes = header().encode();
        assert_eq!(bytes.len() as u64, SEGMENT_HEADER_BYTES);
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header()));
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        assert!(used < 512, "a header must fit one sector");
        for at in 0..=used {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert!(SegmentHeader::decode(&bad).is_err(), "byte {at}");
        }
        assert!(SegmentHeader::decode(&[0; 4096]).is_err());
        assert!(SegmentHeader::decode(&[]).is_err());
    }

    #[test]
    fn a_newer_format_says_so() {
        let mut newer = Writer::new();
        newer.raw(SEGMENT_MAGIC).fixed(FORMAT + 1).fixed(3).raw(b"new");
        let sum = crc32c::crc32c(newer.as_slice());
        newer.fixed(sum.into());
        let error = SegmentHeader::decode(newer.as_slice()).unwrap_err();
        assert!(matches!(error, Malformed::NewerFormat { found: 2, newest: 1, .. }), "{error}");
    }

    #[test]
    fn unknown_and_cut_records_are_refused() {
        assert_eq!(records(&[]), Ok(vec![]));
        let unknown = Malformed::Unknown { what: "record type", value: 200 };
        assert_eq!(records(&[200]), Err(unknown));
        assert_eq!(records(&[HARD_STATE, 1]), Err(Malformed::Truncated));
        let last = [&[RELEASED][..], &[0xff; 9], &[1]].concat();
        assert_eq!(records(&last), Err(Malformed::Overflow), "nothing can follow it");
        let huge_count = [ENTRIES, 0xff, 0xff, 0xff, 0xff, 0x0f, 1];
        assert_eq!(records(&huge_count), Err(Malformed::Truncated));
        let bad_type = Malformed::Unknown { what: "entry type", value: 3 };
        assert_eq!(records(&[ENTRIES, 1, 1, 3, 1, 0, 0]), Err(bad_type));
    }
}
