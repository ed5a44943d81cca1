//! The servers under test as child processes: start, readiness, memory, stop.
//!
//! Why child processes: each one gets its own allocator and threads, its memory can be read
//! apart, and it can be killed without notice as a power cut would.
//!
//! How data passes: `Server::start` picks free loopback ports, starts the program with its data
//! directory and a log file beside it, and polls until it serves. `stop` is SIGTERM, `kill` is
//! SIGKILL; `Server::start` on the same directory is a restart.
//!
//! Invariants:
//! * Only processes started here are signalled, by process id, and each is reaped.
//! * A server dropped is a server killed.
//! * Each wait ends: at `BENCH_START_SECONDS`.
//!
//! Deliberately not here: what is measured.
//!
//! Sources: proc(5) (`/proc/PID/status`).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::iter;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::base::limits::BENCH_START_SECONDS;
use crate::ctl::bench::files::Folders;
use crate::ctl::bench::http::ResponseReader;

/// How often a starting or stopping server is looked at: the resolution of the restart times.
const POLL: Duration = Duration::from_millis(1);

/// How much of a log's end an error shows.
const LOG_TAIL_BYTES: usize = 400;

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contender {
    /// This program.
    Althing,
    /// The real etcd, with its v2 API.
    Etcd,
    /// The null server of this program.
    Null,
}

impl Contender {
    /// All of them, in the order of measurement.
    pub const ALL: [Self; 3] = [Self::Althing, Self::Etcd, Self::Null];

    /// The name in tables, messages and file names.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Althing => "althing",
            Self::Etcd => "etcd",
            Self::Null => "null",
        }
    }
}

/// Why a server could not be started, stopped or looked at.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The system refused.
    #[error("cannot {doing} {place}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// Program or path.
        place: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The program ended instead of serving.
    #[error("{name} ended before it served ({status}); the end of its log: {log}")]
    Ended {
        /// Which one.
        name: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The end of its output.
        log: String,
    },
    /// The program runs but does not serve, or does not end.
    #[error("{name} did not {what} within {BENCH_START_SECONDS} s; the end of its log: {log}")]
    TooSlow {
        /// Which one.
        name: &'static str,
        /// What it should have done.
        what: &'static str,
        /// The end of its output.
        log: String,
    },
}

impl ServerError {
    /// For `map_err`: the system refused to do something at a place.
    pub fn system(doing: &'static str, place: &Path) -> impl FnOnce(io::Error) -> Self {
        let place = place.display().to_string();
        move |source| Self::System { doing, place, source }
    }
}

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct Server {
    contender: Contender,
    child: Child,
    /// The confd that renders what an etcd holds.
    companion: Option<Child>,
    address: SocketAddr,
    log: PathBuf,
}

/// Memory of a process and its descendants, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident pages that no file backs.
    pub anonymous: u64,
    /// All resident pages.
    pub resident: u64,
}

