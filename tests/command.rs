//! The command line against a running daemon, and the daemon as its operator meets it: start,
//! files, signals, refusals, exit codes.

mod common;

use common::{Daemon, Finished, binary, clean, http, run, scratch, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::process::Stdio;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// `althing ARGUMENTS` without a daemon.
#[track_caller]
fn althing(arguments: &[&str]) -> Finished {
    let folder = scratch("command");
    let mut command = clean(binary());
    command.args(arguments).current_dir(folder.path()).stdin(Stdio::null());
    run(&mut command, folder.path(), SOON)
}

#[track_caller]
fn code(finished: &Finished) -> i32 {
    finished.status.code().unwrap_or_else(|| panic!("no exit code: {finished:?}"))
}

#[test]
fn keys_are_written_read_listed_watched_and_removed() {
    let daemon = Daemon::start("command");
    let value = "line one\nline two ü";
    assert_eq!(code(&daemon.althing(&["set", "/a/b c", value])), 0);
    assert_eq!(daemon.althing(&["get", "/a/b c"]).stdout, format!("{value}\n"));
    assert_eq!(daemon.althing(&["ls"]).stdout, "/a/\n");
    assert_eq!(daemon.althing(&["ls", "-r"]).stdout, "/a/\n/a/b c\n");
    let create = daemon.althing(&["set", "/a/b c", "x", "--create"]);
    assert_eq!(code(&create), 4, "{create:?}");
    let compare = daemon.althing(&["set", "/a/b c", "x", "--prev-value", "y"]);
    assert!(compare.stderr.starts_with("error: Compare failed\ncause: [y != "), "{compare:?}");
    let directory = daemon.althing(&["rm", "/a"]);
    assert_eq!(code(&directory), 1);
    assert!(directory.stderr.contains("help: remove a directory with -r"), "{directory:?}");
    assert_eq!(code(&daemon.althing(&["rm", "-r", "/a"])), 0);
    let gone = daemon.althing(&["get", "/a/b c"]);
    assert_eq!((code(&gone), gone.stdout.as_str()), (4, ""));
    assert_eq!(gone.stderr, "error: Key not found\ncause: /a\n");
    let watched = daemon.althing(&["watch", "--after", "1", "-n", "2"]);
    let expected = "set /a/b c \"line one\\nline two ü\"\ndelete /a\n";
    assert_eq!(watched.stdout, expected);
}

#[test]
fn dev_renders_a_sample_that_follows_its_key() {
    let mut daemon = Daemon::start_with("dev", &["--dev"]);
    let sample = daemon.data_dir().join("hello.txt");
    let shows = |text: &str| fs::read_to_string(&sample).is_ok_and(|shown| shown == text);
    wait_until("the sample is rendered", SOON, || shows("Nobody has said anything yet.\n"));
    http("PUT", &format!("{}/v2/keys/message", daemon.url()), "value=Hello");
    wait_until("the sample follows", SOON, || shows("Hello\n"));
    let status = daemon.althing(&["status"]);
    assert_eq!(code(&status), 0, "{status:?}");
    assert!(status.stdout.contains("\nhello     ok "), "{status:?}");
    let confdir = daemon.data_dir();
    let confdir = confdir.to_str().unwrap();
    let rendered = daemon.althing(&["render", "hello", "--to", "-", "--confdir", confdir]);
    assert_eq!(rendered.stdout, "Hello\n", "{rendered:?}");
    assert!(daemon.log().lines().count() <= 12, "{}", daemon.log());

    let template = daemon.data_dir().join("templates/hello.txt.tera");
    fs::write(&template, "mine: {{ getv(key=\"/message\") }}\n").unwrap();
    let pid = Pid::from_raw(daemon.pid().cast_signed()).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    wait_until("SIGHUP reads the template again", SOON, || shows("mine: Hello\n"));
    daemon.restart();
    assert!(
        fs::read_to_string(&template).unwrap().starts_with("mine"),
        "the sample is overwritten"
    );
    daemon.terminate();
    assert!(!daemon.data_dir().join("run/client-url").exists());
}

#[test]
fn a_second_daemon_is_refused_by_name() {
    let daemon = Daemon::start("second");
    let data = daemon.data_dir();
    let second = ["run", "--data-dir", data.to_str().unwrap(), "--listen-client-urls"];
    let second = althing(&[&second[..], &["http://127.0.0.1:0"]].concat());
    assert_eq!(code(&second), 1);
    assert!(second.stderr.contains(&format!("process {}", daemon.pid())), "{second:?}");
    let taken = althing(&["run", "--data-dir", "x", "--listen-client-urls", daemon.url()]);
    assert_eq!(code(&taken), 1);
    assert!(taken.stderr.contains("cause: Address already in use"), "{taken:?}");
    assert!(taken.stderr.contains("the address is from --listen-client-urls"), "{taken:?}");
}

#[test]
fn exit_codes_are_those_of_the_contract() {
    let closed = ["--endpoint", "http://127.0.0.1:9"];
    let table: [(&[&str], i32, &str); 6] = [
        (&["version"], 0, ""),
        (&["--help"], 0, ""),
        (&["frobnicate"], 64, "error: unrecognized subcommand"),
        (&["get", "/a", closed[0], closed[1]], 2, "error: cannot connect to http://127.0.0.1:9"),
        (&["run", "--name", ""], 78, "error: name: is not a name\n --> --name\n"),
        (
            &["run", "--listen-client-urls", "http://0.0.0.0:0"],
            78,
            "error: listen_client_urls: `http://0.0.0.0:0` can be reached from other hosts",
        ),
    ];
    for (arguments, expected, stderr) in table {
        let finished = althing(arguments);
        assert_eq!(code(&finished), expected, "{arguments:?}: {finished:?}");
        assert!(finished.stderr.starts_with(stderr), "{arguments:?}: {finished:?}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let daemon = Daemon::start("pipe");
    for at in 0..50 {
        http(
            "PUT",
            &format!("{}/v2/keys/{at}", daemon.url()),
            &format!("value={}", "x".repeat(9000)),
        );
    }
    let mut shell = clean("sh".into());
    shell.args(["-c", "(\"$0\" watch --after 1 -n 50; echo $? >code) | head -c 1 >/dev/null"]);
    shell.arg(binary()).env("ALTHING_ENDPOINT", daemon.url()).current_dir(daemon.home());
    assert!(run(&mut shell, daemon.home(), SOON).status.success());
    assert_eq!(fs::read_to_string(daemon.home().join("code")).unwrap(), "0\n");
}
