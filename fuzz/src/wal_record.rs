//! Records of the write-ahead log behind right checksums: a log that is accepted goes on, and
//! reads back.

use super::segment::{IDENTITY, OPTIONS, disk_of};
use althing::base::LogIndex;
use althing::store::wal::{LogBatch, MemoryMedium, Recovered, Wal};
use raft::eraftpb::Entry;

/// Opens a log whose frames have the parts of `data` between FE bytes as payloads, appends to it
/// if it holds an entry, and opens it again.
pub fn check(data: &[u8]) {
    let medium = disk_of(data.split(|byte| *byte == 0xfe));
    let Ok((mut wal, mut found)) = Wal::open(medium.clone(), IDENTITY, 1, OPTIONS) else { return };
    contiguous(&found, wal.last_index());
    if let Some(last) = found.entries.last().filter(|last| last.index < u64::MAX - 1) {
        let entry = Entry { index: last.index + 1, term: last.term, ..Entry::default() };
        let batch = LogBatch { entries: vec![entry.clone()], ..LogBatch::default() };
        assert!(wal.write(&batch).and_then(|()| wal.sync()).is_ok());
        found.entries.push(entry);
    }
    drop(wal);
    assert_eq!(reopened(medium), Recovered { was_closed: false, torn_bytes: 0, ..found });
}

fn contiguous(found: &Recovered, last: LogIndex) {
    assert!(found.entries.windows(2).all(|pair| pair[0].index + 1 == pair[1].index));
    assert!(found.entries.last().is_none_or(|entry| entry.index == last.0));
    if let (Some((index, _)), Some(first)) = (found.snapshot, found.entries.first()) {
        assert!(first.index > index.0, "an entry is older than the snapshot");
    }
}

fn reopened(medium: MemoryMedium) -> Recovered {
    match Wal::open(medium, IDENTITY, 2, OPTIONS) {
        Ok((_, found)) => found,
        Err(error) => panic!("what was recovered cannot be read back: {error}"),
    }
}
