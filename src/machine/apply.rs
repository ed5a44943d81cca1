//! Applying entries: one at a time, in turns, all or nothing.
//!
//! ```text
//! entry -> envelope -> seen before? -> plan -> execute on a draft -> commit -> publish, answer
//!                          |            |         | (turns)            | (turns)
//!                          +-- refused -+---------+------------------------> answer
//! ```
//!
//! Executing reads the published state and writes the draft; only when every command has succeeded
//! does the draft go into the store, and only when all of it is there is it published. Either part
//! stops after `limits::APPLY_KEYS_PER_TURN` keys and goes on with `resume`, so that Raft can tick
//! in the middle of a large delete.
//!
//! Invariants:
//! * A refused entry changes the applied index, the clock and the dedup rows, and nothing else.
//! * A Clock, Expire or Compact is alone in its entry.
//! * The effective stamp of an entry is never below an earlier one's.
//! * After a `Fault` the machine is not to be used any more.

use crate::base::codec::Malformed;
use crate::base::limits::COMMANDS_PER_ENTRY_MAX;
use crate::base::{
    BootId, ClusterTime, Fault, KeyPath, LogIndex, MemberId, Rejected, Revision, Sequence, Space,
    Term, WallTime,
};
use crate::machine::command::{Command, Due};
use crate::machine::draft::Draft;
use crate::machine::envelope::Envelope;
use crate::machine::look::{Look, Stop, Workspace};
use crate::machine::outcome::{Action, Answer, Event, Outcome, Verdict};
use crate::machine::sums::{Aftermath, Sums};
use crate::machine::tree::Standing;
use crate::machine::tree::sweep::Sweep;
use crate::machine::{Done, Machine, Progress};
use crate::store::{Base, Membership, Reader};
use std::collections::VecDeque;

/// An entry and who waits for it.
#[derive(Clone, Copy)]
struct Ticket {
    index: LogIndex,
    term: Term,
    origin: Option<(MemberId, BootId, Sequence)>,
}

/// What an entry asks for, its form checked.
enum Plan {
    Clock,
    Compact(Revision),
    Commands(Vec<Command>),
    Expire(Vec<Due>),
}

/// One thing to execute.
enum Step {
    Command(Command),
    Expire(Due),
}

/// An entry in progress.
pub(super) struct Running {
    ticket: Ticket,
    steps: VecDeque<Step>,
    /// What the last step left to do.
    sweep: Option<Sweep>,
    draft: Draft,
    outcomes: Vec<Outcome>,
    /// For an expiry: how many things expired.
    expired: Option<usize>,
    /// Writes of the draft that are in the store already, and the sums with them.
    committed: usize,
    sums: Sums,
}

impl<B: Base> Machine<B> {
    /// Applies the entry behind the last one; empty data is a leader's no-op.
    ///
    /// # Errors
    /// When the entry is damaged, of a newer version or out of order, or the base fails. The
    /// member must stop then.
    pub fn apply(&mut self, index: LogIndex, term: Term, entry: &[u8]) -> Result<Progress, Fault> {
        self.expect_next(index)?;
        if entry.is_empty() {
            return Ok(self.conclude_silent(index, term));
        }
        let Envelope { stamp, wall, proposal } = open(index, entry)?;
        self.state.clock = self.state.clock.max(stamp);
        let origin = (proposal.origin, proposal.boot, proposal.sequence);
        let ticket = Ticket { index, term, origin: Some(origin) };
        // Sequence 0 is nobody's request but a leader's own command (clock, expiry, compaction),
        // which does no harm when it runs twice.
        let numbered = proposal.sequence > Sequence(0);
        if numbered && !self.state.dedup.admit(proposal.origin, proposal.boot, proposal.sequence) {
            return Ok(self.answer(ticket, Err(Rejected::OutcomeUnknown)));
        }
        match plan(proposal.commands) {
            Err(rejected) => Ok(self.answer(ticket, Err(rejected))),
            Ok(Plan::Clock) => Ok(self.answer(ticket, Ok(vec![Outcome::Ticked]))),
            Ok(Plan::Compact(upto)) => {
                let verdict = self.compact(upto);
                Ok(self.answer(ticket, verdict))
            }
            Ok(Plan::Commands(commands)) => {
                let steps = commands.into_iter().map(Step::Command).collect();
                self.start(ticket, wall, steps, None)
            }
            Ok(Plan::Expire(dues)) => {
                let steps = dues.into_iter().map(Step::Expire).collect();
                self.start(ticket, wall, steps, Some(0))
            }
        }
    }

