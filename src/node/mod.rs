//! Floor 4: the running member. (scaffold: the waist as doors will see it)
#![allow(missing_docs)]

/// Why a request got no verdict from the cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unserved {
    /// Nothing was written: no leader is known.
    #[error("no leader")]
    NoLeader,
    /// Nothing was written: a queue is full.
    #[error("too many requests")]
    Busy,
    /// Nobody knows: it was sent, and no answer came in time.
    #[error("request timed out")]
    Unknown,
    /// This member is stopping.
    #[error("server stopped")]
    Stopping,
}
