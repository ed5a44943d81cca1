//! What a newcomer does wrong, and what the real binary says to it.
//!
//! Why as files: an error message is prose that somebody reads in a bad moment; in
//! `tests/golden/errors/` each can be read and reviewed as such. Each begins with an error, names
//! the place, and ends with a next step; that is checked here too.
//!
//! How: a case is files in a fresh directory and one command; the exit code and standard error
//! are compared with the golden file, directories, ports and process ids taken out.
//! `UPDATE_GOLDENFILES=1` writes the files anew.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use common::{Daemon, binary, clean, run, scratch, skip};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(30);

/// A resource that is right, for cases where something else is wrong.
const GOOD: &str = "[template]\nsrc = \"web.tera\"\ndest = \"/etc/althing-example.cfg\"\n";

/// Files below a fresh directory, and one command run in it.
struct Case {
    /// Name of the golden file.
    name: &'static str,
    /// What the newcomer meant to do.
    story: &'static str,
    /// Resource `web`.
    resource: &'static str,
    /// Its template.
    template: &'static str,
    /// Another file, with its text.
    more: (&'static str, &'static str),
    words: &'static str,
}

const NONE: (&str, &str) = ("empty.toml", "");
const CHECK: &str = "check --confdir site --data keys.json";

/// A wrong command or settings file.
const fn line(name: &'static str, story: &'static str, words: &'static str) -> Case {
    Case { name, story, resource: GOOD, template: "x", more: NONE, words }
}

/// A wrong settings file, `althing.toml`.
const fn settings(name: &'static str, story: &'static str, text: &'static str) -> Case {
    let words = "run --config althing.toml";
    Case { name, story, resource: GOOD, template: "x", more: ("althing.toml", text), words }
}

/// A wrong template.
const fn template(name: &'static str, story: &'static str, template: &'static str) -> Case {
    Case { name, story, resource: GOOD, template, more: NONE, words: CHECK }
}

/// A wrong resource file.
const fn resource(name: &'static str, story: &'static str, resource: &'static str) -> Case {
    Case { name, story, resource, template: "x", more: NONE, words: CHECK }
}

