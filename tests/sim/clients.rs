//! Clients: what they ask of members, and what they remember for the checker.
//!
//! Each client has one operation under way. It writes values never written before, so that a value
//! read tells which write it comes from. When its member stops, what was under way has an unknown
//! outcome.

use crate::chance::Chance;
use crate::checker::{Act, Operation};
use crate::truth::Truth;
use althing::base::{KeyPath, LogIndex, Rejected, Revision, Ttl};
use althing::machine::{Answer, Command, Condition, Content, Outcome, Put};
use bytes::Bytes;

/// Registers the clients share.
pub(crate) const REGISTERS: usize = 6;

/// What a client does next.
pub(crate) enum Ask {
    Propose(Vec<Command>),
    Read,
}

/// A write that was answered.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) revision: Revision,
    pub(crate) index: LogIndex,
}

/// An operation under way.
struct Open {
    called: u64,
    acts: Vec<(usize, Act)>,
    in_order: bool,
}

/// One client.
#[derive(Default)]
pub(crate) struct Client {
    open: Option<Open>,
    /// The member it talks to, and that member's run.
    pub(crate) talks_to: Option<(usize, u64)>,
    /// Histories, register by register.
    pub(crate) histories: Vec<Vec<Operation>>,
    pub(crate) records: Vec<Record>,
    /// Called, returned, revision.
    pub(crate) in_order: Vec<(u64, u64, u64)>,
    last_seen: Vec<u64>,
    pub(crate) asked: u64,
    pub(crate) answered: u64,
}

pub(crate) fn register(at: usize) -> KeyPath {
    KeyPath::clean(format!("/r/{at}").as_bytes()).unwrap()
}

fn put(path: KeyPath, value: u64, ttl: Option<Ttl>) -> Put {
    Put { path, content: Content::File(value.to_string().into()), ttl, refresh: false }
}

/// The number in a value.
pub(crate) fn number(value: &Bytes) -> u64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

impl Client {
    pub(crate) fn new() -> Self {
        Self {
            histories: vec![Vec::new(); REGISTERS],
            last_seen: vec![0; REGISTERS],
            ..Self::default()
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.open.is_none()
    }

    /// Starts an operation. `time` is the event's number, `value` never used before.
    pub(crate) fn start(
        &mut self,
        chance: &mut Chance,
        truth: &mut Truth,
        (time, now_us): (u64, u64),
        value: u64,
    ) -> Ask {
        self.asked += 1;
        let at = chance.index(REGISTERS);
        let (mut in_order, mut acts) = (false, Vec::new());
        let ask = match chance.below(100) {
            0..30 => {
                acts.push((at, Act::Read(None)));
                Ask::Read
            }
            30..50 => {
                acts.push((at, Act::Write(value)));
                Ask::Propose(vec![Command::Set(put(register(at), value, None))])
            }
            50..65 => {
                let expected = self.last_seen[at];
                acts.push((at, Act::Swap { expected, value, done: true }));
                let condition = Condition { value: Some(expected.to_string().into()), index: None };
                let put = put(register(at), value, None);
                Ask::Propose(vec![Command::CompareAndSwap(put, condition)])
            }
            65..72 => {
                acts.push((at, Act::Create { value, done: true }));
                Ask::Propose(vec![Command::Create(put(register(at), value, None))])
            }
            72..79 => {
                acts.push((at, Act::Delete { done: true }));
                let path = register(at);
                Ask::Propose(vec![Command::Delete { path, dir: false, recursive: false }])
            }
            79..85 => {
                let other = (at + 1) % REGISTERS;
                acts.push((at, Act::Write(value)));
                acts.push((other, Act::Write(value)));
                let set = |at| Command::Set(put(register(at), value, None));
                Ask::Propose(vec![set(at), set(other)])
            }
            85..92 => {
                in_order = true;
                let queue = KeyPath::clean(b"/q").unwrap();
                Ask::Propose(vec![Command::CreateInOrder(put(queue, value, None))])
            }
            _ => {
                let seconds = chance.between(1, 8);
                let path = KeyPath::clean(format!("/t/{value}").as_bytes()).unwrap();
                truth.will_die(path.key(), now_us, seconds * 1_000);
                Ask::Propose(vec![Command::Set(put(path, value, Ttl::from_seconds(seconds)))])
            }
        };
        self.open = Some(Open { called: time, acts, in_order });
        ask
    }

    /// The operation was applied.
    pub(crate) fn applied(&mut self, answer: &Answer, time: u64) {
        let Some(open) = self.open.take() else { return };
        self.answered += 1;
        let done = match &answer.verdict {
            Ok(outcomes) => {
                assert!(matches!(outcomes.first(), Some(Outcome::Changed(_))));
                self.records.push(Record { revision: answer.revision, index: answer.index });
                true
            }
            Err(Rejected::OutcomeUnknown) => unreachable!("the replica reports it as unknown"),
            Err(_) => false,
        };
        if open.in_order {
            self.in_order.push((open.called, time, answer.revision.0));
        }
        for (at, act) in open.acts {
            let act = match act {
                Act::Create { value, .. } => Act::Create { value, done },
                Act::Swap { expected, value, .. } => Act::Swap { expected, value, done },
                Act::Delete { .. } => Act::Delete { done },
                Act::Write(value) => {
                    assert!(done, "a set was refused: {:?}", answer.verdict);
                    self.last_seen[at] = value;
                    Act::Write(value)
                }
                Act::Read(seen) => Act::Read(seen),
            };
            let operation = Operation { called: open.called, returned: Some(time), act };
            self.histories[at].push(operation);
        }
    }

    /// The read saw this.
    pub(crate) fn read(&mut self, seen: Option<u64>, time: u64) {
        let Some(open) = self.open.take() else { return };
        self.answered += 1;
        for (at, _) in open.acts {
            self.last_seen[at] = seen.unwrap_or(0);
            let act = Act::Read(seen);
            let operation = Operation { called: open.called, returned: Some(time), act };
            self.histories[at].push(operation);
        }
    }

    /// The operation certainly had no effect.
    pub(crate) fn not_served(&mut self) {
        self.open = None;
    }

    /// Nobody knows what became of it.
    pub(crate) fn unknown(&mut self) {
        let Some(open) = self.open.take() else { return };
        for (at, act) in open.acts {
            if !matches!(act, Act::Read(_)) {
                self.histories[at].push(Operation { called: open.called, returned: None, act });
            }
        }
    }

    /// Which register the read under way is of.
    pub(crate) fn reading(&self) -> Option<usize> {
        let open = self.open.as_ref()?;
        open.acts.iter().find(|(_, act)| matches!(act, Act::Read(_))).map(|(at, _)| *at)
    }
}
