//! Where a resource may write, and that no file of it wakes others.

use crate::common::{Bench, Store, error, status, until, until_file};
use althing::render::Renderer;
use std::fs;
use std::os::unix::fs::symlink;

fn resource(bench: &Bench, name: &str, dest: &str, more: &str) {
    let text = format!("[template]\nsrc = \"{name}.tera\"\ndest = \"{dest}\"\n{more}\n");
    bench.resource_file(name, &text);
}

/// A stored value in `conf.d/` would be a resource, and so a command.
#[tokio::test]
async fn a_stored_value_does_not_become_a_resource() {
    let bench = Bench::new();
    let ran = bench.path("ran");
    let value = format!(
        "[template]\nsrc = 'a.tera'\ndest = '{}'\nreload_cmd = 'touch {}'\n",
        bench.out("victim").display(),
        ran.display()
    );
    symlink(bench.path("confdir"), bench.path("link")).unwrap();
    let dests = [
        ("a", bench.path("confdir/conf.d/gen.toml")),
        ("b", bench.path("link/conf.d/gen.toml")),
        ("c", bench.path("confdir/templates/a.tera")),
        ("d", bench.path("state/x")),
    ];
    for (name, dest) in &dests {
        bench.template(&format!("{name}.tera"), "{{ getv(key='/v') | multiline }}");
        resource(&bench, name, dest.to_str().unwrap(), "");
    }
    let renderer = bench.start(&Store::with(&[("/v", &value)]));
    renderer.first_pass().await;
    for (name, dest) in &dests {
        let told = error(&renderer, name);
        assert!(told.contains("the daemon's own"), "{name}: {told}");
        assert!(!dest.exists() || *name == "c", "{name}");
    }
    assert!(!ran.exists() && !bench.out("victim").exists());
    renderer.shutdown().await;
}

#[tokio::test]
async fn a_link_made_later_leads_nowhere_either() {
    let bench = Bench::new();
    bench.template("a.tera", "{{ getv(key='/v') }}");
    resource(&bench, "a", bench.out("sub/gen.toml").to_str().unwrap(), "make_dirs = true");
    let store = Store::with(&[("/v", "1")]);
    let renderer = bench.start(&store);
    until_file(&bench, "sub/gen.toml", "1").await;
    fs::remove_dir_all(bench.out("sub")).unwrap();
    symlink(bench.path("confdir/conf.d"), bench.out("sub")).unwrap();
    store.put("/v", "2");
    until("it is refused", || error(&renderer, "a").contains("the daemon's own")).await;
    assert!(!bench.path("confdir/conf.d/gen.toml").exists());
    renderer.shutdown().await;
}

#[tokio::test]
async fn one_file_in_two_spellings_has_one_resource() {
    let bench = Bench::new();
    symlink(bench.path("out"), bench.path("outlink")).unwrap();
    for name in ["a", "b", "c"] {
        bench.template(&format!("{name}.tera"), name);
    }
    resource(&bench, "a", bench.out("same").to_str().unwrap(), "");
    resource(&bench, "b", bench.path("outlink/same").to_str().unwrap(), "");
    resource(&bench, "c", &format!("{}/../out/same", bench.path("out").display()), "");
    let renderer = bench.start(&Store::new());
    renderer.first_pass().await;
    assert_eq!(bench.read("same"), "a");
    let told = error(&renderer, "b");
    assert!(told.contains("resource `a` writes ") && told.contains("/out/same already"), "{told}");
    let told = error(&renderer, "c");
    assert!(told.contains("no `.` and no `..`"), "{told}");
    renderer.shutdown().await;
}

/// `docs/start.md` renders into the confdir, where every file once woke every resource.
#[tokio::test]
async fn a_file_rendered_into_the_confdir_wakes_nobody() {
    let bench = Bench::new();
    bench.template("noisy.tera", "{{ getv(key='/noisy') }}");
    resource(&bench, "noisy", bench.path("confdir/noisy.txt").to_str().unwrap(), "");
    bench.template("other.tera", "{{ getv(key='/other') }}");
    bench.resource("other", "wait = { min = \"5m\", max = \"10m\" }");
    let store = Store::with(&[("/noisy", "0"), ("/other", "0")]);
    let renderer = bench.start(&store);
    renderer.first_pass().await;
    store.put("/other", "1");
    for value in ["1", "2", "3"] {
        store.put("/noisy", value);
        let is_there =
            || fs::read_to_string(bench.path("confdir/noisy.txt")).is_ok_and(|is| is == value);
        until("it is rendered", is_there).await;
    }
    // An event that does count comes behind those that must not.
    bench.template("last.tera", "x");
    bench.resource("last", "");
    let renders = status(&renderer, "other").renders;
    assert_eq!((renders, bench.read("other")), (1, "0".to_owned()));
    assert!(status(&renderer, "other").behind, "{:?}", renderer.status());
    until_file(&bench, "last", "x").await;
    renderer.shutdown().await;
}

