//! The logical stream: one format for snapshot, backup, repair and export.
//!
//! A stream is the meta row and then every record that may still be asked for, in history order,
//! cut into chunks that carry their number and a checksum; the last one carries the count and a
//! checksum of everything. It names no table and no page, so it outlives LMDB versions and word
//! sizes, and what reads it can check every byte.
//!
//! ```text
//! chunk   = number | kind | length | payload | crc32c(all before)
//! kind 0  = head: stream format, meta row     kind 1 = records     kind 2 = tail: count, sum
//! ```
//!
//! Invariants: writing holds one read transaction, so its sink is a file or memory, never a
//! network peer. Installing goes into an empty base that nobody refers to until `finish`, through
//! the same code as a checkpoint, so an installed store is laid out like a grown one.

use crate::base::codec::{Malformed, Reader as Fields, Writer};
use crate::base::limits::{OVERLAY_BYTES_CHECKPOINT, SNAPSHOT_CHUNK_BYTES};
use crate::base::{Fault, LogIndex, MemberId, Revision};
use crate::store::base::Base;
use crate::store::checkpoint::Checkpoint;
use crate::store::memtable::Memtable;
use crate::store::meta::Meta;
use crate::store::mvcc::View;
use crate::store::reader::Reader;
use crate::store::record::{Position, Record};
use std::sync::Arc;

/// Newest stream format this binary writes and reads.
pub const STREAM_FORMAT: u64 = 1;

const HEAD: u8 = 0;
const RECORDS: u8 = 1;
const TAIL: u8 = 2;

/// Takes the chunks of a stream.
pub type Sink<'a> = &'a mut dyn FnMut(Vec<u8>) -> Result<(), Fault>;

/// Writes the state of a View as a stream. `meta` is the store's meta row at that very state.
///
/// # Errors
/// Those of the sink, and when stored bytes are damaged.
pub fn write<B: Base>(view: &View<B>, meta: &Meta, sink: Sink<'_>) -> Result<(), Fault> {
    assert_eq!(view.applied, meta.applied, "the meta row belongs to another state");
    let Some(reader) = view.read()? else {
        return Err(Fault::Invariant("a snapshot of a state that is compacted away".into()));
    };
    let mut chunks = Chunks { sink, number: 0, sum: 0 };
    let mut head = Writer::new();
    head.uint(STREAM_FORMAT).bytes(&meta.encode());
    chunks.send(HEAD, head.as_slice())?;
    let (mut payload, mut count) = (Writer::new(), 0);
    for record in reader.history(Position::default(), view.revision)? {
        let record = record?;
        if !may_be_asked_for(&reader, &record)? {
            continue;
        }
        record.encode(&mut payload);
        count += 1;
        if payload.as_slice().len() >= SNAPSHOT_CHUNK_BYTES {
            chunks.send(RECORDS, std::mem::take(&mut payload).as_slice())?;
        }
    }
    chunks.send(RECORDS, payload.as_slice())?;
    let mut tail = Writer::new();
    tail.uint(count).fixed(chunks.sum.into());
    chunks.send(TAIL, tail.as_slice())
}

/// Whether a compaction has left this record its use.
fn may_be_asked_for<B: Base>(reader: &Reader<B>, record: &Record) -> Result<bool, Fault> {
    let compacted = reader.compacted();
    if record.position.revision >= compacted {
        return Ok(true);
    }
    // The rule of `checkpoint`: before the compacted revision, only what still lives there stays.
    let before = Position::end_of(Revision(compacted.0 - 1));
    let newest = reader.newest_before(record.space, &record.key, before)?;
    Ok(record.live && newest.is_some_and(|newest| newest.position == record.position))
}

struct Chunks<'a> {
    sink: Sink<'a>,
    number: u64,
    /// CRC-32C over all payloads so far.
    sum: u32,
}

