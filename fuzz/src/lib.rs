//! What must hold for any bytes: one module a fuzz target, each with a `check` that panics when
//! it does not.
//!
//! Why a library: `fuzz_targets/` hands `check` the fuzzer's bytes, and `tests/fuzz_seeds.rs`, a
//! part of `cargo test`, the committed ones of `seeds/`, so a finding stays fixed.
//!
//! A check goes as far as it can beyond "does not panic": what is accepted reads back from what
//! is written of it, bounds hold, and an error names its place. Where a checksum would keep the
//! fuzzer out, the check computes it.
//!
//! Deliberately not here: anything that needs a network, a disk or time.

pub mod answer;
pub mod config;
pub mod entry;
pub mod form;
pub mod path;
pub mod stored;
pub mod wal_record;
pub mod wal_recovery;
pub mod worker_pipe;

mod segment;
