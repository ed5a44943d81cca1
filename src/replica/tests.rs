//! One member by itself, and two that talk: which outputs follow which input, in which order.
//!
//! Whole clusters with faults are `tests/sim.rs`; here each test shows one rule.

use crate::base::{
    BootId, ClusterId, Fault, KeyPath, LogIndex, MemberId, Sequence, Term, Ttl, WallTime, limits,
};
use crate::machine::{Command, Content, Genesis, Machine, Outcome, Proposal, Put};
use crate::replica::{
    ChangeId, Config, Input, JobId, MemberChange, NotServed, Now, Output, PeerMessage, ReadId,
    Replica, Request, Role, Settled, Unchanged,
};
use crate::store::wal::{LogBatch, Recovered};
use crate::store::{Membership, MemoryBase};
use raft::eraftpb::{Entry, HardState, Message, MessageType};

type Out = Output<MemoryBase>;

const ONE: MemberId = MemberId(1);
const TWO: MemberId = MemberId(2);

/// A member, its log as a driver would have written it, and a clock.
struct Bench {
    replica: Replica<MemoryBase>,
    base: MemoryBase,
    log: Recovered,
    /// What the disk has been asked for.
    job: Option<(JobId, LogBatch)>,
    now_ms: u64,
    sequence: u64,
}

fn config(member: MemberId, base_made_at: LogIndex) -> Config {
    Config { member, boot: BootId(7), seed: 1, base_made_at }
}

fn founded(voters: &[MemberId], index: u64) -> MemoryBase {
    let base = MemoryBase::default();
    let membership = Membership { voters: voters.to_vec(), ..Membership::default() };
    let (index, term) = (LogIndex(index), Term(index.min(1)));
    let genesis = Genesis { cluster: ClusterId(9), member: ONE, membership, index, term };
    Machine::create(base.clone(), genesis).unwrap();
    base
}

fn open(base: &MemoryBase, log: Recovered, made_at: u64) -> Result<Replica<MemoryBase>, Fault> {
    let machine = Machine::open(base.clone()).unwrap().unwrap();
    Replica::open(config(ONE, LogIndex(made_at)), machine, log)
}

impl Bench {
    fn new(voters: &[MemberId]) -> Self {
        let base = founded(voters, 1);
        let replica = open(&base, Recovered::default(), 1).unwrap();
        Self { replica, base, log: Recovered::default(), job: None, now_ms: 0, sequence: 0 }
    }

    /// A sole voter that leads, with everything durable.
    fn leader() -> Self {
        let mut bench = Self::new(&[ONE]);
        bench.tick();
        bench.quiet();
        assert_eq!(bench.replica.status().role.role, Role::Leader);
        bench
    }

    fn handle(&mut self, input: Input<MemoryBase>) -> Vec<Out> {
        let mut out = Vec::new();
        let now = Now { mono_ms: self.now_ms, wall: WallTime(self.now_ms) };
        self.replica.handle(now, input, &mut out);
        if let Some(Output::WriteLog { job, batch }) = out.last() {
            self.job = Some((*job, batch.clone()));
        }
        out
    }

    fn tick(&mut self) -> Vec<Out> {
        self.now_ms += limits::TICK_MS;
        self.handle(Input::Tick)
    }

    /// Writes what is to be written until nothing is left; gives everything that came out.
    fn quiet(&mut self) -> Vec<Out> {
        let mut all = self.handle(Input::Continue);
        while let Some((job, batch)) = self.job.take() {
            self.write(&batch);
            all.extend(self.handle(Input::LogDone(job)));
        }
        all
    }

    fn write(&mut self, batch: &LogBatch) {
        if let Some(at) = batch.snapshot {
            (self.log.snapshot, self.log.entries) = (Some(at), Vec::new());
        }
        if let Some(first) = batch.entries.first() {
            self.log.entries.retain(|entry| entry.index < first.index);
            self.log.entries.extend(batch.entries.iter().cloned());
        }
        if let Some(hard_state) = &batch.hard_state {
            self.log.hard_state = hard_state.clone();
        }
    }

