//! The world: virtual time, a network, faults, hosts and clients, and one queue of events.
//!
//! Events stand in a queue by time and number; each is carried out against one host, whose outputs
//! become new events. Chance comes from the seed alone, so a run is a function of its scenario and
//! two runs have one trace. Time is in microseconds.
//!
//! A run has two parts: trouble, then peace, in which everything heals and the members must come
//! to one state.

use crate::chance::{Chance, Trace};
use crate::checker::{self, Finding};
use crate::clients::{self, Ask, Client};
use crate::host::{Host, Run, Stream, build_stream, load_stream};
use crate::truth::{Breach, DRIFT_PPM_MAX, Truth, Watcher};
use althing::base::{Fault, MemberId, Revision};
use althing::machine::{self, Change, Command, Listing};
use althing::replica::{
    ChangeId, Input, JobId, MemberChange, Output, PeerMessage, Role, Settled, SnapshotId,
};
use althing::store::checkpoint::Written;
use althing::store::wal::{LogBatch, Survival};
use althing::store::{MemoryBase, Position, Reader, View};
use raft::eraftpb::{Message, MessageType};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

const MS: u64 = 1_000;
const SECOND: u64 = 1_000 * MS;

/// Peace at the end of a run: long enough for restarts, an election and a snapshot.
const PEACE_US: u64 = 15 * SECOND;

/// A lie the environment tells the members: each must be noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A log job is reported durable before it is.
    EarlyAck,
    /// A watcher is not told of some records.
    LostWatchEvent,
    /// A leader's clock runs three times too fast.
    EarlyExpiry,
    /// Reads are served without asking the leader.
    StaleRead,
    /// Votes are not written.
    ForgottenVote,
    /// The overlay is dropped before its checkpoint is in the base.
    EarlyThaw,
}

/// What to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) voters: u64,
    pub(crate) seconds: u64,
    /// Whether a member joins and becomes a voter.
    pub(crate) learner: bool,
    /// Leaders come and go all the time.
    pub(crate) restless: bool,
    pub(crate) bug: Option<Bug>,
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) trace: u64,
    pub(crate) events: u64,
    pub(crate) asked: u64,
    pub(crate) answered: u64,
    pub(crate) crashes: u64,
    pub(crate) elections: u64,
    pub(crate) snapshots: u64,
    pub(crate) expired: u64,
    pub(crate) undecided: u64,
    pub(crate) disk_failures: u64,
}

enum Event {
    Tick(usize, u64),
    Continue(usize, u64),
    Deliver(usize, usize, PeerMessage),
    Flushed(usize, u64),
    CheckpointRuns(usize, u64),
    CheckpointDone(usize, u64),
    StreamBuilt(usize, u64, SnapshotId),
    StreamSent {
        from: usize,
        run: u64,
        to: usize,
        message: Box<Message>,
        chunks: Stream,
    },
    Client(usize),
    Start(usize),
    Trouble,
    /// The power fails for a moment, right after a vote.
    Falter(usize, u64),
    Compact,
    Join(MemberChange),
    Peace,
}

/// The world of one run.
pub(crate) struct World {
    scenario: Scenario,
    chance: Chance,
    now_us: u64,
    number: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    hosts: Vec<Host>,
    clients: Vec<Client>,
    truth: Truth,
    trace: Trace,
    at_peace: bool,
    joins: u64,
    report: Report,
}

/// Runs a scenario to its end.
///
/// # Errors
/// The first breach, with the seed and the number of the event that brought it.
pub(crate) fn run(scenario: Scenario) -> Result<Report, String> {
    let mut world = World::new(scenario);
    world.run().map_err(|breach| {
        let (seed, event, ms) = (scenario.seed, world.report.events, world.now_us / MS);
        format!("seed {seed}, event {event}, {ms} ms: {breach}; {scenario:?}")
    })?;
    world.report.trace = world.trace.0;
    Ok(world.report)
}

