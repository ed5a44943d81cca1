//! Membership changes: how they stand in the log, and when they make sense.
//!
//! A change is an entry of Raft's type for it. What it does stands in the entry's *context* in the
//! strict codec of this house, with the number its waiter knows it by; the protobuf form that raft
//! 0.7 wants to look into when it is proposed is written and read inside this process only. Raft
//! turns a change it does not like into an empty entry without saying so, so the waiter is matched
//! by what is applied at its index, not by the index.
//!
//! Invariants: one change is under way at a time; a member's id is never used again; more than one
//! step at a time is a joint change, which the leader ends by itself.
//!
//! Sources: contracts/raft.md section 5; Ongaro's thesis 4.3.

use crate::base::codec::{Malformed, Reader, Writer};
use crate::base::limits::MEMBER_CHANGES_MAX;
use crate::base::{Fault, LogIndex, MemberId, Term};
use crate::replica::words::{ChangeId, MemberChange, Unchanged};
use crate::store::Membership;
use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2};

const FORMAT: u64 = 1;
const ADD_LEARNER: u8 = 1;
const PROMOTE: u8 = 2;
const REMOVE: u8 = 3;

/// The change this leader has proposed and not yet seen applied.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proposed {
    pub(super) id: ChangeId,
    pub(super) index: LogIndex,
    pub(super) term: Term,
}

/// The entry's context.
pub(super) fn encode(changes: &[MemberChange]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.uint(FORMAT).uint(changes.len() as u64);
    for change in changes {
        match change {
            MemberChange::AddLearner(member) => writer.u8(ADD_LEARNER).uint(member.0),
            MemberChange::Promote(member) => writer.u8(PROMOTE).uint(member.0),
            MemberChange::Remove(member) => writer.u8(REMOVE).uint(member.0),
        };
    }
    writer.into_vec()
}

/// The change of an entry's context.
pub(super) fn decode(context: &[u8]) -> Result<Vec<MemberChange>, Fault> {
    read(context).map_err(|error| match error {
        newer @ Malformed::NewerFormat { .. } => Fault::TooNew(newer.to_string()),
        damaged => Fault::damaged("a membership entry", damaged),
    })
}

fn read(context: &[u8]) -> Result<Vec<MemberChange>, Malformed> {
    let mut reader = Reader::new(context);
    let format = reader.uint()?;
    if format != FORMAT {
        let (what, found, newest) = ("a membership entry", format, FORMAT);
        return Err(Malformed::NewerFormat { what, found, newest });
    }
    let mut changes = Vec::new();
    for _ in 0..reader.uint()? {
        let kind = reader.u8()?;
        let member = MemberId(reader.uint()?);
        changes.push(match kind {
            ADD_LEARNER => MemberChange::AddLearner(member),
            PROMOTE => MemberChange::Promote(member),
            REMOVE => MemberChange::Remove(member),
            other => {
                return Err(Malformed::Unknown { what: "membership change", value: other.into() });
            }
        });
    }
    reader.finish()?;
    Ok(changes)
}

/// Raft's form of it. No change at all means: leave the joint configuration.
pub(super) fn to_raft(changes: &[MemberChange]) -> ConfChangeV2 {
    let single = |change: &MemberChange| {
        let (kind, member) = match change {
            MemberChange::AddLearner(member) => (ConfChangeType::AddLearnerNode, member),
            MemberChange::Promote(member) => (ConfChangeType::AddNode, member),
            MemberChange::Remove(member) => (ConfChangeType::RemoveNode, member),
        };
        ConfChangeSingle { change_type: kind, node_id: member.0, ..ConfChangeSingle::default() }
    };
    let mut change = ConfChangeV2::default();
    change.set_changes(changes.iter().map(single).collect::<Vec<_>>().into());
    if changes.len() > 1 {
        change.set_transition(ConfChangeTransition::Explicit);
    }
    change
}

/// Whether these members can be changed like this, asked by `leader`.
pub(super) fn check(
    members: &Membership,
    leader: MemberId,
    changes: &[MemberChange],
) -> Result<(), Unchanged> {
    let invalid = |cause| Err(Unchanged::Invalid(cause));
    if changes.is_empty() || changes.len() > MEMBER_CHANGES_MAX {
        return invalid("the number of steps is out of range");
    }
    if !members.voters_outgoing.is_empty() {
        return Err(Unchanged::Busy);
    }
    for change in changes {
        match change {
            MemberChange::AddLearner(MemberId(0)) => return invalid("a member id is never 0"),
            MemberChange::AddLearner(it) if members.voters.contains(it) => {
                return invalid("it is a voter already");
            }
            MemberChange::AddLearner(it) if members.learners.contains(it) => {
                return invalid("it is a learner already");
            }
            MemberChange::Promote(it) if !members.learners.contains(it) => {
                return invalid("only a learner is promoted");
            }
            MemberChange::Remove(it) if *it == leader => {
                return invalid("the leader hands its office on before it goes");
            }
            MemberChange::Remove(it)
                if !members.voters.contains(it) && !members.learners.contains(it) =>
            {
                return invalid("it is no member");
            }
            MemberChange::AddLearner(_) | MemberChange::Promote(_) | MemberChange::Remove(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_reads_back_and_a_newer_one_is_refused() {
        let all = [
            MemberChange::AddLearner(MemberId(7)),
            MemberChange::Promote(MemberId(u64::MAX)),
            MemberChange::Remove(MemberId(1)),
        ];
        assert_eq!(decode(&encode(&all)).unwrap(), all);
        assert_eq!(decode(&encode(&[])).unwrap(), []);
        assert!(matches!(decode(&[9]), Err(Fault::TooNew(_))));
        assert!(decode(&[1, 1, 9, 1]).is_err());
        assert!(to_raft(&[]).leave_joint_like());
    }

    trait LeaveJoint {
        fn leave_joint_like(&self) -> bool;
    }

    impl LeaveJoint for ConfChangeV2 {
        fn leave_joint_like(&self) -> bool {
            self.changes.is_empty() && self.transition == ConfChangeTransition::Auto
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let members = Membership {
            voters: vec![MemberId(1), MemberId(2)],
            learners: vec![MemberId(3)],
            ..Membership::default()
        };
        let check = |change| check(&members, MemberId(1), &[change]);
        for good in [
            MemberChange::AddLearner(MemberId(4)),
            MemberChange::Promote(MemberId(3)),
            MemberChange::Remove(MemberId(2)),
            MemberChange::Remove(MemberId(3)),
        ] {
            assert_eq!(check(good), Ok(()), "{good:?}");
        }
        for bad in [
            MemberChange::AddLearner(MemberId(0)),
            MemberChange::AddLearner(MemberId(2)),
            MemberChange::AddLearner(MemberId(3)),
            MemberChange::Promote(MemberId(2)),
            MemberChange::Promote(MemberId(9)),
            MemberChange::Remove(MemberId(1)),
            MemberChange::Remove(MemberId(9)),
        ] {
            assert!(matches!(check(bad), Err(Unchanged::Invalid(_))), "{bad:?}");
        }
    }
}
