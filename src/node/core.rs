//! Who drives the core: its own thread, or whoever brings work while it rests.
//!
//! The core stands behind a lock. Its thread takes turns as long as there is work, and sleeps to
//! the next tick otherwise. Waking it for a lone request and being woken by its answer are two
//! thread hops that cost more than the flush between them, so a guest that finds the core resting
//! takes the turn on its own thread and has its answer when it returns. Under load, or on a disk
//! that is slow to flush, the core's thread works and the guests' threads serve clients
//! (`docs/decisions/inline-flush.md`).
//!
//! Invariants:
//! * Work in the inbox is never forgotten: whoever lets go of the lock looks again, and leaves
//!   what came meanwhile to the core's thread.
//! * Only the core's thread ends the member; a turn that fails leaves the fault to it.

use crate::node::Options;
use crate::node::bootstrap::{NodeError, Opened};
use crate::node::checkpointer::Checkpointer;
use crate::node::driver::{Driver, Next};
use crate::node::handle::{Shared, Status};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// The core behind its lock, and what it shares with its guests.
pub(super) struct Core {
    pub(super) shared: Arc<Shared>,
    driver: Mutex<Option<Driver>>,
}

impl Core {
    /// Starts the member on what `opened` found.
    pub(super) fn start(
        opened: Opened,
        options: Options,
    ) -> Result<(Arc<Self>, JoinHandle<()>), NodeError> {
        let status = Status::new(opened.cluster, opened.member, options);
        let shared = Arc::new(Shared::new(opened.replica.view(), opened.base.clone(), status));
        let checkpointer = Checkpointer::start(&shared).map_err(NodeError::System)?;
        let driver = Driver::new(opened, Arc::clone(&shared), checkpointer);
        let core = Arc::new(Self { shared, driver: Mutex::new(Some(driver)) });
        let thread = std::thread::Builder::new().name("core".into());
        let life = Arc::clone(&core);
        let thread = thread.spawn(move || life.run()).map_err(NodeError::System)?;
        Ok((core, thread))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Driver>> {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of the member: takes turns until it is stopped or has a fault.
    fn run(&self) {
        loop {
            // The lock is let go before the thread sleeps.
            let next = self.lock().as_mut().map_or(Next::Stop, Driver::turn);
            match next {
                Next::Again => {}
                Next::Sleep(at_most) => self.shared.inbox.wait(at_most),
                Next::Stop => break,
            }
        }
        let driver = self.lock().take();
        let fault = driver.and_then(|driver| driver.finish().err());
        self.shared.end(fault);
    }

    /// Sees to what the caller has put into the inbox: takes a turn here and now if the core rests
    /// and the turn will be short, otherwise leaves it to the core's thread.
    pub(super) fn attend(&self) {
        // Whoever holds the lock looks into the inbox again after letting go.
        let Ok(mut place) = self.driver.try_lock() else { return };
        let rests = match place.as_mut() {
            Some(driver) if driver.is_brisk() => matches!(driver.turn(), Next::Sleep(_)),
            _ => false,
        };
        drop(place);
        if !rests || !self.shared.inbox.is_empty() {
            self.shared.inbox.wake();
        }
    }
}
