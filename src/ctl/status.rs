//! `status`: is this member well, and is every file up to date?
//!
//! How data passes: `GET /althing/v1/status` -> `Status` -> a line about the member, then a table
//! with a line a rendered file and, below it, what is wrong with those that are not up to date.
//!
//! Invariants:
//! * Exit code 1 when a file is not up to date: `althing status` is a check by itself.
//! * Fields this version does not know are ignored, missing ones shown as `-`: the command and
//!   the daemon may be of different versions.
//!
//! Deliberately not here: other members; each daemon speaks for its own host.

use crate::base::report::{Exit, Report};
use crate::ctl::client::Connection;
use crate::ctl::output::{Format, Out, columns, quoted};
use crate::sys::http::Request;

/// Arguments of `status`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  althing status\n  \
    althing status -o json --endpoint http://127.0.0.1:2379\n\n\
    Exit code 1: a file is not up to date.")]
pub struct StatusArgs {
    /// Form of the output
    #[arg(long, short, value_enum, default_value = "text")]
    pub output: Format,
    /// Where to ask.
    #[command(flatten)]
    pub connection: Connection,
}

/// What a daemon says about itself.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    version: Option<String>,
    node: Node,
    renderer: Option<RendererPart>,
}

/// What it says about the store.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Node {
    name: Option<String>,
    member: Option<String>,
    cluster: Option<String>,
    role: Option<String>,
    leader: Option<String>,
    revision: Option<u64>,
    #[serde(rename = "noSpace")]
    no_space: bool,
}

/// What it says about the renderer.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct RendererPart {
    files: Vec<File>,
}

/// What it says about one rendered file.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct File {
    pub(crate) name: String,
    /// Its resource file.
    pub(crate) file: Option<String>,
    pub(crate) dest: String,
    pub(crate) ok: bool,
    /// What it waits for puts a change off.
    pub(crate) behind: bool,
    pub(crate) error: Option<String>,
    pub(crate) revision: Option<u64>,
    pub(crate) changes: Option<u64>,
    pub(crate) reloads: Option<u64>,
    /// When its last pass ended.
    pub(crate) last_pass: Option<String>,
    /// What it waits for, since when, and until when.
    pub(crate) waiting_for: Option<String>,
    pub(crate) since: Option<String>,
    pub(crate) until: Option<String>,
    pub(crate) owed_since: Option<String>,
}

/// Prints the state of a daemon.
///
/// # Errors
/// When it cannot be asked, or a file is not up to date.
pub async fn status(args: &StatusArgs, out: &mut Out<'_>) -> Result<(), Report> {
    let request = Request::get("/althing/v1/status");
    let (answer, status) = args.connection.client()?.json::<Status>(&request).await?;
    if args.output == Format::Json {
        out.line(String::from_utf8_lossy(&answer.body).trim_end())?;
    } else {
        show(&status, out)?;
    }
    if status.node.no_space {
        return Err(Report::new(Exit::Failed, "the disk of the store is full")
            .help("make room on it; nothing needs a restart"));
    }
    let files = status.files();
    match files.iter().filter(|file| !file.ok).count() {
        0 => Ok(()),
        bad => {
            let error = format!("{bad} of {} files not up to date", files.len());
            Err(Report::new(Exit::Failed, error)
                .help("the last good version of each stays in place; mend what is said above"))
        }
    }
}

impl Status {
    /// The rendered files of this host.
    pub(crate) fn files(&self) -> &[File] {
        self.renderer.as_ref().map_or(&[], |renderer| &renderer.files)
    }
}

fn show(status: &Status, out: &mut Out<'_>) -> Result<(), Report> {
    let text = |field: &Option<String>| field.as_deref().map_or("-".to_owned(), quoted);
    let Node { name, member, cluster, role, leader, revision, no_space } = &status.node;
    let revision = revision.map_or("-".to_owned(), |revision| revision.to_string());
    out.line(&format!(
        "{}  {}  member {}  leader {}  cluster {}  revision {revision}  version {}",
        out.bold(&text(name)),
        text(role),
        text(member),
        text(leader),
        text(cluster),
        text(&status.version),
    ))?;
    if *no_space {
        out.line("the disk of the store is full: writes are refused until there is room")?;
    }
    let files = status.files();
    if files.is_empty() {
        return out.line("no rendered files");
    }
    let heads = ["RESOURCE", "STATE", "REVISION", "CHANGES", "FILE"].map(str::to_owned);
    let mut rows = vec![heads.to_vec()];
    rows.extend(files.iter().map(row));
    for line in columns(&rows) {
        out.line(&line)?;
    }
    let bad = |file: &&File| !file.ok;
    for file in files.iter().filter(bad) {
        let error = file.error.as_deref().unwrap_or("its reload is owed and will be tried again");
        out.line(&format!("\n{}:", quoted(&file.name)))?;
        for line in error.lines() {
            out.line(format!("  {}", out.shown(line)).trim_end())?;
        }
    }
    Ok(())
}

fn row(file: &File) -> Vec<String> {
    let state = match (file.ok, &file.owed_since) {
        (true, _) if file.behind => "waiting",
        (true, _) => "ok",
        (false, Some(_)) => "reload owed",
        (false, None) => "failed",
    };
    let number = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
    vec![
        quoted(&file.name),
        state.to_owned(),
        number(file.revision),
        number(file.changes),
        if file.dest.is_empty() { "-".to_owned() } else { quoted(&file.dest) },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::testing::{run, serve};

    const WELL: &str = r#"{"version":"0.1.0","node":{"name":"box1","role":"leader",
        "member":"8e9e","leader":"8e9e","cluster":"cdf8","revision":5,"later":[1]},"renderer":null}"#;
    const ILL: &str = r#"{"renderer":{"files":[
        {"name":"hello","dest":"/x/hello.txt","ok":true,"revision":5,"changes":2},
        {"name":"web","ok":false,"error":"error: no\n --> a\n  |\n1 | \"x\""},
        {"name":"slow","dest":"/slow","ok":true,"behind":true,"revision":4,"changes":1},
        {"name":"lb","dest":"/lb","ok":false,"owedSince":"2026-01-01T00:00:00Z"}]}}"#;

    #[tokio::test]
    async fn a_member_and_its_files_in_a_table() {
        let server = serve(vec![(200, WELL), (200, ILL), (200, ILL)]).await;
        let expected = "box1  leader  member 8e9e  leader 8e9e  cluster cdf8  revision 5  version 0.1.0\n\
                        no rendered files\n";
        assert_eq!(run(&server.url, &["status"]).await.unwrap(), expected);
        let report = run(&server.url, &["status"]).await.unwrap_err();
        assert_eq!(report.exit, Exit::Failed);
        assert_eq!(report.error, "2 of 4 files not up to date");
        assert!(run(&server.url, &["status", "-o", "json"]).await.is_err());
        let mut printed = Vec::new();
        show(&serde_json::from_str(ILL).unwrap(), &mut Out::buffer(&mut printed)).unwrap();
        let expected = "\
-  -  member -  leader -  cluster -  revision -  version -
RESOURCE  STATE        REVISION  CHANGES  FILE
hello     ok           5         2        /x/hello.txt
web       failed       -         -        -
slow      waiting      4         1        /slow
lb        reload owed  -         -        /lb

web:
  error: no
   --> a
    |
  1 | \"x\"

lb:
  its reload is owed and will be tried again
";
        assert_eq!(String::from_utf8(printed).unwrap(), expected);
    }
}
