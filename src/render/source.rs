//! What the renderer needs of the store, and no more.
//!
//! Why a trait: the renderer is a guest. The daemon answers it from the node on this host, the
//! command line from a cluster over HTTP, a test from a map; none of the renderer's other modules
//! can tell which.
//!
//! The way of the data: `snapshot` fixes one revision, a render reads ranges of it, `changed`
//! sleeps until one of the ranges that mattered has a newer change.
//!
//! Invariants an implementation keeps:
//! * All ranges of one snapshot are from its one revision, in key order.
//! * `changed(ranges, r)` returns at once if a change after `r` is already there: nothing that
//!   happens between a snapshot and the wait is lost.
//! * Dropping a returned future stops the work behind it.
//!
//! Deliberately not here: writing. Templates cannot change the store.

use crate::base::id::Revision;
use crate::base::range::KeyRange;
use bytes::Bytes;
use std::future::Future;
use std::pin::Pin;

/// A boxed future, so that sources fit behind `dyn`.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, SourceError>> + Send + 'a>>;

/// The store did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Not now; the renderer tries again.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The snapshot's revision is compacted; the renderer takes a new one.
    #[error("revision {0} is compacted")]
    Compacted(Revision),
}

/// One key as a template sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The full key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// Revision of its last change.
    pub mod_revision: Revision,
    /// Whole seconds it still lives; `None` = for ever.
    pub ttl_seconds: Option<u64>,
}

/// A store to render from.
pub trait Source: Send + Sync + 'static {
    /// A view of the newest revision at hand, which is at least `at_least`. A source that is
    /// behind `at_least` waits for it; the renderer bounds the wait.
    fn snapshot(&self, at_least: Revision) -> Answer<'_, Box<dyn Snapshot>>;

    /// Sleeps until a key in one of `ranges` changes after `after`; returns a revision at or
    /// after that change. May wake without cause, never fails to wake.
    fn changed(&self, ranges: Vec<KeyRange>, after: Revision) -> Answer<'_, Revision>;
}

/// The store at one revision.
pub trait Snapshot: Send + Sync {
    /// Which one.
    fn revision(&self) -> Revision;

    /// All keys of `range`, in key order.
    fn range(&self, range: KeyRange) -> Answer<'_, Vec<Item>>;
}
