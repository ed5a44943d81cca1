//! `tests/data/render/*`: keys and template in, exact bytes out, accepted by the real program.

use crate::common::{Bench, Store, have, until_file};
use std::path::{Path, PathBuf};

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/render").join(name)
}

/// The resource of a case, its destination moved here, without what names this host's users and
/// services.
fn resource(bench: &Bench, dir: &Path) -> String {
    let text = std::fs::read_to_string(dir.join("resource.toml")).unwrap();
    let foreign = ["dest", "owner", "group", "check_cmd", "reload_cmd"];
    let kept = text.lines().filter(|line| !foreign.iter().any(|key| line.starts_with(key)));
    let dest = bench.out("file");
    format!("{}\ndest = \"{}\"\n", kept.collect::<Vec<_>>().join("\n"), dest.display())
}

async fn run(name: &str, programs: &[&str]) {
    let dir = case(name);
    let read = |file: &str| std::fs::read_to_string(dir.join(file));
    let bench = Bench::new();
    let resource = resource(&bench, &dir);
    let src = resource.lines().find_map(|line| line.strip_prefix("src = ")).unwrap();
    bench.template(src.trim_matches('"'), &read("template.tera").unwrap());
    bench.resource_file("case", &resource);
    let store = Store::new();
    store.become_json(&read("keys.json").unwrap());
    let renderer = bench.start(&store);
    renderer.first_pass().await;
    assert_eq!(bench.read("file"), read("expected").unwrap(), "{:?}", renderer.status());
    let once = renderer.render_once("case").await.unwrap();
    assert_eq!(String::from_utf8(once).unwrap(), read("expected").unwrap());
    if programs.iter().all(|program| have(program)) {
        let check = std::process::Command::new("/bin/sh")
            .args([dir.join("check.sh"), bench.out("file")])
            .status();
        assert!(check.unwrap().success(), "{name}: the real program refuses the file");
    }
    if let Ok(keys) = read("keys2.json") {
        store.become_json(&keys);
        until_file(&bench, "file", &read("expected2").unwrap()).await;
    }
    renderer.shutdown().await;
}

#[tokio::test]
async fn haproxy_vhosts() {
    run("01-haproxy-vhosts", &["haproxy"]).await;
}

#[tokio::test]
async fn nginx_upstreams() {
    run("03-nginx-upstreams", &["nginx"]).await;
}

#[tokio::test]
async fn prometheus_file_sd() {
    run("05-prometheus-file-sd", &["promtool", "jq"]).await;
}

#[tokio::test]
async fn authorized_keys() {
    run("08-authorized-keys", &["ssh-keygen"]).await;
}

#[tokio::test]
async fn systemd_environment_file() {
    run("10-systemd-envfile", &["python3"]).await;
}

#[tokio::test]
async fn hosts_file() {
    run("13-etc-hosts", &["python3"]).await;
}
