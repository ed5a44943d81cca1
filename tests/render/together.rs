//! Keys of one command reach a file together or not at all.

use crate::common::{Bench, until_file};
use althing::base::KeyPath;
use althing::daemon::source::NodeSource;
use althing::machine::command::{Command, Content, Put};
use althing::node::{Node, Options};
use althing::render::Renderer;
use std::sync::Arc;

fn set(key: &str, value: u32) -> Command {
    let content = Content::File(value.to_string().into());
    Command::Set(Put {
        path: KeyPath::clean(key.as_bytes()).unwrap(),
        content,
        ttl: None,
        refresh: false,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_written_together_are_never_seen_apart() {
    const WRITES: u32 = 300;
    let bench = Bench::new();
    bench.template(
        "a.tera",
        "{{ getv(key='/a', default='0') }} {{ getv(key='/z/b', default='0') }}",
    );
    bench.resource("a", "");
    let data_dir = bench.path("data");
    std::fs::create_dir(&data_dir).unwrap();
    let node = Node::start(Options {
        data_dir,
        name: "n1".into(),
        client_urls: Vec::new(),
        wal_segment_bytes: 1024 * 1024,
    });
    let node = node.unwrap();
    let handle = node.handle();
    let renderer = Renderer::start(bench.options(), Arc::new(NodeSource(handle.clone()))).unwrap();
    renderer.first_pass().await;
    let mut seen = std::collections::BTreeSet::new();
    for number in 1..=WRITES {
        let both = vec![set("/a", number), set("/z/b", number)];
        handle.propose(both).await.unwrap().verdict.unwrap();
        let text = bench.read("a");
        let (one, other) = text.split_once(' ').unwrap();
        assert_eq!(one, other, "seen apart");
        seen.insert(text);
    }
    until_file(&bench, "a", &format!("{WRITES} {WRITES}")).await;
    assert!(seen.len() > 2, "the file was not looked at while it changed: {seen:?}");
    renderer.shutdown().await;
    tokio::task::spawn_blocking(|| node.stop()).await.unwrap();
}
