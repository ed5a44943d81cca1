//! Counting what passes through the doors.
//!
//! One relaxed addition a request: a cell for each method and status. Numbers per member and since
//! its process began, as Prometheus expects them.
//!
//! Invariant: no label comes from a client: methods and codes that are not in the tables count as
//! "other".

use crate::node::Tally;
use http::{Method, StatusCode};
use std::sync::atomic::{AtomicU64, Ordering};

const METHODS: [Method; 6] =
    [Method::GET, Method::PUT, Method::POST, Method::DELETE, Method::HEAD, Method::OPTIONS];

/// The codes the doors answer with, the frequent ones first.
const CODES: [u16; 17] =
    [200, 201, 404, 412, 400, 403, 204, 401, 405, 408, 409, 410, 413, 415, 500, 501, 503];

/// What passed so far.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    answered: [[AtomicU64; CODES.len() + 1]; METHODS.len() + 1],
    reads: AtomicU64,
    reads_refused: AtomicU64,
    watches: AtomicU64,
}

/// A method's row in the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row(usize);

impl Row {
    pub(super) fn of(method: &Method) -> Self {
        Self(METHODS.iter().position(|known| known == method).unwrap_or(METHODS.len()))
    }
}

/// Requests of one method that were answered with one code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answered {
    pub(super) method: &'static str,
    /// The status code; 0 = another one.
    pub(super) code: u16,
    pub(super) count: u64,
}

impl Traffic {
    /// Counts an answer.
    pub(super) fn answered(&self, row: Row, status: StatusCode) {
        let code = status.as_u16();
        let column = CODES.iter().position(|known| *known == code).unwrap_or(CODES.len());
        let cell = self.answered.get(row.0).and_then(|row| row.get(column));
        cell.iter().for_each(|cell| _ = cell.fetch_add(1, Ordering::Relaxed));
    }

    /// Counts a read of a v2 key.
    pub(super) fn read(&self, was_found: bool) {
        let counter = if was_found { &self.reads } else { &self.reads_refused };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a watch of v2 keys.
    pub(super) fn watched(&self) {
        self.watches.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads of v2 keys so far.
    pub(super) fn reads(&self) -> Tally {
        let [done, refused] =
            [&self.reads, &self.reads_refused].map(|counter| counter.load(Ordering::Relaxed));
        Tally { done, refused }
    }

    /// Watches of v2 keys so far.
    pub(super) fn watches(&self) -> u64 {
        self.watches.load(Ordering::Relaxed)
    }

    /// Every method and code that has occurred.
    pub(super) fn all(&self) -> Vec<Answered> {
        let mut all = Vec::new();
        for (at, row) in self.answered.iter().enumerate() {
            let method = METHODS.get(at).map_or("other", |method| match *method {
                Method::GET => "GET",
                Method::PUT => "PUT",
                Method::POST => "POST",
                Method::DELETE => "DELETE",
                Method::HEAD => "HEAD",
                _ => "OPTIONS",
            });
            for (at, cell) in row.iter().enumerate() {
                let code = CODES.get(at).copied().unwrap_or(0);
                match cell.load(Ordering::Relaxed) {
                    0 => {}
                    count => all.push(Answered { method, code, count }),
                }
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_in_the_tables_is_other() {
        let traffic = Traffic::default();
        for status in [StatusCode::OK, StatusCode::OK, StatusCode::IM_A_TEAPOT] {
            traffic.answered(Row::of(&Method::PUT), status);
        }
        traffic.answered(Row::of(&Method::from_bytes(b"BREW").unwrap()), StatusCode::CREATED);
        let row = |method, code, count| Answered { method, code, count };
        assert_eq!(traffic.all(), [row("PUT", 200, 2), row("PUT", 0, 1), row("other", 201, 1)]);
    }
}
