//! scaffold

mod home;
mod logging;
mod sample;
mod signals;

use crate::base::report::{Exit, Report};
use crate::config::Flags;

/// Runs a member until it is told to stop.
///
/// # Errors
/// Not built yet.
pub fn run(_flags: &Flags) -> Result<(), Report> {
    Err(Report::new(Exit::Failed, "not built yet"))
}
