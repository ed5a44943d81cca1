//! What stored bytes, and other users of the host, can do to rendered files: nothing.

use crate::common::{Daemon, http, wait_for, wait_until};
use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// From a write to its file, on a busy machine.
const RENDERED_WITHIN: Duration = Duration::from_secs(30);

/// A daemon, not yet started, with one resource: `template` becomes `out/dest`.
fn daemon(name: &str, template: &str, more: &str) -> (Daemon, PathBuf) {
    let daemon = Daemon::stopped(name, &["--confdir", "confdir"]);
    let confdir = daemon.home().join("confdir");
    for folder in ["conf.d", "templates"] {
        fs::create_dir_all(confdir.join(folder)).unwrap();
    }
    let out = daemon.home().join("out");
    fs::create_dir(&out).unwrap();
    fs::set_permissions(&out, Permissions::from_mode(0o755)).unwrap();
    let dest = out.join("dest");
    fs::write(confdir.join("templates/t.tera"), template).unwrap();
    let shown = dest.display();
    let resource = format!("[template]\nsrc = \"t.tera\"\ndest = \"{shown}\"\n{more}");
    fs::write(confdir.join("conf.d/t.toml"), resource).unwrap();
    (daemon, dest)
}

/// Stores bytes, of whatever kind.
#[track_caller]
fn put(daemon: &Daemon, key: &str, value: &[u8]) {
    let mut escaped = String::new();
    for byte in value {
        match byte {
            byte if byte.is_ascii_alphanumeric() => escaped.push(char::from(*byte)),
            byte => escaped += &format!("%{byte:02X}"),
        }
    }
    let url = format!("{}/v2/keys{key}", daemon.url());
    let answer = http("PUT", &url, &format!("value={escaped}"));
    assert!([200, 201].contains(&answer.status), "{answer:?}");
}

/// The one resource's status.
fn status(daemon: &Daemon) -> Value {
    let url = format!("{}/althing/v1/status", daemon.url());
    http("GET", &url, "").json()["renderer"]["files"][0].clone()
}

fn revision_of(daemon: &Daemon, key: &str) -> u64 {
    let found = http("GET", &format!("{}/v2/keys{key}", daemon.url()), "").json();
    found["node"]["modifiedIndex"].as_u64().unwrap()
}

fn wait_until_file_is(dest: &Path, content: &[u8]) {
    wait_until("the file is rendered", RENDERED_WITHIN, || {
        fs::read(dest).is_ok_and(|found| found == content)
    });
}

const SERVERS: &str =
    "backend web\n{% for s in gets(pattern='/svc/web/*') %}  server {{ s.value }}\n{% endfor %}";

/// A13: a value with a line break would be a directive of its own, which HAProxy calls valid.
#[test]
fn a_value_adds_no_line_to_a_file() {
    let (mut daemon, dest) = daemon("abuse-line", SERVERS, "keys = [\"/svc\"]\n");
    daemon.restart();
    put(&daemon, "/svc/web/1", b"10.0.0.1:80");
    let good = b"backend web\n  server 10.0.0.1:80\n";
    wait_until_file_is(&dest, good);
    put(&daemon, "/svc/web/1", b"10.0.0.1:80\n  server evil 203.0.113.9:80");
    let error = wait_for("the render is refused", RENDERED_WITHIN, || {
        status(&daemon)["error"].as_str().map(str::to_owned)
    });
    assert!(error.contains("/svc/web/1") && error.contains("line feed"), "{error}");
    assert!(!error.contains("203.0.113.9"), "the value is told: {error}");
    assert_eq!(fs::read(&dest).unwrap(), good);
    put(&daemon, "/svc/web/1", b"10.0.0.2:80");
    wait_until_file_is(&dest, b"backend web\n  server 10.0.0.2:80\n");
}

/// A14: a value is text, whatever language it is in.
#[test]
fn values_are_never_run() {
    let (mut daemon, dest) =
        daemon("abuse-values", "[{{ getv(key='/v', default='none') }}]", "keys = [\"/v\"]\n");
    let trap = daemon.home().join("trap");
    let shell = format!("$(touch {0}) `touch {0}` '; touch {0} #", trap.display());
    put_first(&mut daemon);
    let long = "x".repeat(1024 * 1024);
    let texts = [
        "{{ get_env(name=\"HOME\") }}",
        "{% include \"/etc/shadow\" %}",
        "{# a comment #}",
        &shell,
        "%n%s%x",
        "../../etc/passwd",
        &long,
    ];
    for text in texts {
        put(&daemon, "/v", text.as_bytes());
        wait_until_file_is(&dest, format!("[{text}]").as_bytes());
    }
    // Bytes that are no text come out as text, or not at all.
    put(&daemon, "/v", b"a\xff\xfe\0b");
    let index = revision_of(&daemon, "/v");
    wait_until("the bytes are dealt with", RENDERED_WITHIN, || {
        let status = status(&daemon);
        status["error"].is_string() || status["revision"].as_u64() >= Some(index)
    });
    let file = fs::read(&dest).unwrap();
    assert!(!file.contains(&0) && std::str::from_utf8(&file).is_ok());
    assert!(!trap.exists(), "a value was run by a shell");
}

