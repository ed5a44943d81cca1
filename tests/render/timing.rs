//! What waits, what it is seen to wait for, and that nothing is dropped.

use crate::common::{Bench, Store, status, until, until_file};
use althing::base::time::WallTime;
use althing::render::Waiting;
use althing::render::window::Window;
use std::time::{Duration, SystemTime};

/// A window that is shut now and opens some days later.
fn shut() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let now = WallTime(u64::try_from(since.as_nanos()).unwrap());
    let days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    let window = days.into_iter().map(|day| format!("{day} 00:00-01:00")).find(|window| {
        Window::parse(window).unwrap().opens_in(now) > Duration::from_secs(24 * 3_600)
    });
    format!("window = \"{}\"", window.unwrap())
}

#[tokio::test]
async fn outside_its_window_a_file_is_neither_replaced_nor_reloaded() {
    let bench = Bench::new();
    let reload = format!("reload_cmd = \"touch {}\"", bench.path("told").display());
    bench.template("a.tera", "{{ getv(key='/v') }}");
    bench.resource("a", &format!("{}\n{reload}", shut()));
    let store = Store::with(&[("/v", "1")]);
    let renderer = bench.start(&store);
    // What is not there replaces nothing.
    until_file(&bench, "a", "1").await;
    let waits = || status(&renderer, "a").waiting == Waiting::Window;
    until("its reload waits", || waits() && status(&renderer, "a").owed_since.is_some()).await;
    store.put("/v", "2");
    until("the change waits", || waits() && status(&renderer, "a").until.is_some()).await;
    renderer.shutdown().await;
    let renderer = bench.start(&store);
    renderer.in_place().await;
    until("it waits after a restart", || status(&renderer, "a").waiting == Waiting::Window).await;
    assert!(status(&renderer, "a").until.is_some() && status(&renderer, "a").owed_since.is_some());
    assert_eq!((bench.read("a"), bench.path("told").exists()), ("1".to_owned(), false));
    store.put("/v", "3");
    bench.resource("a", &format!("window = \"00:00-24:00\"\n{reload}"));
    until_file(&bench, "a", "3").await;
    until("it is told", || status(&renderer, "a").ok && bench.path("told").exists()).await;
    renderer.shutdown().await;
}

#[tokio::test]
async fn a_change_waits_for_its_hosts_turn_and_takes_the_newest_along() {
    let bench = Bench::new();
    bench.template("a.tera", "{{ getv(key='/v') }}");
    bench.resource("a", "splay = \"3s\"");
    let store = Store::with(&[("/v", "0")]);
    let renderer = bench.start(&store);
    until_file(&bench, "a", "0").await;
    renderer.first_pass().await;
    for value in 1..=20 {
        store.put("/v", &value.to_string());
        until("it has its turn", || {
            status(&renderer, "a").waiting == Waiting::Turn || bench.read("a") == value.to_string()
        })
        .await;
    }
    until_file(&bench, "a", "20").await;
    assert!(status(&renderer, "a").renders < 10, "{:?}", renderer.status());
    renderer.shutdown().await;
}

#[tokio::test]
async fn read_keys_are_seen_and_wake_nobody() {
    let bench = Bench::new();
    let text = "{{ getv(key='/v') }} {{ getv(key='/defaults/colour') }}";
    for (name, keys) in [("named", "keys = [\"/v\"]"), ("touched", "")] {
        bench.template(&format!("{name}.tera"), text);
        bench.resource(name, &format!("prefix = \"/p\"\nread_keys = [\"/defaults\"]\n{keys}"));
    }
    bench.template("only.tera", "{{ getv(key='/defaults/colour') }}");
    bench.resource("only", "prefix = \"/p\"\nread_keys = [\"/defaults\"]");
    let store = Store::with(&[("/p/v", "1"), ("/p/defaults/colour", "red"), ("/p/x", "")]);
    let renderer = bench.start(&store);
    for name in ["named", "touched"] {
        until_file(&bench, name, "1 red").await;
    }
    until_file(&bench, "only", "red").await;
    renderer.first_pass().await;
    store.put("/p/defaults/colour", "blue");
    store.put("/p/v", "2");
    for name in ["named", "touched"] {
        until_file(&bench, name, "2 blue").await;
        until("the pass is over", || status(&renderer, name).waiting == Waiting::Change).await;
        assert_eq!(status(&renderer, name).renders, 2, "{name}");
    }
    assert_eq!((bench.read("only"), status(&renderer, "only").renders), ("red".to_owned(), 1));
    renderer.shutdown().await;
}
