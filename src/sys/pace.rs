//! How long a client may take to say what it wants.
//!
//! A client that sends a request head byte by byte holds a place for ever. hyper's own deadline
//! also runs while a connection rests between two requests, so it has to be long, and it costs a
//! timer a request. Here the socket and the service of a connection share a `Pace`: bytes that came
//! in while no request is being served belong to a head, and the timer is set only when the socket
//! runs dry in the middle of one. A request that arrives whole, as nearly all do, costs a few
//! additions.
//!
//! ```text
//! hyper -- reads --> Paced socket   \
//!                                    Pace: turns begun, turns under way
//! hyper -- asks  --> service -> Turn /   (a Turn lasts until the answer's body has ended)
//! ```
//!
//! Invariants:
//! * A head that is not whole `limits::HEADER_TIMEOUT_MS` after the socket ran dry ends its
//!   connection.
//! * While an answer is being made or written nothing is cut: a long poll may last for days.
//!
//! Deliberately not here: the pace of request bodies (their reader knows what it waits for), and
//! heads of HTTP/2, which share their connection with everything else; there the preface is timed.

use crate::base::limits;
use hyper::body::{Body, Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Length of what an HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;

/// What a connection is at, shared by its socket and its service.
#[derive(Debug, Default)]
pub(super) struct Pace {
    begun: AtomicUsize,
    under_way: AtomicUsize,
}

/// A request from its head to the end of its answer.
#[derive(Debug)]
pub(super) struct Turn(Arc<Pace>);

impl Turn {
    pub(super) fn begin(pace: &Arc<Pace>) -> Self {
        pace.begun.fetch_add(1, Ordering::Relaxed);
        pace.under_way.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(pace))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of an answer, which holds its turn.
#[derive(Debug)]
pub(super) struct Held<B> {
    body: B,
    _turn: Turn,
}

impl<B> Held<B> {
    pub(super) fn new(body: B, turn: Turn) -> Self {
        Self { body, _turn: turn }
    }
}

impl<B: Body + Unpin> Body for Held<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket that does not wait for ever for the rest of a head.
#[derive(Debug)]
pub(super) struct Paced<S> {
    socket: S,
    pace: Arc<Pace>,
    patience: Duration,
    /// Turns begun when the last bytes came.
    seen: usize,
    /// Whether bytes came that belong to no turn yet.
    in_head: bool,
    /// Bytes of an HTTP/2 preface still to come; 0 behind it, `None` for HTTP/1.1.
    preface_bytes: Option<usize>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> Paced<S> {
    /// The socket of a connection whose first byte is there.
    pub(super) fn new(socket: S, pace: Arc<Pace>, is_http2: bool) -> Self {
        Self {
            socket,
            pace,
            patience: Duration::from_millis(limits::HEADER_TIMEOUT_MS),
            seen: 0,
            in_head: false,
            preface_bytes: is_http2.then_some(PREFACE_BYTES),
            timer: None,
        }
    }

    /// Notes that so many bytes came in.
    fn came(&mut self, bytes: usize) {
        if let Some(left) = &mut self.preface_bytes {
            *left = left.saturating_sub(bytes);
            self.in_head = *left > 0;
        } else {
            self.in_head = self.pace.under_way.load(Ordering::Relaxed) == 0;
        }
        let begun = self.pace.begun.load(Ordering::Relaxed);
        if begun != std::mem::replace(&mut self.seen, begun) {
            self.timer = None;
        }
    }

    /// Whether the socket ran dry in the middle of a head.
    fn is_in_head(&self) -> bool {
        self.in_head && self.pace.begun.load(Ordering::Relaxed) == self.seen
    }

    /// Waits for the rest of a head no longer than it may take.
    fn poll_patience(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_in_head() {
            self.timer = None;
            return Poll::Pending;
        }
        let deadline = Instant::now() + self.patience;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        timer.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        match Pin::new(&mut this.socket).poll_read(context, buffer) {
            Poll::Pending => this.poll_patience(context),
            Poll::Ready(done) => {
                this.came(buffer.filled().len() - before);
                Poll::Ready(done)
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write_vectored(context, slices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    fn pair(is_http2: bool) -> (DuplexStream, Paced<DuplexStream>, Arc<Pace>) {
        let (client, server) = tokio::io::duplex(1_024);
        let pace = Arc::new(Pace::default());
        let mut paced = Paced::new(server, Arc::clone(&pace), is_http2);
        paced.patience = Duration::from_millis(20);
        (client, paced, pace)
    }

    async fn read(paced: &mut Paced<DuplexStream>) -> io::Result<usize> {
        paced.read(&mut [0; 64]).await
    }

    /// Whether reading still waits long after the patience with heads is over.
    async fn rests(paced: &mut Paced<DuplexStream>) -> bool {
        tokio::time::timeout(Duration::from_millis(100), read(paced)).await.is_err()
    }

    #[tokio::test]
    async fn a_head_that_stops_coming_is_cut() {
        let (mut client, mut paced, _) = pair(false);
        client.write_all(b"GET / HT").await.unwrap();
        assert_eq!(read(&mut paced).await.unwrap(), 8);
        assert_eq!(read(&mut paced).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn bytes_that_trickle_win_no_time() {
        let (mut client, mut paced, _) = pair(false);
        paced.patience = Duration::from_millis(200);
        let trickle = tokio::spawn(async move {
            while client.write_all(b"a").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let cut = async { while read(&mut paced).await.is_ok() {} };
        tokio::time::timeout(Duration::from_secs(10), cut).await.unwrap();
        drop(paced);
        trickle.await.unwrap();
    }

    #[tokio::test]
    async fn a_resting_connection_and_a_request_under_way_are_left_alone() {
        let (mut client, mut paced, pace) = pair(false);
        client.write_all(b"a whole request").await.unwrap();
        read(&mut paced).await.unwrap();
        let turn = Turn::begin(&pace);
        assert!(rests(&mut paced).await);
        client.write_all(b"its body, or the next request").await.unwrap();
        read(&mut paced).await.unwrap();
        assert!(rests(&mut paced).await);
        drop(turn);
        assert!(rests(&mut paced).await);
    }

    #[tokio::test]
    async fn of_http2_the_preface_is_timed() {
        let (mut client, mut paced, _) = pair(true);
        client.write_all(b"PRI * HTTP/2.0").await.unwrap();
        read(&mut paced).await.unwrap();
        assert_eq!(read(&mut paced).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let (mut client, mut paced, _) = pair(true);
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n and a ping").await.unwrap();
        read(&mut paced).await.unwrap();
        assert!(rests(&mut paced).await);
    }
}