fn put_first(daemon: &mut Daemon) {
    daemon.restart();
    put(daemon, "/v", b"first");
}

/// A15: a link at the destination, or one that is swapped in while files are written.
#[test]
fn a_link_at_the_destination_is_not_followed() {
    let (mut daemon, dest) =
        daemon("abuse-link", "{{ getv(key='/v', default='none') }}", "keys = [\"/v\"]\n");
    let victim = daemon.home().join("victim");
    fs::write(&victim, "mine").unwrap();
    symlink(&victim, &dest).unwrap();
    put_first(&mut daemon);
    let error = wait_for("the render is refused", RENDERED_WITHIN, || {
        status(&daemon)["error"].as_str().map(str::to_owned)
    });
    assert!(error.contains("symbolic link"), "{error}");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");

    let swapping = Arc::new(AtomicBool::new(true));
    let swapper = thread::spawn({
        let (swapping, victim, dest) = (Arc::clone(&swapping), victim.clone(), dest.clone());
        move || {
            let link = dest.with_file_name("link");
            while swapping.load(Ordering::Relaxed) {
                let _ = fs::remove_file(&dest);
                if symlink(&victim, &link).is_ok() {
                    let _ = fs::rename(&link, &dest);
                }
            }
        }
    });
    for number in 0..200 {
        put(&daemon, "/v", format!("value {number}").as_bytes());
    }
    swapping.store(false, Ordering::Relaxed);
    swapper.join().unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
    let _ = fs::remove_file(&dest);
    put(&daemon, "/v", b"last");
    wait_until_file_is(&dest, b"last");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
}

/// A15, in a directory where anybody may put the link.
#[test]
fn a_directory_everybody_may_write_is_refused() {
    let (mut daemon, dest) =
        daemon("abuse-open", "{{ getv(key='/v', default='none') }}", "keys = [\"/v\"]\n");
    fs::set_permissions(dest.parent().unwrap(), Permissions::from_mode(0o777)).unwrap();
    put_first(&mut daemon);
    let error = wait_for("the render is refused", RENDERED_WITHIN, || {
        status(&daemon)["error"].as_str().map(str::to_owned)
    });
    assert!(error.contains("others may write"), "{error}");
    assert!(!dest.exists());
}

/// A16: no moment at which a secret can be read by others, whatever the umask.
#[test]
fn a_secret_file_is_never_open_to_others() {
    let template = "password {{ getv(key='/v', default='none') }}";
    let (mut daemon, dest) = daemon("abuse-mode", template, "keys = [\"/v\"]\nmode = \"0600\"\n");
    let no_umask = ["sh", "-c", "umask 0; exec \"$@\"", "sh"];
    daemon.run_under(no_umask.map(str::to_owned).to_vec());
    let looking = Arc::new(AtomicBool::new(true));
    let looker = thread::spawn({
        let (looking, folder) = (Arc::clone(&looking), dest.parent().unwrap().to_owned());
        move || {
            let mut seen = 0;
            while looking.load(Ordering::Relaxed) {
                for entry in fs::read_dir(&folder).unwrap().flatten() {
                    // It may be renamed before it is looked at.
                    let Ok(found) = entry.metadata() else { continue };
                    assert_eq!(found.mode() & 0o077, 0, "{}", entry.path().display());
                    seen += 1;
                }
            }
            seen
        }
    });
    put_first(&mut daemon);
    for number in 0..50 {
        let secret = format!("secret {number}");
        put(&daemon, "/v", secret.as_bytes());
        wait_until_file_is(&dest, format!("password {secret}").as_bytes());
    }
    looking.store(false, Ordering::Relaxed);
    assert!(looker.join().unwrap() > 0, "nothing was looked at");
}

/// A20: a command, and whatever service it starts, has three descriptors: none of the store, and
/// none that the daemon itself inherited.
#[test]
fn commands_get_no_descriptor_but_the_three() {
    let reload =
        "reload_cmd = \"ls -l /proc/self/fd > {{ dest }}.fds; mv {{ dest }}.fds {{ dest }}.seen\"";
    let (mut daemon, dest) = daemon("abuse-descriptors", "{{ getv(key=\"/a\") }}", reload);
    let inherits = "exec 8</dev/null 9</dev/zero; exec \"$@\"";
    daemon.run_under(["sh", "-c", inherits, "sh"].map(str::to_owned).into());
    daemon.restart();
    put(&daemon, "/a", b"1");
    let seen = dest.with_extension("seen");
    let listing = wait_for("the reload", RENDERED_WITHIN, || fs::read_to_string(&seen).ok());
    let shown: Vec<&str> = listing.lines().filter(|line| line.contains(" -> ")).collect();
    // The fourth is the directory that is being listed.
    assert_eq!(shown.len(), 4, "{listing}");
}
