//! scaffold: only `bench` is mounted.

use std::process::ExitCode;

use clap::Parser;

#[derive(clap::Parser)]
enum Verb {
    /// Measure a server, or compare althing with etcd on this machine.
    Bench {
        #[command(subcommand)]
        command: althing::ctl::bench::BenchCommand,
    },
}

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_none_or(|verb| verb != "bench") {
        return ExitCode::SUCCESS;
    }
    let Verb::Bench { command } = Verb::parse();
    match althing::ctl::bench::run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "error: {error}");
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                let _ = writeln!(std::io::stderr(), "cause: {cause}");
                source = cause.source();
            }
            ExitCode::from(error.exit_code())
        }
    }
}
