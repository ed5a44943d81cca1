//! What each key of a resource promises.

use crate::common::{Bench, Store, error, status, until, until_file};
use crate::harness::skip;
use althing::render::{Step, Waiting};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap_or_default().lines().count()
}

#[tokio::test]
async fn nothing_is_rendered_without_a_required_key() {
    let bench = Bench::new();
    bench.template("a.tera", "{{ getv(key='/v') }}");
    bench.resource("a", "prefix = \"/p\"\nkeys = [\"/v\"]\nrequired = [\"/must\", \"folder\"]");
    let store = Store::with(&[("/p/v", "1"), ("/p/folder/x", "")]);
    let renderer = bench.start(&store);
    renderer.first_pass().await;
    let missing = "required key does not exist: /p/must";
    assert!(error(&renderer, "a").contains(missing), "{:?}", renderer.status());
    assert!(!bench.out("a").exists());
    store.put("/p/must", "");
    until_file(&bench, "a", "1").await;
    store.delete("/p/must");
    until("it is missed", || error(&renderer, "a").contains(missing)).await;
    store.put("/p/v", "2");
    until("it is missed again", || status(&renderer, "a").renders >= 4).await;
    assert_eq!(bench.read("a"), "1", "the old file stays");
    store.put("/p/must", "");
    until_file(&bench, "a", "2").await;
    renderer.shutdown().await;
}

#[tokio::test]
async fn owner_and_mode_are_a_reason_to_reload() {
    let bench = Bench::new();
    let (me, mine) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let reloads = bench.path("reloads");
    let reload = format!("reload_cmd = \"echo >> {}\"", reloads.display());
    bench.template("a.tera", "x");
    bench.resource("a", &format!("owner = \"no such user\"\n{reload}"));
    let renderer = bench.start(&Store::new());
    renderer.first_pass().await;
    let unknown = error(&renderer, "a");
    assert!(unknown.contains("there is no user `no such user` in /etc/passwd"), "{unknown}");
    assert!(!bench.out("a").exists());
    bench.resource("a", &format!("uid = {me}\ngid = {mine}\nmode = \"600\"\n{reload}"));
    until("it is reloaded", || lines(&reloads) == 1).await;
    bench.resource("a", &format!("mode = \"0604\"\n{reload}"));
    until("the mode is new", || lines(&reloads) == 2).await;
    assert_eq!(fs::metadata(bench.out("a")).unwrap().permissions().mode() & 0o7777, 0o604);
    if rustix::process::getuid().is_root() {
        bench.resource("a", &format!("owner = \"4711\"\ngid = 4712\n{reload}"));
        until("the owner is new", || lines(&reloads) == 3).await;
        let is = fs::metadata(bench.out("a")).unwrap();
        assert_eq!((is.uid(), is.gid(), is.mode() & 0o7777), (4711, 4712, 0o604));
        bench.template("a.tera", "y");
        until_file(&bench, "a", "y").await;
        assert_eq!(fs::metadata(bench.out("a")).unwrap().uid(), 4711, "kept without being asked");
    } else {
        skip("needs root to give a file away");
    }
    renderer.shutdown().await;
}

#[tokio::test]
async fn missing_directories_are_made_when_asked() {
    let bench = Bench::new();
    bench.template("a.tera", "x");
    let dest = bench.out("b/c/a");
    let text =
        format!("[template]\nsrc = \"a.tera\"\ndest = \"{}\"\nmake_dirs = true", dest.display());
    bench.resource_file("a", &text);
    let renderer = bench.start(&Store::new());
    renderer.first_pass().await;
    assert_eq!(bench.read("b/c/a"), "x", "{:?}", renderer.status());
    renderer.shutdown().await;
}

