//! `althing bench compare`: althing beside the real etcd and the null server, on this machine.
//!
//! Why side by side: figures of another day or machine say nothing here. All contenders serve on
//! loopback, keep their data below one directory, and are measured by the same client, in turn,
//! line by line and round by round, so that a slow minute of the machine hits all of them.
//!
//! How data passes: `run` makes a `Stage` and walks the lines of `lines::LINES`; the stage
//! starts servers on demand and prepares their data (a `Fixture`); samples are collected a line
//! and handed to `report`.
//!
//! Invariants:
//! * One contender works at a time: before each run the disk is synced and the
//!   processors are idle.
//! * The servers of one fixture only are alive at once, so that they fit into memory.
//! * A contender that fails is left out and said so; the others go on.
//! * The working directory is removed at the end, unless `--keep`.
//!
//! Deliberately not here: what is measured (`lines`), processes (`server`), output (`report`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::ctl::bench::files::{Changes, Folders};
use crate::ctl::bench::lines::{
    BUSY_KEYS, BUSY_VALUE_BYTES, LINES, LOADED_VALUE_BYTES, Line, SMALL_VALUE_BYTES,
};
use crate::ctl::bench::load::{Kind, Report, Until, Workload, key_name, run_load};
use crate::ctl::bench::machine::{self, Processors};
use crate::ctl::bench::report::{Machine, Outcome, Samples};
use crate::ctl::bench::server::{Contender, Server, ServerError};
use crate::ctl::bench::{BenchError, CompareArgs, chain_text, progress, refuse_errors};

/// The v2 directory of all keys of the benchmark.
pub const PREFIX: &str = "/bench";
/// Connections that fill a fixture.
const FILL_CONNECTIONS: usize = 64;
/// Longest time to fill one.
const FILL_AT_MOST: Duration = Duration::from_secs(600);
/// How long the machine is watched before a run.
const QUIET_WINDOW: Duration = Duration::from_millis(200);
/// Windows to wait for quiet; after them the run begins anyway, and it is said.
const QUIET_WINDOWS_MAX: u32 = 25;

/// What a server's data looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fixture {
    /// Nothing stored.
    Idle,
    /// The keys of the PUT and GET lines.
    Busy,
    /// So many keys with short values.
    Loaded(u64),
    /// Twenty keys, each rendered into a file.
    Files,
}

/// Measures all lines that `args` select.
///
/// # Errors
/// If the working directory is of no use, or on SIGINT or SIGTERM.
pub fn run(args: &CompareArgs) -> Result<Outcome, BenchError> {
    let mut stage = Stage::new(args)?;
    let machine = stage.describe_machine()?;
    let mut lines = Vec::new();
    for line in LINES.iter().filter(|line| is_selected(line, args)) {
        let samples = measure_line(&mut stage, line, args.rounds)?;
        lines.push((line, samples));
    }
    Ok(Outcome { machine, disturbed_runs: stage.disturbed_runs, lines })
}

fn is_selected(line: &Line, args: &CompareArgs) -> bool {
    let wanted = args.only.to_lowercase();
    let named = line.name.to_lowercase().contains(&wanted)
        || line.rows.iter().any(|row| row.name.to_lowercase().contains(&wanted));
    named && (args.large || !line.large)
}

/// All rounds of one line: each contender in turn, then again.
fn measure_line(stage: &mut Stage, line: &Line, rounds: u32) -> Result<Samples, BenchError> {
    let mut samples = Samples::default();
    let rounds = if line.every_round { rounds } else { 1 };
    for round in 1..=rounds {
        for who in Contender::ALL {
            if (who == Contender::Null && !line.null) || samples.failed(who) {
                continue;
            }
            stage.check_interrupted()?;
            let measured = stage.measure(line, who);
            if !matches!(measured, Err(BenchError::NotMeasured)) {
                let shown = measured.as_ref().map_or_else(
                    |error| chain_text(error),
                    |figures| {
                        figures
                            .iter()
                            .map(|figure| format!("{figure:.2}"))
                            .collect::<Vec<_>>()
                            .join(", ")
                    },
                );
                progress(&format!("{} {round}/{rounds} {}: {shown}", line.name, who.name()));
            }
            match measured {
                Ok(figures) => samples.add(who, figures),
                Err(BenchError::Interrupted) => return Err(BenchError::Interrupted),
                Err(error) => samples.fail(who, &error),
            }
        }
    }
    Ok(samples)
}

