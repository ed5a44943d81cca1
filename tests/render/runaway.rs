//! Hostile values and templates without end: each is stopped, named, and nobody else's trouble.

use crate::common::{Bench, Store, error, until, until_file};
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

#[tokio::test]
async fn no_filter_lets_a_line_break_through() {
    let bench = Bench::new();
    let filters = [
        "upper",
        "trim",
        "replace(from='x', to='y')",
        "default(value='z')",
        "env_quote",
        "shell_quote",
        "escape",
        "indent",
        "title",
        "b64encode | b64decode",
        "split(pat=',') | join(sep='-')",
    ];
    for (at, filter) in filters.iter().enumerate() {
        let name = format!("f{at}");
        let text = format!("<{{{{ getv(key='/v') | {filter} }}}}>");
        bench.template(&format!("{name}.tera"), &text);
        bench.resource(&name, "");
    }
    for (name, text) in [
        ("lines", "{% for l in getv(key='/json') | from_json %}{{ l }}{% endfor %}"),
        ("key", "{% set j = getv(key='/map') | from_json %}{{ j | keys | join(sep=',') }}"),
        ("set", "{% set x %}{{ getv(key='/v') }}{% endset %}{{ x }}"),
        ("glued", "{{ 'a' ~ getv(key='/v') ~ 'b' }}"),
    ] {
        bench.template(&format!("{name}.tera"), text);
        bench.resource(name, "");
    }
    bench.template("end.tera", "<{{ getv(key='/end') | trim }}>");
    bench.resource("end", "");
    let store = Store::with(&[
        ("/v", "a\nevil b"),
        ("/json", "[\"a\\nevil b\"]"),
        ("/map", "{\"a\\nevil b\":1}"),
        ("/end", "trimmed\n"),
    ]);
    let renderer = bench.start(&store);
    renderer.first_pass().await;
    for status in renderer.status().iter().filter(|status| status.name != "end") {
        let told = status.error.clone().unwrap_or_default();
        assert!(
            told.contains("line feed"),
            "{}: {told:?} {:?}",
            status.name,
            bench.read(&status.name)
        );
        assert!(!bench.out(&status.name).exists());
    }
    assert_eq!(bench.read("end"), "<trimmed>", "a line end may be trimmed off");
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
