//! `on_failure = "rollback"`: a service that fails with the new file gets the old one back.

use crate::common::{Bench, Store, error, status, until, until_file};
use althing::render::{Failpoint, Step};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// The service takes over any file but a bad one, and writes down what it was told.
fn with_rollback(bench: &Bench) {
    let (loaded, told) = (bench.path("loaded"), bench.path("told"));
    bench.template("a.tera", "{{ getv(key='/v') }}");
    bench.resource(
        "a",
        &format!(
            "on_failure = \"rollback\"\nbackup = 2\n\
             reload_cmd = \"(cat {{{{.dest}}}}; echo) >> {0}; ! grep -q bad {{{{.dest}}}} && cp {{{{.dest}}}} {1}\"\n\
             verify_cmd = \"cmp {{{{.dest}}}} {1}\"",
            told.display(),
            loaded.display()
        ),
    );
}

fn told(bench: &Bench) -> Vec<String> {
    let text = fs::read_to_string(bench.path("told")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn the_old_file_comes_back_and_the_new_one_is_tried_again() {
    let bench = Bench::new();
    with_rollback(&bench);
    let store = Store::with(&[("/v", "good")]);
    let renderer = bench.start(&store);
    renderer.first_pass().await;
    fs::set_permissions(bench.out("a"), fs::Permissions::from_mode(0o604)).unwrap();
    store.put("/v", "bad");
    until("it is rolled back", || error(&renderer, "a").contains("old file is back")).await;
    let said = error(&renderer, "a");
    assert!(said.contains("ended with exit code 1"), "{said}");
    assert!(status(&renderer, "a").owed_since.is_some() && !status(&renderer, "a").ok);
    assert!(status(&renderer, "a").failures.contains_key(&Step::Reload));
    let tries = || told(&bench).iter().filter(|line| *line == "bad").count();
    until("it is tried again", || tries() >= 3).await;
    until("it is back again", || bench.read("a") == "good").await;
    assert_eq!(fs::metadata(bench.out("a")).unwrap().permissions().mode() & 0o7777, 0o604);
    let lines = told(&bench);
    assert!(lines.windows(2).all(|pair| pair != ["bad", "bad"]), "{lines:?}");
    store.put("/v", "better");
    until_file(&bench, "a", "better").await;
    until("it is well", || status(&renderer, "a").ok).await;
    assert_eq!(fs::read_to_string(bench.path("loaded")).unwrap(), "better");
    let kept = fs::read_dir(bench.path("state")).unwrap().flatten();
    let kept = kept.filter(|entry| entry.path().extension().is_some_and(|ext| ext == "before"));
    assert_eq!(kept.count(), 0, "nothing to go back to is kept");
    renderer.shutdown().await;
}

#[tokio::test]
async fn keys_that_go_back_too_end_it() {
    let bench = Bench::new();
    with_rollback(&bench);
    let store = Store::with(&[("/v", "good")]);
    let renderer = bench.start(&store);
    renderer.first_pass().await;
    store.put("/v", "bad");
    until("it is rolled back", || error(&renderer, "a").contains("old file is back")).await;
    store.put("/v", "good");
    until("it is well", || status(&renderer, "a").ok).await;
    assert_eq!((bench.read("a"), told(&bench).pop()), ("good".to_owned(), Some("good".to_owned())));
    renderer.shutdown().await;
}

/// There is nothing to go back to: it is as with "keep".
#[tokio::test]
async fn a_first_file_stays() {
    let bench = Bench::new();
    with_rollback(&bench);
    let store = Store::with(&[("/v", "bad")]);
    let renderer = bench.start(&store);
    renderer.first_pass().await;
    assert!(error(&renderer, "a").contains("the reload is owed"), "{:?}", renderer.status());
    assert_eq!(bench.read("a"), "bad");
    renderer.shutdown().await;
}

/// The debt and the way back are on disk: a stop anywhere ends with the old file, and its service
/// working with it, or with the new one if that is good by then.
#[tokio::test]
async fn stopped_on_the_way_back_a_restart_goes_on() {
    for point in Failpoint::OF_A_ROLLBACK.into_iter().chain([Failpoint::Renamed, Failpoint::Synced])
    {
        let bench = Bench::new();
        with_rollback(&bench);
        let store = Store::with(&[("/v", "good")]);
        let renderer = bench.start(&store);
        renderer.first_pass().await;
        bench.failpoints.fail_at(point);
        store.put("/v", "bad");
        until(&point.name(), || error(&renderer, "a").contains(&point.name())).await;
        renderer.shutdown().await;
        fs::remove_file(bench.path("told")).unwrap_or_default();
        fs::write(bench.path("loaded"), "broken").unwrap();

        bench.failpoints.disarm();
        let renderer = bench.start(&store);
        until(&format!("{point:?} is made good"), || {
            error(&renderer, "a").contains("old file is back") && bench.read("a") == "good"
        })
        .await;
        assert_eq!(fs::read_to_string(bench.path("loaded")).unwrap(), "good", "{point:?}");
        assert_eq!(told(&bench).last().map(String::as_str), Some("good"), "{point:?}");
        store.put("/v", "better");
        until("it is well", || status(&renderer, "a").ok && bench.read("a") == "better").await;
        renderer.shutdown().await;
    }
}
