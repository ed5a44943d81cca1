//! What can go wrong with the write-ahead log, in words an operator can act on.
//!
//! Each variant says what was being done and where. What the system said is the `source`, never
//! repeated in the text. Damage tells how to go on: a voter whose log is damaged must not guess,
//! because a forgotten vote or acknowledged entry breaks the promise of the whole cluster.

use crate::base::Fault;
use crate::base::codec::Malformed;
use crate::store::wal::Identity;
use std::io;

/// What to do with a member whose log cannot be trusted any more.
const REJOIN: &str = "this member must not vote with it: stop it, remove it from the cluster, \
                      remove its data directory and join it again as a new member";

/// A failure of the write-ahead log.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// Reading or listing failed.
    #[error("cannot read {path}: check the disk and the permissions, then start again")]
    Read {
        /// Segment file or directory.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Writing, creating, renaming or removing failed.
    #[error("cannot write {path}: check the disk and the permissions, then start again")]
    Write {
        /// Segment file or directory.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A flush failed: what was written since the flush before may or may not be on the disk.
    #[error("cannot flush {path}: the disk did not confirm a write; check it, then start again")]
    Sync {
        /// Segment file or directory.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The disk is full. Nothing of the batch counts; the log stays usable.
    #[error("no space left to write {path}: free space on this disk")]
    NoSpace {
        /// Segment file.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Bytes that were durable once are not what they were.
    #[error("{path} is damaged at byte {offset}: {what}; {REJOIN}")]
    Corrupt {
        /// Segment file.
        path: String,
        /// Byte offset in it.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The log was written in a format this version does not know.
    #[error("cannot read {path}: {what}")]
    TooNew {
        /// Segment file.
        path: String,
        /// Format found, newest known, and what to do.
        what: Malformed,
    },
    /// The log belongs to another member or cluster.
    #[error(
        "{path} belongs to member {} of cluster {}, this is member {} of cluster {}: \
         start with the data directory of this member",
        found.member, found.cluster, expected.member, expected.cluster
    )]
    Foreign {
        /// Segment file.
        path: String,
        /// Whose log it is.
        found: Identity,
        /// Who asks.
        expected: Identity,
    },
    /// There is no log to open.
    #[error("there is no write-ahead log in {path}: this member was not started here before")]
    Absent {
        /// The directory.
        path: String,
    },
    /// A log is there already.
    #[error("there is a write-ahead log in {path} already: open it, or remove it first")]
    Exists {
        /// The directory.
        path: String,
    },
    /// An earlier call failed; nothing may be promised any more.
    #[error("the write-ahead log failed before: restart this member")]
    Poisoned,
}

impl WalError {
    /// The failed read of `path`.
    pub(super) fn read(path: String, source: io::Error) -> Self {
        Self::Read { path, source }
    }

    /// The failed write of `path`, with a full disk told apart.
    pub(super) fn write(path: String, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { path, source }
            }
            _ => Self::Write { path, source },
        }
    }

    /// The failed flush of `path`. A full disk is no excuse here: the write was accepted.
    pub(super) fn sync(path: String, source: io::Error) -> Self {
        Self::Sync { path, source }
    }

    /// Whether the disk was full and the same log may be written to again.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace { .. })
    }
}

/// Every failure of the log is local trouble.
impl From<WalError> for Fault {
    fn from(error: WalError) -> Self {
        let doing = error.to_string();
        match error {
            WalError::Read { source, .. }
            | WalError::Write { source, .. }
            | WalError::Sync { source, .. }
            | WalError::NoSpace { source, .. } => Self::Storage { doing, source },
            WalError::TooNew { .. } => Self::TooNew(doing),
            WalError::Corrupt { .. }
            | WalError::Foreign { .. }
            | WalError::Absent { .. }
            | WalError::Exists { .. } => Self::Damaged { what: doing },
            WalError::Poisoned => Self::Invariant(doing),
        }
    }
}
