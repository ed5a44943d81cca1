//! The helpers of the other tests, tested: a harness that cannot fail proves nothing.

mod common;

use common::{Daemon, http, program, read_response, run, scratch, try_http, wait_until};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn the_client_reads_every_kind_of_body() {
    let read = |text: &str| read_response(&mut text.as_bytes(), false);
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                   5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n";
    assert_eq!(read(chunked).unwrap().body, "hello world");
    let sized = "HTTP/1.1 404 Not Found\r\nX-A: b \r\nContent-Length: 2\r\n\r\nnot this";
    let sized = read(sized).unwrap();
    assert_eq!((sized.status, sized.body.as_str(), sized.header("x-a")), (404, "no", Some("b")));
    assert_eq!(read("HTTP/1.1 200 OK\r\n\r\nto the end").unwrap().body, "to the end");
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
    assert_eq!(read_response(&mut head.as_bytes(), true).unwrap().body, "");
}

#[test]
fn the_client_refuses_half_an_answer() {
    let read = |text: &str| read_response(&mut text.as_bytes(), false);
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    for cut in [0, 1, 20, chunked.len() - 7, chunked.len() - 2] {
        assert!(read(&chunked[..cut]).is_err(), "cut at {cut}");
    }
    assert!(read("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort").is_err());
    assert!(read("SSH-2.0-x\r\n\r\n").is_err());
    assert!(try_http("GET", "/no/host", "").is_err());
}

#[test]
fn waiting_ends_at_its_deadline() {
    let mut looks = 0;
    wait_until("the third look", Duration::from_secs(5), || {
        looks += 1;
        looks == 3
    });
    let never = || wait_until("never", Duration::from_millis(20), || false);
    assert!(catch_unwind(AssertUnwindSafe(never)).is_err());
}

#[test]
fn a_command_is_heard_out_or_killed() {
    let folder = scratch("harness");
    let mut speak = Command::new("sh");
    speak.args(["-c", "echo out; echo err >&2; exit 3"]);
    let finished = run(&mut speak, folder.path(), Duration::from_secs(10));
    assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(finished.status.code(), Some(3));
    let start = Instant::now();
    let hang = || run(Command::new("sleep").arg("60"), folder.path(), Duration::from_millis(50));
    assert!(catch_unwind(AssertUnwindSafe(hang)).is_err());
    assert!(start.elapsed() < Duration::from_secs(30), "it was waited for, not killed");
}

#[test]
fn a_program_is_found_on_the_path() {
    assert!(program("sh").is_some_and(|path| path.is_absolute()));
}

#[test]
fn the_daemon_is_killed_ended_and_started_again() {
    let mut daemon = Daemon::start("harness");
    let put = http("PUT", &format!("{}/v2/keys/seat", daemon.url()), "value=taken");
    assert_eq!(put.status, 201, "{put:?}");
    daemon.kill9();
    assert!(try_http("GET", &format!("{}/health", daemon.url()), "").is_err());
    for _ in 0..2 {
        daemon.restart();
        let get = http("GET", &format!("{}/v2/keys/seat", daemon.url()), "");
        assert_eq!(get.json()["node"]["value"], "taken");
    }
    daemon.terminate();
}
