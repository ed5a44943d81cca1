//! The thread that waits for the disk while checkpoints are written, so that the driver does not.
//!
//! The core hands out one checkpoint at a time, so the queue holds one.

use crate::base::Fault;
use crate::base::limits::CHECKPOINT_RETRY_MS;
use crate::base::report::chain;
use crate::node::driver::Finished;
use crate::node::handle::Shared;
use crate::store::checkpoint::{Checkpoint, Written};
use crate::store::env::Lmdb;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// Writes a checkpoint; waits and tries again while the disk is full. A failed attempt changed
/// nothing, and the next one writes every page again.
fn run(checkpoint: &Checkpoint<Lmdb>, shared: &Shared) -> Result<Written, Fault> {
    loop {
        let began = Instant::now();
        let fault = match checkpoint.run() {
            Err(fault) if fault.is_no_space() && !shared.inbox.is_stopping() => fault,
            ended => {
                shared.meters.checkpoints.record(began.elapsed());
                shared.space.checkpoint_waits.store(false, Ordering::Relaxed);
                return ended;
            }
        };
        if !shared.space.checkpoint_waits.swap(true, Ordering::Relaxed) {
            tracing::error!("{}: the checkpoint waits until there is space", chain(&fault));
        }
        std::thread::park_timeout(Duration::from_millis(CHECKPOINT_RETRY_MS));
    }
}

/// The thread and the way to it.
pub(super) struct Checkpointer {
    work: Option<SyncSender<Checkpoint<Lmdb>>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    /// Starts the thread; it reports to the inbox.
    pub(super) fn start(shared: &Arc<Shared>) -> std::io::Result<Self> {
        let (work, queue) = sync_channel::<Checkpoint<Lmdb>>(1);
        let shared = Arc::clone(shared);
        let thread = Builder::new().name("checkpoint".into()).spawn(move || {
            for checkpoint in queue {
                let written = run(&checkpoint, &shared);
                // The core frees what it made: an allocator gives such pages back at once.
                shared.inbox.finished(Finished::Checkpoint(checkpoint, written));
            }
        })?;
        Ok(Self { work: Some(work), thread: Some(thread) })
    }

    /// Hands a checkpoint over.
    pub(super) fn begin(&self, checkpoint: Checkpoint<Lmdb>) -> Result<(), Fault> {
        let handed = self.work.as_ref().is_some_and(|work| work.send(checkpoint).is_ok());
        if handed { Ok(()) } else { Err(Fault::Invariant("the checkpoint thread is gone".into())) }
    }

    /// Waits for the thread to finish what it has.
    pub(super) fn join(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the checkpoint thread panicked");
        }
    }
}
