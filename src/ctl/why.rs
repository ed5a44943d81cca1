//! `why`: who writes this file, from which keys, and what keeps it from being up to date.
//!
//! How data passes: `GET /althing/v1/status` of the daemon on this host -> the file that is meant
//! -> its resource file, read here, for the template and the keys -> the store, for the newest
//! changes of those keys.
//!
//! Invariants:
//! * What cannot be found out is left out; the daemon's own word is shown in any case.
//! * No value is ever printed, only keys and revisions.
//!
//! Deliberately not here: history, and who wrote a key: neither is recorded yet.

use crate::base::diagnostic::did_you_mean;
use crate::base::id::Revision;
use crate::base::report::{Exit, Report};
use crate::base::time::WallTime;
use crate::ctl::client::{Client, Connection};
use crate::ctl::frozen::Frozen;
use crate::ctl::output::{Format, Out, columns, quoted};
use crate::ctl::status::{File, Status};
use crate::render::resource::{self, Resource};
use crate::sys::http::Request;
use std::path::{Path, PathBuf};

/// Keys that are listed, the newest change first.
const KEYS_SHOWN_MAX: usize = 10;

/// Arguments of `why`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  althing why /etc/haproxy/haproxy.cfg\n  \
    althing why haproxy -o json\n\n\
    Asks the daemon of this host; exit code 4: it does not write this file.")]
pub struct WhyArgs {
    /// The rendered file, or the name of its resource
    pub file: String,
    /// Form of the output
    #[arg(long, short, value_enum, default_value = "text")]
    pub output: Format,
    /// Where to ask.
    #[command(flatten)]
    pub connection: Connection,
}

/// Prints what is known of a rendered file.
///
/// # Errors
/// When the daemon cannot be asked, or does not write the file.
pub async fn why(args: &WhyArgs, out: &mut Out<'_>) -> Result<(), Report> {
    let client = args.connection.client()?;
    let (answer, status) = client.json::<Status>(&Request::get("/althing/v1/status")).await?;
    let file = find(&args.file, status.files())?;
    if args.output == Format::Json {
        let whole: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let files = whole.pointer("/renderer/files").and_then(serde_json::Value::as_array);
        let same =
            |one: &&serde_json::Value| one.get("name").is_some_and(|name| *name == file.name);
        let found = files.and_then(|files| files.iter().find(same)).cloned();
        return out.line(&found.unwrap_or_default().to_string());
    }
    let resource = resource_of(file);
    for line in columns(&rows(file, resource.as_ref())) {
        out.line(&line)?;
    }
    if let Some(error) = &file.error {
        out.line("")?;
        for line in error.lines() {
            out.line(&out.shown(line))?;
        }
    }
    match &resource {
        Some(resource) => show_keys(&client, resource, out).await,
        None => Ok(()),
    }
}

/// The file a person means: by its path, or by its resource's name.
fn find<'a>(wanted: &str, files: &'a [File]) -> Result<&'a File, Report> {
    let path = absolute(wanted);
    // A destination may be below a link too, as /var/run is.
    let is_it = |dest: &str| !dest.is_empty() && absolute(dest) == path;
    let matches = |file: &&File| is_it(&file.dest) || file.name == wanted;
    if let Some(file) = files.iter().find(matches) {
        return Ok(file);
    }
    let report = Report::new(Exit::NotFound, format!("no resource writes {}", path.display()));
    let known: Vec<&str> =
        files.iter().map(|file| file.dest.as_str()).filter(|dest| !dest.is_empty()).collect();
    Err(match did_you_mean(&path.display().to_string(), &known) {
        Some(near) => report.help(format!("did you mean {near}?")),
        None if known.is_empty() => {
            report.help("the daemon renders no file; resources are files in conf.d/")
        }
        None => report.help(format!("the files it writes are: {}", known.join(", "))),
    })
}

/// Without `.`, `..` and links on the way, as far as the directory exists.
fn absolute(wanted: &str) -> PathBuf {
    let path = std::path::absolute(wanted).unwrap_or_else(|_| PathBuf::from(wanted));
    let directory = path.parent().and_then(|parent| parent.canonicalize().ok());
    match (directory, path.file_name()) {
        (Some(directory), Some(name)) => directory.join(name),
        (None, _) | (_, None) => path,
    }
}

/// The resource as its file says now; nothing when the daemon is on another host.
fn resource_of(file: &File) -> Option<Resource> {
    let path = Path::new(file.file.as_deref()?);
    let name = file.name.split(':').next()?;
    let resources = resource::parse(path, name, &resource::read_bounded(path).ok()?).ok()?;
    resources.into_iter().find(|resource| resource.name == file.name)
}

fn rows(file: &File, resource: Option<&Resource>) -> Vec<Vec<String>> {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let text = |text: &str| if text.is_empty() { "-".to_owned() } else { quoted(text) };
    let mut rows = vec![
        row("file", text(&file.dest)),
        row("state", state(file)),
        row(
            "resource",
            format!("{} in {}", text(&file.name), text(file.file.as_deref().unwrap_or(""))),
        ),
    ];
    if let Some(resource) = resource {
        rows.push(row("template", quoted(&resource.src)));
        rows.push(row("keys", keys_of(resource)));
    }
    if let Some(revision) = file.revision.filter(|revision| *revision > 0) {
        rows.push(row(
            "revision",
            format!("{revision}; the file is what the keys of then make of it"),
        ));
    }
    if let Some(changed) = last_changed(file) {
        rows.push(row("changed", changed));
    }
    if let Some(time) = &file.last_pass {
        rows.push(row("looked at", time.clone()));
    }
    if let Some(waits) = waits(file) {
        rows.push(row("waits", waits));
    }
    if let Some(reload) = resource.and_then(|resource| resource.reload.as_ref()) {
        rows.push(row("reload", out_of(&reload.to_string(), file.reloads)));
    }
    rows
}

