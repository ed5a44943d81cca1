//! Floor 3: consensus. One member of the cluster as a function from inputs to outputs.
//!
//! **What.** `Replica` holds Raft (`raft` 0.7 behind `RawNode`), the log in memory, and the state
//! machine, and decides: what goes to the disk, to peers, to clients, and when. **Why sans-io.** It
//! knows no clock, thread, socket or file, so a whole cluster of the real code runs in one thread
//! of a test, with faults, thousands of times faster than life, and a failing seed replays exactly.
//!
//! **How data passes.** A request waits in `pending` until there is a leader; the leader stamps it
//! with cluster time (`clock`) and proposes each batch as one message. `ready` takes Raft's
//! answers apart: messages leave, entries gather in log `jobs`, committed entries go to `apply`,
//! which feeds the state machine, publishes the View and ends the requests. `reads` asks the
//! leader how far the log is committed. `duties` is the leader's housekeeping (clock, expiry,
//! compaction, joint configurations); `checkpoint` and `snapshot` look after the base.
//!
//! ```text
//! Propose ─► pending ─► [leader: stamp] ─► raft ─► jobs ─► WriteLog … LogDone ─► raft ─► apply
//!                 └──► Forward to the leader                                   Publish, Answer ◄┘
//! ```
//!
//! Invariants:
//! * Persist before send: a promise about the log leaves after the flush that makes it true
//!   (`jobs`); a leader's appends may leave earlier, but never ahead of its own term or vote.
//! * Publish before reply: an answer follows the View that shows it, in one call's outputs.
//! * Same state, same inputs, same outputs: nothing here depends on anything else. Raft's random
//!   election timeouts are overwritten by a function of (seed, member, term, role).
//! * Raft never sees a message type that only this process may make (`admit_message`).
//! * After a fault nothing comes out any more.
//!
//! **Not here:** what a command means (`machine`), bytes on the wire, retry of lost connections,
//! which members to have (`node`). Raft's own invariant breaks are panics: the driver catches them
//! at the top of its thread and ends the process.
//!
//! Sources: Ongaro, "Consensus: Bridging Theory and Practice"; contracts/raft.md; the raft 0.7.0
//! sources (`raw_node.rs`, `raft.rs`).

mod apply;
mod checkpoint;
mod clock;
mod duties;
mod history;
mod jobs;
mod members;
mod open;
mod pending;
mod reads;
mod ready;
mod route;
mod snapshot;
#[cfg(test)]
mod tests;
pub mod words;

pub use words::*;

use crate::base::{Fault, LogIndex, Term};
use crate::machine::Machine;
use crate::store::base::Base;
use crate::store::log::Log;
use crate::store::{Membership, View};
use checkpoint::Checkpoints;
use duties::Leadership;
use history::HistoryNotes;
use jobs::Jobs;
use members::Proposed;
use pending::Pending;
use raft::eraftpb::Entry;
use raft::{RawNode, StateRole};
use reads::Reads;
use snapshot::Shelf;
use std::collections::VecDeque;

/// One member of the cluster.
pub struct Replica<B: Base> {
    config: Config,
    /// The time of the input at hand.
    now: Now,
    raft: RawNode<Log>,
    machine: Machine<B>,
    jobs: Jobs,
    /// Committed and not yet applied.
    backlog: VecDeque<Entry>,
    /// The entry in front of `backlog` began and needs more turns.
    mid_entry: bool,
    published: LogIndex,
    pending: Pending,
    reads: Reads,
    role: RoleChange,
    leading: Option<Leadership>,
    changing: Option<Proposed>,
    members_changed: Vec<(ChangeId, Result<LogIndex, Unchanged>)>,
    history: HistoryNotes,
    checkpoints: Checkpoints,
    shelf: Shelf,
    /// A received snapshot that waits for the log and the base to be at rest.
    received: Option<snapshot::Received<B>>,
    /// Raft took no more entries: no use in trying before something is durable, or the next tick.
    held_back: bool,
    ticked: bool,
    failed: bool,
}

