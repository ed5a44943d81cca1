//! `templates/*`: the templates this project ships, with their sample keys. Each renders to the
//! expected bytes, and its own check command, with the real program, accepts them.

use crate::common::{Bench, Store, status};
use crate::harness::program;
use std::path::{Path, PathBuf};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("templates").join(name)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The resource with its destination moved here, and nobody to reload; without its check when the
/// program for it is missing.
fn resource(bench: &Bench, text: &str, is_checked: bool) -> String {
    let mut resource: toml::Table = text.parse().unwrap();
    let template = resource["template"].as_table_mut().unwrap();
    template.insert("dest".to_owned(), bench.out("file").display().to_string().into());
    template.remove("reload_cmd");
    if !is_checked {
        template.remove("check_cmd");
    }
    resource.to_string()
}

/// Renders the samples of `templates/NAME`, each from a store of its own.
async fn samples_are_accepted(name: &str, programs: &[&str]) {
    let folder = folder(name);
    let text = read(&folder.join(format!("{name}.toml")));
    assert!(text.contains("# Keys: /"), "{name}.toml does not say which keys it reads");
    let src = text.lines().find_map(|line| line.strip_prefix("src = ")).unwrap();
    let src = src.trim_matches('"');
    let is_checked = programs.iter().all(|name| program(name).is_some());
    for keys in ["keys", "keys-empty"] {
        let bench = Bench::new();
        bench.template(src, &read(&folder.join(src)));
        bench.resource_file(name, &resource(&bench, &text, is_checked));
        let store = Store::new();
        store.become_json(&read(&folder.join(format!("{keys}.json"))));
        let renderer = bench.start(&store);
        renderer.first_pass().await;
        let status = status(&renderer, name);
        assert!(status.ok, "{name}, {keys}: {:?}", status.error);
        let expected = read(&folder.join(format!("{keys}.expected")));
        assert_eq!(bench.read("file"), expected, "{name}, {keys}");
        renderer.shutdown().await;
    }
}

/// Sets one key of a sample to `value` and returns what the renderer has against it.
async fn refusal(name: &str, key: &str, value: &str) -> String {
    let folder = folder(name);
    let text = read(&folder.join(format!("{name}.toml")));
    let src = text.lines().find_map(|line| line.strip_prefix("src = ")).unwrap();
    let src = src.trim_matches('"');
    let bench = Bench::new();
    bench.template(src, &read(&folder.join(src)));
    bench.resource_file(name, &resource(&bench, &text, true));
    let store = Store::with(&[(key, value)]);
    let renderer = bench.start(&store);
    renderer.first_pass().await;
    let error = status(&renderer, name).error;
    assert!(!bench.out("file").exists(), "{name}: {key} = {value} reached the file");
    renderer.shutdown().await;
    error.unwrap_or_else(|| panic!("{name}: {key} = {value} is accepted"))
}

#[tokio::test]
async fn haproxy() {
    samples_are_accepted("haproxy", &["haproxy"]).await;
}

#[tokio::test]
async fn nginx() {
    samples_are_accepted("nginx", &["nginx"]).await;
}

#[tokio::test]
async fn prometheus() {
    samples_are_accepted("prometheus", &["promtool"]).await;
}

#[tokio::test]
async fn hosts() {
    samples_are_accepted("hosts", &[]).await;
    if program("python3").is_some() {
        let expected = folder("hosts").join("keys.expected");
        let mut python = std::process::Command::new("python3");
        python.args(["-c", READ_HOSTS]).arg(expected);
        assert!(python.status().unwrap().success(), "not a hosts file");
    }
}

/// Every line but a comment begins with an address and names somebody.
const READ_HOSTS: &str = "
import ipaddress, sys
for line in open(sys.argv[1]):
    words = line.split('#')[0].split()
    if words:
        ipaddress.ip_address(words[0])
        assert len(words) > 1, line
";

#[tokio::test]
async fn environment() {
    samples_are_accepted("environment", &[]).await;
    if program("python3").is_some() {
        let folder = folder("environment");
        let mut python = std::process::Command::new("python3");
        python.args(["-c", READ_ENVIRONMENT]);
        python.args([folder.join("keys.expected"), folder.join("keys.json")]);
        assert!(python.status().unwrap().success(), "the shell reads other values");
    }
}

/// A POSIX shell, which shares the quoting, finds the values of the store.
const READ_ENVIRONMENT: &str = "
import json, subprocess, sys
want = {k.split('/')[-1]: v for k, v in json.load(open(sys.argv[2])).items()}
command = ['env', '-i', '/bin/sh', '-c', 'set -a; . \"$1\"; exec env -0', 'x', sys.argv[1]]
out = subprocess.run(command, capture_output=True).stdout.decode()
got = dict(line.split('=', 1) for line in out.split('\\0') if '=' in line)
wrong = {k: (v, got.get(k)) for k, v in want.items() if got.get(k) != v}
sys.exit(f'differs: {wrong}' if wrong else 0)
";

#[tokio::test]
async fn what_registers_nonsense_does_not_reach_the_file() {
    let error = refusal("hosts", "/hosts/alpha", r#"{"addresses": ["10.5.0.300"]}"#).await;
    assert!(error.contains("10.5.0.300"), "{error}");
    let error = refusal("environment", "/env/app/NOT-A-NAME", "x").await;
    assert!(error.contains("NOT-A-NAME"), "{error}");
    let error = refusal("environment", "/env/app/NAME", "two\nlines").await;
    assert!(error.contains("/env/app/NAME"), "{error}");
    let error = refusal("nginx", "/services/web/a", r#"{"host": "10.0.0.1; }", "port": 80}"#).await;
    assert!(error.contains("10.0.0.1; }"), "{error}");
}
