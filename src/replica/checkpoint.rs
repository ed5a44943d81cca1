//! When the overlay is carried to the base, and what the log may forget then.
//!
//! A checkpoint starts when nothing was applied for `limits::CHECKPOINT_QUIET_MS`, else every
//! `limits::CHECKPOINT_INTERVAL_MS`, at once when the overlay is large, and rarely when only the
//! applied index would move. One runs at a time.
//!
//! Invariants:
//! * It holds the state of one applied entry, never of half of one.
//! * The overlay is let go of, and the log compacted, only after it is durable.
//! * None starts while a snapshot stream is being begun or a received base waits, except under
//!   pressure: both look at one state of the base.

use crate::base::Fault;
use crate::base::limits;
use crate::replica::Replica;
use crate::replica::words::{Output, SnapshotId};
use crate::store::Membership;
use crate::store::base::Base;
use crate::store::checkpoint::{Checkpoint, Written};

/// The checkpoints of one member.
#[derive(Debug)]
pub(super) struct Checkpoints {
    running: Option<(SnapshotId, Membership)>,
    /// What the base holds.
    durable: (SnapshotId, Membership),
    started_ms: u64,
    changed_ms: u64,
    more_to_purge: bool,
}

impl Checkpoints {
    pub(super) fn new(durable: SnapshotId, membership: Membership) -> Self {
        Self {
            running: None,
            durable: (durable, membership),
            started_ms: 0,
            changed_ms: 0,
            more_to_purge: false,
        }
    }

    /// Something was applied.
    pub(super) fn changed(&mut self, now_ms: u64) {
        self.changed_ms = now_ms;
    }

    /// The base's state and members.
    pub(super) fn durable(&self) -> &(SnapshotId, Membership) {
        &self.durable
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    fn is_due(&self, now_ms: u64, has_records: bool) -> bool {
        let since_start_ms = now_ms.saturating_sub(self.started_ms);
        if !has_records && !self.more_to_purge {
            return since_start_ms >= limits::CHECKPOINT_IDLE_MS;
        }
        let quiet_ms = now_ms.saturating_sub(self.changed_ms);
        quiet_ms >= limits::CHECKPOINT_QUIET_MS || since_start_ms >= limits::CHECKPOINT_INTERVAL_MS
    }
}

impl<B: Base> Replica<B> {
    /// The timed rules, once a tick.
    pub(super) fn checkpoint_if_due(&mut self, out: &mut Vec<Output<B>>) {
        let news = self.machine.applied() > self.checkpoints.durable.0.index;
        let due = self.checkpoints.is_due(self.now.mono_ms, self.machine.active_bytes() > 0);
        let base_in_use = self.shelf.is_building() || self.received.is_some();
        if due && (news || self.checkpoints.more_to_purge) && !base_in_use {
            self.start_checkpoint(out);
        }
    }

    /// The rule for a large overlay, whenever something was applied.
    pub(super) fn checkpoint_under_pressure(&mut self, out: &mut Vec<Output<B>>) {
        if self.machine.active_bytes() >= limits::OVERLAY_BYTES_CHECKPOINT {
            self.start_checkpoint(out);
        }
    }

    /// Starts one, unless one runs or an entry is half done.
    pub(super) fn start_checkpoint(&mut self, out: &mut Vec<Output<B>>) {
        if self.checkpoints.is_running() || self.mid_entry {
            return;
        }
        if let Some(checkpoint) = self.machine.freeze() {
            let id =
                SnapshotId { index: self.machine.applied(), term: self.machine.applied_term() };
            self.checkpoints.running = Some((id, self.machine.membership().clone()));
            self.checkpoints.started_ms = self.now.mono_ms;
            out.push(Output::Checkpoint(checkpoint));
        }
    }

    /// The checkpoint that a polite stop ends with, so that the next start replays nothing; `None`
    /// when there is nothing to write, or a state that cannot be written.
    pub fn last_checkpoint(&mut self) -> Option<Checkpoint<B>> {
        let news = self.machine.applied() > self.checkpoints.durable.0.index;
        let at_rest = !self.checkpoints.is_running() && !self.mid_entry && !self.failed;
        if news && at_rest { self.machine.freeze() } else { None }
    }

    /// A checkpoint is durable.
    pub(super) fn checkpoint_done(
        &mut self,
        written: Written,
        out: &mut Vec<Output<B>>,
    ) -> Result<(), Fault> {
        let running = self.checkpoints.running.take();
        let Some(running) = running.filter(|(id, _)| id.index == written.applied) else {
            let what = format!("a checkpoint at {} was never asked for", written.applied);
            return Err(Fault::Invariant(what));
        };
        self.machine.thaw();
        self.checkpoints.durable = running;
        self.checkpoints.more_to_purge = written.more_to_purge;
        self.compact_log(out);
        Ok(())
    }

    /// Forgets the log's oldest part, but not what a peer needs behind its snapshot.
    fn compact_log(&mut self, out: &mut Vec<Output<B>>) {
        let applied = self.checkpoints.durable.0.index;
        let held = self
            .shelf
            .holds_log_from()
            .filter(|_| self.raft.store().bytes() < limits::LOG_HELD_BYTES_MAX);
        let before = self.raft.store().point().0;
        let upto = self.raft.mut_store().compact(held.map_or(applied, |held| held.min(applied)));
        if upto > before {
            out.push(Output::ReleaseLog { upto });
        }
    }

    /// The base was replaced by a received one.
    pub(super) fn base_replaced(&mut self) {
        let id = SnapshotId { index: self.machine.applied(), term: self.machine.applied_term() };
        self.checkpoints = Checkpoints {
            started_ms: self.now.mono_ms,
            ..Checkpoints::new(id, self.machine.membership().clone())
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{LogIndex, Term};

    #[test]
    fn quiet_or_late_or_rarely() {
        let id = SnapshotId { index: LogIndex(1), term: Term(1) };
        let mut checkpoints = Checkpoints::new(id, Membership::default());
        checkpoints.started_ms = 10_000;
        checkpoints.changed(10_050);
        assert!(!checkpoints.is_due(10_149, true));
        assert!(checkpoints.is_due(10_150, true));
        checkpoints.changed(10_990);
        assert!(!checkpoints.is_due(10_999, true));
        assert!(checkpoints.is_due(11_000, true));
        assert!(!checkpoints.is_due(69_999, false));
        assert!(checkpoints.is_due(70_000, false));
    }
}