    fn request(&mut self, commands: Vec<Command>) -> Request {
        self.sequence += 1;
        request(ONE, self.sequence, commands)
    }

    fn propose(&mut self, count: usize) -> Vec<Out> {
        let requests = (0..count).map(|at| self.request(vec![set(at, None)])).collect();
        self.handle(Input::Propose(requests))
    }
}

fn request(origin: MemberId, sequence: u64, commands: Vec<Command>) -> Request {
    let sequence = Sequence(sequence);
    let boot = BootId(7);
    let proposal = Proposal { origin, boot, sequence, trace: 0, principal: None, commands };
    Request { sequence, proposal: proposal.encode().into() }
}

fn set(at: usize, ttl: Option<Ttl>) -> Command {
    let path = KeyPath::clean(format!("/k{at}").as_bytes()).unwrap();
    let content = Content::File("value".into());
    Command::Set(Put { path, content, ttl, refresh: false })
}

fn names(out: &[Out]) -> Vec<&'static str> {
    out.iter().map(Output::name).collect()
}

fn message(kind: MessageType, from: MemberId, term: u64) -> Message {
    let mut message = Message { from: from.0, to: ONE.0, term, ..Message::default() };
    message.set_msg_type(kind);
    message
}

fn raft(message: Message) -> Input<MemoryBase> {
    Input::Peer(MemberId(message.from), PeerMessage::Raft(Box::new(message)))
}

#[test]
fn a_sole_voter_writes_then_publishes_then_answers() {
    let mut bench = Bench::leader();
    let out = bench.propose(2);
    assert_eq!(names(&out), ["write the log"]);
    let (job, batch) = bench.job.take().unwrap();
    assert_eq!(batch.entries.len(), 2);
    let out = bench.handle(Input::LogDone(job));
    assert_eq!(names(&out), ["publish a View", "answer a request", "answer a request"]);
    let Some(Output::Answer { sequence: Sequence(2), outcome }) = out.last() else {
        panic!("not the second answer")
    };
    let Settled::Applied(answer) = outcome else { panic!("{outcome:?}") };
    assert!(matches!(answer.verdict.as_deref(), Ok([Outcome::Changed(_)])));
}

#[test]
fn a_founders_marker_and_vote_are_durable_before_it_leads_anyone() {
    let mut bench = Bench::new(&[ONE]);
    let out = bench.tick();
    assert_eq!(names(&out), ["note who leads", "write the log"]);
    let Some(Output::WriteLog { batch, .. }) = out.last() else { unreachable!() };
    assert_eq!(batch.snapshot, Some((LogIndex(1), Term(1))));
    assert_eq!(batch.hard_state.as_ref().map(|state| (state.term, state.vote)), Some((2, 1)));
    assert_eq!(batch.entries.len(), 1, "the new leader's own entry");
    let role = bench.replica.status().role;
    assert!(role.role == Role::Leader && !role.reads_alone, "{role:?}");
}

#[test]
fn proposals_during_a_flush_share_the_next_one() {
    let mut bench = Bench::leader();
    let out = bench.propose(1);
    let Some(Output::WriteLog { job, .. }) = out.last() else { unreachable!() };
    let first = *job;
    assert!(bench.propose(3).is_empty() && bench.propose(2).is_empty());
    let out = bench.handle(Input::LogDone(first));
    assert_eq!(names(&out), ["publish a View", "answer a request", "write the log"]);
    let Some(Output::WriteLog { batch, .. }) = out.last() else { unreachable!() };
    assert_eq!(batch.entries.len(), 5);
    assert!(bench.handle(Input::LogDone(first)).is_empty(), "a job is done once");
}

#[test]
fn a_sole_voter_answers_reads_without_a_round() {
    let mut bench = Bench::leader();
    let out = bench.handle(Input::Read(vec![ReadId(1), ReadId(2)]));
    assert_eq!(names(&out), ["release reads"]);
    assert!(bench.replica.status().role.reads_alone);
}

