//! Opening a replica: the base of the last checkpoint and the log that goes on from it.
//!
//! Normally the log reaches beyond the checkpoint and Raft starts from there. One gap is allowed:
//! a base that was just made (at the founding of a cluster, or from a received snapshot) may be
//! durable while the log's marker for it is not, because the power went between the two. Then the
//! log begins anew behind that base, and the marker is the first thing written. Any other log that
//! does not hold the checkpoint's last entry has lost what this member acknowledged: that is
//! refused, because a voter that forgets breaks the promise of the whole cluster.
//!
//! Invariants: `last index >= applied` and `commit >= applied` when Raft starts (it ends the
//! process otherwise).

use crate::base::WallTime;
use crate::base::limits;
use crate::base::{Fault, LogIndex, Term};
use crate::machine::Machine;
use crate::replica::Replica;
use crate::replica::checkpoint::Checkpoints;
use crate::replica::history::HistoryNotes;
use crate::replica::jobs::{Addition, Jobs};
use crate::replica::pending::Pending;
use crate::replica::reads::Reads;
use crate::replica::snapshot::Shelf;
use crate::replica::words::{Config, Now, Role, RoleChange, SnapshotId};
use crate::store::base::Base;
use crate::store::log::Log;
use crate::store::wal::{LogBatch, Recovered};
use raft::eraftpb::HardState;
use raft::{RawNode, Storage};
use std::collections::VecDeque;

impl<B: Base> Replica<B> {
    /// Starts from what a stop left behind: `machine` from the base, `recovered` from the WAL.
    ///
    /// # Errors
    /// When base and log do not belong together.
    pub fn open(config: Config, machine: Machine<B>, recovered: Recovered) -> Result<Self, Fault> {
        let durable = SnapshotId { index: machine.applied(), term: machine.applied_term() };
        let mut log = Log::recovered(recovered, machine.membership().to_conf_state());
        let mut jobs = Jobs::default();
        if !holds(&log, durable) {
            if config.base_made_at != durable.index {
                return Err(lost_tail(&log, durable.index));
            }
            jobs.add(begin_anew(&mut log, durable));
        }
        let mut hard_state = log.hard_state().clone();
        hard_state.commit = hard_state.commit.max(durable.index.0);
        if hard_state.commit > log.last().0 {
            return Err(lost_tail(&log, LogIndex(hard_state.commit)));
        }
        log.set_hard_state(hard_state);
        let raft = start_raft(&config, durable.index, log)?;
        let term = Term(raft.raft.term);
        let membership = machine.membership().clone();
        let mut replica = Self {
            config,
            now: Now { mono_ms: 0, wall: WallTime(0) },
            raft,
            published: machine.applied(),
            machine,
            jobs,
            backlog: VecDeque::new(),
            mid_entry: false,
            pending: Pending::default(),
            reads: Reads::new(config.member, config.boot),
            role: RoleChange { role: Role::Follower, leader: None, term, reads_alone: false },
            leading: None,
            changing: None,
            members_changed: Vec::new(),
            history: HistoryNotes::default(),
            checkpoints: Checkpoints::new(durable, membership),
            shelf: Shelf::default(),
            received: None,
            held_back: false,
            ticked: false,
            failed: false,
        };
        replica.reseed();
        Ok(replica)
    }
}

fn holds(log: &Log, at: SnapshotId) -> bool {
    log.point().0 <= at.index && log.term(at.index.0).is_ok_and(|term| term == at.term.0)
}

/// The log behind a base whose marker it lacks, and the marker.
fn begin_anew(log: &mut Log, at: SnapshotId) -> Addition {
    let before = log.hard_state().clone();
    log.restore(at.index, at.term, log.conf_state().clone());
    let hard_state = HardState {
        term: before.term.max(at.term.0),
        // A vote counts in its own term only.
        vote: if at.term.0 > before.term { raft::INVALID_ID } else { before.vote },
        commit: at.index.0,
        ..HardState::default()
    };
    log.set_hard_state(hard_state.clone());
    let snapshot = Some((at.index, at.term));
    let batch = LogBatch { snapshot, hard_state: Some(hard_state), ..LogBatch::default() };
    Addition { batch, must_flush: true, changes_vote: true }
}

fn lost_tail(log: &Log, needed: LogIndex) -> Fault {
    Fault::Damaged {
        what: format!(
            "the log holds entries {} to {}, but entry {needed} was acknowledged: remove this \
             member from the cluster, remove its data directory and join it again",
            log.point().0.next(),
            log.last(),
        ),
    }
}

fn start_raft(config: &Config, applied: LogIndex, log: Log) -> Result<RawNode<Log>, Fault> {
    let config = raft::Config {
        id: config.member.0,
        election_tick: limits::ELECTION_TICKS,
        heartbeat_tick: 1,
        applied: applied.0,
        pre_vote: true,
        check_quorum: true,
        max_size_per_msg: limits::APPEND_BYTES_MAX,
        max_inflight_msgs: limits::APPENDS_IN_FLIGHT_MAX,
        max_uncommitted_size: limits::UNCOMMITTED_BYTES_MAX,
        max_committed_size_per_ready: limits::COMMITTED_BYTES_PER_READY_MAX,
        ..raft::Config::default()
    };
    let silent = slog::Logger::root(slog::Discard, slog::o!());
    RawNode::new(&config, log, &silent)
        .map_err(|error| Fault::Invariant(format!("raft does not start: {error}")))
}
