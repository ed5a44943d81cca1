//! `version`: which program this is.

use crate::base::report::Report;
use crate::ctl::output::{Format, Out};

/// Version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Arguments of `version`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  althing version\n  althing version -o json")]
pub struct VersionArgs {
    /// Form of the output
    #[arg(long, short, value_enum, default_value = "text")]
    pub output: Format,
}

/// Prints the version.
///
/// # Errors
/// When it cannot be written.
pub fn version(args: &VersionArgs, out: &mut Out<'_>) -> Result<(), Report> {
    match args.output {
        Format::Text => out.line(&format!("althing {VERSION}")),
        Format::Json => out.line(&format!("{{\"version\":\"{VERSION}\"}}")),
    }
}
