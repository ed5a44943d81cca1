//! What the client port offers beside keys: members, machines, statistics, metrics, the front
//! page, and the one answer of the keys API that only a long history brings about.
//!
//! Each test is a few requests as curl would send them; the corpus (`conformance.rs`) holds what
//! real etcd answers to the same ones.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use althing::api::{Doors, Policy, service};
use althing::base::{KeyPath, Revision};
use althing::machine::{Command, Content, Put};
use althing::node::{Handle, Node, Options};
use althing::sys::listen::{Stopper, bind, serve};
use althing::sys::pulse::Pulse;
use common::{Daemon, Response, http, program, scratch};
use serde_json::Value;
use std::io::Write as _;
use std::process::{Command as Program, Stdio};
use std::sync::Arc;

fn ask(daemon: &Daemon, method: &str, path: &str) -> Response {
    http(method, &format!("{}{path}", daemon.url()), "")
}

#[track_caller]
fn text(daemon: &Daemon, path: &str) -> String {
    let answer = ask(daemon, "GET", path);
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.body
}

#[test]
fn clients_of_any_age_find_the_member() {
    let daemon = Daemon::start_with("doors-members", &["--name", "n1"]);
    assert_eq!(text(&daemon, "/v2/machines"), daemon.url());
    assert_eq!(text(&daemon, "/v2/leader"), daemon.url());
    let members = ask(&daemon, "GET", "/v2/members").json();
    let member = &members["members"][0];
    assert_eq!((&member["name"], &member["clientURLs"][0]), (&"n1".into(), &daemon.url().into()));
    assert_eq!(&ask(&daemon, "GET", "/v2/members/leader").json(), member);
    // etcd 0.4 kept them as keys.
    let machines = ask(&daemon, "GET", "/v2/keys/_etcd/machines").json();
    let machine = &machines["node"]["nodes"][0];
    assert_eq!(machine["key"], "/_etcd/machines/n1");
    let value = machine["value"].as_str().unwrap();
    assert!(value.starts_with("etcd=http%3A//127.0.0.1%3A"), "{value}");
    let found = ask(&daemon, "GET", "/v2/keys/_etcd/machines/n1").json();
    assert_eq!(&found["node"], machine);
    assert_eq!(ask(&daemon, "GET", "/v2/keys/_etcd/machines/n2").status, 404);
    assert_eq!(ask(&daemon, "GET", "/v2/keys/_etcd/other").status, 404);
}

