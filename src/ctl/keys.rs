//! `get`, `set`, `ls`, `rm`: keys from the shell, over the v2 API.
//!
//! Why v2: it is the one API that any etcd from 0.4 to 3.5 and this daemon share, and its error
//! object says enough for the exit codes.
//!
//! How data passes: arguments -> path and form -> `Client` -> a `Node` or the answer's own JSON.
//!
//! Invariants:
//! * A value comes out as it went in, plus one line feed.
//! * `set` and `rm` are silent when all went well; what they did is in the exit code.
//!
//! Deliberately not here: waiting (`watch`), and a client for v3.
//!
//! Sources: `contracts/keys-api.md` sections 5 and 6.

use crate::base::limits;
use crate::base::report::{Exit, Report};
use crate::ctl::client::Connection;
use crate::ctl::output::{Format, Out, quoted};
use crate::sys::http::{Request, escape, form};
use std::io::Read;

/// Arguments of `get`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  althing get /message\n  \
    althing get /services/web/a -o json --endpoint http://127.0.0.1:2379")]
pub struct GetArgs {
    /// The key
    pub key: String,
    /// Answer from this member's own store, which may lag behind
    #[arg(long)]
    pub local: bool,
    /// Form of the output
    #[arg(long, short, value_enum, default_value = "text")]
    pub output: Format,
    /// Where to ask.
    #[command(flatten)]
    pub connection: Connection,
}

/// Arguments of `set`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  althing set /message Hello\n  \
    althing set /message World --prev-value Hello\n  \
    hostname | tr -d '\\n' | althing set /hosts/a - --ttl 30")]
pub struct SetArgs {
    /// The key
    pub key: String,
    /// The value; - reads it from standard input, as it is
    #[arg(allow_hyphen_values = true)]
    pub value: String,
    /// Let the key die after this many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=limits::TTL_SECONDS_MAX))]
    pub ttl: Option<u64>,
    /// Only if this is the value now
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    pub prev_value: Option<String>,
    /// Only if the key was last changed at this index
    #[arg(long, value_name = "INDEX")]
    pub prev_index: Option<u64>,
    /// Only if there is no such key yet
    #[arg(long, conflicts_with_all = ["prev_value", "prev_index"])]
    pub create: bool,
    /// Form of the output
    #[arg(long, short, value_enum, default_value = "text")]
    pub output: Format,
    /// Where to ask.
    #[command(flatten)]
    pub connection: Connection,
}

/// Arguments of `ls`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  althing ls\n  althing ls -r /services")]
pub struct LsArgs {
    /// The directory
    #[arg(default_value = "/")]
    pub key: String,
    /// With everything below its directories
    #[arg(long, short)]
    pub recursive: bool,
    /// Form of the output
    #[arg(long, short, value_enum, default_value = "text")]
    pub output: Format,
    /// Where to ask.
    #[command(flatten)]
    pub connection: Connection,
}

/// Arguments of `rm`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  althing rm /message\n  althing rm -r /services/web")]
pub struct RmArgs {
    /// The key
    pub key: String,
    /// A directory, with everything below it
    #[arg(long, short)]
    pub recursive: bool,
    /// Form of the output
    #[arg(long, short, value_enum, default_value = "text")]
    pub output: Format,
    /// Where to ask.
    #[command(flatten)]
    pub connection: Connection,
}

/// A node of the v2 tree.
#[derive(Clone, Debug, Default, serde::Deserialize)]
pub struct Node {
    /// Its path; the root has none.
    #[serde(default)]
    pub key: String,
    /// A file's value.
    pub value: Option<String>,
    /// Whether it is a directory.
    #[serde(default)]
    pub dir: bool,
    /// What is in the directory, as far as it was asked for.
    #[serde(default)]
    pub nodes: Vec<Node>,
    /// Index of its last change.
    #[serde(default, rename = "modifiedIndex")]
    pub modified_index: u64,
    /// Seconds it still lives.
    pub ttl: Option<i64>,
}

/// An answer of the keys API.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct Reply {
    /// What was done.
    pub action: String,
    /// The node it was done to.
    pub node: Node,
}

