//! Listening for clients: one port speaks HTTP/1.1 and HTTP/2 in clear text.
//!
//! `bind` opens an address; `serve` accepts on all of them and gives each connection to hyper with
//! a clone of that listener's service. The first byte tells the protocols apart: 0x16 begins a TLS
//! record, `PRI ` an HTTP/2 preface, anything else is HTTP/1.1. When the stop token fires,
//! listeners close at once, connections finish the request they are in, and what is left after
//! `limits::DRAIN_MS` is cut.
//!
//! Invariants:
//! * At most `limits::CONNECTIONS_MAX` connections, and never so many that the rest of the process
//!   lacks descriptors; one more is told 503 and closed.
//! * A client has `limits::HEADER_TIMEOUT_MS` for its first byte, and as long for the rest of a
//!   request's head (`pace`).
//! * A panic in a request ends that connection alone.
//! * `serve` returns only when every task it started has ended.
//!
//! Deliberately not here: paths, TLS, who may connect. hyper's own header timeout closes
//! connections that rest for `limits::CONNECTION_IDLE_MS`.

use crate::base::limits;
use crate::sys::pace::{Held, Pace, Paced, Turn};
use crate::sys::pulse::Pulse;
use crate::sys::usage;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// An error of any service or body.
pub type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {advice}")]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// What to do about it.
    pub advice: &'static str,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// Fires once, for everyone who holds a clone: the process is stopping.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// Fires the `Stop` tokens made with it; also when dropped.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

impl Stopper {
    /// A stopper and its first token.
    #[must_use]
    pub fn new() -> (Self, Stop) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), Stop(receiver))
    }

    /// Fires.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Ends when the stopper has fired.
    pub async fn stopped(&mut self) {
        // An error means that the stopper is gone, which is as good.
        let _ = self.0.wait_for(|stopped| *stopped).await;
    }
}

/// Opens an address for listening; port 0 takes a free one.
///
/// # Errors
/// When the address is taken, not of this host, or not allowed.
pub fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    open(address).map_err(|source| {
        let advice = match source.kind() {
            io::ErrorKind::AddrInUse => {
                "another process listens there; `ss -ltnp` names it: stop it, or listen elsewhere"
            }
            io::ErrorKind::AddrNotAvailable => {
                "this host has no such address; `ip address` lists those it has"
            }
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 need CAP_NET_BIND_SERVICE: choose a higher one"
            }
            _ => "check the address",
        };
        ListenError { address, advice, source }
    })
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait for connections of the last run to leave TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(limits::LISTEN_BACKLOG)
}

/// Serves each listener with its service until `stop` fires and the connections are drained. The
/// loop that accepts answers its pulse.
pub async fn serve<S, B>(listeners: Vec<(TcpListener, S, Pulse)>, stop: Stop)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<AnyError>,
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<AnyError>,
{
    let (mut doors, patience) = (JoinSet::new(), Duration::from_millis(limits::DRAIN_MS));
    let places = Arc::new(Semaphore::new(places(usage::descriptors_max())));
    for (listener, service, pulse) in listeners {
        doors.spawn(serve_one(
            (listener, pulse),
            service,
            stop.clone(),
            patience,
            Arc::clone(&places),
        ));
    }
    doors.join_all().await;
}

/// Connections a process with so many descriptors takes.
fn places(descriptors_max: u64) -> usize {
    let descriptors = usize::try_from(descriptors_max).unwrap_or(usize::MAX);
    let spare = descriptors.saturating_sub(limits::DESCRIPTORS_RESERVED);
    spare.clamp(limits::CONNECTIONS_MIN, limits::CONNECTIONS_MAX)
}

async fn serve_one<S, B>(
    (listener, pulse): (TcpListener, Pulse),
    service: S,
    mut stop: Stop,
    patience: Duration,
    places: Arc<Semaphore>,
) where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<AnyError>,
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<AnyError>,
{
    let (http, graceful) = (Arc::new(http()), GracefulShutdown::new());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => match Arc::clone(&places).try_acquire_owned() {
                    Ok(place) => {
                        let served = converse(
                            stream, peer, Arc::clone(&http), service.clone(), graceful.watcher(),
                        );
                        connections.spawn(async move {
                            served.await;
                            drop(place);
                        });
                    }
                    Err(_) => turn_away(&stream, peer),
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections; trying again");
                    tokio::time::sleep(Duration::from_millis(limits::ACCEPT_RETRY_MS)).await;
                }
            },
            Some(ended) = connections.join_next() => report(ended),
            () = pulse.answer() => {}
            () = stop.stopped() => break,
        }
    }
    drop(listener);
    drain(connections, graceful, patience).await;
}