/// One member stays one: every change is refused, and nonsense is told first.
#[test]
fn members_cannot_be_changed_yet() {
    let daemon = Daemon::start("doors-change");
    let id = ask(&daemon, "GET", "/v2/members").json()["members"][0]["id"].clone();
    let own = format!("/v2/members/{}", id.as_str().unwrap());
    assert_eq!(ask(&daemon, "DELETE", &own).status, 500);
    assert_eq!(ask(&daemon, "DELETE", "/v2/members/1").status, 404);
    // A body that is not JSON is refused by its type.
    let url = format!("{}/v2/members", daemon.url());
    assert_eq!(http("POST", &url, "peerURLs=http://127.0.0.1:9").status, 415);
    assert_eq!(ask(&daemon, "HEAD", "/v2/members").status, 405);
    assert_eq!(ask(&daemon, "GET", &own).status, 404);
    let Some(curl) = program("curl") else { return };
    let post = |body: &str| {
        let mut command = Program::new(&curl);
        command.args(["-s", "-w", "%{http_code}", "-H", "Content-Type: application/json"]);
        let output = command.args(["-d", body, &url]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(post("{\"peerURLs\":[]}"), "{\"message\":\"no valid URLs given\"}400");
    assert!(post("{\"peerURLs\":[\"http://127.0.0.1:9\"]}").ends_with("500"));
}

/// As Go's server does, in letters that scripts look for.
#[test]
fn heads_are_written_and_refused_as_gos() {
    let daemon = Daemon::start("doors-heads");
    let answer = ask(&daemon, "GET", "/v2/keys/");
    let names: Vec<&str> = answer.headers.iter().map(|(name, _)| name.as_str()).collect();
    for name in ["Content-Type", "X-Etcd-Index", "X-Raft-Term", "X-Etcd-Cluster-Id"] {
        assert!(names.contains(&name), "{names:?}");
    }
    for (method, path) in [("GET", "/v2/keys/%zz"), ("PUT", "/%4"), ("OPTIONS", "/x%")] {
        let answer = ask(&daemon, method, path);
        assert_eq!((answer.status, answer.body.as_str()), (400, "400 Bad Request"), "{path}");
        assert_eq!(answer.header("X-Content-Type-Options"), None);
    }
    assert_eq!(ask(&daemon, "OPTIONS", "/x").status, 200);
    for path in ["/version/", "/health/"] {
        assert_eq!(ask(&daemon, "GET", path).status, 404, "{path}");
    }
}

#[test]
fn statistics_are_this_members() {
    let daemon = Daemon::start_with("doors-stats", &["--name", "n1"]);
    let of_self = ask(&daemon, "GET", "/v2/stats/self").json();
    assert_eq!((&of_self["name"], &of_self["state"]), (&"n1".into(), &"StateLeader".into()));
    assert_eq!(of_self["leaderInfo"]["leader"], of_self["id"]);
    assert_eq!(ask(&daemon, "GET", "/v2/stats/leader").json()["leader"], of_self["id"]);
    for (method, path, status) in [
        ("HEAD", "/v2/stats/self", 405),
        ("GET", "/v2/stats/other", 404),
        ("GET", "/v2/stats/self/", 404),
        ("PUT", "/v2/machines", 405),
        ("GET", "/v2/machines/", 404),
        ("GET", "/v2/peers", 404),
        ("GET", "/debug/vars", 404),
    ] {
        assert_eq!(ask(&daemon, method, path).status, status, "{method} {path}");
    }
}

#[test]
fn the_front_page_says_what_to_try() {
    let daemon = Daemon::start("doors-front");
    let page = text(&daemon, "/");
    assert!(page.contains("althing") && page.contains("curl -XPUT http://127.0.0.1:"), "{page}");
    assert_eq!(ask(&daemon, "HEAD", "/").status, 200);
    assert_eq!(ask(&daemon, "POST", "/").status, 405);
    let version = ask(&daemon, "GET", "/version").json();
    let server = version["etcdserver"].as_str().unwrap().to_owned();
    assert!(server.starts_with("3.5.") && server.split('.').all(|part| part.parse::<u8>().is_ok()));
}

/// The number behind a sample's name and labels.
#[track_caller]
fn sample(page: &str, name: &str) -> f64 {
    let found = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {name} in\n{page}")).parse().unwrap()
}

#[test]
fn metrics_move_with_what_happens() {
    let daemon = Daemon::start("doors-metrics");
    let names = [
        "althing_http_requests_total{code=\"201\",method=\"PUT\"}",
        "etcd_debugging_store_writes_total{action=\"set\"}",
        "etcd_debugging_store_writes_failed_total{action=\"delete\"}",
        "etcd_debugging_store_reads_total{action=\"get\"}",
        "etcd_disk_wal_fsync_duration_seconds_count",
    ];
    for number in 0..3 {
        let url = format!("{}/v2/keys/{number}", daemon.url());
        assert_eq!(http("PUT", &url, "value=1").status, 201);
        assert_eq!(http("GET", &url, "").status, 200);
    }
    assert_eq!(ask(&daemon, "DELETE", "/v2/keys/none").status, 404);
    let answer = ask(&daemon, "GET", "/metrics");
    let kind = answer.header("Content-Type").unwrap().to_owned();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    let page = answer.body;
    let [puts, sets, refused, gets, flushes] = names.map(|name| sample(&page, name));
    assert_eq!((puts, sets, refused, gets), (3.0, 3.0, 1.0, 3.0));
    assert!(flushes >= 4.0, "{flushes} flushes for four writes");
    assert!(sample(&page, "process_resident_memory_bytes") > 1e6);
    assert_eq!(sample(&page, "etcd_server_proposals_pending"), 0.0);
    assert!(!page.contains("/v2/keys"), "a key is told");
    let later = text(&daemon, "/metrics");
    assert!(sample(&later, names[0]) >= 3.0);
    let Some(promtool) = program("promtool") else { return };
    let mut check = Program::new(promtool);
    check.args(["check", "metrics"]).stdin(Stdio::piped());
    let mut check = check.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    check.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let said = check.wait_with_output().unwrap();
    let said_text = String::from_utf8_lossy(&said.stderr);
    // 3 = it reads the page and dislikes a name; some are etcd's.
    assert!([Some(0), Some(3)].contains(&said.status.code()), "{said_text}");
    assert!(!said_text.contains("althing_"), "{said_text}");
}

/// A body that is no form stores the empty string, as etcd's does, and says so nowhere.
#[test]
fn a_body_of_another_type_is_not_read() {
    let Some(curl) = program("curl") else { return };
    let daemon = Daemon::start("doors-bodies");
    let url = format!("{}/v2/keys/b", daemon.url());
    for arguments in [
        ["-H", "Content-Type: application/json", "-d", "{\"value\":\"x\"}"],
        ["-F", "value=x", "-F", "ttl=5"],
    ] {
        let mut command = Program::new(&curl);
        let output = command.args(["-s", "-XPUT"]).args(arguments).arg(&url).output().unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&answer["node"]["value"], &answer["node"]["ttl"]), (&"".into(), &Value::Null));
    }
    let answer = http("DELETE", &format!("{}/v2/keys/?prevValue=x", daemon.url()), "");
    assert_eq!((answer.status, answer.json()["errorCode"].as_u64()), (403, Some(102)));
    assert!(answer.json().get("cause").is_none(), "{answer:?}");
}

