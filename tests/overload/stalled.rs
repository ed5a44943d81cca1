//! E2: a client that asks and does not read what it asked for.

use crate::client::{Lags, Told, Watcher, Writer, address, value};
use crate::common::{Daemon, wait_until};
use crate::seen::{Before, MEMORY_SPARE, descriptors};
use althing::base::limits;
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// Room of a client's socket, so that it is full soon.
const WINDOW: u32 = 16 * 1024;
const VALUE_BYTES: usize = 8 * 1024;
/// Writes of one round: their events, which carry the value before too, are many times what
/// sockets hold.
const WRITES: u64 = 400;
const OTHERS: usize = 4;
/// An answer larger than what sockets hold, and how many ask for it.
const LARGE_BYTES: usize = 1024 * 1024;
const ASKERS: usize = 20;
/// From the last byte a client took to its end.
const CUT_WITHIN: Duration = Duration::from_millis(limits::ANSWER_STALL_MS + 25_000);

async fn ask_and_not_read(url: &str, path: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(WINDOW).unwrap();
    let mut stream = socket.connect(address(url)).await.unwrap();
    let request = format!("GET /v2/keys{path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Watches and expects all of a round's events; gives the next index.
async fn follow(mut watcher: Watcher, lags: Arc<Lags>) -> Watcher {
    for number in 0..WRITES {
        let told = watcher.next(Some(&lags)).await.expect("a watcher that reads was cut");
        assert_eq!(told.number, number, "an event is missing, doubled, or out of order");
    }
    watcher
}

/// Writes a round while the others watch; gives them back, and how late they were.
async fn round(url: &str, others: Vec<Watcher>) -> (Vec<Watcher>, Arc<Lags>) {
    let lags = Arc::new(Lags::new());
    let mut following = JoinSet::new();
    for watcher in others {
        following.spawn(follow(watcher, Arc::clone(&lags)));
    }
    let mut connection = Writer::connect(url).await;
    for number in 0..WRITES {
        let status = connection.put("/e2/key", &value(number, lags.now(), VALUE_BYTES)).await;
        assert!(matches!(status, 200 | 201), "{status}");
    }
    (following.join_all().await, lags)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e2_clients_that_never_read_are_cut_and_cost_the_others_nothing() {
    let daemon = Daemon::start("overload-stalled");
    let url = daemon.url();
    let mut others = Vec::new();
    for _ in 0..OTHERS {
        others.push(Watcher::open(url, "/e2", 0, None).await);
    }
    let large = "x".repeat(LARGE_BYTES);
    assert_eq!(Writer::connect(url).await.put("/large", &large).await, 201);
    let (others, quiet) = round(url, others).await;
    let before = Before::of_busy(&daemon, "E2 clients that never read");
    let mut silent = Watcher::open(url, "/e2", 0, Some(WINDOW)).await;
    let (others, disturbed) = round(url, others).await;
    let late = [&quiet, &disturbed].map(|lags| lags.below(990));
    eprintln!("E2: p99 of the others {} ms without it, {} ms with it", late[0], late[1]);
    assert!(late[1] <= late[0] * 5 + 100, "the others became slow: {late:?} ms");
    // Held meanwhile: two sockets' and hyper's buffers and one batch, not the round's 6 MB.
    // The same for plain answers.
    let mut askers = Vec::new();
    for _ in 0..ASKERS {
        askers.push(ask_and_not_read(url, "/large").await);
    }
    wait_until("all of them are cut", CUT_WITHIN, || descriptors(&daemon) <= before.descriptors());
    before.is_back(&daemon, MEMORY_SPARE);
    // What it finds in its socket is the beginning of the truth, and the rest is there to be had.
    let (mut last, mut next) = (None::<Told>, 0);
    while let Some(told) = silent.next(None).await {
        assert_eq!(told.number, next);
        (last, next) = (Some(told), next + 1);
    }
    assert!((1..WRITES / 4).contains(&next), "{next} events were in buffers");
    let mut again = Watcher::open(url, "/e2", last.unwrap().index + 1, None).await;
    for number in next..WRITES {
        assert_eq!(again.next(None).await.unwrap().number, number);
    }
    for asker in askers {
        let mut asker = asker.into_std().unwrap();
        asker.set_nonblocking(false).unwrap();
        let mut heard = Vec::new();
        let _ = asker.read_to_end(&mut heard);
        assert!(heard.starts_with(b"HTTP/1.1 200") && heard.len() < LARGE_BYTES);
    }
    drop(others);
}