impl World {
    fn new(scenario: Scenario) -> Self {
        let mut chance = Chance::new(scenario.seed);
        let rate = |chance: &mut Chance| {
            let drift = i64::try_from(chance.below(2 * DRIFT_PPM_MAX)).unwrap();
            drift - i64::try_from(DRIFT_PPM_MAX).unwrap()
        };
        let host = |id| Host::new(id, Some(scenario.voters), rate(&mut chance));
        let mut hosts: Vec<_> = (1..=scenario.voters).map(host).collect();
        if scenario.learner {
            hosts.push(Host::new(scenario.voters + 1, None, rate(&mut chance)));
        }
        if scenario.bug == Some(Bug::EarlyExpiry) {
            hosts.iter_mut().for_each(|host| host.rate_ppm = 2_000_000);
        }
        let clients = (0..6).map(|_| Client::new()).collect();
        let mut world = Self {
            scenario,
            chance,
            now_us: 0,
            number: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            hosts,
            clients,
            truth: Truth::default(),
            trace: Trace::default(),
            at_peace: false,
            joins: 0,
            report: Report::default(),
        };
        world.populate();
        world
    }

    fn populate(&mut self) {
        for host in 0..self.hosts.len() {
            let joins_late = host as u64 >= self.scenario.voters;
            self.after(if joins_late { 5 * SECOND } else { 0 }, Event::Start(host));
        }
        for client in 0..self.clients.len() {
            self.after(SECOND + client as u64 * 10 * MS, Event::Client(client));
        }
        if self.scenario.learner {
            let newcomer = MemberId(self.scenario.voters + 1);
            self.after(6 * SECOND, Event::Join(MemberChange::AddLearner(newcomer)));
        }
        self.after(3 * SECOND, Event::Trouble);
        self.after(5 * SECOND, Event::Compact);
        self.after(self.scenario.seconds * SECOND - PEACE_US, Event::Peace);
    }

    fn after(&mut self, delay_us: u64, event: Event) {
        self.number += 1;
        self.queue.push(Reverse((self.now_us + delay_us, self.number)));
        self.events.insert(self.number, event);
    }

    fn run(&mut self) -> Result<(), Breach> {
        while let Some(Reverse((at_us, number))) = self.queue.pop() {
            let end_us = self.scenario.seconds * SECOND;
            // Whatever moves at the end (an expiry, say) may reach everyone.
            if at_us > end_us && (self.is_agreed() || at_us > end_us + 3 * SECOND) {
                break;
            }
            self.now_us = at_us;
            self.report.events += 1;
            self.trace.add(at_us);
            self.trace.add(number);
            if let Some(event) = self.events.remove(&number) {
                self.happen(event)?;
            }
        }
        self.judge()
    }

    fn happen(&mut self, event: Event) -> Result<(), Breach> {
        if let Some(until_us) = self.paused(&event) {
            let delay_us = until_us - self.now_us + self.chance.below(MS);
            self.after(delay_us, event);
            return Ok(());
        }
        match event {
            Event::Tick(host, run) if self.is_run(host, run) => {
                self.after(self.hosts[host].true_us(100), Event::Tick(host, run));
                self.feed(host, Input::Tick)
            }
            Event::Continue(host, run) if self.is_run(host, run) => {
                self.feed(host, Input::Continue)
            }
            Event::Deliver(from, to, message) => {
                if self.hosts[from].side != self.hosts[to].side {
                    return Ok(());
                }
                let from = self.hosts[from].id;
                self.feed(to, Input::Peer(from, message))
            }
            Event::Flushed(host, run) if self.is_run(host, run) => self.flushed(host),
            Event::CheckpointRuns(host, run) if self.is_run(host, run) => self.run_checkpoint(host),
            Event::CheckpointDone(host, run) if self.is_run(host, run) => {
                let written = self.run_of(host).written.take().unwrap();
                self.feed(host, Input::CheckpointDone(written))
            }
            Event::StreamBuilt(host, run, id) if self.is_run(host, run) => {
                self.feed(host, Input::SnapshotBuilt(id))
            }
            Event::StreamSent { from, run, to, message, chunks } => {
                self.stream_sent((from, run), to, message, &chunks)
            }
            Event::Falter(host, run) if self.is_run(host, run) => {
                self.cut_power(host, 4);
                Ok(())
            }
            Event::Client(client) => self.client_turn(client),
            Event::Start(host) => self.start(host),
            Event::Trouble => self.trouble(),
            Event::Compact => self.compact(),
            Event::Join(change) => self.join(change),
            Event::Peace => self.peace(),
            // Of a run that is over.
            Event::Tick(..)
            | Event::Continue(..)
            | Event::Falter(..)
            | Event::Flushed(..)
            | Event::CheckpointRuns(..)
            | Event::CheckpointDone(..)
            | Event::StreamBuilt(..) => Ok(()),
        }
    }

