//! Floor 1: this host.
//!
//! Sockets, processes and files: what the daemon and its commands need of the machine they run on,
//! wrapped so that each failure names cause, place and next step. Each module stands alone.
//!
//! Deliberately not here: anything that knows keys, templates or the paths of our API.

pub mod exec;
pub mod file;
pub mod http;
pub mod listen;