#[tokio::test]
async fn a_reload_is_owed_until_it_is_verified() {
    let bench = Bench::new();
    let (works, reloads) = (bench.path("works"), bench.path("reloads"));
    bench.template("a.tera", "x");
    bench.resource(
        "a",
        &format!(
            "reload_cmd = \"echo >> {}\"\nverify_cmd = [\"test\", \"-e\", \"{}\"]",
            reloads.display(),
            works.display()
        ),
    );
    let renderer = bench.start(&Store::new());
    renderer.first_pass().await;
    let told = error(&renderer, "a");
    assert!(told.contains("the service does not work with the new file"), "{told}");
    assert!(status(&renderer, "a").owed_since.is_some());
    until("the reload is tried again", || lines(&reloads) > 2).await;
    fs::write(&works, "").unwrap();
    until("it is verified", || status(&renderer, "a").ok).await;
    assert_eq!((status(&renderer, "a").reloads, status(&renderer, "a").owed_since), (1, None));
    renderer.shutdown().await;
}

#[tokio::test]
async fn a_burst_is_waited_out() {
    let bench = Bench::new();
    bench.template("a.tera", "{{ getv(key='/v') }}");
    bench.resource("a", "wait = { min = \"1s\", max = \"20s\" }");
    let store = Store::with(&[("/v", "0")]);
    let renderer = bench.start(&store);
    renderer.first_pass().await;
    let mut pace = tokio::time::interval(Duration::from_millis(5));
    for number in 1..=50 {
        store.put("/v", &number.to_string());
        pace.tick().await;
    }
    until("it waits", || status(&renderer, "a").waiting == Waiting::Quiet).await;
    until_file(&bench, "a", "50").await;
    until("the pass is over", || status(&renderer, "a").waiting == Waiting::Change).await;
    assert_eq!(status(&renderer, "a").renders, 2);
    renderer.shutdown().await;
}

#[tokio::test]
async fn a_burst_without_end_is_not_waited_out_for_ever() {
    let bench = Bench::new();
    bench.template("a.tera", "{{ getv(key='/v') }}");
    bench.resource("a", "wait = { min = \"1s\", max = \"2s\" }");
    let store = Store::with(&[("/v", "0")]);
    let renderer = bench.start(&store);
    renderer.first_pass().await;
    let (mut pace, begun) = (tokio::time::interval(Duration::from_millis(5)), Instant::now());
    while bench.read("a") == "0" {
        store.put("/v", "1");
        pace.tick().await;
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", renderer.status());
    }
    renderer.shutdown().await;
}

/// confd's fork dropped the reload instead of putting it off.
#[tokio::test]
async fn a_reload_too_early_is_put_off_with_its_file() {
    let bench = Bench::new();
    let loaded = bench.path("loaded");
    bench.template("a.tera", "{{ getv(key='/v') }}\n");
    bench.resource(
        "a",
        &format!(
            "min_reload_interval = \"1s\"\nreload_cmd = \"echo $(date +%s%N) $(cat {{{{.dest}}}}) >> {}\"",
            loaded.display()
        ),
    );
    let store = Store::with(&[("/v", "0")]);
    let renderer = bench.start(&store);
    renderer.first_pass().await;
    for number in 1..=20 {
        store.put("/v", &number.to_string());
        let put_off = || status(&renderer, "a").waiting == Waiting::ReloadInterval;
        until("it is put off", || put_off() || bench.read("a") == format!("{number}\n")).await;
    }
    until_file(&bench, "a", "20\n").await;
    let last = || fs::read_to_string(&loaded).is_ok_and(|text| text.ends_with(" 20\n"));
    until("the last state is loaded", last).await;
    let text = fs::read_to_string(&loaded).unwrap();
    let times: Vec<u64> =
        text.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    let pauses: Vec<u64> = times.windows(2).map(|pair| (pair[1] - pair[0]) / 1_000_000).collect();
    // A reload's clock starts before its program does, which may be slow for one and not the next.
    assert!(!pauses.is_empty() && pauses.iter().all(|ms| *ms > 700), "{pauses:?}");
    until("the pass is over", || status(&renderer, "a").waiting == Waiting::Change).await;
    assert_eq!(status(&renderer, "a").reloads, status(&renderer, "a").changes);
    renderer.shutdown().await;
}

