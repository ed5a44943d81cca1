//! What a user can rely on: old bytes stay when a check fails, reloads are owed until done, one
//! resource's trouble is its own, the last state of a storm is on disk.

use crate::common::{Bench, Store, error, status, until, until_file};
use althing::base::id::Revision;
use althing::render::{Failpoint, Waiting};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_failing_check_leaves_the_old_file() {
    let bench = Bench::new();
    bench.template("a", "");
    bench.template("a.tera", "value {{ getv(key='/v') }}\n");
    bench.resource("a", "mode = \"0600\"\ncheck_cmd = \"! grep -q bad {{.src}} || { echo refused $ALTHING_NAME; exit 1; }\"");
    let store = Store::with(&[("/v", "one")]);
    let renderer = bench.start(&store);
    renderer.first_pass().await;
    assert_eq!(bench.read("a"), "value one\n");
    assert_eq!(std::fs::metadata(bench.out("a")).unwrap().permissions().mode() & 0o7777, 0o600);
    store.put("/v", "bad");
    until("the check has refused", || error(&renderer, "a").contains("refused a")).await;
    assert_eq!(bench.read("a"), "value one\n");
    assert_eq!(std::fs::read_dir(bench.path("out")).unwrap().count(), 1, "a stage is left");
    store.put("/v", "two");
    until_file(&bench, "a", "value two\n").await;
    until("all is well", || status(&renderer, "a").ok).await;
    renderer.shutdown().await;
}

#[tokio::test]
async fn a_failing_reload_is_tried_until_it_succeeds() {
    let bench = Bench::new();
    bench.template("a.tera", "{{ getv(key='/v') }}");
    let count = bench.path("count");
    bench.resource(
        "a",
        &format!("reload_cmd = \"echo x >> {0}; test $(wc -l < {0}) -gt 3\"", count.display()),
    );
    let store = Store::with(&[("/v", "1")]);
    let renderer = bench.start(&store);
    renderer.first_pass().await;
    assert!(status(&renderer, "a").owed_since.is_some());
    assert!(error(&renderer, "a").contains("owed"), "{:?}", renderer.status());
    until("the reload is done", || status(&renderer, "a").ok).await;
    assert_eq!(std::fs::read_to_string(&count).unwrap().lines().count(), 4);
    assert_eq!(status(&renderer, "a").reloads, 1);
    assert_eq!(status(&renderer, "a").changes, 1);
    renderer.shutdown().await;
}

#[tokio::test]
async fn an_owed_reload_survives_a_restart() {
    let bench = Bench::new();
    bench.template("a.tera", "{{ getv(key='/v') }}");
    let (gate, done) = (bench.path("gate"), bench.path("done"));
    let reload =
        format!("test -e {} && echo $ALTHING_REVISION >> {}", gate.display(), done.display());
    bench.resource("a", &format!("reload_cmd = \"{reload}\""));
    let store = Store::with(&[("/v", "1")]);
    let renderer = bench.start(&store);
    renderer.first_pass().await;
    assert_eq!(bench.read("a"), "1");
    renderer.shutdown().await;
    assert!(!done.exists());

    std::fs::write(&gate, "").unwrap();
    let renderer = bench.start(&store);
    renderer.first_pass().await;
    assert_eq!(std::fs::read_to_string(&done).unwrap(), "2\n");
    assert!(status(&renderer, "a").ok);
    renderer.shutdown().await;

    let renderer = bench.start(&store);
    renderer.first_pass().await;
    renderer.shutdown().await;
    assert_eq!(std::fs::read_to_string(&done).unwrap(), "2\n", "nothing was owed");
}

