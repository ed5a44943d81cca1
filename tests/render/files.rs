//! Templates and resources that change under a running renderer, and those that are wrong.

use crate::common::{Bench, Store, error, status, until, until_file};

#[tokio::test]
async fn changed_templates_and_resources_take_effect() {
    let bench = Bench::new();
    bench.template("a.tera", "one {{ getv(key='/v') }}");
    bench.resource("a", "");
    let store = Store::with(&[("/v", "x"), ("/p/v", "y")]);
    let renderer = bench.start(&store);
    renderer.first_pass().await;
    bench.template("a.tera", "two {{ getv(key='/v') }}");
    until_file(&bench, "a", "two x").await;
    bench.resource("a", "prefix = \"/p\"");
    until_file(&bench, "a", "two y").await;
    // As editors do it: a new file renamed over the old one.
    let (new, old) =
        (bench.path("confdir/templates/.a.swp"), bench.path("confdir/templates/a.tera"));
    std::fs::write(&new, "three {{ getv(key='/v') }}").unwrap();
    std::fs::rename(new, old).unwrap();
    until_file(&bench, "a", "three y").await;
    bench.template("b.tera", "b");
    bench.resource("b", "");
    until_file(&bench, "b", "b").await;
    std::fs::remove_file(bench.path("confdir/conf.d/b.toml")).unwrap();
    until("b is forgotten", || renderer.status().len() == 1).await;
    assert_eq!(bench.read("b"), "b");
    renderer.shutdown().await;
}

#[tokio::test]
async fn a_template_behind_a_swapped_link_takes_effect() {
    let bench = Bench::new();
    for version in ["v1", "v2"] {
        let dir = bench.path("confdir/templates").join(version);
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("a.tera"), version).unwrap();
    }
    let templates = bench.path("confdir/templates");
    std::os::unix::fs::symlink("v1", templates.join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/a.tera", templates.join("a.tera")).unwrap();
    bench.resource("a", "");
    let renderer = bench.start(&Store::new());
    renderer.first_pass().await;
    assert_eq!(bench.read("a"), "v1");
    std::os::unix::fs::symlink("v2", templates.join("..tmp")).unwrap();
    std::fs::rename(templates.join("..tmp"), templates.join("..data")).unwrap();
    until_file(&bench, "a", "v2").await;
    renderer.shutdown().await;
}

#[tokio::test]
async fn the_last_good_version_of_a_bad_resource_goes_on() {
    let bench = Bench::new();
    bench.template("a.tera", "{{ getv(key='/v') }}");
    bench.resource("a", "");
    bench.resource("never", "relaod_cmd = \"x\"");
    let store = Store::with(&[("/v", "1")]);
    let renderer = bench.start(&store);
    renderer.first_pass().await;
    let never = error(&renderer, "never");
    assert!(
        never.contains("never.toml:4:1") && never.contains("did you mean `reload_cmd`"),
        "{never}"
    );
    assert!(status(&renderer, "a").ok);
    bench.resource("a", "prefx = \"/p\"");
    until("the mistake is told", || error(&renderer, "a").contains("did you mean `prefix`")).await;
    store.put("/v", "2");
    until_file(&bench, "a", "2").await;
    bench.resource("a", "prefix = \"/\"");
    until("the mistake is gone", || status(&renderer, "a").ok).await;
    renderer.shutdown().await;
}

#[tokio::test]
async fn template_errors_name_their_place() {
    let bench = Bench::new();
    bench.template("a.tera", "x\n  {{ getv(key='/none') }}\n");
    bench.resource("a", "");
    bench.template("b.tera", "{% if %}");
    bench.resource("b", "");
    bench.resource("c", "");
    let store = Store::new();
    let renderer = bench.start(&store);
    renderer.first_pass().await;
    let a = error(&renderer, "a");
    assert!(a.contains("a.tera:2:6\n") && a.contains("^^^") && a.contains("key: /none"), "{a}");
    assert!(a.contains("help: set it, or give a default"), "{a}");
    assert!(error(&renderer, "b").contains("b.tera:1:"), "{}", error(&renderer, "b"));
    assert!(error(&renderer, "c").contains("cannot read template"), "{}", error(&renderer, "c"));
    store.put("/none", "now");
    until_file(&bench, "a", "x\n  now\n").await;
    bench.template("b.tera", "fine");
    until_file(&bench, "b", "fine").await;
    renderer.shutdown().await;
}

#[tokio::test]
async fn a_missing_directory_is_retried() {
    let bench = Bench::new();
    bench.template("a.tera", "x");
    let dest = bench.out("later/a");
    let text = format!("[template]\nsrc = \"a.tera\"\ndest = \"{}\"\n", dest.display());
    bench.resource_file("a", &text);
    let renderer = bench.start(&Store::new());
    renderer.first_pass().await;
    assert!(error(&renderer, "a").contains("later"), "{:?}", renderer.status());
    std::fs::create_dir(bench.out("later")).unwrap();
    until("the file is there", || dest.exists()).await;
    renderer.shutdown().await;
}

#[tokio::test]
async fn reload_all_reads_everything_again() {
    let bench = Bench::new();
    let outside = bench.path("outside.tera");
    std::fs::write(&outside, "one").unwrap();
    std::os::unix::fs::symlink(&outside, bench.path("confdir/templates/a.tera")).unwrap();
    bench.resource("a", "");
    let renderer = bench.start(&Store::new());
    renderer.first_pass().await;
    std::fs::write(&outside, "two").unwrap();
    renderer.reload_all().await;
    until_file(&bench, "a", "two").await;
    renderer.shutdown().await;
}

#[tokio::test]
async fn two_resources_do_not_fight_over_a_file() {
    let bench = Bench::new();
    bench.template("a.tera", "a");
    bench.template("b.tera", "b");
    bench.resource("a", "");
    let text = std::fs::read_to_string(bench.path("confdir/conf.d/a.toml")).unwrap();
    bench.resource_file("b", &text.replace("a.tera", "b.tera"));
    let renderer = bench.start(&Store::new());
    renderer.first_pass().await;
    assert_eq!(bench.read("a"), "a");
    assert!(error(&renderer, "b").contains("resource `a` writes"), "{:?}", renderer.status());
    assert!(status(&renderer, "a").ok);
    renderer.shutdown().await;
}
