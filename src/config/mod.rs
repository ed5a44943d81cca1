//! Floor 1: what the operator decided.
//!
//! What: the settings of `althing run`, each with its origin. Why the origin: "which of the four
//! places does this value come from" is the first question when a setting seems to be ignored.
//!
//! How data passes: `Flags` (from the command line) and the `Surroundings` go into `load`, which
//! lays default < file < environment < flag over each other by the rows of `table`, and answers a
//! `Config` or every mistake at once.
//!
//! Invariants:
//! * A `Config` is complete and consistent: nothing above asks again.
//! * A plain-text listener beyond loopback exists only if `insecure` was said (DESIGN decision 20).
//! * Nothing is guessed: unknown keys of the file are errors.
//!
//! While the daemon runs, `change` tells what a settings file that was edited would change.
//!
//! Deliberately not here: template resources (`render`), legacy flag names of etcd.

pub mod change;
pub mod load;
pub mod show;
pub mod table;

pub use load::{Flags, Surroundings, load};

use crate::base::diagnostic::{Diagnostic, Place};
use crate::base::report::{Exit, Report};
use crate::base::url::HttpUrl;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// `--dev` implies it.
    Dev,
    /// A line of the settings file.
    File {
        /// The file.
        path: String,
        /// Where in it.
        place: Place,
    },
    /// An environment variable.
    Environment(&'static str),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default"),
            Self::Dev => f.write_str("--dev"),
            Self::File { path, place } => write!(f, "{path}:{}:{}", place.line, place.column),
            Self::Environment(name) => write!(f, "the environment variable {name}"),
            Self::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// A value and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// Its origin.
    pub origin: Origin,
}

/// A client listener: an address of this host; port 0 = the system chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenUrl(SocketAddr);

impl ListenUrl {
    /// The socket to bind.
    #[must_use]
    pub fn address(self) -> SocketAddr {
        self.0
    }

    /// Whether only programs of this host can reach it.
    #[must_use]
    pub fn is_loopback(self) -> bool {
        self.0.ip().to_canonical().is_loopback()
    }
}

impl fmt::Display for ListenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HttpUrl::of(self.0).fmt(f)
    }
}

/// All settings of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Trial mode: everything below one local directory, with a sample.
    pub dev: bool,
    /// Name of this member.
    pub name: Setting<String>,
    /// Where the store lives.
    pub data_dir: Setting<PathBuf>,
    /// Where clients are served; never empty.
    pub listen_client_urls: Setting<Vec<ListenUrl>>,
    /// What clients and members are told; empty = the first listener.
    pub advertise_client_urls: Setting<Vec<HttpUrl>>,
    /// Holds `conf.d` and `templates`.
    pub confdir: Setting<PathBuf>,
    /// Where files may be rendered to; empty = everywhere but in the daemon's own directories.
    pub allowed_dirs: Setting<Vec<PathBuf>>,
    /// Plain text beyond loopback is wanted.
    pub insecure: Setting<bool>,
    /// How long the service manager is kept waiting for the files.
    pub render_timeout: Setting<Duration>,
    /// The settings file, and whether it is there; `None` = nobody looks for one.
    pub file: Option<SettingsFile>,
}

/// Where settings were looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsFile {
    /// Its path.
    pub path: PathBuf,
    /// Whether it was read; one that nobody named may be missing.
    pub read: bool,
}

/// Everything that is wrong with the settings, in the order of `table::SPECS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadConfig(pub Vec<Diagnostic>);

impl std::error::Error for BadConfig {}

impl fmt::Display for BadConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&shown.join("\n"))
    }
}

impl From<BadConfig> for Report {
    fn from(bad: BadConfig) -> Self {
        let shown = bad.to_string();
        Self::new(Exit::Config, shown.strip_prefix("error: ").unwrap_or(&shown))
    }
}
