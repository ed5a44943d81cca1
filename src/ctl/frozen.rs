//! The keys at one revision, for verbs that render without a daemon of their own.
//!
//! How data passes: one recursive read of the v2 tree, or a JSON file of keys and values ->
//! `Frozen`, a source that never changes -> the renderer.
//!
//! Invariants:
//! * All that is rendered from one `Frozen` is from one revision.
//! * A file never becomes a request: with `--data` nobody is asked over the network.
//!
//! Deliberately not here: hidden keys (their name starts with `_`): v2 leaves them out of a
//! listing, so templates see them in the daemon only.

use crate::base::diagnostic::Diagnostic;
use crate::base::id::Revision;
use crate::base::limits;
use crate::base::path::KeyPath;
use crate::base::range::KeyRange;
use crate::base::report::{Exit, Report};
use crate::ctl::client::{Client, Connection};
use crate::ctl::keys::{self, Node, Reply};
use crate::render::source::{Answer, Item, Snapshot, Source, SourceError};
use crate::sys::http::Request;
use serde_json::Value;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a verb that renders finds the keys.
#[derive(Clone, Debug, clap::Args)]
pub struct KeySource {
    /// Take the keys from this JSON file, {"/key": "value"}, instead of a server; - is standard
    /// input
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Where to ask.
    #[command(flatten)]
    pub connection: Connection,
}

impl KeySource {
    /// Reads all keys.
    ///
    /// # Errors
    /// When no server answers, or the file is not one of keys and values.
    pub async fn freeze(&self) -> Result<Frozen, Report> {
        match &self.data {
            Some(file) => Frozen::read(file),
            None => Frozen::fetch(&self.connection.client()?).await,
        }
    }
}

/// The store at one revision, for ever.
#[derive(Clone, Debug)]
pub struct Frozen {
    revision: Revision,
    /// In key order.
    items: Arc<[Item]>,
}

impl Frozen {
    /// The whole v2 tree of a cluster.
    ///
    /// # Errors
    /// When nobody answers, or not with a tree.
    pub async fn fetch(client: &Client) -> Result<Self, Report> {
        let query: [(&str, &[u8]); 2] = [("recursive", b"true"), ("quorum", b"true")];
        let request = Request::get(keys::path("/", &query));
        let (answer, reply) = client.json::<Reply>(&request).await?;
        let index = answer.headers.get("x-etcd-index").and_then(|value| value.to_str().ok());
        let Some(index) = index.and_then(|text| text.parse().ok()) else {
            let error = "the server does not say at which index its answer is";
            return Err(Report::new(Exit::Failed, error)
                .help("is it an althing or etcd server with the v2 API on?"));
        };
        Ok(Self { revision: Revision(index), items: items(reply.node).into() })
    }

    /// The revision all its keys are from.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Every key, in order.
    #[must_use]
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// The keys of a JSON file; their revision is 1.
    fn read(file: &Path) -> Result<Self, Report> {
        let shown = file.display().to_string();
        let mut text = String::new();
        read_bounded(file, &mut text).map_err(|error| {
            Report::new(Exit::Data, format!("cannot read the keys in {shown}"))
                .cause(error.to_string())
                .help("name a JSON file of keys and values: --data FILE")
        })?;
        Ok(Self { revision: Revision(1), items: parse(&shown, &text)?.into() })
    }
}

fn read_bounded(file: &Path, text: &mut String) -> std::io::Result<()> {
    let limit = limits::DATA_FILE_BYTES_MAX;
    let read = if file == Path::new("-") {
        std::io::stdin().lock().take(limit + 1).read_to_string(text)?
    } else {
        std::fs::File::open(file)?.take(limit + 1).read_to_string(text)?
    };
    if read as u64 > limit {
        let message = format!("larger than {limit} bytes");
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, message));
    }
    Ok(())
}

/// The files of `{"/key": "value"}`, in key order.
fn parse(file: &str, text: &str) -> Result<Vec<Item>, Report> {
    let help = "write one object of keys and values: {\"/services/web/a\": \"10.0.0.1:80\"}";
    let refused = |diagnostic: Diagnostic| {
        let shown = diagnostic.help(help).to_string();
        Report::new(Exit::Data, shown.strip_prefix("error: ").unwrap_or(&shown))
    };
    let json: serde_json::Map<String, Value> = serde_json::from_str(text).map_err(|error| {
        let line_at: usize =
            text.split_inclusive('\n').take(error.line().max(1) - 1).map(str::len).sum();
        let at = line_at + error.column().saturating_sub(1);
        refused(Diagnostic::new(file, format!("not a JSON object: {error}")).at(text, &(at..at)))
    })?;
    let mut items = Vec::new();
    for (key, value) in &json {
        let wrong = |why: String| refused(Diagnostic::new(file, format!("`{key}`: {why}")));
        let path = KeyPath::clean(key.as_bytes()).map_err(|error| wrong(error.to_string()))?;
        let value = value.as_str().ok_or_else(|| wrong("its value is not a string".to_owned()))?;
        items.push(Item {
            key: path.key().clone(),
            value: value.to_owned().into(),
            mod_revision: Revision(1),
            ttl_seconds: None,
        });
    }
    items.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(items)
}

