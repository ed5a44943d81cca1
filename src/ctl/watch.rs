//! `watch`: every change below a key, one line each, across restarts of the server.
//!
//! Why it reconnects: a watch that ends with its server loses what happens meanwhile. Each event
//! carries its index, and the store's history goes back far enough to ask for the next one.
//!
//! How data passes: a v2 streaming watch -> chunks -> `Lines` -> one JSON event a line -> printed.
//! At the end of the stream, or when it breaks, the watch is asked for again from the index after
//! the last one seen.
//!
//! Invariants:
//! * Every event is printed once and in order, or the command fails saying what it missed.
//! * An event is flushed as soon as it is whole.
//!
//! Deliberately not here: running a program on a change.
//!
//! Sources: `contracts/keys-api.md` section 9.

use crate::base::limits;
use crate::base::report::{Exit, Report};
use crate::ctl::client::{Client, Connection};
use crate::ctl::keys::{self, Reply};
use crate::ctl::output::{Format, Out, quoted};
use crate::sys::http::{Request, Stream};
use std::time::Duration;

/// Arguments of `watch`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  althing watch\n  \
    althing watch /services --after 1 -o json\n\n\
    --timeout is for finding a server; a watch ends after --events, or when it is stopped.")]
pub struct WatchArgs {
    /// The key or directory; everything below it is watched too
    #[arg(default_value = "/")]
    pub key: String,
    /// Begin with what happened after this index, instead of now
    #[arg(long, value_name = "INDEX")]
    pub after: Option<u64>,
    /// End after this many events
    #[arg(long, short = 'n', value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub events: Option<u64>,
    /// Form of the output
    #[arg(long, short, value_enum, default_value = "text")]
    pub output: Format,
    /// Where to ask.
    #[command(flatten)]
    pub connection: Connection,
}

/// Where a watch is.
struct Cursor {
    /// The first index not seen yet; `None` = whatever is next.
    next: Option<u64>,
    /// Events still to print; `None` = no end.
    left: Option<u64>,
}

/// Prints changes until stopped.
///
/// # Errors
/// When the history needed is gone, the server refuses, or stays away.
pub async fn watch(args: &WatchArgs, out: &mut Out<'_>) -> Result<(), Report> {
    let client = args.connection.client()?;
    let mut cursor = Cursor { next: args.after.map(|index| index + 1), left: args.events };
    let mut stream = client.stream(&request(&args.key, cursor.next)).await?;
    loop {
        cursor.begin_at(&stream);
        if read(&mut stream, &mut cursor, args.output, out).await? {
            return Ok(());
        }
        stream = reconnect(&client, args, &cursor).await?;
    }
}

fn request(key: &str, next: Option<u64>) -> Request {
    let index = next.map(|index| index.to_string()).unwrap_or_default();
    let mut query: Vec<(&str, &[u8])> =
        vec![("wait", b"true"), ("recursive", b"true"), ("stream", b"true")];
    if next.is_some() {
        query.push(("waitIndex", index.as_bytes()));
    }
    Request::get(keys::path(key, &query))
}

impl Cursor {
    /// A watch without an index begins after the one in the answer's head.
    fn begin_at(&mut self, stream: &Stream) {
        let header = stream.headers.get("x-etcd-index").and_then(|value| value.to_str().ok());
        let index = header.and_then(|text| text.parse::<u64>().ok());
        self.next = self.next.or(index.map(|index| index + 1));
    }

    /// Notes a printed event; whether it was the last one wanted.
    fn pass(&mut self, index: u64) -> bool {
        self.next = Some(index + 1);
        self.left = self.left.map(|left| left - 1);
        self.left == Some(0)
    }
}