    /// Until when the event's host stands still.
    fn paused(&self, event: &Event) -> Option<u64> {
        let host = match event {
            Event::Tick(host, _)
            | Event::Continue(host, _)
            | Event::Deliver(_, host, _)
            | Event::Flushed(host, _)
            | Event::CheckpointDone(host, _) => *host,
            _ => return None,
        };
        Some(self.hosts[host].paused_until_us).filter(|until_us| *until_us > self.now_us)
    }

    fn is_run(&self, host: usize, run: u64) -> bool {
        self.hosts[host].run.is_some() && self.hosts[host].runs == run
    }

    fn run_of(&mut self, host: usize) -> &mut Run {
        self.hosts[host].run.as_mut().unwrap()
    }

    // --- members -------------------------------------------------------------------------------

    fn start(&mut self, host: usize) -> Result<(), Breach> {
        if self.hosts[host].run.is_some() {
            return Ok(());
        }
        let seed = self.scenario.seed;
        let started = self.hosts[host].start(seed);
        started.map_err(|fault| format!("member {} does not start: {fault}", host + 1))?;
        let run = self.hosts[host].runs;
        let delay_us = self.chance.below(100 * MS);
        self.after(delay_us, Event::Tick(host, run));
        Ok(())
    }

    /// Gives a member an input and carries out what it wants.
    fn feed(&mut self, host: usize, input: Input<MemoryBase>) -> Result<(), Breach> {
        let now = self.hosts[host].now(self.now_us);
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let Some(run) = &mut self.hosts[host].run else { return Ok(()) };
            let out = run.handle(now, input);
            let out = out.map_err(|words| format!("member {} panicked: {words}", host + 1))?;
            for output in out {
                self.carry_out(host, output, &mut inputs)?;
            }
        }
        let wants_turn = self.hosts[host].run.as_ref().is_some_and(|it| it.replica.wants_turn());
        if wants_turn {
            let run = self.hosts[host].runs;
            self.after(100, Event::Continue(host, run));
        }
        Ok(())
    }

    fn carry_out(
        &mut self,
        host: usize,
        output: Output<MemoryBase>,
        inputs: &mut Vec<Input<MemoryBase>>,
    ) -> Result<(), Breach> {
        let (run, member) = (self.hosts[host].runs, self.hosts[host].id);
        match output {
            Output::Send(to, message) => self.send(host, to, &message),
            Output::WriteLog { job, batch } => self.write_log(host, job, batch, inputs)?,
            Output::Publish { view, changes } => {
                self.run_of(host).view = view;
                self.published(host, &changes)?;
            }
            Output::Answer { sequence, outcome } => {
                let client = self.run_of(host).proposals.remove(&sequence).unwrap();
                self.settle(client, &outcome);
            }
            Output::ReadReady { ids, applied } => {
                let run = self.run_of(host);
                assert!(run.view.applied >= applied);
                let clients: Vec<_> = ids.iter().filter_map(|id| run.reads.remove(id)).collect();
                clients.into_iter().try_for_each(|client| self.look(host, client))?;
            }
            Output::ReadFailed(ids) => {
                let run = self.run_of(host);
                let clients: Vec<_> = ids.iter().filter_map(|id| run.reads.remove(id)).collect();
                clients.into_iter().for_each(|client| self.clients[client].not_served());
            }
            Output::Checkpoint(checkpoint) => {
                self.run_of(host).checkpoint = Some(checkpoint);
                self.after_checkpoint(host, run, inputs);
            }
            Output::ReleaseLog { upto } => {
                let released = self.run_of(host).wal.release(upto);
                released.map_err(|error| format!("member {member}: {error}"))?;
            }
            Output::Role(role) if role.role == Role::Leader => {
                self.report.elections += 1;
                self.truth.a_term_has_one_leader(role.term, member)?;
            }
            Output::Role(_) => {}
            Output::BuildSnapshot(id) => {
                let chunks = build_stream(&self.hosts[host].base).map_err(said(member))?;
                self.run_of(host).streams.insert(id, chunks);
                self.after(50 * MS, Event::StreamBuilt(host, run, id));
            }
            Output::DropSnapshot(id) => {
                self.run_of(host).streams.remove(&id);
            }
            Output::SendSnapshot { to, snapshot, message } => {
                let chunks = self.run_of(host).streams[&snapshot].clone();
                let to = usize::try_from(to.0 - 1).unwrap();
                let delay_us = self.chance.between(50, 800) * MS;
                self.after(delay_us, Event::StreamSent { from: host, run, to, message, chunks });
            }
            Output::InstallSnapshot { base, view } => self.installed(host, base, view)?,
            Output::DiscardSnapshot { base } => drop(base),
            Output::MembersChanged { id, outcome } => self.members_changed(id, outcome.is_ok()),
            Output::Fault(fault) => return Err(said(member)(fault)),
        }
        Ok(())
    }

    fn write_log(
        &mut self,
        host: usize,
        job: JobId,
        mut batch: LogBatch,
        inputs: &mut Vec<Input<MemoryBase>>,
    ) -> Result<(), Breach> {
        let bug = self.scenario.bug;
        if bug == Some(Bug::ForgottenVote) {
            batch.hard_state.iter_mut().for_each(|state| state.vote = 0);
        }
        let (run, now_us) = (self.hosts[host].runs, self.now_us);
        let slow = self.hosts[host].slow_disk_until_us > now_us;
        let it = self.run_of(host);
        if bug == Some(Bug::EarlyAck) {
            // The wrong driver: says "durable" at once, and flushes before the next write.
            inputs.push(Input::LogDone(job));
            it.wal.sync().map_err(|error| error.to_string())?;
            return it.wal.write(&batch).map_err(|error| error.to_string());
        }
        if it.flushing.replace(job).is_some() {
            return Err("two log jobs in flight".into());
        }
        it.wal.write(&batch).map_err(|error| error.to_string())?;
        let delay_us =
            if slow { self.chance.between(20, 400) * MS } else { self.chance.between(100, 4_000) };
        self.after(delay_us, Event::Flushed(host, run));
        Ok(())
    }

    fn flushed(&mut self, host: usize) -> Result<(), Breach> {
        if !self.at_peace && self.chance.below(8_000) == 0 {
            self.hosts[host].disk.fail_next_sync();
        }
        let run = self.run_of(host);
        let job = run.flushing.take().unwrap();
        match run.wal.sync() {
            Ok(()) => self.feed(host, Input::LogDone(job)),
            Err(_) => {
                // As the real driver: the process ends; what the disk still holds decides.
                self.report.disk_failures += 1;
                self.stop(host, 3_000);
                Ok(())
            }
        }
    }

    fn after_checkpoint(&mut self, host: usize, run: u64, inputs: &mut Vec<Input<MemoryBase>>) {
        let delay_us = self.chance.between(1, 40) * MS;
        if self.scenario.bug == Some(Bug::EarlyThaw) {
            let applied = self.run_of(host).view.applied;
            let written = Written { applied, purged: 0, more_to_purge: false };
            inputs.push(Input::CheckpointDone(written));
        }
        self.after(delay_us, Event::CheckpointRuns(host, run));
    }

    fn run_checkpoint(&mut self, host: usize) -> Result<(), Breach> {
        let (run, member) = (self.hosts[host].runs, self.hosts[host].id);
        let Some(checkpoint) = self.run_of(host).checkpoint.take() else { return Ok(()) };
        let written = checkpoint.run().map_err(said(member))?;
        if self.scenario.bug != Some(Bug::EarlyThaw) {
            self.run_of(host).written = Some(written);
            let delay_us = self.chance.between(0, 10) * MS;
            self.after(delay_us, Event::CheckpointDone(host, run));
        }
        Ok(())
    }

    fn installed(
        &mut self,
        host: usize,
        base: MemoryBase,
        view: View<MemoryBase>,
    ) -> Result<(), Breach> {
        self.report.snapshots += 1;
        let member = self.hosts[host].id;
        self.hosts[host].base = base;
        self.hosts[host].base_made_at = view.applied;
        self.check_state(host)?;
        let reader = open(&view, member)?;
        let run = self.run_of(host);
        run.view = view;
        // A cursor goes on in the new history; one too far behind is told where that begins.
        let mut watcher = run.watcher;
        if watcher.last.revision < reader.compacted() {
            watcher = Watcher::begin(reader.compacted());
        }
        let next = Position { sub: watcher.last.sub.saturating_add(1), ..watcher.last };
        for record in reader.history(next, reader.revision()).map_err(said(member))? {
            let record = record.map_err(said(member))?;
            if record.position > watcher.last {
                watcher.sees(record.position)?;
            }
        }
        self.run_of(host).watcher = watcher;
        Ok(())
    }

    // --- network -------------------------------------------------------------------------------

    fn send(&mut self, from: usize, to: MemberId, message: &PeerMessage) {
        let to = usize::try_from(to.0 - 1).unwrap();
        if to >= self.hosts.len() || self.hosts[from].side != self.hosts[to].side {
            return;
        }
        if !self.at_peace && self.chance.permille(20) {
            return;
        }
        if is_granted_vote(message)
            && !self.at_peace
            && self.chance.permille(if self.scenario.restless { 700 } else { 300 })
        {
            let (run, delay_us) = (self.hosts[from].runs, self.chance.below(MS));
            self.after(delay_us, Event::Falter(from, run));
        }
        let copies = if self.chance.permille(15) { 2 } else { 1 };
        for _ in 0..copies {
            let late = self.chance.permille(10);
            let delay_us = if late {
                self.chance.between(20, 500) * MS
            } else {
                self.chance.between(200, 5_000)
            };
            self.after(delay_us, Event::Deliver(from, to, message.clone()));
        }
    }

    fn stream_sent(
        &mut self,
        (from, run): (usize, u64),
        to: usize,
        message: Box<Message>,
        chunks: &Stream,
    ) -> Result<(), Breach> {
        let member = self.hosts[to].id;
        let reached = self.hosts[to].run.is_some()
            && self.hosts[from].side == self.hosts[to].side
            && !self.chance.permille(100);
        let mut complete = false;
        if reached {
            let mut chunks = chunks.to_vec();
            let damaged = !self.at_peace && self.chance.permille(100);
            if damaged {
                let (chunk, bit) = (self.chance.index(chunks.len()), self.chance.below(8));
                let byte = self.chance.index(chunks[chunk].len());
                chunks[chunk][byte] ^= 1 << bit;
            }
            match load_stream(&chunks, member) {
                Ok(_) if damaged => return Err("a damaged snapshot was accepted".into()),
                Ok(base) => {
                    complete = true;
                    self.feed(to, Input::SnapshotReceived { message, base })?;
                }
                Err(_) if damaged => {}
                Err(fault) => return Err(said(member)(fault)),
            }
        }
        if self.is_run(from, run) {
            self.feed(from, Input::SnapshotSent { to: member, complete })?;
        }
        Ok(())
    }

    // --- clients -------------------------------------------------------------------------------

    fn client_turn(&mut self, client: usize) -> Result<(), Breach> {
        let think_us = self.chance.between(20, 180) * MS;
        self.after(think_us, Event::Client(client));
        let over = self.now_us > self.scenario.seconds * SECOND - 4 * SECOND;
        let host = self.chance.index(self.hosts.len());
        if over || !self.clients[client].is_idle() || self.hosts[host].run.is_none() {
            return Ok(());
        }
        if self.hosts[host].paused_until_us > self.now_us {
            return Ok(());
        }
        let (time, value) = (self.report.events * 2, self.report.events);
        let clock = (time, self.now_us);
        let ask = self.clients[client].start(&mut self.chance, &mut self.truth, clock, value);
        self.clients[client].talks_to = Some((host, self.hosts[host].runs));
        let (member, bug) = (self.hosts[host].id, self.scenario.bug);
        let run = self.run_of(host);
        let input = match ask {
            Ask::Propose(commands) => Input::Propose(vec![run.request(member, client, commands)]),
            Ask::Read if bug == Some(Bug::StaleRead) => {
                return self.look(host, client);
            }
            Ask::Read => Input::Read(vec![run.read_id(client)]),
        };
        self.feed(host, input)
    }

    fn settle(&mut self, client: usize, outcome: &Settled) {
        // Odd times are returns, even ones calls.
        let time = self.report.events * 2 + 1;
        let Some(client) = self.clients.get_mut(client) else { return };
        match outcome {
            Settled::Applied(answer) => client.applied(answer, time),
            Settled::CertainlyNot(_) => client.not_served(),
            Settled::Unknown => client.unknown(),
        }
    }

    /// A read looks at the member's newest View.
    fn look(&mut self, host: usize, client: usize) -> Result<(), Breach> {
        let Some(at) = self.clients[client].reading() else { return Ok(()) };
        let member = self.hosts[host].id;
        let reader = open(&self.run_of(host).view, member)?;
        let found = machine::get(&reader, &clients::register(at), Listing::default());
        let seen = found
            .map_err(said(member))?
            .ok()
            .and_then(|node| node.value)
            .map(|value| clients::number(&value));
        self.clients[client].read(seen, self.report.events * 2 + 1);
        Ok(())
    }

    // --- what members claim --------------------------------------------------------------------

    fn published(&mut self, host: usize, changes: &[Change]) -> Result<(), Breach> {
        let member = self.hosts[host].id;
        for change in changes {
            let (position, digest) = (change.record.position, change.record.digest());
            self.truth.a_revision_has_one_content(member, position, digest)?;
            self.truth.nothing_expires_early(change, self.now_us)?;
            let lost = self.scenario.bug == Some(Bug::LostWatchEvent) && self.chance.permille(2);
            if !lost {
                let more = self.truth.follows_within(self.run_of_ref(host).watcher.last);
                let run = self.run_of(host);
                if more && position.revision > run.watcher.last.revision {
                    return Err(format!("a watcher missed the end of {:?}", run.watcher.last));
                }
                run.watcher.sees(position)?;
            }
        }
        let run = self.run_of_ref(host);
        if self.scenario.bug != Some(Bug::LostWatchEvent) {
            run.watcher.has_seen_all_of(run.view.revision)?;
        }
        self.check_state(host)
    }

    fn run_of_ref(&self, host: usize) -> &Run {
        self.hosts[host].run.as_ref().unwrap()
    }

    fn check_state(&mut self, host: usize) -> Result<(), Breach> {
        let (member, machine) = (self.hosts[host].id, self.run_of_ref(host).replica.machine());
        let (index, state) = (machine.applied(), (machine.revision(), machine.sums()));
        self.trace.add(index.0);
        self.trace.add(state.1.chain);
        self.truth.an_index_has_one_state(member, index, state)
    }

    // --- trouble -------------------------------------------------------------------------------

    fn trouble(&mut self) -> Result<(), Breach> {
        if self.at_peace {
            return Ok(());
        }
        let restless = self.scenario.restless;
        let delay_ms = if restless { (150, 600) } else { (300, 3_000) };
        let delay_us = self.chance.between(delay_ms.0, delay_ms.1) * MS;
        self.after(delay_us, Event::Trouble);
        let host = self.chance.index(self.hosts.len());
        // Of a restless world's troubles most are changes of leaders.
        let kind = if restless { 7 + self.chance.below(5) } else { self.chance.below(10) };
        match kind {
            0..=2 => self.cut_power(host, 3_000),
            3 => self.stop(host, 3_000),
            4 | 5 => {
                for host in &mut self.hosts {
                    host.side = self.chance.below(2);
                }
            }
            6 => self.hosts.iter_mut().for_each(|host| host.side = 0),
            7 => {
                let pause_us = self.chance.between(50, 6_000) * MS;
                self.hosts[host].paused_until_us = self.now_us + pause_us;
            }
            8 => {
                let slow_us = self.chance.between(500, 5_000) * MS;
                self.hosts[host].slow_disk_until_us = self.now_us + slow_us;
            }
            9 => {
                let to = MemberId(1 + self.chance.below(self.scenario.voters));
                return self.feed(host, Input::TransferLeadership(to));
            }
            _ => {
                let leader = self.leader().unwrap_or(host);
                self.stop(leader, 3_000);
            }
        }
        Ok(())
    }

    fn cut_power(&mut self, host: usize, down_ms_max: u64) {
        if self.hosts[host].run.is_none() {
            return;
        }
        self.stop(host, down_ms_max);
        let all = [
            Survival::Nothing,
            Survival::Everything,
            Survival::Prefix,
            Survival::Subset,
            Survival::Torn,
        ];
        let survival = all[self.chance.index(all.len())];
        let chance = &mut self.chance;
        self.hosts[host].disk.crash(survival, &mut |end| chance.below(end));
    }

    /// The process ends without a word; its clients know nothing.
    fn stop(&mut self, host: usize, down_ms_max: u64) {
        let Some(run) = self.hosts[host].run.take() else { return };
        self.report.crashes += 1;
        self.hosts[host].paused_until_us = 0;
        for client in run.proposals.into_values().chain(run.reads.into_values()) {
            if let Some(client) = self.clients.get_mut(client) {
                client.unknown();
            }
        }
        let delay_us = self.chance.below(down_ms_max * MS);
        self.after(delay_us, Event::Start(host));
    }

    /// A member that thinks it leads.
    fn leader(&self) -> Option<usize> {
        self.hosts.iter().position(|host| {
            host.run.as_ref().is_some_and(|run| run.replica.status().role.role == Role::Leader)
        })
    }

    fn compact(&mut self) -> Result<(), Breach> {
        self.after(2 * SECOND, Event::Compact);
        let Some(host) = self.leader() else { return Ok(()) };
        let member = self.hosts[host].id;
        let run = self.run_of(host);
        let upto = Revision(run.view.revision.0.saturating_sub(150));
        if upto <= run.view.compacted {
            return Ok(());
        }
        // No client has this number: nobody waits for it.
        let request = run.request(member, usize::MAX, vec![Command::Compact { upto }]);
        self.feed(host, Input::Propose(vec![request]))
    }

    fn join(&mut self, change: MemberChange) -> Result<(), Breach> {
        let (MemberChange::AddLearner(newcomer) | MemberChange::Promote(newcomer)) = change else {
            return Ok(());
        };
        let Some(host) = self.leader() else {
            self.after(SECOND, Event::Join(change));
            return Ok(());
        };
        let membership = self.run_of(host).replica.membership().clone();
        if membership.voters.contains(&newcomer) {
            return Ok(());
        }
        let next = if membership.learners.contains(&newcomer) {
            MemberChange::Promote(newcomer)
        } else {
            MemberChange::AddLearner(newcomer)
        };
        self.after(3 * SECOND, Event::Join(next));
        self.joins += 1;
        self.feed(host, Input::ChangeMembers(ChangeId(self.joins), vec![next]))
    }

    fn members_changed(&mut self, id: ChangeId, changed: bool) {
        self.trace.add(id.0);
        self.trace.add(changed.into());
    }

    fn peace(&mut self) -> Result<(), Breach> {
        self.at_peace = true;
        for host in 0..self.hosts.len() {
            self.hosts[host].side = 0;
            self.hosts[host].paused_until_us = 0;
            self.hosts[host].slow_disk_until_us = 0;
            self.start(host)?;
        }
        Ok(())
    }

    // --- the end -------------------------------------------------------------------------------

    fn judge(&mut self) -> Result<(), Breach> {
        self.all_members_agree()?;
        self.truth.acknowledged_writes_survive(&self.clients)?;
        self.truth.in_order_names_are_in_order(&self.clients)?;
        for register in 0..clients::REGISTERS {
            let histories = self.clients.iter().flat_map(|it| it.histories[register].clone());
            match checker::check(&histories.collect::<Vec<_>>(), 400_000) {
                Finding::Linearizable => {}
                Finding::Undecided => self.report.undecided += 1,
                Finding::NotLinearizable => {
                    return Err(format!("register {register} is not linearizable"));
                }
            }
        }
        self.report.asked = self.clients.iter().map(|client| client.asked).sum();
        self.report.answered = self.clients.iter().map(|client| client.answered).sum();
        self.report.expired = self.truth.expired;
        Ok(())
    }

    fn is_agreed(&self) -> bool {
        let applied = self
            .hosts
            .iter()
            .map(|host| host.run.as_ref().map(|run| run.replica.machine().applied()));
        applied.clone().all(|it| it.is_some()) && applied.clone().min() == applied.max()
    }

    fn all_members_agree(&self) -> Result<(), Breach> {
        let mut first = None;
        for host in &self.hosts {
            let Some(run) = &host.run else { return Err(format!("{} is down in peace", host.id)) };
            let machine = run.replica.machine();
            let state = (machine.applied(), machine.revision(), machine.sums());
            if *first.get_or_insert(state) != state {
                return Err(format!("in peace, {} is in {state:?}, not in {first:?}", host.id));
            }
            let reader = open(&run.view, host.id)?;
            let from = Position::start_of(reader.compacted().next());
            let mut seen = Vec::new();
            for record in reader.history(from, reader.revision()).map_err(said(host.id))? {
                let record = record.map_err(said(host.id))?;
                seen.push((record.position, record.digest()));
            }
            self.truth.history_is_whole(host.id, from, &seen)?;
        }
        Ok(())
    }
}

fn said(member: MemberId) -> impl Fn(Fault) -> Breach {
    move |fault| format!("member {member} stopped: {fault}")
}

/// The newest View can always be read.
fn open(view: &View<MemoryBase>, member: MemberId) -> Result<Reader<MemoryBase>, Breach> {
    let reader = view.read().map_err(said(member))?;
    reader.ok_or_else(|| format!("member {member}'s newest View is compacted away"))
}

/// Whether a member gives its vote away.
fn is_granted_vote(message: &PeerMessage) -> bool {
    let PeerMessage::Raft(message) = message else { return false };
    message.get_msg_type() == MessageType::MsgRequestVoteResponse && !message.reject
}
