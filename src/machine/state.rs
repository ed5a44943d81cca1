//! The machine's bookkeeping: what apply reads besides records.
//!
//! It rides in the meta row of every checkpoint, so that it is always exactly as old as the data.
//! Format 1, in `base::codec` fields:
//! `format | feature level | clock | chain | live | history | dedup rows`.
//!
//! Invariants: a function of the log; equal states have equal encodings.

use crate::base::codec::{Malformed, Reader, Writer};
use crate::base::{ClusterTime, Fault};
use crate::machine::dedup::Dedup;
use crate::machine::history::History;
use crate::machine::sums::Sums;
use bytes::Bytes;

/// Newest format this binary writes and reads.
const STATE_FORMAT: u64 = 1;

/// The rules of apply this binary knows; a cluster raises its level when every member knows more.
pub const FEATURE_LEVEL: u64 = 1;

/// The bookkeeping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// By which rules entries are applied.
    pub(super) feature_level: u64,
    /// The newest stamp applied: time never goes back.
    pub(super) clock: ClusterTime,
    pub(super) sums: Sums,
    pub(super) history: History,
    pub(super) dedup: Dedup,
}

impl Default for State {
    fn default() -> Self {
        Self {
            feature_level: FEATURE_LEVEL,
            clock: ClusterTime(0),
            sums: Sums::default(),
            history: History::default(),
            dedup: Dedup::default(),
        }
    }
}

impl State {
    /// Its bytes.
    pub(super) fn encode(&self) -> Bytes {
        let mut writer = Writer::with_capacity(256);
        writer.uint(STATE_FORMAT).uint(self.feature_level).uint(self.clock.0);
        writer.fixed(self.sums.chain).fixed(self.sums.live);
        self.history.encode(&mut writer);
        self.dedup.encode(&mut writer);
        writer.into_vec().into()
    }

    /// Reads the bytes of a checkpoint.
    ///
    /// # Errors
    /// `TooNew` when a newer version wrote them, `Damaged` otherwise.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        Self::read(bytes).map_err(|error| match error {
            Malformed::NewerFormat { .. } => Fault::TooNew(error.to_string()),
            damaged => Fault::damaged("the machine's bookkeeping in the meta row", damaged),
        })
    }

    fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        reader.format("the machine's bookkeeping", STATE_FORMAT)?;
        let feature_level = reader.format("the cluster's feature level", FEATURE_LEVEL)?;
        let state = Self {
            feature_level,
            clock: ClusterTime(reader.uint()?),
            sums: Sums { chain: reader.fixed()?, live: reader.fixed()? },
            history: History::decode(&mut reader)?,
            dedup: Dedup::decode(&mut reader)?,
        };
        reader.finish()?;
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{BootId, MemberId, Sequence};

    #[test]
    fn the_bookkeeping_reads_back_and_a_newer_one_is_refused() {
        let mut state = State { clock: ClusterTime(77), ..State::default() };
        state.sums = Sums { chain: u64::MAX, live: 3 };
        state.history.add(500);
        assert!(state.dedup.admit(MemberId(4), BootId(5), Sequence(6)));
        let bytes = state.encode();
        assert_eq!(State::decode(&bytes).unwrap(), state);
        for at in 0..2 {
            let mut newer = bytes.to_vec();
            newer[at] = 9;
            assert!(matches!(State::decode(&newer), Err(Fault::TooNew(_))));
        }
        assert!(matches!(State::decode(&bytes[..bytes.len() - 1]), Err(Fault::Damaged { .. })));
        assert!(State::decode(&[&bytes[..], &[0]].concat()).is_err());
    }
}
