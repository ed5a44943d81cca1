//! What waits in front of the core: a bounded queue from many tasks to the one driver.
//!
//! The driver takes everything that waits as one batch, so the time of a flush is what gathers the
//! next batch: group commit without a timer. A full queue refuses at once and says so; the work of
//! this process itself (log written, checkpoint done, stop) is always taken, and there is at most
//! one of each under way.
//!
//! What the core has taken and not answered counts as waiting: who is one too many hears it at once
//! and not after the flush that is under way.
//!
//! Invariant: once stopped, nothing new enters, so a request is answered or refused, never lost.

use crate::base::LogIndex;
use crate::base::limits::{PROPOSALS_WAITING_BYTES_MAX, PROPOSALS_WAITING_MAX, READS_WAITING_MAX};
use crate::machine::{Answer, Command};
use crate::node::driver::Finished;
use crate::node::handle::Unserved;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Duration;
use tokio::sync::oneshot;

/// A client's request on its way to the core.
pub(super) struct Asked {
    /// What it asks.
    pub(super) commands: Vec<Command>,
    /// Who is told what came of it.
    pub(super) reply: oneshot::Sender<Result<Answer, Unserved>>,
}

/// A linearizable read on its way to the core: answered with the entry that must be applied first.
pub(super) struct AskedRead {
    /// Who is told.
    pub(super) reply: oneshot::Sender<Result<LogIndex, Unserved>>,
}

/// What the driver finds when it looks.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) proposals: Vec<Asked>,
    pub(super) reads: Vec<AskedRead>,
    /// Work of the helper threads that is done.
    pub(super) finished: Vec<Finished>,
    stop: bool,
    proposal_bytes: usize,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        let quiet = self.proposals.is_empty() && self.reads.is_empty() && self.finished.is_empty();
        quiet && !self.stop
    }
}

/// The queue.
#[derive(Default)]
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    /// Requests the core has taken and not answered.
    taken: AtomicUsize,
    core: OnceLock<Thread>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the core's thread.
    pub(super) fn wake(&self) {
        // Costs a system call only when the thread is asleep.
        if let Some(core) = self.core.get() {
            core.unpark();
        }
    }

    /// Puts a request in line. Somebody has to see to it: `Core::attend`.
    pub(super) fn propose(&self, asked: Asked) -> Result<(), Unserved> {
        let bytes = asked.commands.iter().map(Command::cost_bytes).sum::<usize>();
        let mut waiting = self.lock();
        if waiting.stop {
            return Err(Unserved::Stopping);
        }
        let unanswered = waiting.proposals.len() + self.taken.load(Ordering::Relaxed);
        let full = unanswered >= PROPOSALS_WAITING_MAX
            || waiting.proposal_bytes + bytes > PROPOSALS_WAITING_BYTES_MAX;
        if full {
            return Err(Unserved::Busy);
        }
        waiting.proposal_bytes += bytes;
        waiting.proposals.push(asked);
        Ok(())
    }

    /// Puts a read in line.
    pub(super) fn read(&self, asked: AskedRead) -> Result<(), Unserved> {
        let mut waiting = self.lock();
        if waiting.stop {
            return Err(Unserved::Stopping);
        }
        if waiting.reads.len() >= READS_WAITING_MAX {
            return Err(Unserved::Busy);
        }
        waiting.reads.push(asked);
        drop(waiting);
        self.wake();
        Ok(())
    }

    /// Reports work of a helper thread.
    pub(super) fn finished(&self, finished: Finished) {
        self.lock().finished.push(finished);
        self.wake();
    }

    /// Asks the driver to stop.
    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.wake();
    }

    /// Whether the driver was asked to stop.
    pub(super) fn is_stopping(&self) -> bool {
        self.lock().stop
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Everything that waits; nothing any more once the driver was asked to stop.
    pub(super) fn take(&self) -> Option<Waiting> {
        let mut waiting = self.lock();
        self.taken.fetch_add(waiting.proposals.len(), Ordering::Relaxed);
        (!waiting.stop).then(|| std::mem::take(&mut *waiting))
    }

    /// The core has so many requests to answer.
    pub(super) fn unanswered(&self, requests: usize) {
        self.taken.store(requests, Ordering::Relaxed);
    }

    /// What was left when the driver stopped.
    pub(super) fn take_rest(&self) -> Waiting {
        std::mem::replace(&mut *self.lock(), Waiting { stop: true, ..Waiting::default() })
    }

    /// Sleeps until something waits or the time is over. Called by the core's thread only.
    pub(super) fn wait(&self, at_most: Duration) {
        self.core.get_or_init(std::thread::current);
        if self.lock().is_empty() {
            std::thread::park_timeout(at_most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_at_the_stop_is_kept_for_the_end() {
        let inbox = Inbox::default();
        let (reply, _answer) = oneshot::channel();
        inbox.propose(Asked { commands: Vec::new(), reply }).unwrap();
        inbox.stop();
        let (reply, _answer) = oneshot::channel();
        let late = inbox.propose(Asked { commands: Vec::new(), reply });
        assert_eq!(late, Err(Unserved::Stopping));
        assert!(inbox.take().is_none());
        assert_eq!(inbox.take_rest().proposals.len(), 1);
    }

    #[test]
    fn what_the_core_has_not_answered_counts_as_waiting() {
        let inbox = Inbox::default();
        let propose = || {
            let (reply, _answer) = oneshot::channel();
            inbox.propose(Asked { commands: Vec::new(), reply })
        };
        for _ in 0..PROPOSALS_WAITING_MAX {
            propose().unwrap();
        }
        assert_eq!(propose(), Err(Unserved::Busy));
        assert_eq!(inbox.take().unwrap().proposals.len(), PROPOSALS_WAITING_MAX);
        assert_eq!(propose(), Err(Unserved::Busy));
        inbox.unanswered(PROPOSALS_WAITING_MAX - 1);
        propose().unwrap();
        assert_eq!(propose(), Err(Unserved::Busy));
    }
}
