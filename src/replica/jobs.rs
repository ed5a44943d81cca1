//! Log jobs: what is written together, and what must wait until it is durable.
//!
//! Raft's Readies come faster than a disk flushes. One job is with the disk; what comes meanwhile
//! gathers in the next one, so a flush carries all that arrived during the flush before it (group
//! commit). Messages that promise something about the log stand behind the job that makes it
//! true; jobs finish in order, so a job's messages also wait for every earlier job.
//!
//! Invariants:
//! * One job is in flight.
//! * A hard state that only moves the commit index is no reason to flush: it rides with the next
//!   job, and is learned anew if it is lost.
//! * While a change of term or vote is not durable, *every* message waits for it, a leader's too:
//!   raft 0.7 hands a sole voter's first appends out early.
//!
//! Sources: contracts/raft.md section 1, rows 6, 7 and 9; Ongaro's thesis 10.2.1.

use crate::replica::words::JobId;
use crate::store::wal::LogBatch;
use raft::eraftpb::Message;

/// One flush.
#[derive(Debug, Default)]
pub(super) struct Job {
    batch: LogBatch,
    must_flush: bool,
    /// The term or vote changes with it.
    changes_vote: bool,
    /// The newest Ready that is durable with it; 0 = none.
    pub(super) through: u64,
    /// What may leave then.
    pub(super) messages: Vec<Message>,
}

/// What one Ready adds.
#[derive(Debug, Default)]
pub(super) struct Addition {
    /// What to write; may be empty.
    pub(super) batch: LogBatch,
    /// More than the commit index changes.
    pub(super) must_flush: bool,
    /// The term or vote changes.
    pub(super) changes_vote: bool,
}

/// The job in flight, and the next one.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    in_flight: Option<(JobId, Job)>,
    next: Job,
    last: JobId,
}

impl Jobs {
    /// Adds what a Ready wants written.
    pub(super) fn add(&mut self, addition: Addition) {
        let next = &mut self.next;
        let Addition { mut batch, must_flush, changes_vote } = addition;
        if batch.snapshot.is_some() {
            next.batch = batch;
        } else {
            if let Some(first) = batch.entries.first().map(|entry| entry.index) {
                let kept = next.batch.entries.partition_point(|entry| entry.index < first);
                next.batch.entries.truncate(kept);
                next.batch.entries.append(&mut batch.entries);
            }
            next.batch.hard_state = batch.hard_state.or(next.batch.hard_state.take());
        }
        next.must_flush |= must_flush;
        next.changes_vote |= changes_vote;
    }

    /// Whether everything that had to be durable is.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_none() && !self.next.must_flush
    }

    /// Whether a leader's messages must wait, too.
    pub(super) fn vote_in_doubt(&self) -> bool {
        let in_flight = self.in_flight.as_ref().is_some_and(|(_, job)| job.changes_vote);
        in_flight || self.next.changes_vote
    }

    /// Puts messages, and the Ready they came with, behind the last unfinished job. Gives them
    /// back when there is none.
    pub(super) fn hold(&mut self, through: u64, messages: Vec<Message>) -> Option<Vec<Message>> {
        let job = match &mut self.in_flight {
            _ if self.next.must_flush => &mut self.next,
            Some((_, job)) => job,
            None => return Some(messages),
        };
        job.through = through;
        job.messages.extend(messages);
        None
    }

    /// Starts the next job, if the disk is free and there is a reason to.
    pub(super) fn start(&mut self) -> Option<(JobId, LogBatch)> {
        if self.in_flight.is_some() || !self.next.must_flush {
            return None;
        }
        self.last = JobId(self.last.0 + 1);
        let mut job = std::mem::take(&mut self.next);
        let batch = std::mem::take(&mut job.batch);
        self.in_flight = Some((self.last, job));
        Some((self.last, batch))
    }

    /// The job is durable. `None` when it is not the one in flight.
    pub(super) fn done(&mut self, id: JobId) -> Option<Job> {
        self.in_flight.take_if(|(in_flight, _)| *in_flight == id).map(|(_, job)| job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft::eraftpb::{Entry, HardState};

    fn entries(from: u64, to: u64, term: u64) -> Addition {
        let entry = |index| Entry { index, term, ..Entry::default() };
        let entries = (from..=to).map(entry).collect();
        let batch = LogBatch { entries, ..LogBatch::default() };
        Addition { batch, must_flush: true, changes_vote: false }
    }

    fn hard_state(term: u64, commit: u64, changes_vote: bool) -> Addition {
        let hard_state = Some(HardState { term, commit, ..HardState::default() });
        let batch = LogBatch { hard_state, ..LogBatch::default() };
        Addition { batch, must_flush: changes_vote, changes_vote }
    }

    fn message(to: u64) -> Vec<Message> {
        vec![Message { to, ..Message::default() }]
    }

    fn receivers(job: &Job) -> Vec<u64> {
        job.messages.iter().map(|message| message.to).collect()
    }

    #[test]
    fn what_comes_during_a_flush_shares_the_next() {
        let mut jobs = Jobs::default();
        jobs.add(entries(1, 2, 1));
        assert!(jobs.hold(1, message(1)).is_none());
        let (first, batch) = jobs.start().unwrap();
        assert_eq!(batch.entries.len(), 2);
        jobs.add(entries(3, 5, 1));
        assert!(jobs.hold(2, message(2)).is_none());
        assert!(jobs.start().is_none());
        jobs.add(entries(4, 4, 2));
        jobs.add(hard_state(2, 3, true));
        assert!(jobs.hold(3, message(3)).is_none());
        let done = jobs.done(first).unwrap();
        assert_eq!((done.through, receivers(&done)), (1, vec![1]));
        let (second, batch) = jobs.start().unwrap();
        let terms: Vec<_> = batch.entries.iter().map(|entry| (entry.index, entry.term)).collect();
        assert_eq!(terms, [(3, 1), (4, 2)]);
        assert!(batch.hard_state.is_some() && jobs.done(first).is_none());
        let done = jobs.done(second).unwrap();
        assert_eq!((done.through, receivers(&done)), (3, vec![2, 3]));
        assert!(jobs.is_idle());
    }

    #[test]
    fn a_commit_index_alone_flushes_nothing() {
        let mut jobs = Jobs::default();
        jobs.add(hard_state(1, 7, false));
        assert!(jobs.start().is_none() && jobs.is_idle());
        assert_eq!(jobs.hold(1, message(1)).unwrap().len(), 1);
        jobs.add(entries(8, 8, 1));
        let (_, batch) = jobs.start().unwrap();
        assert_eq!(batch.hard_state.unwrap().commit, 7);
        assert!(jobs.hold(3, message(2)).is_none());
    }

    #[test]
    fn a_vote_in_doubt_holds_every_message() {
        let mut jobs = Jobs::default();
        jobs.add(hard_state(2, 0, true));
        assert!(jobs.vote_in_doubt());
        let (id, _) = jobs.start().unwrap();
        assert!(jobs.vote_in_doubt());
        jobs.done(id).unwrap();
        assert!(!jobs.vote_in_doubt());
    }
}