/// Lets connections finish what they are at, and cuts them when it takes too long.
async fn drain(mut connections: JoinSet<()>, graceful: GracefulShutdown, patience: Duration) {
    let finished = async {
        // Asks every connection to close after its current request, and waits for that.
        graceful.shutdown().await;
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if tokio::time::timeout(patience, finished).await.is_err() {
        tracing::info!(cut = connections.len(), "connections were still busy at the deadline");
        connections.shutdown().await;
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a request panicked; its connection is closed");
    }
}

/// What hyper is told of this house.
fn http() -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    let idle = Duration::from_millis(limits::CONNECTION_IDLE_MS);
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        // Scripts look for `X-Etcd-Index` in these letters.
        .title_case_headers(true)
        .max_buf_size(limits::HEADER_BYTES_MAX);
    let header_bytes = u32::try_from(limits::HEADER_BYTES_MAX).unwrap_or(u32::MAX);
    http.http2()
        .timer(TokioTimer::new())
        .max_header_list_size(header_bytes)
        .max_concurrent_streams(limits::HTTP2_STREAMS_MAX);
    http
}

/// One connection from its first byte to its end.
async fn converse<S, B>(
    stream: TcpStream,
    peer: SocketAddr,
    http: Arc<auto::Builder<TokioExecutor>>,
    service: S,
    watcher: Watcher,
) where
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send,
    S::Error: Into<AnyError>,
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<AnyError>,
{
    const TLS_HANDSHAKE: u8 = 0x16;
    // Methods begin with P too: PUT, POST, PATCH.
    const HTTP2_PREFACE: &[u8] = b"PRI";
    // Answers are small and whole: waiting for more to send only adds latency.
    let _ = stream.set_nodelay(true);
    let mut first = [0; HTTP2_PREFACE.len()];
    let patience = Duration::from_millis(limits::HEADER_TIMEOUT_MS);
    match tokio::time::timeout(patience, stream.peek(&mut first)).await {
        Ok(Ok(1..)) if first.first() == Some(&TLS_HANDSHAKE) => {
            tracing::warn!(%peer, "a client speaks TLS here: this listener is plain http://");
        }
        Ok(Ok(1..)) => {
            let pace = Arc::new(Pace::default());
            let stream = Paced::new(stream, Arc::clone(&pace), first == HTTP2_PREFACE);
            let service = service_fn(move |request| {
                let (turn, answering) = (Turn::begin(&pace), service.call(request));
                async move { Ok::<_, S::Error>(answering.await?.map(|body| Held::new(body, turn))) }
            });
            let connection = http.serve_connection(TokioIo::new(stream), service);
            if let Err(error) = watcher.watch(connection.into_owned()).await {
                tracing::debug!(%peer, error, "connection ended early");
            }
        }
        // Closed, broken, or silent: nobody waits for an answer.
        Ok(_) | Err(_) => {}
    }
}

