//! E7: no descriptors left.

use crate::client::address;
use crate::common::{Daemon, program, read_response, run, try_http, wait_for, wait_until};
use crate::seen::{Before, MEMORY_SPARE, cpu, descriptors};
use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const DESCRIPTORS: usize = 64;
/// More clients than that.
const CLIENTS: usize = 200;
/// From a write to its file, or to a place for a new client, on a busy machine.
const SOON: Duration = Duration::from_secs(30);
/// How long the daemon is watched while it can accept nobody, and what of that it may compute.
const WATCHED: Duration = Duration::from_secs(2);
const CPU_MAX: Duration = Duration::from_millis(400);

/// A daemon, not yet started, that renders the key `/e7` into the file.
fn daemon(name: &str) -> (Daemon, PathBuf) {
    let daemon = Daemon::stopped(name, &["--confdir", "confdir"]);
    let confdir = daemon.home().join("confdir");
    for folder in ["conf.d", "templates"] {
        fs::create_dir_all(confdir.join(folder)).unwrap();
    }
    let dest = daemon.home().join("dest");
    let resource = format!("[template]\nsrc = \"t.tera\"\ndest = \"{}\"\n", dest.display());
    fs::write(confdir.join("conf.d/t.toml"), resource).unwrap();
    fs::write(confdir.join("templates/t.tera"), "{{ getv(key='/e7', default='none') }}\n").unwrap();
    (daemon, dest)
}

/// A connection that is kept.
struct Kept(BufReader<TcpStream>);

impl Kept {
    fn open(daemon: &Daemon) -> Self {
        let stream = TcpStream::connect(address(daemon.url())).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        Self(BufReader::new(stream))
    }

    /// Writes the key; expects that it is done.
    #[track_caller]
    fn put(&mut self, value: &str) {
        let body = format!("value={value}");
        let request = format!(
            "PUT /v2/keys/e7 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\r\n{body}",
            body.len()
        );
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let answer = read_response(&mut self.0, false).unwrap();
        assert!(matches!(answer.status, 200 | 201), "{answer:?}");
    }
}

fn wait_for_file(dest: &Path, content: &str) {
    wait_until("the file is rendered", SOON, || {
        fs::read_to_string(dest).is_ok_and(|found| found.trim_end() == content)
    });
}

/// Clients that connect and say nothing.
fn crowd(daemon: &Daemon) -> Vec<TcpStream> {
    (0..CLIENTS).map(|_| TcpStream::connect(address(daemon.url())).unwrap()).collect()
}

/// CPU time the daemon takes while it is watched.
fn cpu_while_watched(daemon: &Daemon) -> Duration {
    let (used, began) = (cpu(daemon), Instant::now());
    wait_until("the time is over", SOON, || began.elapsed() >= WATCHED);
    cpu(daemon) - used
}

fn is_healthy(daemon: &Daemon) -> bool {
    let health = try_http("GET", &format!("{}/health", daemon.url()), "");
    health.is_ok_and(|answer| answer.status == 200)
}

#[test]
fn e7_with_few_descriptors_clients_are_turned_away_and_files_go_on() {
    let Some(prlimit) = program("prlimit") else { return };
    let (mut daemon, dest) = daemon("overload-few");
    let limit = format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}");
    daemon.run_under(vec![prlimit.display().to_string(), limit]);
    daemon.restart();
    let mut kept = Kept::open(&daemon);
    kept.put("first");
    wait_for_file(&dest, "first");
    drop(kept);
    let before = Before::of(&daemon, "E7 few descriptors");
    let mut kept = Kept::open(&daemon);
    kept.put("second");
    let mut clients = crowd(&daemon);
    // Those that find no place are told so, or at least are not kept waiting.
    let mut last = clients.pop().unwrap();
    last.set_read_timeout(Some(SOON)).unwrap();
    let mut told = String::new();
    let _ = last.read_to_string(&mut told);
    assert!(told.is_empty() || told.starts_with("HTTP/1.1 503 "), "{told}");
    let used = cpu_while_watched(&daemon);
    eprintln!(
        "E7: {used:?} of CPU in {WATCHED:?} with {} descriptors in use",
        descriptors(&daemon)
    );
    assert!(used < CPU_MAX, "{used:?} of CPU in {WATCHED:?}");
    assert!(descriptors(&daemon) < DESCRIPTORS - 8, "nothing is left for files");
    for value in ["third", "fourth"] {
        kept.put(value);
        wait_for_file(&dest, value);
    }
    drop((clients, last, kept));
    wait_until("there is a place again", SOON, || is_healthy(&daemon));
    before.is_back(&daemon, MEMORY_SPARE);
    let warnings = daemon.log().matches("too many connections").count();
    assert!((1..10).contains(&warnings), "{warnings} warnings");
}

/// The limit is lowered below what is in use: not one descriptor can be had, for anything.
#[test]
fn e7_without_any_descriptor_accepting_pauses_and_writes_go_on() {
    let Some(prlimit) = program("prlimit") else { return };
    let (mut daemon, dest) = daemon("overload-none");
    daemon.restart();
    let mut kept = Kept::open(&daemon);
    kept.put("first");
    wait_for_file(&dest, "first");
    let before = Before::of_busy(&daemon, "E7 no descriptors");
    let limit = |soft: usize| {
        let mut command = Command::new(&prlimit);
        command.args(["--pid", &daemon.pid().to_string(), &format!("--nofile={soft}:")]);
        let said = run(&mut command, daemon.home(), SOON);
        assert!(said.status.success(), "{said:?}");
    };
    limit(before.descriptors());
    let clients = crowd(&daemon);
    wait_for("it is told", SOON, || daemon.log().contains("cannot accept").then_some(()));
    let used = cpu_while_watched(&daemon);
    eprintln!("E7: {used:?} of CPU in {WATCHED:?} without any descriptor");
    assert!(used < CPU_MAX, "{used:?} of CPU in {WATCHED:?}");
    for value in ["second", "third"] {
        kept.put(value);
    }
    let warnings = daemon.log().matches("cannot accept").count();
    assert!(warnings < 10, "{warnings} warnings");
    limit(1_024);
    wait_for_file(&dest, "third");
    wait_until("those who waited are served", SOON, || is_healthy(&daemon));
    drop(clients);
    before.is_back(&daemon, MEMORY_SPARE);
}
