//! Refusals and faults.
//!
//! `Rejected` is replicated truth: every member that applies an entry comes to the same refusal,
//! and the client is told it. `Fault` is trouble of this member alone: it stops the process and
//! is never an answer. A door turns a refusal into its own words with the tables here; the codes
//! are etcd's (`etcdserver/api/v2error/error.go`; `api/v3rpc/rpctypes/error.go` and the gRPC
//! status codes).

use crate::base::id::Revision;
use crate::base::path::KeyPath;
use std::io;

/// Why an operation changed nothing, the same on every member.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// No such key. Holds the first missing path.
    #[error("Key not found")]
    NotFound(KeyPath),
    /// A comparison failed; `cause` in etcd's brackets: `[given != actual]`.
    #[error("Compare failed")]
    CompareFailed {
        /// The bracketed comparison, with the bytes of both values.
        cause: Vec<u8>,
    },
    /// The operation needs a file, and this path is a directory.
    #[error("Not a file")]
    NotAFile(KeyPath),
    /// A component of the path is a file. Holds that file.
    #[error("Not a directory")]
    NotADirectory(KeyPath),
    /// Create found something there.
    #[error("Key already exists")]
    AlreadyExists(KeyPath),
    /// The root directory cannot be written or deleted.
    #[error("Root is read only")]
    RootReadOnly,
    /// A directory is deleted only when empty or recursively.
    #[error("Directory not empty")]
    DirectoryNotEmpty(KeyPath),
    /// The revision asked for is compacted.
    #[error("The event in requested index is outdated and cleared")]
    Compacted {
        /// Oldest revision that can be asked for.
        oldest: Revision,
        /// Revision asked for.
        requested: Revision,
    },
    /// The revision asked for does not exist yet.
    #[error("required revision is a future revision")]
    FutureRevision,
    /// An entry holds more than one command can do, or a combination nobody can mean.
    #[error("Invalid request")]
    Invalid {
        /// What is wrong, for the user.
        cause: String,
    },
    /// The sequence is below its origin's window: the outcome of an earlier try is unknown, and
    /// it must not run again.
    #[error("The outcome of this request is unknown")]
    OutcomeUnknown,
    /// The store is at its quota: only reads, deletes and administration go on.
    #[error("mvcc: database space exceeded")]
    NoSpace,
}

impl Rejected {
    /// etcd's v2 error code.
    #[must_use]
    pub fn v2_code(&self) -> u16 {
        match self {
            Self::NotFound(_) => 100,
            Self::CompareFailed { .. } => 101,
            Self::NotAFile(_) => 102,
            Self::NotADirectory(_) => 104,
            Self::AlreadyExists(_) => 105,
            Self::RootReadOnly => 107,
            Self::DirectoryNotEmpty(_) => 108,
            Self::Invalid { .. } => 209,
            Self::OutcomeUnknown | Self::NoSpace => 300,
            Self::Compacted { .. } | Self::FutureRevision => 401,
        }
    }

    /// The gRPC status code v3 answers with.
    #[must_use]
    pub fn v3_code(&self) -> GrpcCode {
        match self {
            Self::NotFound(_) => GrpcCode::NotFound,
            Self::CompareFailed { .. }
            | Self::NotAFile(_)
            | Self::NotADirectory(_)
            | Self::AlreadyExists(_)
            | Self::RootReadOnly
            | Self::DirectoryNotEmpty(_) => GrpcCode::FailedPrecondition,
            Self::Compacted { .. } | Self::FutureRevision => GrpcCode::OutOfRange,
            Self::Invalid { .. } => GrpcCode::InvalidArgument,
            Self::OutcomeUnknown => GrpcCode::Unavailable,
            Self::NoSpace => GrpcCode::ResourceExhausted,
        }
    }

    /// What v2 shows as `cause`; empty = left out. Names and values are bytes, not text.
    #[must_use]
    pub fn cause(&self) -> Vec<u8> {
        match self {
            Self::NotFound(path)
            | Self::NotAFile(path)
            | Self::NotADirectory(path)
            | Self::AlreadyExists(path)
            | Self::DirectoryNotEmpty(path) => path.key().to_vec(),
            Self::CompareFailed { cause } => cause.clone(),
            Self::Invalid { cause } => cause.clone().into(),
            Self::RootReadOnly => "/".into(),
            Self::Compacted { oldest, requested } => {
                format!("the requested history has been cleared [{oldest}/{requested}]").into()
            }
            Self::FutureRevision => Vec::new(),
            Self::OutcomeUnknown => "etcdserver: request timed out".into(),
            Self::NoSpace => "mvcc: database space exceeded".into(),
        }
    }
}

/// gRPC status codes as v3 uses them (numbers from the gRPC specification).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum GrpcCode {
    /// The request itself is wrong.
    InvalidArgument = 3,
    /// Key, lease, user or member unknown.
    NotFound = 5,
    /// A quota or queue is full.
    ResourceExhausted = 8,
    /// The state does not allow it.
    FailedPrecondition = 9,
    /// Compacted or future revision.
    OutOfRange = 11,
    /// No leader, timeout, stopping: ask again.
    Unavailable = 14,
}

/// Local trouble that ends this process; the message names cause, place and next step.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The disk refused or lied; nothing may be acknowledged any more.
    #[error("storage failed while {doing}")]
    Storage {
        /// What was being done, with the path.
        doing: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Stored bytes are damaged.
    #[error("stored data is damaged: {what}")]
    Damaged {
        /// Which bytes, where, and what to do.
        what: String,
    },
    /// LMDB refused.
    #[error("the database failed while {doing}: {message}")]
    Database {
        /// What was being done.
        doing: String,
        /// What LMDB said.
        message: String,
    },
    /// The data was written by a newer version.
    #[error("{0}")]
    TooNew(String),
    /// Two members disagree, or an invariant of the core is broken.
    #[error("internal invariant broken: {0}")]
    Invariant(String),
}

impl Fault {
    /// Whether the disk, or the user's share of it, is full: more space is all it takes.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        matches!(self, Self::Storage { source, .. } if full.contains(&source.kind()))
    }

    /// `Damaged`, from a codec error.
    #[must_use]
    pub fn damaged(what: &str, error: crate::base::codec::Malformed) -> Self {
        Self::Damaged { what: format!("{what}: {error}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_carry_etcds_codes() {
        let path = KeyPath::clean(b"/foo").unwrap();
        let table = [
            (Rejected::NotFound(path.clone()), 100, 5, "/foo"),
            (Rejected::CompareFailed { cause: "[a != b]".into() }, 101, 9, "[a != b]"),
            (Rejected::NotAFile(path.clone()), 102, 9, "/foo"),
            (Rejected::NotADirectory(path.clone()), 104, 9, "/foo"),
            (Rejected::AlreadyExists(path.clone()), 105, 9, "/foo"),
            (Rejected::RootReadOnly, 107, 9, "/"),
            (Rejected::DirectoryNotEmpty(path), 108, 9, "/foo"),
            (
                Rejected::Compacted { oldest: Revision(9), requested: Revision(2) },
                401,
                11,
                "the requested history has been cleared [9/2]",
            ),
        ];
        for (rejected, v2, v3, cause) in table {
            assert_eq!(rejected.v2_code(), v2, "{rejected}");
            assert_eq!(rejected.v3_code() as u8, v3, "{rejected}");
            assert_eq!(rejected.cause(), cause.as_bytes());
        }
    }
}
