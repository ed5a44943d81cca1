//! The renderer through its public API, with its real worker process and real commands.
//!
//! What: conformance cases byte for byte, the promises about reloads, hostile values and runaway
//! templates, and changes of files under a running renderer.
//! Not here: the node as source (the daemon's tests), kill -9 loops (they use the failpoints of a
//! whole daemon).

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test, as tests do")]
#![expect(clippy::print_stdout, reason = "skipped programs are told by name")]

mod common;
mod conformance;
mod files;
mod promises;
mod runaway;
mod shipped;
