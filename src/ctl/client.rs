//! Asking a cluster: endpoints in turn, and what an answer means for a script.
//!
//! Why here and not in `sys::http`: which failure allows another endpoint to be asked, and which
//! exit code a refusal gets, are rules of the command line.
//!
//! How data passes: a verb's `Request` -> each endpoint until one answers -> 2xx: the answer;
//! anything else: a `Report` made of etcd's error object.
//!
//! Invariants:
//! * A write is sent to a second endpoint only when the first has certainly not seen it.
//! * Every failure has an exit code of `contracts/cli.md` section 4.
//!
//! Deliberately not here: authentication and TLS.

use crate::base::limits;
use crate::base::report::{Exit, Report};
use crate::base::url::HttpUrl;
use crate::sys::exec::shell_quote;
use crate::sys::http::{self, Answer, HttpError, Request, Stream};
use serde_json::Value;
use std::time::Duration;

/// Where a verb finds the cluster.
#[derive(Clone, Debug, clap::Args)]
pub struct Connection {
    /// Servers to ask, the next one when one cannot be reached [default: http://127.0.0.1:2379]
    #[arg(
        long,
        visible_alias = "endpoints",
        value_name = "URL",
        value_delimiter = ',',
        value_parser = endpoint,
        env = "ALTHING_ENDPOINT"
    )]
    pub endpoint: Vec<HttpUrl>,
    /// Time one request may take, such as 500ms or 10s
    #[arg(
        long,
        value_name = "TIME",
        value_parser = duration,
        default_value = "10s"
    )]
    pub timeout: Duration,
}

/// A cluster to ask.
#[derive(Clone, Debug)]
pub struct Client {
    endpoints: Vec<HttpUrl>,
    timeout: Duration,
}

impl Connection {
    /// The cluster meant: the flag or `ALTHING_ENDPOINT`, else `ALTHING_ENDPOINTS` (in the manner
    /// of etcdctl), else a daemon on this host.
    ///
    /// # Errors
    /// When an address is none.
    pub fn client(&self) -> Result<Client, Report> {
        let mut endpoints = self.endpoint.clone();
        if endpoints.is_empty() {
            let plural = std::env::var("ALTHING_ENDPOINTS").unwrap_or_default();
            let plural =
                if plural.is_empty() { "http://127.0.0.1:2379".to_owned() } else { plural };
            endpoints = parse_endpoints(&plural)?;
        }
        if endpoints.len() > limits::ENDPOINTS_MAX {
            let error = format!("{} endpoints are too many", endpoints.len());
            let help = format!("name at most {}", limits::ENDPOINTS_MAX);
            return Err(Report::new(Exit::Usage, error).help(help));
        }
        Ok(Client { endpoints, timeout: self.timeout })
    }
}

fn parse_endpoints(text: &str) -> Result<Vec<HttpUrl>, Report> {
    let endpoints = text.split(',').map(|part| {
        part.trim().parse().map_err(|why| {
            Report::new(Exit::Usage, format!("ALTHING_ENDPOINTS: `{part}` {why}"))
                .help("write http://HOST:PORT, with commas between")
        })
    });
    endpoints.collect()
}

impl Client {
    /// Asks, and answers only a success.
    ///
    /// # Errors
    /// When no endpoint answers, or one refuses.
    pub async fn ask(&self, request: &Request) -> Result<Answer, Report> {
        let mut last = Report::new(Exit::Unreachable, "no endpoint is given");
        for url in &self.endpoints {
            match http::exchange(url, request, self.timeout).await {
                Ok(answer) if (200..300).contains(&answer.status) => return Ok(answer),
                Ok(answer) => return Err(refusal(answer.status, &answer.body)),
                Err(error) => last = unanswered(&error, request),
            }
            if last.exit != Exit::Unreachable {
                break;
            }
        }
        Err(last)
    }

