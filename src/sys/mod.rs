//! Floor 1: this host.
//!
//! What the daemon and its commands need of the machine they run on. Each module stands alone.
//!
//! Deliberately not here: anything that knows keys or templates.

pub mod http;
