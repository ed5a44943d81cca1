//! `althing bench`: how fast is a server, and how does althing compare with etcd here?
//!
//! Why a verb of the product: a user can check each figure of the documentation on their own
//! machine, with the same client, and so can we before each release. Criterion-like
//! micro-benchmarks answer another question.
//!
//! How data passes: `put` and `get` load a running endpoint (`load`, over `http`) and print a
//! table; `null` serves the ceiling (`null`); `compare` starts althing, etcd and the null server
//! (`server`), walks the lines (`lines`) in turn (`compare`), and judges (`report`, `stats`).
//!
//! Invariants:
//! * Everything is bounded in count and time; limits are in `base::limits`.
//! * `compare` touches no server but those it started, and removes its data.
//! * `put` and `get` write below their prefix only, and delete it afterwards unless `--keep`.
//!
//! Deliberately not here: TLS and authentication; measure on loopback, or the network is what
//! you measure.

pub mod compare;
pub mod files;
pub mod http;
pub mod lines;
pub mod load;
pub mod machine;
pub mod null;
pub mod report;
pub mod server;
pub mod stats;

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::base::limits::{BENCH_ROUNDS_MAX, BENCH_SECONDS_MAX};
use crate::ctl::bench::http::{Connection, HttpError};
use crate::ctl::bench::load::{Kind, LoadError, Report, Until, Workload, run_load};
use crate::ctl::bench::null::NullServer;
use crate::ctl::bench::server::ServerError;

/// Measure a server, or compare althing with etcd on this machine.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum BenchCommand {
    /// Write random keys to a running endpoint.
    Put(LoadArgs),
    /// Read random keys from a running endpoint.
    Get(GetArgs),
    /// Serve answers that cost nothing: the ceiling of this machine.
    Null(NullArgs),
    /// Start althing, etcd and the null server, and measure them in turn.
    Compare(CompareArgs),
}

/// Arguments of `bench put`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  althing bench put\n  \
    althing bench put --endpoint http://127.0.0.1:2379 --connections 1,64 --seconds 10")]
pub struct LoadArgs {
    /// Server to load, plain HTTP.
    #[arg(long, default_value = "http://127.0.0.1:2379")]
    pub endpoint: String,
    /// Connections, one row of the table for each number.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64")]
    pub connections: Vec<usize>,
    /// Length of each run in seconds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=BENCH_SECONDS_MAX))]
    pub seconds: u64,
    /// Distinct keys.
    #[arg(long, default_value_t = lines::BUSY_KEYS, value_parser = clap::value_parser!(u64).range(1..))]
    pub keys: u64,
    /// Length of each value in bytes.
    #[arg(long, default_value_t = lines::BUSY_VALUE_BYTES)]
    pub value_bytes: usize,
    /// Directory the keys live in.
    #[arg(long, default_value = "/althing-bench")]
    pub prefix: String,
    /// Leave the keys in the store.
    #[arg(long)]
    pub keep: bool,
    /// Output: a table, or JSON (one object a run).
    #[arg(long, short, value_enum, default_value = "table")]
    pub output: Output,
}

/// Arguments of `bench get`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  althing bench get\n  althing bench get --local -o json")]
pub struct GetArgs {
    /// The load.
    #[command(flatten)]
    pub load: LoadArgs,
    /// Read what this member has (`quorum=false`) instead of the newest (`quorum=true`).
    #[arg(long)]
    pub local: bool,
}

/// Arguments of `bench null`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  althing bench null\n  \
    althing bench null --listen 127.0.0.1:12379")]
pub struct NullArgs {
    /// Address to listen on; port 0 picks one.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
}

/// Arguments of `bench compare`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  althing bench compare\n  \
    althing bench compare --rounds 3 --only put --dir /var/tmp -o json")]
