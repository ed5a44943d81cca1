//! v2: etcd's keys API over HTTP, as etcd 3.4 serves it and its clients expect it.
//!
//! `keys` reads requests and writes answers, `watch` is the body of a long poll or stream,
//! `answer` has the headers and errors they share. Beside the keys stand `members`, `stats`, and
//! for clients of etcd 0.4 `registry`, which shows the members as keys.

mod answer;
mod keys;
mod members;
mod registry;
mod stats;
pub(super) mod watch;

pub use keys::Keys;
pub(super) use members::{Members, leader, machines};
pub(super) use stats::Stats;
