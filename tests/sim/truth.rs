//! What the members claim, held against each other: one function for each promise.
//!
//! The first member to publish a record or a state at an index sets the truth; every other must
//! say the same, at any time, also after crashes. A breach is a sentence; the world stops at the
//! first one.

use crate::clients::{Client, Record as Told};
use althing::base::{LogIndex, MemberId, Revision, Term};
use althing::machine::{Action, Change, Sums};
use althing::store::Position;
use std::collections::BTreeMap;

/// A breach of a promise.
pub(crate) type Breach = String;

/// Clock rates differ from true time by at most this many parts in a million.
pub(crate) const DRIFT_PPM_MAX: u64 = 50_000;

/// What has been published so far, by whomever.
#[derive(Default)]
pub(crate) struct Truth {
    records: BTreeMap<Position, u64>,
    states: BTreeMap<LogIndex, (Revision, Sums)>,
    leaders: BTreeMap<Term, MemberId>,
    /// Keys with a time to live: when the request was made, and for how long.
    mortal: BTreeMap<Vec<u8>, (u64, u64)>,
    pub(crate) expired: u64,
}

impl Truth {
    /// A term has one leader.
    pub(crate) fn a_term_has_one_leader(
        &mut self,
        term: Term,
        leader: MemberId,
    ) -> Result<(), Breach> {
        let first = *self.leaders.entry(term).or_insert(leader);
        if first == leader {
            Ok(())
        } else {
            Err(format!("term {term} has two leaders, {first} and {leader}"))
        }
    }

    /// Members at one index are in one state.
    pub(crate) fn an_index_has_one_state(
        &mut self,
        member: MemberId,
        index: LogIndex,
        state: (Revision, Sums),
    ) -> Result<(), Breach> {
        let first = *self.states.entry(index).or_insert(state);
        if first == state {
            Ok(())
        } else {
            Err(format!("member {member} is at index {index} in state {state:?}, not {first:?}"))
        }
    }

    /// A position in history is never used for two records.
    pub(crate) fn a_revision_has_one_content(
        &mut self,
        member: MemberId,
        position: Position,
        digest: u64,
    ) -> Result<(), Breach> {
        if *self.records.entry(position).or_insert(digest) == digest {
            Ok(())
        } else {
            Err(format!("member {member} has another record at {position:?}"))
        }
    }

    /// Whether another record of the same revision follows this position.
    pub(crate) fn follows_within(&self, position: Position) -> bool {
        let next = position.sub.checked_add(1).map(|sub| Position { sub, ..position });
        next.is_some_and(|next| self.records.contains_key(&next))
    }

    /// A member's history holds every record from a position on, and no other.
    pub(crate) fn history_is_whole(
        &self,
        member: MemberId,
        from: Position,
        seen: &[(Position, u64)],
    ) -> Result<(), Breach> {
        let truth = self.records.range(from..).map(|(position, digest)| (*position, *digest));
        if truth.eq(seen.iter().copied()) {
            Ok(())
        } else {
            Err(format!("member {member} has another history from {from:?} on"))
        }
    }

    /// Notes a key that is to die.
    pub(crate) fn will_die(&mut self, key: &[u8], called_us: u64, ttl_ms: u64) {
        self.mortal.insert(key.to_vec(), (called_us, ttl_ms));
    }

    /// Nothing dies before its time, as the slowest allowed clock counts it.
    pub(crate) fn nothing_expires_early(
        &mut self,
        change: &Change,
        now_us: u64,
    ) -> Result<(), Breach> {
        if change.record.action != Action::Expire as u8 {
            return Ok(());
        }
        self.expired += 1;
        let key: &[u8] = &change.record.key;
        let Some(&(called_us, ttl_ms)) = self.mortal.get(key) else {
            return Err(format!("{:?} had no time to live and expired", change.record.key));
        };
        let lived_us = now_us - called_us;
        let least_us = ttl_ms * 1_000 * 1_000_000 / (1_000_000 + DRIFT_PPM_MAX);
        if lived_us + 1_000 < least_us {
            let (lived, least) = (lived_us / 1_000, least_us / 1_000);
            return Err(format!("{:?} lived {lived} ms of {least}", change.record.key));
        }
        Ok(())
    }

    /// What was answered is in history, with the content that was asked for.
    pub(crate) fn acknowledged_writes_survive(&self, clients: &[Client]) -> Result<(), Breach> {
        for told in clients.iter().flat_map(|client| &client.records) {
            let Told { revision, index, .. } = told;
            let position = Position::start_of(*revision);
            if !self.records.contains_key(&position) {
                return Err(format!(
                    "revision {revision} of entry {index} was answered and is gone"
                ));
            }
        }
        Ok(())
    }

    /// Names made in order are in the order in which they were asked for.
    pub(crate) fn in_order_names_are_in_order(&self, clients: &[Client]) -> Result<(), Breach> {
        let mut made: Vec<_> = clients.iter().flat_map(|client| &client.in_order).collect();
        made.sort();
        let mut returned: Vec<_> = made.clone();
        returned.sort_by_key(|(_, returned, _)| *returned);
        let mut newest: Option<u64> = None;
        let mut before = returned.into_iter().peekable();
        for (called, _, revision) in made {
            while let Some((_, _, earlier)) = before.next_if(|(_, at, _)| at < called) {
                newest = newest.max(Some(*earlier));
            }
            if newest >= Some(*revision) {
                return Err(format!("a name made at {revision} came after {newest:?}"));
            }
        }
        Ok(())
    }
}

/// A watcher: sees every record after the one it began at, once, in order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watcher {
    pub(crate) last: Position,
}

impl Watcher {
    pub(crate) fn begin(revision: Revision) -> Self {
        Self { last: Position::end_of(revision) }
    }

    /// No gap, nothing twice, nothing out of order.
    pub(crate) fn sees(&mut self, position: Position) -> Result<(), Breach> {
        let next_in_revision = position.revision == self.last.revision
            && self.last.sub.checked_add(1) == Some(position.sub);
        let next_revision = position.revision == self.last.revision.next() && position.sub == 0;
        if !next_in_revision && !next_revision {
            return Err(format!("a watcher saw {position:?} after {:?}", self.last));
        }
        self.last = position;
        Ok(())
    }

    /// A published revision has been seen to its end.
    pub(crate) fn has_seen_all_of(&self, revision: Revision) -> Result<(), Breach> {
        if self.last.revision < revision {
            return Err(format!("a watcher missed revision {revision}, after {:?}", self.last));
        }
        Ok(())
    }
}
