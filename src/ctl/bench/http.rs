//! The smallest HTTP/1.1 client that is correct: prepared request bytes out, responses in.
//!
//! Why an own one: client and server share the machine, so each microsecond the client burns is
//! one the server under test does not have. There is no connection pool, no header map and no
//! allocation per response.
//!
//! How data passes: bytes from the socket go into `ResponseReader::space`, `advance` says how
//! many, `take_response` hands out a whole response or asks for more. The reader does no I/O, so a test
//! can feed it byte by byte. `Connection` is the reader with a socket.
//!
//! Invariants:
//! * A response is handed out whole or not at all, however its bytes were split.
//! * The buffer never exceeds `BENCH_RESPONSE_BYTES_MAX`.
//!
//! Deliberately not here: TLS, pipelining, redirects, bodies that end with the connection.
//!
//! Sources: RFC 9112 sections 4 (status line), 6.3 (body length), 7.1 (chunks).

use std::io;
use std::net::SocketAddr;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::base::limits::BENCH_RESPONSE_BYTES_MAX;

/// Bytes the reader offers for one read: most responses fit, so one read a response.
const READ_BYTES: usize = 8 * 1024;

/// Why an exchange failed; afterwards the connection is of no use.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The socket failed.
    #[error("cannot {doing} {address}")]
    Socket {
        /// What was being done.
        doing: &'static str,
        /// The server.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The server closed the connection inside a response, or in front of it.
    #[error("the server closed the connection before its answer was complete")]
    Closed,
    /// The answer is not HTTP/1.1 as the RFC has it.
    #[error("the server's answer is not HTTP/1.1: {0}")]
    Malformed(&'static str),
    /// The answer is longer than the buffer may grow.
    #[error("the server's answer is longer than {BENCH_RESPONSE_BYTES_MAX} bytes")]
    TooLong,
}

/// One whole response; borrowed from its reader.
#[derive(Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// The status code.
    pub status: u16,
    /// The server will close the connection.
    pub close: bool,
    /// The body, chunks joined.
    pub body: &'a [u8],
}

/// What the head of a response says.
#[derive(Clone, Copy, Debug)]
struct Head {
    status: u16,
    close: bool,
    length: Length,
}

/// How the body ends.
#[derive(Clone, Copy, Debug)]
enum Length {
    Known(usize),
    Chunked,
}

/// Where the reader is in a response. Positions are offsets into the buffer.
#[derive(Clone, Copy, Debug)]
enum State {
    /// Head incomplete; the first `searched` bytes hold no end of it.
    Head { searched: usize },
    /// Body of known length from `start` to `end`.
    Body { head: Head, start: usize, end: usize },
    /// Chunks: decoded ones lie in `start..joined`, the next chunk's size line begins at `at`.
    Chunks { head: Head, start: usize, joined: usize, at: usize },
    /// The trailer after the last chunk.
    Trailer { head: Head, start: usize, joined: usize, at: usize },
}

/// Turns bytes into responses.
#[derive(Debug)]
pub struct ResponseReader {
    buffer: Vec<u8>,
    /// Bytes of the buffer that came from the socket.
    filled: usize,
    state: State,
    /// End of the response handed out last; its bytes go when the next one is asked for.
    spent: usize,
}

impl Default for ResponseReader {
    fn default() -> Self {
        Self {
            buffer: vec![0; READ_BYTES],
            filled: 0,
            state: State::Head { searched: 0 },
            spent: 0,
        }
    }
}

impl ResponseReader {
    /// Room for the next bytes of the socket, never empty.
    ///
    /// # Errors
    /// `TooLong` if the response at hand has outgrown the buffer's bound.
    pub fn space(&mut self) -> Result<&mut [u8], HttpError> {
        self.drop_spent();
        if self.buffer.len() - self.filled < READ_BYTES / 2 {
            let grown = self.buffer.len() * 2;
            if grown > BENCH_RESPONSE_BYTES_MAX {
                return Err(HttpError::TooLong);
            }
            self.buffer.resize(grown, 0);
        }
        self.buffer.get_mut(self.filled..).ok_or(HttpError::TooLong)
    }

    /// Says that the first `read` bytes of `space` were written.
    pub fn advance(&mut self, read: usize) {
        self.filled = (self.filled + read).min(self.buffer.len());
    }

    /// The head of the response at hand has arrived. A long poll answers its head at once.
    #[must_use]
    pub fn head_arrived(&self) -> bool {
        !matches!(self.state, State::Head { .. })
    }