/// The servers and their data.
pub struct Stage {
    workspace: Workspace,
    servers: BTreeMap<(Contender, Fixture), Server>,
    /// Data directories that hold their fixture, whether a server runs on them or not.
    filled: BTreeSet<(Contender, Fixture)>,
    /// Contenders that could not be started, and why.
    dead: BTreeMap<Contender, String>,
    programs: BTreeMap<Contender, PathBuf>,
    confd: PathBuf,
    run_time: Duration,
    sustained_time: Duration,
    interrupted: Arc<AtomicBool>,
    /// Runs that began although the machine was not idle.
    disturbed_runs: u32,
}

impl Stage {
    fn new(args: &CompareArgs) -> Result<Self, BenchError> {
        let own = std::env::current_exe().map_err(BenchError::OwnProgram)?;
        let althing = args.althing.clone().unwrap_or_else(|| own.clone());
        let programs = BTreeMap::from([
            (Contender::Althing, machine::find_program(&althing)),
            (Contender::Etcd, machine::find_program(&args.etcd)),
            (Contender::Null, own),
        ]);
        machine::raise_descriptor_limit();
        Ok(Self {
            workspace: Workspace::create(&args.dir, args.keep)?,
            servers: BTreeMap::new(),
            filled: BTreeSet::new(),
            dead: BTreeMap::new(),
            programs,
            confd: machine::find_program(&args.confd),
            run_time: Duration::from_secs(args.seconds),
            sustained_time: Duration::from_secs(args.sustained),
            interrupted: watch_signals()?,
            disturbed_runs: 0,
        })
    }

    /// Length of one run.
    #[must_use]
    pub fn run_time(&self) -> Duration {
        self.run_time
    }

    /// Length of the sustained run.
    #[must_use]
    pub fn sustained_time(&self) -> Duration {
        self.sustained_time
    }

    fn measure(&mut self, line: &Line, who: Contender) -> Result<Vec<f64>, BenchError> {
        let figures = (line.measure)(self, who)?;
        assert_eq!(figures.len(), line.rows.len(), "{} has a figure for each row", line.name);
        Ok(figures)
    }

    /// The server of `who` with the data of `fixture`, started and filled if need be.
    ///
    /// # Errors
    /// If it cannot be started or filled; then it is not tried again.
    pub fn server(&mut self, who: Contender, fixture: Fixture) -> Result<&Server, BenchError> {
        self.check_interrupted()?;
        if let Some(why) = self.dead.get(&who) {
            return Err(BenchError::NotServing { why: why.clone() });
        }
        if !self.servers.contains_key(&(who, fixture)) {
            self.servers.retain(|(_, other), _| *other == fixture);
            let started = self.begin(who, fixture);
            if let Err(error) = started {
                self.servers.remove(&(who, fixture));
                if matches!(error, BenchError::Interrupted) {
                    return Err(error);
                }
                let why = chain_text(&error);
                self.dead.insert(who, why.clone());
                return Err(BenchError::NotServing { why });
            }
        }
        let gone = || BenchError::NotServing { why: "its server is gone".into() };
        self.servers.get(&(who, fixture)).ok_or_else(gone)
    }

    fn start(
        &mut self,
        who: Contender,
        fixture: Fixture,
        ready_path: &str,
    ) -> Result<Duration, BenchError> {
        let none = || BenchError::NotServing { why: "no program".into() };
        let program = self.programs.get(&who).ok_or_else(none)?;
        let data = self.data_of(who, fixture);
        let (server, took) = Server::start(who, program, &data, ready_path)?;
        self.servers.insert((who, fixture), server);
        Ok(took)
    }

    fn data_of(&self, who: Contender, fixture: Fixture) -> PathBuf {
        self.workspace.path.join(format!("{}-{}", who.name(), fixture.name()))
    }

