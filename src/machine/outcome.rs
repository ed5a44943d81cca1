//! What came of an entry: the same on every member, told to the client by its origin.
//!
//! `Event` and `Node` are v2's words for a change; v3's doors read the records behind them. A
//! `Change` is what the watch hub gets: a record, and the live one it replaced.

use crate::base::{ClusterTime, KeyPath, LogIndex, Rejected, Revision, Term, WallTime};
use crate::store::Record;
use bytes::Bytes;
use std::sync::Arc;

/// What made a record. The numbers are on disk: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Action {
    /// v2 `set`; also how v2 sees a v3 put.
    Set = 1,
    /// v2 `create`, in-order or not.
    Create = 2,
    /// v2 `update`.
    Update = 3,
    /// v2 `compareAndSwap`.
    CompareAndSwap = 4,
    /// v2 `delete`; also how v2 sees a v3 delete.
    Delete = 5,
    /// v2 `compareAndDelete`.
    CompareAndDelete = 6,
    /// A deadline passed.
    Expire = 7,
}

impl Action {
    /// The action with this number on disk.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        let all = [
            Self::Set,
            Self::Create,
            Self::Update,
            Self::CompareAndSwap,
            Self::Delete,
            Self::CompareAndDelete,
            Self::Expire,
        ];
        all.into_iter().find(|action| *action as u8 == byte)
    }

    /// v2's word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Create => "create",
            Self::Update => "update",
            Self::CompareAndSwap => "compareAndSwap",
            Self::Delete => "delete",
            Self::CompareAndDelete => "compareAndDelete",
            Self::Expire => "expire",
        }
    }
}

/// A file or directory as v2 shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its path.
    pub path: KeyPath,
    /// The value of a file; `None` for directories, and for what is gone.
    pub value: Option<Bytes>,
    /// Whether it is a directory.
    pub dir: bool,
    /// When it expires, in cluster time: what `ttl` is computed from.
    pub deadline: Option<ClusterTime>,
    /// The same in wall time.
    pub expiration: Option<WallTime>,
    /// Children of a listed directory; `None` where v2 shows no `nodes`.
    pub children: Option<Vec<Node>>,
    /// v2's modifiedIndex; 0 for the root.
    pub modified_index: Revision,
    /// v2's createdIndex; 0 for the root.
    pub created_index: Revision,
}

/// A change as v2 shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What was done.
    pub action: Action,
    /// The node after it.
    pub node: Node,
    /// The node before it, if there was one.
    pub previous: Option<Node>,
}

/// What one command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A v2 operation changed this.
    Changed(Box<Event>),
    /// The clock was logged.
    Ticked,
    /// So many things expired; others had been renewed or removed meanwhile.
    Expired(usize),
    /// History below this revision is forgotten.
    Compacted(Revision),
}

/// One outcome a command, or why the whole entry did nothing.
pub type Verdict = Result<Vec<Outcome>, Rejected>;

/// A verdict, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What came of it.
    pub verdict: Verdict,
    /// The store's revision after the entry (a refusal does not move it).
    pub revision: Revision,
    /// The entry.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
}

/// One record that came to be, for watchers.
#[derive(Clone, Debug)]
pub struct Change {
    /// The record.
    pub record: Arc<Record>,
    /// The live record it replaced or ended.
    pub previous: Option<Arc<Record>>,
}
