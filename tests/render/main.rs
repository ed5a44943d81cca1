//! The renderer through its public API and inside a whole daemon, with its real worker process and
//! real commands.
//!
//! What: conformance cases byte for byte, the promises about reloads and about each key of a
//! resource, hostile values and runaway templates, commands and disks that fail, and changes of
//! files under a running renderer.
//! Not here: kill -9 (`tests/kill/owed.rs`, by the failpoints of a whole daemon).

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test, as tests do")]

mod commands;
mod common;
mod conformance;
mod destinations;
mod disks;
mod files;
mod hangs;
#[path = "../common/mod.rs"]
mod harness;
mod host;
mod keys;
mod owners;
mod promises;
mod quoting;
mod rollback;
mod runaway;
mod shipped;
mod timing;
mod together;
mod unharmed;