    /// Starts a server for the first time and gives it its data.
    fn begin(&mut self, who: Contender, fixture: Fixture) -> Result<(), BenchError> {
        if fixture == Fixture::Files {
            Folders::beside(&self.data_of(who, fixture)).write(who)?;
            self.start(who, fixture, "/health")?;
            return self.render(who, fixture);
        }
        self.start(who, fixture, "/health")?;
        self.fill(who, fixture)
    }

    /// Sets the keys of the files, and waits for the files.
    fn render(&mut self, who: Contender, fixture: Fixture) -> Result<(), BenchError> {
        let mut changes = self.changes(who, fixture)?;
        changes.set_all()?;
        let confdir = Folders::beside(&self.data_of(who, fixture)).confdir;
        if let (Contender::Etcd, Some(server)) = (who, self.servers.get_mut(&(who, fixture))) {
            server.accompany(&self.confd, &confdir)?;
        }
        changes.wait_for_all()
    }

    fn changes(&self, who: Contender, fixture: Fixture) -> Result<Changes, BenchError> {
        let gone = || BenchError::NotServing { why: "its server is gone".into() };
        let target = self.servers.get(&(who, fixture)).ok_or_else(gone)?.address();
        Changes::begin(who, target, Folders::beside(&self.data_of(who, fixture)))
    }

    /// A writer of the keys whose files are rendered, once the machine is quiet.
    ///
    /// # Errors
    /// If the server does not serve, or its files do not follow.
    pub fn quiet_changes(&mut self, who: Contender) -> Result<Changes, BenchError> {
        self.quiet(who, Fixture::Files)?;
        self.changes(who, Fixture::Files)
    }

    fn fill(&mut self, who: Contender, fixture: Fixture) -> Result<(), BenchError> {
        let Some((keys, value_bytes)) = fixture.content() else { return Ok(()) };
        if who == Contender::Null || self.filled.contains(&(who, fixture)) {
            return Ok(());
        }
        let until = Until::Operations { count: keys, at_most: FILL_AT_MOST };
        self.load(who, fixture, FILL_CONNECTIONS, until, Kind::Fill { keys, value_bytes })?;
        self.filled.insert((who, fixture));
        Ok(())
    }

    /// Runs a load against a server; any error in it makes the measurement void.
    ///
    /// # Errors
    /// If the server does not serve, or answered any request with an error.
    pub fn load(
        &mut self,
        who: Contender,
        fixture: Fixture,
        connections: usize,
        until: Until,
        kind: Kind,
    ) -> Result<Report, BenchError> {
        let target = self.quiet(who, fixture)?;
        let prefix = PREFIX.to_owned();
        let stop = Arc::clone(&self.interrupted);
        let report = run_load(&Workload { target, prefix, connections, until, kind, stop })?;
        self.check_interrupted()?;
        refuse_errors(&report)?;
        Ok(report)
    }

    /// The address of a server, once the disk is synced and the machine idle.
    ///
    /// # Errors
    /// If the server does not serve.
    pub fn quiet(&mut self, who: Contender, fixture: Fixture) -> Result<SocketAddr, BenchError> {
        let address = self.server(who, fixture)?.address();
        let place = &self.workspace.path;
        let folder = File::open(place).map_err(ServerError::system("open", place))?;
        rustix::fs::syncfs(&folder).map_err(|error| ServerError::System {
            doing: "sync the file system of",
            place: place.display().to_string(),
            source: error.into(),
        })?;
        for _ in 0..QUIET_WINDOWS_MAX {
            let before = Processors::now();
            self.pause(QUIET_WINDOW)?;
            if Processors::were_quiet(before, Processors::now()) {
                return Ok(address);
            }
        }
        self.disturbed_runs += 1;
        progress("this machine does not become idle: figures may be too low");
        Ok(address)
    }

