//! Clients that write as fast as they are answered, and remember every answer.
//!
//! Sixteen threads, each with one keep-alive connection: most writes go to keys of their own, the
//! rest to shared keys, to a queue (in-order keys) and to swaps after a linearizable read. A
//! request without a whole answer is *unknown*; it is never sent again.
//!
//! Invariants:
//! * a value is written once: it names round, writer and number;
//! * after `doom` nobody connects again: the port may be another process's by then;
//! * every thread ends: at `finish`, at the deadline, or when the daemon is gone.

use super::history::{Call, Outcome, Reading, Verb, Version};
use super::{ROOT, Seeded};
use crate::common::{Response, read_response};
use serde_json::Value;
use std::io::{self, BufReader, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Threads, each with a connection.
const WRITERS: u64 = 16;
/// Keys of each writer, shared keys, keys for swaps: few, so that versions follow each other.
const KEYS: u64 = 4;
/// Longest silence before an answer counts as unknown.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// What a client waits after an answer that does not say, before it asks for something else.
const BACK_OFF: Duration = Duration::from_millis(5);

/// The threads.
pub(crate) struct Writers {
    threads: Vec<JoinHandle<(Vec<Call>, Vec<Reading>)>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    acknowledged: AtomicU64,
    unclear: AtomicU64,
    doomed: AtomicBool,
    finished: AtomicBool,
}

impl Writers {
    /// Starts them; times are counted from `clock`.
    pub(super) fn start(
        url: &str,
        round: u64,
        seed: u64,
        clock: Instant,
        deadline: Instant,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let threads = (0..WRITERS).map(|number| {
            let mut writer = Writer {
                host: url.trim_start_matches("http://").to_owned(),
                connection: None,
                name: format!("{round}.{number}"),
                number,
                choices: Seeded::new(seed.wrapping_add(number)),
                clock,
                shared: Arc::clone(&shared),
                calls: Vec::new(),
                readings: Vec::new(),
            };
            thread::spawn(move || {
                writer.run(deadline);
                (writer.calls, writer.readings)
            })
        });
        Self { threads: threads.collect(), shared }
    }

    /// Writes acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::SeqCst)
    }

    /// Answers so far that did not say whether the write happened, such as those of a full disk.
    pub(crate) fn unclear(&self) -> u64 {
        self.shared.unclear.load(Ordering::SeqCst)
    }

    /// The daemon is about to die: who loses the connection does not connect again.
    pub(crate) fn doom(&self) {
        self.shared.doomed.store(true, Ordering::SeqCst);
    }

    /// Lets each finish its request, and returns all calls and readings.
    pub(crate) fn finish(self) -> (Vec<Call>, Vec<Reading>) {
        self.shared.doomed.store(true, Ordering::SeqCst);
        self.shared.finished.store(true, Ordering::SeqCst);
        let (mut calls, mut readings) = (Vec::new(), Vec::new());
        for thread in self.threads {
            let (called, read) = thread.join().unwrap();
            calls.extend(called);
            readings.extend(read);
        }
        (calls, readings)
    }
}

struct Writer {
    host: String,
    connection: Option<BufReader<TcpStream>>,
    name: String,
    number: u64,
    choices: Seeded,
    clock: Instant,
    shared: Arc<Shared>,
    calls: Vec<Call>,
    readings: Vec<Reading>,
}

impl Writer {
    fn run(&mut self, deadline: Instant) {
        while !self.shared.finished.load(Ordering::SeqCst) && Instant::now() < deadline {
            if self.connection.is_none() && self.connect().is_err() {
                return;
            }
            if self.act().is_err() {
                self.connection = None;
            }
        }
    }

    fn connect(&mut self) -> io::Result<()> {
        if self.shared.doomed.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        self.connection = Some(connect(&self.host)?);
        Ok(())
    }

    /// One write, of a kind and to a key chosen by the seed. An error is the connection's.
    fn act(&mut self) -> io::Result<()> {
        let key = self.choices.below(KEYS);
        match self.choices.below(100) {
            0..60 => self.write(format!("{ROOT}/own/{}/{key}", self.number), Verb::Put),
            60..84 => self.write(format!("{ROOT}/shared/{key}"), Verb::Put),
            84..88 => self.write(format!("{ROOT}/queue"), Verb::Post),
            _ => self.read_and_swap(format!("{ROOT}/swap/{key}")),
        }
    }

    fn read_and_swap(&mut self, key: String) -> io::Result<()> {
        let begin = nanoseconds(self.clock);
        let response = self.request("GET", &format!("/v2/keys{key}?quorum=true"), "")?;
        let Some(reading) = reading(&response, begin, nanoseconds(self.clock)) else {
            return Ok(());
        };
        let value = reading.versions.first().map(|version| version.value.clone());
        self.readings.push(reading);
        self.write(key, Verb::Swap(value))
    }

