//! A small HTTP/1.1 client: one connection a request, a deadline on every step.
//!
//! Why no pool and no redirects: a command makes one or two requests and ends. What matters to
//! it is to know *how* a request failed, since a script must tell "nothing happened" from "nobody
//! knows"; so errors are split by what the server can have seen.
//!
//! How data passes: `Request` -> TCP connect -> hyper's handshake, its connection driven by a task
//! that ends with the `Stream` -> head -> body, chunk by chunk (`Stream::next`) or whole
//! (`exchange`).
//!
//! Invariants:
//! * Every wait has a deadline, except a caller's own wish to wait for the next chunk.
//! * A body that is read whole is at most `limits::ANSWER_BYTES_MAX`.
//! * Dropping the future or the stream closes the connection.
//!
//! Deliberately not here: TLS, proxies, retries, and what an answer means.
//!
//! Sources: RFC 9112; RFC 3986 section 2 for escapes.

use crate::base::limits;
use crate::base::url::HttpUrl;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The server was not reached; it has seen nothing.
    #[error("cannot connect to {url}")]
    Connect {
        /// The server.
        url: HttpUrl,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The request cannot be written as HTTP; nothing was sent.
    #[error("cannot ask {url} for {path}")]
    Request {
        /// The server.
        url: HttpUrl,
        /// Path and query.
        path: String,
        /// What is wrong with it.
        #[source]
        source: http::Error,
    },
    /// The connection broke; the server may have done what it was asked to.
    #[error("the connection to {url} broke")]
    Broken {
        /// The server.
        url: HttpUrl,
        /// How.
        #[source]
        source: hyper::Error,
    },
    /// No answer in time; the server may have done what it was asked to.
    #[error("{url} did not answer within {after:?}")]
    TimedOut {
        /// The server.
        url: HttpUrl,
        /// Time it had.
        after: Duration,
    },
    /// The answer is longer than anything a server of ours sends.
    #[error("the answer of {url} is longer than {} bytes", limits::ANSWER_BYTES_MAX)]
    TooLong {
        /// The server.
        url: HttpUrl,
    },
}

impl HttpError {
    /// Whether the server has certainly not seen the request, so that another one may be asked.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Request { .. } => true,
            Self::Broken { .. } | Self::TimedOut { .. } | Self::TooLong { .. } => false,
        }
    }
}

/// A request without its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    method: http::Method,
    path: String,
    form: Option<Bytes>,
}

impl Request {
    /// Reads `path`, which may carry a query; its parts are escaped by `escape`.
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: http::Method::GET, path: path.into(), form: None }
    }

    /// Deletes `path`.
    pub fn delete(path: impl Into<String>) -> Self {
        Self { method: http::Method::DELETE, path: path.into(), form: None }
    }

    /// Puts a form to `path`.
    pub fn put_form(path: impl Into<String>, fields: &[(&str, &[u8])]) -> Self {
        Self { method: http::Method::PUT, path: path.into(), form: Some(form(fields).into()) }
    }

    /// Whether it changes nothing, so that asking twice is harmless.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.method == http::Method::GET
    }

    fn build(&self, url: &HttpUrl) -> Result<http::Request<Full<Bytes>>, http::Error> {
        let builder = http::Request::builder()
            .method(&self.method)
            .uri(&self.path)
            .header(http::header::HOST, url.authority());
        match &self.form {
            None => builder.body(Full::default()),
            Some(form) => {
                let kind = "application/x-www-form-urlencoded";
                builder.header(http::header::CONTENT_TYPE, kind).body(Full::new(form.clone()))
            }
        }
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Its headers.
    pub headers: http::HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Asks and reads the whole answer within `within`.
///
/// # Errors
/// When there is no whole answer; its status is not judged here.
pub async fn exchange(
    url: &HttpUrl,
    request: &Request,
    within: Duration,
) -> Result<Answer, HttpError> {
    let deadline = Instant::now() + within;
    let late = || HttpError::TimedOut { url: url.clone(), after: within };
    let mut stream = open(url, request, within).await?;
    let mut body = Vec::new();
    loop {
        match timeout_at(deadline, stream.next()).await.map_err(|_| late())?? {
            None => break,
            Some(chunk) if body.len() + chunk.len() > limits::ANSWER_BYTES_MAX => {
                return Err(HttpError::TooLong { url: url.clone() });
            }
            Some(chunk) => body.extend_from_slice(&chunk),
        }
    }
    Ok(Answer { status: stream.status, headers: stream.headers, body: body.into() })
}

/// An answer whose body is still coming.
#[derive(Debug)]
pub struct Stream {
    /// The status code.
    pub status: u16,
    /// Its headers.
    pub headers: http::HeaderMap,
    body: Incoming,
    url: HttpUrl,
    /// Drives the connection; dropped, it closes it.
    _driver: JoinSet<()>,
}

impl Stream {
    /// The next bytes of the body; `None` at its end. May be dropped and called again.
    ///
    /// # Errors
    /// When the connection breaks before the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, HttpError> {
        while let Some(frame) = self.body.frame().await {
            let broken = |source| HttpError::Broken { url: self.url.clone(), source };
            // Anything else is trailers, which nobody here sends.
            if let Ok(data) = frame.map_err(broken)?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

/// Asks, and answers as soon as the head of the response is there, at latest after `within`.
///
/// # Errors
/// When no head came.
pub async fn open(url: &HttpUrl, request: &Request, within: Duration) -> Result<Stream, HttpError> {
    let deadline = Instant::now() + within;
    let at_request =
        |source| HttpError::Request { url: url.clone(), path: request.path.clone(), source };
    let message = request.build(url).map_err(at_request)?;
    let socket = connect(url, deadline).await?;
    let broken = |source| HttpError::Broken { url: url.clone(), source };
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.map_err(broken)?;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // What goes wrong here is told by the sender or the body.
        let _ = connection.await;
    });
    let late = |_| HttpError::TimedOut { url: url.clone(), after: within };
    let sent = timeout_at(deadline, sender.send_request(message)).await.map_err(late)?;
    let (head, body) = sent.map_err(broken)?.into_parts();
    Ok(Stream {
        status: head.status.as_u16(),
        headers: head.headers,
        body,
        url: url.clone(),
        _driver: driver,
    })
}

async fn connect(url: &HttpUrl, deadline: Instant) -> Result<TcpStream, HttpError> {
    let failed = |source| HttpError::Connect { url: url.clone(), source };
    let at = deadline.min(Instant::now() + Duration::from_millis(limits::CONNECT_TIMEOUT_MS));
    let socket = timeout_at(at, TcpStream::connect((url.host(), url.port())))
        .await
        .map_err(|_| failed(std::io::ErrorKind::TimedOut.into()))?
        .map_err(failed)?;
    socket.set_nodelay(true).map_err(failed)?;
    Ok(socket)
}

/// Escapes what is neither a slash nor unreserved in a URL, so that any key can be a path.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or_default();
    let mut escaped = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    escaped
}

