//! Two sums that members compare, so that a divergence is found and not served.
//!
//! The *chain* runs over everything each entry did, in order: it differs for ever once two members
//! applied anything differently. The *live* sum adds the digests of the live records: it can be
//! recomputed from a full scan, and so finds a store that has rotted.
//!
//! Invariant: both are functions of the log, whenever checkpoints, restarts and turns happen.

use crate::base::{ClusterTime, LogIndex, Revision, Term};
use crate::machine::outcome::Change;
use crate::store::Record;
use xxhash_rust::xxh3::xxh3_64;

/// What members compare at equal index and feature level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Over what every entry did so far, in order.
    pub chain: u64,
    /// Over the live records of every space, in any order.
    pub live: u64,
}

/// What is true after an entry, apart from its records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aftermath {
    pub(super) index: LogIndex,
    pub(super) term: Term,
    pub(super) clock: ClusterTime,
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
}

impl Sums {
    /// Follows a change.
    pub(super) fn change(&mut self, change: &Change) {
        let digest = change.record.digest();
        self.link(&[digest]);
        // A file that gave way to a directory was taken out with its own tombstone.
        let replaced = change.previous.as_ref().filter(|old| old.space == change.record.space);
        if let Some(replaced) = replaced {
            self.live = self.live.wrapping_sub(replaced.digest());
        }
        if change.record.live {
            self.live = self.live.wrapping_add(digest);
        }
    }

    /// Closes an entry.
    pub(super) fn close(&mut self, after: Aftermath) {
        let Aftermath { index, term, clock, revision, compacted } = after;
        self.link(&[index.0, term.0, clock.0, revision.0, compacted.0]);
    }

    /// The live sum of these records, all live: what a scrub compares with.
    #[must_use]
    pub fn live_sum<'a>(records: impl IntoIterator<Item = &'a Record>) -> u64 {
        records.into_iter().fold(0, |sum, record| sum.wrapping_add(record.digest()))
    }

    fn link(&mut self, words: &[u64]) {
        let chained = std::iter::once(&self.chain).chain(words);
        let bytes: Vec<u8> = chained.flat_map(|word| word.to_le_bytes()).collect();
        self.chain = xxh3_64(&bytes);
    }
}