/// The files of a tree, in key order.
fn items(root: Node) -> Vec<Item> {
    let (mut items, mut waiting) = (Vec::new(), vec![root]);
    while let Some(node) = waiting.pop() {
        waiting.extend(node.nodes);
        if let Some(value) = node.value {
            items.push(Item {
                key: node.key.into(),
                value: value.into(),
                mod_revision: Revision(node.modified_index),
                ttl_seconds: node.ttl.and_then(|ttl| u64::try_from(ttl).ok()),
            });
        }
    }
    items.sort_by(|a, b| a.key.cmp(&b.key));
    items
}

impl Source for Frozen {
    fn snapshot(&self, at_least: Revision) -> Answer<'_, Box<dyn Snapshot>> {
        let snapshot: Result<Box<dyn Snapshot>, SourceError> = if at_least > self.revision {
            let behind = format!("it is at {}, and this host has seen {at_least}", self.revision);
            Err(SourceError::Unavailable(behind))
        } else {
            Ok(Box::new(self.clone()))
        };
        Box::pin(std::future::ready(snapshot))
    }

    /// What is frozen does not change.
    fn changed(&self, _ranges: Vec<KeyRange>, _after: Revision) -> Answer<'_, Revision> {
        Box::pin(std::future::pending())
    }
}

impl Snapshot for Frozen {
    fn revision(&self) -> Revision {
        self.revision
    }

    fn range(&self, range: KeyRange) -> Answer<'_, Vec<Item>> {
        let from = self.items.partition_point(|item| item.key < range.start);
        let below = |item: &&Item| range.end.as_ref().is_none_or(|end| item.key < *end);
        let found: Vec<Item> = self.items.iter().skip(from).take_while(below).cloned().collect();
        Box::pin(std::future::ready(Ok(found)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = r#"{"action":"get","node":{"dir":true,"nodes":[
        {"key":"/b","value":"2","modifiedIndex":5,"ttl":9},
        {"key":"/a","dir":true,"nodes":[{"key":"/a/x","value":"1","modifiedIndex":4}]},
        {"key":"/a.b","value":"3","modifiedIndex":6}]}}"#;

    #[tokio::test]
    async fn a_tree_becomes_a_snapshot_in_key_order() {
        let source = Frozen {
            revision: Revision(6),
            items: items(serde_json::from_str::<Reply>(TREE).unwrap().node).into(),
        };
        let snapshot = source.snapshot(Revision(6)).await.unwrap();
        assert_eq!(snapshot.revision(), Revision(6));
        let keys = |items: Vec<Item>| items.into_iter().map(|item| item.key).collect::<Vec<_>>();
        let all = snapshot.range(KeyRange::all()).await.unwrap();
        assert_eq!(
            all.last().map(|item| (item.ttl_seconds, item.mod_revision)),
            Some((Some(9), Revision(5)))
        );
        assert_eq!(keys(all), ["/a.b", "/a/x", "/b"]);
        let below = snapshot.range(KeyRange::prefix(b"/a/")).await.unwrap();
        assert_eq!(keys(below), ["/a/x"]);
        assert!(source.snapshot(Revision(7)).await.is_err());
    }

    #[test]
    fn a_file_of_keys_is_read_or_refused_with_its_place() {
        let items = parse("k.json", "{\"/b\": \"2\", \"a/\": \"1\"}").unwrap();
        assert_eq!(items.iter().map(|item| &item.key[..]).collect::<Vec<_>>(), [b"/a", b"/b"]);
        for (text, start) in [
            ("{\n \"/a\" 1}", "not a JSON object: expected `:`"),
            ("[]", "not a JSON object: "),
            ("{\"/a\": 1}", "`/a`: its value is not a string\n --> k.json\n"),
        ] {
            let report = parse("k.json", text).unwrap_err();
            assert!(report.error.starts_with(start) && report.exit == Exit::Data, "{report}");
        }
        assert!(parse("k.json", "{\n \"/a\" 1}").unwrap_err().error.contains("k.json:2:7\n"));
    }
}