#[tokio::test]
async fn a_missing_directory_says_what_makes_it() {
    let bench = Bench::new();
    bench.template("a.tera", "x");
    resource(&bench, "a", bench.out("none/a").to_str().unwrap(), "");
    let renderer = bench.start(&Store::new());
    renderer.first_pass().await;
    let told = error(&renderer, "a");
    assert!(told.contains("/none: make it, or set make_dirs = true"), "{told}");
    renderer.shutdown().await;
}

#[tokio::test]
async fn a_link_is_followed_when_asked() {
    let bench = Bench::new();
    bench.template("a.tera", "{{ getv(key='/v') }}");
    bench.resource("a", "follow_symlinks = true\nmake_dirs = true\nbackup = 2");
    symlink("link", bench.out("a")).unwrap();
    symlink("../real/a.cfg", bench.out("link")).unwrap();
    let store = Store::with(&[("/v", "1")]);
    let renderer = bench.start(&store);
    renderer.first_pass().await;
    assert_eq!(bench.read("a"), "1", "{:?}", renderer.status());
    for value in ["2", "3"] {
        store.put("/v", value);
        until_file(&bench, "a", value).await;
        until("it is well", || status(&renderer, "a").ok).await;
        assert_eq!(fs::read_to_string(bench.path("real/a.cfg")).unwrap(), value);
    }
    assert!(fs::symlink_metadata(bench.out("a")).unwrap().is_symlink());
    assert_eq!(fs::read_dir(bench.path("real")).unwrap().count(), 1, "nothing is left behind");
    fs::remove_file(bench.out("link")).unwrap();
    symlink(bench.path("confdir/conf.d/gen.toml"), bench.out("link")).unwrap();
    store.put("/v", "4");
    until("it is refused", || error(&renderer, "a").contains("the daemon's own")).await;
    renderer.shutdown().await;
}

#[tokio::test]
async fn a_file_that_cannot_be_parsed_is_not_installed() {
    let bench = Bench::new();
    for (name, more) in [("a", ""), ("secret", "sensitive = true")] {
        bench.template(&format!("{name}.tera"), "{\n  \"port\": {{ getv(key='/port') }}\n}\n");
        bench.resource(name, &format!("output_format = \"json\"\n{more}"));
    }
    let store = Store::with(&[("/port", "80")]);
    let renderer = bench.start(&store);
    renderer.first_pass().await;
    let good = bench.read("a");
    assert!(good.contains("80"), "{:?}", renderer.status());
    store.put("/port", "eighty,");
    until("it is refused", || error(&renderer, "secret").contains("cannot be parsed")).await;
    until("it is refused", || error(&renderer, "a").contains("is not JSON")).await;
    let told = error(&renderer, "a");
    assert!(told.contains("/out/a:2:") && told.contains("\"port\": eighty"), "{told}");
    let hidden = error(&renderer, "secret");
    assert!(hidden.contains("(line 2)") && !hidden.contains("eighty"), "{hidden}");
    assert_eq!(bench.read("a"), good);
    renderer.shutdown().await;
}

#[tokio::test]
async fn allowed_dirs_are_all_there_is() {
    let bench = Bench::new();
    fs::create_dir(bench.out("in")).unwrap();
    for (name, dest) in [("a", "in/a"), ("b", "b")] {
        bench.template(&format!("{name}.tera"), name);
        resource(&bench, name, bench.out(dest).to_str().unwrap(), "");
    }
    let mut options = bench.options();
    let settings = bench.out("in/althing.toml");
    options.keep_off(&bench.path("data"), Some(&settings), &[bench.out("in")]);
    bench.template("c.tera", "c");
    resource(&bench, "c", settings.to_str().unwrap(), "");
    let renderer = Renderer::start(options, Store::new()).unwrap();
    renderer.first_pass().await;
    assert_eq!((bench.read("in/a"), bench.read("b")), ("a".to_owned(), String::new()));
    let told = error(&renderer, "b");
    assert!(told.contains("is outside of allowed_dirs") && told.contains("add its dir"), "{told}");
    assert!(error(&renderer, "c").contains("the daemon's own"), "{:?}", renderer.status());
    renderer.shutdown().await;
}