#[test]
fn without_a_leader_requests_and_reads_end_in_time() {
    let mut bench = Bench::new(&[ONE, TWO]);
    bench.propose(1);
    bench.handle(Input::Read(vec![ReadId(5)]));
    let mut ends = Vec::new();
    for _ in 0..=limits::REQUEST_TIMEOUT_MS / limits::TICK_MS {
        ends.extend(bench.tick());
        ends.extend(bench.quiet());
    }
    let outcome = ends.iter().find_map(|output| match output {
        Output::Answer { outcome, .. } => Some(outcome.clone()),
        _ => None,
    });
    assert_eq!(outcome, Some(Settled::CertainlyNot(NotServed::NoLeader)));
    assert!(ends.iter().any(|output| matches!(output, Output::ReadFailed(ids) if ids.len() == 1)));
}

#[test]
fn a_follower_hands_requests_to_the_leader_and_refuses_what_is_handed_to_it() {
    let mut bench = Bench::new(&[ONE, TWO]);
    bench.tick();
    bench.quiet();
    bench.handle(raft(message(MessageType::MsgHeartbeat, TWO, 3)));
    bench.quiet();
    let out = bench.propose(2);
    let [Output::Send(to, PeerMessage::Forward(requests))] = out.as_slice() else {
        panic!("{:?}", names(&out))
    };
    assert_eq!((*to, requests.len()), (TWO, 2));
    let forwarded = PeerMessage::Forward(vec![request(TWO, 9, vec![set(1, None)])]);
    let out = bench.handle(Input::Peer(TWO, forwarded));
    let [Output::Send(_, PeerMessage::Refused(refused))] = out.as_slice() else {
        panic!("{:?}", names(&out))
    };
    assert_eq!(refused, &[Sequence(9)]);
}

#[test]
fn an_unreadable_or_foreign_request_never_enters_the_log() {
    let mut bench = Bench::leader();
    let stranger = request(MemberId(3), 1, vec![set(1, None)]);
    let unnumbered = request(TWO, 0, vec![set(1, None)]);
    let noise = Request { sequence: Sequence(2), proposal: vec![255; 40].into() };
    let forwarded = PeerMessage::Forward(vec![stranger, unnumbered, noise]);
    assert!(bench.handle(Input::Peer(TWO, forwarded)).is_empty());
}

#[test]
fn messages_only_this_process_may_make_are_dropped() {
    let mut bench = Bench::new(&[ONE, TWO]);
    bench.tick();
    bench.quiet();
    for kind in [
        MessageType::MsgHup,
        MessageType::MsgBeat,
        MessageType::MsgPropose,
        MessageType::MsgSnapshot,
        MessageType::MsgUnreachable,
        MessageType::MsgSnapStatus,
        MessageType::MsgCheckQuorum,
        MessageType::MsgTransferLeader,
        MessageType::MsgTimeoutNow,
    ] {
        let out = bench.handle(raft(message(kind, TWO, 9)));
        assert!(out.is_empty(), "{kind:?}: {:?}", names(&out));
    }
    let forged = message(MessageType::MsgHeartbeat, MemberId(3), 9);
    assert!(bench.handle(Input::Peer(TWO, PeerMessage::Raft(Box::new(forged)))).is_empty());
    let mut gap = message(MessageType::MsgAppend, TWO, 9);
    gap.index = 1;
    gap.log_term = 1;
    gap.set_entries(vec![Entry { index: 3, term: 9, ..Entry::default() }].into());
    assert!(bench.handle(raft(gap)).is_empty());
}

#[test]
fn an_acknowledged_entry_that_is_gone_ends_the_member() {
    let mut bench = Bench::new(&[ONE, TWO]);
    bench.tick();
    bench.quiet();
    let mut heartbeat = message(MessageType::MsgHeartbeat, TWO, 9);
    heartbeat.commit = 500;
    let out = bench.handle(raft(heartbeat));
    let [Output::Fault(fault)] = out.as_slice() else { panic!("{:?}", names(&out)) };
    assert!(fault.to_string().contains("join it again"), "{fault}");
    assert!(bench.tick().is_empty(), "nothing comes after a fault");
}

