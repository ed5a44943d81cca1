//! Floor 2: the replicated state machine.
//!
//! A function of the log: the same entries make the same records, verdicts and sums on every
//! member, whenever checkpoints, restarts and turns happen. It knows the commands of every door
//! (v2's tree today), the clock in entries, who has asked what before, and nothing of Raft.
//!
//! ```text
//! replica --entry--> apply --> tree --> draft --commit--> store (overlay) --freeze--> checkpoint
//!                      |                                    |
//!                      +--> Done { answer } --> origin      +--> View --> doors: tree::read
//!                      +--> Change --> watch hub --> tree::event
//! ```
//!
//! Reading order: `command`, `envelope`, `outcome` (the words), `apply` (the story), `draft` and
//! `look` (what a command works with), `tree` (v2's rules), then the bookkeeping: `dedup`,
//! `deadlines`, `sums`, `history`, `state`.
//!
//! Invariants:
//! * Apply reads the entry and replicated state only: no clock, no randomness, no settings.
//! * A View never shows half an entry; a checkpoint never holds half an entry.
//! * One revision an entry, or none; only an expiry spends one on each thing that expires.
//! * After a `Fault` the machine is not used any more.
//!
//! Deliberately not here: who leads, what time it is, when to compact or to checkpoint.

mod apply;
pub mod command;
mod deadlines;
mod dedup;
mod draft;
pub mod envelope;
mod history;
mod look;
pub mod outcome;
mod state;
mod sums;
pub mod tree;

pub use command::{Command, Condition, Content, Due, Put};
pub use deadlines::Inherited;
pub use envelope::{Envelope, Principal, Proposal};
pub use history::HistorySize;
pub use outcome::{Action, Answer, Change, Event, Node, Outcome, Verdict};
pub use state::FEATURE_LEVEL;
pub use sums::Sums;
pub use tree::event::{change_of, event_of};
pub use tree::read::{Listing, get, get_at};

use crate::base::limits::APPLY_KEYS_PER_TURN;
use crate::base::{
    BootId, ClusterId, ClusterTime, Fault, LogIndex, MemberId, Revision, Sequence, Term,
};
use crate::machine::apply::Running;
use crate::machine::deadlines::Deadlines;
use crate::machine::state::State;
use crate::store::checkpoint::Checkpoint;
use crate::store::{Base, Membership, Meta, Reader, Store, View};

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

/// The state machine of one member.
pub struct Machine<B: Base> {
    store: Store<B>,
    /// Bookkeeping; its sums are those of the last entry that is done.
    state: State,
    deadlines: Deadlines,
    /// The entry in progress.
    running: Option<Running>,
    /// What the last entry was executed on, for the next one.
    reader: Option<Reader<B>>,
    /// The revision to publish with the entry in progress.
    next_revision: Revision,
    changes: Vec<Change>,
    keys_per_turn: usize,
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
            machine: State::default().encode(),
            ..Meta::default()
        };
        Self::over(Store::create(base, meta)?)
    }

    /// Opens what the last checkpoint left behind; `None` for an empty base.
    ///
    /// # Errors
    /// When the data is damaged or of a newer version, or the base fails.
    pub fn open(base: B) -> Result<Option<Self>, Fault> {
        Store::open(base)?.map(Self::over).transpose()
    }

    fn over(store: Store<B>) -> Result<Self, Fault> {
        Ok(Self {
            state: State::decode(&store.meta().machine)?,
            deadlines: Deadlines::open(&store.read()?)?,
            running: None,
            reader: None,
            next_revision: store.meta().revision,
            changes: Vec::new(),
            keys_per_turn: APPLY_KEYS_PER_TURN,
            store,
        })
    }

    /// Lets go of the database between two series of entries: an open snapshot would pin its
    /// pages, and keep it from growing.
    pub fn rest(&mut self) {
        self.reader = None;
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

    /// The cluster the data belongs to.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.store.meta().cluster
    }

    /// The member the data belongs to.
    #[must_use]
    pub fn member(&self) -> MemberId {
        self.store.meta().member
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
        self.state.clock
    }

    /// What members compare.
    #[must_use]
    pub fn sums(&self) -> Sums {
        self.state.sums
    }

    /// Whether anything can expire.
    #[must_use]
    pub fn has_deadlines(&self) -> bool {
        self.next_deadline().is_some()
    }

    /// The earliest deadline.
    #[must_use]
    pub fn next_deadline(&self) -> Option<ClusterTime> {
        self.deadlines.earliest()
    }

    /// What is due at `now`, in order of deadlines: at most `limits::EXPIRE_KEYS_PER_ENTRY`.
    #[must_use]
    pub fn due(&self, now: ClusterTime, inherited: Option<Inherited>) -> Vec<Due> {
        self.deadlines.due(now, inherited)
    }

    /// What could be compacted away.
    #[must_use]
    pub fn history(&self) -> HistorySize {
        let revisions = self.revision().0 - self.compacted().0;
        HistorySize { revisions, bytes: self.state.history.bytes() }
    }

    /// The revision to compact to so that about `bytes` of history remain; `None` if there are no
    /// more than that.
    #[must_use]
    pub fn oldest_within(&self, bytes: u64) -> Option<Revision> {
        self.state.history.oldest_within(bytes)
    }

    /// Freezes what the next checkpoint writes; `None` while one is under way, or an entry is in
    /// progress.
    pub fn freeze(&mut self) -> Option<Checkpoint<B>> {
        if self.running.is_some() || self.store.is_frozen() {
            return None;
        }
        self.store.freeze(self.state.encode())
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

#[cfg(test)]
mod bench;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod model;