    /// Asks for a body that goes on.
    ///
    /// # Errors
    /// As `ask`.
    pub async fn stream(&self, request: &Request) -> Result<Stream, Report> {
        let mut last = Report::new(Exit::Unreachable, "no endpoint is given");
        for url in &self.endpoints {
            match http::open(url, request, self.timeout).await {
                Ok(stream) if stream.status == 200 => return Ok(stream),
                Ok(stream) => return Err(self.refused_stream(stream).await),
                Err(error) => last = unanswered(&error, request),
            }
        }
        Err(last)
    }

    async fn refused_stream(&self, mut stream: Stream) -> Report {
        let status = stream.status;
        let body = tokio::time::timeout(self.timeout, stream.next()).await;
        refusal(status, &body.ok().and_then(Result::ok).flatten().unwrap_or_default())
    }

    /// `ask`, with the answer's body as JSON.
    ///
    /// # Errors
    /// As `ask`, and when the body is not JSON.
    pub async fn json<T: serde::de::DeserializeOwned>(
        &self,
        request: &Request,
    ) -> Result<(Answer, T), Report> {
        let answer = self.ask(request).await?;
        let parsed = serde_json::from_slice(&answer.body).map_err(|error| {
            let urls: Vec<String> = self.endpoints.iter().map(ToString::to_string).collect();
            let urls = urls.join(" or ");
            Report::new(
                Exit::Failed,
                format!("the answer of {urls} makes no sense to this command"),
            )
            .cause(error.to_string())
            .help("is it an althing or etcd server? name another one with --endpoint")
        })?;
        Ok((answer, parsed))
    }
}

/// What a missing answer means. `Unreachable` allows the next endpoint to be asked.
fn unanswered(error: &HttpError, request: &Request) -> Report {
    let (exit, help) = match error {
        HttpError::Connect { .. } => {
            (Exit::Unreachable, "is the daemon running there? name another one with --endpoint")
        }
        HttpError::Broken { .. } if request.is_read() => {
            (Exit::Unreachable, "is it an althing or etcd server?")
        }
        HttpError::Broken { .. } | HttpError::TimedOut { .. } if !request.is_read() => {
            (Exit::Unknown, "the change may have happened: read the key before you try again")
        }
        HttpError::Broken { .. } | HttpError::TimedOut { .. } => {
            (Exit::Unknown, "ask again, or give it more --timeout")
        }
        HttpError::Request { .. } => (Exit::Usage, "check the key"),
        HttpError::TooLong { .. } => (Exit::Failed, "ask for less, such as one directory"),
    };
    let report = Report::new(exit, error.to_string()).help(help);
    match std::error::Error::source(error) {
        Some(source) => report.cause(crate::base::report::chain(source)),
        None => report,
    }
}

/// An answer that is no success, in etcd's error object or in plain text.
#[must_use]
pub fn refusal(status: u16, body: &[u8]) -> Report {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| json.get(name).and_then(Value::as_str).filter(|t| !t.is_empty());
    let code = json.get("errorCode").and_then(Value::as_u64).unwrap_or_default();
    let cause = text("cause").unwrap_or_default();
    let report = match text("message") {
        Some(message) => Report::new(exit_of(status, code, cause), message),
        None => {
            let error = format!("the server answered with status {status}");
            let body = String::from_utf8_lossy(body);
            let report = Report::new(exit_of(status, code, &body), error);
            let line = body.lines().next().unwrap_or_default().trim().to_owned();
            return if line.is_empty() { report } else { report.cause(line) };
        }
    };
    let report = if cause.is_empty() { report } else { report.cause(cause) };
    match next_step(code, cause) {
        Some(help) => report.help(help),
        None => report,
    }
}

/// What to try after a refusal of the keys API.
fn next_step(code: u64, cause: &str) -> Option<String> {
    let parent = match cause.rsplit_once('/') {
        Some((parent, _)) if !parent.is_empty() => parent,
        Some(_) | None => "/",
    };
    match code {
        100 => Some(format!("see what is there: althing ls {}", shell_quote(parent))),
        101 => Some("somebody changed it: read it again, then decide".to_owned()),
        104 => Some(format!("{cause} is a key with a value; nothing can be below it")),
        105 => Some("leave out --create to write it anyway".to_owned()),
        108 => Some("remove it with everything in it: -r".to_owned()),
        _ => None,
    }
}

