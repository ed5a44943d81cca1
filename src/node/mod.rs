//! Floor 4: the running member.
//!
//! The *driver* owns the consensus core and its log, and takes one turn at a time: on the core's own
//! thread, or on the thread of a guest that finds it resting. Guests hold a `Handle`, the narrow
//! waist with four verbs: `propose`, `read`, `watch`, `status`. Above it nobody sees Raft or LMDB;
//! v1, v2, v3, renderer and registrar are equal guests.
//!
//! ```text
//! door ──propose──► inbox ──batch──► driver: replica ► WAL flush ► apply ► publish View ──► reply
//! door ──read────► View (sole voter: at once)          │
//! door ──watch───► hub cursor ◄── changes ─────────────┘   checkpoint thread ► LMDB
//! ```
//!
//! Invariants:
//! * Only the driver touches the core; readers take the published View and never block it.
//! * A View is published before anyone is told that its writes happened.
//! * After a `Fault` nothing is acknowledged any more; the process ends non-zero.
//! * Requests that wait when the member stops are told so.
//!
//! Deliberately not here: HTTP, templates, configuration files.

mod bootstrap;
mod checkpointer;
mod clock;
mod core;
mod driver;
mod handle;
mod inbox;
mod meters;
mod watches;

pub use bootstrap::NodeError;
pub use handle::{Handle, ReadMode, ReadState, Status, Unserved};
pub use meters::{Durations, Figures, Tally};
pub use watches::{WatchLost, Watcher};

pub use crate::replica::Role;

use self::core::Core;
use crate::base::Fault;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;

/// What a member is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where everything is kept; must exist, belong to this process alone, and be on a disk.
    pub data_dir: PathBuf,
    /// The member's name, for people.
    pub name: String,
    /// What clients are told to connect to.
    pub client_urls: Vec<String>,
    /// Length of a WAL segment in bytes; `limits::WAL_SEGMENT_BYTES` but in tests.
    pub wal_segment_bytes: u64,
}

/// A running member. Dropping it stops it without a word; `stop` is the polite way.
pub struct Node {
    core: Arc<Core>,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    /// Opens or makes the member's data and starts it. Blocks until the log is replayed.
    ///
    /// # Errors
    /// When the data directory cannot be used; the message says why and what to do.
    pub fn start(options: Options) -> Result<Self, NodeError> {
        let opened = bootstrap::open(&options)?;
        let (core, thread) = Core::start(opened, options)?;
        Ok(Self { core, thread: Some(thread) })
    }

    /// The waist, for any number of guests.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.core))
    }

    /// Turns the core has taken, for the watchdog: one every tick at the least, unless it hangs.
    pub fn turns(&self) -> impl Fn() -> u64 + Send + use<> {
        let shared = Arc::clone(&self.core.shared);
        move || shared.turns.load(Ordering::Relaxed)
    }

    /// Resolves when local trouble has stopped the member.
    pub async fn fault(&self) -> Fault {
        loop {
            let noticed = self.core.shared.faulted.notified();
            let fault =
                self.core.shared.fault.lock().unwrap_or_else(PoisonError::into_inner).take();
            match fault {
                Some(fault) => return fault,
                None => noticed.await,
            }
        }
    }

    /// Stops the member: finishes what was begun, writes a last checkpoint, closes the log.
    /// Blocks until that is durable.
    pub fn stop(mut self) {
        self.join();
    }

    fn join(&mut self) {
        self.core.shared.inbox.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the core panicked; the data directory is as after a crash");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.join();
    }
}

#[cfg(test)]
mod tests;