/// The URL path of a key, with a query.
#[must_use]
pub fn path(key: &str, query: &[(&str, &[u8])]) -> String {
    let slash = if key.starts_with('/') { "" } else { "/" };
    let path = format!("/v2/keys{slash}{}", escape(key.as_bytes()));
    if query.is_empty() { path } else { format!("{path}?{}", form(query)) }
}

/// Prints a value.
///
/// # Errors
/// When there is none.
pub async fn get(args: &GetArgs, out: &mut Out<'_>) -> Result<(), Report> {
    let quorum: &[u8] = if args.local { b"false" } else { b"true" };
    let request = Request::get(path(&args.key, &[("quorum", quorum)]));
    let (answer, reply) = args.connection.client()?.json::<Reply>(&request).await?;
    if args.output == Format::Json {
        return json(&answer.body, out);
    }
    match reply.node.value {
        Some(value) if !reply.node.dir => out.value(&value),
        Some(_) | None => Err(Report::new(Exit::Failed, format!("{} is a directory", args.key))
            .help(format!("list it: althing ls {}", args.key))),
    }
}

/// Writes a value.
///
/// # Errors
/// When it was not written, or nobody knows.
pub async fn set(args: &SetArgs, out: &mut Out<'_>) -> Result<(), Report> {
    let value = match args.value.as_str() {
        "-" => read_value(&mut std::io::stdin().lock())?,
        text => text.as_bytes().to_vec(),
    };
    let number = |number: Option<u64>| number.map(|number| number.to_string().into_bytes());
    let (ttl, prev_index) = (number(args.ttl), number(args.prev_index));
    let fields = [
        ("value", Some(value.as_slice())),
        ("ttl", ttl.as_deref()),
        ("prevValue", args.prev_value.as_deref().map(str::as_bytes)),
        ("prevIndex", prev_index.as_deref()),
        ("prevExist", args.create.then_some(&b"false"[..])),
    ];
    let fields: Vec<(&str, &[u8])> =
        fields.iter().filter_map(|(name, value)| Some((*name, (*value)?))).collect();
    let request = Request::put_form(path(&args.key, &[]), &fields);
    let answer = args.connection.client()?.ask(&request).await?;
    if args.output == Format::Json { json(&answer.body, out) } else { Ok(()) }
}

fn read_value(input: &mut impl Read) -> Result<Vec<u8>, Report> {
    let mut value = Vec::new();
    let limit = limits::VALUE_BYTES_MAX;
    let read = input.take(limit as u64 + 1).read_to_end(&mut value);
    read.map_err(|error| {
        Report::new(Exit::Failed, "cannot read standard input").cause(error.to_string())
    })?;
    if value.len() > limit {
        let error = format!("the value on standard input has more than {limit} bytes");
        return Err(Report::new(Exit::Data, error).help(
            "keep large data elsewhere, and its \
             address here",
        ));
    }
    Ok(value)
}

/// Lists a directory: one path a line, a directory's with a slash behind.
///
/// # Errors
/// When there is no such key.
pub async fn ls(args: &LsArgs, out: &mut Out<'_>) -> Result<(), Report> {
    let recursive: &[u8] = if args.recursive { b"true" } else { b"false" };
    let query = [("recursive", recursive), ("sorted", b"true"), ("quorum", b"true")];
    let request = Request::get(path(&args.key, &query));
    let (answer, reply) = args.connection.client()?.json::<Reply>(&request).await?;
    if args.output == Format::Json {
        return json(&answer.body, out);
    }
    if !reply.node.dir {
        return out.line(&quoted(&reply.node.key));
    }
    let mut waiting: Vec<&Node> = reply.node.nodes.iter().rev().collect();
    while let Some(node) = waiting.pop() {
        let slash = if node.dir { "/" } else { "" };
        out.line(&quoted(&format!("{}{slash}", node.key)))?;
        waiting.extend(node.nodes.iter().rev());
    }
    Ok(())
}

/// Removes a key or a directory.
///
/// # Errors
/// When there is no such key, or a directory is not meant.
pub async fn rm(args: &RmArgs, out: &mut Out<'_>) -> Result<(), Report> {
    let query: &[(&str, &[u8])] = if args.recursive { &[("recursive", b"true")] } else { &[] };
    let request = Request::delete(path(&args.key, query));
    let answer = args.connection.client()?.ask(&request).await.map_err(|report| {
        let is_directory = report.error == "Not a file";
        if is_directory { report.help("remove a directory with -r") } else { report }
    })?;
    if args.output == Format::Json { json(&answer.body, out) } else { Ok(()) }
}