    /// Ends a server (SIGTERM if `clean`, else SIGKILL), starts it again on its data and waits
    /// until it answers a read. Returns the time from the new start to that answer.
    ///
    /// # Errors
    /// If it does not end or does not serve again.
    pub fn restart(
        &mut self,
        who: Contender,
        fixture: Fixture,
        clean: bool,
    ) -> Result<Duration, BenchError> {
        self.quiet(who, fixture)?;
        if let Some(server) = self.servers.remove(&(who, fixture)) {
            if clean { server.stop()? } else { server.kill() }
        }
        self.start(who, fixture, &format!("/v2/keys{PREFIX}/{}", key_name(0)))
    }

    /// Size in bytes of a contender's program.
    ///
    /// # Errors
    /// If there is none.
    pub fn program_bytes(&self, who: Contender) -> Result<u64, BenchError> {
        let none = || BenchError::NotServing { why: "no program".into() };
        let program = self.programs.get(&who).ok_or_else(none)?;
        let metadata = fs::metadata(program).map_err(ServerError::system("read", program))?;
        Ok(metadata.len())
    }

    /// Waits, unless a signal comes.
    ///
    /// # Errors
    /// `Interrupted`.
    pub fn pause(&self, time: Duration) -> Result<(), BenchError> {
        let until = Instant::now() + time;
        loop {
            self.check_interrupted()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }

    fn check_interrupted(&self) -> Result<(), BenchError> {
        if self.interrupted.load(Ordering::Relaxed) { Err(BenchError::Interrupted) } else { Ok(()) }
    }

    fn describe_machine(&self) -> Result<Machine, BenchError> {
        let place = self.workspace.path.join("flush");
        let flush_us =
            machine::time_flushes(&place).map_err(ServerError::system("write", &place))?;
        let processors = std::thread::available_parallelism().map_or(0, usize::from);
        let etcd = self.programs.get(&Contender::Etcd).map(|path| machine::version_of(path));
        let seconds = self.run_time.as_secs();
        Ok(Machine { processors, flush_us, seconds, etcd: etcd.unwrap_or_default() })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Before the workspace goes, so that nobody writes into a directory being removed.
        self.servers.clear();
    }
}

impl Fixture {
    fn name(self) -> String {
        match self {
            Self::Idle => "idle".into(),
            Self::Busy => "busy".into(),
            Self::Loaded(keys) => format!("{keys}-keys"),
            Self::Files => "files".into(),
        }
    }

    /// Keys and the length of their values.
    fn content(self) -> Option<(u64, usize)> {
        match self {
            Self::Idle | Self::Files => None,
            Self::Busy => Some((BUSY_KEYS, BUSY_VALUE_BYTES)),
            Self::Loaded(keys) if keys > 1_000_000 => Some((keys, SMALL_VALUE_BYTES)),
            Self::Loaded(keys) => Some((keys, LOADED_VALUE_BYTES)),
        }
    }
}

/// The directory all data lies in; removed when dropped.
struct Workspace {
    path: PathBuf,
    keep: bool,
}

impl Workspace {
    fn create(parent: &Path, keep: bool) -> Result<Self, BenchError> {
        let parent = fs::canonicalize(parent).map_err(ServerError::system("find", parent))?;
        let kind = rustix::fs::statfs(&parent).map(|stat| stat.f_type).unwrap_or_default();
        if kind == TMPFS_MAGIC {
            return Err(BenchError::NoDisk { place: parent.display().to_string() });
        }
        let path = parent.join(format!("althing-bench-{}", std::process::id()));
        fs::create_dir(&path).map_err(ServerError::system("create", &path))?;
        Ok(Self { path, keep })
    }
}

/// `f_type` of a file system in memory (statfs(2)).
const TMPFS_MAGIC: i64 = 0x0102_1994;

impl Drop for Workspace {
    fn drop(&mut self) {
        if self.keep {
            progress(&format!("data and logs are kept in {}", self.path.display()));
        } else if let Err(error) = fs::remove_dir_all(&self.path) {
            progress(&format!("cannot remove {}: {error}", self.path.display()));
        }
    }
}

/// SIGINT and SIGTERM end the run in order; a second one ends it at once.
fn watch_signals() -> Result<Arc<AtomicBool>, BenchError> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&flag))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)))
            .map_err(BenchError::Signals)?;
    }
    Ok(flag)
}
