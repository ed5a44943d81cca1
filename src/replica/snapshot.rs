//! Snapshots: for a peer whose next entry is no longer in the log.
//!
//! **Sending.** Raft asks the log for a snapshot and is told to wait; a checkpoint makes the base
//! current, the driver makes a stream of it, and from then on the log hands out its place
//! (`SnapshotId`). Raft's message goes to the driver, which sends the stream and then the message,
//! and reports exactly once how that went. **Receiving.** The driver loads the stream into a new
//! base; when log and base of this member are at rest, the message goes to Raft; if Raft takes it,
//! the new base becomes the base, the log restarts behind it, and the marker in the WAL is durable
//! before anything later is.
//!
//! Invariants: one stream is kept; it is not replaced while it is being sent; while it is kept the
//! log behind it is kept too, up to `limits::LOG_HELD_BYTES_MAX`.
//!
//! Sources: contracts/raft.md section 4; etcd-io/etcd issue 10219 (marker before release).

use crate::base::limits;
use crate::base::{Fault, LogIndex, MemberId, Term};
use crate::machine::Machine;
use crate::replica::Replica;
use crate::replica::words::{Output, SnapshotId};
use crate::store::Membership;
use crate::store::base::Base;
use raft::eraftpb::{Message, MessageType, Snapshot};
use raft::{Ready, SnapshotStatus};
use std::collections::BTreeSet;

/// A snapshot on its way in.
pub(super) struct Received<B: Base> {
    message: Option<Box<Message>>,
    base: B,
}

/// The stream that is being built, and the one that is ready.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    wanted: bool,
    building: Option<(SnapshotId, Membership)>,
    ready: Option<SnapshotId>,
    sending: BTreeSet<MemberId>,
    used_ms: u64,
}

impl Shelf {
    pub(super) fn is_building(&self) -> bool {
        self.building.is_some()
    }

    /// What the log must not forget: everything behind this.
    pub(super) fn holds_log_from(&self) -> Option<LogIndex> {
        let building = self.building.as_ref().map(|(id, _)| id.index);
        let ready = self.ready.map(|id| id.index);
        building.into_iter().chain(ready).min()
    }

    pub(super) fn failed(&mut self, id: SnapshotId) {
        self.building.take_if(|(building, _)| *building == id);
    }
}

impl<B: Base> Replica<B> {
    /// Gets on with a snapshot Raft asked for.
    pub(super) fn look_after_snapshots(&mut self, out: &mut Vec<Output<B>>) {
        self.shelf.wanted |= self.raft.store().take_snapshot_request();
        let free = self.shelf.building.is_none() && self.shelf.sending.is_empty();
        if !self.shelf.wanted || !free || self.checkpoints.is_running() {
            return;
        }
        let (durable, membership) = self.checkpoints.durable();
        if durable.index < self.machine.applied() {
            self.start_checkpoint(out);
        } else if durable.index > LogIndex(0) {
            self.shelf.wanted = false;
            self.shelf.building = Some((*durable, membership.clone()));
            out.push(Output::BuildSnapshot(*durable));
        }
    }

    /// A stream is complete: the log may hand it out.
    pub(super) fn snapshot_built(&mut self, id: SnapshotId, out: &mut Vec<Output<B>>) {
        let built = self.shelf.building.take_if(|(building, _)| *building == id);
        let Some((id, membership)) = built else { return };
        if let Some(old) = self.shelf.ready.replace(id) {
            out.push(Output::DropSnapshot(old));
        }
        self.shelf.used_ms = self.now.mono_ms;
        // Raft went on asking meanwhile: this is the answer.
        self.raft.store().take_snapshot_request();
        self.shelf.wanted = false;
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (id.index.0, id.term.0);
        metadata.set_conf_state(membership.to_conf_state());
        self.raft.mut_store().offer_snapshot(snapshot);
    }