/// Only a reload is put off: what is not there yet, and what is the same, does not wait.
#[tokio::test]
async fn the_time_of_the_last_reload_survives_a_restart_and_an_edit() {
    let bench = Bench::new();
    let reloads = bench.path("reloads");
    let more =
        format!("min_reload_interval = \"1h\"\nreload_cmd = \"echo >> {}\"", reloads.display());
    bench.template("a.tera", "{{ getv(key='/v') }}");
    bench.resource("a", &more);
    let store = Store::with(&[("/v", "1")]);
    let renderer = bench.start(&store);
    until("it is reloaded", || lines(&reloads) == 1).await;
    until("it rests", || status(&renderer, "a").waiting == Waiting::Change).await;
    renderer.shutdown().await;
    store.put("/v", "2");
    let renderer = bench.start(&store);
    renderer.in_place().await;
    let put_off = || status(&renderer, "a").waiting == Waiting::ReloadInterval;
    until("it is put off", put_off).await;
    assert!(status(&renderer, "a").behind && status(&renderer, "a").ok);
    bench.resource("a", &format!("{more}\nmode = \"0600\""));
    renderer.reload_all().await;
    until("it is put off again", || put_off() && status(&renderer, "a").renders >= 2).await;
    assert_eq!((lines(&reloads), bench.read("a")), (1, "1".to_owned()));
    bench.resource("a", &more.replace("1h", "1s"));
    until_file(&bench, "a", "2").await;
    until("it is reloaded", || lines(&reloads) == 2).await;
    renderer.shutdown().await;
}

#[tokio::test]
async fn nothing_of_a_sensitive_file_is_told() {
    let bench = Bench::new();
    bench.template("a.tera", "{{ getv(key='/v') | ident }}");
    bench.resource("a", "sensitive = true\ncheck_cmd = \"cat {{.src}}; exit 1\"");
    bench.template("plain.tera", "{{ getv(key='/v') | ident }}");
    bench.resource("plain", "");
    let store = Store::with(&[("/v", "pass word")]);
    let renderer = bench.start(&store);
    renderer.first_pass().await;
    assert!(error(&renderer, "plain").contains("pass word"), "the test tests nothing");
    let told = error(&renderer, "a");
    assert!(told.contains("a.tera:1:") && told.contains("why is not shown"), "{told}");
    assert!(!told.contains("pass"), "{told}");
    store.put("/v", "password");
    until("the check refuses", || error(&renderer, "a").contains("exit code 1")).await;
    let told = error(&renderer, "a");
    assert!(told.contains("(not shown)") && !told.contains("password"), "{told}");
    assert!(status(&renderer, "a").sensitive && !status(&renderer, "plain").sensitive);
    renderer.shutdown().await;
}

#[tokio::test]
async fn earlier_versions_are_kept() {
    let bench = Bench::new();
    bench.template("a.tera", "{{ getv(key='/v') }}");
    bench.resource("a", "backup = 2\nmode = \"0600\"");
    let store = Store::with(&[("/v", "1")]);
    let renderer = bench.start(&store);
    renderer.first_pass().await;
    for value in ["2", "3", "4"] {
        store.put("/v", value);
        until_file(&bench, "a", value).await;
    }
    renderer.shutdown().await;
    let folder = bench.path("state/backups").join(bench.out("a").strip_prefix("/").unwrap());
    let mut kept: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    kept.sort();
    let texts: Vec<String> = kept.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    assert_eq!(texts, ["2", "3"]);
    assert_eq!(fs::metadata(&kept[0]).unwrap().mode() & 0o7777, 0o600);
}

