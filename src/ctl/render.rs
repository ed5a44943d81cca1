//! `render`: templates without a daemon on this host, from any cluster over HTTP.
//!
//! Why: to see what a template makes of the store before it goes live, and to use the renderer in
//! a script. What the daemon does all the time, this does once.
//!
//! How data passes: one recursive read of the v2 tree -> `Frozen`, a source that never changes ->
//! the renderer. With `--to`, one resource's bytes go to a file or standard output; without, every
//! resource is rendered, checked, replaced and its service reloaded, as the daemon would.
//!
//! Invariants:
//! * All files of one run are from one revision.
//! * With `--to`, no destination is touched and no command runs.
//! * Exit code 1 when any resource fails; the others are done all the same.
//!
//! Deliberately not here: hidden keys (their name starts with `_`): v2 leaves them out of a
//! listing, so templates see them in the daemon only.

use crate::base::diagnostic::Diagnostic;
use crate::base::id::Revision;
use crate::base::range::KeyRange;
use crate::base::report::{Exit, Report, chain};
use crate::config::table;
use crate::ctl::client::{Client, Connection};
use crate::ctl::keys::{self, Node, Reply};
use crate::ctl::output::{Out, quoted};
use crate::render::source::{Answer, Item, Snapshot, Source, SourceError};
use crate::render::{Options, Renderer, ResourceStatus, render_once};
use crate::sys::file::{self, Durability};
use crate::sys::http::Request;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Permission bits of a file made by `--to`, before the umask has its say.
const TO_FILE_MODE: u32 = 0o640;

/// Arguments of `render`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  althing render hello --to - --confdir ./althing-dev\n  \
    althing render --confdir /etc/althing\n\n\
    A resource's name is the path of its file below conf.d, without .toml.")]
pub struct RenderArgs {
    /// The resource; without --to, all are rendered
    #[arg(requires = "to")]
    pub name: Option<String>,
    /// Write the result here and do nothing else; - is standard output
    #[arg(long, value_name = "FILE", requires = "name")]
    pub to: Option<PathBuf>,
    /// Directory that holds conf.d/ and templates/
    #[arg(
        long,
        value_name = "DIR",
        env = table::CONFDIR.spec.env,
        default_value = table::CONFDIR.spec.default
    )]
    pub confdir: PathBuf,
    /// Where is kept which reloads are owed [default: .state in the confdir]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where to ask.
    #[command(flatten)]
    pub connection: Connection,
}

/// Renders one resource somewhere, or all where they belong.
///
/// # Errors
/// When the store cannot be read, or a resource fails.
pub async fn render(args: &RenderArgs, out: &mut Out<'_>) -> Result<(), Report> {
    let source = Arc::new(Frozen::fetch(&args.connection.client()?).await?);
    let state_dir = args.state_dir.clone().unwrap_or_else(|| args.confdir.join(".state"));
    let mut options = Options::new(&args.confdir, state_dir);
    options.environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    match (&args.name, &args.to) {
        (Some(name), Some(to)) => {
            let rendered = render_once(&options, source, name).await;
            deliver(&rendered.map_err(|error| report(&error))?, to, out)
        }
        (None | Some(_), None | Some(_)) => render_all(options, source, out).await,
    }
}

/// A diagnostic already has its place, key and help in its text.
fn report(error: &Diagnostic) -> Report {
    let shown = error.to_string();
    Report::new(Exit::Failed, shown.strip_prefix("error: ").unwrap_or(&shown))
}

fn deliver(bytes: &[u8], to: &Path, out: &mut Out<'_>) -> Result<(), Report> {
    if to == Path::new("-") {
        return out.bytes(bytes);
    }
    file::replace(to, bytes, TO_FILE_MODE, Durability::Lazy)
        .map_err(|error| Report::new(Exit::Failed, chain(&error)))
}

async fn render_all(
    options: Options,
    source: Arc<Frozen>,
    out: &mut Out<'_>,
) -> Result<(), Report> {
    let renderer = Renderer::start(options, source)
        .map_err(|error| Report::new(Exit::Failed, chain(&error)))?;
    renderer.first_pass().await;
    let files = renderer.status();
    renderer.shutdown().await;
    for file in &files {
        out.line(&line(file))?;
    }
    let errors: Vec<&str> = files.iter().filter_map(|file| file.error.as_deref()).collect();
    if errors.is_empty() {
        return Ok(());
    }
    let shown = errors.join("\n");
    Err(Report::new(Exit::Failed, shown.strip_prefix("error: ").unwrap_or(&shown)))
}

fn line(file: &ResourceStatus) -> String {
    let what = match (&file.error, file.changes) {
        (Some(_), _) => "failed",
        (None, 0) => "unchanged",
        (None, _) => "replaced",
    };
    format!("{what}  {}  {}", quoted(&file.name), quoted(&file.dest.display().to_string()))
}

/// The store at one revision, for ever.
#[derive(Clone, Debug)]
struct Frozen {
    revision: Revision,
    /// In key order.
    items: Arc<[Item]>,
}

impl Frozen {
    async fn fetch(client: &Client) -> Result<Self, Report> {
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
    use crate::ctl::testing::{run, serve};

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

    #[tokio::test]
    async fn a_missing_resource_is_named_with_those_there_are() {
        std::fs::create_dir_all("target").unwrap();
        let dir = tempfile::tempdir_in("target").unwrap();
        std::fs::create_dir_all(dir.path().join("conf.d")).unwrap();
        let server = serve(vec![(200, TREE), (200, TREE)]).await;
        let confdir = dir.path().to_str().unwrap();
        let words = ["render", "hello", "--to", "-", "--confdir", confdir];
        let report = run(&server.url, &words).await.unwrap_err();
        assert_eq!(report.exit, Exit::Failed);
        assert!(report.error.starts_with("no resource is called `hello`\n"), "{report}");
        assert_eq!(run(&server.url, &["render", "--confdir", confdir]).await.unwrap(), "");
    }
}
