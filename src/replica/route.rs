//! Requests and reads on their way out, peers' messages on their way in.
//!
//! Followers hand their requests to the leader themselves: raft 0.7 would forward a proposal too,
//! but tells nobody when it drops one. The leader opens what was forwarded before it goes into the
//! log, because an entry that cannot be read stops every member.
//!
//! Invariants:
//! * A batch of requests is one message to Raft.
//! * Raft sees no message that only this process may make (elections, proposals, reports), none
//!   that names another sender than the link it came by, none whose entries have gaps.
//! * A request is forwarded once at most: only its origin sends it.

use crate::base::limits;
use crate::base::{Fault, LogIndex, MemberId, Sequence, Term};
use crate::machine::Envelope;
use crate::replica::Replica;
use crate::replica::pending::Route;
use crate::replica::words::{Output, PeerMessage, Request};
use crate::store::base::Base;
use bytes::Bytes;
use raft::eraftpb::{Entry, Message, MessageType};

impl<B: Base> Replica<B> {
    fn route(&self) -> Route {
        let term = Term(self.raft.raft.term);
        match self.role.leader {
            _ if self.leading.is_some() => Route::Here(term),
            Some(leader) if leader != self.config.member => Route::Leader(leader, term),
            Some(_) | None => Route::Nowhere,
        }
    }

    /// Sends what waits: into this member's log, or to the leader.
    pub(super) fn send_requests(&mut self, out: &mut Vec<Output<B>>) {
        let (route, now_ms) = (self.route(), self.now.mono_ms);
        while !self.is_full(route) {
            let batch = self.pending.batch(route, now_ms);
            if batch.is_empty() {
                break;
            }
            match route {
                Route::Nowhere => break,
                Route::Here(term) => {
                    let proposals = batch.iter().map(|request| &request.proposal);
                    let entries = self.seal(proposals);
                    if !self.log_entries(entries) {
                        self.held_back = true;
                        break;
                    }
                    self.pending.sent(&batch, term, now_ms);
                }
                Route::Leader(leader, term) => {
                    self.pending.sent(&batch, term, now_ms);
                    out.push(Output::Send(leader, PeerMessage::Forward(batch)));
                }
            }
        }
    }

    /// Whether this leader takes nothing now: the log is held back, or both generations of the
    /// overlay are full.
    fn is_full(&self, route: Route) -> bool {
        let full = self.held_back || self.machine.overlay_bytes() >= limits::OVERLAY_BYTES_MAX;
        matches!(route, Route::Here(_)) && full
    }

    /// Entries with the leader's stamps.
    pub(super) fn seal<'a>(&mut self, proposals: impl Iterator<Item = &'a Bytes>) -> Vec<Entry> {
        let Some(leading) = &mut self.leading else { return Vec::new() };
        let (stamp, wall) = (leading.clock.stamp(), self.now.wall);
        proposals
            .map(|proposal| Entry {
                data: Envelope::seal(stamp, wall, proposal).into(),
                ..Entry::default()
            })
            .collect()
    }

    /// Puts entries into the leader's log. False: Raft takes none now (too much is uncommitted,
    /// or leadership is being handed on).
    pub(super) fn log_entries(&mut self, entries: Vec<Entry>) -> bool {
        if entries.is_empty() || !self.is_leader() {
            return false;
        }
        let mut message = Message { from: self.config.member.0, ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        message.set_entries(entries.into());
        self.raft.step(message).is_ok()
    }

    /// Begins a round for the reads that wait, where Raft would not just forget it.
    pub(super) fn ask_for_reads(&mut self) {
        if !self.reads.want_round(self.now.mono_ms) {
            return;
        }
        let raft = &self.raft.raft;
        let can_ask = if self.is_leader() {
            raft.commit_to_current_term()
        } else {
            raft.leader_id != raft::INVALID_ID
        };
        if !can_ask {
            return;
        }
        if self.is_leader() && self.is_only_voter() {
            self.reads.serve_at(LogIndex(raft.raft_log.committed));
        } else {
            let name = self.reads.begin_round(self.now.mono_ms);
            self.raft.read_index(name);
        }
    }

    /// A message of a peer.
    pub(super) fn receive(
        &mut self,
        from: MemberId,
        message: PeerMessage,
        out: &mut Vec<Output<B>>,
    ) -> Result<(), Fault> {
        match message {
            PeerMessage::Raft(message) => {
                if self.admit_message(from, &message) {
                    self.refuse_if_forgetful(&message)?;
                    // What Raft refuses is stale or not for us: silence is its answer.
                    let _ = self.raft.step(*message);
                }
            }
            PeerMessage::Forward(requests) => self.take_forwarded(from, &requests, out),
            PeerMessage::Refused(sequences) => self.pending.refused(&sequences),
        }
        Ok(())
    }

    fn take_forwarded(&mut self, from: MemberId, requests: &[Request], out: &mut Vec<Output<B>>) {
        let sequences: Vec<Sequence> = requests.iter().map(|request| request.sequence).collect();
        let route = self.route();
        let mut logged = false;
        if matches!(route, Route::Here(_)) && !self.is_full(route) {
            let mut entries = self.seal(requests.iter().map(|request| &request.proposal));
            entries.retain(|entry| is_from(from, &entry.data));
            logged = entries.is_empty() || self.log_entries(entries);
        }
        if !logged {
            out.push(Output::Send(from, PeerMessage::Refused(sequences)));
        }
    }

    /// Whether a peer may send this.
    fn admit_message(&self, from: MemberId, message: &Message) -> bool {
        if message.from != from.0 || message.to != self.config.member.0 {
            return false;
        }
        let contiguous = |message: &Message| {
            (message.index + 1..).zip(message.entries.iter()).all(|(at, it)| it.index == at)
        };
        match message.get_msg_type() {
            MessageType::MsgAppend => contiguous(message),
            MessageType::MsgReadIndex => message.entries.len() == 1,
            MessageType::MsgTimeoutNow => message.from == self.raft.raft.leader_id,
            MessageType::MsgAppendResponse
            | MessageType::MsgRequestVote
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgHeartbeat
            | MessageType::MsgHeartbeatResponse
            | MessageType::MsgReadIndexResp
            | MessageType::MsgRequestPreVote
            | MessageType::MsgRequestPreVoteResponse => true,
            // A snapshot comes through `Input::SnapshotReceived`; the others are this process's.
            MessageType::MsgSnapshot
            | MessageType::MsgHup
            | MessageType::MsgBeat
            | MessageType::MsgPropose
            | MessageType::MsgUnreachable
            | MessageType::MsgSnapStatus
            | MessageType::MsgCheckQuorum
            | MessageType::MsgTransferLeader => false,
        }
    }

    /// A leader never says "committed" about an entry it has not heard this member acknowledge.
    fn refuse_if_forgetful(&self, message: &Message) -> Result<(), Fault> {
        let last = self.raft.raft.raft_log.last_index();
        let current = message.term >= self.raft.raft.term;
        let heartbeat = message.get_msg_type() == MessageType::MsgHeartbeat;
        if heartbeat && current && message.commit > last {
            return Err(Fault::Damaged {
                what: format!(
                    "this member acknowledged entry {}, but its log ends at {last}: remove it \
                     from the cluster, remove its data directory and join it again",
                    message.commit,
                ),
            });
        }
        Ok(())
    }
}

/// Whether an entry can be read and is a request of the sender (0 numbers a leader's own).
fn is_from(from: MemberId, data: &[u8]) -> bool {
    Envelope::open(data).is_ok_and(|envelope| {
        envelope.proposal.origin == from && envelope.proposal.sequence > Sequence(0)
    })
}
