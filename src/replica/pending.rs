//! This member's requests on their way: waiting, sent, settled.
//!
//! A request waits until there is a leader, is sent (into this member's own log when it leads, to
//! the leader otherwise), and is settled when this member itself applies it. Sending may fail in
//! silence, so an unsettled request is sent again: to a new leader at once, to the same one after
//! `limits::FORWARD_RETRY_MS`. That is safe because its number stays the same and the state
//! machine executes a number once.
//!
//! Invariants:
//! * A request that was ever sent is never reported as certainly not served.
//! * Nothing is sent that lies `limits::DEDUP_WINDOW` or more ahead of the oldest unsettled
//!   request: a retry of that one would fall out of the window, its outcome lost.
//! * Count and bytes are bounded; one too many is refused at once.

use crate::base::limits;
use crate::base::{MemberId, Sequence, Term};
use crate::machine::Answer;
use crate::replica::words::{NotServed, Request, Settled};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Where a request was sent last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    term: Term,
    at_ms: u64,
    refused: bool,
}

#[derive(Debug)]
struct Waiting {
    proposal: Bytes,
    deadline_ms: u64,
    sent: Option<Sent>,
}

/// Who is to get the requests now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Nobody yet.
    Nowhere,
    /// This member's own log.
    Here(Term),
    /// The leader.
    Leader(MemberId, Term),
}

/// Ends of requests, in the order they came about.
pub(super) type Ends = Vec<(Sequence, Settled)>;

/// The requests that have no end yet.
#[derive(Debug, Default)]
pub(super) struct Pending {
    waiting: BTreeMap<Sequence, Waiting>,
    bytes: usize,
    /// Every request below was sent and needs no look now.
    next: Sequence,
    ends: Ends,
}

impl Pending {
    /// Takes requests in, or refuses them when there are too many.
    pub(super) fn admit(&mut self, requests: Vec<Request>, now_ms: u64) {
        for Request { sequence, proposal } in requests {
            let newest = self.waiting.last_key_value().map(|(newest, _)| *newest);
            assert!(newest < Some(sequence), "request {sequence} came after a newer one");
            let full = self.waiting.len() >= limits::PROPOSALS_WAITING_MAX
                || self.bytes + proposal.len() > limits::PROPOSALS_WAITING_BYTES_MAX;
            if full {
                self.ends.push((sequence, Settled::CertainlyNot(NotServed::Busy)));
                continue;
            }
            self.bytes += proposal.len();
            let deadline_ms = now_ms + limits::REQUEST_TIMEOUT_MS;
            self.waiting.insert(sequence, Waiting { proposal, deadline_ms, sent: None });
        }
    }

    /// Requests without an end.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Looks at every request again: the leader changed, or a retry may be due.
    pub(super) fn look_again(&mut self) {
        self.next = Sequence(0);
    }

    /// The next batch for this route, empty when there is nothing to send.
    pub(super) fn batch(&mut self, route: Route, now_ms: u64) -> Vec<Request> {
        let (term, retries) = match route {
            Route::Nowhere => return Vec::new(),
            Route::Here(term) => (term, false),
            Route::Leader(_, term) => (term, true),
        };
        let Some((oldest, _)) = self.waiting.first_key_value() else { return Vec::new() };
        let end = Sequence(oldest.0 + limits::DEDUP_WINDOW);
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for (sequence, waiting) in self.waiting.range(self.next.min(end)..end) {
            let needs = waiting.sent.is_none_or(|sent| {
                let late = now_ms.saturating_sub(sent.at_ms) >= limits::FORWARD_RETRY_MS;
                sent.term != term || sent.refused || (retries && late)
            });
            if !needs {
                continue;
            }
            bytes += waiting.proposal.len();
            let full = batch.len() >= limits::BATCH_PROPOSALS_MAX
                || (bytes > limits::BATCH_BYTES_MAX && !batch.is_empty());
            if full {
                break;
            }
            batch.push(Request { sequence: *sequence, proposal: waiting.proposal.clone() });
        }
        batch
    }

    /// Notes that a batch from `batch` is on its way.
    pub(super) fn sent(&mut self, batch: &[Request], term: Term, now_ms: u64) {
        for request in batch {
            if let Some(waiting) = self.waiting.get_mut(&request.sequence) {
                waiting.sent = Some(Sent { term, at_ms: now_ms, refused: false });
            }
        }
        if let Some(last) = batch.last() {
            self.next = last.sequence.next();
        }
    }

    /// The leader did not log these. They stay "sent": an older copy may still be under way.
    pub(super) fn refused(&mut self, sequences: &[Sequence]) {
        for sequence in sequences {
            if let Some(sent) = self.waiting.get_mut(sequence).and_then(|it| it.sent.as_mut()) {
                sent.refused = true;
            }
        }
    }

