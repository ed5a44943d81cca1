//! Exactly once: which proposals of which origin were seen.
//!
//! One row per origin: its boot, the highest sequence seen, and a window of bits below it. No
//! results are kept: a proposal that comes a second time, or from below the window, is answered
//! "outcome unknown" and never executed, which is the truth about it.
//!
//! Boots are random numbers, so a boot that is not known is taken for a new run of the origin: the
//! row begins anew. The last `limits::DEDUP_EARLIER_BOOTS_MAX` boots are kept to tell a late
//! proposal of an earlier run from a new run; one that stayed under way through more restarts of
//! its origin than that would pass for new.
//!
//! Invariants: a (boot, sequence) is admitted at most once; the rows are a function of the log;
//! equal rows have equal encodings.

use crate::base::codec::{Malformed, Reader, Writer};
use crate::base::limits::{DEDUP_EARLIER_BOOTS_MAX, DEDUP_WINDOW};
use crate::base::{BootId, MemberId, Sequence};
use std::collections::BTreeMap;

const WORD_BITS: u64 = 64;

/// The rows of every origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Dedup {
    rows: BTreeMap<MemberId, Row>,
}

/// What was seen of one origin.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    boot: BootId,
    /// Boots before this one, the latest last.
    earlier: Vec<BootId>,
    /// The highest sequence seen; 0 = none.
    top: Sequence,
    seen: Window,
}

/// One bit for each of the last `DEDUP_WINDOW` sequences, at the sequence modulo the window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Window {
    words: [u64; (DEDUP_WINDOW / WORD_BITS) as usize],
}

impl Window {
    fn mask(sequence: u64) -> u64 {
        1 << (sequence % WORD_BITS)
    }

    fn word(sequence: u64) -> usize {
        usize::try_from(sequence % DEDUP_WINDOW / WORD_BITS).unwrap_or_default()
    }

    fn has(&self, sequence: u64) -> bool {
        self.words.get(Self::word(sequence)).is_some_and(|word| word & Self::mask(sequence) != 0)
    }

    fn set(&mut self, sequence: u64, seen: bool) {
        if let Some(word) = self.words.get_mut(Self::word(sequence)) {
            *word &= !Self::mask(sequence);
            *word |= u64::from(seen) * Self::mask(sequence);
        }
    }
}

impl Dedup {
    /// Whether a proposal may be executed: true at most once for each.
    pub(super) fn admit(&mut self, origin: MemberId, boot: BootId, sequence: Sequence) -> bool {
        let row = self.rows.entry(origin).or_insert_with(|| Row::new(boot));
        if row.boot != boot {
            if row.earlier.contains(&boot) {
                return false;
            }
            row.restart(boot);
        }
        row.admit(sequence)
    }

    /// Appends the rows.
    pub(super) fn encode(&self, writer: &mut Writer) {
        writer.uint(self.rows.len() as u64);
        for (origin, row) in &self.rows {
            writer.uint(origin.0);
            row.encode(writer);
        }
    }

    /// Takes the rows.
    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = reader.uint()?;
        let mut rows = BTreeMap::new();
        for _ in 0..count {
            let origin = MemberId(reader.uint()?);
            if rows.last_key_value().is_some_and(|(last, _)| *last >= origin) {
                return Err(Malformed::Unknown { what: "order of origins at", value: origin.0 });
            }
            rows.insert(origin, Row::decode(reader)?);
        }
        Ok(Self { rows })
    }
}

impl Row {
    fn new(boot: BootId) -> Self {
        Self { boot, earlier: Vec::new(), top: Sequence(0), seen: Window::default() }
    }

    fn restart(&mut self, boot: BootId) {
        let mut earlier = std::mem::take(&mut self.earlier);
        earlier.push(self.boot);
        let surplus = earlier.len().saturating_sub(DEDUP_EARLIER_BOOTS_MAX);
        earlier.drain(..surplus);
        *self = Self { earlier, ..Self::new(boot) };
    }

    fn admit(&mut self, sequence: Sequence) -> bool {
        let (top, sequence) = (self.top.0, sequence.0);
        if sequence > top {
            // Bits the window moves over belong to sequences a whole window ago.
            for passed in (top + 1).max(sequence.saturating_sub(DEDUP_WINDOW - 1))..=sequence {
                self.seen.set(passed, false);
            }
            self.top = Sequence(sequence);
        }
        let outside = sequence == 0 || self.top.0 - sequence >= DEDUP_WINDOW;
        if outside || self.seen.has(sequence) {
            return false;
        }
        self.seen.set(sequence, true);
        true
    }