#[test]
fn a_log_without_the_checkpoints_entry_is_refused_unless_the_base_is_new() {
    let base = founded(&[ONE], 50);
    assert!(open(&base, Recovered::default(), 50).is_ok());
    let Err(Fault::Damaged { what }) = open(&base, Recovered::default(), 3) else {
        panic!("opened over a lost log")
    };
    assert!(what.contains("entry 50 was acknowledged"), "{what}");
    let log = Recovered {
        hard_state: HardState { term: 1, commit: 70, ..HardState::default() },
        snapshot: Some((LogIndex(50), Term(1))),
        ..Recovered::default()
    };
    assert!(open(&base, log, 50).is_err(), "committed entries are gone");
}

#[test]
fn a_restart_goes_on_from_log_and_base() {
    let mut bench = Bench::leader();
    bench.propose(3);
    bench.quiet();
    let sums = bench.replica.machine().sums();
    assert_ne!(sums, Machine::open(bench.base.clone()).unwrap().unwrap().sums());
    bench.replica = open(&bench.base, bench.log.clone(), 1).unwrap();
    bench.tick();
    bench.quiet();
    assert_eq!(bench.replica.machine().revision().0, 4);
    assert_eq!(bench.replica.machine().sums().live, sums.live);
}

#[test]
fn a_quiet_overlay_is_checkpointed_and_forgotten_when_durable() {
    let mut bench = Bench::leader();
    bench.propose(1);
    bench.quiet();
    let mut out = bench.tick();
    while !out.iter().any(|output| matches!(output, Output::Checkpoint(_))) {
        out = bench.tick();
        assert!(bench.now_ms < 3_000, "no checkpoint");
    }
    let Some(Output::Checkpoint(checkpoint)) = out.pop() else { panic!("{:?}", names(&out)) };
    assert!(bench.replica.machine().is_frozen());
    let written = checkpoint.run().unwrap();
    bench.handle(Input::CheckpointDone(written));
    assert!(!bench.replica.machine().is_frozen());
    let out = bench.handle(Input::CheckpointDone(written));
    assert!(matches!(out.as_slice(), [Output::Fault(_)]), "it was asked for once");
}

#[test]
fn what_outlives_its_deadline_expires_by_the_leaders_clock() {
    let mut bench = Bench::leader();
    let mortal = set(1, Ttl::from_seconds(2));
    let request = bench.request(vec![mortal]);
    bench.handle(Input::Propose(vec![request]));
    bench.quiet();
    let born_ms = bench.now_ms;
    while bench.replica.machine().has_deadlines() {
        bench.tick();
        bench.quiet();
        assert!(bench.now_ms < born_ms + 5_000, "it lives for ever");
    }
    assert!(bench.now_ms >= born_ms + 2_000);
}

#[test]
fn members_change_one_at_a_time_and_only_through_the_leader() {
    let mut bench = Bench::leader();
    let learner = vec![MemberChange::AddLearner(TWO)];
    bench.handle(Input::ChangeMembers(ChangeId(1), learner.clone()));
    let out = bench.handle(Input::ChangeMembers(ChangeId(2), learner));
    let busy = |output: &Out| {
        matches!(output, Output::MembersChanged { id, outcome }
            if (*id, *outcome) == (ChangeId(2), Err(Unchanged::Busy)))
    };
    assert!(out.iter().any(busy), "{:?}", names(&out));
    let out = bench.quiet();
    let done =
        |output: &Out| matches!(output, Output::MembersChanged { id: ChangeId(1), outcome: Ok(_) });
    assert!(out.iter().any(done), "{:?}", names(&out));
    assert_eq!(bench.replica.membership().learners, [TWO]);
    // A voter that never comes: the sole voter's easy reads are over.
    bench.handle(Input::ChangeMembers(ChangeId(3), vec![MemberChange::Promote(TWO)]));
    bench.quiet();
    assert!(!bench.replica.status().role.reads_alone);
}
