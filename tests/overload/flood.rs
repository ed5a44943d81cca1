//! E5: many more requests than can be served.
//!
//! What the daemon can do is made small by a disk whose every flush takes long (`strace` holds the
//! system call up), so that a test's own client can be ten times faster. Requests are put over
//! HTTP/2 on 500 connections, at an even pace and without waiting for answers.

use crate::client::address;
use crate::common::{Daemon, http, program, try_http};
use crate::seen::{Before, megabytes, memory};
use althing::base::limits;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const CONNECTIONS: usize = 500;
/// Requests of each: together more than may wait in front of the core.
const EACH: u32 = 80;
/// The time in which all are sent: ten times as many as the disk takes.
const FLOOD: Duration = Duration::from_secs(4);
/// How long a flush takes, in microseconds; one batch of 1,024 requests waits for each, so that the
/// last of a full queue would wait for 16 s.
const FLUSH_MICROS: u64 = 1_000_000;
/// Between two questions about health: without it they would be a flood of their own.
const PROBE_PAUSE: Duration = Duration::from_millis(5);
/// Every answer comes in this time: the core gives up what waits longer than a request may, as it
/// looks at the clock between two flushes.
const ANSWERED_WITHIN: Duration = Duration::from_millis(limits::REQUEST_TIMEOUT_MS + 8_000);
/// Longest wait for an answer that needs no queue: 50 ms are promised, and both processors are busy.
const AT_ONCE: Duration = Duration::from_secs(10);

/// What the flood may leave behind of its 170 MB: the allocator gives the rest back bit by bit.
const FLOOD_SPARE: u64 = 40 * 1024 * 1024;

/// How a request ended, and after how long.
type Ended = (u16, Duration);

async fn connect(url: &str) -> SendRequest<Full<Bytes>> {
    let socket = tokio::net::TcpStream::connect(address(url)).await.unwrap();
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Puts a value at a given time.
async fn put(mut sender: SendRequest<Full<Bytes>>, url: String, when: Instant) -> Ended {
    tokio::time::sleep_until(when.into()).await;
    let began = Instant::now();
    let form = "application/x-www-form-urlencoded";
    let request = http::Request::put(url).header(http::header::CONTENT_TYPE, form);
    let request = request.body(Full::from("value=1")).unwrap();
    let answer = async {
        sender.ready().await.unwrap();
        let answer = sender.send_request(request).await.expect("no answer");
        let (head, body) = answer.into_parts();
        let has_retry = head.headers.get(http::header::RETRY_AFTER).is_some();
        assert_eq!(head.status == 503, has_retry, "{head:?}");
        body.collect().await.expect("half an answer");
        head.status.as_u16()
    };
    let status = tokio::time::timeout(ANSWERED_WITHIN, answer).await.expect("a request hangs");
    (status, began.elapsed())
}

/// Asks for health now and then, each time on a new connection; gives how often, and the longest
/// wait.
fn probe(url: &str, over: &AtomicBool) -> (usize, Duration) {
    let (mut asked, mut longest) = (0, Duration::ZERO);
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        let health = try_http("GET", &format!("{url}/health"), "").expect("no answer");
        assert_eq!(health.status, 200, "{health:?}");
        longest = longest.max(began.elapsed());
        asked += 1;
        std::thread::sleep(PROBE_PAUSE);
    }
    (asked, longest)
}

/// A daemon on a slow disk.
fn slow_daemon(strace: &std::path::Path) -> Daemon {
    let mut daemon = Daemon::stopped("overload-flood", &[]);
    let inject = format!("inject=fdatasync:delay_enter={FLUSH_MICROS}");
    let words = ["-D", "-f", "--seccomp-bpf", "-qq", "-e", "trace=fdatasync", "-e", &inject];
    let mut runner = vec![strace.display().to_string()];
    runner.extend(words.map(str::to_owned));
    runner.extend(["-o".to_owned(), "/dev/null".to_owned()]);
    daemon.run_under(runner);
    daemon.restart();
    daemon
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e5_ten_times_too_many_requests_are_all_answered_and_the_excess_at_once() {
    let Some(strace) = program("strace") else { return };
    let daemon = slow_daemon(&strace);
    let url = daemon.url().to_owned();
    let before = Before::of(&daemon, "E5 flood");
    let over = Arc::new(AtomicBool::new(false));
    let (asked, ended) = (url.clone(), Arc::clone(&over));
    let probing = std::thread::spawn(move || probe(&asked, &ended));
    let mut flood = JoinSet::new();
    let mut senders = Vec::new();
    for _ in 0..CONNECTIONS {
        let sender = connect(&url).await;
        senders.push(sender);
    }
    let begin = Instant::now();
    for (connection, sender) in senders.iter().enumerate() {
        for number in 0..EACH {
            let url = format!("{url}/v2/keys/e5/{connection}");
            flood.spawn(put(sender.clone(), url, begin + FLOOD * number / EACH));
        }
    }
    let mut ends: BTreeMap<u16, Vec<Duration>> = BTreeMap::new();
    while let Some(ended) = flood.join_next().await {
        let (status, after) = ended.unwrap();
        ends.entry(status).or_default().push(after);
    }
    over.store(true, Ordering::Relaxed);
    let (asked, longest) = probing.join().unwrap();
    for (status, waits) in &mut ends {
        waits.sort_unstable();
        let [first, middle, last] = [0, waits.len() / 2, waits.len() - 1].map(|at| waits[at]);
        eprintln!(
            "E5: {} times {status}, after {first:.1?}, {middle:.1?}, {last:.1?} (first, median, last)",
            waits.len()
        );
    }
    eprintln!(
        "E5: health asked {asked} times, at most {longest:.1?}; {:.1} MB at the end of the flood",
        megabytes(memory(&daemon))
    );
    assert!(ends.keys().all(|status| [200, 201, 500, 503].contains(status)), "{:?}", ends.keys());
    assert!(ends.contains_key(&503) && ends.contains_key(&200), "{:?}", ends.keys());
    assert!(longest < AT_ONCE, "health was answered after {longest:?}");
    drop(senders);
    before.is_back(&daemon, FLOOD_SPARE);
    let put = http("PUT", &format!("{url}/v2/keys/after"), "value=1");
    assert_eq!(put.status, 201, "{put:?}");
}
