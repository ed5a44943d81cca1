//! Linearizable reads: asking the leader how far the log is committed, then waiting to be there.
//!
//! One round is in flight at a time; it serves every read that arrived before it began, and what
//! arrives meanwhile shares the next one, so a thousand reads cost one heartbeat exchange. A round
//! carries a name never used before, because raft ignores a name it knows. Raft forgets rounds
//! without a word (a leader without a commit in its term, a new leader, a lost message), so a
//! round without an answer is asked again, its reads included.
//!
//! Invariants: a read is served only by a round that began after it arrived; it waits until this
//! member has applied what the round said; each ends exactly once.
//!
//! Sources: Ongaro, "Consensus: Bridging Theory and Practice", 6.4; contracts/raft.md section 3.

use crate::base::limits;
use crate::base::{BootId, LogIndex, MemberId};
use crate::replica::words::ReadId;
use raft::ReadState;
use std::collections::VecDeque;

/// Reads that arrived together.
#[derive(Debug)]
struct Group {
    ids: Vec<ReadId>,
    arrived_ms: u64,
}

#[derive(Debug)]
struct Round {
    name: Vec<u8>,
    began_ms: u64,
    groups: Vec<Group>,
}

/// The reads that have no end yet.
#[derive(Debug)]
pub(super) struct Reads {
    member: MemberId,
    boot: BootId,
    rounds: u64,
    waiting: Vec<Group>,
    asking: Option<Round>,
    /// Answered: ready once this much is applied.
    parked: VecDeque<(LogIndex, Vec<ReadId>)>,
    count: usize,
    failed: Vec<ReadId>,
}

impl Reads {
    pub(super) fn new(member: MemberId, boot: BootId) -> Self {
        let (waiting, parked, failed) = (Vec::new(), VecDeque::new(), Vec::new());
        Self { member, boot, rounds: 0, waiting, asking: None, parked, count: 0, failed }
    }

    /// Takes reads in; beyond the limit they fail at once.
    pub(super) fn admit(&mut self, mut ids: Vec<ReadId>, now_ms: u64) {
        let room = limits::READS_WAITING_MAX.saturating_sub(self.count);
        if ids.len() > room {
            self.failed.extend(ids.drain(room..));
        }
        if !ids.is_empty() {
            self.count += ids.len();
            self.waiting.push(Group { ids, arrived_ms: now_ms });
        }
    }

    /// Reads without an end.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Whether a round should begin.
    pub(super) fn want_round(&self, now_ms: u64) -> bool {
        match &self.asking {
            Some(round) => now_ms.saturating_sub(round.began_ms) >= limits::READ_RETRY_MS,
            None => !self.waiting.is_empty(),
        }
    }

    /// Begins a round for all that wait and gives its name.
    pub(super) fn begin_round(&mut self, now_ms: u64) -> Vec<u8> {
        self.rounds += 1;
        let mut name = Vec::with_capacity(24);
        for part in [self.member.0, self.boot.0, self.rounds] {
            name.extend_from_slice(&part.to_be_bytes());
        }
        let mut groups = self.asking.take().map(|round| round.groups).unwrap_or_default();
        groups.append(&mut self.waiting);
        self.asking = Some(Round { name: name.clone(), began_ms: now_ms, groups });
        name
    }

    /// Asks again as soon as possible: the leader that was asked leads no more.
    pub(super) fn forget_round(&mut self) {
        if let Some(round) = self.asking.take() {
            self.waiting.splice(..0, round.groups);
        }
    }

    /// Raft's answers. Those to forgotten rounds change nothing: their reads were asked again.
    pub(super) fn answered(&mut self, states: &[ReadState]) {
        for state in states {
            if let Some(round) = self.asking.take_if(|round| round.name == state.request_ctx) {
                self.park(LogIndex(state.index), round.groups);
            }
        }
    }

    /// Without a round: everything that waits may read at this index.
    pub(super) fn serve_at(&mut self, index: LogIndex) {
        self.forget_round();
        let groups = std::mem::take(&mut self.waiting);
        if !groups.is_empty() {
            self.park(index, groups);
        }
    }

