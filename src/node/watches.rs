//! Watching: the hub of this member, and the tasks that sleep on it.
//!
//! The driver publishes changes; a watcher's task looks for its own when woken. The hub stands
//! behind one mutex, held for microseconds; history is read without it.
//!
//! Invariant: a watcher is registered before its first look, so nothing falls in between.

use crate::base::{Fault, Revision};
use crate::machine::Change;
use crate::node::handle::{Shared, Unserved};
use crate::store::View;
use crate::store::env::Lmdb;
use crate::watch::{Cursor, Hub, HubFull, Interest, Step, WatcherId};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The hub and whether it still lives.
pub(super) struct Watches {
    hub: Mutex<Hub<Arc<Notify>>>,
    closed: AtomicBool,
}

impl Watches {
    pub(super) fn new(view: &View<Lmdb>) -> Self {
        Self { hub: Mutex::new(Hub::new(view.revision)), closed: AtomicBool::new(false) }
    }

    fn hub(&self) -> MutexGuard<'_, Hub<Arc<Notify>>> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many watch.
    pub(super) fn count(&self) -> usize {
        self.hub().watchers()
    }

    /// Says what happened, and who has to be woken for it. The View must be published already.
    #[must_use]
    pub(super) fn publish(&self, changes: Vec<Change>) -> Vec<Arc<Notify>> {
        if changes.is_empty() { Vec::new() } else { self.hub().publish(changes) }
    }

    /// Ends every watch: the member stops.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let woken = self.hub().everyone();
        woken.iter().for_each(|watcher| watcher.notify_one());
    }
}

/// Why a watch ended.
#[derive(Debug, thiserror::Error)]
pub enum WatchLost {
    /// The next revision is compacted away.
    #[error("the requested history has been cleared")]
    Compacted {
        /// Where a new watch can begin.
        oldest: Revision,
    },
    /// The member stops.
    #[error("server stopped")]
    Stopping,
    /// Stored bytes are damaged, or the database failed.
    #[error("the history cannot be read")]
    Fault(#[source] Fault),
}

/// A registered cursor. Dropping it ends the watch.
pub struct Watcher {
    shared: Arc<Shared>,
    cursor: Cursor,
    id: WatcherId,
    woken: Arc<Notify>,
    /// The newest revision when the watch began.
    opened_at: Revision,
}

impl Watcher {
    pub(super) fn open(
        shared: Arc<Shared>,
        interest: Interest,
        from: Option<Revision>,
    ) -> Result<Self, Unserved> {
        let woken = Arc::new(Notify::new());
        let (id, opened_at) = {
            let mut hub = shared.watches.hub();
            let registered = hub.register(interest.clone(), Arc::clone(&woken));
            (registered.map_err(|HubFull| Unserved::Busy)?, hub.revision())
        };
        let cursor = Cursor::new(interest, from.unwrap_or(opened_at.next()));
        Ok(Self { shared, cursor, id, woken, opened_at })
    }

    /// The newest revision when the watch began.
    #[must_use]
    pub fn opened_at(&self) -> Revision {
        self.opened_at
    }

    /// The next changes, at least one, in order. Cancel-safe: nothing is lost when the future is
    /// dropped.
    ///
    /// # Errors
    /// When the watch cannot go on.
    pub async fn next(&mut self) -> Result<Vec<Change>, WatchLost> {
        loop {
            if self.shared.watches.closed.load(Ordering::Acquire) {
                return Err(WatchLost::Stopping);
            }
            let step = self.cursor.advance(&self.shared.watches.hub());
            let step = match step {
                Step::Behind => self.catch_up().map_err(WatchLost::Fault)?,
                other => other,
            };
            match step {
                Step::Changes(changes) => return Ok(changes),
                Step::Compacted { oldest } => return Err(WatchLost::Compacted { oldest }),
                // History is read in bounded steps; others get their turn in between.
                Step::Behind => tokio::task::yield_now().await,
                Step::Idle => self.woken.notified().await,
            }
        }
    }

    fn catch_up(&mut self) -> Result<Step, Fault> {
        let view = self.shared.view.load_full();
        let Some(reader) = view.read()? else { return Ok(Step::Behind) };
        let step = self.cursor.catch_up(&reader, || self.shared.view.load().compacted)?;
        // The history read so far ends at the View: the ring goes on from there.
        Ok(if matches!(step, Step::Idle) { Step::Behind } else { step })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.watches.hub().deregister(self.id);
    }
}