fn out_of(command: &str, reloads: Option<u64>) -> String {
    match reloads {
        Some(reloads) => format!("{} ({reloads} since the daemon started)", quoted(command)),
        None => quoted(command),
    }
}

fn state(file: &File) -> String {
    match (file.ok, &file.owed_since, &file.error) {
        (true, ..) if file.behind => "behind its keys: a change has to wait".to_owned(),
        (true, ..) => "up to date".to_owned(),
        (false, Some(since), _) => format!("its reload is owed since {since}"),
        (false, None, _) if file.revision == Some(0) => "failing from the start".to_owned(),
        (false, None, _) => "failing: the last good version stays".to_owned(),
    }
}

fn keys_of(resource: &Resource) -> String {
    match resource.scope.keys_shown() {
        keys if keys.is_empty() => "what its template reads".to_owned(),
        keys => quoted(&keys),
    }
}

/// When the file was last written, by anybody: what the disk says.
fn last_changed(file: &File) -> Option<String> {
    let written = std::fs::metadata(&file.dest).ok()?.modified().ok()?;
    let since = written.duration_since(std::time::SystemTime::UNIX_EPOCH).ok()?;
    let time = WallTime(u64::try_from(since.as_nanos()).ok()?);
    Some(match file.changes {
        Some(changes) => format!("{time} ({changes} times since the daemon started)"),
        None => time.to_string(),
    })
}

fn waits(file: &File) -> Option<String> {
    let what = quoted(file.waiting_for.as_deref()?);
    let time = |word: &str, time: &Option<String>| {
        time.as_ref().map(|time| format!(", {word} {time}")).unwrap_or_default()
    };
    Some(format!("for {what}{}{}", time("since", &file.since), time("until", &file.until)))
}

/// The newest changes among the keys the resource may read.
async fn show_keys(client: &Client, resource: &Resource, out: &mut Out<'_>) -> Result<(), Report> {
    // The daemon has answered already; without the keys the rest is still worth its lines.
    let Ok(frozen) = Frozen::fetch(client).await else { return Ok(()) };
    let seen = frozen.items().iter().filter(|item| resource.scope.sees(&item.key));
    let mut keys: Vec<(Revision, String)> = seen
        .map(|item| (item.mod_revision, String::from_utf8_lossy(&item.key).into_owned()))
        .collect();
    keys.sort_by(|a, b| b.cmp(a));
    let count = keys.len();
    out.line(&format!("\n{count} keys it may read, the newest change first:"))?;
    let rows = keys.iter().take(KEYS_SHOWN_MAX);
    let rows: Vec<Vec<String>> =
        rows.map(|(revision, key)| vec![format!("  {revision}"), quoted(key)]).collect();
    for line in columns(&rows) {
        out.line(&line)?;
    }
    match count.checked_sub(KEYS_SHOWN_MAX) {
        Some(more) if more > 0 => out.line(&format!("  ... and {more} more")),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::testing::{run, serve};

    const STATUS: &str = r#"{"renderer":{"files":[
        {"name":"web","file":"/none/conf.d/web.toml","dest":"/none/web.cfg","ok":false,
         "error":"error: no\n --> a","revision":5,"changes":2,"lastPass":"2026-01-01T00:00:00Z",
         "waitingFor":"the next try","until":"2026-01-01T00:00:01Z"},
        {"name":"nfs","dest":"/none/nfs.cfg","ok":false,"waitingFor":"the disk",
         "since":"2026-01-03T00:00:00Z"},
        {"name":"lb","file":"/none/lb.toml","dest":"/none/lb.cfg","ok":false,"revision":7,
         "owedSince":"2026-01-02T00:00:00Z"}]}}"#;

    #[tokio::test]
    async fn a_file_is_explained_by_path_or_name() {
        let server = serve(vec![(200, STATUS); 5]).await;
        let expected = "\
file       /none/web.cfg
state      failing: the last good version stays
resource   web in /none/conf.d/web.toml
revision   5; the file is what the keys of then make of it
looked at  2026-01-01T00:00:00Z
waits      for the next try, until 2026-01-01T00:00:01Z

error: no
 --> a
";
        assert_eq!(run(&server.url, &["why", "/none/web.cfg"]).await.unwrap(), expected);
        let owed = run(&server.url, &["why", "lb"]).await.unwrap();
        assert!(owed.contains("state     its reload is owed since 2026-01-02T00:00:00Z\n"));
        let hangs = run(&server.url, &["why", "nfs"]).await.unwrap();
        assert!(hangs.contains("waits     for the disk, since 2026-01-03T00:00:00Z\n"), "{hangs}");
        let json = run(&server.url, &["why", "lb", "-o", "json"]).await.unwrap();
        assert!(json.starts_with(r#"{"name":"lb","file":"#), "{json}");
        let report = run(&server.url, &["why", "/none/web.cf"]).await.unwrap_err();
        assert_eq!(report.exit, Exit::NotFound);
        assert_eq!(report.help.as_deref(), Some("did you mean /none/web.cfg?"));
    }
}
