//! Hostile values, templates without end, commands that hang: each is stopped, named, and nobody
//! else's trouble.

use crate::common::{Bench, Store, error, status, until, until_file};
use std::path::Path;
use std::time::{Duration, Instant};

#[tokio::test]
async fn stored_line_breaks_do_not_get_into_a_file() {
    let bench = Bench::new();
    bench.template("raw.tera", "a {{ getv(key='/raw') }}\n");
    bench.resource("raw", "");
    bench.template(
        "json.tera",
        "{% set j = getv(key='/json') | from_json %}\nserver {{ j.name }}\n",
    );
    bench.resource("json", "");
    let store = Store::with(&[("/raw", "x"), ("/json", "{\"name\":\"x\"}")]);
    let renderer = bench.start(&store);
    renderer.first_pass().await;
    assert_eq!(bench.read("json"), "\nserver x\n");
    store.put("/raw", "x\nuser root");
    store.put("/json", "{\"name\":\"x\\nuser root\"}");
    for (name, place) in [("raw", "raw.tera:1:3\n"), ("json", "json.tera:2:8\n")] {
        until("the guard has refused", || !error(&renderer, name).is_empty()).await;
        let error = error(&renderer, name);
        assert!(error.contains("line feed") && error.contains(place), "{error}");
        assert!(error.contains(&format!("key: /{name}")) && error.contains("^^^"), "{error}");
        assert!(!bench.read(name).contains("root"));
    }
    renderer.shutdown().await;
}

/// Waits for the error of a runaway template while another one goes on.
async fn stops(template: &str, message: &str) {
    let bench = Bench::new();
    bench.template("bad.tera", template);
    bench.resource("bad", "");
    bench.template("good.tera", "{{ getv(key='/v') }}");
    bench.resource("good", "");
    let store = Store::with(&[("/v", "1")]);
    let renderer = bench.start(&store);
    until_file(&bench, "good", "1").await;
    let begun = Instant::now();
    store.put("/v", "2");
    until_file(&bench, "good", "2").await;
    assert!(begun.elapsed() < Duration::from_secs(2), "held up for {:?}", begun.elapsed());
    until(message, || error(&renderer, "bad").contains(message)).await;
    assert!(!bench.out("bad").exists());
    renderer.shutdown().await;
}

const LOOPS: &str = "{% for a in range(end=100000) %}{% for b in range(end=100000) %}";

#[tokio::test]
async fn a_looping_template_is_stopped() {
    stops(&format!("{LOOPS}{{% endfor %}}{{% endfor %}}"), "is it looping?").await;
}

#[tokio::test]
async fn an_output_bomb_is_stopped() {
    let text = "x".repeat(4000);
    stops(&format!("{LOOPS}{text}{{% endfor %}}{{% endfor %}}"), "the output is larger than").await;
}

#[tokio::test]
async fn a_memory_bomb_is_stopped() {
    let text = "x".repeat(100_000);
    let bomb = format!("{{% set x %}}{LOOPS}{text}{{% endfor %}}{{% endfor %}}{{% endset %}}");
    stops(&bomb, "MiB of memory").await;
}

#[tokio::test]
async fn a_hanging_check_dies_with_its_group_and_holds_up_nobody() {
    let bench = Bench::new();
    let pid = bench.path("pid");
    bench.template("slow.tera", "x");
    let check = format!("sleep 77 & echo $! > {}; wait", pid.display());
    bench.resource("slow", &format!("check_cmd = \"{check}\"\ncheck_timeout = \"1s\""));
    bench.template("good.tera", "{{ getv(key='/v') }}");
    bench.resource("good", "");
    let store = Store::with(&[("/v", "1")]);
    let renderer = bench.start(&store);
    until("the check hangs", || pid.exists()).await;
    store.put("/v", "2");
    until_file(&bench, "good", "2").await;
    until("the check is given up", || error(&renderer, "slow").contains("did not end within 1 s"))
        .await;
    let first = std::fs::read_to_string(&pid).unwrap();
    until("its child is gone", || is_gone(first.trim())).await;
    assert!(!bench.out("slow").exists());
    renderer.shutdown().await;
    let last = std::fs::read_to_string(&pid).unwrap();
    until("nothing outlives the renderer", || is_gone(last.trim())).await;
}

fn is_gone(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
    stat.map_or(true, |stat| stat.contains(") Z "))
}

#[tokio::test]
async fn shutdown_kills_a_running_reload_and_keeps_the_debt() {
    let bench = Bench::new();
    let pid = bench.path("pid");
    bench.template("a.tera", "x");
    bench.resource("a", &format!("reload_cmd = \"echo $$ > {}; exec sleep 88\"", pid.display()));
    let store = Store::new();
    let renderer = bench.start(&store);
    until("the reload runs", || {
        std::fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n'))
    })
    .await;
    assert!(status(&renderer, "a").owed_since.is_some());
    let begun = Instant::now();
    renderer.shutdown().await;
    assert!(begun.elapsed() < Duration::from_secs(3));
    let process = std::fs::read_to_string(&pid).unwrap();
    until("the reload is dead", || is_gone(process.trim())).await;
    bench.resource("a", "reload_cmd = \"true\"");
    let renderer = bench.start(&store);
    renderer.first_pass().await;
    assert_eq!(status(&renderer, "a").reloads, 1);
    renderer.shutdown().await;
}
