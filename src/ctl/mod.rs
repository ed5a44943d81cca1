//! Floor 5: the command line.
//!
//! What: every verb but `run`, as a client of a daemon that may be on another host. Why a floor of
//! its own: a command is a program like any other etcd client; it knows HTTP and never the node.
//!
//! `plan`, `check` and `config` look at this host's own files besides (`survey`, `settings`).
//!
//! How data passes: words -> `Cli` (clap) -> one verb's module -> `client` (endpoints, exit
//! codes) -> `output`.
//!
//! Invariants:
//! * Each verb has a `--help` with two runnable examples; `tests` below holds them to it.
//! * Every failure is a `Report`: what, why, what next, and an exit code that is never 0.
//! * Results go to standard output, all else to standard error.
//!
//! Deliberately not here: starting the daemon (`main` hands `run` to `daemon`), and the commands
//! of etcdctl and confd.
//!
//! Sources: `contracts/cli.md`.

pub mod advice;
pub mod bench;
pub mod check;
pub mod client;
pub mod diff;
pub mod frozen;
pub mod keys;
pub mod output;
pub mod plan;
pub mod reference;
pub mod render;
pub mod settings;
pub mod status;
pub mod survey;
pub mod version;
pub mod watch;
pub mod why;
pub mod words;

#[cfg(test)]
mod testing;

use crate::base::report::{Exit, Report, chain};
use crate::config::Flags;
use crate::ctl::output::Out;
use clap::CommandFactory;

/// A replicated store that speaks etcd's API, and a renderer that keeps config files up to date.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "althing", version, propagate_version = false, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Verb {
    /// Run a member: the store, its API and the renderer
    #[command(after_help = "Examples:\n  althing run --dev\n  \
        althing run --data-dir /srv/althing --listen-client-urls http://127.0.0.1:2379\n\n\
        Signals: SIGTERM and SIGINT drain and end it; SIGHUP reads settings, resources and \
        templates again.")]
    Run(Box<Flags>),
    /// Print the value of a key
    Get(keys::GetArgs),
    /// Write a key
    Set(Box<keys::SetArgs>),
    /// List a directory
    Ls(keys::LsArgs),
    /// Remove a key or a directory
    Rm(keys::RmArgs),
    /// Print changes as they happen
    Watch(watch::WatchArgs),
    /// Show how the daemon and its rendered files are
    Status(status::StatusArgs),
    /// Show what would change in the rendered files, and change nothing
    Plan(plan::PlanArgs),
    /// Check settings, resources and templates, and run the check commands on copies
    Check(check::CheckArgs),
    /// Explain a rendered file: its resource, its keys, what is owed or failing
    Why(why::WhyArgs),
    /// Render templates once, from any cluster
    Render(render::RenderArgs),
    /// Show the settings in force and where they come from
    #[command(after_help = "Examples:\n  althing config show\n  althing config show --origin")]
    Config {
        /// What to do with them.
        #[command(subcommand)]
        verb: settings::ConfigVerb,
    },
    /// Measure a server, or compare this one with etcd
    #[command(after_help = "Examples:\n  althing bench put --connections 1,64\n  \
        althing bench compare --rounds 3")]
    Bench {
        /// What to measure.
        #[command(subcommand)]
        command: Box<bench::BenchCommand>,
    },
    /// Print the version
    Version(version::VersionArgs),
    /// Print a page of the reference
    #[command(hide = true)]
    Reference(reference::ReferenceArgs),
}

impl Cli {
    /// The verbs a person may mean.
    #[must_use]
    pub fn verbs() -> Vec<String> {
        let command = Self::command();
        let shown = command.get_subcommands().filter(|verb| !verb.is_hide_set());
        shown.map(|verb| verb.get_name().to_owned()).collect()
    }
}

/// How a verb that did its work ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As asked.
    Done,
    /// `plan` found something that would change.
    WouldChange,
}

impl Ended {
    /// The number for the operating system.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::WouldChange => 1,
        }
    }
}

