//! One turn of the core: what waits goes in, what follows is carried out.
//!
//! A turn takes everything in the inbox, feeds it to the replica, and carries out what comes back,
//! in order. With one voter it flushes the log itself: a hop to another thread costs as much as the
//! flush, and there is nobody else to serve meanwhile; requests that arrive during the flush are
//! the next batch (`docs/decisions/inline-flush.md`).
//!
//! Invariants: outputs are carried out in the order they come; a turn never blocks but on the
//! log's flush, of which it makes one, so that ticks and new requests wait for no more than that;
//! after a fault there is no further turn.

use crate::base::limits::{ELECTION_TICKS, LENT_FLUSH_MICROS_MAX, TICK_MS};
use crate::base::report::chain;
use crate::base::{BootId, Fault, LogIndex, MemberId, Sequence};
use crate::machine::Proposal;
use crate::node::bootstrap::Opened;
use crate::node::checkpointer::Checkpointer;
use crate::node::clock;
use crate::node::handle::{Shared, Status, Unserved};
use crate::node::inbox::{Asked, AskedRead, Waiting};
use crate::replica::{
    Input, JobId, NotServed, Output, ReadId, Replica, Request, RoleChange, Settled,
};
use crate::store::checkpoint::{Checkpoint, Written};
use crate::store::env::Lmdb;
use crate::store::wal::{FileMedium, LogBatch, Wal, WalError};
use crate::sys::memory;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

/// Work of a helper thread that is done.
pub(super) enum Finished {
    /// A checkpoint is durable, or failed.
    Checkpoint(Checkpoint<Lmdb>, Result<Written, Fault>),
}

/// What is to be done after a turn.
pub(super) enum Next {
    /// The member was asked to stop.
    Stop,
    /// Take the next turn at once.
    Again,
    /// Nothing is due before this has passed, unless something comes in.
    Sleep(Duration),
}

/// The core and what its outputs need.
pub(super) struct Driver {
    member: MemberId,
    boot: BootId,
    replica: Replica<Lmdb>,
    wal: Wal<FileMedium>,
    shared: Arc<Shared>,
    checkpointer: Checkpointer,
    /// Clients waiting for a verdict, in the order they asked.
    asked: BTreeMap<Sequence, oneshot::Sender<Result<crate::machine::Answer, Unserved>>>,
    /// Clients waiting for leave to read.
    reading: BTreeMap<ReadId, oneshot::Sender<Result<LogIndex, Unserved>>>,
    /// The log job that found the disk full.
    stalled: Option<(JobId, LogBatch)>,
    /// The log job for the next turn, as this one has made its flush.
    held: Option<(JobId, LogBatch)>,
    /// Whether this turn has written the log.
    has_written: bool,
    /// What ended this member.
    fault: Option<Fault>,
    next_tick: Instant,
    /// How many requests the last batch held.
    last_batch: usize,
    /// How long the last flush of the log took.
    last_flush: Duration,
    last_sequence: Sequence,
    /// Whether requests came since the last tick.
    is_busy: bool,
    /// Whether a checkpoint has freed memory that may still be this process'.
    has_spare_memory: bool,
    last_read: ReadId,
    outputs: Vec<Output<Lmdb>>,
    /// Watchers to wake when the answers that wait with their changes have left.
    woken: Vec<Arc<Notify>>,
}

impl Driver {
    pub(super) fn new(opened: Opened, shared: Arc<Shared>, checkpointer: Checkpointer) -> Self {
        Self {
            member: opened.member,
            boot: opened.boot,
            replica: opened.replica,
            wal: opened.wal,
            shared,
            checkpointer,
            asked: BTreeMap::new(),
            reading: BTreeMap::new(),
            stalled: None,
            held: None,
            has_written: false,
            fault: None,
            next_tick: Instant::now(),
            last_batch: 0,
            last_flush: Duration::ZERO,
            last_sequence: Sequence(0),
            is_busy: false,
            has_spare_memory: false,
            last_read: ReadId(0),
            outputs: Vec::new(),
            woken: Vec::new(),
        }
    }

    /// Whether a turn is short enough to be taken on a thread that serves clients: one request at
    /// a time has come in lately, and the disk answers fast.
    pub(super) fn is_brisk(&self) -> bool {
        self.last_batch <= 1 && self.last_flush <= Duration::from_micros(LENT_FLUSH_MICROS_MAX)
    }

    /// Takes in what waits and does what is due. After a fault it only asks to be finished.
    pub(super) fn turn(&mut self) -> Next {
        if self.fault.is_some() {
            return Next::Stop;
        }
        // Raft's own invariants are panics. One that breaks stops this member, not its process'
        // duty to say so and to end non-zero.
        let taken = catch_unwind(AssertUnwindSafe(|| self.take_turn()));
        taken.unwrap_or_else(|_| Err(panicked())).unwrap_or_else(|fault| {
            self.fault = Some(fault);
            Next::Stop
        })
    }