/// Stops a pass at every point, and starts anew: the file is whole at any time, and in the end
/// the service was told about what is in the file.
#[tokio::test]
async fn stopped_anywhere_a_restart_puts_it_right() {
    for point in Failpoint::ALL {
        let bench = Bench::new();
        bench.template("a.tera", "{{ getv(key='/v') }}");
        let loaded = bench.path("loaded");
        let reload = format!("cp {{{{.dest}}}} {}", loaded.display());
        bench.resource("a", &format!("check_cmd = \"true\"\nreload_cmd = \"{reload}\""));
        let store = Store::with(&[("/v", "old")]);
        let renderer = bench.start(&store);
        renderer.first_pass().await;
        bench.failpoints.fail_at(point);
        store.put("/v", "new");
        until(&point.name(), || error(&renderer, "a").contains(&point.name())).await;
        renderer.shutdown().await;
        assert!(["old", "new"].contains(&bench.read("a").as_str()), "{point:?}");

        bench.failpoints.disarm();
        let renderer = bench.start(&store);
        renderer.first_pass().await;
        assert!(status(&renderer, "a").ok, "{point:?}: {:?}", renderer.status());
        renderer.shutdown().await;
        assert_eq!(bench.read("a"), "new", "{point:?}");
        assert_eq!(std::fs::read_to_string(&loaded).unwrap(), "new", "{point:?}");
    }
}

#[tokio::test]
async fn a_storm_ends_with_its_last_state() {
    let bench = Bench::new();
    bench.template("a.tera", "{{ getv(key='/v') }}");
    bench.resource("a", "");
    let store = Store::with(&[("/v", "0")]);
    let renderer = bench.start(&store);
    renderer.first_pass().await;
    let mut pace = tokio::time::interval(Duration::from_millis(1));
    for number in 1..=1_000 {
        store.put("/v", &number.to_string());
        pace.tick().await;
    }
    let quiet = Instant::now();
    until_file(&bench, "a", "1000").await;
    assert!(quiet.elapsed() < Duration::from_secs(1), "{:?}", quiet.elapsed());
    assert!(status(&renderer, "a").renders <= 1_001);
    renderer.shutdown().await;
}

#[tokio::test]
async fn only_what_was_touched_wakes_a_template() {
    let bench = Bench::new();
    bench.template(
        "a.tera",
        "{% if exists(key='/on') %}{{ getv(key='/v') }}{% else %}off{% endif %}",
    );
    bench.resource("a", "prefix = \"/p\"");
    let store = Store::with(&[("/p/v", "1")]);
    let renderer = bench.start(&store);
    renderer.first_pass().await;
    assert_eq!(bench.read("a"), "off");
    store.put("/p/v", "2");
    store.put("/other", "x");
    store.put("/p/on", "");
    until_file(&bench, "a", "2").await;
    store.put("/p/v", "3");
    until_file(&bench, "a", "3").await;
    until("the pass is over", || status(&renderer, "a").waiting == Waiting::Change).await;
    assert_eq!(status(&renderer, "a").renders, 3);
    renderer.shutdown().await;
}

#[tokio::test]
async fn an_older_store_does_not_turn_a_file_back() {
    let bench = Bench::new();
    bench.template("a.tera", "{{ getv(key='/v') }}");
    bench.resource("a", "");
    let store = Store::with(&[("/v", "1"), ("/v", "2"), ("/v", "3")]);
    let renderer = bench.start(&store);
    renderer.first_pass().await;
    renderer.shutdown().await;

    let older = Store::with(&[("/v", "old")]);
    older.go_back_to(Revision(2));
    let renderer = bench.start(&older);
    renderer.first_pass().await;
    assert!(error(&renderer, "a").contains("refusing to go back"), "{:?}", renderer.status());
    assert_eq!(bench.read("a"), "3");
    older.put("/v", "4");
    older.put("/v", "5");
    until_file(&bench, "a", "5").await;
    renderer.shutdown().await;
}

#[tokio::test]
async fn node_environment_and_revision_are_known() {
    let bench = Bench::new();
    bench.template(
        "a.tera",
        "{% set n = node() %}{{ n.name }} {{ getenv(name='GREETING') }} {{ getenv(name='PATH', default='-') }} {{ revision() }}",
    );
    bench.resource("a", "");
    let renderer = bench.start(&Store::with(&[("/v", "1")]));
    renderer.first_pass().await;
    assert_eq!(bench.read("a"), "n1 hello - 2");
    renderer.shutdown().await;
}
