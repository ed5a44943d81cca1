//! How long a client may take to say what it wants, and to take what it asked for.
//!
//! A client that sends a request head byte by byte holds a place for ever, and one that never reads
//! its answer holds the answer too. hyper's own deadline also runs while a connection rests between
//! two requests, so it has to be long, and it costs a timer a request. Here the socket and the
//! service of a connection share a `Pace`: bytes that came in while no request is being served
//! belong to a head, and a timer is set only when the socket runs dry in the middle of one, or has
//! no room for the next bytes of an answer. A request that arrives whole, as nearly all do, costs a
//! few additions.
//!
//! ```text
//! hyper -- reads, writes --> Paced socket   \
//!                                            Pace: turns begun, turns under way
//! hyper -- asks          --> service -> Turn /   (a Turn lasts until the answer's body has ended)
//! ```
//!
//! Invariants:
//! * A head that is not whole `limits::HEADER_TIMEOUT_MS` after the socket ran dry ends its
//!   connection; of HTTP/2 that is the preface, and what follows shares its connection with
//!   everything else: hyper's pings find out who stopped in the middle of a frame.
//! * A client that takes nothing of what waits for it for `limits::ANSWER_STALL_MS` is cut.
//! * An HTTP/2 connection without requests ends after `limits::CONNECTION_IDLE_MS`, however
//!   lively it answers pings. (hyper sees to HTTP/1.1.)
//! * While an answer is being made nothing is cut: a long poll may last for days.
//! * What a client still sends when its connection ends is read for a while and dropped: closing a
//!   socket with bytes unread makes the kernel reset it, and the answer is lost on its way.
//!
//! Deliberately not here: the pace of request bodies; their reader knows what it waits for.

use crate::base::limits;
use crate::sys::stop::Stop;
use hyper::body::{Body, Frame, SizeHint};
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

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

/// A socket that does not wait for its client for ever.
#[derive(Debug)]
pub(super) struct Paced<S> {
    socket: S,
    pace: Arc<Pace>,
    stop: Stop,
    patience: Patience,
    /// Turns begun when the last bytes came.
    seen: usize,
    /// Whether bytes came that belong to no turn yet.
    in_head: bool,
    /// Bytes of an HTTP/2 preface still to come; 0 behind it, `None` for HTTP/1.1.
    preface_bytes: Option<usize>,
    reading: Option<Timer>,
    writing: Option<Timer>,
    /// What may still be read and dropped, once the last answer is out.
    lingering: Option<usize>,
    lingering_until: Option<Timer>,
    /// Whether the client has closed its side.
    has_ended: bool,
}

/// What a client is waited for, and how long.
#[derive(Clone, Copy, Debug)]
struct Patience {
    head: Duration,
    rest: Duration,
    stall: Duration,
    linger: Duration,
}

/// A deadline, and the turns begun when it was set.
#[derive(Debug)]
struct Timer {
    begun: usize,
    sleep: Pin<Box<Sleep>>,
}

impl Timer {
    fn new(begun: usize, patience: Duration) -> Self {
        Self { begun, sleep: Box::pin(tokio::time::sleep(patience)) }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.sleep.as_mut().poll(context)
    }
}

impl<S> Paced<S> {
    /// The socket of a connection whose first byte is there.
    pub(super) fn new(socket: S, pace: Arc<Pace>, stop: Stop, is_http2: bool) -> Self {
        Self {
            socket,
            pace,
            stop,
            patience: Patience {
                head: Duration::from_millis(limits::HEADER_TIMEOUT_MS),
                rest: Duration::from_millis(limits::CONNECTION_IDLE_MS),
                stall: Duration::from_millis(limits::ANSWER_STALL_MS),
                linger: Duration::from_millis(limits::LINGER_MS),
            },
            seen: 0,
            in_head: false,
            preface_bytes: is_http2.then_some(PREFACE_BYTES),
            reading: None,
            writing: None,
            lingering: None,
            lingering_until: None,
            has_ended: false,
        }
    }

    /// Notes that so many bytes came in.
    fn came(&mut self, bytes: usize) {
        self.seen = self.pace.begun.load(Ordering::Relaxed);
        self.in_head = match &mut self.preface_bytes {
            Some(0) => false,
            Some(left) => {
                *left = left.saturating_sub(bytes);
                // What has been waited for so far was the preface.
                self.reading.take_if(|_| *left == 0);
                *left > 0
            }
            None => self.pace.under_way.load(Ordering::Relaxed) == 0,
        };
    }

    /// How long the client may be silent now; `None` = for ever.
    fn silence_max(&self, begun: usize) -> Option<Duration> {
        let rests = || self.pace.under_way.load(Ordering::Relaxed) == 0;
        if self.in_head && begun == self.seen {
            Some(self.patience.head)
        } else if self.preface_bytes == Some(0) && rests() {
            Some(self.patience.rest)
        } else {
            None
        }
    }

