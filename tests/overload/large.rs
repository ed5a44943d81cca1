//! E4: keys, values and depths that nobody can mean.

use crate::client::address;
use crate::common::{Daemon, Response, program, read_response, run};
use crate::seen::{Before, MEMORY_SPARE};
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

/// From a request's head to its refusal: 100 ms are promised, on a machine that is not busy.
const REFUSED_WITHIN: Duration = Duration::from_secs(5);
const MEGABYTE: usize = 1024 * 1024;

fn connect(daemon: &Daemon) -> TcpStream {
    let stream = TcpStream::connect(address(daemon.url())).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// A request's head for `path`, whose body is said to be so long.
fn put(path: &str, length: &str) -> String {
    format!(
        "PUT /v2/keys{path} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\n"
    )
}

const CHUNKED: &str = "Transfer-Encoding: chunked";

/// Sends a head, then as much of a body as the server takes, and only then reads the answer, as
/// simple clients do. Gives the answer and how much of the body went out.
#[track_caller]
fn push(daemon: &Daemon, head: &str, piece: &str, pieces: usize) -> (Response, usize) {
    let mut stream = connect(daemon);
    stream.write_all(head.as_bytes()).unwrap();
    let sent = (0..pieces).take_while(|_| stream.write_all(piece.as_bytes()).is_ok()).count();
    let answer = read_response(&mut BufReader::new(stream), false);
    (answer.unwrap_or_else(|error| panic!("the answer is lost: {error}, {sent} sent")), sent)
}

#[test]
fn e4_what_is_too_large_is_refused_at_once_and_unread() {
    let daemon = Daemon::start("overload-large");
    let before = Before::of(&daemon, "E4 what is too large");
    let depth = "/d".repeat(10_000);
    let table = [
        ("a key of 1 MB", put(&format!("/{}", "k".repeat(MEGABYTE)), "Content-Length: 0"), 431),
        ("a depth of 10,000", put(&depth, "Content-Length: 0"), 400),
        ("a value of 30 MB", put("/value", "Content-Length: 30000000"), 413),
    ];
    for (what, head, status) in table {
        let mut stream = connect(&daemon);
        let began = Instant::now();
        // A head that is refused in its middle may not be taken to its end.
        let _ = stream.write_all(head.as_bytes());
        let answer = read_response(&mut BufReader::new(stream), false);
        let answer = answer.unwrap_or_else(|error| panic!("{what}: the answer is lost: {error}"));
        let took = began.elapsed();
        eprintln!("E4: {what}: {} after {took:?}", answer.status);
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        assert!(took < REFUSED_WITHIN, "{what}: refused after {took:?}");
        if status != 431 {
            assert_eq!(answer.json()["errorCode"], 210, "{what}: {answer:?}");
        }
    }
    before.is_back(&daemon, MEMORY_SPARE);
}

/// The refusal of a body has to survive the rest of that body, which is still on its way.
#[test]
fn e4_the_refusal_reaches_a_client_that_sends_on() {
    let daemon = Daemon::start("overload-refusal");
    let before = Before::of(&daemon, "E4 clients that send on");
    let piece = "x".repeat(MEGABYTE / 16);
    let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
    for round in 0..5 {
        // What is not much too large is taken to its end, and the answer follows.
        for (megabytes, head, piece) in [
            (4, put("/a", CHUNKED), &chunk),
            (4, put("/a", "Content-Length: 4194304"), &piece),
            (30, put("/a", CHUNKED), &chunk),
            (30, put("/a", "Content-Length: 31457280"), &piece),
        ] {
            let (answer, sent) = push(&daemon, &head, piece, megabytes * 16);
            assert_eq!(answer.status, 413, "round {round}, {megabytes} MB: {answer:?}");
            assert!(answer.body.contains("2097152"), "{answer:?}");
            assert!(megabytes > 4 || sent == megabytes * 16, "cut after {sent} pieces of 64 KiB");
        }
        // So is a body where none is wanted.
        let wrong = put("/a", "Content-Length: 4194304").replace("/v2/keys/a", "/nothing");
        assert_eq!(push(&daemon, &wrong, &piece, 64).0.status, 404);
    }
    before.is_back(&daemon, MEMORY_SPARE);
}

/// The connection ends cleanly: the client sees the end of the stream, not a reset.
#[test]
fn e4_a_refusal_ends_without_a_reset() {
    let daemon = Daemon::start("overload-reset");
    for _ in 0..20 {
        let mut stream = connect(&daemon);
        stream.write_all(put("/a", "Content-Length: 4194304").as_bytes()).unwrap();
        stream.write_all(&[b'x'; 4 * MEGABYTE]).unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).unwrap();
        assert!(heard.starts_with("HTTP/1.1 413 "), "{heard}");
    }
}

/// A real client, which gives up at the first error of its socket.
#[test]
fn e4_curl_shows_the_refusal_of_a_body_it_is_still_sending() {
    let Some(curl) = program("curl") else { return };
    let daemon = Daemon::start("overload-curl");
    let body = daemon.home().join("body");
    std::fs::write(&body, vec![b'x'; 30 * MEGABYTE]).unwrap();
    let url = format!("{}/v2/keys/a", daemon.url());
    for more in [["-H", "Expect:"], ["-H", CHUNKED]] {
        let mut command = Command::new(&curl);
        command.args(["-sS", "-X", "PUT", "-o", "/dev/null", "-w", "%{http_code}"]);
        command.args(["-H", "Content-Type: application/x-www-form-urlencoded", "-H", "Expect:"]);
        command.args(more).arg("--data-binary").arg(format!("@{}", body.display())).arg(&url);
        let said = run(&mut command, daemon.home(), Duration::from_secs(30));
        assert!(said.status.success() && said.stdout == "413", "{more:?}: {said:?}");
    }
}