    /// A request of this run was applied here. `None`: it was applied before, unseen by this
    /// member (a snapshot jumped over it), so its answer is lost.
    pub(super) fn applied(&mut self, sequence: Sequence, answer: Option<Answer>) {
        let Some(waiting) = self.waiting.remove(&sequence) else { return };
        self.bytes -= waiting.proposal.len();
        let end = answer.map_or(Settled::Unknown, Settled::Applied);
        self.ends.push((sequence, end));
    }

    /// Ends what waited too long.
    pub(super) fn expire(&mut self, now_ms: u64, led: bool) {
        while let Some(oldest) = self.waiting.first_entry()
            && oldest.get().deadline_ms <= now_ms
        {
            let (sequence, waiting) = oldest.remove_entry();
            self.bytes -= waiting.proposal.len();
            let end = match (waiting.sent, led) {
                (Some(_), _) => Settled::Unknown,
                (None, true) => Settled::CertainlyNot(NotServed::Busy),
                (None, false) => Settled::CertainlyNot(NotServed::NoLeader),
            };
            self.ends.push((sequence, end));
        }
    }

    /// Takes the ends that came about since the last call.
    pub(super) fn take_ends(&mut self) -> Ends {
        std::mem::take(&mut self.ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Route = Route::Here(Term(2));
    const THERE: Route = Route::Leader(MemberId(9), Term(2));

    fn requests(numbers: std::ops::RangeInclusive<u64>) -> Vec<Request> {
        let proposal = Bytes::from_static(b"proposal");
        numbers
            .map(|number| Request { sequence: Sequence(number), proposal: proposal.clone() })
            .collect()
    }

    fn send(pending: &mut Pending, route: Route, now_ms: u64) -> Vec<u64> {
        let batch = pending.batch(route, now_ms);
        pending.sent(&batch, Term(2), now_ms);
        batch.iter().map(|request| request.sequence.0).collect()
    }

    #[test]
    fn the_leader_logs_a_request_once_a_term() {
        let mut pending = Pending::default();
        pending.admit(requests(1..=2), 0);
        assert!(send(&mut pending, Route::Nowhere, 0).is_empty());
        assert_eq!(send(&mut pending, HERE, 0), [1, 2]);
        pending.look_again();
        assert!(send(&mut pending, HERE, 5_000).is_empty());
        pending.look_again();
        assert_eq!(pending.batch(Route::Here(Term(3)), 5_000).len(), 2);
    }

    #[test]
    fn a_follower_sends_again_when_late_or_refused() {
        let mut pending = Pending::default();
        pending.admit(requests(1..=3), 0);
        assert_eq!(send(&mut pending, THERE, 0), [1, 2, 3]);
        pending.look_again();
        assert!(send(&mut pending, THERE, limits::FORWARD_RETRY_MS - 1).is_empty());
        pending.refused(&[Sequence(2)]);
        pending.look_again();
        assert_eq!(send(&mut pending, THERE, 10), [2]);
        pending.look_again();
        assert_eq!(send(&mut pending, THERE, limits::FORWARD_RETRY_MS), [1, 3]);
    }

    #[test]
    fn nothing_runs_ahead_of_the_dedup_window() {
        let mut pending = Pending::default();
        pending.admit(requests(5..=2_000), 0);
        assert_eq!(send(&mut pending, HERE, 0).last(), Some(&(5 + limits::DEDUP_WINDOW - 1)));
        assert!(send(&mut pending, HERE, 0).is_empty());
        pending.applied(Sequence(5), None);
        assert_eq!(send(&mut pending, HERE, 0), [5 + limits::DEDUP_WINDOW]);
    }

    #[test]
    fn what_was_sent_is_unknown_at_its_deadline() {
        let mut pending = Pending::default();
        pending.admit(requests(1..=1), 0);
        assert_eq!(send(&mut pending, THERE, 0), [1]);
        pending.refused(&[Sequence(1)]);
        pending.admit(requests(2..=2), 10);
        pending.expire(limits::REQUEST_TIMEOUT_MS - 1, true);
        assert_eq!(pending.len(), 2);
        pending.expire(limits::REQUEST_TIMEOUT_MS + 10, false);
        let not = Settled::CertainlyNot(NotServed::NoLeader);
        assert_eq!(pending.take_ends(), [(Sequence(1), Settled::Unknown), (Sequence(2), not)]);
        assert_eq!((pending.len(), pending.bytes), (0, 0));
    }

    #[test]
    fn one_too_many_is_refused() {
        let mut pending = Pending::default();
        let most = limits::PROPOSALS_WAITING_MAX as u64;
        pending.admit(requests(1..=most + 1), 0);
        let end = (Sequence(most + 1), Settled::CertainlyNot(NotServed::Busy));
        assert_eq!(pending.take_ends(), [end]);
    }
}