    fn write(&mut self, key: String, verb: Verb) -> io::Result<()> {
        let value = self.next_value();
        let body = match &verb {
            Verb::Put | Verb::Post => format!("value={value}"),
            Verb::Swap(Some(old)) => format!("prevValue={old}&value={value}"),
            Verb::Swap(None) => format!("prevExist=false&value={value}"),
        };
        let method = if verb == Verb::Post { "POST" } else { "PUT" };
        let begin = nanoseconds(self.clock);
        let response = self.request(method, &format!("/v2/keys{key}"), &body);
        let outcome = response.as_ref().map_or(Outcome::Unknown, outcome);
        let end = nanoseconds(self.clock);
        match outcome {
            Outcome::Done(..) => _ = self.shared.acknowledged.fetch_add(1, Ordering::SeqCst),
            Outcome::Unknown if response.is_ok() => {
                self.shared.unclear.fetch_add(1, Ordering::SeqCst);
                thread::sleep(BACK_OFF);
            }
            Outcome::Unknown | Outcome::Refused(_) => {}
        }
        self.calls.push(Call { begin, end, key, value, verb, outcome });
        response.map(|_| ())
    }

    /// Some values span several sectors, so that half a record can be written.
    fn next_value(&mut self) -> String {
        let longest = if self.choices.below(16) == 0 { 4_000 } else { 100 };
        let length = usize::try_from(self.choices.below(longest)).unwrap();
        format!("{}.{}.{}", self.name, self.calls.len(), "x".repeat(length))
    }

    fn request(&mut self, method: &str, path: &str, body: &str) -> io::Result<Response> {
        let connection = self.connection.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        request(connection, &self.host, method, path, body)
    }
}

/// Everything below the root, by a linearizable read on a connection of its own.
///
/// # Panics
/// When the daemon does not answer.
#[track_caller]
pub(super) fn read_all(url: &str, clock: Instant) -> Reading {
    let host = url.trim_start_matches("http://");
    let begin = nanoseconds(clock);
    let path = format!("/v2/keys{ROOT}?recursive=true&quorum=true");
    let response = connect(host).and_then(|mut one| request(&mut one, host, "GET", &path, ""));
    let response = response.unwrap_or_else(|error| panic!("GET {url}{path}: {error}"));
    let read = reading(&response, begin, nanoseconds(clock));
    read.unwrap_or_else(|| panic!("GET {url}{path}: {response:?}"))
}

/// Never 0: what stood before the first round was seen at 0.
fn nanoseconds(clock: Instant) -> u64 {
    u64::try_from(clock.elapsed().as_nanos()).unwrap() + 1
}

fn connect(host: &str) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(host)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    Ok(BufReader::new(stream))
}

fn request(
    connection: &mut BufReader<TcpStream>,
    host: &str,
    method: &str,
    path: &str,
    body: &str,
) -> io::Result<Response> {
    let length = body.len();
    let message = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    connection.get_mut().write_all(message.as_bytes())?;
    read_response(connection, false)
}

/// An answer that says too little to be used counts as unknown, which promises nothing.
fn outcome(response: &Response) -> Outcome {
    let body = serde_json::from_str::<Value>(&response.body).unwrap_or_default();
    match response.status {
        200 | 201 => match version(&body["node"]) {
            Some(node) => Outcome::Done(node, version(&body["prevNode"])),
            None => Outcome::Unknown,
        },
        412 => index(response).map_or(Outcome::Unknown, Outcome::Refused),
        _ => Outcome::Unknown,
    }
}

/// What a GET showed; nothing at a missing key. `None` for any other answer.
fn reading(response: &Response, begin: u64, end: u64) -> Option<Reading> {
    let mut reading = Reading { begin, end, index: index(response)?, versions: Vec::new() };
    let body = serde_json::from_str::<Value>(&response.body).ok()?;
    match response.status {
        200 => collect(&body["node"], &mut reading.versions),
        404 if body["errorCode"] == 100 => {}
        _ => return None,
    }
    Some(reading)
}

fn collect(node: &Value, versions: &mut Vec<Version>) {
    versions.extend(version(node));
    for child in node["nodes"].as_array().into_iter().flatten() {
        collect(child, versions);
    }
}

/// `None` for a directory.
fn version(node: &Value) -> Option<Version> {
    let text = |name: &str| node[name].as_str().map(str::to_owned);
    Some(Version {
        key: text("key")?,
        value: text("value")?,
        index: node["modifiedIndex"].as_u64()?,
    })
}

fn index(response: &Response) -> Option<u64> {
    response.header("X-Etcd-Index")?.parse().ok()
}
