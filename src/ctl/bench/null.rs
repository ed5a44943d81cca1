//! The null server: parses, answers, stores nothing.
//!
//! Why: it is the ceiling of this machine. What a real server reaches below it is what its store
//! costs; what it reaches of it is what the door costs. So it goes through the same HTTP
//! library and the same kind of runtime as the real door, and does the door's work: it reads
//! the body, finds the value in the form and writes etcd's JSON and headers around it.
//!
//! How data passes: accept loop -> one task a connection -> hyper HTTP/1.1 -> `answer`.
//!
//! Invariants:
//! * At most `CONNECTIONS_MAX` connections; further ones wait in the listen queue.
//! * A body is at most `BODY_BYTES_MAX` long.
//!
//! Deliberately not here: keys, TLS, HTTP/2, an orderly drain (dropping the server ends it).
//!
//! Sources: etcd 3.4 `etcdserver/api/v2http/client.go` (headers and shape of the answers).

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use crate::base::limits::{BODY_BYTES_MAX, CONNECTIONS_MAX};

/// A running null server with a multi-threaded runtime of its own; dropping it ends it.
#[derive(Debug)]
pub struct NullServer {
    address: SocketAddr,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl NullServer {
    /// Listens on `address` (port 0 picks one) and serves until dropped.
    ///
    /// # Errors
    /// What the system said when the address could not be listened on.
    pub fn spawn(address: SocketAddr) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind(address))?;
        let address = listener.local_addr()?;
        runtime.spawn(accept(listener));
        Ok(Self { address, runtime: Some(runtime) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for NullServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(seat) = Arc::clone(&room).acquire_owned().await else { return };
        // A failed accept (the client is gone, descriptors are short) concerns one connection;
        // yielding keeps a lasting failure from starving the connections that live.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        // Without it only latencies suffer, and the measurement shows that.
        let _ = stream.set_nodelay(true);
        tokio::spawn(async move {
            let service = service_fn(answer);
            let served = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
            // A client that goes away in the middle is no event for a server without state.
            drop((served, seat));
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let Some(key) = head.uri.path().strip_prefix("/v2/keys") else {
        return Ok(respond(
            StatusCode::OK,
            br#"{"etcdserver":"null","etcdcluster":"null"}"#.into(),
        ));
    };
    if head.method != Method::PUT {
        let value = b"abcdefghijklmnop".repeat(16);
        return Ok(respond(StatusCode::OK, node_json("get", key.as_bytes(), &value)));
    }
    let Ok(form) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
        return Ok(respond(StatusCode::BAD_REQUEST, b"{}".to_vec()));
    };
    let form = form.to_bytes();
    let value = form.split(|byte| *byte == b'&').find_map(|pair| pair.strip_prefix(b"value="));
    let json = node_json("set", key.as_bytes(), value.unwrap_or_default());
    Ok(respond(StatusCode::CREATED, json))
}

/// etcd's answer to a write or read of one key; the load generator's keys and values need no
/// escapes, and nobody stores what is said here.
fn node_json(action: &str, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut json = Vec::with_capacity(128 + key.len() + value.len());
    json.extend_from_slice(b"{\"action\":\"");
    json.extend_from_slice(action.as_bytes());
    json.extend_from_slice(b"\",\"node\":{\"key\":\"");
    json.extend_from_slice(key);
    json.extend_from_slice(b"\",\"value\":\"");
    json.extend_from_slice(value);
    json.extend_from_slice(b"\",\"modifiedIndex\":1234567,\"createdIndex\":1234567}}\n");
    json
}

fn respond(status: StatusCode, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in [
        ("x-etcd-cluster-id", "48276a8f75b6a87"),
        ("x-etcd-index", "1234567"),
        ("x-raft-index", "1234568"),
        ("x-raft-term", "2"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::bench::http::ResponseReader;
    use std::io::{Read, Write};

    #[test]
    fn a_put_is_answered_as_etcd_would() {
        // curl -i -X PUT http://127.0.0.1:PORT/v2/keys/a -d value=hello
        let server = NullServer::spawn("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut stream = std::net::TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        stream
            .write_all(
                b"PUT /v2/keys/a HTTP/1.1\r\nHost: x\r\nContent-Length: 15\r\n\r\n\
                  ttl=&value=hell",
            )
            .unwrap();
        let mut reader = ResponseReader::default();
        let (status, body) = loop {
            if let Some(response) = reader.take_response().unwrap() {
                break (response.status, response.body.to_vec());
            }
            let read = stream.read(reader.space().unwrap()).unwrap();
            assert!(read > 0);
            reader.advance(read);
        };
        assert_eq!(status, 201);
        assert_eq!(
            std::str::from_utf8(&body).unwrap(),
            "{\"action\":\"set\",\"node\":{\"key\":\"/a\",\"value\":\"hell\",\
             \"modifiedIndex\":1234567,\"createdIndex\":1234567}}\n"
        );
    }
}
