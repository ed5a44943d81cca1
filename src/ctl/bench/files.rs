//! The line of rendered files: how long after the answer to a write its file is replaced.
//!
//! Why beside confd: a store alone changes no file. Althing renders in its own daemon; etcd gets
//! a confd that watches it, with the same templates and the same keys.
//!
//! How data passes: `Folders` writes resources and templates in the words of each contender;
//! `fill` sets all keys and waits for all files. Then, again and again, one key is set and the
//! folder of the files is watched with inotify: nobody polls, as that would take a processor from
//! the server.
//!
//! Invariants:
//! * A change counts when the file holds the very value that was set.
//! * Each wait ends: at `BENCH_STALL_SECONDS`.
//!
//! Deliberately not here: checks and reloads, whose time is that of the service.
//!
//! Sources: inotify(7); etcd's gRPC gateway (`/v3/kv/put`, keys and values in base64).

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::inotify;

use crate::base::limits::BENCH_STALL_SECONDS;
use crate::ctl::bench::BenchError;
use crate::ctl::bench::http::{Connection, HttpError};
use crate::ctl::bench::server::{Contender, ServerError};
use crate::ctl::bench::stats::Histogram;

/// Resources, each with a key, a template and a file of its own.
const TEMPLATES: usize = 20;
/// Time between two changes, so that each finds the servers at rest.
const PAUSE: Duration = Duration::from_millis(20);

/// Where the renderer of one contender finds its resources and puts its files.
#[derive(Clone, Debug)]
pub struct Folders {
    /// Holds `conf.d/` and `templates/`.
    pub confdir: PathBuf,
    output: PathBuf,
}

impl Folders {
    /// The folders that belong to a data directory; nothing is made.
    #[must_use]
    pub fn beside(data: &Path) -> Self {
        Self { confdir: data.with_extension("confdir"), output: data.with_extension("files") }
    }

    /// Writes the resources of `who`, and makes the folder of the files.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn write(&self, who: Contender) -> Result<(), ServerError> {
        let written = || {
            let (resources, templates) =
                (self.confdir.join("conf.d"), self.confdir.join("templates"));
            for folder in [&resources, &templates, &self.output] {
                fs::create_dir_all(folder)?;
            }
            for number in 0..TEMPLATES {
                let (key, dest) = (key(number), self.file(number));
                let (src, template) = match who {
                    Contender::Etcd => {
                        (format!("{number}.tmpl"), format!("value = {{{{getv \"{key}\"}}}}\n"))
                    }
                    Contender::Althing | Contender::Null => (
                        format!("{number}.tera"),
                        format!("value = {{{{ getv(key=\"{key}\") }}}}\n"),
                    ),
                };
                let resource = format!(
                    "[template]\nsrc = \"{src}\"\ndest = \"{}\"\nkeys = [\"{key}\"]\n",
                    dest.display()
                );
                fs::write(resources.join(format!("{number}.toml")), resource)?;
                fs::write(templates.join(src), template)?;
            }
            Ok(())
        };
        written().map_err(ServerError::system("write resources to", &self.confdir))
    }

    fn file(&self, number: usize) -> PathBuf {
        self.output.join(format!("{number}.conf"))
    }
}

fn key(number: usize) -> String {
    format!("/bench-files/{number}")
}

fn content(value: &str) -> String {
    format!("value = {value}\n")
}

/// A PUT in the words of the API that the contender's renderer reads from.
fn put_request(who: Contender, target: SocketAddr, key: &str, value: &str) -> String {
    let (line, kind, body) = match who {
        Contender::Etcd => {
            let (key, value) = (BASE64_STANDARD.encode(key), BASE64_STANDARD.encode(value));
            let body = format!("{{\"key\":\"{key}\",\"value\":\"{value}\"}}");
            ("POST /v3/kv/put".to_owned(), "application/json", body)
        }
        Contender::Althing | Contender::Null => {
            let form = "application/x-www-form-urlencoded";
            (format!("PUT /v2/keys{key}"), form, format!("value={value}"))
        }
    };
    format!(
        "{line} HTTP/1.1\r\nHost: {target}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n\
         {body}",
        body.len()
    )
}

/// One writer and one watcher of the files.
pub struct Changes {
    runtime: tokio::runtime::Runtime,
    connection: Connection,
    who: Contender,
    target: SocketAddr,
    folders: Folders,
    inotify: OwnedFd,
    made: u64,
}

