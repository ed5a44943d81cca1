//! The command line against a running daemon, and the daemon as its operator meets it: start,
//! files, signals, refusals, exit codes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Daemon, Finished, binary, clean, http, run, scratch, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::Path;
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
    let expected = "error: Key not found\ncause: /a\nhelp: see what is there: althing ls /\n";
    assert_eq!(gone.stderr, expected);
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

/// A confdir with one resource, `web`, whose file shows the key `/message`.
fn site(folder: &Path, more: &str) -> String {
    let site = folder.join("site");
    fs::create_dir_all(site.join("conf.d")).unwrap();
    fs::create_dir_all(site.join("templates")).unwrap();
    let dest = folder.join("web.cfg");
    let resource = format!("[template]\nsrc = \"web.tera\"\ndest = {dest:?}\n{more}");
    fs::write(site.join("conf.d/web.toml"), resource).unwrap();
    let template = "# first\nmessage = {{ getv(key=\"/message\", default=\"none\") }}\n";
    fs::write(site.join("templates/web.tera"), template).unwrap();
    site.display().to_string()
}

#[test]
fn a_plan_shows_what_would_change_and_changes_nothing() {
    let daemon = Daemon::start("plan");
    let folder = scratch("plan");
    let (site, dest) = (site(folder.path(), ""), folder.path().join("web.cfg"));
    let plan = || daemon.althing(&["plan", "--confdir", &site]);
    let created = plan();
    assert_eq!(code(&created), 1, "{created:?}");
    let expected = format!(
        "--- /dev/null\n+++ {} (resource web)\n@@ -0,0 +1,2 @@\n+# first\n+message = none\n\
         1 of 1 file would change (revision 1)\n",
        dest.display()
    );
    assert_eq!(created.stdout, expected);
    assert!(!dest.exists());
    fs::write(&dest, "# first\nmessage = none\n").unwrap();
    let same = plan();
    assert_eq!((code(&same), &*same.stdout), (0, "nothing would change in 1 file (revision 1)\n"));
    daemon.althing(&["set", "/message", "Hello"]);
    let changed = plan();
    assert_eq!(code(&changed), 1);
    let hunk = "@@ -1,2 +1,2 @@\n # first\n-message = none\n+message = Hello\n";
    assert!(changed.stdout.contains(hunk), "{changed:?}");
    assert_eq!(fs::read_to_string(&dest).unwrap(), "# first\nmessage = none\n");
    let names = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(names, 2, "nothing but the site and the file is there");
    fs::write(Path::new(&site).join("templates/web.tera"), "{{ nothing }}").unwrap();
    let failed = plan();
    assert_eq!(code(&failed), 255, "{failed:?}");
    assert!(failed.stderr.contains("`nothing` is not defined"), "{failed:?}");
}

#[test]
fn a_check_runs_the_check_command_on_a_copy() {
    let daemon = Daemon::start("check");
    let folder = scratch("check");
    let seen = folder.path().join("seen");
    let more = format!("check_cmd = \"cp {{{{.src}}}} {}\"\n", seen.display());
    let site = site(folder.path(), &more);
    let checked = daemon.althing(&["check", "--confdir", &site]);
    assert_eq!(code(&checked), 0, "{checked:?}");
    assert!(checked.stdout.ends_with("ok  resource  web\n"), "{checked:?}");
    assert_eq!(fs::read_to_string(&seen).unwrap(), "# first\nmessage = none\n");
    assert!(!folder.path().join("web.cfg").exists(), "the destination is touched");
    fs::write(Path::new(&site).join("conf.d/bad.toml"), "[template]\nsrc = 1\n").unwrap();
    let refused = daemon.althing(&["check", "--confdir", &site]);
    assert_eq!(code(&refused), 78, "{refused:?}");
    assert!(refused.stdout.contains("ok  resource  web"), "the good one is checked all the same");
    assert!(refused.stderr.contains("bad.toml:2:7"), "{refused:?}");
}

#[test]
fn why_tells_the_resource_and_its_keys() {
    let mut daemon = Daemon::start_with("why", &["--dev"]);
    let sample = daemon.data_dir().join("hello.txt");
    daemon.althing(&["set", "/message", "Hello"]);
    let shows = |text: &str| fs::read_to_string(&sample).is_ok_and(|shown| shown == text);
    wait_until("the sample follows", SOON, || shows("Hello\n"));
    let why = || daemon.althing(&["why", sample.to_str().unwrap()]).stdout;
    wait_until("its revision is told", SOON, || why().contains("  2; the file is what"));
    let told = why();
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = told.lines().map(words).collect();
    for start in
        ["state up to date", "resource hello in /", "template hello.txt.tera", "2 /message"]
    {
        assert!(lines.iter().any(|line| line.starts_with(start)), "{start}: {told}");
    }
    daemon.terminate();
}

#[test]
fn settings_are_shown_with_their_origin() {
    let folder = scratch("settings");
    let file = folder.path().join("althing.toml");
    fs::write(&file, "name = \"web1\"\ndata_dir = \"/srv/a\"\n").unwrap();
    let file = file.to_str().unwrap();
    let mut command = clean(binary());
    command.args(["config", "show", "--origin", "--config", file, "--confdir", "/srv/b"]);
    command.env("ALTHING_DATA_DIR", "/srv/c").stdin(Stdio::null());
    let shown = run(&mut command, folder.path(), SOON).stdout;
    let lines: Vec<String> = shown.lines().map(|line| line.replace(file, "FILE")).collect();
    let has = |start: &str, end: &str| {
        lines.iter().any(|line| line.starts_with(start) && line.ends_with(end))
    };
    assert!(has("# settings file: FILE", ""), "{shown}");
    assert!(has("name = \"web1\"", "# FILE:1:8"), "{shown}");
    assert!(has("data_dir = \"/srv/c\"", "# the environment variable ALTHING_DATA_DIR"), "{shown}");
    assert!(has("confdir = \"/srv/b\"", "# --confdir"), "{shown}");
    assert!(has("insecure = false", "# the default"), "{shown}");
}

#[test]
fn sighup_reads_the_settings_again() {
    let folder = scratch("reload");
    let site = site(folder.path(), "");
    let empty = folder.path().join("empty");
    fs::create_dir_all(empty.join("conf.d")).unwrap();
    let file = folder.path().join("althing.toml");
    let settings = |name: &str, confdir: &Path| {
        fs::write(&file, format!("name = \"{name}\"\nconfdir = {confdir:?}\n")).unwrap();
    };
    settings("one", &empty);
    let daemon = Daemon::start_with("reload", &["--config", file.to_str().unwrap()]);
    let pid = Pid::from_raw(daemon.pid().cast_signed()).unwrap();
    let logs = |text: &str| {
        wait_until(text, SOON, || daemon.log().contains(text));
    };
    fs::write(&file, "confdri = \"/x\"\n").unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    logs("the new settings are refused, the old ones stay in force");
    logs("did you mean `confdir`?");
    settings("two", Path::new(&site));
    kill_process(pid, Signal::HUP).unwrap();
    logs("setting name = \"two\" needs a restart; until then it stays \"one\"");
    let dest = folder.path().join("web.cfg");
    wait_until("the other confdir is rendered", SOON, || dest.exists());
    assert_eq!(code(&daemon.althing(&["status"])), 0);
    assert!(daemon.althing(&["status"]).stdout.starts_with("one "), "the name has not changed");
}
