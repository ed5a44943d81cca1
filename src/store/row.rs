//! Rows of the `Keys` and `Deadlines` tables, and links between the versions of a key.
//!
//! A `Keys` row says where the newest record of a key is; from there `Links` lead back in time:
//! to the previous version, and by a *jump pointer* further, so that the version at an old
//! revision is found in O(log versions) reads and a key's row is written once per checkpoint
//! however often the key changed. (Skew-binary jump pointers: E. W. Myers, "An applicative
//! random-access stack", Information Processing Letters 17, 1983.)
//!
//! LMDB keys end at 1,982 bytes, user keys at 16 KiB: a longer one is stored under its first
//! `STORED_KEY_BYTES` bytes and a hash, with the full key in the row. Rows of long keys with one
//! stored prefix are neighbours but not in order among themselves; a scan sorts them.
//!
//! Invariant: short keys sort as their bytes; a long key sorts behind every key that is a prefix
//! of it, and before every key greater than its stored prefix and all its extensions.

use crate::base::codec::{Malformed, Reader, Writer};
use crate::base::{ClusterTime, Space};
use crate::store::record::Position;
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

/// Key bytes kept in a table key; longer keys continue in a hash.
pub const STORED_KEY_BYTES: usize = 1_900;

/// Newest row format this binary writes and reads.
const ROW_FORMAT: u8 = 1;

/// Ways back from one record of a key to older ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// Records of this key before this one, since its row was made.
    pub depth: u64,
    /// The version before.
    pub previous: Option<Position>,
    /// A version further back, and its depth.
    pub jump: Option<(Position, u64)>,
}

impl Links {
    /// Links of the next version, behind the record at `parent` with links `self`.
    ///
    /// # Errors
    /// Those of `links_at`, which reads the links of an older record.
    pub fn next<E>(
        &self,
        parent: Position,
        links_at: impl FnOnce(Position) -> Result<Option<Self>, E>,
    ) -> Result<Self, E> {
        let to_parent = (parent, self.depth);
        let mut jump = to_parent;
        if let Some((target, target_depth)) = self.jump {
            // Two jumps of one length merge into one of double length: the skew-binary carry.
            let beyond = links_at(target)?.and_then(|links| links.jump);
            if let Some((far, far_depth)) = beyond
                && self.depth - target_depth == target_depth - far_depth
            {
                jump = (far, far_depth);
            }
        }
        Ok(Self { depth: self.depth + 1, previous: Some(parent), jump: Some(jump) })
    }

    /// Appends the links.
    pub fn write(&self, writer: &mut Writer) {
        writer.uint(self.depth);
        writer.option(self.previous, |w, position| position.write(w));
        writer.option(self.jump, |w, (position, depth)| {
            position.write(w);
            w.uint(depth);
        });
    }

    /// Takes the links.
    ///
    /// # Errors
    /// On malformed bytes.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            depth: reader.uint()?,
            previous: reader.option(Position::read)?,
            jump: reader.option(|r| Ok((Position::read(r)?, r.uint()?)))?,
        })
    }
}

/// A row of `Keys`: where a key stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// The whole key.
    pub key: Bytes,
    /// Its newest record.
    pub newest: Position,
    /// Whether that record is live.
    pub live: bool,
    /// The newest record's deadline: its row in `Deadlines`.
    pub deadline: Option<ClusterTime>,
    /// The newest record's links.
    pub links: Links,
}

impl KeyRow {
    /// The row's value.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(32);
        writer.u8(ROW_FORMAT);
        self.newest.write(&mut writer);
        writer.bool(self.live);
        writer.option(self.deadline, |w, deadline| {
            w.uint(deadline.0);
        });
        self.links.write(&mut writer);
        if is_long(&self.key) {
            writer.raw(&self.key);
        }
        writer.into_vec()
    }

    /// The row behind a table key.
    ///
    /// # Errors
    /// On malformed bytes.
    pub fn decode(table_key: &[u8], value: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(value);
        let format = reader.u8()?;
        if format != ROW_FORMAT {
            return Err(Malformed::NewerFormat {
                what: "key row",
                found: format.into(),
                newest: ROW_FORMAT.into(),
            });
        }
        let newest = Position::read(&mut reader)?;
        let live = reader.bool()?;
        let deadline = reader.option(|r| r.uint().map(ClusterTime))?;
        let links = Links::read(&mut reader)?;
        let stored = table_key.get(1..).ok_or(Malformed::Truncated)?;
        let key = if is_long(stored) {
            Bytes::copy_from_slice(reader.rest())
        } else {
            reader.finish()?;
            Bytes::copy_from_slice(stored)
        };
        Ok(Self { key, newest, live, deadline, links })
    }
}

