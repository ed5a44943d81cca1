//! Reading the log back after a stop, clean or not.
//!
//! Segments form a *chain*: each header names the segment before it and the flush number at which
//! that one ended. Recovery reads all headers, finds the newest segment that counts (the *tail*),
//! walks the chain back as far as it is there, and replays it forwards. Files outside the chain
//! are spares.
//!
//! What a bad frame means:
//! * One flush is in flight at a time, so nothing valid can stand behind a torn frame. A bad frame
//!   with nothing valid behind it is a torn tail: nobody was promised it, it is dropped.
//! * With a valid frame of a higher flush number behind it, in its segment or a later one, it was
//!   durable once: damage, and the log is refused. Damage to the very last frame cannot be told
//!   from a torn write and counts as one.
//! * A segment of which no frame is valid was being started. Its predecessor is the tail.
//! * A segment that replaces another one counts only when its copy is complete; until then the
//!   replaced one is the tail.
//!
//! Invariants:
//! * Nothing is written here, and no more than one window or one frame is read at a time.
//! * The entries found are contiguous, and none that was acknowledged is missing in front: the
//!   first one follows the snapshot or what was released, or the log is refused.
//!
//! Sources: Alagappan et al., "Protocol-Aware Recovery for Consensus-Based Storage" (FAST 2018),
//! for telling a torn write from damage.

use crate::base::codec::{Malformed, Reader};
use crate::base::limits;
use crate::base::{LogIndex, Term};
use crate::store::wal::Identity;
use crate::store::wal::WalError;
use crate::store::wal::frame::{self, FrameHeader, Record, SegmentHeader, State};
use crate::store::wal::medium::Medium;
use crate::store::wal::medium::SegmentNumber;
use raft::eraftpb::{Entry, HardState};
use std::collections::{BTreeMap, VecDeque};

/// What stands in the directory.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) replay: Replay,
    /// The newest segment that counts; `None` when the log's creation was cut short.
    pub(super) tail: Option<SegmentHeader>,
    /// Files that hold nothing needed, and are older than any segment that may be the tail.
    pub(super) spares: Vec<SegmentNumber>,
    /// The tail, the oldest segment it took the place of, and every file in between or newer that
    /// is not in the chain. A power cut may yet make one of them the tail, or show what stands in
    /// it, so all stay untouched until the tail's content is durable elsewhere.
    pub(super) replaced: Vec<SegmentNumber>,
    /// Above every number and flush number ever used here.
    pub(super) next_number: SegmentNumber,
    pub(super) next_flush: u64,
    /// Bytes of the frame that was cut short, as far as its front tells.
    pub(super) torn_bytes: u64,
}

/// Reads all of the log.
pub(super) fn scan<M: Medium>(medium: &mut M, identity: Identity) -> Result<Found, WalError> {
    let numbers = medium.segments().map_err(|error| WalError::read(medium.place(), error))?;
    let Some(last) = numbers.last() else {
        return Err(WalError::Absent { path: medium.place() });
    };
    let mut found = Found { next_number: last.next(), next_flush: 1, ..Found::default() };
    let headers = read_headers(medium, identity, &numbers)?;
    found.tail = find_tail(medium, &headers, &mut found)?;
    let chain = chain_of(found.tail, &headers);
    for (position, header) in chain.iter().enumerate() {
        let end = chain.get(position + 1).map(|next| next.previous_end);
        replay_segment(medium, header, end, &mut found)?;
    }
    check_headless(medium, &headers, &found)?;
    if let Some(oldest) = chain.first() {
        check_start(medium, oldest, &found.replay)?;
    }
    found.replay.trim();
    // The frame cut short had the next number; nothing may ever bear it again.
    found.next_flush += 1;
    let kept = |number: &SegmentNumber| {
        let tail = found.tail.map(|tail| tail.number);
        Some(*number) != tail && chain.iter().any(|header| header.number == *number)
    };
    let oldest_tail = found.tail.map_or(SegmentNumber(0), |tail| oldest_tail(tail, &headers));
    let others = numbers.into_iter().filter(|number| !kept(number));
    (found.spares, found.replaced) = others.partition(|number| *number < oldest_tail);
    Ok(found)
}

/// Every file's header; `None` where there is no readable one for this file.
type Headers = BTreeMap<SegmentNumber, Option<SegmentHeader>>;