    /// Applies a change of members.
    ///
    /// # Errors
    /// As `apply`.
    pub fn apply_membership(
        &mut self,
        index: LogIndex,
        term: Term,
        membership: Membership,
    ) -> Result<Progress, Fault> {
        self.expect_next(index)?;
        self.store.meta_mut().membership = membership;
        Ok(self.conclude_silent(index, term))
    }

    /// The next turn of the entry that said `More`.
    ///
    /// # Errors
    /// As `apply`.
    pub fn resume(&mut self) -> Result<Progress, Fault> {
        let Some(mut running) = self.running.take() else {
            return Err(Fault::Invariant("resume without an entry in progress".into()));
        };
        let mut room = self.keys_per_turn;
        let reader = self.store.read_on(self.reader.take())?;
        let executed = running.execute(&reader, &mut room);
        self.reader = Some(reader);
        let done = match executed {
            Err(Stop::Fault(fault)) => return Err(fault),
            Err(Stop::Rejected(rejected)) => {
                return Ok(self.answer(running.ticket, Err(rejected)));
            }
            Ok(executed) => executed && self.commit(&mut running, room),
        };
        if !done {
            self.running = Some(running);
            return Ok(Progress::More);
        }
        Ok(self.finish(running))
    }

    fn expect_next(&self, index: LogIndex) -> Result<(), Fault> {
        let expected = self.applied().next();
        if self.running.is_some() || index != expected {
            let what =
                if self.running.is_some() { "the end of the one before" } else { "its turn" };
            let message = format!("entry {index} came before {what}; entry {expected} is next");
            return Err(Fault::Invariant(message));
        }
        Ok(())
    }

    fn start(
        &mut self,
        ticket: Ticket,
        wall: WallTime,
        steps: VecDeque<Step>,
        expired: Option<usize>,
    ) -> Result<Progress, Fault> {
        let draft = Draft::new(self.revision(), self.state.clock, wall);
        let (outcomes, sums) = (Vec::new(), self.state.sums);
        let running =
            Running { ticket, steps, sweep: None, draft, outcomes, expired, committed: 0, sums };
        self.running = Some(running);
        self.resume()
    }

    /// Puts up to `room` writes into the store; whether that was all.
    fn commit(&mut self, running: &mut Running, room: usize) -> bool {
        let changes = running.draft.changes();
        for change in changes.iter().skip(running.committed).take(room) {
            self.store.insert(&change.record);
            self.deadlines.change(change);
            running.sums.change(change);
            self.state.history.add(change.record.cost_bytes());
            running.committed += 1;
        }
        running.committed == changes.len()
    }

    fn finish(&mut self, running: Running) -> Progress {
        let Running { ticket, draft, mut outcomes, expired, sums, .. } = running;
        self.state.sums = sums;
        if let Some(reached) = draft.reached() {
            self.state.history.close(reached);
            self.next_revision = reached;
        }
        self.changes.extend(draft.into_changes());
        outcomes.extend(expired.map(Outcome::Expired));
        self.answer(ticket, Ok(outcomes))
    }