    /// The socket ran dry: waits for more no longer than it may take.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let begun = self.pace.begun.load(Ordering::Relaxed);
        self.reading.take_if(|timer| timer.begun != begun);
        let Some(patience) = self.silence_max(begun) else {
            self.reading = None;
            return Poll::Pending;
        };
        let timer = self.reading.get_or_insert_with(|| Timer::new(begun, patience));
        timer.poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    /// What came of writing: when the socket has no room, waits no longer than it may take.
    fn poll_taken(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.writing = None;
            return written;
        }
        let patience = self.patience.stall;
        let timer = self.writing.get_or_insert_with(|| Timer::new(0, patience));
        timer.poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> Paced<S> {
    /// Reads and drops what still comes, until the client has closed its side too or has had
    /// enough time or bytes for it. What goes wrong here concerns nobody any more.
    fn poll_linger(&mut self, context: &mut Context<'_>, mut left: usize) -> Poll<()> {
        const PIECE_BYTES: usize = 16 * 1024;
        let mut piece = [MaybeUninit::uninit(); PIECE_BYTES];
        // A stop closes connections between two requests: there is nothing to be lost then.
        while left > 0 && !self.has_ended && !self.stop.has_fired() {
            let mut buffer = ReadBuf::uninit(&mut piece);
            match Pin::new(&mut self.socket).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    left = left.saturating_sub(buffer.filled().len());
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => {
                    self.lingering = Some(left);
                    let patience = self.patience.linger;
                    let timer = self.lingering_until.get_or_insert_with(|| Timer::new(0, patience));
                    return timer.poll(context);
                }
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let (before, had_room) = (buffer.filled().len(), buffer.remaining() > 0);
        match Pin::new(&mut this.socket).poll_read(context, buffer) {
            Poll::Pending => this.poll_silence(context),
            Poll::Ready(done) => {
                let bytes = buffer.filled().len() - before;
                this.has_ended |= bytes == 0 && had_room;
                this.came(bytes);
                Poll::Ready(done)
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write(context, bytes);
        this.poll_taken(context, written)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let left = match this.lingering {
            Some(left) => left,
            None => {
                ready!(Pin::new(&mut this.socket).poll_shutdown(context))?;
                *this.lingering.insert(limits::LINGER_BYTES_MAX)
            }
        };
        this.poll_linger(context, left).map(Ok)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write_vectored(context, slices);
        this.poll_taken(context, written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::stop::Stopper;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(600);

    fn pair(is_http2: bool) -> (DuplexStream, Paced<DuplexStream>, Arc<Pace>) {
        let (client, server) = tokio::io::duplex(1_024);
        let pace = Arc::new(Pace::default());
        // The tests have no use for the stopper; one that is gone has fired.
        let (stopper, stop) = Stopper::new();
        std::mem::forget(stopper);
        let mut paced = Paced::new(server, Arc::clone(&pace), stop, is_http2);
        paced.patience = Patience { head: SHORT, rest: LONG, stall: SHORT, linger: LONG };
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
        paced.patience.head = Duration::from_millis(200);
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
    #[tokio::test]
    async fn an_http2_connection_without_requests_ends_and_one_with_a_request_does_not() {
        let (mut client, mut paced, pace) = pair(true);
        paced.patience.rest = Duration::from_millis(50);
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n and a request").await.unwrap();
        read(&mut paced).await.unwrap();
        let turn = Turn::begin(&pace);
        assert!(rests(&mut paced).await);
        drop(turn);
        let pinging = tokio::spawn(async move {
            while client.write_all(b"ping").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let cut = async { while read(&mut paced).await.is_ok() {} };
        tokio::time::timeout(Duration::from_secs(10), cut).await.unwrap();
        drop(paced);
        pinging.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_takes_no_answer_is_cut_and_a_slow_one_is_not() {
        let (mut client, mut paced, _) = pair(false);
        paced.write_all(&[7; 1_024]).await.unwrap();
        assert_eq!(paced.write(b"more").await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(client);
        (client, paced, _) = pair(false);
        paced.patience.stall = Duration::from_secs(1);
        let slow = tokio::spawn(async move {
            let mut taken = 0;
            while let Ok(bytes @ 1..) = client.read(&mut [0; 64]).await {
                taken += bytes;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            taken
        });
        paced.write_all(&[7; 8_192]).await.unwrap();
        drop(paced);
        assert_eq!(slow.await.unwrap(), 8_192);
    }

    #[tokio::test]
    async fn what_still_comes_behind_the_last_answer_is_taken() {
        let (mut client, mut paced, _) = pair(false);
        let sending = tokio::spawn(async move {
            client.write_all(&[1; 100_000]).await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            answer
        });
        paced.write_all(b"413").await.unwrap();
        paced.shutdown().await.unwrap();
        drop(paced);
        assert_eq!(sending.await.unwrap(), "413");
        // Who neither sends nor closes is waited for no longer than it may take.
        let (_client, mut paced, _) = pair(false);
        paced.patience.linger = SHORT;
        tokio::time::timeout(Duration::from_secs(10), paced.shutdown()).await.unwrap().unwrap();
    }
}
