//! What a checkpoint says about itself: one row, written with the data it describes.
//!
//! The applied index and the data it belongs to are in one transaction (invariant 7), so a restart
//! never applies an entry twice. The machine's own bookkeeping (clock, dedup rows, sums) rides
//! along as bytes this floor does not read.

use crate::base::codec::{Malformed, Reader, Writer};
use crate::base::{ClusterId, LogIndex, MemberId, Revision, Term};
use crate::store::record::Position;
use bytes::Bytes;
use raft::eraftpb::ConfState;

/// Newest format of the meta row, and with it of the whole base.
pub const META_FORMAT: u64 = 1;

/// Who votes and who listens, at the applied index (Raft's ConfState).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Voters of the (incoming) configuration.
    pub voters: Vec<MemberId>,
    /// Members that receive the log without voting.
    pub learners: Vec<MemberId>,
    /// Voters of the outgoing configuration while a joint change is under way.
    pub voters_outgoing: Vec<MemberId>,
    /// Voters that become learners when the joint change ends.
    pub learners_next: Vec<MemberId>,
    /// Whether the leader ends the joint change by itself.
    pub auto_leave: bool,
}

impl Membership {
    /// Raft's own type for this.
    #[must_use]
    pub fn to_conf_state(&self) -> ConfState {
        let ids = |members: &[MemberId]| members.iter().map(|member| member.0).collect();
        ConfState {
            voters: ids(&self.voters),
            learners: ids(&self.learners),
            voters_outgoing: ids(&self.voters_outgoing),
            learners_next: ids(&self.learners_next),
            auto_leave: self.auto_leave,
            ..ConfState::default()
        }
    }

    /// From Raft's own type.
    #[must_use]
    pub fn from_conf_state(state: &ConfState) -> Self {
        let ids = |ids: &[u64]| ids.iter().copied().map(MemberId).collect();
        Self {
            voters: ids(&state.voters),
            learners: ids(&state.learners),
            voters_outgoing: ids(&state.voters_outgoing),
            learners_next: ids(&state.learners_next),
            auto_leave: state.auto_leave,
        }
    }
}

/// The meta row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// The cluster the data belongs to.
    pub cluster: ClusterId,
    /// The member it belongs to.
    pub member: MemberId,
    /// Last entry whose effects are in the data.
    pub applied: LogIndex,
    /// That entry's term.
    pub applied_term: Term,
    /// The state the data is in.
    pub revision: Revision,
    /// Reads and watches below this revision are refused; 0 = never compacted.
    pub compacted: Revision,
    /// A number of the machine's that readers of this state need to know.
    pub note: u64,
    /// Dead records up to here are gone from the tables (this member's housekeeping).
    pub purged: Position,
    /// Members at the applied index.
    pub membership: Membership,
    /// The machine's bookkeeping, in the machine's own format.
    pub machine: Bytes,
}

impl Meta {
    /// The row's value.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(128 + self.machine.len());
        writer.uint(META_FORMAT).uint(self.cluster.0).uint(self.member.0);
        writer.uint(self.applied.0).uint(self.applied_term.0);
        writer.uint(self.revision.0).uint(self.compacted.0).uint(self.note);
        self.purged.write(&mut writer);
        let membership = &self.membership;
        for members in [
            &membership.voters,
            &membership.learners,
            &membership.voters_outgoing,
            &membership.learners_next,
        ] {
            writer.uint(members.len() as u64);
            for member in members {
                writer.uint(member.0);
            }
        }
        writer.bool(membership.auto_leave).bytes(&self.machine);
        let checksum = crc32c::crc32c(writer.as_slice());
        writer.raw(&checksum.to_le_bytes());
        writer.into_vec()
    }

    /// Reads the row.
    ///
    /// # Errors
    /// `NewerFormat` for data of a newer version, `Checksum` for damaged bytes.
    pub fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let (fields, checksum) = value.split_last_chunk::<4>().ok_or(Malformed::Truncated)?;
        let mut reader = Reader::new(fields);
        reader.format("the data directory", META_FORMAT)?;
        if crc32c::crc32c(fields) != u32::from_le_bytes(*checksum) {
            return Err(Malformed::Checksum { what: "meta row" });
        }
        let mut meta = Self {
            cluster: ClusterId(reader.uint()?),
            member: MemberId(reader.uint()?),
            applied: LogIndex(reader.uint()?),
            applied_term: Term(reader.uint()?),
            revision: Revision(reader.uint()?),
            compacted: Revision(reader.uint()?),
            note: reader.uint()?,
            purged: Position::read(&mut reader)?,
            ..Self::default()
        };
        meta.membership = Membership {
            voters: read_members(&mut reader)?,
            learners: read_members(&mut reader)?,
            voters_outgoing: read_members(&mut reader)?,
            learners_next: read_members(&mut reader)?,
            auto_leave: reader.bool()?,
        };
        meta.machine = reader.owned()?;
        reader.finish()?;
        Ok(meta)
    }
}

fn read_members(reader: &mut Reader<'_>) -> Result<Vec<MemberId>, Malformed> {
    let count = reader.uint()?;
    (0..count).map(|_| reader.uint().map(MemberId)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_reads_back_and_notices_damage() {
        let meta = Meta {
            cluster: ClusterId(7),
            member: MemberId(9),
            applied: LogIndex(100),
            applied_term: Term(3),
            revision: Revision(50),
            compacted: Revision(20),
            note: 1,
            purged: Position::start_of(Revision(19)),
            membership: Membership {
                voters: vec![MemberId(9), MemberId(u64::MAX)],
                auto_leave: true,
                ..Membership::default()
            },
            machine: Bytes::from_static(b"state"),
        };
        let bytes = meta.encode();
        assert_eq!(Meta::decode(&bytes), Ok(meta.clone()));
        assert_eq!(Membership::from_conf_state(&meta.membership.to_conf_state()), meta.membership);
        for at in 1..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Meta::decode(&damaged).is_err(), "byte {at}");
        }
        let newer = [&[9][..], &bytes[1..]].concat();
        assert!(matches!(Meta::decode(&newer), Err(Malformed::NewerFormat { .. })));
    }
}
