//! A member on a real disk, through the waist alone.

use crate::base::{KeyPath, Rejected, Revision};
use crate::machine::{self, Command, Content, Listing, Outcome, Put};
use crate::node::{Handle, Node, Options, ReadMode, Unserved, WatchLost};
use crate::watch::Interest;
use bytes::Bytes;
use std::path::Path;
use std::time::Duration;

fn scratch() -> tempfile::TempDir {
    std::fs::create_dir_all("target").unwrap();
    tempfile::tempdir_in("target").unwrap()
}

fn start(data_dir: &Path) -> Node {
    let options = Options {
        data_dir: data_dir.into(),
        name: "n1".into(),
        client_urls: vec![],
        wal_segment_bytes: 256 * 1024,
    };
    Node::start(options).unwrap()
}

fn path(text: &str) -> KeyPath {
    KeyPath::clean(text.as_bytes()).unwrap()
}

fn set(key: &str, value: &str) -> Command {
    let content = Content::File(Bytes::copy_from_slice(value.as_bytes()));
    Command::Set(Put { path: path(key), content, ttl: None, refresh: false })
}

async fn get(handle: &Handle, key: &str) -> Option<String> {
    let mut state = handle.read(ReadMode::Linearizable).await.unwrap();
    let found = machine::get(&state.reader().unwrap(), &path(key), Listing::default()).unwrap();
    match found {
        Ok(node) => node.value.map(|value| String::from_utf8_lossy(&value).into_owned()),
        Err(Rejected::NotFound(_)) => None,
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart_of_either_kind() {
    let directory = scratch();
    for round in 0..4_u32 {
        let node = start(directory.path());
        let handle = node.handle();
        for earlier in 0..round {
            let value = get(&handle, &format!("/round/{earlier}")).await;
            assert_eq!(value.as_deref(), Some("done"), "round {round} lost {earlier}");
        }
        for n in 0..500 {
            handle.propose(vec![set("/n", &n.to_string())]).await.unwrap();
        }
        let answer = handle.propose(vec![set(&format!("/round/{round}"), "done")]).await.unwrap();
        assert!(matches!(answer.verdict.as_deref(), Ok([Outcome::Changed(_)])));
        assert_eq!(get(&handle, "/n").await.as_deref(), Some("499"));
        if round % 2 == 0 {
            node.stop();
        } else {
            drop(node);
        }
        assert_eq!(handle.propose(vec![set("/late", "")]).await, Err(Unserved::Stopping));
    }
}

#[tokio::test]
async fn a_watcher_sees_every_change_and_the_end() {
    let directory = scratch();
    let node = start(directory.path());
    let handle = node.handle();
    let first = handle.propose(vec![set("/w/0", "")]).await.unwrap().revision;
    let interest = Interest::Tree { path: path("/w"), recursive: true, hides_after: Revision(0) };
    let mut watcher = handle.watch(interest, Some(Revision(first.0 + 1))).unwrap();
    let writer = tokio::spawn({
        let handle = handle.clone();
        async move {
            for n in 1..=300 {
                handle.propose(vec![set(&format!("/w/{n}"), ""), set("/other", "")]).await.unwrap();
            }
        }
    });
    let mut seen = Vec::new();
    while seen.len() < 300 {
        let next = tokio::time::timeout(Duration::from_secs(10), watcher.next()).await.unwrap();
        seen.extend(next.unwrap().into_iter().map(|change| change.record.key.clone()));
    }
    writer.await.unwrap();
    let expected: Vec<_> = (1..=300).map(|n| Bytes::from(format!("/w/{n}"))).collect();
    assert_eq!(seen, expected);
    node.stop();
    assert!(matches!(watcher.next().await, Err(WatchLost::Stopping)));
}

#[tokio::test]
async fn many_proposers_share_flushes_and_get_their_own_answers() {
    let directory = scratch();
    let node = start(directory.path());
    let handle = node.handle();
    let one = |client: usize| {
        let handle = handle.clone();
        tokio::spawn(async move {
            let mut revisions = Vec::new();
            for n in 0..50 {
                let answer = handle.propose(vec![set(&format!("/c/{client}"), &n.to_string())]);
                revisions.push(answer.await.unwrap().revision);
            }
            revisions
        })
    };
    let clients: Vec<_> = (0..32).map(one).collect();
    let mut all = Vec::new();
    for client in clients {
        let revisions = client.await.unwrap();
        assert!(revisions.is_sorted(), "a client's own writes went back in time");
        all.extend(revisions);
    }
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 32 * 50, "two writes shared a revision");
}
