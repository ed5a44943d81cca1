//! Floor 0: the words of the house.
//!
//! Everything above speaks in these types: identities, key paths and ranges, cluster time,
//! refusals and faults, limits, and the byte codec that every stored format is written with.
//!
//! Invariants:
//! * No I/O, no clock, no randomness, no threads: a function here depends on its arguments only.
//! * An index, revision, term or id never crosses a module as a bare integer.
//!
//! Deliberately not here: anything that knows HTTP, Raft or LMDB.

pub mod codec;
pub mod diagnostic;
pub mod error;
pub mod id;
pub mod limits;
pub mod path;
pub mod range;
pub mod report;
pub mod time;
pub mod url;

pub use diagnostic::{Diagnostic, did_you_mean};
pub use error::{Fault, Rejected};
pub use id::{BootId, ClusterId, LeaseId, LogIndex, MemberId, Revision, Sequence, Space, Term};
pub use path::KeyPath;
pub use range::KeyRange;
pub use report::{Exit, Report};
pub use time::{ClusterTime, Ttl, WallTime};
pub use url::HttpUrl;