impl<B: Base> Replica<B> {
    /// Takes one input and says what to do. Never blocks.
    ///
    /// # Panics
    /// When Raft finds one of its invariants broken: end the process.
    pub fn handle(&mut self, now: Now, input: Input<B>, out: &mut Vec<Output<B>>) {
        if self.failed {
            return;
        }
        assert!(now.mono_ms >= self.now.mono_ms, "the monotonic clock went back");
        self.now = now;
        if let Some(leading) = &mut self.leading {
            leading.clock.advance(now.mono_ms);
        }
        if let Err(fault) = self.react(input, out).and_then(|()| self.settle(out)) {
            self.failed = true;
            out.push(Output::Fault(fault));
        }
    }

    /// What the input itself changes.
    fn react(&mut self, input: Input<B>, out: &mut Vec<Output<B>>) -> Result<(), Fault> {
        let now_ms = self.now.mono_ms;
        match input {
            Input::Tick => self.tick(out),
            Input::Continue => {}
            Input::Peer(from, message) => self.receive(from, message, out)?,
            Input::Propose(requests) => self.pending.admit(requests, now_ms),
            Input::Read(ids) => self.reads.admit(ids, now_ms),
            Input::LogDone(job) => self.log_done(job, out),
            Input::CheckpointDone(written) => self.checkpoint_done(written, out)?,
            Input::SnapshotBuilt(id) => self.snapshot_built(id, out),
            Input::SnapshotFailed(id) => self.shelf.failed(id),
            Input::SnapshotSent { to, complete } => self.snapshot_sent(to, complete),
            Input::SnapshotReceived { message, base } => self.park_received(message, base, out),
            Input::ChangeMembers(id, changes) => self.change_members(id, &changes),
            Input::TransferLeadership(to) if self.is_leader() => self.raft.transfer_leader(to.0),
            Input::TransferLeadership(_) => {}
            Input::Unreachable(peer) => self.raft.report_unreachable(peer.0),
        }
        Ok(())
    }

    fn tick(&mut self, out: &mut Vec<Output<B>>) {
        let alone = self.is_only_voter();
        // A sole voter elects itself inside the tick, and raft 0.7 asserts that its log is durable
        // by then.
        let log = &self.raft.raft.raft_log;
        let durable = log.last_index() == log.persisted;
        if self.raft.raft.state == StateRole::Leader || !alone || durable {
            self.raft.tick();
        }
        if !self.ticked && alone {
            // Nobody else could vote: there is nothing to wait for.
            let _ = self.raft.campaign();
        }
        self.ticked = true;
        let now_ms = self.now.mono_ms;
        self.held_back = false;
        self.pending.look_again();
        self.pending.expire(now_ms, self.role.leader.is_some());
        self.reads.expire(now_ms);
        self.do_duties();
        self.checkpoint_if_due(out);
        self.tidy_shelf(out);
    }

    /// What follows from the input: goes on until nothing is left that can be done now.
    fn settle(&mut self, out: &mut Vec<Output<B>>) -> Result<(), Fault> {
        let mut may_apply = true;
        loop {
            self.note_role(out)?;
            self.send_requests(out);
            self.ask_for_reads();
            if self.raft.has_ready() {
                self.take_ready(out)?;
            } else if may_apply && self.wants_turn() {
                self.apply_turn()?;
                may_apply = false;
            } else if !self.install_received(out) {
                break;
            }
        }
        self.checkpoint_under_pressure(out);
        self.look_after_snapshots(out);
        self.tell(out);
        self.reseed();
        if let Some((job, batch)) = self.jobs.start() {
            out.push(Output::WriteLog { job, batch });
        }
        Ok(())
    }

    /// Publishes, and then says what became of whom.
    fn tell(&mut self, out: &mut Vec<Output<B>>) {
        let applied = self.machine.applied();
        if applied > self.published {
            self.published = applied;
            let (view, changes) = (self.machine.view(), self.machine.take_changes());
            out.push(Output::Publish { view, changes });
        }
        let ends = self.pending.take_ends().into_iter();
        out.extend(ends.map(|(sequence, outcome)| Output::Answer { sequence, outcome }));
        let ids = self.reads.take_ready(applied);
        if !ids.is_empty() {
            out.push(Output::ReadReady { ids, applied });
        }
        let failed = self.reads.take_failed();
        if !failed.is_empty() {
            out.push(Output::ReadFailed(failed));
        }
        let changed = self.members_changed.drain(..);
        out.extend(changed.map(|(id, outcome)| Output::MembersChanged { id, outcome }));
    }

