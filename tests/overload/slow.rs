//! E6: clients that hold their place and do nothing with it.

use crate::client::{address, value};
use crate::common::{Daemon, http, try_http, wait_for};
use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, Raw, frame, request,
};
use crate::seen::{Before, MEMORY_SPARE, allow_descriptors, descriptors};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::handshake;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Longest wait for what is promised within twenty seconds, on a busy machine.
const CUT_WITHIN: Duration = Duration::from_secs(45);
/// What one connection that sent nothing may cost while it lasts, in bytes.
const IDLE_BYTES_MAX: u64 = 20 * 1_000;

const HALF_HEAD: &[u8] = b"GET /v2/keys/ HTTP/1.1\r\nX-Half: ";
const HALF_BODY: &[u8] = b"PUT /v2/keys/e6 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\
    Content-Type: application/x-www-form-urlencoded\r\n\r\nvalue=";

#[test]
fn e6_thousands_of_silent_clients_lose_their_places_and_leave_nothing() {
    const EACH: usize = 700;
    assert!(allow_descriptors(4_000), "descriptors for so many clients");
    let daemon = Daemon::start("overload-slow");
    let before = Before::of(&daemon, "E6 silent clients");
    let mut held = Vec::new();
    for bytes in [b"".as_slice(), HALF_HEAD, HALF_BODY].repeat(EACH) {
        let mut stream = TcpStream::connect(address(daemon.url())).unwrap();
        stream.write_all(bytes).unwrap();
        held.push(stream);
    }
    let all = before.descriptors() + held.len();
    wait_for("all have a place, or the first has lost it", CUT_WITHIN, || {
        let now = descriptors(&daemon);
        (now >= all || before.elapsed() > Duration::from_secs(9)).then_some(())
    });
    // They hold places, not the daemon.
    let put = http("PUT", &format!("{}/v2/keys/meanwhile", daemon.url()), "value=1");
    assert_eq!(put.status, 201, "{put:?}");
    before.costs_at_most(&daemon, held.len() as u64 * IDLE_BYTES_MAX + MEMORY_SPARE);
    before.is_back(&daemon, MEMORY_SPARE);
    drop(held);
}

/// What an HTTP/2 client may begin and not finish.
fn unfinished() -> Vec<(&'static str, Vec<u8>)> {
    let get = request("GET", "/v2/keys/");
    let put = |stream| frame(HEADERS, END_HEADERS, stream, &request("PUT", "/v2/keys/e6"));
    let bodies = (0..50).flat_map(|n| [put(2 * n + 1), frame(DATA, 0, 2 * n + 1, b"value=")]);
    vec![
        ("settings and nothing else", Vec::new()),
        ("half a frame's head", frame(HEADERS, END_HEADERS, 1, &get)[..5].to_vec()),
        ("half a header block", frame(HEADERS, END_HEADERS | END_STREAM, 1, &get)[..20].to_vec()),
        ("no end of headers", frame(HEADERS, END_STREAM, 1, &get)),
        ("bodies that never come", put(1)),
        ("bodies that stall", bodies.flatten().collect()),
        ("half of a body's frame", [put(1), frame(DATA, 0, 1, b"value=1")[..12].to_vec()].concat()),
    ]
}

/// Puts them all to the daemon and waits until each is cut.
fn are_cut(daemon: &Daemon) {
    let before = Before::of_busy(daemon, "E6 HTTP/2 clients that stop");
    let began = Instant::now();
    let clients = unfinished().into_iter().map(|(what, bytes)| {
        let mut client = Raw::connect(daemon.url(), CUT_WITHIN);
        client.say(&bytes).unwrap();
        (what, client)
    });
    for (what, mut client) in clients.collect::<Vec<_>>() {
        client.hear(usize::MAX);
        eprintln!("E6: {what}: cut after {:.1} s", began.elapsed().as_secs_f64());
    }
    before.is_back(daemon, MEMORY_SPARE);
}

/// Beside them a long poll over HTTP/2 outlasts everything that cuts the silent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e6_http2_clients_that_stop_in_the_middle_are_cut_and_one_that_waits_is_not() {
    let daemon = Daemon::start("overload-http2");
    let socket = tokio::net::TcpStream::connect(address(daemon.url())).await.unwrap();
    let (mut sender, connection) =
        handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
    let driving = tokio::spawn(connection);
    let url = format!("{}/v2/keys/e6?wait=true", daemon.url());
    let asked = http::Request::get(url).body(Empty::<Bytes>::new()).unwrap();
    let answer = sender.send_request(asked).await.unwrap();
    let waiting = tokio::task::spawn_blocking(move || {
        are_cut(&daemon);
        assert_eq!(http("PUT", &format!("{}/v2/keys/e6", daemon.url()), "value=late").status, 201);
        daemon
    });
    let _daemon = waiting.await.unwrap();
    let event = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(event.windows(4).any(|word| word == b"late"), "{event:?}");
    drop(sender);
    driving.await.unwrap().unwrap();
}

#[test]
fn e6_floods_of_http2_frames_end_their_connection_alone() {
    let mut daemon = Daemon::start("overload-frames");
    let before = Before::of(&daemon, "E6 floods of frames");
    let get = request("GET", "/v2/keys/");
    // "Rapid reset": requests that are taken back before they are looked at.
    let reset = |n: u32| {
        let cancel = frame(RST_STREAM, 0, 2 * n + 1, &8_u32.to_be_bytes());
        [frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &get), cancel].concat()
    };
    // Headers without end.
    let endless = |n: u32| match n {
        0 => frame(HEADERS, END_STREAM, 1, &get),
        _ => frame(CONTINUATION, 0, 1, &[0x00, 1, b'x', 1, b'y'].repeat(1_000)),
    };
    for (what, flood) in [("resets", &reset as &dyn Fn(u32) -> Vec<u8>), ("headers", &endless)] {
        let mut client = Raw::connect(daemon.url(), CUT_WITHIN);
        let sent = (0..100_000).take_while(|n| client.say(&flood(*n)).is_ok()).count();
        let heard = client.hear(usize::MAX);
        let told = heard.iter().any(|(kind, _)| *kind == GOAWAY);
        eprintln!("E6: flood of {what}: {sent} were taken, told to go away: {told}");
        assert!(sent < 100_000 || told, "a flood of {what} was taken: {heard:?}");
        let health = try_http("GET", &format!("{}/health", daemon.url()), "").unwrap();
        assert_eq!(health.status, 200);
    }
    before.is_back(&daemon, MEMORY_SPARE);
    let put = http(
        "PUT",
        &format!("{}/v2/keys/after", daemon.url()),
        &format!("value={}", value(1, 0, 0)),
    );
    assert_eq!(put.status, 201, "{put:?}");
    assert!(!daemon.has_ended());
}