fn read_headers<M: Medium>(
    medium: &mut M,
    identity: Identity,
    numbers: &[SegmentNumber],
) -> Result<Headers, WalError> {
    let mut headers = Headers::new();
    for &number in numbers {
        let mut reader = SegmentReader::open(medium, number)?;
        let bytes = reader.bytes(0, frame::to_index(frame::SEGMENT_HEADER_BYTES))?;
        let header = match SegmentHeader::decode(bytes) {
            // A recycled file whose new header was not written yet still bears its old number.
            Ok(header) => (header.number == number).then_some(header),
            Err(what @ Malformed::NewerFormat { .. }) => {
                return Err(WalError::TooNew { path: medium.path_of(number), what });
            }
            Err(_) => None,
        };
        if let Some(foreign) = header.filter(|header| header.identity != identity) {
            let (found, expected) = (foreign.identity, identity);
            return Err(WalError::Foreign { path: medium.path_of(number), found, expected });
        }
        headers.insert(number, header);
    }
    Ok(headers)
}

/// The newest segment that counts, starting from the newest with a header and going back over
/// segments that were never finished.
fn find_tail<M: Medium>(
    medium: &mut M,
    headers: &Headers,
    found: &mut Found,
) -> Result<Option<SegmentHeader>, WalError> {
    let mut candidate = headers.values().rev().find_map(|header| *header);
    while let Some(header) = candidate {
        let mut reader = SegmentReader::open(medium, header.number)?;
        let (counts, end_flush) = reader.counts(&header)?;
        found.next_flush = found.next_flush.max(end_flush + 1);
        if counts {
            return Ok(candidate);
        }
        let before = if header.replaces.0 > 0 { header.replaces } else { header.previous };
        if before.0 == 0 {
            return Ok(None);
        }
        candidate = headers.get(&before).copied().flatten();
        if candidate.is_none() {
            let what = "the segment is missing or has no readable header".into();
            return Err(WalError::Corrupt { path: medium.path_of(before), offset: 0, what });
        }
    }
    Ok(None)
}

/// The chain up to `tail`, oldest first, as far back as it is there.
fn chain_of(tail: Option<SegmentHeader>, headers: &Headers) -> Vec<SegmentHeader> {
    let before = |header: &SegmentHeader| {
        // Numbers only rise, which also ends the walk.
        let previous = headers.get(&header.previous).copied().flatten();
        previous.filter(|previous| previous.number < header.number)
    };
    let mut chain: Vec<_> = std::iter::successors(tail, before).collect();
    chain.reverse();
    chain
}

/// The oldest segment that may be the tail when the cache is gone: the tail replaces one, that
/// replaced another, and so on, as far as they are there.
fn oldest_tail(tail: SegmentHeader, headers: &Headers) -> SegmentNumber {
    let before = |header: &SegmentHeader| {
        let replaced = headers.get(&header.replaces).copied().flatten();
        replaced.filter(|replaced| replaced.number < header.number)
    };
    let oldest = std::iter::successors(Some(tail), before).last();
    oldest.map_or(tail.number, |header| header.number)
}

/// Replays one segment; `end` is the flush number at which the next one takes over.
fn replay_segment<M: Medium>(
    medium: &mut M,
    header: &SegmentHeader,
    end: Option<u64>,
    found: &mut Found,
) -> Result<(), WalError> {
    let path = medium.path_of(header.number);
    let damaged = |offset, what| WalError::Corrupt { path: path.clone(), offset, what };
    let mut reader = SegmentReader::open(medium, header.number)?;
    let (mut offset, mut flush) = (frame::SEGMENT_HEADER_BYTES, header.first_flush);
    found.replay.begin_segment(header.number);
    while end != Some(flush) {
        match reader.frame_at(header.salt, offset, flush)? {
            Step::Frame { payload, end } => {
                found.replay.apply_payload(payload).map_err(|what| damaged(offset, what))?;
                (offset, flush) = (end, flush + 1);
            }
            Step::End { .. } if end.is_some() => {
                return Err(damaged(offset, "a frame is damaged and later ones are not".into()));
            }
            Step::End { torn_bytes } => {
                found.torn_bytes += torn_bytes;
                break;
            }
        }
        if found.replay.closed && end.is_none() {
            break;
        }
    }
    if end.is_none() && !found.replay.closed {
        reader.refuse_later_frames(header, offset, flush)?;
    }
    found.next_flush = found.next_flush.max(flush);
    Ok(())
}

