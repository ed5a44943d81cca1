//! What a person is told when a command ends badly, and the exit code a script sees.
//!
//! Why in the words of the house: settings, the daemon and every verb of the command line fail in
//! the same three lines (`error:`, `cause:`, `help:`), and `main` ends the process with the code.
//!
//! Invariants:
//! * A report is about one failed run; its exit code is never 0.
//! * `cause` is never a repetition of `error`.
//!
//! Deliberately not here: colours and printing (`ctl::output`).
//!
//! Sources: exit codes 64, 65 and 78 are those of BSD's `sysexits.h`.

use std::fmt;

/// Why the process ends, as its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Something else.
    Failed = 1,
    /// No endpoint could be reached; nothing was done.
    Unreachable = 2,
    /// The cluster has no leader or no quorum; nothing was done.
    NoLeader = 3,
    /// No such key, or a comparison failed; nothing was done.
    NotFound = 4,
    /// Permission or authentication.
    Denied = 5,
    /// No answer in time; a write may have happened.
    Unknown = 6,
    /// The command line makes no sense.
    Usage = 64,
    /// The input data is invalid.
    Data = 65,
    /// A setting is invalid.
    Config = 78,
    /// `plan` could not be worked out; 1 says there that a file would change.
    NoPlan = 255,
}

impl Exit {
    /// Every code, in the order of its number.
    pub const ALL: [Self; 10] = [
        Self::Failed,
        Self::Unreachable,
        Self::NoLeader,
        Self::NotFound,
        Self::Denied,
        Self::Unknown,
        Self::Usage,
        Self::Data,
        Self::Config,
        Self::NoPlan,
    ];

    /// What the code tells a script, and what to do then.
    #[must_use]
    pub fn meaning(self) -> (&'static str, &'static str) {
        match self {
            Self::Failed => {
                ("failed, for a reason without a code of its own", "read `error:` and `help:`")
            }
            Self::Unreachable => {
                ("no endpoint could be reached; nothing was done", "start a server, or name one")
            }
            Self::NoLeader => {
                ("the cluster has no leader or no quorum; nothing was done", "try again later")
            }
            Self::NotFound => {
                ("no such key, or a comparison failed; nothing was done", "read before you write")
            }
            Self::Denied => ("permission or authentication; nothing was done", "ask the operator"),
            Self::Unknown => {
                ("no answer in time; a write may have happened", "read the key, then decide")
            }
            Self::Usage => ("the command line makes no sense", "see `--help`"),
            Self::Data => ("the input data is invalid", "mend the input"),
            Self::Config => {
                ("a setting, a resource file or what they name is invalid", "mend the line shown")
            }
            Self::NoPlan => ("`plan` could not be worked out", "mend what `error:` says"),
        }
    }

    /// The number for the operating system.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// A failed run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The exit code.
    pub exit: Exit,
    /// What failed, with its place; may have several lines.
    pub error: String,
    /// Why, if known.
    pub cause: Option<String>,
    /// What to do next.
    pub help: Option<String>,
}

impl Report {
    /// A report without cause and help.
    pub fn new(exit: Exit, error: impl Into<String>) -> Self {
        Self { exit, error: error.into(), cause: None, help: None }
    }

    /// Sets the cause.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Sets the cause to an error and everything behind it.
    #[must_use]
    pub fn caused_by(self, error: &dyn std::error::Error) -> Self {
        self.cause(chain(error))
    }

    /// Sets what to do next.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// An error and its sources in one line, outermost first.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

impl std::error::Error for Report {}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.error)?;
        for (label, line) in [("cause", &self.cause), ("help", &self.help)] {
            if let Some(line) = line {
                write!(f, "\n{label}: {line}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Fault;

    #[test]
    fn shows_its_three_lines() {
        let source = std::io::Error::other("disk on fire");
        let fault = Fault::Storage { doing: "writing x".into(), source };
        let report = Report::new(Exit::Failed, "cannot start").caused_by(&fault).help("call 112");
        let expected = "error: cannot start\n\
                        cause: storage failed while writing x: disk on fire\n\
                        help: call 112";
        assert_eq!(report.to_string(), expected);
        assert_eq!(Report::new(Exit::Usage, "what?").to_string(), "error: what?");
    }

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let table = [
            (Exit::Failed, 1),
            (Exit::Unreachable, 2),
            (Exit::NoLeader, 3),
            (Exit::NotFound, 4),
            (Exit::Denied, 5),
            (Exit::Unknown, 6),
            (Exit::Usage, 64),
            (Exit::Data, 65),
            (Exit::Config, 78),
            (Exit::NoPlan, 255),
        ];
        for (exit, code) in table {
            assert_eq!(exit.code(), code);
        }
        assert_eq!(Exit::ALL, table.map(|(exit, _)| exit));
    }
}