impl Changes {
    /// Connects, and begins to watch.
    ///
    /// # Errors
    /// If the server or the folder cannot be reached.
    pub fn begin(who: Contender, target: SocketAddr, folders: Folders) -> Result<Self, BenchError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(BenchError::Runtime)?;
        let connection = runtime.block_on(Connection::open(target)).map_err(BenchError::Http)?;
        let watched = || {
            let inotify =
                inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
            let events = inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::CLOSE_WRITE;
            inotify::add_watch(&inotify, &folders.output, events)?;
            Ok::<_, io::Error>(inotify)
        };
        let inotify = watched().map_err(ServerError::system("watch", &folders.output))?;
        Ok(Self { runtime, connection, who, target, folders, inotify, made: 0 })
    }

    /// Sets every key, so that every template can be rendered.
    ///
    /// # Errors
    /// If a write is refused.
    pub fn set_all(&mut self) -> Result<(), BenchError> {
        for number in 0..TEMPLATES {
            self.put(number, "first")?;
        }
        Ok(())
    }

    /// Waits until every file is there.
    ///
    /// # Errors
    /// `Stalled`.
    pub fn wait_for_all(&mut self) -> Result<(), BenchError> {
        let deadline = deadline();
        (0..TEMPLATES).try_for_each(|number| self.wait_for(number, "first", deadline).map(|_| ()))
    }

    /// Changes one file after another for `time`: the time from the answer to the new file, p50
    /// and p99 in milliseconds.
    ///
    /// # Errors
    /// If a write is refused or a file does not follow.
    pub fn measure(&mut self, time: Duration) -> Result<Vec<f64>, BenchError> {
        let (end, mut took) = (Instant::now() + time, Histogram::default());
        let process = std::process::id();
        for number in (0..TEMPLATES).cycle() {
            if Instant::now() >= end {
                break;
            }
            self.made += 1;
            let value = format!("{process}-{}", self.made);
            let answered = self.put(number, &value)?;
            let replaced = self.wait_for(number, &value, deadline())?;
            // A watch event may be quicker than the answer.
            let latency = replaced.saturating_duration_since(answered);
            took.record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
            std::thread::sleep(PAUSE);
        }
        Ok(vec![ms(took.quantile_ns(500)), ms(took.quantile_ns(990))])
    }

    /// When the write was answered.
    fn put(&mut self, number: usize, value: &str) -> Result<Instant, BenchError> {
        let request = put_request(self.who, self.target, &key(number), value);
        let connection = &mut self.connection;
        let (status, _) = self
            .runtime
            .block_on(async {
                connection.send(request.as_bytes()).await?;
                connection.receive().await
            })
            .map_err(BenchError::Http)?;
        let answered = Instant::now();
        if !(200..300).contains(&status) {
            return Err(BenchError::Http(HttpError::Malformed("a write of a key was refused")));
        }
        Ok(answered)
    }

    /// When the file was seen to hold `value`.
    fn wait_for(
        &mut self,
        number: usize,
        value: &str,
        deadline: Instant,
    ) -> Result<Instant, BenchError> {
        let (file, wanted) = (self.folders.file(number), content(value));
        loop {
            let seen = Instant::now();
            if fs::read_to_string(&file).is_ok_and(|found| found == wanted) {
                return Ok(seen);
            }
            let left = deadline.saturating_duration_since(seen);
            if left.is_zero() {
                return Err(BenchError::Stalled { what: "bring a file up to date" });
            }
            self.next_event(left).map_err(ServerError::system("watch", &file))?;
        }
    }

    /// Waits for something to happen in the folder of the files.
    fn next_event(&self, at_most: Duration) -> io::Result<()> {
        let mut ready = [PollFd::new(&self.inotify, PollFlags::IN)];
        let at_most = Timespec::try_from(at_most).map_err(io::Error::other)?;
        rustix::event::poll(&mut ready, Some(&at_most))?;
        let mut buffer = [MaybeUninit::uninit(); 4_096];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        // What happened is seen in the file itself; the events are only taken off the queue.
        while events.next().is_ok() {}
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "latencies stay below 2^53 ns")]
fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(BENCH_STALL_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_contender_gets_its_own_words() {
        let target = SocketAddr::from(([127, 0, 0, 1], 2379));
        let put = put_request(Contender::Etcd, target, "/a", "v");
        assert!(put.ends_with("\r\n\r\n{\"key\":\"L2E=\",\"value\":\"dg==\"}"), "{put}");
        let put = put_request(Contender::Althing, target, "/a", "v");
        assert!(put.starts_with("PUT /v2/keys/a ") && put.ends_with("\r\n\r\nvalue=v"), "{put}");
    }

    #[test]
    fn a_server_that_renders_nothing_stalls() {
        fs::create_dir_all("target").unwrap();
        let place = tempfile::tempdir_in("target").unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let folders = Folders::beside(&place.path().join("data"));
        folders.write(Contender::Althing).unwrap();
        let target = listener.local_addr().unwrap();
        let mut changes = Changes::begin(Contender::Althing, target, folders).unwrap();
        let soon = Instant::now() + Duration::from_millis(20);
        let stalled = changes.wait_for(0, "x", soon).unwrap_err();
        assert!(matches!(stalled, BenchError::Stalled { .. }), "{stalled}");
        fs::write(changes.folders.file(0), "value = x\n").unwrap();
        assert!(changes.wait_for(0, "x", deadline()).is_ok());
    }
}
