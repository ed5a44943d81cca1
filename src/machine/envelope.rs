//! The envelope: what stands in the log around the commands of one request.
//!
//! A door's request becomes a `Proposal` at its origin: who asks, and what. It travels to the
//! leader unopened; there it gets the two stamps in front, cluster time and wall time, which makes
//! it an `Envelope`, and that is the entry's data. So every member applies with the same clocks.
//!
//! Format 1, in `base::codec` fields:
//! `format | cluster stamp (ms) | wall stamp (ns) | proposal`, and the proposal
//! `origin | boot | sequence | trace | principal | commands`.
//!
//! Invariants: a newer format is refused with a message that says so; (origin, boot, sequence)
//! names a proposal for ever.

use crate::base::codec::{Malformed, Reader, Writer};
use crate::base::{BootId, ClusterTime, MemberId, Sequence, WallTime};
use crate::machine::command::Command;

/// Newest envelope this binary writes and reads.
pub const ENVELOPE_FORMAT: u64 = 1;

/// On whose behalf a request is made: checked again at apply, against the rights at that moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// User name.
    pub user: String,
    /// Revision of the rights the door saw.
    pub auth_revision: u64,
}

/// A request on its way to the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The member that asks, and will answer its client.
    pub origin: MemberId,
    /// The run of that member's process.
    pub boot: BootId,
    /// Its number within that run, from 1, without gaps.
    pub sequence: Sequence,
    /// Follows the request through logs; 0 = none.
    pub trace: u64,
    /// Who asks, when authentication is on.
    pub principal: Option<Principal>,
    /// What is asked: all of it in one revision, or nothing.
    pub commands: Vec<Command>,
}

impl Proposal {
    /// The proposal's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(128);
        writer.uint(self.origin.0).uint(self.boot.0).uint(self.sequence.0).uint(self.trace);
        writer.option(self.principal.as_ref(), |w, principal| {
            w.bytes(principal.user.as_bytes()).uint(principal.auth_revision);
        });
        writer.uint(self.commands.len() as u64);
        for command in &self.commands {
            command.encode(&mut writer);
        }
        writer.into_vec()
    }

    fn decode(mut reader: Reader<'_>) -> Result<Self, Malformed> {
        let read_principal = |r: &mut Reader<'_>| {
            let user = String::from_utf8(r.bytes()?.to_vec())
                .map_err(|_| Malformed::Unknown { what: "user name", value: 0 })?;
            Ok(Principal { user, auth_revision: r.uint()? })
        };
        let proposal = Self {
            origin: MemberId(reader.uint()?),
            boot: BootId(reader.uint()?),
            sequence: Sequence(reader.uint()?),
            trace: reader.uint()?,
            principal: reader.option(read_principal)?,
            commands: {
                let count = reader.uint()?;
                (0..count).map(|_| Command::decode(&mut reader)).collect::<Result<_, _>>()?
            },
        };
        reader.finish()?;
        Ok(proposal)
    }
}

/// A proposal with the leader's stamps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The leader's cluster time; never goes back along the log.
    pub stamp: ClusterTime,
    /// The leader's wall clock, for `expiration` in answers.
    pub wall: WallTime,
    /// The request.
    pub proposal: Proposal,
}

impl Envelope {
    /// The entry's data: stamps in front of a proposal's bytes.
    #[must_use]
    pub fn seal(stamp: ClusterTime, wall: WallTime, proposal: &[u8]) -> Vec<u8> {
        let mut writer = Writer::with_capacity(24 + proposal.len());
        writer.uint(ENVELOPE_FORMAT).uint(stamp.0).uint(wall.0).raw(proposal);
        writer.into_vec()
    }

    /// Opens an entry's data.
    ///
    /// # Errors
    /// `NewerFormat` for an entry of a newer version; otherwise what is malformed.
    pub fn open(data: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(data);
        reader.format("a log entry", ENVELOPE_FORMAT)?;
        let (stamp, wall) = (ClusterTime(reader.uint()?), WallTime(reader.uint()?));
        Ok(Self { stamp, wall, proposal: Proposal::decode(reader)? })
    }

    /// Only the cluster stamp: a new leader starts its clock there.
    ///
    /// # Errors
    /// As `open`.
    pub fn stamp_of(data: &[u8]) -> Result<ClusterTime, Malformed> {
        let mut reader = Reader::new(data);
        reader.uint()?;
        reader.uint().map(ClusterTime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_reads_back_and_a_newer_one_is_refused() {
        let proposal = Proposal {
            origin: MemberId(3),
            boot: BootId(u64::MAX),
            sequence: Sequence(12),
            trace: 0,
            principal: Some(Principal { user: "root".into(), auth_revision: 2 }),
            commands: vec![Command::Clock, Command::Clock],
        };
        let mut data = Envelope::seal(ClusterTime(5), WallTime(6), &proposal.encode());
        let opened = Envelope { stamp: ClusterTime(5), wall: WallTime(6), proposal };
        assert_eq!(Envelope::open(&data), Ok(opened));
        assert_eq!(Envelope::stamp_of(&data), Ok(ClusterTime(5)));
        data[0] = 2;
        let refused = Envelope::open(&data).unwrap_err().to_string();
        assert!(refused.contains("run a newer althing"), "{refused}");
    }
}