/// Fields as `application/x-www-form-urlencoded`, which also is what a query looks like.
#[must_use]
pub fn form(fields: &[(&str, &[u8])]) -> String {
    let fields = fields.iter().map(|(name, value)| format!("{name}={}", escape(value)));
    fields.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const SOON: Duration = Duration::from_secs(20);

    /// Answers one connection with `script`, then closes it unless `hangs`; gives back what it
    /// was sent.
    async fn server(
        script: &'static str,
        hangs: bool,
    ) -> (HttpUrl, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = HttpUrl::of(listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut seen = vec![0; 4096];
            let length = socket.read(&mut seen).await.unwrap();
            socket.write_all(script.as_bytes()).await.unwrap();
            if hangs {
                let _ = socket.read(&mut [0]).await;
            }
            String::from_utf8_lossy(&seen[..length]).into_owned()
        });
        (url, task)
    }

    #[tokio::test]
    async fn asks_and_reads_the_answer() {
        let script = "HTTP/1.1 201 Created\r\nX-Etcd-Index: 7\r\nContent-Length: 2\r\n\r\nhi";
        let (url, seen) = server(script, false).await;
        let path = format!("/v2/keys{}?ttl=5", escape("/a b/ü%".as_bytes()));
        let request = Request::put_form(path, &[("value", b"x&y=z +\n"), ("dir", b"")]);
        let answer = exchange(&url, &request, SOON).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (201, &b"hi"[..]));
        assert_eq!(answer.headers["x-etcd-index"], "7");
        let seen = seen.await.unwrap();
        assert!(seen.starts_with("PUT /v2/keys/a%20b/%C3%BC%25?ttl=5 HTTP/1.1\r\n"), "{seen}");
        assert!(seen.contains(&format!("host: {}\r\n", url.authority())), "{seen}");
        assert!(seen.ends_with("\r\n\r\nvalue=x%26y%3Dz%20%2B%0A&dir="), "{seen}");
    }

    #[tokio::test]
    async fn streams_what_is_there_already() {
        let script = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n";
        let (url, _seen) = server(script, true).await;
        let mut stream = open(&url, &Request::get("/watch"), SOON).await.unwrap();
        assert_eq!(stream.next().await.unwrap().as_deref(), Some(&b"one"[..]));
        let waiting = tokio::time::timeout(Duration::from_millis(20), stream.next()).await;
        assert!(waiting.is_err(), "there is nothing more");
    }

    #[tokio::test]
    async fn failures_say_what_the_server_can_have_seen() {
        let refused = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            HttpUrl::of(listener.local_addr().unwrap())
        };
        let error = exchange(&refused, &Request::get("/"), SOON).await.unwrap_err();
        assert!(error.is_unsent() && matches!(error, HttpError::Connect { .. }), "{error}");
        let (url, _seen) = server("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsho", false).await;
        let error = exchange(&url, &Request::get("/"), SOON).await.unwrap_err();
        assert!(!error.is_unsent() && matches!(error, HttpError::Broken { .. }), "{error}");
        let (url, _seen) = server("HTTP/1.1 200 OK\r\n", true).await;
        let soon = Duration::from_millis(50);
        let error = exchange(&url, &Request::get("/"), soon).await.unwrap_err();
        assert!(!error.is_unsent() && matches!(error, HttpError::TimedOut { .. }), "{error}");
        let error = exchange(&url, &Request::get("/a b"), SOON).await.unwrap_err();
        assert!(error.is_unsent() && matches!(error, HttpError::Request { .. }), "{error}");
    }
}
