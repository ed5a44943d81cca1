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
//!   lacks descriptors (`places`); one more is told 503 and closed.
//! * A client has `limits::HEADER_TIMEOUT_MS` for its first byte, and as long for the rest of a
//!   request's head; it has to take its answers, and answer pings (`pace`).
//! * A failed accept is followed by a pause: without descriptors the loop must not spin.
//! * A panic in a request ends that connection alone.
//! * `serve` returns only when every task it started has ended.
//!
//! Deliberately not here: paths, TLS, who may connect. hyper's own header timeout closes
//! connections that rest for `limits::CONNECTION_IDLE_MS`.

pub use crate::sys::stop::{Stop, Stopper};

use crate::base::limits;
use crate::sys::pace::{Held, Pace, Paced, Turn};
use crate::sys::places::{Place, Places};
use crate::sys::pulse::Pulse;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustix::net::{SendFlags, sockopt};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
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
    for_clients(&socket)?;
    socket.bind(address)?;
    socket.listen(limits::LISTEN_BACKLOG)
}

/// What accepted sockets inherit: no more memory than they need, and an end when the client's host
/// is gone without a word.
fn for_clients(socket: &TcpSocket) -> io::Result<()> {
    socket.set_send_buffer_size(limits::SOCKET_SEND_BYTES)?;
    socket.set_keepalive(true)?;
    sockopt::set_tcp_keepidle(socket, Duration::from_secs(limits::KEEPALIVE_IDLE_SECONDS))?;
    sockopt::set_tcp_keepintvl(socket, Duration::from_secs(limits::KEEPALIVE_INTERVAL_SECONDS))?;
    Ok(sockopt::set_tcp_keepcnt(socket, limits::KEEPALIVE_PROBES)?)
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
    let places = Places::of_this_process();
    for (listener, service, pulse) in listeners {
        doors.spawn(serve_one((listener, pulse), service, stop.clone(), patience, places.clone()));
    }
    doors.join_all().await;
}

async fn serve_one<S, B>(
    (listener, pulse): (TcpListener, Pulse),
    service: S,
    mut stop: Stop,
    patience: Duration,
    places: Places,
) where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<AnyError>,
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<AnyError>,
{
    let (http, graceful) = (Arc::new(http()), GracefulShutdown::new());
    let (mut connections, mut refusals) = (JoinSet::new(), Refusals::new());
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => match places.take() {
                    Some(place) => {
                        let (service, watcher) = (service.clone(), graceful.watcher());
                        let client = Client { stream, peer, stop: stop.clone() };
                        connections.spawn(converse(
                            (client, place), Arc::clone(&http), service, watcher,
                        ));
                    }
                    None => refusals.turn_away(Client { stream, peer, stop: stop.clone() }),
                },
                Err(error) => {
                    refusals.report(&format_args!("cannot accept connections: {error}"));
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
    refusals.hearing.shutdown().await;
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
        .max_concurrent_streams(limits::HTTP2_STREAMS_MAX)
        .max_pending_accept_reset_streams(limits::HTTP2_RESETS_PENDING_MAX)
        .max_local_error_reset_streams(limits::HTTP2_RESETS_SENT_MAX)
        .keep_alive_interval(Duration::from_millis(limits::HTTP2_PING_INTERVAL_MS))
        .keep_alive_timeout(Duration::from_millis(limits::HTTP2_PING_TIMEOUT_MS));
    http
}

/// Who has connected, and when to be done with it.
struct Client {
    stream: TcpStream,
    peer: SocketAddr,
    stop: Stop,
}

/// One connection from its first byte to its end.
async fn converse<S, B>(
    (Client { stream, peer, stop }, _place): (Client, Place),
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
            let stream = Paced::new(stream, Arc::clone(&pace), stop, first == HTTP2_PREFACE);
            let service = service_fn(move |request| {
                // On the heap: a connection that rests or streams keeps its place for the next one.
                let (turn, answering) = (Turn::begin(&pace), Box::pin(service.call(request)));
                async move { Ok::<_, S::Error>(answering.await?.map(|body| Held::new(body, turn))) }
            });
            let connection = http.serve_connection(TokioIo::new(stream), service);
            if let Err(error) = Box::pin(watcher.watch(connection.into_owned())).await {
                tracing::debug!(%peer, error, "connection ended early");
            }
        }
        // Closed, broken, or silent: nobody waits for an answer.
        Ok(_) | Err(_) => {}
    }
}

/// Clients that are not served, and what is said of them: as they may come by the thousand, a
/// number now and then.
struct Refusals {
    /// Those that are waited for.
    hearing: JoinSet<()>,
    reported: Option<Instant>,
    unreported: u64,
}

impl Refusals {
    fn new() -> Self {
        Self { hearing: JoinSet::new(), reported: None, unreported: 0 }
    }

    /// Tells a client that there is no place. A few at a time are waited for until they have heard
    /// it; a flood has to be quick.
    fn turn_away(&mut self, client: Client) {
        const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\
            Retry-After: 1\r\nContent-Length: 0\r\n\r\n";
        self.report(&format_args!("too many connections: turned {} away", client.peer));
        // A new socket has room for this, though tokio has not been told so yet.
        let at_once = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = rustix::net::send(&client.stream, FULL, at_once);
        while self.hearing.try_join_next().is_some() {}
        if sent.is_ok() && self.hearing.len() < limits::TURNING_AWAY_MAX {
            let mut stream = Paced::new(client.stream, Arc::default(), client.stop, false);
            // What goes wrong concerns nobody.
            self.hearing.spawn(async move { _ = stream.shutdown().await });
        }
    }

    fn report(&mut self, what: &dyn std::fmt::Display) {
        let pause = Duration::from_millis(limits::FLOOD_LOG_MS);
        if self.reported.is_some_and(|at| at.elapsed() < pause) {
            self.unreported += 1;
            return;
        }
        let unreported = std::mem::take(&mut self.unreported);
        tracing::warn!(unreported, "{what}");
        self.reported = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http_body_util::Full;
    use std::convert::Infallible;
    use tokio::io::AsyncReadExt;
    use tokio::sync::Semaphore;

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
        let places = Places::bounded_by(|| PLACES);
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
