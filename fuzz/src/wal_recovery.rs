//! A log that was written well and then damaged: what is recovered was there once, one damaged
//! byte costs at most the last batch, and none costs nothing.

use super::segment::{IDENTITY, OPTIONS};
use althing::base::codec::{Malformed, Reader};
use althing::base::{LogIndex, Term};
use althing::store::wal::{LogBatch, Medium, MemoryMedium, Recovered, SegmentNumber, Wal};
use raft::eraftpb::{Entry, HardState};

/// `data` is a story: batches, releases and restarts, then bytes to damage.
pub fn check(data: &[u8]) {
    let mut script = Reader::new(data);
    let mut log = Log::new();
    // Ends with the script, or with the word for damage.
    while let Ok(true) = log.step(&mut script) {}
    let Log { mut medium, wal, states, .. } = log;
    drop(wal);
    let damaged = damage(&mut medium, &mut script);
    let allowed = match damaged {
        0 => 1,
        1 => 2,
        _ => states.len(),
    };
    if let Ok((_, found)) = Wal::open(medium, IDENTITY, 99, OPTIONS) {
        let mut newest = states.iter().rev().take(allowed);
        assert!(newest.any(|state| state.is(&found)), "{damaged} damaged bytes made this up");
    } else {
        assert!(damaged > 0, "a log without damage is refused");
    }
}

/// What the log must hold.
#[derive(Clone, Debug, Default)]
struct State {
    hard_state: HardState,
    snapshot: Option<(LogIndex, Term)>,
    entries: Vec<Entry>,
    released: u64,
}

impl State {
    fn floor(&self) -> u64 {
        self.snapshot.map_or(0, |(index, _)| index.0)
    }

    fn last(&self) -> u64 {
        self.entries.last().map_or(self.floor(), |entry| entry.index)
    }

    /// Whether this was recovered, except for what was released.
    fn is(&self, found: &Recovered) -> bool {
        let first = found.entries.first().map_or(u64::MAX, |entry| entry.index);
        let first_max = self.released.max(self.floor() + 1);
        found.hard_state == self.hard_state
            && found.snapshot == self.snapshot
            && (self.entries.is_empty() || first <= first_max)
            && self.entries.ends_with(&found.entries)
    }

    fn apply(&mut self, batch: &LogBatch) {
        if batch.snapshot.is_some() {
            self.snapshot = batch.snapshot;
            self.entries.clear();
        }
        if let Some(first) = batch.entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
            self.entries.extend_from_slice(&batch.entries);
        }
        if let Some(hard_state) = &batch.hard_state {
            self.hard_state = hard_state.clone();
        }
    }
}

struct Log {
    medium: MemoryMedium,
    wal: Option<Wal<MemoryMedium>>,
    /// After each durable batch, oldest first.
    states: Vec<State>,
    runs: u64,
}

impl Log {
    fn new() -> Self {
        let medium = MemoryMedium::new();
        let wal = Wal::create(medium.clone(), IDENTITY, 0, OPTIONS).ok();
        Self { medium, wal, states: vec![State::default()], runs: 0 }
    }

    /// Does what the script says next; false when it wants damage.
    fn step(&mut self, script: &mut Reader<'_>) -> Result<bool, Malformed> {
        const STEPS_MAX: usize = 64;
        let word = script.u8()?;
        if word >= 0xf0 || self.states.len() > STEPS_MAX {
            return Ok(false);
        }
        match word & 7 {
            0..=3 => self.write(word >> 3, script)?,
            4 => self.release(script.u8()?.into()),
            5 => self.reopen(),
            6 => {
                assert!(self.wal.take().is_some_and(|wal| wal.close().is_ok()));
                self.reopen();
            }
            _ => self.snapshot(script.u8()?.into()),
        }
        Ok(true)
    }

    fn now(&self) -> State {
        self.states.last().cloned().unwrap_or_default()
    }

    /// Up to three entries, of up to 2 KiB each, that cut up to three others off.
    fn write(&mut self, how: u8, script: &mut Reader<'_>) -> Result<(), Malformed> {
        let (now, overlap) = (self.now(), u64::from(how >> 2 & 3));
        let (bytes, term) =
            (usize::from(script.u8()?) * 8, now.hard_state.term + u64::from(how >> 4));
        let first = (now.last() + 1).saturating_sub(overlap).max(now.floor().max(now.released) + 1);
        let entry = |index| Entry { index, term, data: vec![7; bytes].into(), ..Entry::default() };
        let entries: Vec<Entry> = (first..first + u64::from(how & 3)).map(entry).collect();
        let commit = entries.last().map_or(now.last(), |entry| entry.index);
        let hard_state = Some(HardState { term, vote: 2, commit, ..HardState::default() });
        self.commit(&LogBatch { snapshot: None, entries, hard_state });
        Ok(())
    }

    fn snapshot(&mut self, ahead: u64) {
        let index = LogIndex(self.now().last() + 1 + ahead);
        self.commit(&LogBatch { snapshot: Some((index, Term(1))), ..LogBatch::default() });
    }

    fn commit(&mut self, batch: &LogBatch) {
        let Some(wal) = &mut self.wal else { panic!("the log is closed") };
        assert!(wal.write(batch).and_then(|()| wal.sync()).is_ok());
        let mut state = self.now();
        state.apply(batch);
        self.states.push(state);
    }

    fn release(&mut self, behind: u64) {
        let mut state = self.now();
        let upto = state.last().saturating_sub(behind);
        assert!(self.wal.as_mut().is_some_and(|wal| wal.release(LogIndex(upto)).is_ok()));
        state.released = state.released.max(upto);
        // Durable with the next batch, and no reason to lose one.
        *self.states.last_mut().unwrap_or(&mut State::default()) = state;
    }

    fn reopen(&mut self) {
        self.wal = None;
        self.runs += 1;
        match Wal::open(self.medium.clone(), IDENTITY, self.runs, OPTIONS) {
            Ok((wal, found)) => {
                assert!(self.now().is(&found), "a log without damage is not what it was");
                self.wal = Some(wal);
            }
            Err(error) => panic!("a log without damage is refused: {error}"),
        }
    }
}

/// Flips bits where the script says: which segment, where, how. Says how many bytes changed.
fn damage(medium: &mut MemoryMedium, script: &mut Reader<'_>) -> usize {
    let mut damaged = 0;
    while let Ok(true) = flip(medium, script) {
        damaged += 1;
    }
    damaged
}

fn flip(medium: &mut MemoryMedium, script: &mut Reader<'_>) -> Result<bool, Malformed> {
    let (segment, at, bits) = (script.u8()?, script.raw(2)?, script.u8()?);
    let segments = medium.segments().unwrap_or_default();
    let Some(number) = segments.get(usize::from(segment) % segments.len().max(1)) else {
        return Ok(false);
    };
    let offset = u64::from(u16::from_le_bytes([at[0], at[1]]));
    Ok(flip_at(medium, *number, offset, bits).is_ok())
}

fn flip_at(
    medium: &mut MemoryMedium,
    number: SegmentNumber,
    offset: u64,
    bits: u8,
) -> std::io::Result<()> {
    let offset = offset % medium.length(number)?.max(1);
    let mut byte = [0];
    medium.read_at(number, offset, &mut byte)?;
    medium.write_at(number, offset, &[byte[0] ^ bits])?;
    medium.sync(number)
}
