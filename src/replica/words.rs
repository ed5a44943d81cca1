//! What goes into the consensus core and what comes out of it.
//!
//! `Replica::handle` is a function from inputs to outputs; these are the two alphabets. The driver
//! (floor `node`) owns clocks, sockets, files and threads: it turns what happens into an `Input`
//! and carries out each `Output` **in order**. Everything slow is an output with a number that
//! comes back as an input.
//!
//! Invariants:
//! * `Publish` stands before the `Answer`s and `ReadReady`s that rely on it.
//! * A `WriteLog` is answered by exactly one `LogDone`, after its bytes are durable; there is at
//!   most one unanswered, and it stands last. The same holds for `Checkpoint` and
//!   `CheckpointDone`.
//! * Every request ends in exactly one `Answer`, every read in one `ReadReady` or `ReadFailed`.
//! * After `Fault` nothing else comes out, whatever goes in.
//!
//! Deliberately not here: how peers' messages look on the wire.

use crate::base::{BootId, Fault, LogIndex, MemberId, Revision, Sequence, Term, WallTime};
use crate::machine::{Answer, Change};
use crate::store::View;
use crate::store::base::Base;
use crate::store::checkpoint::{Checkpoint, Written};
use crate::store::wal::LogBatch;
use bytes::Bytes;
use raft::eraftpb::Message;

/// The time of an input. `mono_ms` never goes back within one run; `wall` is for people only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a monotonic clock, counted from anywhere.
    pub mono_ms: u64,
    /// The wall clock; stamped into entries for display.
    pub wall: WallTime,
}

/// Who this member is, for one run of its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// This member.
    pub member: MemberId,
    /// This run; never used before by this member.
    pub boot: BootId,
    /// Where its election timeouts come from: members should differ.
    pub seed: u64,
    /// The applied index at which the base was *made*: by `Machine::create`, or from a received
    /// snapshot (`InstallSnapshot`). A later checkpoint does not change it. Remember it with the
    /// base: it tells a log whose marker for this base was not written from one that lost its end.
    pub base_made_at: LogIndex,
}

/// One client's work, on its way into the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its number in this run, from 1 and rising.
    pub sequence: Sequence,
    /// `machine::Proposal::encode` of it, with the same number inside.
    pub proposal: Bytes,
}

/// One linearizable read that waits for leave to look at a View. The driver gives the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadId(pub u64);

/// One membership change that waits for its outcome. The driver gives the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChangeId(pub u64);

/// One log job: a `WriteLog` and its `LogDone`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobId(pub u64);

/// A step of one member in or out of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// A new member that receives the log without voting.
    AddLearner(MemberId),
    /// A learner becomes a voter.
    Promote(MemberId),
    /// A member leaves for ever.
    Remove(MemberId),
}

/// What a peer sends. The wire encoding is not this floor's.
#[derive(Clone, Debug, PartialEq)]
pub enum PeerMessage {
    /// Raft's own conversation. Never holds a snapshot: see `Output::SendSnapshot`.
    Raft(Box<Message>),
    /// Requests of the sender, for the leader.
    Forward(Vec<Request>),
    /// The receiver of a `Forward` is not the leader or cannot take more: these were not logged.
    Refused(Vec<Sequence>),
}

/// What happened.
pub enum Input<B: Base> {
    /// `limits::TICK_MS` passed. The first may come at once after opening.
    Tick,
    /// The driver has nothing else to do and `Replica::wants_turn` is true.
    Continue,
    /// A message of an authenticated member of this cluster.
    Peer(MemberId, PeerMessage),
    /// Requests of this member's clients, in rising order.
    Propose(Vec<Request>),
    /// Linearizable reads of this member's clients.
    Read(Vec<ReadId>),
    /// The job's bytes are durable.
    LogDone(JobId),
    /// The checkpoint is durable.
    CheckpointDone(Written),
    /// The stream asked for by `BuildSnapshot` is complete and can be sent.
    SnapshotBuilt(SnapshotId),
    /// The stream could not be built; the replica asks again when it is needed.
    SnapshotFailed(SnapshotId),
    /// A `SendSnapshot` ended: the peer has all of it, or it was given up.
    SnapshotSent {
        /// The peer.
        to: MemberId,
        /// Whether the peer has all of it.
        complete: bool,
    },
    /// A peer's snapshot arrived whole, was verified and loaded into a new, durable base.
    SnapshotReceived {
        /// The message that came with it.
        message: Box<Message>,
        /// The base made of it by `store::stream`.
        base: B,
    },
    /// Change the membership; more than one step is made as one joint change.
    ChangeMembers(ChangeId, Vec<MemberChange>),
    /// Hand leadership to a voter, if this member leads.
    TransferLeadership(MemberId),
    /// A message to this peer was lost, as far as the transport knows.
    Unreachable(MemberId),
}