    fn park(&mut self, index: LogIndex, groups: Vec<Group>) {
        let ids = groups.into_iter().flat_map(|group| group.ids).collect();
        self.parked.push_back((index, ids));
    }

    /// Reads whose index is applied.
    pub(super) fn take_ready(&mut self, applied: LogIndex) -> Vec<ReadId> {
        let mut ready = Vec::new();
        self.parked.retain_mut(|(index, ids)| {
            if *index <= applied {
                ready.append(ids);
            }
            *index > applied
        });
        self.count -= ready.len();
        ready
    }

    /// Ends what found no leader in time.
    pub(super) fn expire(&mut self, now_ms: u64) {
        let asked = self.asking.iter_mut().flat_map(|round| std::mem::take(&mut round.groups));
        let (late, in_time): (Vec<_>, Vec<_>) = asked.partition(|group| {
            now_ms.saturating_sub(group.arrived_ms) >= limits::REQUEST_TIMEOUT_MS
        });
        match &mut self.asking {
            Some(_) if in_time.is_empty() => self.asking = None,
            Some(round) => round.groups = in_time,
            None => {}
        }
        let not_asked = self.waiting.extract_if(.., |group| {
            now_ms.saturating_sub(group.arrived_ms) >= limits::REQUEST_TIMEOUT_MS
        });
        let late: Vec<ReadId> = late.into_iter().chain(not_asked).flat_map(|it| it.ids).collect();
        self.count -= late.len();
        self.failed.extend(late);
    }

    /// Takes the reads that failed since the last call.
    pub(super) fn take_failed(&mut self) -> Vec<ReadId> {
        std::mem::take(&mut self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads() -> Reads {
        Reads::new(MemberId(1), BootId(7))
    }

    fn answer(name: &[u8], index: u64) -> [ReadState; 1] {
        [ReadState { index, request_ctx: name.to_vec() }]
    }

    #[test]
    fn one_round_serves_all_that_came_before_it() {
        let mut reads = reads();
        reads.admit(vec![ReadId(1), ReadId(2)], 0);
        assert!(reads.want_round(0));
        let first = reads.begin_round(0);
        reads.admit(vec![ReadId(3)], 1);
        assert!(!reads.want_round(1));
        reads.answered(&answer(&first, 10));
        assert!(reads.take_ready(LogIndex(9)).is_empty());
        assert_eq!(reads.take_ready(LogIndex(10)), [ReadId(1), ReadId(2)]);
        assert!(reads.want_round(1));
        assert_ne!(reads.begin_round(1), first);
        assert_eq!(reads.len(), 1);
    }

    #[test]
    fn a_lost_round_is_asked_again_under_another_name() {
        let mut reads = reads();
        reads.admit(vec![ReadId(1)], 0);
        let first = reads.begin_round(0);
        assert!(reads.want_round(limits::READ_RETRY_MS));
        let second = reads.begin_round(limits::READ_RETRY_MS);
        reads.answered(&answer(&first, 3));
        assert!(reads.take_ready(LogIndex(99)).is_empty());
        reads.forget_round();
        assert!(reads.want_round(501));
        reads.answered(&answer(&second, 3));
        assert!(reads.take_ready(LogIndex(99)).is_empty());
        let third = reads.begin_round(501);
        reads.answered(&answer(&third, 3));
        assert_eq!(reads.take_ready(LogIndex(99)), [ReadId(1)]);
    }

    #[test]
    fn reads_end_at_their_deadline() {
        let mut reads = reads();
        reads.admit(vec![ReadId(1)], 0);
        reads.begin_round(0);
        reads.admit(vec![ReadId(2)], 5);
        reads.expire(limits::REQUEST_TIMEOUT_MS);
        assert_eq!(reads.take_failed(), [ReadId(1)]);
        assert_eq!(reads.len(), 1);
        assert!(reads.want_round(limits::REQUEST_TIMEOUT_MS));
        reads.expire(limits::REQUEST_TIMEOUT_MS + 5);
        assert_eq!(reads.take_failed(), [ReadId(2)]);
        assert_eq!(reads.len(), 0);
    }
}