/// A file without a readable header may be one that was being started. If it holds a frame newer
/// than the tail, it was in use and its header is damaged.
fn check_headless<M: Medium>(
    medium: &mut M,
    headers: &Headers,
    found: &Found,
) -> Result<(), WalError> {
    let tail = found.tail.map_or(SegmentNumber(0), |tail| tail.number);
    for (&number, _) in
        headers.iter().filter(|(number, header)| header.is_none() && **number > tail)
    {
        let mut reader = SegmentReader::open(medium, number)?;
        let newer = |front: &FrameHeader| front.flush >= found.next_flush;
        if reader.find_frame(frame::SEGMENT_HEADER_BYTES, newer)?.is_some() {
            let what = "its header is damaged, the frames behind it are not".into();
            return Err(WalError::Corrupt { path: medium.path_of(number), offset: 0, what });
        }
    }
    Ok(())
}

/// Refuses a log whose beginning is gone although it is needed.
fn check_start<M: Medium>(
    medium: &M,
    oldest: &SegmentHeader,
    replay: &Replay,
) -> Result<(), WalError> {
    // Of what was released, the last entry is needed: the next one is matched by its term.
    let released = LogIndex(replay.released.0.saturating_sub(1));
    let needless = released.max(replay.snapshot.map_or(LogIndex(0), |(index, _)| index));
    if replay.restarted || replay.start <= needless {
        return Ok(());
    }
    let what = format!(
        "the segment is missing or has no readable header, and entries {} to {} were in it or \
         before it",
        needless.next(),
        replay.start
    );
    Err(WalError::Corrupt { path: medium.path_of(oldest.previous), offset: 0, what })
}

/// What stands at an offset of a segment.
enum Step<'a> {
    /// The expected frame, and where the next one would start.
    Frame { payload: &'a [u8], end: u64 },
    /// No such frame. A front that looks right tells how many bytes were cut short.
    End { torn_bytes: u64 },
}

/// Reads a segment through a bounded window.
struct SegmentReader<'m, M> {
    medium: &'m mut M,
    segment: SegmentNumber,
    length: u64,
    window: Vec<u8>,
    window_start: u64,
}

impl<'m, M: Medium> SegmentReader<'m, M> {
    fn open(medium: &'m mut M, segment: SegmentNumber) -> Result<Self, WalError> {
        let length = medium
            .length(segment)
            .map_err(|error| WalError::read(medium.path_of(segment), error))?;
        Ok(Self { medium, segment, length, window: Vec::new(), window_start: 0 })
    }

    /// `count` bytes from `offset`; fewer at the end of the file.
    fn bytes(&mut self, offset: u64, count: usize) -> Result<&[u8], WalError> {
        let count = count.min(frame::to_index(self.length.saturating_sub(offset)));
        let window_end = self.window_start + self.window.len() as u64;
        if offset < self.window_start || offset + count as u64 > window_end {
            let wanted = self.length.saturating_sub(offset);
            let wanted = frame::to_index(wanted).min(count.max(limits::WAL_READ_BYTES));
            self.window.resize(wanted, 0);
            let read = self.medium.read_at(self.segment, offset, &mut self.window);
            let read =
                read.map_err(|error| WalError::read(self.medium.path_of(self.segment), error))?;
            self.window.truncate(read);
            self.window_start = offset;
        }
        let start = frame::to_index(offset - self.window_start).min(self.window.len());
        let end = (start + count).min(self.window.len());
        Ok(self.window.get(start..end).unwrap_or_default())
    }

    fn payload(&mut self, offset: u64, front: &FrameHeader) -> Result<Option<&[u8]>, WalError> {
        let start = offset + frame::FRAME_HEADER_BYTES as u64;
        let payload = self.bytes(start, front.payload_bytes)?;
        Ok((payload.len() == front.payload_bytes && front.matches(payload)).then_some(payload))
    }

    fn front(&mut self, offset: u64) -> Result<Option<FrameHeader>, WalError> {
        let front = FrameHeader::parse(self.bytes(offset, frame::FRAME_HEADER_BYTES)?);
        Ok(front.filter(|front| front.offset == offset))
    }