impl Chunks<'_> {
    fn send(&mut self, kind: u8, payload: &[u8]) -> Result<(), Fault> {
        let mut chunk = Writer::with_capacity(payload.len() + 24);
        chunk.uint(self.number).u8(kind).bytes(payload);
        let checksum = crc32c::crc32c(chunk.as_slice());
        chunk.raw(&checksum.to_le_bytes());
        self.sum = crc32c::crc32c_append(self.sum, payload);
        self.number += 1;
        (self.sink)(chunk.into_vec())
    }
}

/// Builds a base from the chunks of a stream.
pub struct Installer<B: Base> {
    base: B,
    member: MemberId,
    meta: Option<Meta>,
    loading: Arc<Memtable>,
    next_chunk: u64,
    records: u64,
    sum: u32,
    complete: bool,
}

impl<B: Base> Installer<B> {
    /// Starts in an empty base, for this member.
    #[must_use]
    pub fn new(base: B, member: MemberId) -> Self {
        Self {
            base,
            member,
            meta: None,
            loading: Arc::default(),
            next_chunk: 0,
            records: 0,
            sum: 0,
            complete: false,
        }
    }

    /// Takes the next chunk.
    ///
    /// # Errors
    /// When it is damaged, out of order or of a newer format; the base is of no use then.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(), Fault> {
        let (kind, payload) =
            self.open_chunk(chunk).map_err(|error| Fault::damaged("a snapshot chunk", error))?;
        let taken = match kind {
            HEAD => self.read_head(payload),
            RECORDS => self.read_records(payload),
            TAIL => self.read_tail(payload),
            other => Err(Malformed::Unknown { what: "chunk kind", value: other.into() }),
        };
        taken.map_err(|error| match error {
            newer @ Malformed::NewerFormat { .. } => Fault::TooNew(newer.to_string()),
            damaged => Fault::damaged("a snapshot chunk", damaged),
        })?;
        self.sum = crc32c::crc32c_append(self.sum, payload);
        if self.loading.bytes() >= OVERLAY_BYTES_CHECKPOINT {
            self.write_out(LogIndex(0))?;
        }
        Ok(())
    }

    fn open_chunk<'a>(&mut self, chunk: &'a [u8]) -> Result<(u8, &'a [u8]), Malformed> {
        let (body, checksum) = chunk.split_last_chunk::<4>().ok_or(Malformed::Truncated)?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*checksum) {
            return Err(Malformed::Checksum { what: "chunk" });
        }
        let mut fields = Fields::new(body);
        let number = fields.uint()?;
        if number != self.next_chunk || self.complete {
            return Err(Malformed::Unknown { what: "chunk number", value: number });
        }
        self.next_chunk += 1;
        let opened = (fields.u8()?, fields.bytes()?);
        fields.finish()?;
        Ok(opened)
    }

    fn read_head(&mut self, payload: &[u8]) -> Result<(), Malformed> {
        let mut fields = Fields::new(payload);
        fields.format("the snapshot", STREAM_FORMAT)?;
        let meta = Meta::decode(fields.bytes()?)?;
        self.meta = Some(Meta { member: self.member, purged: Position::default(), ..meta });
        fields.finish()
    }

    fn read_records(&mut self, payload: &[u8]) -> Result<(), Malformed> {
        let mut fields = Fields::new(payload);
        while !fields.rest().is_empty() {
            self.loading.insert(&Arc::new(Record::decode(&mut fields)?));
            self.records += 1;
        }
        Ok(())
    }

    fn read_tail(&mut self, payload: &[u8]) -> Result<(), Malformed> {
        let mut fields = Fields::new(payload);
        let (records, sum) = (fields.uint()?, fields.fixed()?);
        if (records, sum) != (self.records, self.sum.into()) {
            return Err(Malformed::Checksum { what: "snapshot" });
        }
        self.complete = true;
        fields.finish()
    }

    /// Writes what was loaded so far, as the state of entry `applied`: 0 while it is not whole.
    fn write_out(&mut self, applied: LogIndex) -> Result<(), Fault> {
        let meta = self.meta.clone().unwrap_or_default();
        let loaded = std::mem::take(&mut self.loading);
        let meta = Meta { applied, ..meta };
        Checkpoint::new(self.base.clone(), loaded, meta, Arc::default()).run()?;
        Ok(())
    }

    /// Makes the base durable and gives its meta row.
    ///
    /// # Errors
    /// When chunks are missing or the database fails.
    pub fn finish(mut self) -> Result<Meta, Fault> {
        let Some(meta) = self.meta.clone().filter(|_| self.complete) else {
            return Err(Fault::damaged("the snapshot", Malformed::Truncated));
        };
        self.write_out(meta.applied)?;
        Ok(meta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{KeyRange, Space, Term};
    use crate::store::record::tests::record;
    use crate::store::{MemoryBase, Store};

    fn grown(revisions: u64) -> Store<MemoryBase> {
        let meta = Meta { revision: Revision(1), applied: LogIndex(1), ..Meta::default() };
        let mut store = Store::create(MemoryBase::default(), meta).unwrap();
        for revision in 2..=revisions {
            let mut made = record(&format!("/k{}", revision % 7), revision, &"v".repeat(5_000));
            made.live = revision % 5 != 0;
            store.insert(&Arc::new(made));
            store.publish(LogIndex(revision), Term(1), Revision(revision));
            if revision == revisions / 2 {
                store.freeze(bytes::Bytes::new()).unwrap().run().unwrap();
                store.thaw();
            }
        }
        store
    }

    fn chunks(store: &Store<MemoryBase>) -> Vec<Vec<u8>> {
        let mut chunks = Vec::new();
        write(&store.view(), store.meta(), &mut |chunk| {
            chunks.push(chunk);
            Ok(())
        })
        .unwrap();
        chunks
    }

    fn reads(store: &Store<MemoryBase>, from: u64) -> Vec<String> {
        let reader = store.view().read().unwrap().unwrap();
        let (mut seen, all) = (Vec::new(), KeyRange::all());
        for revision in from..=reader.revision().0 {
            for record in reader.range(Space::Keys, &all, Revision(revision)).unwrap() {
                let record = record.unwrap();
                seen.push(format!("{revision} {:?} {:?}", record.key, record.position));
            }
        }
        let history = reader.history(Position::start_of(Revision(from)), reader.revision());
        seen.extend(history.unwrap().map(|record| format!("{:?}", record.unwrap().position)));
        seen
    }

    #[test]
    fn an_installed_store_reads_as_the_one_it_came_from() {
        let mut store = grown(400);
        store.meta_mut().compacted = Revision(150);
        let chunks = chunks(&store);
        assert!(chunks.len() > 4);
        let base = MemoryBase::default();
        let mut installer = Installer::new(base.clone(), MemberId(2));
        chunks.iter().for_each(|chunk| installer.feed(chunk).unwrap());
        let meta = installer.finish().unwrap();
        assert_eq!((meta.member, meta.applied), (MemberId(2), LogIndex(400)));
        let installed = Store::open(base).unwrap().unwrap();
        assert_eq!(reads(&installed, 150), reads(&store, 150));
    }

    #[test]
    fn a_damaged_missing_or_repeated_chunk_is_refused() {
        let chunks = chunks(&grown(400));
        let install = |chunks: &[Vec<u8>]| {
            let mut installer = Installer::new(MemoryBase::default(), MemberId(2));
            chunks.iter().try_for_each(|chunk| installer.feed(chunk))?;
            installer.finish()
        };
        assert!(install(&chunks).is_ok());
        assert!(install(&chunks[..chunks.len() - 1]).is_err());
        assert!(install(&chunks[1..]).is_err());
        let mut repeated = chunks.clone();
        repeated.insert(2, chunks[1].clone());
        assert!(install(&repeated).is_err());
        let mut damaged = chunks;
        damaged[2][100] ^= 1;
        assert!(install(&damaged).is_err());
    }
}