/// Tells a client that there is no place, as far as that goes without waiting for it.
fn turn_away(stream: &TcpStream, peer: SocketAddr) {
    const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\
        Retry-After: 1\r\nContent-Length: 0\r\n\r\n";
    tracing::warn!(%peer, "too many connections: turned one away");
    let _ = stream.try_write(FULL);
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http_body_util::Full;
    use std::convert::Infallible;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const DEADLINE: Duration = Duration::from_secs(20);
    const PLACES: usize = 8;

    struct Door {
        address: SocketAddr,
        stopper: Stopper,
        serving: tokio::task::JoinHandle<()>,
        /// Lets requests for `/slow` go on.
        gate: Arc<Semaphore>,
        /// Has a permit for each request that waits at the gate.
        waiting: Arc<Semaphore>,
    }

    fn door() -> Door {
        door_with(DEADLINE)
    }

    fn door_with(patience: Duration) -> Door {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (stopper, stop) = Stopper::new();
        let (gate, waiting) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (at_gate, waits) = (Arc::clone(&gate), Arc::clone(&waiting));
        let service = service_fn(move |request: Request<Incoming>| {
            let (at_gate, waits) = (Arc::clone(&at_gate), Arc::clone(&waits));
            async move {
                assert!(request.uri().path() != "/panic", "as asked");
                if request.uri().path() == "/slow" {
                    waits.add_permits(1);
                    let _ = at_gate.acquire().await;
                }
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello"))))
            }
        });
        let places = Arc::new(Semaphore::new(PLACES));
        let serving =
            tokio::spawn(serve_one((listener, Pulse::default()), service, stop, patience, places));
        Door { address, stopper, serving, gate, waiting }
    }

    async fn say(address: SocketAddr, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }

    async fn hear(mut stream: TcpStream) -> String {
        let mut heard = Vec::new();
        let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut heard));
        let _ = read.await.expect("the server neither answers nor closes");
        String::from_utf8_lossy(&heard).into_owned()
    }

    #[tokio::test]
    async fn speaks_http1_and_http2_and_closes_on_tls() {
        let door = door();
        let one =
            hear(say(door.address, b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").await).await;
        assert!(one.starts_with("HTTP/1.1 200") && one.ends_with("hello"), "{one}");
        let mut two =
            say(door.address, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
        let mut frame = [0; 9];
        two.read_exact(&mut frame).await.unwrap();
        assert_eq!(frame[3], 4, "the first frame is not SETTINGS: {frame:?}");
        assert_eq!(hear(say(door.address, b"\x16\x03\x01\x02\0").await).await, "");
    }

    #[tokio::test]
    async fn one_connection_too_many_is_told_so() {
        let door = door();
        let mut held = Vec::new();
        for _ in 0..PLACES {
            held.push(say(door.address, b"GET /slow HTTP/1.1\r\n\r\n").await);
        }
        let all = door.waiting.acquire_many(u32::try_from(PLACES).unwrap());
        tokio::time::timeout(DEADLINE, all).await.unwrap().unwrap().forget();
        let refused = hear(TcpStream::connect(door.address).await.unwrap()).await;
        assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("Retry-After: 1"));
        door.gate.add_permits(PLACES);
        drop(held);
        let begin = tokio::time::Instant::now();
        while !hear(say(door.address, b"GET / HTTP/1.0\r\n\r\n").await).await.ends_with("hello") {
            assert!(begin.elapsed() < DEADLINE, "places do not become free again");
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn the_rest_of_the_process_keeps_descriptors() {
        assert_eq!(places(1_024), 1_024 - limits::DESCRIPTORS_RESERVED);
        assert_eq!(places(64), limits::CONNECTIONS_MIN);
        assert_eq!(places(u64::MAX), limits::CONNECTIONS_MAX);
    }

    #[tokio::test]
    async fn a_panic_ends_its_connection_alone() {
        let door = door();
        assert_eq!(hear(say(door.address, b"GET /panic HTTP/1.1\r\n\r\n").await).await, "");
        let after = hear(say(door.address, b"GET / HTTP/1.0\r\n\r\n").await).await;
        assert!(after.ends_with("hello"), "{after}");
    }

    #[tokio::test]
    async fn stopping_finishes_requests_and_closes_idle_connections() {
        let door = door();
        let mut idle = say(door.address, b"GET / HTTP/1.1\r\n\r\n").await;
        let mut first = [0; 12];
        idle.read_exact(&mut first).await.unwrap();
        let busy = say(door.address, b"GET /slow HTTP/1.1\r\n\r\n").await;
        let reached = door.waiting.acquire();
        tokio::time::timeout(DEADLINE, reached).await.unwrap().unwrap().forget();
        door.stopper.stop();
        hear(idle).await;
        assert!(!door.serving.is_finished(), "stopped in the middle of a request");
        door.gate.add_permits(1);
        let answer = hear(busy).await;
        assert!(answer.contains("200 OK") && answer.ends_with("hello"), "{answer}");
        tokio::time::timeout(DEADLINE, door.serving).await.unwrap().unwrap();
        assert!(TcpStream::connect(door.address).await.is_err());
    }

    #[tokio::test]
    async fn who_is_still_busy_at_the_deadline_is_cut() {
        let door = door_with(Duration::from_millis(20));
        let busy = say(door.address, b"GET /slow HTTP/1.1\r\n\r\n").await;
        door.waiting.acquire().await.unwrap().forget();
        door.stopper.stop();
        door.serving.await.unwrap();
        assert_eq!(hear(busy).await, "");
    }

    #[tokio::test]
    async fn an_address_in_use_is_named_with_advice() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let error = bind(address).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("ss -ltnp"), "{error}");
    }
}
