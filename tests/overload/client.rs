//! Clients by the thousand: keep-alive writers and watchers that stream, over tokio.
//!
//! A value says which it is and when it was sent, so that a watcher can tell what is missing, what
//! came twice, and how late it was.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Longest silence of a server.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How late events are: counts by millisecond, the last for everything above.
pub(crate) struct Lags {
    counts: Vec<AtomicU64>,
    zero: Instant,
}

impl Lags {
    const SLOTS: usize = 30_000;

    pub(crate) fn new() -> Self {
        Self { counts: (0..Self::SLOTS).map(|_| AtomicU64::new(0)).collect(), zero: Instant::now() }
    }

    /// The time, for a value that is sent now.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.zero.elapsed().as_micros()).unwrap()
    }

    fn note(&self, sent: u64) {
        let late = usize::try_from(self.now().saturating_sub(sent) / 1_000).unwrap();
        self.counts[late.min(Self::SLOTS - 1)].fetch_add(1, Ordering::Relaxed);
    }

    /// How many were noted.
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Milliseconds that so many of a thousand stay below.
    pub(crate) fn below(&self, of_thousand: u64) -> u64 {
        let (all, mut seen) = (self.count(), 0);
        let at = self.counts.iter().position(|count| {
            seen += count.load(Ordering::Relaxed);
            seen * 1_000 >= all * of_thousand
        });
        at.unwrap_or_default() as u64 + 1
    }
}

/// `http://host:port` as an address.
pub(crate) fn address(url: &str) -> std::net::SocketAddr {
    url.strip_prefix("http://").unwrap().parse().unwrap()
}

/// A keep-alive connection that writes.
pub(crate) struct Writer {
    stream: BufReader<TcpStream>,
}

impl Writer {
    pub(crate) async fn connect(url: &str) -> Self {
        let stream = TcpStream::connect(address(url)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// Writes and gives the status of the answer.
    pub(crate) async fn put(&mut self, path: &str, value: &str) -> u16 {
        let length = "value=".len() + value.len();
        let request = format!(
            "PUT /v2/keys{path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\r\nvalue={value}"
        );
        self.stream.write_all(request.as_bytes()).await.unwrap();
        let (status, length) = head(&mut self.stream).await.unwrap();
        let mut body = vec![0; length.unwrap()];
        self.stream.read_exact(&mut body).await.unwrap();
        status
    }
}

/// Reads the head of an answer: its status, and its length if it has one.
async fn head(stream: &mut BufReader<TcpStream>) -> std::io::Result<(u16, Option<usize>)> {
    let (mut status, mut length, mut line) = (None, None, String::new());
    loop {
        line.clear();
        let read = timeout(SILENCE_MAX, stream.read_line(&mut line)).await??;
        let text = line.trim_end();
        match text.split_once(": ") {
            _ if read == 0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ if status.is_none() => status = text.split(' ').nth(1).and_then(|s| s.parse().ok()),
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.parse().ok();
            }
            _ if text.is_empty() => return Ok((status.unwrap(), length)),
            _ => {}
        }
    }
}

/// A stream of events.
pub(crate) struct Watcher {
    stream: BufReader<TcpStream>,
    line: Vec<u8>,
}

/// What a watcher is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// The number its writer gave the value.
    pub(crate) number: u64,
    /// The event's index.
    pub(crate) index: u64,
}

impl Watcher {
    /// Begins to stream what happens below `path`, from `index` on or from now on. A small
    /// `window` makes the kernel hold little for a client that does not read.
    pub(crate) async fn open(url: &str, path: &str, index: u64, window: Option<u32>) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(bytes) = window {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        let mut stream = BufReader::new(socket.connect(address(url)).await.unwrap());
        let request = format!(
            "GET /v2/keys{path}?wait=true&recursive=true&stream=true&waitIndex={index} HTTP/1.1\r\n\
             Host: localhost\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(head(&mut stream).await.unwrap().0, 200);
        Self { stream, line: Vec::new() }
    }

    /// The next event; `None` when the stream has ended or is broken. Notes in `lags` how late it
    /// is.
    pub(crate) async fn next(&mut self, lags: Option<&Lags>) -> Option<Told> {
        loop {
            self.line.clear();
            let reading = self.stream.read_until(b'\n', &mut self.line);
            let read = timeout(SILENCE_MAX, reading).await.expect("no event for a minute");
            if !matches!(read, Ok(1..)) || !self.line.ends_with(b"\n") {
                return None;
            }
            // Everything else is the lengths of chunks and the empty lines behind them.
            if self.line.starts_with(b"{") {
                let (told, sent) = read_event(std::str::from_utf8(&self.line).unwrap());
                lags.iter().for_each(|lags| lags.note(sent));
                return Some(told);
            }
        }
    }
}

/// The value `NUMBER.SENT` or `NUMBER.SENT.PADDING`, as a writer sends it.
pub(crate) fn value(number: u64, sent: u64, bytes: usize) -> String {
    let mut value = format!("{number}.{sent}.");
    value.extend(std::iter::repeat_n('x', bytes.saturating_sub(value.len())));
    value
}

/// Number, index and time of sending of the first node in an event.
fn read_event(line: &str) -> (Told, u64) {
    let behind = |text: &'static str| line.split_once(text).unwrap_or_else(|| panic!("{line}")).1;
    let number_of = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text[..end].parse::<u64>().unwrap_or_else(|_| panic!("{line}"))
    };
    let value = behind("\"value\":\"");
    let sent = value.split_once('.').unwrap_or_else(|| panic!("{line}")).1;
    let index = number_of(behind("\"modifiedIndex\":"));
    (Told { number: number_of(value), index }, number_of(sent))
}
