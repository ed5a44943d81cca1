//! v2: etcd's keys API over HTTP, as etcd 3.4 serves it and its clients expect it.
//!
//! `keys` reads requests and writes answers, `watch` is the body of a long poll or stream,
//! `answer` has the headers and errors both share.

mod answer;
mod keys;
pub(super) mod watch;

pub use keys::Keys;