    /// Hands a peer's snapshot to the driver. Raft's message may have waited for a flush, and its
    /// stream may be gone by now: then Raft hears that it failed, and asks again.
    pub(super) fn send_snapshot(&mut self, message: Message, out: &mut Vec<Output<B>>) {
        let metadata = message.get_snapshot().get_metadata();
        let snapshot = SnapshotId { index: LogIndex(metadata.index), term: Term(metadata.term) };
        let to = MemberId(message.to);
        if self.shelf.ready != Some(snapshot) {
            self.raft.report_snapshot(to.0, SnapshotStatus::Failure);
            return;
        }
        self.shelf.sending.insert(to);
        self.shelf.used_ms = self.now.mono_ms;
        out.push(Output::SendSnapshot { to, snapshot, message: Box::new(message) });
    }

    /// A stream was sent, or given up: Raft must hear it, or the peer waits for ever.
    pub(super) fn snapshot_sent(&mut self, to: MemberId, complete: bool) {
        self.shelf.sending.remove(&to);
        self.shelf.used_ms = self.now.mono_ms;
        let status = if complete { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.raft.report_snapshot(to.0, status);
    }

    /// Lets go of a stream that nobody wants any more.
    pub(super) fn tidy_shelf(&mut self, out: &mut Vec<Output<B>>) {
        let unused_ms = self.now.mono_ms.saturating_sub(self.shelf.used_ms);
        if unused_ms < limits::SNAPSHOT_KEEP_MS || !self.shelf.sending.is_empty() {
            return;
        }
        if let Some(old) = self.shelf.ready.take() {
            self.raft.mut_store().withdraw_snapshot();
            out.push(Output::DropSnapshot(old));
        }
    }

    /// Keeps a received snapshot until it can be installed; a newer one takes its place.
    pub(super) fn park_received(
        &mut self,
        message: Box<Message>,
        base: B,
        out: &mut Vec<Output<B>>,
    ) {
        let proper = message.get_msg_type() == MessageType::MsgSnapshot
            && message.to == self.config.member.0;
        let discarded = if proper {
            self.received.replace(Received { message: Some(message), base }).map(|old| old.base)
        } else {
            Some(base)
        };
        out.extend(discarded.map(|base| Output::DiscardSnapshot { base }));
    }

    /// Gives a parked snapshot to Raft once nothing else is under way. True when it did.
    pub(super) fn install_received(&mut self, out: &mut Vec<Output<B>>) -> bool {
        let at_rest = self.jobs.is_idle()
            && self.backlog.is_empty()
            && !self.checkpoints.is_running()
            && !self.shelf.is_building();
        let waiting = self.received.as_mut().filter(|_| at_rest);
        let Some(message) = waiting.and_then(|received| received.message.take()) else {
            return false;
        };
        let _ = self.raft.step(*message);
        if self.raft.snap().is_none() {
            // Stale: the log got there by itself, or the sender leads no more.
            let base = self.received.take().map(|received| received.base);
            out.extend(base.map(|base| Output::DiscardSnapshot { base }));
        }
        true
    }

    /// Row 4 of the Ready: the new base becomes the base. Gives the marker for the WAL.
    pub(super) fn install(
        &mut self,
        ready: &Ready,
        out: &mut Vec<Output<B>>,
    ) -> Result<Option<(LogIndex, Term)>, Fault> {
        let metadata = ready.snapshot().get_metadata();
        if metadata.index == 0 {
            return Ok(None);
        }
        let (index, term) = (LogIndex(metadata.index), Term(metadata.term));
        let Some(Received { base, .. }) = self.received.take() else {
            return Err(Fault::Invariant(format!("no base came with the snapshot at {index}")));
        };
        let machine = Machine::open(base.clone())?
            .filter(|machine| (machine.applied(), machine.applied_term()) == (index, term))
            .ok_or_else(|| Fault::Damaged {
                what: format!("the base received for the snapshot at {index} is of another state"),
            })?;
        assert!(index > self.machine.applied(), "a snapshot at {index} goes back");
        self.machine = machine;
        let conf_state = metadata.get_conf_state().clone();
        self.raft.mut_store().restore(index, term, conf_state);
        self.base_replaced();
        if let Some(old) = self.shelf.ready.take() {
            out.push(Output::DropSnapshot(old));
        }
        // The View goes out with the base; `tell` has nothing to add.
        self.published = index;
        out.push(Output::InstallSnapshot { base, view: self.machine.view() });
        Ok(Some((index, term)))
    }
}