const CASES: &[Case] = &[
    settings("01-unknown-setting", "a key of the settings is misspelt", "data_dri = \"/srv\"\n"),
    settings("02-settings-not-toml", "a text without its quotes", "name = web1\n"),
    settings("03-setting-of-wrong-kind", "a number where a word belongs", "insecure = 1\n"),
    line("04-settings-missing", "a settings file that is not there", "run --config nowhere.toml"),
    line("05-unknown-flag", "a misspelt flag", "run --data-dri data"),
    line("06-unknown-verb", "a misspelt verb", "gte /message"),
    line(
        "07-listener-without-scheme",
        "an address without http://",
        "run --data-dir data --listen-client-urls 127.0.0.1:2379",
    ),
    line(
        "08-listener-is-a-name",
        "a listener that is a host name",
        "run --data-dir data --listen-client-urls http://db1:2379",
    ),
    line(
        "09-open-listener",
        "clients of other hosts shall come, without TLS",
        "run --data-dir data --listen-client-urls http://0.0.0.0:2379",
    ),
    line(
        "10-endpoint-without-scheme",
        "an endpoint without http://",
        "get /message --endpoint localhost:2379",
    ),
    line("11-duration-without-unit", "a time without its unit", "get /message --timeout 10"),
    line("12-nobody-there", "no daemon runs", "get /message --endpoint http://127.0.0.1:9"),
    line("13-confdir-is-a-file", "a confdir that is a file", "check --confdir keys.json"),
    Case {
        more: ("bare/notes.txt", ""),
        words: "check --confdir bare",
        ..line("14-confdir-without-conf.d", "a confdir with no conf.d in it", "")
    },
    Case {
        words: "render wbe --to - --confdir site --data keys.json",
        ..line("15-unknown-resource", "a resource by a wrong name", "")
    },
    Case {
        more: ("broken.json", "{\"/message\" \"Hello\"}\n"),
        words: "check --confdir site --data broken.json",
        ..line("16-keys-not-json", "a file of keys with a colon missing", "")
    },
    resource(
        "20-unknown-key",
        "a key of a resource is misspelt",
        "[template]\nsrc = \"web.tera\"\ndst = \"/etc/althing-example.cfg\"\n",
    ),
    resource(
        "21-resource-not-toml",
        "a quote is missing",
        "[template]\nsrc = \"web.tera\ndest = \"/etc/althing-example.cfg\"\n",
    ),
    resource(
        "22-mode-is-a-number",
        "a mode without quotes",
        "[template]\nsrc = \"web.tera\"\ndest = \"/etc/althing-example.cfg\"\nmode = 644\n",
    ),
    resource(
        "23-bad-duration",
        "a time in words",
        "[template]\nsrc = \"web.tera\"\ndest = \"/etc/althing-example.cfg\"\n\
         check_timeout = \"30 sec\"\n",
    ),
    resource(
        "24-relative-destination",
        "a destination without its directory",
        "[template]\nsrc = \"web.tera\"\ndest = \"web.cfg\"\n",
    ),
    resource(
        "25-destination-without-directory",
        "a destination whose directory is missing",
        "[template]\nsrc = \"web.tera\"\ndest = \"/etc/no-such-directory/web.cfg\"\n",
    ),
    resource(
        "26-one-file-twice",
        "two resources write one file",
        "[[template]]\nsrc = \"web.tera\"\ndest = \"/etc/althing-example.cfg\"\n\n\
         [[template]]\nsrc = \"web.tera\"\ndest = \"/etc/althing-example.cfg\"\n",
    ),
    resource(
        "27-template-missing",
        "a template that is not there",
        "[template]\nsrc = \"wbe.tera\"\ndest = \"/etc/althing-example.cfg\"\n",
    ),
    resource(
        "28-check-refuses",
        "the service's own check finds a mistake",
        "[template]\nsrc = \"web.tera\"\ndest = \"/etc/althing-example.cfg\"\n\
         check_cmd = \"echo line 1: no such directive; exit 1 # {{.src}}\"\n",
    ),
    resource(
        "29-check-not-installed",
        "the checking program is not installed",
        "[template]\nsrc = \"web.tera\"\ndest = \"/etc/althing-example.cfg\"\n\
         check_cmd = [\"no-such-checker\", \"-c\", \"{{.src}}\"]\n",
    ),
    template(
        "30-template-syntax",
        "a loop without its end",
        "servers:\n{% for s in gets(pattern=\"/services/*\") %}\n  {{ s.value }}\n",
    ),
    template(
        "31-unknown-filter",
        "a misspelt filter",
        "{{ getv(key=\"/services/web\") | from_jsn }}\n",
    ),
    template("32-unknown-function", "a misspelt function", "{{ getx(key=\"/message\") }}\n"),
    template("33-key-missing", "a key that nobody has set", "port {{ getv(key=\"/port\") }}\n"),
    template(
        "34-not-json",
        "a value that is no JSON",
        "{% set web = getv(key=\"/message\") | from_json %}\n",
    ),
    template(
        "35-hostile-value",
        "a value with a line break in it",
        "motd {{ getv(key=\"/motd\") }}\n",
    ),
    template(
        "36-bad-port",
        "a value that is no port",
        "port {{ getv(key=\"/message\") | port }}\n",
    ),
    template(
        "37-unknown-argument",
        "a misspelt argument",
        "port {{ getv(key=\"/port\", defalt=\"80\") }}\n",
    ),
    template("38-argument-without-name", "an argument as confd has it", "{{ getv('/message') }}\n"),
    template(
        "39-include-outside",
        "a file from somewhere else",
        "# motd\n{% include \"/etc/motd\" %}\n",
    ),
];

const KEYS: &str = r#"{"/message": "Hello", "/motd": "a\nserver evil", "/services/web": "{}"}"#;

/// Lays the files of a case out.
fn lay_out(case: &Case) -> TempDir {
    let folder = scratch("errors");
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("empty.toml", "");
    write("keys.json", KEYS);
    write("site/conf.d/web.toml", case.resource);
    write("site/templates/web.tera", case.template);
    write(case.more.0, case.more.1);
    folder
}

/// Runs `words` in `folder`; its exit code and standard error, with `hide` taken out.
#[track_caller]
fn said(folder: &Path, command: &mut Command, words: &str, hide: &[(&str, &str)]) -> String {
    command.args(words.split(' ')).current_dir(folder).stdin(Stdio::null());
    command.env("ALTHING_CONFIG", "empty.toml").env("TMPDIR", folder);
    let finished = run(command, folder, SOON);
    let code = finished.status.code().expect("no signal ends it");
    let real = folder.canonicalize().unwrap();
    let mut text = format!("$ althing {words}\nexit code {code}\n{}", finished.stderr);
    for (secret, shown) in hide {
        text = text.replace(secret, shown);
    }
    for path in [folder, &real] {
        text = text.replace(&path.display().to_string(), "DIR");
    }
    text
}

#[track_caller]
fn holds(name: &str, story: &str, said: &str) {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/errors");
    let golden = golden.join(format!("{name}.txt"));
    let text = format!("# {story}\n{said}");
    if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
        fs::write(&golden, &text).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap_or_default();
    assert!(text == expected, "{name} differs; it is now:\n{text}\nand was:\n{expected}");
    assert!(said.contains("\nerror: "), "{name} does not say `error:`\n{said}");
    let has_next_step =
        ["help: ", "  tip: ", "try '--help'"].iter().any(|step| said.contains(step));
    assert!(has_next_step, "{name} has no next step:\n{said}");
    assert!(!said.contains("exit code 0\n"), "{name} ends well\n{said}");
}