    fn compact(&mut self, upto: Revision) -> Verdict {
        if upto <= self.compacted() {
            let oldest = self.compacted();
            return Err(Rejected::Compacted { oldest, requested: upto });
        }
        if upto > self.revision() {
            return Err(Rejected::FutureRevision);
        }
        self.store.meta_mut().compacted = upto;
        self.state.history.compact(upto);
        Ok(vec![Outcome::Compacted(upto)])
    }

    fn answer(&mut self, ticket: Ticket, verdict: Verdict) -> Progress {
        let Ticket { index, term, origin } = ticket;
        self.publish(index, term);
        let answer = Answer { verdict, revision: self.revision(), index, term };
        Progress::Done(Done { index, term, origin, answer: Some(answer) })
    }

    fn conclude_silent(&mut self, index: LogIndex, term: Term) -> Progress {
        self.publish(index, term);
        Progress::Done(Done { index, term, origin: None, answer: None })
    }

    fn publish(&mut self, index: LogIndex, term: Term) {
        self.state.sums.close(Aftermath {
            index,
            term,
            clock: self.state.clock,
            revision: self.next_revision,
            compacted: self.compacted(),
        });
        self.store.publish(index, term, self.next_revision);
    }
}

impl Running {
    /// Executes steps until none is left (`true`) or there is no more `room`.
    fn execute<B: Base>(&mut self, reader: &Reader<B>, room: &mut usize) -> Result<bool, Stop> {
        if self.sweep.is_none() && self.steps.is_empty() {
            return Ok(true);
        }
        while *room > 0 {
            let mut work = Workspace { reader, draft: &mut self.draft };
            if let Some(sweep) = &mut self.sweep {
                let (ended, done) = sweep.turn(&mut work, *room)?;
                *room -= ended;
                if done {
                    self.sweep = None;
                }
                continue;
            }
            let Some(step) = self.steps.pop_front() else { return Ok(true) };
            let before = work.draft.len();
            match step {
                Step::Command(command) => {
                    let (event, sweep) = execute(&mut work, &command)?;
                    self.outcomes.push(Outcome::Changed(Box::new(event)));
                    self.sweep = sweep;
                }
                Step::Expire(due) => {
                    if let Some(sweep) = expire(&mut work, &due)? {
                        self.sweep = sweep;
                        self.expired = self.expired.map(|expired| expired + 1);
                    }
                }
            }
            *room = room.saturating_sub((work.draft.len() - before).max(1));
        }
        Ok(self.sweep.is_none() && self.steps.is_empty())
    }
}

/// Executes one command of a client.
fn execute<B: Base>(
    work: &mut Workspace<'_, B>,
    command: &Command,
) -> Result<(Event, Option<Sweep>), Stop> {
    let (event, sweep) = match command {
        Command::Set(put) => (work.set(put)?, None),
        Command::Create(put) => (work.create(put)?, None),
        Command::CreateInOrder(put) => (work.create_in_order(put)?, None),
        Command::Update(put) => (work.update(put)?, None),
        Command::CompareAndSwap(put, condition) => (work.compare_and_swap(put, condition)?, None),
        Command::Delete { path, dir, recursive } => work.delete(path, *dir, *recursive)?,
        Command::CompareAndDelete { path, condition } => {
            (work.compare_and_delete(path, condition)?, None)
        }
        Command::Clock | Command::Expire(_) | Command::Compact { .. } => {
            return Err(Fault::Invariant("a leader's command passed the plan".into()).into());
        }
    };
    match event {
        Some(event) => Ok((event, sweep)),
        None => Err(Fault::Invariant(format!("no event of {command:?}")).into()),
    }
}