    /// The sequences of the window that were not seen, highest first: mostly none.
    fn missing(&self) -> impl Iterator<Item = u64> + '_ {
        let lowest = self.top.0.saturating_sub(DEDUP_WINDOW - 1).max(1);
        (lowest..=self.top.0).rev().filter(|sequence| !self.seen.has(*sequence))
    }

    fn encode(&self, writer: &mut Writer) {
        writer.uint(self.boot.0).uint(self.earlier.len() as u64);
        for boot in &self.earlier {
            writer.uint(boot.0);
        }
        writer.uint(self.top.0).uint(self.missing().count() as u64);
        for sequence in self.missing() {
            writer.uint(self.top.0 - sequence);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut row = Self::new(BootId(reader.uint()?));
        let boots = reader.uint()?;
        row.earlier = (0..boots).map(|_| reader.uint().map(BootId)).collect::<Result<_, _>>()?;
        row.top = Sequence(reader.uint()?);
        let lowest = row.top.0.saturating_sub(DEDUP_WINDOW - 1).max(1);
        for sequence in lowest..=row.top.0 {
            row.seen.set(sequence, true);
        }
        let missing = reader.uint()?;
        for _ in 0..missing {
            let sequence = row.top.0.checked_sub(reader.uint()?).ok_or(Malformed::Overflow)?;
            if sequence < lowest || !row.seen.has(sequence) {
                return Err(Malformed::Unknown { what: "sequence in a window", value: sequence });
            }
            row.seen.set(sequence, false);
        }
        Ok(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const ORIGIN: MemberId = MemberId(1);

    fn admits(dedup: &mut Dedup, boot: u64, sequence: u64) -> bool {
        dedup.admit(ORIGIN, BootId(boot), Sequence(sequence))
    }

    fn reread(dedup: &Dedup) -> Dedup {
        let mut writer = Writer::new();
        dedup.encode(&mut writer);
        let bytes = writer.into_vec();
        let mut reader = Reader::new(&bytes);
        let read = Dedup::decode(&mut reader).unwrap();
        assert_eq!(reader.finish(), Ok(()));
        read
    }

    #[test]
    fn nothing_is_admitted_twice_and_nothing_from_below_the_window() {
        let mut dedup = Dedup::default();
        assert!(admits(&mut dedup, 7, 1) && !admits(&mut dedup, 7, 1));
        assert!(admits(&mut dedup, 7, 3) && admits(&mut dedup, 7, 2) && !admits(&mut dedup, 7, 2));
        assert!(!admits(&mut dedup, 7, 0));
        assert!(admits(&mut dedup, 7, 2_000));
        assert!(!admits(&mut dedup, 7, 2_000 - DEDUP_WINDOW), "one below the window");
        assert!(admits(&mut dedup, 7, 2_001 - DEDUP_WINDOW), "the last of the window");
        assert!(dedup.admit(MemberId(2), BootId(7), Sequence(1)), "another origin");
    }

    #[test]
    fn a_new_boot_begins_anew_and_an_earlier_one_is_known() {
        let mut dedup = Dedup::default();
        assert!(admits(&mut dedup, 7, 5) && admits(&mut dedup, 8, 5));
        assert!(!admits(&mut dedup, 7, 6), "late, of the boot before");
        assert!(admits(&mut dedup, 8, 6), "and the row is still the new boot's");
        for boot in 9..9 + DEDUP_EARLIER_BOOTS_MAX as u64 {
            assert!(admits(&mut reread(&dedup), boot, 1) && admits(&mut dedup, boot, 1));
        }
        assert!(!admits(&mut dedup, 9, 2));
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_plain_set(
            sequences in prop::collection::vec(
                prop_oneof![1u64..40, 1u64..3_000, 1_000u64..1_100],
                1..200,
            )
        ) {
            let (mut dedup, mut seen) = (Dedup::default(), BTreeSet::new());
            let mut top = 0;
            for sequence in sequences {
                top = sequence.max(top);
                let expected = sequence + DEDUP_WINDOW > top && seen.insert(sequence);
                prop_assert_eq!(admits(&mut dedup, 1, sequence), expected, "{}", sequence);
                let read = reread(&dedup);
                prop_assert_eq!(&read, &dedup);
                dedup = read;
            }
        }
    }
}
