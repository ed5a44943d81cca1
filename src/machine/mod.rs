//! Floor 2: the replicated state machine.
pub mod command;
pub mod envelope;
pub mod outcome;

pub use command::{Command, Condition, Content, Due, Put};
pub use envelope::{Envelope, Principal, Proposal};
pub use outcome::{Action, Answer, Change, Event, Node, Outcome, Verdict};

use crate::base::codec::Malformed;
use crate::base::{
    BootId, ClusterId, ClusterTime, Fault, LogIndex, MemberId, Rejected, Revision, Sequence, Term,
};
use crate::store::checkpoint::Checkpoint;
use crate::store::{Base, Membership, Meta, Store, View};
use bytes::Bytes;

/// How the first member of a cluster begins: what every member's log begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genesis {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member whose data this is.
    pub member: MemberId,
    /// Who votes at the beginning.
    pub membership: Membership,
    /// The entry the empty store stands for.
    pub index: LogIndex,
    /// That entry's term.
    pub term: Term,
}

/// Whether an entry is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The entry needs another turn: call `Machine::resume`.
    More,
    /// The entry is applied and published.
    Done(Done),
}

/// An applied entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The entry.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// The proposal it carried; `None` for a no-op or a membership change.
    pub origin: Option<(MemberId, BootId, Sequence)>,
    /// What to tell the origin's client; `None` for a no-op or a membership change.
    pub answer: Option<Answer>,
}

/// What members compare at equal index and feature level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Over every entry's writes so far, in order.
    pub chain: u64,
    /// Over the live records, in any order.
    pub live: u64,
}

/// What could be compacted away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistorySize {
    /// Revisions behind the compacted one.
    pub revisions: u64,
    /// Bytes of their records, roughly.
    pub bytes: u64,
}

/// The deadlines a new leader found, which it gives a grace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited {
    /// The revision at which it became leader: records up to here are inherited.
    pub upto: Revision,
    /// None of them is due before this.
    pub not_before: ClusterTime,
}

/// The state machine of one member.
pub struct Machine<B: Base> {
    store: Store<B>,
    clock: ClusterTime,
    changes: Vec<Change>,
}

impl<B: Base> Machine<B> {
    /// Makes an empty store at revision 1.
    ///
    /// # Errors
    /// When the base is not empty, or fails.
    pub fn create(base: B, genesis: Genesis) -> Result<Self, Fault> {
        let meta = Meta {
            cluster: genesis.cluster,
            member: genesis.member,
            applied: genesis.index,
            applied_term: genesis.term,
            revision: Revision(1),
            membership: genesis.membership,
            ..Meta::default()
        };
        let store = Store::create(base, meta)?;
        Ok(Self { store, clock: ClusterTime(0), changes: Vec::new() })
    }

    /// Opens what the last checkpoint left behind; `None` for an empty base.
    ///
    /// # Errors
    /// When the data is damaged or of a newer version, or the base fails.
    pub fn open(base: B) -> Result<Option<Self>, Fault> {
        let store = Store::open(base)?;
        Ok(store.map(|store| Self { store, clock: ClusterTime(0), changes: Vec::new() }))
    }

    /// Applies an entry; empty data is a leader's no-op.
    ///
    /// # Errors
    /// When the entry cannot be read, is out of order, or the base fails: the member must stop.
    pub fn apply(&mut self, index: LogIndex, term: Term, entry: &[u8]) -> Result<Progress, Fault> {
        if entry.is_empty() {
            self.store.publish(index, term, self.revision());
            return Ok(Progress::Done(Done { index, term, origin: None, answer: None }));
        }
        let envelope = Envelope::open(entry).map_err(|error| match error {
            Malformed::NewerFormat { .. } => Fault::TooNew(error.to_string()),
            error => Fault::damaged("a log entry", error),
        })?;
        self.clock = self.clock.max(envelope.stamp);
        self.store.publish(index, term, self.revision());
        let proposal = envelope.proposal;
        let verdict = match proposal.commands.as_slice() {
            [Command::Clock] => Ok(vec![Outcome::Ticked]),
            _ => Err(Rejected::Invalid { cause: "not built yet".into() }),
        };
        let answer = Answer { verdict, revision: self.revision(), index, term };
        let origin = Some((proposal.origin, proposal.boot, proposal.sequence));
        Ok(Progress::Done(Done { index, term, origin, answer: Some(answer) }))
    }

    /// Applies a change of members.
    ///
    /// # Errors
    /// As `apply`.
    pub fn apply_membership(
        &mut self,
        index: LogIndex,
        term: Term,
        membership: Membership,
    ) -> Result<Progress, Fault> {
        self.store.meta_mut().membership = membership;
        self.store.publish(index, term, self.revision());
        Ok(Progress::Done(Done { index, term, origin: None, answer: None }))
    }

    /// The next turn of an entry that said `More`.
    ///
    /// # Errors
    /// As `apply`.
    pub fn resume(&mut self) -> Result<Progress, Fault> {
        Err(Fault::Invariant("resume without an entry in progress".into()))
    }

    /// Changes of the entries that became done since the last call, in order.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// The published state.
    #[must_use]
    pub fn view(&self) -> View<B> {
        self.store.view()
    }

    /// The last entry that is done.
    #[must_use]
    pub fn applied(&self) -> LogIndex {
        self.store.meta().applied
    }

    /// Its term.
    #[must_use]
    pub fn applied_term(&self) -> Term {
        self.store.meta().applied_term
    }

    /// The published revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.store.meta().revision
    }

    /// The oldest revision that can be read.
    #[must_use]
    pub fn compacted(&self) -> Revision {
        self.store.meta().compacted
    }

    /// The members, as of the last entry that is done.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.store.meta().membership
    }

    /// The newest stamp applied.
    #[must_use]
    pub fn clock(&self) -> ClusterTime {
        self.clock
    }

    /// What members compare.
    #[must_use]
    pub fn sums(&self) -> Sums {
        Sums::default()
    }

    /// Whether anything can expire.
    #[must_use]
    pub fn has_deadlines(&self) -> bool {
        self.next_deadline().is_some()
    }

    /// The earliest deadline.
    #[must_use]
    pub fn next_deadline(&self) -> Option<ClusterTime> {
        None
    }

    /// What is due at `now`, in order of deadlines: at most `limits::EXPIRE_KEYS_PER_ENTRY`.
    #[must_use]
    pub fn due(&self, _now: ClusterTime, _inherited: Option<Inherited>) -> Vec<Due> {
        Vec::new()
    }

    /// What could be compacted away.
    #[must_use]
    pub fn history(&self) -> HistorySize {
        let revisions = self.revision().0 - self.compacted().0;
        HistorySize { revisions, bytes: 0 }
    }

    /// Freezes what the next checkpoint writes; `None` while one is under way, or an entry is in
    /// progress.
    pub fn freeze(&mut self) -> Option<Checkpoint<B>> {
        self.store.freeze(Bytes::new())
    }

    /// Forgets the frozen generation, whose checkpoint is durable now.
    pub fn thaw(&mut self) {
        self.store.thaw();
    }

    /// Memory held by records that are not yet in the base.
    #[must_use]
    pub fn overlay_bytes(&self) -> usize {
        self.store.overlay_bytes()
    }

    /// Bytes the next checkpoint would write.
    #[must_use]
    pub fn active_bytes(&self) -> usize {
        self.store.active_bytes()
    }

    /// Whether a checkpoint is under way.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.store.is_frozen()
    }
}