    /// The next whole response, `None` if more bytes are needed.
    ///
    /// # Errors
    /// `Malformed`; the reader is of no use afterwards.
    pub fn take_response(&mut self) -> Result<Option<Response<'_>>, HttpError> {
        self.drop_spent();
        loop {
            let before = self.state;
            let finished = match before {
                State::Head { searched } => self.read_head(searched)?,
                State::Body { head, start, end } => {
                    (end <= self.filled).then_some((head, start, end, end))
                }
                State::Chunks { head, start, joined, at } => {
                    self.read_chunk(head, start, joined, at)?
                }
                State::Trailer { head, start, joined, at } => {
                    self.read_trailer(head, start, joined, at)
                }
            };
            if let Some((head, start, end, spent)) = finished {
                self.state = State::Head { searched: 0 };
                self.spent = spent;
                let body = self.buffer.get(start..end).unwrap_or_default();
                return Ok(Some(Response { status: head.status, close: head.close, body }));
            }
            if !self.moved_since(before) {
                return Ok(None);
            }
        }
    }

    /// Whether the last step came further than `before`, so that another one is worth it.
    fn moved_since(&self, before: State) -> bool {
        match (before, self.state) {
            (State::Chunks { at: old, .. }, State::Chunks { at, .. })
            | (State::Trailer { at: old, .. }, State::Trailer { at, .. }) => at > old,
            (State::Head { .. }, State::Head { .. }) | (State::Body { .. }, State::Body { .. }) => {
                false
            }
            _ => true,
        }
    }

    fn drop_spent(&mut self) {
        if self.spent > 0 {
            self.buffer.copy_within(self.spent..self.filled, 0);
            self.filled -= self.spent;
            self.spent = 0;
        }
    }

    fn bytes(&self, from: usize) -> &[u8] {
        self.buffer.get(from..self.filled).unwrap_or_default()
    }

    fn read_head(&mut self, searched: usize) -> Result<Option<Finished>, HttpError> {
        let Some(end) = find(self.bytes(searched), b"\r\n\r\n").map(|at| searched + at) else {
            // The end may begin with the last three bytes.
            self.state = State::Head { searched: self.filled.saturating_sub(3) };
            return Ok(None);
        };
        let head = parse_head(self.buffer.get(..end).unwrap_or_default())?;
        let start = end + 4;
        self.state = match head.length {
            Length::Known(length) => {
                let end = start.checked_add(length).ok_or(HttpError::TooLong)?;
                State::Body { head, start, end }
            }
            Length::Chunked => State::Chunks { head, start, joined: start, at: start },
        };
        Ok(None)
    }

    /// One chunk whose size line begins at `at`; it is moved to the end of the joined ones.
    fn read_chunk(
        &mut self,
        head: Head,
        start: usize,
        joined: usize,
        at: usize,
    ) -> Result<Option<Finished>, HttpError> {
        let Some(line) = find(self.bytes(at), b"\r\n") else { return Ok(None) };
        let size = parse_chunk_size(self.bytes(at).get(..line).unwrap_or_default())?;
        let data = at + line + 2;
        if size == 0 {
            self.state = State::Trailer { head, start, joined, at: data };
            return Ok(None);
        }
        let end = data.checked_add(size).ok_or(HttpError::TooLong)?;
        match self.bytes(end).get(..2) {
            None => return Ok(None),
            Some(b"\r\n") => {}
            Some(_) => return Err(HttpError::Malformed("a chunk does not end with a line end")),
        }
        self.buffer.copy_within(data..end, joined);
        self.state = State::Chunks { head, start, joined: joined + size, at: end + 2 };
        Ok(None)
    }

    /// Trailer lines up to the empty one; their content is of no use here.
    fn read_trailer(
        &mut self,
        head: Head,
        start: usize,
        joined: usize,
        at: usize,
    ) -> Option<Finished> {
        let line = find(self.bytes(at), b"\r\n")?;
        let after = at + line + 2;
        self.state = State::Trailer { head, start, joined, at: after };
        (line == 0).then_some((head, start, joined, after))
    }
}

/// A finished response: head, start and end of its body, end of its bytes.
type Finished = (Head, usize, usize, usize);

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn parse_head(head: &[u8]) -> Result<Head, HttpError> {
    let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    let status = parse_status(lines.next().unwrap_or_default())?;
    let (mut close, mut chunked, mut length) = (false, false, None);
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return Err(HttpError::Malformed("a header line has no colon"));
        };
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            length = Some(parse_length(value)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            chunked = value.eq_ignore_ascii_case(b"chunked");
        } else if name.eq_ignore_ascii_case(b"connection") {
            close = value.eq_ignore_ascii_case(b"close");
        }
    }
    let length = match (chunked, length) {
        (true, _) => Length::Chunked,
        (false, Some(length)) => Length::Known(length),
        (false, None) if matches!(status, 100..=199 | 204 | 304) => Length::Known(0),
        (false, None) => return Err(HttpError::Malformed("neither a length nor chunks")),
    };
    Ok(Head { status, close, length })
}

/// The code of `HTTP/1.1 201 Created`.
fn parse_status(line: &[u8]) -> Result<u16, HttpError> {
    let digits = line.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5));
    std::str::from_utf8(digits.unwrap_or_default())
        .ok()
        .and_then(|digits| digits.parse().ok())
        .ok_or(HttpError::Malformed("the status line cannot be read"))
}

fn parse_length(value: &[u8]) -> Result<usize, HttpError> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .ok_or(HttpError::Malformed("Content-Length is no number"))
}