/// The exit code of a refusal; error codes as in etcd's `v2error/error.go`.
fn exit_of(status: u16, code: u64, cause: &str) -> Exit {
    match (code, status) {
        (100 | 101 | 105, _) => Exit::NotFound,
        (110, _) | (0, 401 | 403) => Exit::Denied,
        (200..=299, _) => Exit::Data,
        (301, _) => Exit::NoLeader,
        _ if cause.contains("timed out") || cause.contains("unknown") => Exit::Unknown,
        _ if cause.contains("no leader") => Exit::NoLeader,
        (0, 404) => Exit::NotFound,
        (0, 503) => Exit::NoLeader,
        _ => Exit::Failed,
    }
}

fn endpoint(text: &str) -> Result<HttpUrl, String> {
    text.parse().map_err(|why| format!("it {why}; write http://HOST:PORT"))
}

/// A number with a unit: `ms`, `s`, `m` or `h`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a number above 0 and a unit: ms, s, m or h, as in 10s".to_owned();
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    let ms = number.checked_mul(unit_ms).filter(|ms| (1..=86_400_000).contains(ms));
    ms.map(Duration::from_millis).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_their_exit_codes() {
        let etcd = |code: u64, cause: &str| {
            format!(r#"{{"errorCode":{code},"message":"M","cause":"{cause}","index":3}}"#)
        };
        let table = [
            (404, etcd(100, "/a"), Exit::NotFound),
            (412, etcd(101, "[a != b]"), Exit::NotFound),
            (412, etcd(105, "/a"), Exit::NotFound),
            (403, etcd(102, "/a"), Exit::Failed),
            (403, "forbidden".to_owned(), Exit::Denied),
            (401, etcd(110, ""), Exit::Denied),
            (400, etcd(209, "invalid value for ttl"), Exit::Data),
            (500, etcd(300, "etcdserver: request timed out"), Exit::Unknown),
            (503, etcd(300, "etcdserver: no leader"), Exit::NoLeader),
            (500, etcd(301, ""), Exit::NoLeader),
            (500, etcd(300, "mvcc: database space exceeded"), Exit::Failed),
            (404, "404 page not found\n".to_owned(), Exit::NotFound),
            (503, String::new(), Exit::NoLeader),
            (500, "x".to_owned(), Exit::Failed),
        ];
        for (status, body, exit) in table {
            assert_eq!(refusal(status, body.as_bytes()).exit, exit, "{status} {body}");
        }
        let shown = refusal(404, etcd(100, "/a").as_bytes()).to_string();
        assert_eq!(shown, "error: M\ncause: /a\nhelp: see what is there: althing ls /");
        let shown = refusal(404, b"404 page not found\n").to_string();
        assert_eq!(shown, "error: the server answered with status 404\ncause: 404 page not found");
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "10", "s", "0s", "-1s", "1d", "1.5s", "99999999999999999999s", "9999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn the_next_endpoint_is_asked_when_one_is_gone() {
        let closed = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            HttpUrl::of(listener.local_addr().unwrap())
        };
        let served = crate::ctl::testing::serve(vec![(200, "{}")]).await;
        let connection = |endpoint| Connection { endpoint, timeout: Duration::from_secs(20) };
        let request = Request::put_form("/v2/keys/a", &[("value", b"b")]);
        let client = connection(vec![closed(), served.url.clone()]).client().unwrap();
        assert_eq!(client.ask(&request).await.unwrap().status, 200);
        let report = connection(vec![closed()]).client().unwrap().ask(&request).await.unwrap_err();
        assert_eq!(report.exit, Exit::Unreachable);
        assert!(report.to_string().contains("cause: "), "{report}");
        let many = connection(vec![closed(); limits::ENDPOINTS_MAX + 1]);
        assert_eq!(many.client().unwrap_err().exit, Exit::Usage);
        assert_eq!(parse_endpoints("http://a:1,b").unwrap_err().exit, Exit::Usage);
    }
}
