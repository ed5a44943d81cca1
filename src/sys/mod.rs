//! Floor 1: this host.
//!
//! What the daemon and its commands need of the machine they run on and no other floor should do
//! by itself: listening, running commands, replacing files, asking another server, telling the
//! service manager. Each module stands alone but for `pulse`, and each failure names cause, place and next step.
//!
//! Deliberately not here: anything that knows what travels over a socket or stands in a file.

pub mod exec;
pub mod file;
pub mod http;
pub mod listen;
pub mod memory;
pub mod notify;
mod pace;
mod places;
pub mod pulse;
mod stop;
pub mod usage;
pub mod users;
