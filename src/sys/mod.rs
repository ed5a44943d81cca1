//! Floor 1: this host.
//!
//! What the daemon and its commands need of the machine they run on and no other floor should do
//! by itself: running commands, replacing files, asking another server. Each module stands alone.
//!
//! Deliberately not here: anything that knows keys, templates or the paths of our API.

pub mod exec;
pub mod file;
pub mod http;
//! Sockets, processes, files and the service manager: what the daemon needs of the machine it
//! runs on, wrapped so that each failure names cause, place and next step. Nothing here knows
//! what travels over a socket or stands in a file.

pub mod listen;
