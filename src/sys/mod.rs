//! Floor 1: this host.
//!
//! What the daemon needs of the machine it runs on and no other floor should do by itself:
//! running commands and replacing files. Each module stands alone.
//!
//! Deliberately not here: anything that knows keys, templates or HTTP paths.

pub mod exec;
pub mod file;
