//! What the machine's tests run on: one machine, its log, and clocks that move when told.
//!
//! The log is kept, so that a machine can be reopened from its last checkpoint and given the
//! entries behind it again, as a restart does.

#[cfg(test)]
use crate::base::{
    BootId, ClusterId, ClusterTime, KeyPath, LogIndex, MemberId, Sequence, Term, WallTime,
};
#[cfg(test)]
use crate::machine::{Answer, Change, Command, Envelope, Genesis, Machine, Progress, Proposal};
#[cfg(test)]
use crate::store::{Membership, MemoryBase};

/// An entry of the log.
#[derive(Clone, Debug)]
pub(super) enum Logged {
    Data(Vec<u8>),
    /// What v3 will do.
    Raw(Vec<(String, Option<String>)>),
}

/// One machine under test.
pub(super) struct Bench {
    pub(super) machine: Machine<MemoryBase>,
    pub(super) now: ClusterTime,
    pub(super) wall: WallTime,
    pub(super) sequence: u64,
    pub(super) keys_per_turn: usize,
    /// Turns the last entry took.
    pub(super) turns: usize,
    base: MemoryBase,
    /// Entries from index 2 on.
    log: Vec<Logged>,
}

pub(super) const BOOT: BootId = BootId(0xb007);
const ORIGIN: MemberId = MemberId(1);

impl Bench {
    pub(super) fn new() -> Self {
        let base = MemoryBase::default();
        let genesis = Genesis {
            cluster: ClusterId(7),
            member: ORIGIN,
            membership: Membership { voters: vec![ORIGIN], ..Membership::default() },
            index: LogIndex(1),
            term: Term(1),
        };
        let machine = Machine::create(base.clone(), genesis).unwrap();
        let wall = WallTime(1_000_000_000_000_000_000);
        let now = ClusterTime(0);
        let keys_per_turn = 1_000;
        Self { machine, now, wall, sequence: 0, keys_per_turn, turns: 0, base, log: Vec::new() }
    }

    pub(super) fn advance(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
        self.wall.0 += ms * 1_000_000;
    }

    /// Proposes, applies, and answers with what watchers are told.
    pub(super) fn propose(&mut self, commands: Vec<Command>) -> (Answer, Vec<Change>) {
        self.sequence += 1;
        self.propose_as(BOOT, self.sequence, commands)
    }

    pub(super) fn propose_as(
        &mut self,
        boot: BootId,
        sequence: u64,
        commands: Vec<Command>,
    ) -> (Answer, Vec<Change>) {
        let sequence = Sequence(sequence);
        let proposal =
            Proposal { origin: ORIGIN, boot, sequence, trace: 0, principal: None, commands };
        let entry = Envelope::seal(self.now, self.wall, &proposal.encode());
        self.log.push(Logged::Data(entry.clone()));
        let answer = self.apply(&entry).expect("commands are answered");
        (answer, self.machine.take_changes())
    }

    /// Writes as v3 will: `None` deletes.
    pub(super) fn raw(&mut self, pairs: &[(String, Option<String>)]) -> Vec<Change> {
        self.log.push(Logged::Raw(pairs.to_vec()));
        self.apply_raw(pairs);
        self.machine.take_changes()
    }

    fn apply_raw(&mut self, pairs: &[(String, Option<String>)]) {
        let pairs: Vec<_> = pairs.iter().map(|(k, v)| (k.as_str(), v.as_deref())).collect();
        let index = self.machine.applied().next();
        self.machine.apply_raw(index, &pairs);
    }

    fn apply(&mut self, entry: &[u8]) -> Option<Answer> {
        let index = self.machine.applied().next();
        self.machine.keys_per_turn = self.keys_per_turn;
        let mut progress = self.machine.apply(index, Term(1), entry).unwrap();
        self.turns = 1;
        loop {
            match progress {
                Progress::Done(done) => {
                    assert_eq!(done.index, index);
                    return done.answer;
                }
                Progress::More => {
                    self.turns += 1;
                    assert!(self.machine.freeze().is_none(), "half an entry was frozen");
                    assert_eq!(self.machine.applied().next(), index, "published too early");
                    progress = self.machine.resume().unwrap();
                }
            }
        }
    }

    pub(super) fn checkpoint(&mut self) {
        self.machine.freeze().unwrap().run().unwrap();
        self.machine.thaw();
    }

    /// Starts again from the last checkpoint, and applies what came after.
    pub(super) fn reopen(&mut self) {
        self.machine = Machine::open(self.base.clone()).unwrap().unwrap();
        let done = usize::try_from(self.machine.applied().0 - 1).unwrap();
        let log = self.log.clone();
        for entry in log.into_iter().skip(done) {
            match entry {
                Logged::Data(data) => {
                    self.apply(&data);
                }
                Logged::Raw(pairs) => self.apply_raw(&pairs),
            }
        }
        self.machine.take_changes();
    }

    /// What is due now, proposed: nothing if nothing is.
    pub(super) fn expire(&mut self) -> Option<(Answer, Vec<Change>)> {
        let due = self.machine.due(self.now, None);
        (!due.is_empty()).then(|| self.propose(vec![Command::Expire(due)]))
    }
}

pub(super) fn path(text: &str) -> KeyPath {
    KeyPath::clean(text.as_bytes()).unwrap()
}
