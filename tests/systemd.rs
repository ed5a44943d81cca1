//! The daemon as a service: what the service manager hears of the real binary, and the files of
//! `systemd/` under systemd's own tools.
//!
//! The manager is played by a datagram socket. Loops are made to hang by `strace`, which holds back
//! one kind of system call on one file or socket: the core in its flush, a door in its accept, the
//! renderer in the reading of its resources. Nothing in the daemon knows of it.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test, as tests do")]

mod common;

use common::{Daemon, clean, http, program, run, scratch, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);
/// Exposure of the unit, as systemd counts it: 0 is closed, 10 open.
const EXPOSURE_MAX: f64 = 2.5;
const UNIT: &str = "systemd/althing.service";

/// The service manager's side of the socket.
struct Manager {
    socket: UnixDatagram,
    address: String,
}

impl Manager {
    fn on_path(folder: &Path) -> Self {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Self { socket, address: path.display().to_string() }
    }

    fn abstract_one(name: &str) -> Self {
        let name = format!("althing-{name}-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        Self { socket: UnixDatagram::bind_addr(&address).unwrap(), address: format!("@{name}") }
    }

    /// Starts the daemon with its address, without waiting for anything.
    fn start(&self, name: &str, arguments: &[&str], variables: &[&str]) -> Daemon {
        let mut daemon = Daemon::stopped(name, arguments);
        daemon.run_under(self.runner(variables));
        daemon
    }

    fn runner(&self, variables: &[&str]) -> Vec<String> {
        let mut runner = vec!["env".to_owned(), format!("NOTIFY_SOCKET={}", self.address)];
        runner.extend(variables.iter().map(|variable| (*variable).to_owned()));
        runner
    }

    /// The next datagram, or `None` if none comes in time.
    fn hear(&self, within: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(within)).unwrap();
        let mut buffer = [0; 4096];
        match self.socket.recv(&mut buffer) {
            Ok(length) => Some(String::from_utf8(buffer[..length].to_vec()).unwrap()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Everything up to the first datagram that has `line`, that one last.
    #[track_caller]
    fn hear_until(&self, line: &str) -> Vec<String> {
        let (mut heard, end) = (Vec::new(), Instant::now() + SOON);
        while Instant::now() < end {
            if let Some(text) = self.hear(Duration::from_secs(1)) {
                let is_it = text.lines().any(|said| said.starts_with(line));
                heard.push(text);
                if is_it {
                    return heard;
                }
            }
        }
        panic!("no {line} within {SOON:?}: {heard:?}");
    }
}

/// A confdir with one template, and a resource that renders `file` in `folder`.
fn confdir(folder: &Path, commands: &str) -> String {
    for part in ["conf.d", "templates"] {
        fs::create_dir_all(folder.join(part)).unwrap();
    }
    let template = "{{ getenv(name=\"NOTIFY_SOCKET\", default=\"unset\") }}\n";
    fs::write(folder.join("templates/file.tera"), template).unwrap();
    let dest = folder.join("file");
    let resource = format!(
        "[template]\nsrc = \"file.tera\"\ndest = \"{}\"\nkeys = [\"/\"]\n{commands}\n",
        dest.display()
    );
    fs::write(folder.join("conf.d/file.toml"), resource).unwrap();
    folder.display().to_string()
}

fn send(daemon: &Daemon, signal: Signal) {
    kill_process(Pid::from_raw(daemon.pid().cast_signed()).unwrap(), signal).unwrap();
}

fn status_of(datagram: &str) -> &str {
    datagram.lines().find_map(|line| line.strip_prefix("STATUS=")).unwrap_or_default()
}

#[test]
fn the_manager_hears_everything_in_order() {
    let folder = scratch("notify");
    let manager = Manager::on_path(folder.path());
    let environment = folder.path().join("environment");
    let command = format!("env >> {}", environment.display());
    let commands = format!("check_cmd = \"{command}\"\nreload_cmd = \"{command}\"");
    let confdir = confdir(folder.path(), &commands);
    let mut daemon = manager.start("notify", &["--confdir", &confdir], &["WATCHDOG_USEC=3000000"]);
    daemon.restart();

    let start = manager.hear_until("READY=1");
    assert_eq!(start[0], "STATUS=opening the store\n", "{start:?}");
    let ready = start.last().unwrap();
    assert!(ready.starts_with("READY=1\nSTATUS="), "{ready:?}");
    assert!(status_of(ready).contains(" 1 file up to date"), "{ready:?}");
    assert!(!start.iter().any(|said| said.contains("WATCHDOG")), "{start:?}");
    let file = fs::read_to_string(folder.path().join("file")).unwrap();
    assert_eq!(file, "unset\n", "READY came before the file, or the template saw the socket");
    manager.hear_until("WATCHDOG=1");
    manager.hear_until("WATCHDOG=1");

    send(&daemon, Signal::HUP);
    let reloading = manager.hear_until("RELOADING=1").pop().unwrap();
    let stamp = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    assert!(stamp.trim().parse::<u64>().unwrap() > 0);
    manager.hear_until("READY=1");

    daemon.terminate();
    let end = manager.hear_until("STOPPING=1");
    assert!(!end.iter().any(|said| said.contains("READY=1")), "{end:?}");
    assert_eq!(manager.hear(Duration::from_millis(10)), None, "nothing after STOPPING");

    let environment = fs::read_to_string(environment).unwrap();
    assert!(environment.contains("ALTHING_"), "the commands ran: {environment}");
    assert!(!environment.contains("NOTIFY_SOCKET"), "{environment}");
    assert!(!environment.contains("WATCHDOG_USEC"), "{environment}");
}

#[test]
fn an_abstract_socket_and_no_templates_at_all() {
    let manager = Manager::abstract_one("notify");
    let folder = scratch("notify-none");
    fs::create_dir(folder.path().join("conf.d")).unwrap();
    let confdir = folder.path().display().to_string();
    let mut daemon = manager.start("notify-none", &["--confdir", &confdir], &[]);
    daemon.restart();
    let ready = manager.hear_until("READY=1").pop().unwrap();
    assert!(status_of(&ready).ends_with("nothing to render"), "{ready:?}");
    http("PUT", &format!("{}/v2/keys/a", daemon.url()), "value=1");
    let status = manager.hear_until("STATUS=").pop().unwrap();
    assert!(!status.contains("READY"), "{status:?}");
    daemon.terminate();
    assert_eq!(manager.hear_until("STOPPING=1").last().unwrap(), "STOPPING=1\nSTATUS=stopping\n");
}

#[test]
fn a_hanging_check_keeps_ready_back_for_a_bounded_time() {
    let folder = scratch("degraded");
    let manager = Manager::on_path(folder.path());
    let gate = folder.path().join("gate");
    let wait = format!("check_cmd = \"until test -e {}; do sleep 0.05; done\"", gate.display());
    let confdir = confdir(folder.path(), &wait);
    let arguments = ["--confdir", &confdir, "--render-timeout", "400ms"];
    let mut daemon = manager.start("degraded", &arguments, &[]);
    daemon.restart();
    let ready = manager.hear_until("READY=1").pop().unwrap();
    assert!(status_of(&ready).starts_with("degraded: 0 of 1 files rendered; "), "{ready:?}");
    assert!(daemon.log().contains("ready without all files after 0.4 s"), "{}", daemon.log());
    fs::write(&gate, "").unwrap();
    wait_until("the status is good again", SOON, || {
        let said = manager.hear(Duration::from_secs(1)).unwrap_or_default();
        status_of(&said).ends_with(" 1 file up to date")
    });
}

/// The files READY waits for are those of the confdir the settings name by then.
#[test]
fn a_confdir_changed_before_ready_is_the_one_that_counts() {
    let folder = scratch("other-confdir");
    let manager = Manager::on_path(folder.path());
    let (hangs, good) = (folder.path().join("hangs"), folder.path().join("good"));
    let (hangs, good) = (confdir(&hangs, "check_cmd = \"sleep 60\""), confdir(&good, ""));
    let settings = folder.path().join("althing.toml");
    let settle = |confdir: &str| {
        let text = format!("confdir = {confdir:?}\nrender_timeout = \"5m\"\n");
        fs::write(&settings, text).unwrap();
    };
    settle(&hangs);
    let config = settings.display().to_string();
    let mut daemon = manager.start("other-confdir", &["--config", &config], &[]);
    daemon.restart();
    wait_until("the check hangs", SOON, || {
        status_of(&manager.hear(Duration::from_secs(1)).unwrap_or_default()).contains("0 of 1")
    });
    settle(&good);
    send(&daemon, Signal::HUP);
    let ready = manager.hear_until("READY=1").pop().unwrap();
    assert!(status_of(&ready).ends_with(" 1 file up to date"), "{ready:?}");
    assert!(Path::new(&good).join("file").exists());
    daemon.terminate();
}

#[test]
fn a_failing_file_is_named_and_a_reload_that_is_owed_holds_nothing_up() {
    let folder = scratch("failing");
    let manager = Manager::on_path(folder.path());
    let confdir = confdir(folder.path(), "reload_cmd = \"sleep 50\"");
    let mut daemon = manager.start("failing", &["--confdir", &confdir], &[]);
    let begun = Instant::now();
    daemon.restart();
    manager.hear_until("READY=1");
    assert!(begun.elapsed() < SOON, "READY waited for the reload");
    drop(daemon);

    let folder = scratch("failing");
    let manager = Manager::on_path(folder.path());
    let confdir = crate::confdir(folder.path(), "check_cmd = \"false\"");
    let arguments = ["--confdir", &confdir, "--render-timeout", "1s"];
    let mut daemon = manager.start("failing", &arguments, &[]);
    daemon.restart();
    let ready = manager.hear_until("READY=1").pop().unwrap();
    assert!(status_of(&ready).starts_with("degraded: 1 of 1 files failed: file; "), "{ready:?}");
}

/// A daemon that has shown life, under a tracer that holds a system call back for a minute.
struct Hanging {
    manager: Manager,
    daemon: Daemon,
    tracer: Option<Child>,
    folder: tempfile::TempDir,
}

impl Hanging {
    /// Attaches the tracer to a running daemon; `None` after saying that strace is missing.
    fn start(
        name: &str,
        call: &str,
        filter: impl Fn(&Daemon, &Path) -> Vec<String>,
    ) -> Option<Self> {
        let strace = program("strace")?;
        let folder = scratch(name);
        let manager = Manager::on_path(folder.path());
        let confdir = confdir(folder.path(), "");
        let variables = ["WATCHDOG_USEC=1500000"];
        let mut daemon = manager.start(name, &["--confdir", &confdir], &variables);
        daemon.restart();
        manager.hear_until("READY=1");
        manager.hear_until("WATCHDOG=1");
        let mut command = clean(strace);
        let inject = format!("inject={call}:delay_enter=60000000");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", &inject]);
        command.args(filter(&daemon, folder.path())).args(["-p", &daemon.pid().to_string()]);
        let tracer = command.stdin(Stdio::null()).spawn().unwrap();
        let mut hanging = Self { manager, daemon, tracer: Some(tracer), folder };
        hanging.wait_for_tracer();
        Some(hanging)
    }

    /// Every thread is held, and the tracer has let it go on and waits for its next call.
    fn wait_for_tracer(&mut self) {
        let tasks = format!("/proc/{}/task", self.daemon.pid());
        let tracer = self.tracer.as_ref().unwrap().id();
        let says = |file: &Path, line: &str| {
            fs::read_to_string(file).is_ok_and(|status| status.contains(line))
        };
        let held = format!("TracerPid:\t{tracer}\n");
        let tracer = PathBuf::from(format!("/proc/{tracer}/status"));
        wait_until("the tracer is attached", SOON, || {
            let mut threads = fs::read_dir(&tasks).unwrap();
            let all = threads.all(|task| says(&task.unwrap().path().join("status"), &held));
            all && says(&tracer, "State:\tS")
        });
    }

    /// The signs of life stop, and the log says for want of whom.
    #[track_caller]
    fn starves_for_want_of(&self, part: &str) {
        let silent = format!("no sign of life from the {part}");
        wait_until(&silent, SOON, || self.daemon.log().contains(&silent));
        while self.manager.hear(Duration::from_millis(1)).is_some() {}
        // What systemd allows is 1.5 s, and the hang is longer than what is left of that.
        let (end, mut signs) = (Instant::now() + Duration::from_millis(1_500), 0);
        while Instant::now() < end {
            let heard = self.manager.hear(Duration::from_millis(100)).unwrap_or_default();
            signs += usize::from(heard.contains("WATCHDOG=1"));
        }
        assert_eq!(signs, 0, "the watchdog was fed although the {part} hung");
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        if let Some(mut tracer) = self.tracer.take() {
            let _ = tracer.kill();
            let _ = tracer.wait();
        }
    }
}

/// Sends a request whose answer may never come.
fn ask_without_waiting(method: &'static str, url: String) {
    std::thread::spawn(move || common::try_http(method, &url, "value=1"));
}

#[test]
fn a_core_that_hangs_in_its_flush_starves_the_watchdog() {
    let on_the_log = |_: &Daemon, _: &Path| Vec::new();
    let Some(hanging) = Hanging::start("hang-core", "fdatasync", on_the_log) else { return };
    ask_without_waiting("PUT", format!("{}/v2/keys/a", hanging.daemon.url()));
    hanging.starves_for_want_of("core");
}

#[test]
fn a_door_that_hangs_starves_the_watchdog() {
    let everywhere = |_: &Daemon, _: &Path| Vec::new();
    let Some(hanging) = Hanging::start("hang-door", "accept4", everywhere) else { return };
    ask_without_waiting("GET", format!("{}/health", hanging.daemon.url()));
    hanging.starves_for_want_of("door http://127.0.0.1:");
    hanging.starves_for_want_of("serving thread ");
}

#[test]
fn a_renderer_that_hangs_starves_the_watchdog() {
    let on_resources = |_: &Daemon, folder: &Path| {
        vec!["-P".to_owned(), folder.join("conf.d").display().to_string()]
    };
    let Some(hanging) = Hanging::start("hang-renderer", "getdents64", on_resources) else { return };
    send(&hanging.daemon, Signal::HUP);
    hanging.starves_for_want_of("renderer");
    assert!(hanging.folder.path().join("file").exists());
}

#[test]
fn the_unit_is_closed_as_far_as_it_can_be() {
    let Some(analyze) = program("systemd-analyze") else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = clean(analyze);
    command.args(["security", "--offline=true", "--no-pager"]).env("LC_ALL", "C.UTF-8");
    command.arg(root.join(UNIT));
    let finished = run(&mut command, scratch("security").path(), SOON);
    let end = finished.stdout.split("Overall exposure level for althing.service: ").nth(1);
    let exposure = end.and_then(|end| end.split_whitespace().next()?.parse::<f64>().ok());
    let exposure = exposure.unwrap_or_else(|| panic!("{finished:?}"));
    assert!(exposure <= EXPOSURE_MAX, "{exposure}\n{}", finished.stdout);
    assert_eq!(finished.stderr, "", "systemd does not know a line of the unit");
}

#[test]
fn systemd_makes_the_user_and_the_directories() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let other = scratch("sysusers");
    fs::create_dir(other.path().join("etc")).unwrap();
    let at = format!("--root={}", other.path().display());
    for (tool, arguments, file) in [
        ("systemd-sysusers", &[][..], "althing.sysusers.conf"),
        ("systemd-tmpfiles", &["--create"][..], "althing.tmpfiles.conf"),
    ] {
        let Some(tool) = program(tool) else { return };
        // The tools read a file from the other root, by the name it has there.
        let inside = other.path().join(file);
        fs::copy(root.join(file), &inside).unwrap();
        let mut command = clean(tool);
        command.arg(&at).args(arguments).arg(&inside);
        let finished = run(&mut command, scratch("sysusers-output").path(), SOON);
        assert!(finished.status.success(), "{file}: {finished:?}");
    }
    let users = fs::read_to_string(other.path().join("etc/passwd")).unwrap();
    assert!(users.contains("althing:x:"), "{users}");
    assert!(users.contains(":/var/lib/althing:"), "{users}");
    assert!(other.path().join("etc/althing/conf.d").is_dir());
    assert!(other.path().join("etc/althing/templates").is_dir());
}

/// The system calls that systemd's groups name, groups in groups included.
fn calls_of(groups: &str, group: &str) -> Vec<String> {
    let inside = groups.lines().skip_while(|line| line.trim_end() != group).skip(1);
    let names = inside.take_while(|line| line.starts_with(' ') || line.is_empty());
    let names = names.map(str::trim).filter(|name| !name.is_empty() && !name.starts_with('#'));
    let all = names.map(|name| match name.starts_with('@') {
        true => calls_of(groups, name),
        false => vec![name.to_owned()],
    });
    all.flatten().collect()
}

/// A filter that forbids one call too many ends in EPERM somewhere, on somebody's host.
#[test]
fn the_sandbox_allows_every_system_call_that_is_made() {
    let (Some(analyze), Some(strace)) = (program("systemd-analyze"), program("strace")) else {
        return;
    };
    let folder = scratch("calls");
    let mut command = clean(analyze);
    let groups = run(command.args(["syscall-filter", "--no-pager"]), folder.path(), SOON).stdout;
    let unit = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(UNIT)).unwrap();
    let mut allowed = calls_of(&groups, "@default");
    for filter in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (names, is_denied) = filter.strip_prefix('~').map_or((filter, false), |f| (f, true));
        let calls: Vec<String> =
            names.split_whitespace().flat_map(|name| calls_of(&groups, name)).collect();
        assert!(!calls.is_empty(), "{filter}: an unknown group");
        if is_denied {
            allowed.retain(|call| !calls.contains(call));
        } else {
            allowed.extend(calls);
        }
    }
    for call in calls_made(&strace, folder.path()) {
        assert!(allowed.contains(&call), "{call} is made, and not allowed");
    }
}