#[test]
fn files_and_commands_that_are_wrong() {
    for case in CASES {
        let folder = lay_out(case);
        let said = said(folder.path(), &mut clean(binary()), case.words, &[]);
        holds(case.name, case.story, &said);
    }
}

#[test]
fn a_daemon_that_is_in_the_way() {
    let daemon = Daemon::start("errors");
    let folder = scratch("errors");
    fs::write(folder.path().join("empty.toml"), "").unwrap();
    let (url, pid) = (daemon.url().to_owned(), daemon.pid().to_string());
    let port = url.rsplit(':').next().unwrap().to_owned();
    let data = daemon.data_dir().display().to_string();
    let hide = [(data.as_str(), "DATA"), (port.as_str(), "PORT"), (pid.as_str(), "PID")];
    let cases = [
        (
            "40-port-in-use",
            "two daemons on one port",
            format!("run --data-dir data --listen-client-urls {url}"),
        ),
        (
            "41-data-in-use",
            "two daemons on one data directory",
            format!("run --data-dir {data} --listen-client-urls http://127.0.0.1:0"),
        ),
        ("42-key-missing", "a key that is not there", format!("get /a/b --endpoint {url}")),
        (
            "43-key-is-there",
            "a key is created twice",
            format!("set /there x --create --endpoint {url}"),
        ),
        (
            "44-file-of-nobody",
            "a file that no resource writes",
            format!("why /etc/motd --endpoint {url}"),
        ),
    ];
    daemon.althing(&["set", "/there", "x"]);
    for (name, story, words) in cases {
        holds(name, story, &said(folder.path(), &mut clean(binary()), &words, &hide));
    }
}

#[test]
fn data_of_a_newer_version() {
    let mut daemon = Daemon::start("newer");
    daemon.terminate();
    let data = daemon.data_dir();
    let segments = fs::read_dir(data.join("wal")).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<PathBuf> = segments.collect();
    segments.sort();
    let segment = segments.iter().find(|path| fs::read(path).unwrap().starts_with(b"althwal\n"));
    let segment = segment.expect("a log segment");
    let mut bytes = fs::read(segment).unwrap();
    // magic 8, format 8, length 8, 64 bytes of fields, then their checksum.
    bytes[8] = 9;
    let sum = u64::from(crc32c::crc32c(&bytes[..88]));
    bytes[88..96].copy_from_slice(&sum.to_le_bytes());
    fs::write(segment, bytes).unwrap();
    let folder = scratch("errors");
    fs::write(folder.path().join("empty.toml"), "").unwrap();
    let name = segment.file_name().unwrap().to_string_lossy().into_owned();
    let data = data.display().to_string();
    let words = format!("run --data-dir {data} --listen-client-urls http://127.0.0.1:0");
    let hide = [(data.as_str(), "DATA"), (name.as_str(), "SEGMENT")];
    let said = said(folder.path(), &mut clean(binary()), &words, &hide);
    holds("45-data-of-a-newer-version", "a downgrade", &said);
}

#[test]
fn a_server_that_is_another() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let server = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut head = [0; 4096];
        let _ = socket.read(&mut head).unwrap();
        let body = "<html><h1>It works!</h1></html>";
        write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    });
    let folder = scratch("errors");
    fs::write(folder.path().join("empty.toml"), "").unwrap();
    let words = format!("get /message --endpoint http://127.0.0.1:{port}");
    let said = said(folder.path(), &mut clean(binary()), &words, &[(port.as_str(), "PORT")]);
    holds("46-another-server", "the endpoint is a web server", &said);
    server.join().unwrap();
}

#[test]
fn a_data_directory_others_can_read() {
    let folder = scratch("errors");
    fs::write(folder.path().join("empty.toml"), "").unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("notes"), "").unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    let said = said(folder.path(), &mut clean(binary()), "run --data-dir data", &[]);
    holds("47-data-open-to-others", "a data directory that others can read", &said);
}

/// root may write everywhere, so it is run without the right to overrule permissions.
fn without_override() -> Option<Command> {
    if !rustix::process::geteuid().is_root() {
        return Some(clean(binary()));
    }
    let caps = "-dac_override,-dac_read_search";
    let probe = Command::new("setpriv").args(["--bounding-set", caps, "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        skip("needs setpriv and the right to use it: run it as a user that is not root");
        return None;
    }
    let mut command = clean("setpriv".into());
    command.args(["--bounding-set", caps]).arg(binary());
    Some(command)
}

#[test]
fn a_data_directory_without_permission() {
    let Some(mut command) = without_override() else { return };
    let folder = scratch("errors");
    fs::write(folder.path().join("empty.toml"), "").unwrap();
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
    let said = said(folder.path(), &mut command, "run --data-dir closed/data", &[]);
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    holds("48-no-permission", "a data directory in a place of somebody else", &said);
}
