//! What an entry asks the state machine to do.
//!
//! A command is the *parsed* request: a door has checked its form, so nothing below re-checks
//! syntax. All commands of one entry become one revision, or none of them does anything; only
//! `Expire` spends a revision on each thing that expires, as etcd's v2 API shows it.
//!
//! Invariants: the encoding is strict (`base::codec`), tags are on disk and never reused, and a
//! tag this binary does not know is refused, never skipped.

use crate::base::codec::{Malformed, Reader, Writer};
use crate::base::{KeyPath, Revision, Space, Ttl};
use crate::store::Position;
use bytes::Bytes;

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// v2 `set`: replaces whatever file is there; with `refresh`, keeps its value.
    Set(Put),
    /// v2 `create`: only where nothing is.
    Create(Put),
    /// v2 in-order `create`: below the path, named after the new index in 20 digits.
    CreateInOrder(Put),
    /// v2 `update`: only where something is; keeps createdIndex.
    Update(Put),
    /// v2 `compareAndSwap`.
    CompareAndSwap(Put, Condition),
    /// v2 `delete`.
    Delete {
        /// What to delete.
        path: KeyPath,
        /// Whether an empty directory may go.
        dir: bool,
        /// Whether a directory may go with everything below it.
        recursive: bool,
    },
    /// v2 `compareAndDelete`.
    CompareAndDelete {
        /// What to delete.
        path: KeyPath,
        /// What it must be.
        condition: Condition,
    },
    /// The leader's clock, logged while deadlines exist: the entry's stamp is all it says.
    Clock,
    /// Ends what has outlived its deadline.
    Expire(Vec<Due>),
    /// Forgets history below a revision.
    Compact {
        /// The oldest revision that can be read afterwards.
        upto: Revision,
    },
}

/// What to write where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The key.
    pub path: KeyPath,
    /// What becomes of it.
    pub content: Content,
    /// Time to live from the entry's stamp on; `None` = for ever.
    pub ttl: Option<Ttl>,
    /// Keep the value, replace the TTL, tell no v2 watcher.
    pub refresh: bool,
}

/// A node is a file or a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A file with this value.
    File(Bytes),
    /// A directory.
    Directory,
}

/// What a node must be for a compare-and-X. Both given: both must hold. At least one is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// The value it must have.
    pub value: Option<Bytes>,
    /// The modifiedIndex it must have.
    pub index: Option<Revision>,
}

/// One thing whose deadline has passed, as the leader saw it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    /// Where it lives.
    pub space: Space,
    /// Its key.
    pub key: Bytes,
    /// The record the deadline belongs to: if the key has a newer one, nothing happens.
    pub generation: Position,
}

const SET: u8 = 1;
const CREATE: u8 = 2;
const CREATE_IN_ORDER: u8 = 3;
const UPDATE: u8 = 4;
const COMPARE_AND_SWAP: u8 = 5;
const DELETE: u8 = 6;
const COMPARE_AND_DELETE: u8 = 7;
const CLOCK: u8 = 8;
const EXPIRE: u8 = 9;
const COMPACT: u8 = 10;

impl Command {
    /// Bytes the command weighs in a queue, roughly.
    #[must_use]
    pub fn cost_bytes(&self) -> usize {
        const OVERHEAD: usize = 64;
        OVERHEAD
            + match self {
                Self::Set(put)
                | Self::Create(put)
                | Self::CreateInOrder(put)
                | Self::Update(put)
                | Self::CompareAndSwap(put, _) => put.cost_bytes(),
                Self::Delete { path, .. } | Self::CompareAndDelete { path, .. } => path.key().len(),
                Self::Expire(dues) => dues.iter().map(|due| OVERHEAD + due.key.len()).sum(),
                Self::Clock | Self::Compact { .. } => 0,
            }
    }

    /// Appends the command.
    pub fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Set(put) => put.encode(writer.u8(SET)),
            Self::Create(put) => put.encode(writer.u8(CREATE)),
            Self::CreateInOrder(put) => put.encode(writer.u8(CREATE_IN_ORDER)),
            Self::Update(put) => put.encode(writer.u8(UPDATE)),
            Self::CompareAndSwap(put, condition) => {
                put.encode(writer.u8(COMPARE_AND_SWAP));
                condition.encode(writer);
            }
            Self::Delete { path, dir, recursive } => {
                writer.u8(DELETE).bytes(path.key()).bool(*dir).bool(*recursive);
            }
            Self::CompareAndDelete { path, condition } => {
                writer.u8(COMPARE_AND_DELETE).bytes(path.key());
                condition.encode(writer);
            }
            Self::Clock => {
                writer.u8(CLOCK);
            }
            Self::Expire(dues) => {
                writer.u8(EXPIRE).uint(dues.len() as u64);
                dues.iter().for_each(|due| due.encode(writer));
            }
            Self::Compact { upto } => {
                writer.u8(COMPACT).uint(upto.0);
            }
        }
    }

    /// Takes a command.
    ///
    /// # Errors
    /// `Unknown` for a command this version does not know.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match reader.u8()? {
            SET => Self::Set(Put::decode(reader)?),
            CREATE => Self::Create(Put::decode(reader)?),
            CREATE_IN_ORDER => Self::CreateInOrder(Put::decode(reader)?),
            UPDATE => Self::Update(Put::decode(reader)?),
            COMPARE_AND_SWAP => {
                Self::CompareAndSwap(Put::decode(reader)?, Condition::decode(reader)?)
            }
            DELETE => Self::Delete {
                path: read_path(reader)?,
                dir: reader.bool()?,
                recursive: reader.bool()?,
            },
            COMPARE_AND_DELETE => Self::CompareAndDelete {
                path: read_path(reader)?,
                condition: Condition::decode(reader)?,
            },
            CLOCK => Self::Clock,
            EXPIRE => {
                let count = reader.uint()?;
                Self::Expire((0..count).map(|_| Due::decode(reader)).collect::<Result<_, _>>()?)
            }
            COMPACT => Self::Compact { upto: Revision(reader.uint()?) },
            other => return Err(Malformed::Unknown { what: "command", value: other.into() }),
        })
    }
}