#[tokio::test]
async fn a_link_is_no_destination() {
    let bench = Bench::new();
    let victim = bench.path("victim");
    fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, bench.out("a")).unwrap();
    bench.template("a.tera", "x");
    bench.resource("a", "");
    bench.template("b.tera", "x");
    bench.resource("b", "");
    let renderer = bench.start(&Store::new());
    renderer.first_pass().await;
    let told = error(&renderer, "a");
    assert!(told.contains("symbolic link; name the file it leads to"), "{told}");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert_eq!(bench.read("b"), "x");
    fs::remove_file(bench.out("a")).unwrap();
    until_file(&bench, "a", "x").await;
    renderer.shutdown().await;
}

/// The check makes a directory where the file belongs, so that the rename fails.
#[tokio::test]
async fn a_file_that_cannot_be_placed_owes_no_reload() {
    let bench = Bench::new();
    let (dest, reloads) = (bench.out("a"), bench.path("reloads"));
    bench.template("a.tera", "x");
    bench.resource(
        "a",
        &format!(
            "check_cmd = \"test -e {0} || mkdir {0} {1}\"\nreload_cmd = \"echo >> {2}\"",
            bench.path("once").display(),
            dest.display(),
            reloads.display()
        ),
    );
    let renderer = bench.start(&Store::new());
    renderer.first_pass().await;
    assert!(error(&renderer, "a").contains("cannot rename over"), "{:?}", renderer.status());
    assert_eq!(status(&renderer, "a").owed_since, None);
    until("a later try sees the directory", || error(&renderer, "a").contains("is a directory"))
        .await;
    assert!(!reloads.exists(), "reloaded for nothing");
    fs::remove_dir(&dest).unwrap();
    until_file(&bench, "a", "x").await;
    until("it is reloaded", || lines(&reloads) == 1 && status(&renderer, "a").ok).await;
    renderer.shutdown().await;
}

#[tokio::test]
async fn status_says_what_a_resource_waits_for() {
    let bench = Bench::new();
    bench.template("a.tera", "{{ getv(key='/v') }}");
    bench.resource("a", "check_cmd = \"! grep bad {{.src}}\"");
    let store = Store::with(&[("/v", "good")]);
    let begun = SystemTime::now();
    let renderer = bench.start(&store);
    until("it waits", || status(&renderer, "a").waiting == Waiting::Change).await;
    let good = status(&renderer, "a");
    assert_eq!((good.until, good.ok), (None, true));
    assert!(good.last_pass.is_some_and(|at| at >= begun));
    store.put("/v", "bad");
    let retries = || status(&renderer, "a").waiting == Waiting::Retry;
    until("it will try again", retries).await;
    assert!(status(&renderer, "a").until.is_some());
    let bad = status(&renderer, "a");
    assert!(bad.since.is_some_and(|since| since >= begun));
    assert!(bad.last_success < bad.last_pass, "{bad:?}");
    assert!(bad.failures[&Step::Check] >= 1 && bad.failures.len() == 1, "{:?}", bad.failures);
    assert_eq!(Waiting::Retry.to_string(), "the next try");
    renderer.shutdown().await;
}

#[tokio::test]
async fn trimmed_blocks_leave_no_empty_lines() {
    let bench = Bench::new();
    let text = "hosts\n  {% for name in ls(path='/hosts') %}\n  {{ name }}\n  {% endfor %}\nend\n";
    for name in ["plain", "trimmed"] {
        bench.template(&format!("{name}.tera"), text);
    }
    bench.resource("plain", "");
    bench.resource("trimmed", "trim_blocks = true");
    let store = Store::with(&[("/hosts/a", ""), ("/hosts/b", "")]);
    let renderer = bench.start(&store);
    renderer.first_pass().await;
    assert_eq!(bench.read("trimmed"), "hosts\n  a\n  b\nend\n");
    assert_eq!(bench.read("plain"), "hosts\n  \n  a\n  \n  b\n  \nend\n");
    renderer.shutdown().await;
}