    /// Notices who leads now. Everything that hangs on leadership begins and ends here.
    fn note_role(&mut self, out: &mut Vec<Output<B>>) -> Result<(), Fault> {
        let role = self.current_role();
        if role == self.role {
            return Ok(());
        }
        let same_office = (role.role, role.leader, role.term)
            == (self.role.role, self.role.leader, self.role.term);
        self.role = role;
        out.push(Output::Role(role));
        if same_office {
            return Ok(());
        }
        self.leading = None;
        if role.role == Role::Leader {
            self.leading = Some(self.take_office()?);
        }
        if let Some(lost) = self.changing.take_if(|change| change.term != role.term) {
            self.members_changed.push((lost.id, Err(Unchanged::Unknown)));
        }
        self.pending.look_again();
        self.reads.forget_round();
        Ok(())
    }

    fn current_role(&self) -> RoleChange {
        let raft = &self.raft.raft;
        let role = match raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Follower => Role::Follower,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
        };
        let leads = role == Role::Leader;
        RoleChange {
            role,
            leader: member(raft.leader_id),
            term: Term(raft.term),
            reads_alone: leads && self.is_only_voter() && raft.apply_to_current_term(),
        }
    }

    fn is_only_voter(&self) -> bool {
        self.raft.raft.prs().is_singleton() && self.raft.raft.promotable()
    }

    fn is_leader(&self) -> bool {
        self.raft.raft.state == StateRole::Leader
    }

    /// Raft draws its election timeouts from the thread's random numbers, which no seed replays:
    /// this overwrites whatever it drew. It is looked at in the next tick only.
    fn reseed(&mut self) {
        let raft = &mut self.raft.raft;
        let mut mixed = self.config.seed;
        for part in [self.config.member.0, raft.term, raft.state as u64] {
            mixed = mix(mixed ^ part);
        }
        let ticks = crate::base::limits::ELECTION_TICKS;
        let jitter = usize::try_from(mixed % ticks as u64).unwrap_or(0);
        raft.set_randomized_election_timeout(ticks + jitter);
    }

    /// Whether an `Input::Continue` would get on with something.
    #[must_use]
    pub fn wants_turn(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// The published state: for readers, before the first `Publish`.
    #[must_use]
    pub fn view(&self) -> View<B> {
        self.machine.view()
    }

    /// The state machine, for what only looks: sums, membership, clock.
    #[must_use]
    pub fn machine(&self) -> &Machine<B> {
        &self.machine
    }

    /// The members, as of the last entry applied.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        self.machine.membership()
    }

    /// What the status page, metrics and autopilot ask.
    #[must_use]
    pub fn status(&self) -> Status {
        let log = &self.raft.raft.raft_log;
        let others = self.raft.raft.prs().iter().filter(|(id, _)| **id != self.config.member.0);
        let mut matched: Vec<_> = others
            .filter(|_| self.is_leader())
            .map(|(id, progress)| (crate::base::MemberId(*id), LogIndex(progress.matched)))
            .collect();
        matched.sort_unstable();
        Status {
            role: self.current_role(),
            committed: LogIndex(log.committed),
            applied: self.machine.applied(),
            last: LogIndex(log.last_index()),
            revision: self.machine.revision(),
            matched,
            proposals_waiting: self.pending.len(),
            reads_waiting: self.reads.len(),
        }
    }
}

/// Raft's 0 is nobody.
fn member(id: u64) -> Option<crate::base::MemberId> {
    (id != raft::INVALID_ID).then_some(crate::base::MemberId(id))
}

/// Steele et al.'s SplitMix64 step: spreads small numbers over 64 bits.
fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
