//! Floor 1: this host.
//!
//! Sockets, processes, files and the service manager: what the daemon needs of the machine it
//! runs on, wrapped so that each failure names cause, place and next step. Nothing here knows
//! what travels over a socket or stands in a file.

pub mod listen;
