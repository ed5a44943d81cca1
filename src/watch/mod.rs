//! Floor 3: telling those who watch.
//!
//! A watcher is a cursor: what it is interested in, and the position in history it has reached.
//! The hub keeps the newest changes in a ring and knows who waits for what; a cursor takes its
//! changes from the ring, or from the store's history when it has fallen behind:
//!
//! ```text
//! apply ──publish──► Hub (ring, index of interests) ──► who is to be woken
//!                      │
//! woken: Cursor::advance(hub) ─► Changes | Idle | Behind ─► Cursor::catch_up(reader) ─► …
//! ```
//!
//! The hub is meant to live behind one mutex of the node: the core's thread publishes, the tasks
//! of watchers register and advance, and each of these takes microseconds. Changes are shared, so
//! a thousand watchers of one change cost a thousand reference counts.
//!
//! Invariants:
//! * A cursor never misses, doubles or reorders a change, whichever source it comes from.
//! * A cursor whose next position is compacted is told so, with the oldest revision left.
//! * What it costs to publish does not depend on how many watch something else.
//!
//! Deliberately not here: tasks, wake-ups (the hub gives back what was registered), HTTP, JSON.
//!
//! Sources: etcd's v2 `watcher_hub.go` for the rules of `tree`, its v3 `watchable_store.go` for
//! synced and unsynced watchers.

pub mod hub;
pub mod interest;
pub mod watcher;

pub use hub::{Hub, HubFull, WatcherId};
pub use interest::Interest;
pub use watcher::{Cursor, Step};
