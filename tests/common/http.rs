//! A blocking HTTP/1.1 client of one request a connection.
//!
//! Bodies are read by `Content-Length`, by chunks, or to the end of the connection (RFC 9112,
//! section 6.3). Deliberately without redirects, TLS, keep-alive and trailers.

use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// Longest silence of a server before the request fails: longer than any test's long poll.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// One answer.
#[derive(Debug)]
pub(crate) struct Response {
    /// The status code.
    pub(crate) status: u16,
    /// Names as sent and values, in order.
    pub(crate) headers: Vec<(String, String)>,
    /// The body, chunks joined; bytes that are not UTF-8 are replaced.
    pub(crate) body: String,
}

impl Response {
    /// The first header called `name`, whatever its case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut named = self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Sends one request and reads the answer. A body that is not empty goes as a form.
///
/// # Panics
/// When there is no whole answer.
#[track_caller]
pub(crate) fn http(method: &str, url: &str, body: &str) -> Response {
    try_http(method, url, body).unwrap_or_else(|error| panic!("{method} {url}: {error}"))
}

/// `http` for a server that may not be there.
///
/// # Errors
/// When the URL is not `http://host:port/path` or there is no whole answer.
pub(crate) fn try_http(method: &str, url: &str, body: &str) -> io::Result<Response> {
    let no_url = || io::Error::other(format!("{url:?} is not http://host:port/path"));
    let (host, path) = url.strip_prefix("http://").and_then(split_host).ok_or_else(no_url)?;
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let form = if body.is_empty() { "" } else { form };
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
         {form}Content-Length: {length}\r\n\r\n{body}"
    )?;
    read_response(&mut BufReader::new(stream), method == "HEAD")
}

/// `host:port` and the path, which is `/` when there is none.
fn split_host(rest: &str) -> Option<(&str, &str)> {
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    (!host.is_empty()).then_some((host, if path.is_empty() { "/" } else { path }))
}

/// Reads one answer; one to a HEAD request has no body.
///
/// # Errors
/// When it is not HTTP/1.1 or ends too early.
pub(crate) fn read_response(input: &mut impl BufRead, is_head: bool) -> io::Result<Response> {
    let mut response = read_head(input)?;
    if !is_head && response.status != 204 && response.status != 304 {
        let body = read_body(input, &response)?;
        response.body = String::from_utf8_lossy(&body).into_owned();
    }
    Ok(response)
}

/// Reads an answer up to its body.
///
/// # Errors
/// When it is not HTTP/1.1 or ends too early.
pub(crate) fn read_head(input: &mut impl BufRead) -> io::Result<Response> {
    let bad = |line: &str| io::Error::new(io::ErrorKind::InvalidData, line.to_owned());
    let first = read_line(input)?;
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| bad(&first))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(input)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| bad(&line))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    Ok(Response { status, headers, body: String::new() })
}

fn read_body(input: &mut impl BufRead, head: &Response) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    let number = |text: &str, radix| usize::from_str_radix(text, radix).map_err(io::Error::other);
    if head.header("Transfer-Encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        loop {
            let line = read_line(input)?;
            let size = number(line.split(';').next().unwrap_or_default().trim(), 16)?;
            read_exactly(input, size, &mut body)?;
            read_line(input)?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
    match head.header("Content-Length") {
        Some(length) => read_exactly(input, number(length, 10)?, &mut body)?,
        None => _ = input.read_to_end(&mut body)?,
    }
    Ok(body)
}

/// Appends exactly `length` bytes: a connection that ends before is an error, not a short body.
fn read_exactly(input: &mut impl BufRead, length: usize, body: &mut Vec<u8>) -> io::Result<()> {
    let taken = input.take(length as u64).read_to_end(body)?;
    if taken == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn read_line(input: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
