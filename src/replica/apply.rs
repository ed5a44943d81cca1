//! Committed entries, fed to the state machine in order.
//!
//! A turn applies a bounded number of entries, and of an entry that touches many keys only a part
//! (`machine::Progress::More`), so that ticks and heartbeats come in between. Membership changes
//! take effect in Raft at the very point where they are applied here, never earlier.
//!
//! Invariants: entries are applied once and in order; what an entry's effects are depends on the
//! entry and the state only; a change Raft refuses is an entry without effect.

use crate::base::Rejected;
use crate::base::limits;
use crate::base::{Fault, LogIndex, Term};
use crate::machine::{Answer, Done, Progress};
use crate::replica::Replica;
use crate::replica::members::{self, Proposed};
use crate::replica::words::{ChangeId, MemberChange, Unchanged};
use crate::store::Membership;
use crate::store::base::Base;
use raft::eraftpb::{Entry, EntryType};

impl<B: Base> Replica<B> {
    /// Gets on with the backlog for one turn.
    pub(super) fn apply_turn(&mut self) -> Result<(), Fault> {
        for _ in 0..limits::APPLY_ENTRIES_PER_TURN {
            let Some(entry) = self.backlog.front() else { break };
            let progress = match (self.mid_entry, entry.entry_type) {
                (true, _) => self.machine.resume()?,
                (false, EntryType::EntryNormal) => {
                    self.machine.apply(LogIndex(entry.index), Term(entry.term), &entry.data)?
                }
                (false, EntryType::EntryConfChangeV2) => {
                    let entry = entry.clone();
                    self.apply_members(&entry)?
                }
                (false, EntryType::EntryConfChange) => {
                    let what = format!("entry {} is of a kind nobody writes", entry.index);
                    return Err(Fault::Invariant(what));
                }
            };
            self.mid_entry = progress == Progress::More;
            let Progress::Done(done) = progress else { break };
            self.backlog.pop_front();
            self.entry_done(done);
        }
        self.machine.rest();
        self.checkpoints.changed(self.now.mono_ms);
        self.tell_raft_applied();
        Ok(())
    }

    fn entry_done(&mut self, done: Done) {
        if let Some((origin, boot, sequence)) = done.origin
            && (origin, boot) == (self.config.member, self.config.boot)
        {
            let lost = |answer: &Answer| answer.verdict == Err(Rejected::OutcomeUnknown);
            self.pending.applied(sequence, done.answer.filter(|answer| !lost(answer)));
        }
        if let Some(leading) = self.leading.as_mut().filter(|_| done.term == self.role.term) {
            leading.begun(self.machine.revision());
        }
        if self.changing.is_some_and(|change| change.index <= done.index) {
            // The change's own entry ends it in `apply_members`: here stands another one.
            self.end_change(Err(Unchanged::Busy));
        }
    }

    fn apply_members(&mut self, entry: &Entry) -> Result<Progress, Fault> {
        let changes = members::decode(&entry.context)?;
        let outcome = self.raft.apply_conf_change(&members::to_raft(&changes));
        let (index, term) = (LogIndex(entry.index), Term(entry.term));
        let mine = self.changing.is_some_and(|it| (it.index, it.term) == (index, term));
        let membership = match outcome {
            Ok(state) => {
                self.raft.mut_store().set_conf_state(state.clone());
                Membership::from_conf_state(&state)
            }
            Err(_) => self.machine.membership().clone(),
        };
        if mine {
            let refused = Unchanged::Invalid("the members changed meanwhile");
            let changed = membership != *self.machine.membership();
            self.end_change(if changed { Ok(index) } else { Err(refused) });
        }
        self.machine.apply_membership(index, term, membership)
    }

    fn end_change(&mut self, outcome: Result<LogIndex, Unchanged>) {
        if let Some(change) = self.changing.take() {
            self.members_changed.push((change.id, outcome));
        }
    }

    /// Proposes a membership change, or says why not.
    pub(super) fn change_members(&mut self, id: ChangeId, changes: &[MemberChange]) {
        let proposed = self.propose_change(id, changes);
        match proposed {
            Ok(proposed) => self.changing = Some(proposed),
            Err(refused) => self.members_changed.push((id, Err(refused))),
        }
    }

    fn propose_change(
        &mut self,
        id: ChangeId,
        changes: &[MemberChange],
    ) -> Result<Proposed, Unchanged> {
        if !self.is_leader() {
            return Err(Unchanged::NotLeader(self.role.leader));
        }
        if self.changing.is_some() || self.raft.raft.has_pending_conf() {
            return Err(Unchanged::Busy);
        }
        members::check(self.machine.membership(), self.config.member, changes)?;
        if !self.log_members(changes) {
            return Err(Unchanged::Busy);
        }
        let raft = &self.raft.raft;
        let (index, term) = (LogIndex(raft.raft_log.last_index()), Term(raft.term));
        Ok(Proposed { id, index, term })
    }

    /// Puts a membership entry into the leader's log; no change at all ends a joint one.
    pub(super) fn log_members(&mut self, changes: &[MemberChange]) -> bool {
        let context = members::encode(changes);
        self.raft.propose_conf_change(context, members::to_raft(changes)).is_ok()
    }
}
