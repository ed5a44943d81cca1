//! What a leader does besides leading: the clock, expiry, compaction, leaving joint configurations.
//!
//! Each duty is a proposal like any other, so every member sees the same. They carry sequence 0:
//! nobody waits for them, and each is harmless when it happens twice (an expiry names the record
//! it means, a compaction only goes forward).
//!
//! Invariants:
//! * A duty is proposed again only after the last one of its kind was applied here.
//! * Nothing expires before the leader has applied an entry of its own term: until then it does
//!   not know what was renewed.
//! * Deadlines a leader inherits are due `limits::LEADER_GRACE_MS` after its start at the
//!   earliest; that is a floor, not an addition, so leaders that come and go do not add up.
//!
//! Sources: DESIGN decisions 8 and 11; contracts/raft.md section 5 for joint configurations.

use crate::base::limits;
use crate::base::{ClusterTime, Fault, LogIndex, Revision, Sequence};
use crate::machine::{Command, Envelope, Inherited, Proposal};
use crate::replica::Replica;
use crate::replica::clock::LeaderClock;
use crate::store::base::Base;
use raft::GetEntriesContext;

/// What ends with the leadership.
#[derive(Debug)]
pub(super) struct Leadership {
    pub(super) clock: LeaderClock,
    /// When deadlines older than this leadership may fall due.
    not_before: ClusterTime,
    /// What those are: known once an entry of its own term is applied.
    inherited: Option<Inherited>,
    expiring: LogIndex,
    compacting: LogIndex,
}

impl Leadership {
    /// An entry of this leadership is applied: what stands up to `revision` was there before.
    pub(super) fn begun(&mut self, revision: Revision) {
        let not_before = self.not_before;
        self.inherited.get_or_insert(Inherited { upto: revision, not_before });
    }
}

impl<B: Base> Replica<B> {
    /// Begins a leadership, at the last stamp of the log.
    pub(super) fn take_office(&self) -> Result<Leadership, Fault> {
        let stamp = self.last_stamp()?.max(self.machine.clock());
        Ok(Leadership {
            clock: LeaderClock::start(stamp, self.now.mono_ms),
            not_before: stamp.plus_ms(limits::LEADER_GRACE_MS),
            inherited: None,
            expiring: LogIndex(0),
            compacting: LogIndex(0),
        })
    }

    /// The stamp of the last entry that has one, among those not yet applied.
    fn last_stamp(&self) -> Result<ClusterTime, Fault> {
        let log = &self.raft.raft.raft_log;
        for index in (self.machine.applied().0 + 1..=log.last_index()).rev() {
            let entries = log.slice(index, index + 1, None, GetEntriesContext::empty(false));
            let entries = entries.map_err(|error| {
                Fault::Invariant(format!("the log does not give its entry {index}: {error}"))
            })?;
            let data = entries.first().map(|entry| &entry.data).filter(|data| !data.is_empty());
            if let Some(data) = data
                && entries.first().is_some_and(|entry| entry.context.is_empty())
            {
                return Envelope::stamp_of(data)
                    .map_err(|error| Fault::damaged("a log entry", error));
            }
        }
        Ok(ClusterTime(0))
    }

    /// Looks after everything a leader has to, once a tick.
    pub(super) fn do_duties(&mut self) {
        self.history.note(self.machine.clock(), self.machine.revision());
        if self.leading.is_none() || !self.raft.raft.apply_to_current_term() {
            return;
        }
        self.leave_joint();
        self.expire();
        self.compact_history();
        self.tell_time();
    }

    fn leave_joint(&mut self) {
        let joint = !self.machine.membership().voters_outgoing.is_empty();
        if joint && !self.raft.raft.has_pending_conf() {
            self.log_members(&[]);
        }
    }

    fn expire(&mut self) {
        let applied = self.machine.applied();
        let Some(leading) = self.leading.as_ref().filter(|it| it.expiring <= applied) else {
            return;
        };
        let (time, inherited) = (leading.clock.time(), leading.inherited);
        if self.machine.next_deadline().is_none_or(|deadline| deadline > time) {
            return;
        }
        let due = self.machine.due(time, inherited);
        if !due.is_empty()
            && let Some(index) = self.log_duty(Command::Expire(due))
            && let Some(leading) = &mut self.leading
        {
            leading.expiring = index;
        }
    }

    fn compact_history(&mut self) {
        let (applied, revision) = (self.machine.applied(), self.machine.revision());
        let compacted = self.machine.compacted();
        let excess = self.machine.history().bytes > limits::HISTORY_BYTES_MAX;
        let within_bytes = self.machine.oldest_within(limits::HISTORY_BYTES_LEFT);
        let Some(leading) = self.leading.as_ref().filter(|it| it.compacting <= applied) else {
            return;
        };
        let (time, within_bytes) = (leading.clock.time(), within_bytes.filter(|_| excess));
        let upto = self.history.compaction(time, revision, compacted, within_bytes);
        if let Some(upto) = upto
            && let Some(index) = self.log_duty(Command::Compact { upto })
            && let Some(leading) = &mut self.leading
        {
            leading.compacting = index;
        }
    }

    fn tell_time(&mut self) {
        let silent = self.leading.as_ref().is_some_and(|leading| leading.clock.is_silent());
        if silent && self.machine.has_deadlines() {
            self.log_duty(Command::Clock);
        }
    }

    /// Proposes a command of the leader's own; gives its index.
    fn log_duty(&mut self, command: Command) -> Option<LogIndex> {
        let proposal = Proposal {
            origin: self.config.member,
            boot: self.config.boot,
            sequence: Sequence(0),
            trace: 0,
            principal: None,
            commands: vec![command],
        };
        let entries = self.seal(std::iter::once(&proposal.encode().into()));
        self.log_entries(entries).then(|| LogIndex(self.raft.raft.raft_log.last_index()))
    }
}
