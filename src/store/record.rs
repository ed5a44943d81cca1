//! One version of one key: the unit of the store.
//!
//! A record carries everything any door will ask of that version: v3's create revision, version
//! and lease, v2's created and modified index, the deadline (cluster time, decides) and the
//! expiration (wall time, for display). `action` is the machine's word for what made it; the
//! store passes it on unread.
//!
//! Invariants: a record's encoding is deterministic, carries a checksum over space, key, position
//! and value together (so a value can never be served under another key), and its `digest` depends
//! on exactly the fields replicated to every member.

use crate::base::codec::{Malformed, Reader, Writer};
use crate::base::{ClusterTime, LeaseId, Revision, Space, WallTime};
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

/// Newest record format this binary writes and reads.
pub const RECORD_FORMAT: u8 = 1;

/// Where a record stands in history: its revision, and its place among that revision's records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The revision that made it.
    pub revision: Revision,
    /// From 0 in order of execution.
    pub sub: u32,
}

impl Position {
    /// The first position of a revision.
    #[must_use]
    pub fn start_of(revision: Revision) -> Self {
        Self { revision, sub: 0 }
    }

    /// The last position a revision could have.
    #[must_use]
    pub fn end_of(revision: Revision) -> Self {
        Self { revision, sub: u32::MAX }
    }

    /// Bytes that sort as positions do.
    #[must_use]
    pub fn to_key(self) -> [u8; 12] {
        let mut key = [0; 12];
        key[..8].copy_from_slice(&self.revision.0.to_be_bytes());
        key[8..].copy_from_slice(&self.sub.to_be_bytes());
        key
    }

    /// The position of these bytes.
    ///
    /// # Errors
    /// When they are not 12 bytes.
    pub fn from_key(key: &[u8]) -> Result<Self, Malformed> {
        let (revision, sub) = key.split_first_chunk::<8>().ok_or(Malformed::Truncated)?;
        let sub = <[u8; 4]>::try_from(sub).map_err(|_| Malformed::Truncated)?;
        Ok(Self { revision: Revision(u64::from_be_bytes(*revision)), sub: u32::from_be_bytes(sub) })
    }

    pub(super) fn write(self, writer: &mut Writer) {
        writer.uint(self.revision.0).uint(self.sub.into());
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let revision = Revision(reader.uint()?);
        let sub = u32::try_from(reader.uint()?).map_err(|_| Malformed::Overflow)?;
        Ok(Self { revision, sub })
    }
}

/// One version of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The part of the store it belongs to.
    pub space: Space,
    /// The key.
    pub key: Bytes,
    /// Where it stands in history.
    pub position: Position,
    /// False for a tombstone: the key ended here.
    pub live: bool,
    /// v2 reports no event for it: a refresh, or a key that went with its directory.
    pub hushed: bool,
    /// What made it; `machine::Action` gives the numbers their meaning.
    pub action: u8,
    /// Revision of the first record of this life of the key (v3).
    pub create_revision: Revision,
    /// 1 for the first record of this life, then +1 a change (v3).
    pub version: u64,
    /// v2's createdIndex, which a `set` renews.
    pub created_index: Revision,
    /// v2's modifiedIndex: the revision, but for a directory whose TTL alone was changed.
    pub modified_index: Revision,
    /// The v3 lease it is attached to; 0 = none.
    pub lease: LeaseId,
    /// When it expires, in cluster time.
    pub deadline: Option<ClusterTime>,
    /// The same for people, in wall time.
    pub expiration: Option<WallTime>,
    /// The value; empty for tombstones and directories.
    pub value: Bytes,
}

const LIVE: u8 = 1;
const HUSHED: u8 = 2;

impl Record {
    /// Writes every field but the checksum.
    fn write_fields(&self, writer: &mut Writer) {
        let flags = (if self.live { LIVE } else { 0 }) | (if self.hushed { HUSHED } else { 0 });
        writer.u8(RECORD_FORMAT).u8(self.space as u8).u8(flags).u8(self.action);
        self.position.write(writer);
        writer.bytes(&self.key);
        // The indexes lie close below the revision: differences keep them at one byte or two.
        let revision = self.position.revision.0;
        writer.uint(revision - self.create_revision.0).uint(self.version);
        writer.uint(revision - self.created_index.0).uint(revision - self.modified_index.0);
        writer.int(self.lease.0);
        writer.option(self.deadline, |w, d| {
            w.uint(d.0);
        });
        writer.option(self.expiration, |w, e| {
            w.uint(e.0);
        });
        writer.bytes(&self.value);
    }

