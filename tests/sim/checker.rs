//! Linearizability of one key's history, with outcomes nobody knows.
//!
//! An operation took effect at one point between its call and its return; one without a known
//! outcome at any point after its call, or never. The search puts operations in an order that
//! explains every answer: take any operation no other returned before, apply it to the state, go
//! on; step back at a contradiction; never look twice at the same set with the same state. Wing
//! and Gong, "Testing and Verifying Concurrent Objects" (1993), with Lowe's memory ("Testing for
//! Linearizability", 2017), key by key as Horn and Kroening's P-compositionality allows.
//!
//! Values are written once each, so a wrong turn is noticed soon. The number of steps is bounded;
//! a history that needs more is reported as undecided, not as good.

use std::collections::HashSet;

/// What was asked of a register, and what was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Always succeeds.
    Write(u64),
    /// Succeeds where nothing is.
    Create { value: u64, done: bool },
    /// Succeeds where this value is.
    Swap { expected: u64, value: u64, done: bool },
    /// Succeeds where something is.
    Delete { done: bool },
    /// Sees this.
    Read(Option<u64>),
}

/// One operation of a history. Times come from one clock that never shows the same time twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) called: u64,
    /// `None`: its outcome is unknown, and the `done` of its act says nothing.
    pub(crate) returned: Option<u64>,
    pub(crate) act: Act,
}

/// What the search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    Linearizable,
    NotLinearizable,
    /// More steps than allowed.
    Undecided,
}

/// The state after the act, or `None` when its answer contradicts the state.
fn step(state: Option<u64>, operation: &Operation) -> Option<Option<u64>> {
    let known = operation.returned.is_some();
    let judge = |would: bool, done: bool, after: Option<u64>| {
        let consistent = !known || would == done;
        consistent.then_some(if would { after } else { state })
    };
    match operation.act {
        Act::Write(value) => Some(Some(value)),
        Act::Create { value, done } => judge(state.is_none(), done, Some(value)),
        Act::Swap { expected, value, done } => judge(state == Some(expected), done, Some(value)),
        Act::Delete { done } => judge(state.is_some(), done, None),
        Act::Read(seen) => (state == seen).then_some(state),
    }
}

/// Which operations are in the order already.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Taken(Vec<u64>);

impl Taken {
    fn has(&self, at: usize) -> bool {
        self.0[at / 64] & (1 << (at % 64)) != 0
    }

    fn flip(&mut self, at: usize) {
        self.0[at / 64] ^= 1 << (at % 64);
    }
}

/// Looks for an order, from an absent key on, in at most `steps_max` steps.
pub(crate) fn check(history: &[Operation], steps_max: usize) -> Finding {
    let mut operations = history.to_vec();
    operations.sort_by_key(|operation| operation.called);
    let known = operations.iter().filter(|operation| operation.returned.is_some()).count();
    let mut taken = Taken(vec![0; operations.len() / 64 + 1]);
    let mut seen = HashSet::new();
    // Each frame: the state before it, what is tried next, and what was taken to get there.
    let mut frames: Vec<(Option<u64>, usize, Option<usize>)> = vec![(None, 0, None)];
    let (mut placed, mut steps, mut first_open) = (0, 0, vec![0]);
    while let Some(&(state, from, came_by)) = frames.last() {
        if placed == known {
            return Finding::Linearizable;
        }
        steps += 1;
        if steps > steps_max {
            return Finding::Undecided;
        }
        let open = *first_open.last().unwrap();
        match next_candidate(&operations, &taken, open, from.max(open), state) {
            Some((at, after)) => {
                frames.last_mut().unwrap().1 = at + 1;
                taken.flip(at);
                if !seen.insert((taken.clone(), after)) {
                    taken.flip(at);
                    continue;
                }
                placed += usize::from(operations[at].returned.is_some());
                let mut open = open;
                while open < operations.len() && taken.has(open) {
                    open += 1;
                }
                first_open.push(open);
                frames.push((after, 0, Some(at)));
            }
            None => {
                frames.pop();
                first_open.pop();
                if let Some(at) = came_by {
                    taken.flip(at);
                    placed -= usize::from(operations[at].returned.is_some());
                }
            }
        }
    }
    Finding::NotLinearizable
}

/// The first operation from `from` on that may come next, and the state after it.
fn next_candidate(
    operations: &[Operation],
    taken: &Taken,
    open: usize,
    from: usize,
    state: Option<u64>,
) -> Option<(usize, Option<u64>)> {
    let mut earliest_return = u64::MAX;
    for (at, operation) in operations.iter().enumerate().skip(open) {
        // Something returned before this and everything behind it was called.
        if operation.called > earliest_return {
            return None;
        }
        if taken.has(at) {
            continue;
        }
        if at >= from
            && let Some(after) = step(state, operation)
            && (operation.returned.is_some() || after != state)
        {
            return Some((at, after));
        }
        earliest_return = earliest_return.min(operation.returned.unwrap_or(u64::MAX));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(called: u64, returned: u64, act: Act) -> Operation {
        Operation { called, returned: Some(returned).filter(|at| *at > 0), act }
    }

    fn found(history: &[Operation]) -> Finding {
        check(history, 100_000)
    }

    #[test]
    fn an_order_is_found_where_there_is_one() {
        use Act::{Create, Delete, Read, Swap, Write};
        let good = [
            op(1, 10, Write(1)),
            op(2, 5, Read(None)),
            op(6, 7, Read(Some(1))),
            op(11, 12, Swap { expected: 1, value: 2, done: true }),
            op(13, 14, Create { value: 3, done: false }),
            op(15, 20, Delete { done: true }),
            op(16, 19, Create { value: 4, done: true }),
            op(21, 22, Read(Some(4))),
        ];
        assert_eq!(found(&good), Finding::Linearizable);
        for damage in 0..3 {
            let mut bad = good.to_vec();
            match damage {
                0 => bad[2].act = Read(None),
                1 => bad[3].act = Swap { expected: 9, value: 2, done: true },
                _ => bad[7].act = Read(Some(2)),
            }
            let expected =
                if damage == 0 { Finding::Linearizable } else { Finding::NotLinearizable };
            assert_eq!(found(&bad), expected, "{damage}");
        }
    }

    #[test]
    fn a_value_never_comes_back() {
        let history = [
            op(1, 2, Act::Write(1)),
            op(3, 4, Act::Write(2)),
            op(5, 6, Act::Read(Some(2))),
            op(7, 8, Act::Read(Some(1))),
        ];
        assert_eq!(found(&history), Finding::NotLinearizable);
    }

    #[test]
    fn what_nobody_knows_may_happen_late_or_never() {
        let write = op(1, 0, Act::Write(7));
        let late = [write.clone(), op(2, 3, Act::Read(None)), op(9, 10, Act::Read(Some(7)))];
        assert_eq!(found(&late), Finding::Linearizable);
        assert_eq!(found(&[write.clone(), op(2, 3, Act::Read(None))]), Finding::Linearizable);
        let back = [write, op(2, 3, Act::Read(Some(7))), op(4, 5, Act::Read(None))];
        assert_eq!(found(&back), Finding::NotLinearizable);
    }

    #[test]
    fn a_search_without_end_is_said_to_be_one() {
        let history: Vec<_> = (0..20).map(|at| op(at, 1_000 + at, Act::Write(at))).collect();
        let mut history = history;
        history.push(op(2_000, 2_001, Act::Read(Some(99))));
        assert_eq!(check(&history, 1_000), Finding::Undecided);
    }
}
