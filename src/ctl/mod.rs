//! Floor 5: the command line.
//!
//! What: every verb but `run`, as a client of a daemon that may be on another host. Why a floor of
//! its own: a command is a program like any other etcd client; it knows HTTP and never the node.
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

pub mod bench;
pub mod client;
pub mod keys;
pub mod output;
pub mod render;
pub mod status;
pub mod version;
pub mod watch;

#[cfg(test)]
mod testing;

use crate::base::report::{Exit, Report, chain};
use crate::config::Flags;
use crate::ctl::output::Out;

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
        Signals: SIGTERM and SIGINT drain and end it; SIGHUP reads resources and templates again.")]
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
    /// Render templates once, from any cluster
    Render(render::RenderArgs),
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
}

/// Runs a verb to its end.
///
/// # Errors
/// What the user must be told; a reader that closed the pipe is not among it.
pub fn run(verb: &Verb) -> Result<(), Report> {
    // A benchmark has runtimes of its own.
    if let Verb::Bench { command } = verb {
        return bench::run(command.as_ref().clone()).map_err(|error| bench_report(&error));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        Report::new(Exit::Failed, "cannot start an event loop").cause(error.to_string())
    })?;
    let mut out = Out::stdout();
    let outcome = runtime.block_on(carry_out(verb, &mut out));
    if out.is_closed() { Ok(()) } else { outcome }
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

async fn carry_out(verb: &Verb, out: &mut Out<'_>) -> Result<(), Report> {
    match verb {
        Verb::Run(_) | Verb::Bench { .. } => {
            Err(Report::new(Exit::Usage, "this verb is not a client's request"))
        }
        Verb::Get(args) => keys::get(args, out).await,
        Verb::Set(args) => keys::set(args, out).await,
        Verb::Ls(args) => keys::ls(args, out).await,
        Verb::Rm(args) => keys::rm(args, out).await,
        Verb::Watch(args) => watch::watch(args, out).await,
        Verb::Status(args) => status::status(args, out).await,
        Verb::Render(args) => render::render(args, out).await,
        Verb::Version(args) => version::version(args, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

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