/// What to do about it.
pub enum Output<B: Base> {
    /// Send; may be lost.
    Send(MemberId, PeerMessage),
    /// Append the batch to the log and flush it, then `LogDone`.
    WriteLog {
        /// Comes back in `LogDone`.
        job: JobId,
        /// What to write.
        batch: LogBatch,
    },
    /// A new state: readers use it from now on, watchers get the changes.
    Publish {
        /// The state.
        view: View<B>,
        /// What happened since the last one, in order.
        changes: Vec<Change>,
    },
    /// What became of a request.
    Answer {
        /// The request.
        sequence: Sequence,
        /// Its end.
        outcome: Settled,
    },
    /// These reads may look at any View published up to here, or a later one.
    ReadReady {
        /// The reads.
        ids: Vec<ReadId>,
        /// What the View must have applied (it has).
        applied: LogIndex,
    },
    /// These reads found no leader in time.
    ReadFailed(Vec<ReadId>),
    /// Run it on a thread that may wait for the disk, then `CheckpointDone`.
    Checkpoint(Checkpoint<B>),
    /// The log up to and with this index is not needed any more: `Wal::release`.
    ReleaseLog {
        /// Last entry that is not needed.
        upto: LogIndex,
    },
    /// Who leads, who votes.
    Role(RoleChange),
    /// Make a stream of the base as it is now (`Store::open`, then `stream::write`, which begins to
    /// read at once) and keep it under this number; then `SnapshotBuilt` or `SnapshotFailed`. No
    /// checkpoint is asked for before that, unless the overlay is full.
    BuildSnapshot(SnapshotId),
    /// Remove the stream kept under this number.
    DropSnapshot(SnapshotId),
    /// Send the stream kept under `snapshot`, then the message; then `SnapshotSent`.
    SendSnapshot {
        /// The peer.
        to: MemberId,
        /// Which stream.
        snapshot: SnapshotId,
        /// The message that makes the peer install it.
        message: Box<Message>,
    },
    /// Make the received base the one a restart opens, durably, before carrying out any later
    /// output. The old one may go when its last reader has gone.
    InstallSnapshot {
        /// The new base.
        base: B,
        /// The state it holds.
        view: View<B>,
    },
    /// A received base is not needed: remove it.
    DiscardSnapshot {
        /// The base.
        base: B,
    },
    /// What became of a membership change.
    MembersChanged {
        /// The change.
        id: ChangeId,
        /// Its end.
        outcome: Result<LogIndex, Unchanged>,
    },
    /// Local trouble: stop acknowledging, log it, end the process.
    Fault(Fault),
}

impl<B: Base> Output<B> {
    /// What it asks for, in a word: for messages.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Send(..) => "send to a peer",
            Self::WriteLog { .. } => "write the log",
            Self::Publish { .. } => "publish a View",
            Self::Answer { .. } => "answer a request",
            Self::ReadReady { .. } => "release reads",
            Self::ReadFailed(_) => "fail reads",
            Self::Checkpoint(_) => "write a checkpoint",
            Self::ReleaseLog { .. } => "release the log",
            Self::Role(_) => "note who leads",
            Self::BuildSnapshot(_) => "build a snapshot",
            Self::DropSnapshot(_) => "drop a snapshot",
            Self::SendSnapshot { .. } => "send a snapshot",
            Self::InstallSnapshot { .. } => "install a snapshot",
            Self::DiscardSnapshot { .. } => "discard a snapshot",
            Self::MembersChanged { .. } => "end a membership change",
            Self::Fault(_) => "stop",
        }
    }
}

/// A stream of the base at one applied index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotId {
    /// The entry up to which it holds everything.
    pub index: LogIndex,
    /// That entry's term.
    pub term: Term,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Applied here, so this member's View shows it.
    Applied(Answer),
    /// It never left this member's queue, and never will.
    CertainlyNot(NotServed),
    /// It was sent, and nobody can say what became of it.
    Unknown,
}

/// Why a request was certainly not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotServed {
    /// No leader was found in time.
    #[error("no leader")]
    NoLeader,
    /// A queue is full.
    #[error("too many requests")]
    Busy,
}

/// Why a membership change did not happen (or, for `Unknown`, may not have).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unchanged {
    /// Only the leader changes members.
    #[error("this member is not the leader")]
    NotLeader(Option<MemberId>),
    /// One change at a time.
    #[error("another membership change is under way")]
    Busy,
    /// The members are not such that this makes sense.
    #[error("the members do not allow this change: {0}")]
    Invalid(&'static str),
    /// The leader changed in between.
    #[error("the outcome of the membership change is unknown")]
    Unknown,
}

/// This member's part in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks to be elected.
    Candidate,
    /// Leads.
    Leader,
}

impl Role {
    /// The word for people and monitors.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
        }
    }
}

/// Who leads, as this member knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleChange {
    /// Its part.
    pub role: Role,
    /// The leader, if one is known.
    pub leader: Option<MemberId>,
    /// The term.
    pub term: Term,
    /// The only voter, leading, with an entry of its term applied: any View read while this stays
    /// true is linearizable without asking (check it again after taking the View).
    pub reads_alone: bool,
}

/// What the status page, metrics and autopilot ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Role, leader, term.
    pub role: RoleChange,
    /// The highest index known to be committed.
    pub committed: LogIndex,
    /// The last entry applied.
    pub applied: LogIndex,
    /// The last entry in this member's log.
    pub last: LogIndex,
    /// The state's revision.
    pub revision: Revision,
    /// Of a leader: how far each other member's log is known to match.
    pub matched: Vec<(MemberId, LogIndex)>,
    /// Requests waiting for their end.
    pub proposals_waiting: usize,
    /// Reads waiting for theirs.
    pub reads_waiting: usize,
}