    /// The frame of this salt and flush number at `offset`.
    fn frame_at(&mut self, salt: u64, offset: u64, flush: u64) -> Result<Step<'_>, WalError> {
        let front = self.front(offset)?.filter(|it| it.salt == salt && it.flush == flush);
        let Some(front) = front else {
            return Ok(Step::End { torn_bytes: 0 });
        };
        let end = offset + front.frame_bytes();
        Ok(match self.payload(offset, &front)? {
            Some(payload) => Step::Frame { payload, end },
            None => Step::End { torn_bytes: front.frame_bytes() },
        })
    }

    /// The first valid frame at or behind `offset` whose front is `wanted`.
    fn find_frame(
        &mut self,
        mut offset: u64,
        wanted: impl Fn(&FrameHeader) -> bool,
    ) -> Result<Option<u64>, WalError> {
        while offset < self.length {
            if let Some(front) = self.front(offset)?.filter(&wanted)
                && self.payload(offset, &front)?.is_some()
            {
                return Ok(Some(offset));
            }
            offset += frame::FRAME_ALIGNMENT;
        }
        Ok(None)
    }

    /// Whether the segment counts, and the flush number behind its last frame that was looked at.
    fn counts(&mut self, header: &SegmentHeader) -> Result<(bool, u64), WalError> {
        let (mut offset, mut flush) = (frame::SEGMENT_HEADER_BYTES, header.first_flush);
        while let Step::Frame { payload, end } = self.frame_at(header.salt, offset, flush)? {
            (offset, flush) = (end, flush + 1);
            if header.replaces.0 == 0 || has_copied(payload) {
                return Ok((true, flush));
            }
        }
        self.refuse_later_frames(header, offset, flush)?;
        Ok((false, flush))
    }

    /// Refuses the segment if a valid frame stands behind the bad one at `offset`.
    fn refuse_later_frames(
        &mut self,
        header: &SegmentHeader,
        offset: u64,
        flush: u64,
    ) -> Result<(), WalError> {
        let later = |front: &FrameHeader| front.salt == header.salt && front.flush >= flush;
        let Some(valid) = self.find_frame(offset, later)? else {
            return Ok(());
        };
        let what = format!("a frame is damaged, and a later one at byte {valid} is not");
        Err(WalError::Corrupt { path: self.medium.path_of(self.segment), offset, what })
    }
}

fn has_copied(payload: &[u8]) -> bool {
    let mut reader = Reader::new(payload);
    std::iter::from_fn(|| frame::next_record(&mut reader).ok().flatten())
        .any(|record| record == Record::Copied)
}

/// The log as far as it was read: a function of the records in their order.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pub(super) hard_state: Option<HardState>,
    pub(super) snapshot: Option<(LogIndex, Term)>,
    pub(super) released: LogIndex,
    pub(super) entries: VecDeque<Entry>,
    pub(super) last_index: LogIndex,
    pub(super) closed: bool,
    /// Segments read so far, each with the highest index that counts in it.
    pub(super) segments: Vec<(SegmentNumber, LogIndex)>,
    /// Lowest index that stands in the newest segment: entries from here on come from it alone.
    pub(super) tail_first: Option<LogIndex>,
    /// Where the log ended in front of the oldest segment.
    start: LogIndex,
    /// Whether a snapshot marker made everything before it needless.
    restarted: bool,
    /// Whether the next record is the first of its segment.
    at_start: bool,
}

impl Replay {
    fn begin_segment(&mut self, number: SegmentNumber) {
        self.segments.push((number, LogIndex(0)));
        self.at_start = true;
        self.tail_first = None;
        self.closed = false;
    }

    fn apply_payload(&mut self, payload: &[u8]) -> Result<(), String> {
        let mut reader = Reader::new(payload);
        while let Some(record) = frame::next_record(&mut reader).map_err(|e| e.to_string())? {
            self.apply(record)?;
        }
        Ok(())
    }

    fn apply(&mut self, record: Record) -> Result<(), String> {
        let is_state = matches!(record, Record::State(_));
        if std::mem::replace(&mut self.at_start, false) != is_state {
            return Err("a segment has its state in front, and nowhere else".to_owned());
        }
        self.closed = record == Record::Closed;
        match record {
            Record::State(state) => self.apply_state(state)?,
            Record::Entries(entries) => self.append(entries)?,
            Record::HardState(hard_state) => self.hard_state = Some(hard_state),
            Record::Snapshot(index, term) => self.restart(index, term),
            Record::Released(upto) => {
                self.released = self.released.max(upto);
                self.trim();
            }
            Record::Copied | Record::Closed => {}
        }
        Ok(())
    }