/// Ends what is due, in a revision of its own; `None` if it was renewed or removed meanwhile.
fn expire<B: Base>(work: &mut Workspace<'_, B>, due: &Due) -> Result<Option<Option<Sweep>>, Fault> {
    let stamp = work.draft.stamp();
    let is_due = |deadline: Option<ClusterTime>| deadline.is_some_and(|deadline| deadline <= stamp);
    let Some(record) = work.live(due.space, &due.key)? else { return Ok(None) };
    if record.position != due.generation || !is_due(record.deadline) {
        return Ok(None);
    }
    match due.space {
        Space::Keys => {
            work.draft.start_revision();
            work.draft.end(record, Action::Expire, false);
            Ok(Some(None))
        }
        Space::Dirs => {
            let Some(path) = KeyPath::from_key(&due.key) else { return Ok(None) };
            work.draft.start_revision();
            let directory = Standing::Explicit(record);
            let (_, sweep) = work.end_directory(&path, &directory, Action::Expire)?;
            Ok(Some(Some(sweep)))
        }
        Space::Leases | Space::Auth | Space::Members => Ok(None),
    }
}

/// Checks the form of an entry as a whole.
fn plan(mut commands: Vec<Command>) -> Result<Plan, Rejected> {
    let count = commands.len();
    if count > COMMANDS_PER_ENTRY_MAX {
        let cause = format!("{count} operations in one request, at most {COMMANDS_PER_ENTRY_MAX}");
        return Err(Rejected::Invalid { cause });
    }
    let is_leaders =
        |c: &Command| matches!(c, Command::Clock | Command::Expire(_) | Command::Compact { .. });
    if count > 1 && commands.iter().any(is_leaders) {
        let cause = "clock, expiry and compaction must be alone in their entry".into();
        return Err(Rejected::Invalid { cause });
    }
    Ok(match commands.pop() {
        None => Plan::Commands(commands),
        Some(Command::Clock) => Plan::Clock,
        Some(Command::Compact { upto }) => Plan::Compact(upto),
        Some(Command::Expire(dues)) => Plan::Expire(dues),
        Some(last) => {
            commands.push(last);
            Plan::Commands(commands)
        }
    })
}

fn open(index: LogIndex, entry: &[u8]) -> Result<Envelope, Fault> {
    Envelope::open(entry).map_err(|error| match error {
        Malformed::NewerFormat { .. } => Fault::TooNew(error.to_string()),
        damaged => Fault::damaged(&format!("log entry {index}"), damaged),
    })
}

#[cfg(test)]
impl<B: Base> Machine<B> {
    /// What v3 will do to keys, which no command does yet: `None` deletes.
    pub(crate) fn apply_raw(&mut self, index: LogIndex, pairs: &[(&str, Option<&str>)]) -> Done {
        use crate::machine::draft::Write;
        self.store.meta_mut().note |= crate::machine::look::MIXED;
        let mut draft = Draft::new(self.revision(), self.state.clock, WallTime(0));
        let reader = self.store.read().unwrap();
        for (key, value) in pairs {
            let key = bytes::Bytes::copy_from_slice(key.as_bytes());
            let work = Workspace { reader: &reader, draft: &mut draft };
            let previous = work.live(Space::Keys, &key).unwrap();
            let Some(value) = value else {
                previous.into_iter().for_each(|old| {
                    work.draft.end(old, Action::Delete, false);
                });
                continue;
            };
            let created = previous.as_ref().map_or(work.draft.revision(), |p| p.created_index);
            let write = Write {
                space: Space::Keys,
                key,
                action: Action::Set,
                hushed: false,
                created_index: created,
                modified_index: work.draft.revision(),
                expiry: None,
                value: bytes::Bytes::copy_from_slice(value.as_bytes()),
            };
            work.draft.put(write, previous);
        }
        let mut running = Running {
            ticket: Ticket { index, term: Term(1), origin: None },
            steps: VecDeque::new(),
            sweep: None,
            draft,
            outcomes: Vec::new(),
            expired: None,
            committed: 0,
            sums: self.state.sums,
        };
        assert!(self.commit(&mut running, usize::MAX));
        match self.finish(running) {
            Progress::Done(done) => done,
            Progress::More => panic!("raw writes take one turn"),
        }
    }
}
