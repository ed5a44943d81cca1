//! Rows of the database and chunks of a snapshot stream.

use althing::base::codec::{Reader, Writer};
use althing::base::{MemberId, Space};
use althing::store::row::{KeyRow, table_key};
use althing::store::stream::Installer;
use althing::store::{MemoryBase, Meta, Record};

/// Reads `data` as a record, a key's row, the meta row and a chunk: what is accepted has one
/// encoding.
pub fn check(data: &[u8]) {
    record(data);
    meta(data);
    if let Ok(row) = KeyRow::decode(&table_key(Space::Keys, b"/key"), data) {
        assert_eq!(row.encode(), data);
    }
    install(data);
}

fn record(fields: &[u8]) {
    let mut sealed = Writer::new();
    sealed.raw(&crc32c::crc32c(fields).to_le_bytes()).bytes(fields);
    let mut reader = Reader::new(sealed.as_slice());
    if let Ok(record) = Record::decode(&mut reader) {
        let mut again = Writer::new();
        record.encode(&mut again);
        assert_eq!(again.as_slice(), sealed.as_slice());
    }
}

fn meta(fields: &[u8]) {
    let sealed = [fields, &crc32c::crc32c(fields).to_le_bytes()].concat();
    if let Ok(meta) = Meta::decode(&sealed) {
        assert_eq!(meta.encode(), sealed);
    }
}

/// A stream whose chunks are the parts of `data`; what it makes, if it ends, is a meta row.
fn install(data: &[u8]) {
    let base = MemoryBase::default();
    let mut installer = Installer::new(base, MemberId(2));
    for (number, part) in data.split(|byte| *byte == 0xfe).enumerate() {
        let Some((kind, payload)) = part.split_first() else { return };
        let mut chunk = Writer::new();
        chunk.uint(number as u64).u8(*kind).bytes(payload);
        let sum = crc32c::crc32c(chunk.as_slice());
        if installer.feed(chunk.raw(&sum.to_le_bytes()).as_slice()).is_err() {
            return;
        }
    }
    if let Ok(meta) = installer.finish() {
        assert_eq!(meta.member, MemberId(2));
    }
}