    fn apply_state(&mut self, state: State) -> Result<(), String> {
        let oldest = self.segments.len() <= 1;
        self.hard_state = state.hard_state;
        self.released = self.released.max(state.released);
        if let Some((index, term)) = state.snapshot.filter(|it| self.snapshot != Some(*it)) {
            self.restart(index, term);
        }
        if oldest {
            (self.start, self.last_index) = (state.last_index, state.last_index);
            self.restarted = false;
        } else if state.last_index > self.last_index {
            // A copy leaves released entries out, so it may start behind the segment before it.
            if state.last_index > self.released {
                return Err(format!("entries before {} are missing", state.last_index.next()));
            }
            self.entries.clear();
            self.last_index = state.last_index;
        }
        self.trim();
        Ok(())
    }

    /// The log goes on after a snapshot, whatever it held before.
    fn restart(&mut self, index: LogIndex, term: Term) {
        self.snapshot = Some((index, term));
        self.last_index = index;
        self.entries.clear();
        self.tail_first = None;
        self.restarted = true;
        self.segments.iter_mut().for_each(|(_, last)| *last = LogIndex(0));
    }

    /// Appends contiguous entries, cutting the log before the first of them.
    fn append(&mut self, entries: Vec<Entry>) -> Result<(), String> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Ok(());
        };
        let (first, last) = (LogIndex(first.index), LogIndex(last.index));
        if first > self.last_index.next() {
            return Err(format!("entry {first} follows entry {}", self.last_index));
        }
        if self.snapshot.is_some_and(|(index, _)| first <= index) {
            return Err(format!("entry {first} is older than the snapshot"));
        }
        let oldest = self.entries.front().map_or(first.0, |entry| entry.index);
        self.entries.truncate(frame::to_index(first.0.saturating_sub(oldest)));
        self.entries.extend(entries);
        self.last_index = last;
        self.tail_first = Some(self.tail_first.map_or(first, |lowest| lowest.min(first)));
        if let Some((_, highest)) = self.segments.last_mut() {
            *highest = last.max(*highest);
        }
        Ok(())
    }

    /// Lets go of what was released; the entry at that index stays, as the others' point of
    /// reference.
    fn trim(&mut self) {
        while self.entries.pop_front_if(|entry| entry.index < self.released.0).is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ClusterId, MemberId};
    use crate::store::wal::{LogBatch, MemoryMedium, Recovered, Survival, Wal, WalOptions};
    use proptest::prelude::*;
    use std::error::Error;

    const IDENTITY: Identity = Identity { cluster: ClusterId(1), member: MemberId(2) };
    const OPTIONS: WalOptions = WalOptions { segment_bytes: 16 * 1024 };

    /// What the log must hold; `released` is what was asked for.
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Model {
        hard_state: HardState,
        snapshot: Option<(LogIndex, Term)>,
        entries: Vec<Entry>,
        released: LogIndex,
    }

    impl Model {
        fn floor(&self) -> u64 {
            self.snapshot.map_or(0, |(index, _)| index.0)
        }

        fn last(&self) -> u64 {
            self.entries.last().map_or(self.floor(), |entry| entry.index)
        }

        fn after(&self, batch: &LogBatch) -> Self {
            let mut next = self.clone();
            if batch.snapshot.is_some() {
                next.snapshot = batch.snapshot;
                next.entries.clear();
            }
            if let Some(first) = batch.entries.first() {
                next.entries.retain(|entry| entry.index < first.index);
                next.entries.extend_from_slice(&batch.entries);
            }
            if let Some(hard_state) = &batch.hard_state {
                next.hard_state = hard_state.clone();
            }
            next
        }

        /// Whether this is what was recovered, give or take what was released.
        fn is(&self, found: &Recovered) -> bool {
            let first = found.entries.first().map_or(u64::MAX, |entry| entry.index);
            // A released log keeps the entry at that index, as the point the others follow.
            let first_max = self.released.0.max(self.floor() + 1);
            found.hard_state == self.hard_state
                && found.snapshot == self.snapshot
                && (self.entries.is_empty() || first <= first_max)
                && self.entries.ends_with(&found.entries)
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Batch {
            count: u64,
            bytes: usize,
            overlap: u64,
            hard_state: bool,
        },
        /// A checkpoint ends while a frame is in flight.
        ReleaseInFlight {
            bytes: usize,
        },
        Snapshot {
            ahead: u64,
        },
        Release {
            behind: u64,
        },
        /// Power cut with a batch written but not flushed.
        CutInFlight {
            survival: Survival,
            bytes: usize,
        },
        /// The power goes out after so many more calls.
        CutLater {
            calls: u64,
        },
        /// The process dies, the page cache lives.
        Kill {
            in_flight: bool,
        },
        SyncFails {
            kill: bool,
        },
        Close,
    }

    fn survival() -> impl Strategy<Value = Survival> {
        prop_oneof![
            Just(Survival::Nothing),
            Just(Survival::Everything),
            Just(Survival::NamesLost),
            Just(Survival::Prefix),
            Just(Survival::Subset),
            Just(Survival::Torn),
        ]
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            10 => (0..6u64, 0..3000usize, 0..4u64, any::<bool>()).prop_map(
                |(count, bytes, overlap, hard_state)| Op::Batch { count, bytes, overlap, hard_state }
            ),
            1 => (1..20u64).prop_map(|ahead| Op::Snapshot { ahead }),
            3 => (0..8u64).prop_map(|behind| Op::Release { behind }),
            2 => (0..6000usize).prop_map(|bytes| Op::ReleaseInFlight { bytes }),
            2 => (survival(), 0..20_000usize)
                .prop_map(|(survival, bytes)| Op::CutInFlight { survival, bytes }),
            2 => (0..12u64).prop_map(|calls| Op::CutLater { calls }),
            1 => any::<bool>().prop_map(|in_flight| Op::Kill { in_flight }),
            1 => any::<bool>().prop_map(|kill| Op::SyncFails { kill }),
            1 => Just(Op::Close),
        ]
    }

    /// A member's disk, its log, and what it was promised.
    struct World {
        medium: MemoryMedium,
        wal: Option<Wal<MemoryMedium>>,
        sure: Model,
        /// Written but never confirmed: may be there or not.
        perhaps: Option<Model>,
        chance: u64,
        runs: u64,
        /// Whether a failure is on its way.
        armed: bool,
    }

    impl World {
        fn new(seed: u64) -> Self {
            let medium = MemoryMedium::new();
            let wal = Wal::create(medium.clone(), IDENTITY, 0, OPTIONS).unwrap();
            let (sure, chance) = (Model::default(), seed | 1);
            Self { medium, wal: Some(wal), sure, perhaps: None, chance, runs: 0, armed: false }
        }

        fn pick(chance: &mut u64, below: u64) -> u64 {
            *chance ^= *chance << 13;
            *chance ^= *chance >> 7;
            *chance ^= *chance << 17;
            (*chance >> 11) % below
        }

        fn wal(&mut self) -> &mut Wal<MemoryMedium> {
            self.wal.as_mut().unwrap()
        }

        fn batch(&self, count: u64, bytes: usize, overlap: u64, hard_state: bool) -> LogBatch {
            let floor = self.sure.floor().max(self.sure.released.0);
            let first = (self.sure.last() + 1).saturating_sub(overlap).max(floor + 1);
            let term = self.sure.hard_state.term + u64::from(overlap > 0);
            let new_entry = |index: u64| {
                let data = vec![u8::try_from((index + term) % 251).unwrap(); bytes];
                Entry { index, term, data: data.into(), ..Entry::default() }
            };
            let hard_state = hard_state.then(|| HardState {
                term,
                vote: count,
                commit: self.sure.released.0,
                ..HardState::default()
            });
            LogBatch {
                entries: (first..first + count).map(new_entry).collect(),
                hard_state,
                snapshot: None,
            }
        }

        /// Writes and flushes; a failure is a power cut.
        fn commit(&mut self, batch: &LogBatch) {
            let next = self.sure.after(batch);
            self.perhaps = Some(next);
            let wal = self.wal();
            if wal.write(batch).and_then(|()| wal.sync()).is_ok() {
                self.sure = self.perhaps.take().unwrap();
            } else {
                self.wal().sync().unwrap_err();
                self.cut(Survival::Torn);
            }
        }

        fn write_only(&mut self, batch: &LogBatch) {
            self.perhaps = Some(self.sure.after(batch));
            let _ = self.wal().write(batch);
        }

        fn cut(&mut self, survival: Survival) {
            (self.wal, self.armed) = (None, false);
            self.medium.crash(survival, &mut |below| Self::pick(&mut self.chance, below));
            self.reopen(true);
        }

        /// Opens the log, after a few tries that the power cuts short, and compares.
        fn reopen(&mut self, mut may_fail: bool) {
            loop {
                self.runs += 1;
                let cut = may_fail && Self::pick(&mut self.chance, 3) > 0;
                if cut {
                    self.armed = true;
                    self.medium.fail_after_calls(Self::pick(&mut self.chance, 14));
                }
                let seed = self.runs % 2; // even a repeated seed must do
                match Wal::open(self.medium.clone(), IDENTITY, seed, OPTIONS) {
                    Ok((wal, found)) => return self.compare(wal, &found),
                    Err(error) => {
                        let expected = self.armed && error.source().is_some();
                        assert!(expected, "{error}");
                    }
                }
                if Self::pick(&mut self.chance, 2) == 0 {
                    // Only the process died: what it wrote is in the page cache still.
                    self.medium.fail_after_calls(u64::MAX);
                    continue;
                }
                let kinds = [
                    Survival::Nothing,
                    Survival::NamesLost,
                    Survival::Prefix,
                    Survival::Subset,
                    Survival::Torn,
                ];
                let kind = kinds[usize::try_from(Self::pick(&mut self.chance, 5)).unwrap()];
                self.armed = false;
                self.medium.crash(kind, &mut |below| Self::pick(&mut self.chance, below));
                may_fail = Self::pick(&mut self.chance, 4) > 0;
            }
        }

        fn compare(&mut self, wal: Wal<MemoryMedium>, found: &Recovered) {
            let candidates = self.perhaps.take().into_iter().chain([self.sure.clone()]);
            let matching = candidates.into_iter().find(|model| model.is(found));
            let Some(model) = matching else {
                panic!("sure {:#?}\nfound {found:#?}", self.sure);
            };
            assert_eq!(wal.last_index().0, model.last());
            (self.sure, self.wal) = (model, Some(wal));
        }

        fn step(&mut self, op: &Op) {
            match *op {
                Op::Batch { count, bytes, overlap, hard_state } => {
                    self.commit(&self.batch(count, bytes, overlap, hard_state));
                }
                Op::Snapshot { ahead } => {
                    let mut batch = self.batch(0, 0, 0, true);
                    let index = LogIndex(self.sure.last().max(self.sure.released.0) + ahead);
                    batch.snapshot = Some((index, Term(self.sure.hard_state.term)));
                    self.commit(&batch);
                }
                Op::ReleaseInFlight { bytes } => self.release_in_flight(bytes),
                Op::Release { behind } => {
                    let upto = LogIndex(self.sure.last().saturating_sub(behind));
                    self.wal().release(upto).unwrap();
                    self.sure.released = self.sure.released.max(upto);
                }
                Op::CutInFlight { survival, bytes } => {
                    self.write_only(&self.batch(2, bytes / 2, 1, true));
                    self.cut(survival);
                }
                Op::CutLater { calls } => {
                    self.armed = true;
                    self.medium.fail_after_calls(calls);
                }
                Op::Kill { in_flight } => {
                    if in_flight {
                        self.write_only(&self.batch(1, 900, 0, true));
                    }
                    self.die();
                }
                Op::SyncFails { kill } => {
                    self.write_only(&self.batch(1, 900, 0, true));
                    self.armed = true;
                    self.medium.fail_next_sync();
                    if self.wal().sync().is_ok() {
                        self.sure = self.perhaps.take().unwrap();
                    }
                    if kill { self.die() } else { self.cut(Survival::Everything) }
                }
                Op::Close => self.close(),
            }
        }

        fn release_in_flight(&mut self, bytes: usize) {
            let upto = LogIndex(self.sure.last());
            self.write_only(&self.batch(2, bytes, 0, false));
            let mut next = self.perhaps.take().unwrap();
            if self.wal().release(upto).is_ok() {
                self.sure.released = self.sure.released.max(upto);
                next.released = self.sure.released;
            }
            if self.wal().sync().is_ok() {
                self.sure = next;
            } else {
                self.perhaps = Some(next);
                self.cut(Survival::Torn);
            }
        }

        fn die(&mut self) {
            self.wal = None;
            self.reopen(false);
        }

        fn close(&mut self) {
            if self.wal.take().unwrap().close().is_err() {
                return self.cut(Survival::Torn);
            }
            let opened = Wal::open(self.medium.clone(), IDENTITY, 5, OPTIONS);
            match opened {
                Ok((wal, found)) => {
                    assert!(found.was_closed && found.torn_bytes == 0);
                    self.compare(wal, &found);
                }
                Err(_) => self.cut(Survival::Torn),
            }
        }
    }

    /// A few segments of a log, the state it holds, and the state before its last flush.
    fn grown() -> (MemoryMedium, Model, Model) {
        let mut world = World::new(9);
        let mut before = Model::default();
        for round in 0..14 {
            before = world.sure.clone();
            world.commit(&world.batch(3, 900, round % 3, true));
        }
        (world.medium.clone(), world.sure, before)
    }

    #[test]
    fn rot_is_refused_unless_it_hits_the_last_frame() {
        let lengths = |mut medium: MemoryMedium| -> Vec<_> {
            let numbers = medium.segments().unwrap();
            numbers.into_iter().map(|it| (it, medium.length(it).unwrap())).collect()
        };
        let segments = lengths(grown().0);
        assert!(segments.len() >= 3);
        let (mut refused, mut dropped, mut fronts) = (0, 0, 0);
        for (segment, length) in segments {
            for at in (0..length).step_by(53) {
                let (medium, sure, before) = grown();
                medium.rot(segment, at, 0x20);
                match Wal::open(medium, IDENTITY, 1, OPTIONS) {
                    Err(WalError::Corrupt { .. }) => refused += 1,
                    Err(error) => panic!("{segment} {at}: {error}"),
                    Ok((_, found)) if sure.is(&found) => {}
                    Ok((_, found)) => {
                        assert!(before.is(&found), "{segment} {at}");
                        // A damaged front does not tell how long the frame was.
                        fronts += u32::from(found.torn_bytes == 0);
                        dropped += 1;
                    }
                }
            }
        }
        assert!(refused > 500, "{refused}");
        assert!(dropped > 20 && dropped < 70 && fronts <= 1, "{dropped} {fronts}");
    }

    #[test]
    fn damage_names_the_place_and_what_to_do() {
        let (medium, ..) = grown();
        medium.rot(SegmentNumber(1), 4096 + 10, 1);
        let error = Wal::open(medium, IDENTITY, 1, OPTIONS).unwrap_err().to_string();
        for part in ["memory/0000000000000001.wal", "byte 4096", "join it again as a new member"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_missing_segment_is_refused() {
        for number in [1, 2] {
            let (mut medium, ..) = grown();
            medium.remove(SegmentNumber(number)).unwrap();
            let error = Wal::open(medium, IDENTITY, 1, OPTIONS).unwrap_err();
            assert!(matches!(error, WalError::Corrupt { .. }), "{error}");
        }
    }

    #[test]
    fn another_members_log_is_refused() {
        let other = Identity { member: MemberId(0xbad), ..IDENTITY };
        let error = Wal::open(grown().0, other, 1, OPTIONS).unwrap_err();
        assert!(matches!(error, WalError::Foreign { .. }));
        assert!(error.to_string().contains("member 2 of cluster 1, this is member bad"), "{error}");
    }

    /// Else its number would come into the world twice, with two contents.
    #[test]
    fn a_lost_rename_leaves_no_header_behind() {
        let mut recycled = 0;
        for calls in 0..40 {
            let mut world = World::new(3);
            let commit_and_release = |world: &mut World| {
                let batch = world.batch(3, 900, 0, true);
                let next = world.sure.after(&batch);
                let wal = world.wal.as_mut().unwrap();
                wal.write(&batch).and_then(|()| wal.sync()).ok()?;
                wal.release(LogIndex(next.last())).ok()?;
                world.sure = next;
                Some(())
            };
            (0..30).for_each(|_| commit_and_release(&mut world).unwrap());
            let names = world.medium.segments().unwrap();
            world.medium.fail_after_calls(calls);
            while commit_and_release(&mut world).is_some() {}
            recycled += u32::from(world.medium.segments().unwrap() != names);
            world.medium.crash(Survival::NamesLost, &mut |_| 0);
            for number in world.medium.segments().unwrap() {
                let mut bytes = vec![0; 4096];
                world.medium.read_at(number, 0, &mut bytes).unwrap();
                let header = SegmentHeader::decode(&bytes).unwrap();
                assert!(header.number <= number, "{number} bears {:?}", header.number);
            }
            Wal::open(world.medium.clone(), IDENTITY, 1, OPTIONS).unwrap();
        }
        assert!(recycled > 10, "no rotation was cut: {recycled}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

        #[test]
        fn what_was_flushed_is_recovered_and_nothing_is_invented(
            ops in prop::collection::vec(op(), 1..60),
            seed in any::<u64>(),
        ) {
            let mut world = World::new(seed);
            for op in &ops {
                world.step(op);
            }
            world.cut(Survival::Nothing);
        }
    }
}