/// Whether a user key does not fit a table key. Stored long keys are longer than the longest
/// short one, so this tells both apart.
fn is_long(key: &[u8]) -> bool {
    key.len() > STORED_KEY_BYTES
}

/// The key of a `Keys` row.
#[must_use]
pub fn table_key(space: Space, key: &[u8]) -> Vec<u8> {
    let mut table_key = Vec::with_capacity(1 + key.len().min(STORED_KEY_BYTES + 16));
    table_key.push(space as u8);
    match key.get(..STORED_KEY_BYTES) {
        Some(prefix) if is_long(key) => {
            table_key.extend_from_slice(prefix);
            table_key.extend_from_slice(&xxh3_128(key).to_be_bytes());
        }
        _ => table_key.extend_from_slice(key),
    }
    table_key
}

/// Where a scan of the keys from `start` on has to begin: never behind one of them.
#[must_use]
pub fn scan_start(space: Space, start: &[u8]) -> Vec<u8> {
    let mut table_key = vec![space as u8];
    table_key.extend_from_slice(start.get(..STORED_KEY_BYTES).unwrap_or(start));
    table_key
}

/// Long keys that share this are neighbours in the table, in no order.
#[must_use]
pub fn long_group(table_key: &[u8]) -> Option<&[u8]> {
    table_key.get(1..).filter(|stored| is_long(stored))?;
    table_key.get(..=STORED_KEY_BYTES)
}

/// The key of a `Deadlines` row: sorts by deadline.
#[must_use]
pub fn deadline_key(deadline: ClusterTime, space: Space, key: &[u8]) -> Vec<u8> {
    let mut row = deadline.0.to_be_bytes().to_vec();
    row.extend_from_slice(&table_key(space, key));
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Revision;
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    fn at(revision: u64) -> Position {
        Position::start_of(Revision(revision))
    }

    #[test]
    fn any_old_version_is_a_logarithm_away() {
        let mut links = BTreeMap::from([(at(1), Links::default())]);
        for revision in 2..=10_000 {
            let parent = at(revision - 1);
            let next = links[&parent]
                .next(parent, |position| Ok::<_, Infallible>(links.get(&position).copied()))
                .unwrap();
            links.insert(at(revision), next);
        }
        for wanted in [1, 2, 77, 5_000, 9_999] {
            let (mut position, mut steps) = (at(10_000), 0);
            while position.revision.0 > wanted {
                let here = links[&position];
                let jump = here.jump.map(|(target, _)| target);
                position = jump.filter(|j| j.revision.0 >= wanted).or(here.previous).unwrap();
                steps += 1;
            }
            assert_eq!(position, at(wanted));
            assert!(steps <= 2 * 14 + 2, "{steps} steps to {wanted}");
        }
    }

    #[test]
    fn long_keys_keep_their_place() {
        let long = |tail: &str| [&[b'k'; STORED_KEY_BYTES][..], tail.as_bytes()].concat();
        let stored = |key: &[u8]| table_key(Space::Keys, key);
        assert!(stored(&long("")) < stored(&long("x")));
        assert!(stored(&long("x")) < stored(b"l"));
        assert!(scan_start(Space::Keys, &long("zz")) <= stored(&long("zz")));
        assert_eq!(long_group(&stored(&long("a"))), long_group(&stored(&long("b"))));
        assert_eq!(long_group(&stored(&long(""))), None);
        let row = KeyRow {
            key: long("abc").into(),
            newest: at(4),
            live: true,
            deadline: Some(ClusterTime(9)),
            links: Links::default(),
        };
        assert_eq!(KeyRow::decode(&stored(&row.key), &row.encode()), Ok(row));
    }
}
