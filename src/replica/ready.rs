//! Raft's answers, taken apart in the one order that keeps its promises.
//!
//! `take_ready` follows contracts/raft.md section 1 row by row: role (row 1, `note_role` right
//! after), read states, messages, snapshot, committed entries, entries and hard state, messages
//! that wait for the disk. `log_done` is row 9.
//!
//! Invariant: nothing else of Raft is called between `ready` and `advance_append_async`.

use crate::base::{Fault, LogIndex, MemberId, Term};
use crate::replica::Replica;
use crate::replica::jobs::Addition;
use crate::replica::words::{JobId, Output, PeerMessage};
use crate::store::base::Base;
use crate::store::wal::LogBatch;
use raft::Ready;
use raft::eraftpb::{Message, MessageType};

impl<B: Base> Replica<B> {
    pub(super) fn take_ready(&mut self, out: &mut Vec<Output<B>>) -> Result<(), Fault> {
        let mut ready = self.raft.ready();
        self.reads.answered(&ready.take_read_states());
        let eager = ready.take_messages();
        let mut held = ready.take_persisted_messages();
        let snapshot = self.install(&ready, out)?;
        self.backlog.extend(ready.take_committed_entries());
        let number = ready.number();
        self.append(&mut ready, snapshot);
        self.raft.advance_append_async(ready);

        if self.jobs.vote_in_doubt() {
            held.splice(..0, eager);
        } else {
            self.send(eager, out);
        }
        if let Some(free) = self.jobs.hold(number, held) {
            self.raft.on_persist_ready(number);
            self.send(free, out);
        }
        Ok(())
    }

    /// Entries and hard state: visible to Raft at once, durable with their job.
    fn append(&mut self, ready: &mut Ready, snapshot: Option<(LogIndex, Term)>) {
        let (must_flush, hard_state) = (ready.must_sync(), ready.hs().cloned());
        let entries = ready.take_entries();
        let log = self.raft.mut_store();
        let old = log.hard_state();
        let changes_vote =
            hard_state.as_ref().is_some_and(|new| (new.term, new.vote) != (old.term, old.vote));
        log.append(&entries);
        if let Some(hard_state) = &hard_state {
            log.set_hard_state(hard_state.clone());
        }
        let batch = LogBatch { snapshot, entries, hard_state };
        self.jobs.add(Addition { batch, must_flush, changes_vote });
    }

    /// A job is durable: Raft learns it, and what waited for it leaves.
    pub(super) fn log_done(&mut self, job: JobId, out: &mut Vec<Output<B>>) {
        let Some(job) = self.jobs.done(job) else { return };
        self.held_back = false;
        if job.through > 0 {
            self.raft.on_persist_ready(job.through);
        }
        self.tell_raft_applied();
        self.send(job.messages, out);
    }

    /// Raft may know that this much is applied, once it knows that it is durable.
    pub(super) fn tell_raft_applied(&mut self) {
        let applied = self.machine.applied().0;
        let log = &self.raft.raft.raft_log;
        if applied > log.applied && applied <= log.persisted {
            self.raft.advance_apply_to(applied);
        }
    }

    fn send(&mut self, messages: Vec<Message>, out: &mut Vec<Output<B>>) {
        for message in messages {
            if message.get_msg_type() == MessageType::MsgSnapshot {
                self.send_snapshot(message, out);
            } else {
                let to = MemberId(message.to);
                out.push(Output::Send(to, PeerMessage::Raft(Box::new(message))));
            }
        }
    }
}