pub struct CompareArgs {
    /// Rounds of each line; the table shows medians.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=i64::from(BENCH_ROUNDS_MAX)))]
    pub rounds: u32,
    /// Length of each run in seconds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=BENCH_SECONDS_MAX))]
    pub seconds: u64,
    /// Length of the sustained run in seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=BENCH_SECONDS_MAX))]
    pub sustained: u64,
    /// The etcd to compare with: a path, or a name to look up in PATH.
    #[arg(long, default_value = "etcd")]
    pub etcd: PathBuf,
    /// The confd that renders files beside etcd: a path, or a name to look up in PATH.
    #[arg(long, default_value = "confd")]
    pub confd: PathBuf,
    /// The althing to measure; without it, this program.
    #[arg(long)]
    pub althing: Option<PathBuf>,
    /// Folder for the data, on a real disk.
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,
    /// Only lines whose name holds this text.
    #[arg(long, default_value = "")]
    pub only: String,
    /// Also the lines with 1.1 million keys, which take minutes.
    #[arg(long)]
    pub large: bool,
    /// Leave data and logs in the folder.
    #[arg(long)]
    pub keep: bool,
    /// Output: a Markdown table, or JSON with every sample.
    #[arg(long, short, value_enum, default_value = "table")]
    pub output: Output,
}

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Why a benchmark failed. `exit_code` says what the process leaves with.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The endpoint cannot be used.
    #[error("cannot use endpoint {endpoint}: {why}; give one like http://127.0.0.1:2379")]
    Endpoint {
        /// What was given.
        endpoint: String,
        /// What is wrong.
        why: String,
    },
    /// The load could not begin.
    #[error("cannot run the load")]
    Load(#[source] LoadError),
    /// A server under test made trouble.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// An exchange failed.
    #[error("the exchange failed")]
    Http(#[source] HttpError),
    /// Requests failed, so the figures mean nothing.
    #[error("{count} requests failed and {succeeded} succeeded; the first failure: {first}")]
    Errors {
        /// How many.
        count: u64,
        /// How many did not.
        succeeded: u64,
        /// The first one.
        first: String,
    },
    /// A server could not be started before.
    #[error("not serving: {why}")]
    NotServing {
        /// Why.
        why: String,
    },
    /// A server did not finish in time.
    #[error("the server did not {what} in time")]
    Stalled {
        /// What it should have done.
        what: &'static str,
    },
    /// This program cannot measure that line.
    #[error("not measured by this program")]
    NotMeasured,
    /// The data would lie in memory.
    #[error(
        "{place} is in memory, where a flush costs nothing; name a folder on a disk with --dir"
    )]
    NoDisk {
        /// The folder.
        place: String,
    },
    /// The program's own path is unknown.
    #[error("cannot find this program's own path; name it with --althing")]
    OwnProgram(#[source] io::Error),
    /// A runtime could not be made.
    #[error("cannot start a runtime")]
    Runtime(#[source] io::Error),
    /// Signal handlers could not be set.
    #[error("cannot watch for signals")]
    Signals(#[source] io::Error),
    /// The null server could not listen.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The result could not be written.
    #[error("cannot write the result")]
    Output(#[source] io::Error),
    /// SIGINT or SIGTERM.
    #[error("interrupted; servers are ended and their data removed")]
    Interrupted,
}

impl From<LoadError> for BenchError {
    fn from(error: LoadError) -> Self {
        Self::Load(error)
    }
}

impl BenchError {
    /// The exit code of the command line's contract: 2 no endpoint reached, 64 usage, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Endpoint { .. }
            | Self::NoDisk { .. }
            | Self::Load(LoadError::OutOfBounds { .. }) => 64,
            Self::Errors { succeeded: 0, .. } | Self::Http(_) => 2,
            Self::Load(LoadError::Runtime(_))
            | Self::Errors { .. }
            | Self::Server(_)
            | Self::NotServing { .. }
            | Self::Stalled { .. }
            | Self::NotMeasured
            | Self::OwnProgram(_)
            | Self::Runtime(_)
            | Self::Signals(_)
            | Self::Listen { .. }
            | Self::Output(_)
            | Self::Interrupted => 1,
        }
    }
}

/// Runs the command to its end, on runtimes of its own; not to be called inside one.
///
/// # Errors
/// `BenchError`; results printed before it are valid.
pub fn run(command: BenchCommand) -> Result<(), BenchError> {
    match command {
        BenchCommand::Put(args) => {
            let kind = Kind::Put { keys: args.keys, value_bytes: args.value_bytes };
            load_endpoint(&args, kind)
        }
        BenchCommand::Get(GetArgs { load, local }) => {
            let keys = load.keys;
            let kind = if local { Kind::LocalGet { keys } } else { Kind::QuorumGet { keys } };
            load_endpoint(&load, kind)
        }
        BenchCommand::Null(args) => serve_null(args.listen),
        BenchCommand::Compare(args) => {
            let outcome = compare::run(&args)?;
            print(&match args.output {
                Output::Table => outcome.to_markdown(),
                Output::Json => format!("{:#}\n", outcome.to_json()),
            })
        }
    }
}

/// Serves until the process is ended.
fn serve_null(address: SocketAddr) -> Result<(), BenchError> {
    let server =
        NullServer::spawn(address).map_err(|source| BenchError::Listen { address, source })?;
    print(&format!("listening on http://{}\n", server.address()))?;
    loop {
        std::thread::park();
    }
}

/// One run for each number of connections; keys are written first if they are to be read.
fn load_endpoint(args: &LoadArgs, kind: Kind) -> Result<(), BenchError> {
    let target = resolve(&args.endpoint)?;
    let prefix = format!("/{}", args.prefix.trim_matches('/'));
    let run = |connections, until, kind| {
        let (prefix, stop) = (prefix.clone(), Arc::default());
        run_load(&Workload { target, prefix, connections, until, kind, stop })
    };
    if matches!(kind, Kind::QuorumGet { .. } | Kind::LocalGet { .. }) {
        let at_most = Duration::from_secs(BENCH_SECONDS_MAX);
        let until = Until::Operations { count: args.keys, at_most };
        let fill = Kind::Fill { keys: args.keys, value_bytes: args.value_bytes };
        refuse_errors(&run(16, until, fill)?)?;
    }
    if args.output == Output::Table {
        print(&table_head())?;
    }
    let mut failed = None;
    for connections in &args.connections {
        let report = run(*connections, Until::Elapsed(Duration::from_secs(args.seconds)), kind)?;
        print(&match args.output {
            Output::Table => table_row(*connections, &report),
            Output::Json => {
                format!("{}\n", serde_json::json!({"connections": connections, "report": report}))
            }
        })?;
        failed = failed.or(refuse_errors(&report).err());
    }
    if !args.keep && failed.is_none() {
        delete_directory(target, &prefix)?;
    }
    failed.map_or(Ok(()), Err)
}

/// Any error makes a run void, and so does a run in which nothing happened.
fn refuse_errors(report: &Report) -> Result<(), BenchError> {
    if report.errors == 0 && report.operations > 0 {
        return Ok(());
    }
    let first = report.first_error.clone().unwrap_or_else(|| "no answer at all".into());
    Err(BenchError::Errors { count: report.errors, succeeded: report.operations, first })
}

/// `http://host:port` to an address.
fn resolve(endpoint: &str) -> Result<SocketAddr, BenchError> {
    let wrong = |why: String| BenchError::Endpoint { endpoint: endpoint.into(), why };
    let Some(authority) = endpoint.strip_prefix("http://") else {
        return Err(wrong("only plain http:// can be measured".into()));
    };
    let mut addresses = authority
        .trim_end_matches('/')
        .to_socket_addrs()
        .map_err(|error| wrong(error.to_string()))?;
    addresses.next().ok_or_else(|| wrong("the name has no address".into()))
}

fn delete_directory(target: SocketAddr, prefix: &str) -> Result<(), BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(BenchError::Runtime)?;
    let request =
        format!("DELETE /v2/keys{prefix}?recursive=true HTTP/1.1\r\nHost: {target}\r\n\r\n");
    let exchange = async {
        let mut connection = Connection::open(target).await?;
        connection.send(request.as_bytes()).await?;
        connection.receive().await
    };
    let patience = Duration::from_secs(crate::base::limits::BENCH_STALL_SECONDS);
    match runtime.block_on(async { tokio::time::timeout(patience, exchange).await }) {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(BenchError::Http(error)),
        Err(_) => Err(BenchError::Stalled { what: "delete the keys of the benchmark" }),
    }
}

