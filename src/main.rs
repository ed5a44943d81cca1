//! Entry point: the first word decides who the process is, the exit code how it went.
//!
//! `render-worker` is what the daemon starts its own binary as (see `render::engine`); it is no
//! verb of the command line. `run` is the daemon; every other verb is a client (`ctl`).
//!
//! Invariant: an error never ends with exit code 0.

use althing::base::report::Report;
use althing::ctl::{self, Cli, Ended, Verb, output};
use althing::daemon;
use clap::Parser;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|word| word == "render-worker") {
        #[expect(clippy::disallowed_methods, reason = "main ends the process")]
        std::process::exit(althing::render::worker_main());
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let verbs = Cli::verbs();
            return output::usage(error, &verbs.iter().map(String::as_str).collect::<Vec<_>>());
        }
    };
    match carry_out(&cli.verb) {
        Ok(ended) => ExitCode::from(ended.code()),
        Err(report) => output::fail(&report),
    }
}

fn carry_out(verb: &Verb) -> Result<Ended, Report> {
    match verb {
        Verb::Run(flags) => daemon::run(flags).map(|()| Ended::Done),
        client => ctl::run(client),
    }
}