/// Runs a verb to its end.
///
/// # Errors
/// What the user must be told; a reader that closed the pipe is not among it.
pub fn run(verb: &Verb) -> Result<Ended, Report> {
    // A benchmark has runtimes of its own.
    if let Verb::Bench { command } = verb {
        let outcome = bench::run(command.as_ref().clone()).map_err(|error| bench_report(&error));
        return outcome.map(|()| Ended::Done);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        Report::new(Exit::Failed, "cannot start an event loop").cause(error.to_string())
    })?;
    let mut out = Out::stdout();
    let outcome = runtime.block_on(carry_out(verb, &mut out));
    if out.is_closed() { Ok(Ended::Done) } else { outcome }
}

fn bench_report(error: &bench::BenchError) -> Report {
    let exits = [Exit::Usage, Exit::Unreachable];
    let exit = exits.into_iter().find(|exit| exit.code() == error.exit_code());
    let report = Report::new(exit.unwrap_or(Exit::Failed), error.to_string());
    match std::error::Error::source(error) {
        Some(source) => report.cause(chain(source)),
        None => report,
    }
}

async fn carry_out(verb: &Verb, out: &mut Out<'_>) -> Result<Ended, Report> {
    let outcome = match verb {
        Verb::Run(_) | Verb::Bench { .. } => {
            Err(Report::new(Exit::Usage, "this verb is not a client's request"))
        }
        Verb::Get(args) => keys::get(args, out).await,
        Verb::Set(args) => keys::set(args, out).await,
        Verb::Ls(args) => keys::ls(args, out).await,
        Verb::Rm(args) => keys::rm(args, out).await,
        Verb::Watch(args) => watch::watch(args, out).await,
        Verb::Status(args) => status::status(args, out).await,
        Verb::Plan(args) => return plan::plan(args, out).await,
        Verb::Check(args) => check::check(args, out).await,
        Verb::Why(args) => why::why(args, out).await,
        Verb::Render(args) => render::render(args, out).await,
        Verb::Config { verb } => settings::run(verb, out),
        Verb::Version(args) => version::version(args, out),
        Verb::Reference(args) => reference::reference(args, out),
    };
    outcome.map(|()| Ended::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_shows_two_examples_that_parse() {
        for verb in Cli::command().get_subcommands_mut() {
            let help = verb.render_long_help().to_string();
            let examples = help.split_once("Examples:\n").map_or("", |(_, examples)| examples);
            let examples: Vec<&str> =
                examples.lines().map_while(|l| l.strip_prefix("  ")).collect();
            assert!(examples.len() >= 2, "{}: {help}", verb.get_name());
            for example in examples {
                let command = example.rsplit(" | ").next().unwrap();
                let parsed = Cli::try_parse_from(command.split_whitespace());
                assert!(parsed.is_ok(), "{example}: {}", parsed.unwrap_err());
            }
        }
    }

    #[test]
    fn mistakes_are_usage_errors() {
        let table: [&[&str]; 7] = [
            &[],
            &["gett", "/a"],
            &["get"],
            &["set", "/a", "b", "--ttl", "0"],
            &["set", "/a", "b", "--create", "--prev-value", "c"],
            &["get", "/a", "--endpoint", "127.0.0.1:2379"],
            &["run", "--data-dri", "x"],
        ];
        for words in table {
            let error = Cli::try_parse_from(["althing"].iter().chain(words)).unwrap_err();
            assert!(error.use_stderr(), "{words:?}");
        }
        for words in [["althing", "--help"], ["althing", "--version"]] {
            assert!(!Cli::try_parse_from(words).unwrap_err().use_stderr());
        }
    }

    #[tokio::test]
    async fn the_version_is_printed() {
        let mut printed = Vec::new();
        let cli = Cli::try_parse_from(["althing", "version", "-o", "json"]).unwrap();
        carry_out(&cli.verb, &mut Out::buffer(&mut printed)).await.unwrap();
        assert!(printed.starts_with(b"{\"version\":\""));
    }
}