fn table_head() -> String {
    "| connections | per second | p50 us | p90 us | p99 us | p99.9 us | max us | errors |\n\
     |---:|---:|---:|---:|---:|---:|---:|---:|\n"
        .into()
}

fn table_row(connections: usize, report: &Report) -> String {
    let Report { per_second, p50_us, p90_us, p99_us, p999_us, max_us, errors, .. } = report;
    format!(
        "| {connections} | {per_second:.0} | {p50_us:.0} | {p90_us:.0} | {p99_us:.0} \
         | {p999_us:.0} | {max_us:.0} | {errors} |\n"
    )
}

fn print(text: &str) -> Result<(), BenchError> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).map_err(BenchError::Output)
}

/// A line about what is going on; standard error, so that results can be piped.
fn progress(text: &str) {
    // A closed standard error takes only the progress with it.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// An error and its causes in one line.
fn chain_text(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing into a string cannot fail.
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(subcommand)]
        command: BenchCommand,
    }

    #[test]
    fn the_command_line_has_the_defaults_of_the_targets() {
        let line = <Line as clap::Parser>::parse_from(["bench", "compare"]);
        let BenchCommand::Compare(args) = line.command else { panic!("{line:?}") };
        assert_eq!((args.rounds, args.seconds, args.sustained), (5, 5, 60));
        let line = <Line as clap::Parser>::parse_from(["bench", "get", "--connections", "1,2"]);
        let BenchCommand::Get(args) = line.command else { panic!("{line:?}") };
        assert_eq!(args.load.connections, [1, 2]);
        <Line as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn endpoints_are_plain_http() {
        assert_eq!(resolve("http://127.0.0.1:2379/").unwrap().port(), 2379);
        for wrong in ["https://127.0.0.1:2379", "127.0.0.1:2379", "http://127.0.0.1"] {
            assert_eq!(resolve(wrong).unwrap_err().exit_code(), 64, "{wrong}");
        }
    }

    #[test]
    fn put_and_get_run_against_the_null_server() {
        let server = NullServer::spawn("127.0.0.1:0".parse().unwrap()).unwrap();
        let endpoint = format!("http://{}", server.address());
        for verb in ["put", "get"] {
            let arguments =
                ["bench", verb, "--endpoint", &endpoint, "--seconds=1", "--connections=2"];
            run(<Line as clap::Parser>::parse_from(arguments).command).unwrap();
        }
    }
}