    fn take_turn(&mut self) -> Result<Next, Fault> {
        let Some(waiting) = self.shared.inbox.take() else { return Ok(Next::Stop) };
        self.has_written = false;
        if let Some((job, batch)) = self.held.take() {
            self.write_late(job, batch)?;
        }
        self.take_in(waiting)?;
        let now = Instant::now();
        if now >= self.next_tick {
            self.tick(now)?;
        } else if self.replica.wants_turn() {
            self.handle(Input::Continue)?;
        }
        self.shared.inbox.unanswered(self.asked.len());
        self.shared.turns.fetch_add(1, Ordering::Relaxed);
        let wants_more = self.replica.wants_turn() || self.held.is_some();
        Ok(if wants_more { Next::Again } else { Next::Sleep(self.next_tick - now) })
    }

    fn tick(&mut self, now: Instant) -> Result<(), Fault> {
        // A gap (a paused process, a slow disk) counts as one election timeout at most.
        let missed = now.duration_since(self.next_tick).as_millis() / u128::from(TICK_MS);
        for _ in 0..=missed.min(ELECTION_TICKS as u128) {
            self.handle(Input::Tick)?;
        }
        self.next_tick = now + Duration::from_millis(TICK_MS);
        let (committed, machine) = (self.replica.status().committed, self.replica.machine());
        let (overlay, history) = (machine.overlay_bytes(), machine.history().bytes);
        self.shared.meters.ticked(committed, overlay, history);
        if !std::mem::take(&mut self.is_busy) && std::mem::take(&mut self.has_spare_memory) {
            memory::give_back();
        }
        self.write_stalled()
    }

    /// Feeds the core what waited, as one batch of each kind.
    fn take_in(&mut self, waiting: Waiting) -> Result<(), Fault> {
        for finished in waiting.finished {
            match finished {
                Finished::Checkpoint(done, written) => {
                    self.handle(Input::CheckpointDone(written?))?;
                    drop(done);
                    self.has_spare_memory = true;
                }
            }
        }
        if !waiting.proposals.is_empty() {
            self.last_batch = waiting.proposals.len();
            self.is_busy = true;
            let requests = waiting.proposals.into_iter().map(|asked| self.number(asked)).collect();
            self.handle(Input::Propose(requests))?;
        }
        if !waiting.reads.is_empty() {
            let ids = waiting.reads.into_iter().map(|asked| self.number_read(asked)).collect();
            self.handle(Input::Read(ids))?;
        }
        Ok(())
    }

    fn number(&mut self, asked: Asked) -> Request {
        self.last_sequence = self.last_sequence.next();
        let sequence = self.last_sequence;
        self.asked.insert(sequence, asked.reply);
        let proposal = Proposal {
            origin: self.member,
            boot: self.boot,
            sequence,
            trace: 0,
            principal: None,
            commands: asked.commands,
        };
        Request { sequence, proposal: proposal.encode().into() }
    }

    fn number_read(&mut self, asked: AskedRead) -> ReadId {
        self.last_read = ReadId(self.last_read.0 + 1);
        self.reading.insert(self.last_read, asked.reply);
        self.last_read
    }

    /// Gives the core an input and carries out everything that follows from it.
    fn handle(&mut self, input: Input<Lmdb>) -> Result<(), Fault> {
        let mut outputs = VecDeque::new();
        let mut next = Some(input);
        loop {
            if let Some(input) = next.take() {
                self.replica.handle(self.shared.clock.now(), input, &mut self.outputs);
                outputs.extend(self.outputs.drain(..));
            }
            let Some(output) = outputs.pop_front() else { break };
            next = self.carry_out(output)?;
        }
        // A thousand woken tasks in front of the one that answers the write would delay it by all
        // of theirs. The changes themselves are in the ring since before the answer.
        self.woken.drain(..).for_each(|watcher| watcher.notify_one());
        Ok(())
    }

    /// Carries out one output; some are done at once and give the next input.
    fn carry_out(&mut self, output: Output<Lmdb>) -> Result<Option<Input<Lmdb>>, Fault> {
        match output {
            Output::WriteLog { job, batch } if self.has_written => self.held = Some((job, batch)),
            Output::WriteLog { job, batch } => return self.write_log(job, batch),
            Output::Publish { view, changes } => {
                self.shared.meters.published(&changes);
                self.shared.clock.learn(self.replica.machine().clock());
                self.shared.view.store(Arc::new(view));
                self.woken.extend(self.shared.watches.publish(changes));
            }
            Output::Answer { sequence, outcome } => {
                if let Some(reply) = self.asked.remove(&sequence) {
                    // A client that went away needs no answer.
                    let _ = reply.send(settled(outcome));
                }
            }
            Output::ReadReady { ids, applied } => self.release_reads(ids, Ok(applied)),
            Output::ReadFailed(ids) => self.release_reads(ids, Err(Unserved::NoLeader)),
            Output::Checkpoint(checkpoint) => self.checkpointer.begin(checkpoint)?,
            Output::ReleaseLog { upto } => self.wal.release(upto).map_err(log_fault)?,
            Output::Role(role) => self.change_role(role),
            Output::Fault(fault) => return Err(fault),
            // This member is alone: nobody to send to, and no door changes its members yet.
            other @ (Output::Send(..)
            | Output::BuildSnapshot(_)
            | Output::DropSnapshot(_)
            | Output::SendSnapshot { .. }
            | Output::InstallSnapshot { .. }
            | Output::DiscardSnapshot { .. }
            | Output::MembersChanged { .. }) => {
                let what = format!("a sole voter was asked to {}", other.name());
                return Err(Fault::Invariant(what));
            }
        }
        Ok(None)
    }

