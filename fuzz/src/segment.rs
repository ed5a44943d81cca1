//! Segments of the write-ahead log, made byte by byte from the description in
//! `src/store/wal/frame.rs`: what is read must agree with a second writer.

use althing::base::codec::Writer;
use althing::base::{ClusterId, MemberId};
use althing::store::wal::{Identity, Medium, MemoryMedium, SegmentNumber, WalOptions};

/// Whose log it is.
pub(crate) const IDENTITY: Identity = Identity { cluster: ClusterId(1), member: MemberId(2) };
/// Small segments, so that short logs have several.
pub(crate) const OPTIONS: WalOptions = WalOptions { segment_bytes: 8 * 1024 };

const HEADER_BYTES: usize = 4096;
const ALIGNMENT: usize = 64;
const SALT: u64 = 0x5a17;

/// A disk with one segment, whose frames have these payloads and right checksums.
pub(crate) fn disk_of<'a>(payloads: impl Iterator<Item = &'a [u8]>) -> MemoryMedium {
    let mut bytes = header();
    for (flush, payload) in (1..).zip(payloads) {
        let frame = frame(payload, flush, bytes.len() as u64);
        bytes.extend_from_slice(&frame);
    }
    let mut medium = MemoryMedium::new();
    let number = SegmentNumber(1);
    let made = medium.create(number).and_then(|()| medium.write_at(number, 0, &bytes));
    assert!(made.and_then(|()| medium.sync(number)).is_ok(), "memory does not fail");
    medium
}

fn header() -> Vec<u8> {
    let mut header = Writer::new();
    header.raw(b"althwal\n").fixed(1).fixed(8 * 8);
    header.fixed(IDENTITY.cluster.0).fixed(IDENTITY.member.0);
    let (number, first_flush, previous, previous_end, replaces) = (1, 1, 0, 0, 0);
    header.fixed(number).fixed(SALT).fixed(first_flush);
    header.fixed(previous).fixed(previous_end).fixed(replaces);
    let sum = crc32c::crc32c(header.as_slice());
    header.fixed(sum.into());
    let mut bytes = header.into_vec();
    bytes.resize(HEADER_BYTES, 0);
    bytes
}

fn frame(payload: &[u8], flush: u64, offset: u64) -> Vec<u8> {
    let mut covered = Writer::new();
    covered.fixed(SALT).fixed(flush).fixed(offset);
    covered.fixed(payload.len() as u64).raw(payload);
    let sum = crc32c::crc32c(covered.as_slice());
    let mut frame = [b"alfr", &sum.to_le_bytes()[..], covered.as_slice()].concat();
    frame.resize(frame.len().next_multiple_of(ALIGNMENT), 0);
    frame
}
