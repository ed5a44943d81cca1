//! Floor 1: what a member keeps.
//!
//! Two halves. The *log* half makes Raft's entries durable: `wal` writes them, `log` serves the
//! recent ones to Raft. The *state* half keeps the key space as a multi-version store (MVCC):
//!
//! ```text
//! apply ──insert──► active memtable ──freeze──► frozen memtable ──checkpoint──► base (LMDB)
//!                        ▲                           ▲                            ▲
//!                        └────────── a Reader looks here, in this order ──────────┘
//! ```
//!
//! A `View` is one published state: a revision, and the generations that hold it. Readers never
//! take a lock and never block the one writer: a memtable only grows, and what a View may see of
//! it is bounded by the View's revision.
//!
//! Invariants:
//! * A record never changes once inserted; a key's history is the list of its records.
//! * A checkpoint writes data and applied index in one transaction, or neither.
//! * A frozen memtable is dropped only after its checkpoint is durable.
//! * Nothing here knows what a key or an action means: that is `machine`'s.
//!
//! Sources: LevelDB's memtable and immutable memtable (`doc/impl.md`), etcd's MVCC store
//! (`server/storage/mvcc`), LMDB (`lmdb.h`), and `docs/decisions/`.

pub mod base;
pub mod checkpoint;
pub mod env;
pub mod log;
pub mod memtable;
pub mod meta;
pub mod mvcc;
pub mod reader;
pub mod record;
pub mod row;
pub mod stream;
pub mod wal;

pub use base::{Base, MemoryBase};
pub use meta::{Membership, Meta};
pub use mvcc::{Store, View};
pub use reader::Reader;
pub use record::{Position, Record};
