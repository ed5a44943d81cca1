//! What too many, too large, too slow and too silent clients may do to the daemon, and what not:
//! faults E1 to E7 of the list we hold ourselves to.
//!
//! The daemon under test is the whole program; clients are raw sockets, or hyper where only numbers
//! count. Each test takes a look at the daemon before (`seen`), makes one fault, and expects the
//! daemon to become what it was: memory, descriptors, term. Figures go to stderr, for
//! `docs/benchmarks.md`: `cargo test --test overload -- --nocapture`.
//!
//! `ALTHING_OVERLOAD_FULL=1` makes the one fault that is scaled down as large as it is promised:
//! 10,000 watchers and 1,000 writes a second for a minute (in a release build; it needs as many
//! descriptors, `ulimit -Hn`).
//!
//! What other tests hold already: refusals with their bounds, slow heads and bodies one by one
//! (`tests/abuse.rs`), a watch whose history is gone (`tests/doors.rs`).

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "the figures are what a person wants to see")]

mod common;

#[path = "overload/client.rs"]
mod client;
#[path = "overload/descriptors.rs"]
mod descriptors;
#[path = "overload/flood.rs"]
mod flood;
#[path = "overload/frames.rs"]
mod frames;
#[path = "overload/large.rs"]
mod large;
#[path = "overload/seen.rs"]
mod seen;
#[path = "overload/slow.rs"]
mod slow;
#[path = "overload/stalled.rs"]
mod stalled;
#[path = "overload/watchers.rs"]
mod watchers;