impl Server {
    /// Starts `program` on the data directory `data` and waits until `ready_path` answers 200.
    /// Returns the server and the time from its start to that answer.
    ///
    /// # Errors
    /// `ServerError`; the process is gone by then.
    pub fn start(
        contender: Contender,
        program: &Path,
        data: &Path,
        ready_path: &str,
    ) -> Result<(Self, Duration), ServerError> {
        let client = free_address().map_err(ServerError::system("find a port for", program))?;
        let peer = free_address().map_err(ServerError::system("find a port for", program))?;
        let log = data.with_extension("log");
        let output = File::create(&log).map_err(ServerError::system("create", &log))?;
        let errors = output.try_clone().map_err(ServerError::system("open", &log))?;
        let mut command = Command::new(program);
        command.args(arguments(contender, data, client, peer));
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        // The user's settings for their own servers must not reach ours.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("ALTHING_")
                || (text.starts_with("ETCD_") && text != "ETCD_UNSUPPORTED_ARCH")
            {
                command.env_remove(name);
            }
        }
        let started = Instant::now();
        let child = command.spawn().map_err(ServerError::system("start", program))?;
        let mut server = Self { contender, child, companion: None, address: client, log };
        server.wait_ready(ready_path)?;
        Ok((server, started.elapsed()))
    }

    /// Starts the program that renders this etcd's keys; it ends with the server.
    ///
    /// # Errors
    /// `System` if it cannot be started.
    pub fn accompany(&mut self, confd: &Path, confdir: &Path) -> Result<(), ServerError> {
        let log = self.log.with_extension("confd.log");
        let output = File::create(&log).map_err(ServerError::system("create", &log))?;
        let mut command = Command::new(confd);
        command.args(["-watch", "-backend=etcdv3", "-log-level=error"]);
        command.arg(format!("-node=http://{}", self.address)).arg("-confdir").arg(confdir);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        self.companion = Some(command.spawn().map_err(ServerError::system("start", confd))?);
        Ok(())
    }

    /// Where it serves clients.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn wait_ready(&mut self, path: &str) -> Result<(), ServerError> {
        let deadline = Instant::now() + Duration::from_secs(BENCH_START_SECONDS);
        while !matches!(get_status(self.address, path), Ok(200)) {
            if let Some(status) = self.ended()? {
                let (name, log) = (self.contender.name(), self.log_tail());
                return Err(ServerError::Ended { name, status, log });
            }
            self.check_deadline(deadline, "serve")?;
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// `TooSlow` if it does not end; it is killed then.
    pub fn stop(mut self) -> Result<(), ServerError> {
        let deadline = Instant::now() + Duration::from_secs(BENCH_START_SECONDS);
        if let Some(pid) =
            i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw)
        {
            // An error means that it is gone already, which the loop below sees.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        while self.ended()?.is_none() {
            self.check_deadline(deadline, "end after SIGTERM")?;
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(self) {
        drop(self);
    }

    /// Memory of the process, its companion and all their descendants now.
    ///
    /// # Errors
    /// `System` if /proc cannot be read.
    pub fn memory(&self) -> Result<Memory, ServerError> {
        let proc = Path::new("/proc");
        let mut sum = Memory::default();
        for child in iter::once(&self.child).chain(&self.companion) {
            let of_tree = memory_of_tree(proc, child.id());
            let of_tree = of_tree.map_err(ServerError::system("read", proc))?;
            sum.anonymous += of_tree.anonymous;
            sum.resident += of_tree.resident;
        }
        Ok(sum)
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>, ServerError> {
        let name = self.contender.name().to_owned();
        self.child.try_wait().map_err(|source| ServerError::System {
            doing: "wait for",
            place: name,
            source,
        })
    }

    fn check_deadline(&self, deadline: Instant, what: &'static str) -> Result<(), ServerError> {
        if Instant::now() < deadline {
            return Ok(());
        }
        let (name, log) = (self.contender.name(), self.log_tail());
        Err(ServerError::TooSlow { name, what, log })
    }

    fn log_tail(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let tail = bytes.get(bytes.len().saturating_sub(LOG_TAIL_BYTES)..).unwrap_or_default();
        match String::from_utf8_lossy(tail).trim() {
            "" => "(empty)".into(),
            tail => tail.replace('\n', " / "),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for child in iter::once(&mut self.child).chain(&mut self.companion) {
            // Both fail only for a process that was reaped before.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What each program is started with: client and peer ports on loopback, its own directory.
fn arguments(
    contender: Contender,
    data: &Path,
    client: SocketAddr,
    peer: SocketAddr,
) -> Vec<String> {
    // Never what this host's own althing renders.
    let confdir = Folders::beside(data).confdir;
    let data = data.display();
    match contender {
        Contender::Althing => vec![
            "run".into(),
            format!("--data-dir={data}"),
            format!("--confdir={}", confdir.display()),
            format!("--listen-client-urls=http://{client}"),
            format!("--advertise-client-urls=http://{client}"),
        ],
        Contender::Etcd => vec![
            "--enable-v2".into(),
            format!("--data-dir={data}"),
            format!("--listen-client-urls=http://{client}"),
            format!("--advertise-client-urls=http://{client}"),
            format!("--listen-peer-urls=http://{peer}"),
            format!("--initial-advertise-peer-urls=http://{peer}"),
            format!("--initial-cluster=default=http://{peer}"),
        ],
        Contender::Null => {
            vec!["bench".into(), "null".into(), format!("--listen={client}")]
        }
    }
}

/// A loopback address that nobody listened on a moment ago. Another program may take it before
/// the server does; then the server says so and ends, and the measurement with it.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// The status of one GET, on a connection of its own.
fn get_status(address: SocketAddr, path: &str) -> io::Result<u16> {
    let patience = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut reader = ResponseReader::default();
    loop {
        if let Some(response) = reader.take_response().map_err(io::Error::other)? {
            return Ok(response.status);
        }
        match stream.read(reader.space().map_err(io::Error::other)?)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => reader.advance(read),
        }
    }
}

/// Sums the memory of `root` and its descendants from the status files below `proc`.
fn memory_of_tree(proc: &Path, root: u32) -> io::Result<Memory> {
    let mut processes = BTreeMap::new();
    for entry in fs::read_dir(proc)? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // A process may end between the listing and the reading.
        if let Ok(status) = fs::read_to_string(entry.path().join("status")) {
            let field = |name| status_field(&status, name).unwrap_or(0);
            let memory =
                Memory { anonymous: field("RssAnon:") * 1_024, resident: field("VmRSS:") * 1_024 };
            processes.insert(pid, (field("PPid:"), memory));
        }
    }
    let mut sum = Memory::default();
    for pid in processes.keys() {
        if descends(&processes, *pid, root)
            && let Some((_, memory)) = processes.get(pid)
        {
            sum.anonymous += memory.anonymous;
            sum.resident += memory.resident;
        }
    }
    Ok(sum)
}

/// Whether `pid` is `root` or below it. A chain is never longer than there are processes.
fn descends(processes: &BTreeMap<u32, (u64, Memory)>, pid: u32, root: u32) -> bool {
    let mut at = pid;
    for _ in 0..processes.len() {
        if at == root {
            return true;
        }
        match processes.get(&at).and_then(|(parent, _)| u32::try_from(*parent).ok()) {
            Some(parent) => at = parent,
            None => return false,
        }
    }
    false
}

/// The number behind a name in a status file.
fn status_field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_summed_over_descendants_only() {
        fs::create_dir_all("target").unwrap();
        let proc = tempfile::tempdir_in("target").unwrap();
        for (pid, parent, anonymous, resident) in [
            (1, 0, 1_000, 2_000),
            (10, 1, 100, 200),
            (11, 10, 10, 20),
            (12, 11, 1, 2),
            (13, 1, 5, 5),
        ] {
            let place = proc.path().join(pid.to_string());
            fs::create_dir(&place).unwrap();
            let status = format!(
                "Name:\tx\nPPid:\t{parent}\nVmRSS:\t {resident} kB\nRssAnon:\t {anonymous} kB\n"
            );
            fs::write(place.join("status"), status).unwrap();
        }
        fs::create_dir(proc.path().join("sys")).unwrap();
        let memory = memory_of_tree(proc.path(), 10).unwrap();
        assert_eq!(memory, Memory { anonymous: 111 * 1_024, resident: 222 * 1_024 });
    }

    #[test]
    fn a_program_that_ends_is_reported_with_its_log() {
        fs::create_dir_all("target").unwrap();
        let place = tempfile::tempdir_in("target").unwrap();
        let refused = Server::start(
            Contender::Null,
            Path::new("/bin/false"),
            &place.path().join("data"),
            "/version",
        );
        let message = refused.unwrap_err().to_string();
        assert!(message.starts_with("null ended before it served (exit status: 1)"), "{message}");
    }
}