    /// Makes a batch durable, or keeps it for later when the disk is full: reads go on meanwhile,
    /// the requests in it end as unknown if it lasts, new ones are refused, and nothing is
    /// acknowledged. Any other error ends this member.
    fn write_log(&mut self, job: JobId, batch: LogBatch) -> Result<Option<Input<Lmdb>>, Fault> {
        self.has_written = true;
        match self.wal.write(&batch) {
            Ok(()) => {
                let began = Instant::now();
                self.wal.sync().map_err(log_fault)?;
                self.last_flush = began.elapsed();
                self.shared.meters.flushes.record(self.last_flush);
            }
            Err(full) if full.is_no_space() => {
                if !self.shared.space.log_waits.swap(true, Ordering::Relaxed) {
                    tracing::error!("{}: writes wait until there is space", chain(&full));
                }
                self.stalled = Some((job, batch));
                return Ok(None);
            }
            Err(error) => return Err(log_fault(error)),
        }
        if self.shared.space.log_waits.swap(false, Ordering::Relaxed) {
            tracing::info!("there is space again: writes go on");
        }
        Ok(Some(Input::LogDone(job)))
    }

    /// Tries again what found the disk full.
    fn write_stalled(&mut self) -> Result<(), Fault> {
        match self.stalled.take() {
            Some((job, batch)) => self.write_late(job, batch),
            None => Ok(()),
        }
    }

    /// Writes what an earlier turn could not.
    fn write_late(&mut self, job: JobId, batch: LogBatch) -> Result<(), Fault> {
        match self.write_log(job, batch)? {
            Some(done) => self.handle(done),
            None => Ok(()),
        }
    }

    fn release_reads(&mut self, ids: Vec<ReadId>, leave: Result<LogIndex, Unserved>) {
        for id in ids {
            if let Some(reply) = self.reading.remove(&id) {
                let _ = reply.send(leave);
            }
        }
    }

    fn change_role(&mut self, change: RoleChange) {
        self.shared.reads_alone.store(change.reads_alone, Ordering::Release);
        let old = self.shared.status.load();
        let (role, leader, term) = (change.role, change.leader, change.term);
        if (old.role, old.leader, old.term) == (role, leader, term) {
            return;
        }
        match leader {
            Some(leader) => tracing::info!("{} of term {term}, led by {leader}", role.name()),
            None => tracing::info!("{} of term {term}, without a leader", role.name()),
        }
        let mut status = Status { role, leader, term, ..Status::clone(&old) };
        if leader != old.leader || (leader.is_some() && term != old.term) {
            status.leader_since = clock::wall();
            leader.iter().for_each(|_| self.shared.meters.leader_came());
        }
        self.shared.status.store(Arc::new(status));
    }

    /// The end: a polite one brings what is applied into a last checkpoint, so that the next start
    /// replays nothing. Every client that still waits is told that the member stops.
    pub(super) fn finish(mut self) -> Result<(), Fault> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let finished = catch_unwind(AssertUnwindSafe(|| self.write_last_checkpoint()));
        finished.unwrap_or_else(|_| Err(panicked()))?;
        self.wal.close().map_err(log_fault)
    }

    fn write_last_checkpoint(&mut self) -> Result<(), Fault> {
        self.checkpointer.join();
        for finished in self.shared.inbox.take_rest().finished {
            let Finished::Checkpoint(_, written) = finished;
            self.handle(Input::CheckpointDone(written?))?;
        }
        if let Some(last) = self.replica.last_checkpoint() {
            let written = last.run()?;
            self.wal.release(written.applied).map_err(log_fault)?;
        }
        Ok(())
    }
}

fn panicked() -> Fault {
    Fault::Invariant("the core panicked; see the line above".into())
}

fn settled(outcome: Settled) -> Result<crate::machine::Answer, Unserved> {
    match outcome {
        Settled::Applied(answer) => Ok(answer),
        Settled::CertainlyNot(NotServed::NoLeader) => Err(Unserved::NoLeader),
        Settled::CertainlyNot(NotServed::Busy) => Err(Unserved::Busy),
        Settled::Unknown => Err(Unserved::Unknown),
    }
}

fn log_fault(error: WalError) -> Fault {
    Fault::Storage { doing: "writing the log".into(), source: std::io::Error::other(error) }
}
