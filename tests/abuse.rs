//! What a hostile client, web page or key may try, and what must come of it.
//!
//! One test a line of the threat model, named after what is refused. The daemon under test is the
//! whole program on loopback; clients are raw sockets, as no client library sends such bytes.
//! `abuse/files.rs` is about what stored bytes and other users can do to rendered files.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

#[path = "abuse/files.rs"]
mod files;

use common::{Daemon, Response, http, program, read_response, try_http, wait_until};
use std::fmt::Write as _;
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

/// Longest wait for what is promised within ten seconds, on a busy machine.
const CUT_WITHIN: Duration = Duration::from_secs(30);

/// Connects and sends bytes.
fn say(daemon: &Daemon, bytes: &[u8]) -> TcpStream {
    let address = daemon.url().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(CUT_WITHIN)).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

/// Sends one request, byte by byte as it stands here, and reads the answer.
#[track_caller]
fn ask(daemon: &Daemon, request: &str) -> Response {
    let stream = say(daemon, request.as_bytes());
    read_response(&mut BufReader::new(stream), request.starts_with("HEAD")).unwrap()
}

/// A request with a form, to this host unless a header says otherwise.
fn form(method: &str, path: &str, headers: &str, body: &str) -> String {
    let host = if headers.contains("Host:") { "" } else { "Host: localhost\r\n" };
    format!(
        "{method} {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn get(daemon: &Daemon, path: &str) -> Response {
    http("GET", &format!("{}{path}", daemon.url()), "")
}

/// A1: a name that was made to resolve to this host.
#[test]
fn a_foreign_host_name_is_refused_on_loopback() {
    let daemon = Daemon::start("abuse-host");
    for path in ["/v2/keys/", "/version", "/metrics", "/", "/v2/members", "/althing/v1/status"] {
        let answer = ask(&daemon, &form("GET", path, "Host: evil.example\r\n", ""));
        assert_eq!(answer.status, 403, "{path}: {answer:?}");
    }
    assert_eq!(ask(&daemon, &form("GET", "/v2/keys/", "", "")).status, 200);
}

/// A2, A3, A4: what a web page can make a browser send.
#[test]
fn web_pages_are_refused_and_change_nothing() {
    let daemon = Daemon::start("abuse-pages");
    let page = "Origin: http://evil.example\r\n";
    assert_eq!(ask(&daemon, &form("POST", "/v2/keys/q", page, "value=x")).status, 403);
    assert_eq!(ask(&daemon, &form("PUT", "/v2/keys/q", page, "value=x")).status, 403);
    let image = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Dest: image\r\n";
    assert_eq!(ask(&daemon, &form("GET", "/v2/keys/", image, "")).status, 403);
    let v3 = format!(
        "POST /v3/kv/put HTTP/1.1\r\nHost: localhost\r\n{page}Connection: close\r\n\
         Content-Type: text/plain\r\nContent-Length: 29\r\n\r\n{{\"key\":\"Zg==\",\"value\":\"Zg==\"}}"
    );
    assert_eq!(ask(&daemon, &v3).status, 403);
    assert_eq!(get(&daemon, "/v2/keys/q").status, 404);
    assert_eq!(get(&daemon, "/v2/keys/f").status, 404);
    for request in [form("HEAD", "/v2/keys/", page, ""), form("OPTIONS", "/v2/keys/", page, "")] {
        let answer = ask(&daemon, &request);
        let told = answer
            .headers
            .iter()
            .filter(|(name, _)| name.to_ascii_lowercase().starts_with("access-control"));
        assert_eq!(told.count(), 0, "{answer:?}");
    }
}

/// A23: etcd turns these into keys that never expire, or that were never there.
#[test]
fn a_ttl_beyond_ten_years_is_refused() {
    let daemon = Daemon::start("abuse-ttl");
    for ttl in ["99999999999", "9223372036854775807", "18446744073709551615", "-1", "1e3", "x"] {
        let answer = http("PUT", &format!("{}/v2/keys/x?ttl={ttl}", daemon.url()), "value=1");
        assert_eq!((answer.status, answer.json()["errorCode"].as_u64()), (400, Some(202)), "{ttl}");
    }
    assert_eq!(get(&daemon, "/v2/keys/x").status, 404);
    let ten_years = 10 * 365 * 86_400;
    let answer = http("PUT", &format!("{}/v2/keys/x?ttl={ten_years}", daemon.url()), "value=1");
    assert_eq!(answer.status, 201, "{answer:?}");
}

/// Memory of the daemon in bytes.
fn resident_bytes(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
}

#[test]
fn what_is_too_large_is_refused_with_its_bound() {
    let daemon = Daemon::start("abuse-large");
    let refused = |request: &str, status: u16, bound: &str| {
        let answer = ask(&daemon, request);
        let body = answer.json();
        assert_eq!((answer.status, body["errorCode"].as_u64()), (status, Some(210)), "{body}");
        assert!(body["cause"].as_str().unwrap().contains(bound), "{body}");
    };
    let value = format!("value={}", "x".repeat(1536 * 1024 + 1));
    refused(&form("PUT", "/v2/keys/a", "", &value), 413, "1572864");
    refused(&form("PUT", &format!("/v2/keys/{}", "k".repeat(16 * 1024)), "", ""), 400, "16384");
    refused(&form("PUT", &format!("/v2/keys{}", "/d".repeat(129)), "", "value=1"), 400, "128");
    let fits = format!("value={}", "x".repeat(1536 * 1024));
    assert_eq!(ask(&daemon, &form("PUT", "/v2/keys/fits", "", &fits)).status, 201);

    // 30 MB are refused before they are sent.
    let before = resident_bytes(&daemon);
    let announced = form("PUT", "/v2/keys/a", "", "").replace("Length: 0", "Length: 30000000");
    let began = Instant::now();
    refused(&announced, 413, "2097152");
    assert!(began.elapsed() < Duration::from_secs(2), "took {:?}", began.elapsed());
    // So is a body that does not say how long it is, when it has become too long.
    let mut stream = say(
        &daemon,
        b"PUT /v2/keys/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\
          Content-Type: application/x-www-form-urlencoded\r\n\r\n",
    );
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    // The server may close in the middle of what it does not want.
    let sent = (0..480).take_while(|_| stream.write_all(chunk.as_bytes()).is_ok()).count();
    assert!(sent < 480, "thirty megabytes were taken");
    assert!(resident_bytes(&daemon) < before + 16 * 1024 * 1024);
    assert_eq!(get(&daemon, "/v2/keys/a").status, 404);
}

#[test]
fn a_head_too_large_is_refused() {
    let daemon = Daemon::start("abuse-head");
    let mut headers = String::new();
    for number in 0..70 {
        let _ = write!(headers, "X-{number}: {}\r\n", "y".repeat(1_024));
    }
    assert_eq!(ask(&daemon, &form("GET", "/v2/keys/", &headers, "")).status, 431);
    let many = (0..200).fold(String::new(), |mut many, n| {
        let _ = write!(many, "X-{n}: 1\r\n");
        many
    });
    assert_eq!(ask(&daemon, &form("GET", "/v2/keys/", &many, "")).status, 431);
    assert_eq!(get(&daemon, "/health").status, 200);
}

/// Slow heads and bodies are cut, each within seconds of what is allowed; who waits for an event,
/// or rests between two requests, is not.
#[test]
fn slow_clients_lose_their_place_and_patient_ones_do_not() {
    let daemon = Daemon::start("abuse-slow");
    let began = Instant::now();
    let silent = say(&daemon, b"");
    let half = say(&daemon, b"GET /v2/keys/ HT");
    let stalled = say(
        &daemon,
        b"PUT /v2/keys/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\
          Content-Type: application/x-www-form-urlencoded\r\n\r\nvalue=",
    );
    let mut trickle = say(&daemon, b"GET /v2/keys/ HTTP/1.1\r\nX-Slow: ");
    let poll = say(&daemon, b"GET /v2/keys/p?wait=true HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut resting = say(&daemon, b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut first = [0; 15];
    resting.read_exact(&mut first).unwrap();
    let dripping = thread::spawn(move || {
        while trickle.write_all(b"a").is_ok() {
            thread::sleep(Duration::from_millis(100));
            assert!(began.elapsed() < CUT_WITHIN, "a head may be sent byte by byte");
        }
    });
    // A stalled body is told what is wrong; a head that never ends has nobody to tell.
    let answer = read_response(&mut BufReader::new(stalled), false).unwrap();
    assert_eq!((answer.status, answer.json()["errorCode"].as_u64()), (408, Some(210)));
    for mut stream in [silent, half] {
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "an answer to nothing");
    }
    dripping.join().unwrap();
    assert!(began.elapsed() >= Duration::from_secs(9), "cut after {:?}", began.elapsed());
    assert_eq!(http("PUT", &format!("{}/v2/keys/p", daemon.url()), "value=1").status, 201);
    let event = read_response(&mut BufReader::new(poll), false).unwrap();
    assert_eq!(event.json()["node"]["value"], "1");
    resting.write_all(b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut rest = Vec::new();
    while !rest.ends_with(b"}") {
        let mut byte = [0];
        assert_eq!(resting.read(&mut byte).unwrap(), 1, "a resting connection was cut");
        rest.push(byte[0]);
    }
}

/// With few descriptors, clients that only sit there are turned away, and the member lives on.
#[test]
fn connections_are_bounded_and_places_become_free_again() {
    let Some(prlimit) = program("prlimit") else { return };
    let mut daemon = Daemon::stopped("abuse-connections", &[]);
    daemon.run_under(vec![prlimit.display().to_string(), "--nofile=320:320".into()]);
    daemon.restart();
    let mut idle: Vec<TcpStream> = (0..64).map(|_| say(&daemon, b"")).collect();
    let mut extra = say(&daemon, b"");
    let mut told = String::new();
    let _ = extra.read_to_string(&mut told);
    assert!(told.starts_with("HTTP/1.1 503 ") && told.contains("Retry-After"), "{told:?}");
    idle.clear();
    let health = format!("{}/health", daemon.url());
    wait_until("there is a place again", CUT_WITHIN, || {
        try_http("GET", &health, "").is_ok_and(|answer| answer.status == 200)
    });
    let put = http("PUT", &format!("{}/v2/keys/after", daemon.url()), "value=1");
    assert_eq!(put.status, 201, "{put:?}");
}

/// Bytes that are no HTTP end their connection and nothing else.
#[test]
fn nonsense_ends_its_connection_alone() {
    let mut daemon = Daemon::start("abuse-nonsense");
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let http2 = |frames: &[u8]| [preface.as_slice(), frames].concat();
    let nonsense: Vec<Vec<u8>> = vec![
        vec![0; 4_096],
        b"\xff\xfe\xfd".repeat(100),
        b"GET\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"GET /%zz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_vec(),
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n".to_vec(),
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_vec(),
        b"PUT /v2/keys/a HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\n\
          Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n"
            .to_vec(),
        // A frame of 16 MB, a HEADERS frame for stream 0, and broken header compression.
        http2(b"\xff\xff\xff\x00\x00\x00\x00\x00\x01"),
        http2(b"\x00\x00\x01\x01\x05\x00\x00\x00\x00\x82"),
        http2(b"\x00\x00\x04\x01\x05\x00\x00\x00\x01\xff\xff\xff\xff"),
        // The first record of a TLS handshake.
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
    ];
    for bytes in nonsense {
        let mut stream = say(&daemon, &bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut heard = Vec::new();
        // Reset or closed, with or without a word.
        let _ = stream.read_to_end(&mut heard);
        assert!(!heard.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&heard));
        assert_eq!(get(&daemon, "/health").status, 200, "after {}", bytes.escape_ascii());
    }
    assert!(!daemon.has_ended());
}