    /// Appends the record with its checksum.
    pub fn encode(&self, writer: &mut Writer) {
        let mut fields = Writer::with_capacity(64 + self.key.len() + self.value.len());
        self.write_fields(&mut fields);
        writer.raw(&crc32c::crc32c(fields.as_slice()).to_le_bytes());
        writer.bytes(fields.as_slice());
    }

    /// Takes a record and verifies its checksum.
    ///
    /// # Errors
    /// `Checksum` for damaged bytes, `NewerFormat` for those of a newer version.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut checksum = [0; 4];
        checksum.copy_from_slice(reader.raw(4)?);
        let fields = reader.bytes()?;
        if crc32c::crc32c(fields) != u32::from_le_bytes(checksum) {
            return Err(Malformed::Checksum { what: "record" });
        }
        let mut reader = Reader::new(fields);
        let record = Self::read_fields(&mut reader)?;
        reader.finish()?;
        Ok(record)
    }

    fn read_fields(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let format = reader.u8()?;
        if format != RECORD_FORMAT {
            return Err(Malformed::NewerFormat {
                what: "record",
                found: format.into(),
                newest: RECORD_FORMAT.into(),
            });
        }
        let space = reader.u8()?;
        let space = Space::from_byte(space)
            .ok_or(Malformed::Unknown { what: "space", value: space.into() })?;
        let (flags, action) = (reader.u8()?, reader.u8()?);
        if flags & !(LIVE | HUSHED) != 0 {
            return Err(Malformed::Unknown { what: "record flags", value: flags.into() });
        }
        let position = Position::read(reader)?;
        let key = reader.owned()?;
        let earlier = |delta: u64| {
            position.revision.0.checked_sub(delta).map(Revision).ok_or(Malformed::Overflow)
        };
        Ok(Self {
            space,
            key,
            position,
            live: flags & LIVE != 0,
            hushed: flags & HUSHED != 0,
            action,
            create_revision: earlier(reader.uint()?)?,
            version: reader.uint()?,
            created_index: earlier(reader.uint()?)?,
            modified_index: earlier(reader.uint()?)?,
            lease: LeaseId(reader.int()?),
            deadline: reader.option(|r| r.uint().map(ClusterTime))?,
            expiration: reader.option(|r| r.uint().map(WallTime))?,
            value: reader.owned()?,
        })
    }

    /// 64-bit hash of the record's replicated content, for the state sums.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut fields = Writer::with_capacity(64 + self.key.len() + self.value.len());
        self.write_fields(&mut fields);
        xxh3_64(fields.as_slice())
    }

    /// Bytes this record costs in memory and in history, roughly: for budgets, not for billing.
    #[must_use]
    pub fn cost_bytes(&self) -> usize {
        const OVERHEAD: usize = 96;
        OVERHEAD + self.key.len() + self.value.len()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn record(key: &str, revision: u64, value: &str) -> Record {
        Record {
            space: Space::Keys,
            key: Bytes::copy_from_slice(key.as_bytes()),
            position: Position::start_of(Revision(revision)),
            live: true,
            hushed: false,
            action: 1,
            create_revision: Revision(revision),
            version: 1,
            created_index: Revision(revision),
            modified_index: Revision(revision),
            lease: LeaseId(0),
            deadline: None,
            expiration: None,
            value: Bytes::copy_from_slice(value.as_bytes()),
        }
    }

    #[test]
    fn a_record_reads_back_and_notices_damage() {
        let mut original = record("/a", 9, "value");
        original.deadline = Some(ClusterTime(77));
        original.expiration = Some(WallTime(88));
        original.lease = LeaseId(-5);
        original.hushed = true;
        original.create_revision = Revision(3);
        let mut writer = Writer::new();
        original.encode(&mut writer);
        let bytes = writer.into_vec();
        assert_eq!(Record::decode(&mut Reader::new(&bytes)), Ok(original));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert!(Record::decode(&mut Reader::new(&damaged)).is_err(), "byte {at}");
        }
    }

    #[test]
    fn positions_sort_as_their_keys() {
        let positions = [(1, 0), (1, 1), (255, 9), (256, 0), (u64::MAX, u32::MAX)]
            .map(|(revision, sub)| Position { revision: Revision(revision), sub });
        assert!(positions.windows(2).all(|p| p[0].to_key() < p[1].to_key()));
        assert!(positions.iter().all(|p| Position::from_key(&p.to_key()) == Ok(*p)));
    }
}