/// The size of a chunk from its line; extensions after `;` are passed over.
fn parse_chunk_size(line: &[u8]) -> Result<usize, HttpError> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| usize::from_str_radix(digits, 16).ok())
        .ok_or(HttpError::Malformed("the size of a chunk cannot be read"))
}

/// One keep-alive connection.
#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    reader: ResponseReader,
}

impl Connection {
    /// Connects; small requests leave at once (`TCP_NODELAY`).
    ///
    /// # Errors
    /// `Socket`.
    pub async fn open(address: SocketAddr) -> Result<Self, HttpError> {
        let failed = |source| HttpError::Socket { doing: "connect to", address, source };
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(Self { address, stream, reader: ResponseReader::default() })
    }

    /// Writes a whole request.
    ///
    /// # Errors
    /// `Socket`.
    pub async fn send(&mut self, request: &[u8]) -> Result<(), HttpError> {
        let address = self.address;
        self.stream.write_all(request).await.map_err(|source| HttpError::Socket {
            doing: "write to",
            address,
            source,
        })
    }

    /// Waits for a whole response: its status, and whether the connection ends with it.
    ///
    /// # Errors
    /// Any `HttpError`.
    pub async fn receive(&mut self) -> Result<(u16, bool), HttpError> {
        loop {
            if let Some(response) = self.reader.take_response()? {
                return Ok((response.status, response.close));
            }
            self.fill().await?;
        }
    }

    /// Waits until the head of the response has arrived; the status if all of it has.
    ///
    /// # Errors
    /// Any `HttpError`.
    pub async fn receive_head(&mut self) -> Result<Option<u16>, HttpError> {
        loop {
            if let Some(response) = self.reader.take_response()? {
                return Ok(Some(response.status));
            }
            if self.reader.head_arrived() {
                return Ok(None);
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), HttpError> {
        let address = self.address;
        let read = self
            .stream
            .read(self.reader.space()?)
            .await
            .map_err(|source| HttpError::Socket { doing: "read from", address, source })?;
        if read == 0 {
            return Err(HttpError::Closed);
        }
        self.reader.advance(read);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Told = (u16, bool, Vec<u8>);

    /// Feeds `bytes` in pieces of `piece` and collects all responses.
    fn read_all(bytes: &[u8], piece: usize) -> Result<Vec<Told>, HttpError> {
        let (mut reader, mut told) = (ResponseReader::default(), Vec::new());
        for part in bytes.chunks(piece) {
            let mut part = part;
            while !part.is_empty() {
                let space = reader.space()?;
                let taken = part.len().min(space.len());
                space[..taken].copy_from_slice(&part[..taken]);
                reader.advance(taken);
                part = &part[taken..];
                while let Some(response) = reader.take_response()? {
                    told.push((response.status, response.close, response.body.to_vec()));
                }
            }
        }
        Ok(told)
    }

    #[test]
    fn responses_come_out_whole_however_they_are_split() {
        let bytes = b"HTTP/1.1 201 Created\r\ncontent-length: 5\r\nX-Etcd-Index: 4\r\n\r\nhello\
            HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
            4\r\nWiki\r\n6;ext=1\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\nTrailer: x\r\n\r\n\
            HTTP/1.1 204 No Content\r\n\r\n\
            HTTP/1.1 404 Not Found\r\nConnection: Close\r\nContent-Length:0\r\n\r\n";
        let expected: Vec<Told> = vec![
            (201, false, b"hello".to_vec()),
            (200, false, b"Wikipedia in \r\n\r\nchunks.".to_vec()),
            (204, false, Vec::new()),
            (404, true, Vec::new()),
        ];
        for piece in 1..=bytes.len() {
            assert_eq!(read_all(bytes, piece).unwrap(), expected, "pieces of {piece}");
        }
    }

    #[test]
    fn a_long_body_makes_the_buffer_grow_up_to_its_bound() {
        let body = vec![b'x'; 300_000];
        let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        bytes.push_str(std::str::from_utf8(&body).unwrap());
        assert_eq!(read_all(bytes.as_bytes(), 10_000).unwrap(), vec![(200, false, body)]);

        let endless = vec![b'x'; BENCH_RESPONSE_BYTES_MAX + 1];
        assert!(matches!(read_all(&endless, 10_000), Err(HttpError::TooLong)));
    }

    #[test]
    fn what_is_not_http_is_refused() {
        let cases: &[&[u8]] = &[
            b"SSH-2.0-OpenSSH\r\n\r\n",
            b"HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
        ];
        for bytes in cases {
            let refused = read_all(bytes, 7);
            assert!(matches!(refused, Err(HttpError::Malformed(_))), "{refused:?}");
        }
    }

    #[test]
    fn the_head_of_a_long_poll_is_told_before_its_body() {
        let mut reader = ResponseReader::default();
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        reader.space().unwrap()[..head.len()].copy_from_slice(head);
        reader.advance(head.len());
        assert_eq!(reader.take_response().unwrap(), None);
        assert!(reader.head_arrived());
    }
}
