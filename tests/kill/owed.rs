//! A daemon killed in the middle of a render pass still owes the reload, and pays it.
//!
//! The failpoints abort the daemon between every two steps of a pass: among them where a kill hurts
//! most, with the debt written and the file old, renamed but not durable, durable but not reloaded,
//! reloaded but the debt still there.

use crate::common::{Daemon, http, wait_until};
use althing::render::Failpoint;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// From a start to the end of all reloads, with three that fail.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);
/// From a write to the kill.
const KILLED_WITHIN: Duration = Duration::from_secs(10);

/// A daemon with one resource. Its reload fails as often as the file `fails` has lines, and then
/// takes over the file: `loaded` is what the service would work with.
fn daemon() -> Daemon {
    let mut daemon = Daemon::stopped("owed", &["--confdir", "confdir"]);
    let confdir = daemon.home().join("confdir");
    for folder in ["conf.d", "templates"] {
        fs::create_dir_all(confdir.join(folder)).unwrap();
    }
    let path = |name: &str| daemon.home().join(name).display().to_string();
    let (dest, loaded, fails) = (path("dest"), path("loaded"), path("fails"));
    fs::write(&fails, "").unwrap();
    fs::write(confdir.join("templates/a.tera"), "{{ getv(key='/v', default='none') }}").unwrap();
    let reload =
        format!("if test -s {fails}; then sed -i 1d {fails}; exit 1; fi; cp {dest} {loaded}");
    let resource = format!(
        "[template]\nsrc = \"a.tera\"\ndest = \"{dest}\"\ncheck_cmd = \"true\"\n\
         reload_cmd = \"{reload}\"\nverify_cmd = \"cmp {dest} {loaded}\"\nbackup = 2\n"
    );
    fs::write(confdir.join("conf.d/a.toml"), resource).unwrap();
    daemon.restart();
    daemon
}

fn put(daemon: &Daemon, value: &str) {
    let answer = http("PUT", &format!("{}/v2/keys/v", daemon.url()), &format!("value={value}"));
    assert!([200, 201].contains(&answer.status), "{answer:?}");
}

fn wait_until_loaded(home: &Path, value: &str) {
    wait_until(&format!("the service works with {value}"), SETTLED_WITHIN, || {
        fs::read_to_string(home.join("loaded")).is_ok_and(|loaded| loaded == value)
    });
}

/// The resource is away until the value is written: the first points are reached by every pass,
/// the one at the start too, and a kill can be faster than the answer to a write.
fn kill_in_a_pass(daemon: &mut Daemon, point: Failpoint, value: &str) {
    let resource = daemon.home().join("confdir/conf.d/a.toml");
    let away = resource.with_extension("away");
    fs::rename(&resource, &away).unwrap();
    let failpoint = format!("ALTHING_FAILPOINT={}", point.name());
    daemon.run_under(vec!["env".into(), failpoint]);
    daemon.restart();
    put(daemon, value);
    fs::rename(&away, &resource).unwrap();
    let status = daemon.wait_for_end(KILLED_WITHIN);
    assert!(status.code().is_none(), "{point:?}: not killed but ended with {status}");
    daemon.run_under(Vec::new());
}

#[test]
fn a_reload_is_still_owed_after_a_kill_in_the_pass() {
    let mut daemon = daemon();
    let home = daemon.home().to_owned();
    wait_until_loaded(&home, "none");
    for (round, point) in Failpoint::ALL.into_iter().enumerate() {
        let old = fs::read_to_string(home.join("dest")).unwrap();
        let value = format!("value-{round}");
        kill_in_a_pass(&mut daemon, point, &value);
        let left = fs::read_to_string(home.join("dest")).unwrap();
        assert!(left == old || left == value, "{point:?}: the file is {left:?}");
        daemon.restart();
        wait_until_loaded(&home, &value);
        assert_eq!(fs::read_to_string(home.join("dest")).unwrap(), value, "{point:?}");
    }
}

#[test]
fn a_reload_that_fails_three_times_outlives_a_kill() {
    let mut daemon = daemon();
    let home = daemon.home().to_owned();
    wait_until_loaded(&home, "none");
    kill_in_a_pass(&mut daemon, Failpoint::Renamed, "new");
    assert_eq!(fs::read_to_string(home.join("dest")).unwrap(), "new", "not renamed yet");
    assert_eq!(fs::read_to_string(home.join("loaded")).unwrap(), "none", "reloaded too early");
    fs::write(home.join("fails"), "1\n2\n3\n").unwrap();
    daemon.restart();
    wait_until_loaded(&home, "new");
    assert_eq!(fs::read_to_string(home.join("fails")).unwrap(), "", "not every failure was met");
}

/// The service takes no file with `bad` in it: a kill on the way back leaves the old file to come
/// back, and its service to be told.
#[test]
fn a_rollback_outlives_a_kill() {
    let mut daemon = daemon();
    let home = daemon.home().to_owned();
    wait_until_loaded(&home, "none");
    let path = |name: &str| home.join(name).display().to_string();
    let (dest, loaded) = (path("dest"), path("loaded"));
    let resource = format!(
        "[template]\nsrc = \"a.tera\"\ndest = \"{dest}\"\non_failure = \"rollback\"\n\
         reload_cmd = \"! grep -q bad {dest} && cp {dest} {loaded}\"\n\
         verify_cmd = \"cmp {dest} {loaded}\"\n"
    );
    fs::write(home.join("confdir/conf.d/a.toml"), resource).unwrap();
    for (round, point) in Failpoint::OF_A_ROLLBACK.into_iter().enumerate() {
        let good = format!("good-{round}");
        put(&daemon, &good);
        wait_until_loaded(&home, &good);
        // What was not settled is not known to be good, and not gone back to.
        wait_until("its reload is settled", SETTLED_WITHIN, || {
            let status = http("GET", &format!("{}/althing/v1/status", daemon.url()), "").json();
            status["renderer"]["files"][0]["ok"] == true
        });
        kill_in_a_pass(&mut daemon, point, &format!("bad-{round}"));
        fs::write(&loaded, "broken").unwrap();
        daemon.restart();
        wait_until_loaded(&home, &good);
        wait_until(&format!("{point:?}: the old file is back"), SETTLED_WITHIN, || {
            fs::read_to_string(&dest).is_ok_and(|is| is == good)
        });
    }
    put(&daemon, "better");
    wait_until_loaded(&home, "better");
    assert_eq!(fs::read_to_string(&dest).unwrap(), "better");
}