impl Put {
    fn cost_bytes(&self) -> usize {
        let value_bytes = match &self.content {
            Content::File(value) => value.len(),
            Content::Directory => 0,
        };
        self.path.key().len() + value_bytes
    }

    fn encode(&self, writer: &mut Writer) {
        writer.bytes(self.path.key());
        match &self.content {
            Content::File(value) => writer.bool(false).bytes(value),
            Content::Directory => writer.bool(true),
        };
        writer.option(self.ttl, |w, ttl| {
            w.uint(ttl.seconds());
        });
        writer.bool(self.refresh);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let path = read_path(reader)?;
        let is_directory = reader.bool()?;
        let content =
            if is_directory { Content::Directory } else { Content::File(reader.owned()?) };
        let read_ttl = |r: &mut Reader<'_>| {
            let seconds = r.uint()?;
            Ttl::from_seconds(seconds).ok_or(Malformed::Unknown { what: "ttl", value: seconds })
        };
        Ok(Self { path, content, ttl: reader.option(read_ttl)?, refresh: reader.bool()? })
    }
}

impl Condition {
    fn encode(&self, writer: &mut Writer) {
        writer.option(self.value.as_ref(), |w, value| {
            w.bytes(value);
        });
        writer.option(self.index, |w, index| {
            w.uint(index.0);
        });
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            value: reader.option(Reader::owned)?,
            index: reader.option(|r| r.uint().map(Revision))?,
        })
    }
}

impl Due {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(self.space as u8).bytes(&self.key);
        writer.uint(self.generation.revision.0).uint(self.generation.sub.into());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let space = reader.u8()?;
        let space = Space::from_byte(space)
            .ok_or(Malformed::Unknown { what: "space", value: space.into() })?;
        let key = reader.owned()?;
        let revision = Revision(reader.uint()?);
        let sub = u32::try_from(reader.uint()?).map_err(|_| Malformed::Overflow)?;
        Ok(Self { space, key, generation: Position { revision, sub } })
    }
}

fn read_path(reader: &mut Reader<'_>) -> Result<KeyPath, Malformed> {
    // Cleaning a clean path gives it back, so this also refuses anything a door did not clean.
    let raw = reader.bytes()?;
    let path = KeyPath::clean(raw).map_err(|_| Malformed::Overflow)?;
    if **path.key() == *raw { Ok(path) } else { Err(Malformed::Unknown { what: "path", value: 0 }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_reads_back() {
        let path = KeyPath::clean(b"/a/b").unwrap();
        let put = Put {
            path: path.clone(),
            content: Content::File(Bytes::from_static(b"v")),
            ttl: Ttl::from_seconds(9),
            refresh: true,
        };
        let condition =
            Condition { value: Some(Bytes::from_static(b"x")), index: Some(Revision(4)) };
        let due = Due {
            space: Space::Dirs,
            key: path.key().clone(),
            generation: Position { revision: Revision(3), sub: 1 },
        };
        let commands = [
            Command::Set(put.clone()),
            Command::Create(Put { content: Content::Directory, ttl: None, ..put.clone() }),
            Command::CreateInOrder(put.clone()),
            Command::Update(put.clone()),
            Command::CompareAndSwap(put, condition.clone()),
            Command::Delete { path: path.clone(), dir: true, recursive: false },
            Command::CompareAndDelete { path, condition },
            Command::Clock,
            Command::Expire(vec![due]),
            Command::Compact { upto: Revision(7) },
        ];
        for command in commands {
            let mut writer = Writer::new();
            command.encode(&mut writer);
            let bytes = writer.into_vec();
            let mut reader = Reader::new(&bytes);
            assert_eq!(Command::decode(&mut reader), Ok(command));
            assert_eq!(reader.finish(), Ok(()));
        }
        assert!(Command::decode(&mut Reader::new(&[99])).is_err());
        assert!(Command::decode(&mut Reader::new(&[DELETE, 2, b'/', b'/', 0, 0])).is_err());
    }
}