/// Prints the stream's events; true when that were all that are wanted, false when it ended.
async fn read(
    stream: &mut Stream,
    cursor: &mut Cursor,
    format: Format,
    out: &mut Out<'_>,
) -> Result<bool, Report> {
    let mut lines = Lines::default();
    // A broken connection is like one that ended: the cursor knows where to go on.
    while let Ok(Some(chunk)) = stream.next().await {
        lines.feed(&chunk)?;
        while let Some(line) = lines.next() {
            let event: Reply = serde_json::from_slice(&line).map_err(|error| {
                let help = "a refusal inside the stream, such as an index that is gone, ends it";
                refusal_of(&line).unwrap_or_else(|| {
                    Report::new(Exit::Failed, "the server sent an event that cannot be read")
                        .cause(error.to_string())
                        .help(help)
                })
            })?;
            print(&line, &event, format, out)?;
            if cursor.pass(event.node.modified_index) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// etcd's error object, when a line of the stream is one.
fn refusal_of(line: &[u8]) -> Option<Report> {
    let json: serde_json::Value = serde_json::from_slice(line).ok()?;
    json.get("errorCode").map(|_| crate::ctl::client::refusal(400, line))
}

fn print(line: &[u8], event: &Reply, format: Format, out: &mut Out<'_>) -> Result<(), Report> {
    if format == Format::Json {
        return out.line(String::from_utf8_lossy(line).trim_end());
    }
    let words = [Some(event.action.as_str()), Some(&event.node.key), event.node.value.as_deref()];
    let words: Vec<String> = words.into_iter().flatten().map(quoted).collect();
    out.line(&words.join(" "))
}

/// Asks again until somebody answers; bounded by `limits::WATCH_RECONNECTS_MAX`.
async fn reconnect(client: &Client, args: &WatchArgs, cursor: &Cursor) -> Result<Stream, Report> {
    let request = request(&args.key, cursor.next);
    let mut tries = 0;
    loop {
        match client.stream(&request).await {
            Ok(stream) => return Ok(stream),
            Err(report) if !is_passing(&report) || tries == limits::WATCH_RECONNECTS_MAX => {
                return Err(report);
            }
            Err(_) => tries += 1,
        }
        tokio::time::sleep(Duration::from_millis(limits::WATCH_RECONNECT_MS)).await;
    }
}

fn is_passing(report: &Report) -> bool {
    matches!(report.exit, Exit::Unreachable | Exit::NoLeader | Exit::Unknown)
}

/// Cuts a stream of chunks into lines.
#[derive(Default)]
struct Lines {
    buffer: Vec<u8>,
    /// Bytes of the buffer already looked at: they hold no line feed.
    searched: usize,
}

impl Lines {
    fn feed(&mut self, chunk: &[u8]) -> Result<(), Report> {
        if self.buffer.len() + chunk.len() > limits::WATCH_EVENT_BYTES_MAX {
            let limit = limits::WATCH_EVENT_BYTES_MAX;
            let error = format!("the server sent an event of more than {limit} bytes");
            return Err(Report::new(Exit::Failed, error).help("is it an althing or etcd server?"));
        }
        self.buffer.extend_from_slice(chunk);
        Ok(())
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let unseen = self.buffer.iter().skip(self.searched);
            let Some(length) = unseen.copied().position(|byte| byte == b'\n') else {
                self.searched = self.buffer.len();
                return None;
            };
            let rest = self.buffer.split_off(self.searched + length + 1);
            let line = std::mem::replace(&mut self.buffer, rest);
            self.searched = 0;
            if !line.trim_ascii().is_empty() {
                return Some(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::testing::{run, serve};

    const ONE: &str = "{\"action\":\"set\",\"node\":{\"key\":\"/a\",\"value\":\"x y\",\
                       \"modifiedIndex\":7}}\n";
    const TWO: &str = "{\"action\":\"delete\",\"node\":{\"key\":\"/a\",\"modifiedIndex\":8}}\n\
                       {\"action\":\"set\",\"node\":{\"key\":\"/b\",\"value\":\"\\u001b\",\
                       \"modifiedIndex\":9}}\n";
    const GONE: &str = "{\"errorCode\":401,\"message\":\"The event in requested index is \
                        outdated and cleared\",\"cause\":\"c\",\"index\":9}";

    #[tokio::test]
    async fn events_go_on_after_a_lost_connection() {
        let server = serve(vec![(200, ONE), (200, TWO)]).await;
        let printed = run(&server.url, &["watch", "-n", "3"]).await.unwrap();
        assert_eq!(printed, "set /a x y\ndelete /a\nset /b \"\\u001b\"\n");
        let seen = server.seen();
        let query = "/v2/keys/?wait=true&recursive=true&stream=true";
        assert!(seen[0].starts_with(&format!("GET {query} HTTP")), "{seen:?}");
        assert!(seen[1].starts_with(&format!("GET {query}&waitIndex=8 HTTP")), "{seen:?}");
    }

    #[tokio::test]
    async fn a_lost_history_is_told() {
        let server = serve(vec![(400, GONE)]).await;
        let report = run(&server.url, &["watch", "/a", "--after", "1"]).await.unwrap_err();
        assert_eq!((report.exit, report.cause.as_deref()), (Exit::Failed, Some("c")));
        assert!(server.seen()[0].contains("waitIndex=2"));
        let server = serve(vec![(200, ONE), (400, GONE)]).await;
        let report = run(&server.url, &["watch", "-n2", "-ojson"]).await.unwrap_err();
        assert_eq!(report.exit, Exit::Failed);
    }

    #[test]
    fn chunks_are_cut_at_line_feeds() {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for byte in b"one\n\ntwo\r\nthr" {
            lines.feed(&[*byte]).unwrap();
            found.extend(lines.next());
        }
        assert_eq!(found, [b"one\n".to_vec(), b"two\r\n".to_vec()]);
        assert!(lines.feed(&vec![b'x'; limits::WATCH_EVENT_BYTES_MAX]).is_err());
    }
}