/// The calls of a daemon that starts, is written to, renders, checks, reloads and stops.
fn calls_made(strace: &Path, folder: &Path) -> Vec<String> {
    // Not in the confdir: every line of it would be a change there.
    let apart = scratch("calls-trace");
    let trace = apart.path().join("trace");
    let mut daemon =
        Daemon::stopped("calls", &["--confdir", &confdir(folder, "check_cmd = \":\"")]);
    let tracer = [strace, Path::new("-D"), Path::new("-fq"), Path::new("-o"), &trace];
    daemon.run_under(tracer.map(|word| word.display().to_string()).into());
    daemon.restart();
    http("PUT", &format!("{}/v2/keys/a", daemon.url()), "value=1");
    wait_until("the file", SOON, || folder.join("file").exists());
    daemon.terminate();
    let ended = || fs::read_to_string(&trace).unwrap().contains("+++ exited with 0 +++");
    wait_until("the tracer has seen the end", SOON, ended);
    let trace = fs::read_to_string(&trace).unwrap();
    // `PID call(...` or `PID <... call resumed>...`; the rest is signals and ends.
    let calls = trace.lines().filter_map(|line| line.split_once(' ')?.1.trim().split_once('('));
    let is_name = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let mut calls: Vec<String> =
        calls.filter(|(name, _)| is_name(name)).map(|(name, _)| name.to_owned()).collect();
    calls.sort_unstable();
    calls.dedup();
    assert!(calls.len() > 30, "{calls:?}");
    calls
}
