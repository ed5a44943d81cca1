//! Althing: one daemon per host that holds a replicated key-value store speaking etcd's API,
//! renders this host's configuration files from it, checks them and reloads the services.
//!
//! This page is the map. Each module's header says what it is, why, and what it must never know.
//!
//! # Floors
//!
//! A module uses only modules of the floors below its own; `tests/tidy.rs` fails otherwise.
//!
//! ```text
//! main                 the first word decides who the process is
//! daemon               the story of start and stop
//! ctl                  the command line: keys, status, plan, check, why, bench
//! api    render        5  doors: v2, metrics, agent   |  templates -> checked files -> reloads
//! node                 4  the running member, and the waist: Handle
//! replica              3  consensus around raft::RawNode, without clock or sockets
//! watch                3  who waits for what; cursors over history
//! machine              2  the replicated state machine: commands, v2's tree, expiry, sums
//! store                1  log (wal, log) and state (memtables over LMDB, MVCC)
//! wire  sys  config    1  bytes others see | this host | settings and where they come from
//! base                 0  words: ids, paths, ranges, time, refusals, limits, codec
//! ```
//!
//! The *deterministic core* is base, store, machine, watch and replica: functions of their inputs,
//! with no clock, randomness, sockets, threads or unordered maps, so a whole cluster runs in one
//! thread of `tests/sim.rs`, with faults, far faster than life, and a failing seed replays exactly.
//! The *shell* around it is tokio, HTTP, processes, signals and files.
//!
//! # The waist
//!
//! [`node::Handle`] has four verbs: `propose`, `read`, `watch`, `status`. Every door and the
//! renderer are equal guests there; none sees Raft or LMDB.
//!
//! # Three journeys
//!
//! **PUT**: `sys::listen` -> `api::v2` parses the form into a `machine::Command` -> `node::Handle`
//! -> the driver takes all that waits as one batch -> `replica` stamps and proposes it -> one WAL
//! frame, one flush -> `machine` applies it into the overlay -> the View is published -> reply,
//! then the watchers. A checkpoint to LMDB follows off this path.
//!
//! **A watch event**: apply -> `watch::Hub`'s ring -> wakes the cursors it may concern -> each door
//! writes it in its own words. A cursor behind the ring reads the store's history.
//!
//! **A file**: a cursor or inotify -> `render` waits for quiet and for its window -> one revision ->
//! template engine in a worker process -> guard -> stage -> check -> *owed* mark -> rename -> reload
//! -> mark cleared, or the old file back if its resource asks for that.
//!
//! # Invariants, and what guards each
//!
//! 1. Same inputs, same effects: `machine` sums compared in `tests/sim.rs` and by its model test.
//! 2. Time enters once, as the leader's stamp, and never goes back: `replica` (clock), sim.
//! 3. The core takes one turn at a time; readers never block it: `node` (core), `store` (View).
//! 4. Persist before send, publish before reply: `replica` (jobs, tell); injected bugs in sim.
//! 5. A `Rejected` is the same on every member, a `Fault` is never an answer: `base::error`.
//! 6. Above the waist nobody names store or replica: `tests/tidy.rs`.
//! 7. A checkpoint holds data and applied index together, or neither; a reader sees one revision,
//!    whole: property tests of `store`, `tests/kill.rs`, `tests/power.rs`.
//! 8. A rendered file is whole, checked, from one revision, never older than the last; its reload
//!    is owed until done: `tests/render/main.rs`.
//! 9. Every queue, body, loop and ring has a named bound in `base::limits`: `tests/overload.rs`.
//! 10. No child inherits a descriptor, no database transaction crosses an await: `sys::exec`,
//!     `sys::usage`, `store::env`, `tests/abuse.rs`; `store::reader`.
//! 11. What a door says is what etcd says, but for `docs/divergence.md`: `tests/conformance.rs`,
//!     and `tests/beside.rs` against the real one. No bytes from outside bring a reader down:
//!     `fuzz/`, whose seeds `tests/fuzz_seeds.rs` replays.
//!
//! # Reading order
//!
//! `base`, then `machine::command` and `machine::outcome` for the words of the trade; `store` for
//! how they are kept; `replica` for how members agree; `node::driver` for how it runs; then any
//! door. What was decided on the way, and why, is in `docs/decisions/`.

pub mod base;

pub mod config;
pub mod store;
pub mod sys;
pub mod wire;

pub mod machine;

pub mod replica;
pub mod watch;

pub mod node;

pub mod api;
pub mod render;

pub mod ctl;

pub mod daemon;