async fn set(node: &Handle, value: &'static str) -> Revision {
    let path = KeyPath::clean(b"/k").unwrap();
    let content = Content::File(value.into());
    let put = Put { path, content, ttl: None, refresh: false };
    node.propose(vec![Command::Set(put)]).await.unwrap().revision
}

/// Asks from a thread of its own, which the runtime does not wait for.
async fn fetch(url: String) -> Response {
    tokio::task::spawn_blocking(move || http("GET", &url, "")).await.unwrap()
}

/// `EcodeEventIndexCleared`: history is compacted by command here, as writing 256 MiB of it would
/// take too long.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_behind_history_is_told_where_history_begins() {
    let home = scratch("doors-cleared");
    let options = Options {
        data_dir: home.path().to_owned(),
        name: "n1".to_owned(),
        client_urls: vec![],
        wal_segment_bytes: 1024 * 1024,
    };
    let node = Node::start(options).unwrap();
    let handle = node.handle();
    let (stopper, stop) = Stopper::new();
    let doors = Doors::new(handle.clone(), Arc::new(|| None), stop.clone(), false);
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}/v2/keys/k?wait=true&waitIndex=", listener.local_addr().unwrap());
    let service = service(Arc::new(doors), Policy::default());
    let doorway = (listener, service, Pulse::default());
    let serving = tokio::spawn(serve(vec![doorway], stop));

    let first = set(&handle, "1").await;
    let second = set(&handle, "2").await;
    let third = set(&handle, "3").await;
    handle.propose(vec![Command::Compact { upto: second }]).await.unwrap();
    let answer = fetch(format!("{url}{first}")).await;
    assert_eq!(answer.status, 400);
    assert_eq!(
        answer.body,
        format!(
            "{{\"errorCode\":401,\"message\":\"The event in requested index is outdated and \
             cleared\",\"cause\":\"the requested history has been cleared [{second}/{first}]\",\
             \"index\":{third}}}\n"
        )
    );
    assert_eq!(answer.header("X-Etcd-Index"), Some(third.to_string().as_str()));
    let event = fetch(format!("{url}{second}")).await;
    assert_eq!(event.json()["node"]["value"], "2");
    stopper.stop();
    serving.await.unwrap();
    node.stop();
}
