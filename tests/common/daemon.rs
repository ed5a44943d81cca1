//! The daemon under test, as a guard: started on a free port, killed when dropped.
//!
//! The daemon binds port 0, writes the address it got to `<data-dir>/run/client-url` and prints
//! it; the guard reads the file. No test picks a port, so tests run beside each other and beside
//! a real etcd.
//!
//! Tests of crashes say before a start where the data are (a disk that can lose power) and what
//! the daemon runs under (a tracer that makes system calls fail).

use super::{Finished, binary, http, run, scratch, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// From start to the first good `/health`, on a busy machine in a debug build.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// From SIGTERM to the end of the process.
const END_WITHIN: Duration = Duration::from_secs(5);
/// Longest run of one command against the daemon.
const COMMAND_WITHIN: Duration = Duration::from_secs(30);
/// What the daemon binds; the port is the system's choice.
const ANY_PORT: &str = "http://127.0.0.1:0";

/// One running member with a data directory of its own.
pub(crate) struct Daemon {
    child: Option<Child>,
    home: TempDir,
    /// The data directory when it is not below `home`.
    data: Option<PathBuf>,
    arguments: Vec<String>,
    /// A command and its arguments that start the daemon, which must keep its process id.
    runner: Vec<String>,
    url: String,
    served_after: Duration,
}

impl Daemon {
    /// Starts a member on an empty data directory and waits until it is healthy. `name` is part of
    /// its directory's name.
    #[track_caller]
    pub(crate) fn start(name: &str) -> Self {
        Self::start_with(name, &[])
    }

    /// `start` with more arguments after `run`.
    #[track_caller]
    pub(crate) fn start_with(name: &str, arguments: &[&str]) -> Self {
        let mut daemon = Self::stopped(name, arguments);
        daemon.launch();
        daemon
    }

    /// A member that `restart` starts for the first time.
    pub(crate) fn stopped(name: &str, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Self {
            child: None,
            home: scratch(name),
            data: None,
            arguments,
            runner: Vec::new(),
            url: String::new(),
            served_after: Duration::ZERO,
        }
    }

    /// Keeps the data in `folder` from the next start on.
    pub(crate) fn keep_data_in(&mut self, folder: PathBuf) {
        self.data = Some(folder);
    }

    /// Starts the daemon by `runner DAEMON ARGUMENTS` from the next start on; an empty `runner`
    /// ends that.
    pub(crate) fn run_under(&mut self, runner: Vec<String>) {
        self.runner = runner;
    }

    /// `http://127.0.0.1:PORT`, which a restart may change.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Where the member keeps its data.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(|| self.home.path().join("data"))
    }

    /// From the last start to its first good `/health`.
    pub(crate) fn served_after(&self) -> Duration {
        self.served_after
    }

    /// A directory for the test's own files, removed with the daemon's.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Process id, for tests that read `/proc` or send signals.
    ///
    /// # Panics
    /// When it does not run.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("the daemon runs").id()
    }

    /// All that the daemon printed since it was first started.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// Runs `althing ARGUMENTS` against this daemon.
    #[track_caller]
    pub(crate) fn althing(&self, arguments: &[&str]) -> Finished {
        let mut command = clean(binary());
        command.args(arguments).env("ALTHING_ENDPOINTS", &self.url).stdin(Stdio::null());
        run(&mut command, scratch("althing").path(), COMMAND_WITHIN)
    }

    /// Kills it as a power cut would kill the process: no handler runs.
    pub(crate) fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends SIGTERM and expects exit code 0 within five seconds.
    #[track_caller]
    pub(crate) fn terminate(&mut self) {
        let status = self.terminate_for_status();
        assert!(status.success(), "SIGTERM ended it with {status}, not 0\n{}", self.log());
    }

    #[track_caller]
    fn terminate_for_status(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("the daemon runs");
        kill_process(Pid::from_child(child), Signal::TERM).unwrap();
        self.wait_for_end(END_WITHIN)
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some())
    }

    /// Waits until it ends by itself, and says how.
    #[track_caller]
    pub(crate) fn wait_for_end(&mut self, within: Duration) -> ExitStatus {
        let child = self.child.as_mut().expect("the daemon runs");
        let status = wait_for("the daemon ends", within, || child.try_wait().unwrap());
        self.child = None;
        status
    }

    /// Starts it again on the same data directory, after a SIGTERM if it still runs.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        if self.child.is_some() {
            self.terminate();
        }
        self.launch();
    }

    /// `restart` of a daemon that may refuse its data.
    ///
    /// # Errors
    /// When it ends before it is healthy: how, and what it said.
    #[track_caller]
    pub(crate) fn try_restart(&mut self) -> Result<(), String> {
        if self.child.is_some() {
            self.terminate();
        }
        self.spawn();
        self.wait_until_healthy()
    }

    /// Starts it and kills it `after` a time, healthy or not.
    #[track_caller]
    pub(crate) fn kill9_while_it_starts(&mut self, after: Duration) {
        self.spawn();
        std::thread::sleep(after);
        self.kill9();
    }

    #[track_caller]
    fn launch(&mut self) {
        self.spawn();
        self.wait_until_healthy().unwrap_or_else(|why| panic!("{why}"));
    }

    fn spawn(&mut self) {
        // A killed daemon leaves its old address behind, which may be another process's by now.
        let _ = fs::remove_file(self.address_file());
        let log = self.home.path().join("log");
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut command = match self.runner.split_first() {
            Some((runner, arguments)) => {
                let mut command = clean(runner.into());
                command.args(arguments).arg(binary());
                command
            }
            None => clean(binary()),
        };
        command.arg("run").args(&self.arguments).arg("--data-dir").arg(self.data_dir());
        command.args(["--listen-client-urls", ANY_PORT, "--advertise-client-urls", ANY_PORT]);
        command.current_dir(self.home.path()).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")));
    }

    fn address_file(&self) -> PathBuf {
        self.data_dir().join("run/client-url")
    }

    #[track_caller]
    fn wait_until_healthy(&mut self) -> Result<(), String> {
        let begin = Instant::now();
        let address = self.address_file();
        let child = self.child.as_mut().expect("just started");
        let (url, ended) = wait_for("the daemon is healthy", READY_WITHIN, || {
            let ended = child.try_wait().unwrap();
            let url = fs::read_to_string(&address).unwrap_or_default().trim().to_owned();
            let health = http::try_http("GET", &format!("{url}/health"), "");
            let is_healthy = health.is_ok_and(|response| response.status == 200);
            (ended.is_some() || is_healthy).then_some((url, ended))
        });
        if let Some(status) = ended {
            self.child = None;
            return Err(format!("the daemon ended at its start with {status}\n{}", self.log()));
        }
        self.served_after = begin.elapsed();
        self.url = url;
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
        self.kill9();
    }
}

/// A command that sees no setting of the person who runs the tests.
pub(crate) fn clean(program: PathBuf) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if ["ALTHING_", "ETCD_", "ETCDCTL_"].iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command
}