/// The API's own JSON, on one line.
fn json(body: &[u8], out: &mut Out<'_>) -> Result<(), Report> {
    out.line(String::from_utf8_lossy(body).trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::testing::{Server, run, serve};

    const FILE: &str = r#"{"action":"get","node":{"key":"/m","value":"a\nb","modifiedIndex":7}}"#;
    const TREE: &str = r#"{"action":"get","node":{"dir":true,"nodes":[
        {"key":"/a","dir":true,"nodes":[{"key":"/a/x","value":"1"}]},
        {"key":"/b\n","value":"2"}]}}"#;
    const MISSING: &str = r#"{"errorCode":100,"message":"Key not found","cause":"/m","index":9}"#;
    const NO_FILE: &str = r#"{"errorCode":102,"message":"Not a file","cause":"/a","index":9}"#;

    async fn printed(server: &Server, words: &[&str]) -> String {
        run(&server.url, words).await.unwrap()
    }

    #[tokio::test]
    async fn values_come_out_as_they_are() {
        let server = serve(vec![(200, FILE), (200, FILE), (200, TREE), (404, MISSING)]).await;
        assert_eq!(printed(&server, &["get", "m"]).await, "a\nb\n");
        assert_eq!(
            printed(&server, &["get", "/m", "--local", "-o", "json"]).await,
            format!("{FILE}\n")
        );
        let report = run(&server.url, &["get", "/a"]).await.unwrap_err();
        assert_eq!(report.to_string(), "error: /a is a directory\nhelp: list it: althing ls /a");
        let report = run(&server.url, &["get", "/m"]).await.unwrap_err();
        assert_eq!((report.exit, report.cause.as_deref()), (Exit::NotFound, Some("/m")));
        let seen = server.seen();
        assert!(seen[0].starts_with("GET /v2/keys/m?quorum=true HTTP"), "{seen:?}");
        assert!(seen[1].starts_with("GET /v2/keys/m?quorum=false HTTP"), "{seen:?}");
    }

    #[tokio::test]
    async fn listings_are_one_path_a_line() {
        let server = serve(vec![(200, TREE), (200, FILE)]).await;
        assert_eq!(printed(&server, &["ls", "-r"]).await, "/a/\n/a/x\n\"/b\\n\"\n");
        assert_eq!(printed(&server, &["ls", "/m"]).await, "/m\n");
        let seen = server.seen();
        assert!(seen[0].starts_with("GET /v2/keys/?recursive=true&sorted=true&quorum=true "));
    }

    #[tokio::test]
    async fn changes_are_silent_and_conditional() {
        let server = serve(vec![(201, FILE), (200, FILE), (200, FILE), (403, NO_FILE)]).await;
        let set = ["set", "/m", "-5", "--ttl", "30", "--prev-value", "a b"];
        assert_eq!(printed(&server, &set).await, "");
        assert_eq!(
            printed(&server, &["set", "/m", "x", "--create", "-ojson"]).await,
            format!("{FILE}\n")
        );
        assert_eq!(printed(&server, &["rm", "-r", "/a b"]).await, "");
        let report = run(&server.url, &["rm", "/a"]).await.unwrap_err();
        assert_eq!(report.help.as_deref(), Some("remove a directory with -r"));
        let seen = server.seen();
        assert!(seen[0].ends_with("\r\n\r\nvalue=-5&ttl=30&prevValue=a%20b"), "{seen:?}");
        assert!(seen[1].ends_with("\r\n\r\nvalue=x&prevExist=false"), "{seen:?}");
        assert!(seen[2].starts_with("DELETE /v2/keys/a%20b?recursive=true "), "{seen:?}");
        assert!(seen[3].starts_with("DELETE /v2/keys/a "), "{seen:?}");
    }

    #[test]
    fn a_value_from_a_pipe_is_bounded() {
        assert_eq!(read_value(&mut &b"a\n"[..]).unwrap(), b"a\n");
        let report = read_value(&mut std::io::repeat(b'x')).unwrap_err();
        assert_eq!(report.exit, Exit::Data);
    }
}
