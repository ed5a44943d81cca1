//! `/v2/members`, `/v2/machines` and `/v2/leader`: who is in the cluster and where clients find it.
//!
//! Every request is checked as etcd checks it (path, content type, JSON, URLs, in this order), so a
//! client that asks nonsense is told the same. What would change the members is refused: this
//! version's cluster is its one member.
//!
//! Invariants:
//! * Errors here are `{"message":…}` without a newline, unlike those of keys.
//! * `/v2/leader`, which etcd had until 0.4, tells the leader's client URL: the one of use.
//!
//! Deliberately not here: peer URLs that anybody listens on. etcd's default stands for them, as
//! its clients read the first.
//!
//! Sources: etcd's `etcdserver/api/v2http/client.go` and `pkg/types/urls.go`; contract keys-api
//! section 12.

use crate::api::body;
use crate::api::reply::{self, Body, Response};
use crate::api::v2::answer::{self, CLUSTER_ID};
use crate::node::{Handle, Status};
use crate::wire::v2;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};

/// etcd's default address for peers.
const PEER_URL: &str = "http://localhost:2380";

/// The members API of one node.
pub(in crate::api) struct Members {
    node: Handle,
    cluster: HeaderValue,
}

/// What is wrong with a request, for its client.
type Wrong = (StatusCode, String);

impl Members {
    pub(in crate::api) fn new(node: Handle) -> Self {
        let cluster = answer::cluster_header(&node.status());
        Self { node, cluster }
    }

    /// Answers a request for `/v2/members` and what is below it, `rest`.
    pub(in crate::api) async fn serve(
        &self,
        parts: &Parts,
        body: Incoming,
        rest: &[u8],
    ) -> Response {
        let rest = rest.strip_prefix(b"/").unwrap_or(rest);
        let mut response = match parts.method {
            Method::GET => self.get(rest),
            Method::POST => match urls(parts, body).await {
                Ok(_) => fixed_members(),
                Err(wrong) => message(wrong),
            },
            Method::PUT | Method::DELETE if rest.is_empty() => {
                let text = Bytes::from_static(b"Method Not Allowed\n");
                reply::text(StatusCode::METHOD_NOT_ALLOWED, text)
            }
            Method::PUT => self.update(parts, body, rest).await,
            Method::DELETE => self.known(rest).map_or_else(message, |()| fixed_members()),
            _ => return reply::method_not_allowed("GET,POST,DELETE,PUT"),
        };
        response.headers_mut().insert(CLUSTER_ID, self.cluster.clone());
        response
    }

    fn get(&self, rest: &[u8]) -> Response {
        let status = self.node.status();
        match rest {
            b"" => line(&json!({ "members": [member(&status)] })),
            b"leader" if status.leader == Some(status.member) => line(&member(&status)),
            b"leader" => message((StatusCode::SERVICE_UNAVAILABLE, "During election".into())),
            _ => message((StatusCode::NOT_FOUND, "Not found".into())),
        }
    }

    async fn update(&self, parts: &Parts, body: Incoming, rest: &[u8]) -> Response {
        if hexadecimal(rest).is_none() {
            return message(no_such_member(rest));
        }
        match urls(parts, body).await.and_then(|_| self.known(rest)) {
            Ok(()) => fixed_members(),
            Err(wrong) => message(wrong),
        }
    }

    /// Whether `id` is a member's.
    fn known(&self, id: &[u8]) -> Result<(), Wrong> {
        let known = hexadecimal(id) == Some(self.node.status().member.0);
        if known { Ok(()) } else { Err(no_such_member(id)) }
    }
}

/// `/v2/machines`: where clients find members, as one line without its end.
pub(in crate::api) fn machines(status: &Status) -> Response {
    let mut urls = status.client_urls.clone();
    urls.sort_unstable();
    plain(urls.join(", "))
}

/// `/v2/leader`: where clients find the leader.
pub(in crate::api) fn leader(status: &Status) -> Response {
    match status.client_urls.first() {
        Some(url) if status.leader == Some(status.member) => plain(url.clone()),
        Some(_) | None => message((StatusCode::SERVICE_UNAVAILABLE, "During election".into())),
    }
}

fn plain(text: String) -> Response {
    let mut response = Response::new(Body::whole(text.into()));
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn member(status: &Status) -> Value {
    json!({
        "id": status.member.to_string(),
        "name": status.name,
        "peerURLs": [PEER_URL],
        "clientURLs": status.client_urls,
    })
}

fn line(value: &Value) -> Response {
    reply::json(StatusCode::OK, format!("{value}\n").into())
}

fn message((status, message): Wrong) -> Response {
    let mut body = b"{\"message\":".to_vec();
    v2::write_string(&mut body, message.as_bytes());
    body.push(b'}');
    reply::json(status, body.into())
}

/// What etcd answers when a change would leave too few members.
fn fixed_members() -> Response {
    let why = "Internal Server Error: this version's cluster is its one member";
    message((StatusCode::INTERNAL_SERVER_ERROR, why.into()))
}

fn no_such_member(id: &[u8]) -> Wrong {
    let id = match hexadecimal(id) {
        Some(number) => format!("{number:x}"),
        None => String::from_utf8_lossy(id).into_owned(),
    };
    (StatusCode::NOT_FOUND, format!("No such member: {id}"))
}

/// A member's id, if it is one.
fn hexadecimal(text: &[u8]) -> Option<u64> {
    let digits = text.iter().all(u8::is_ascii_hexdigit);
    digits.then(|| u64::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok())?
}

/// The peer URLs a request names.
async fn urls(parts: &Parts, body: Incoming) -> Result<Vec<String>, Wrong> {
    let kind = parts.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let kind = String::from_utf8_lossy(kind);
    let kind = match kind.split_once(';') {
        Some((kind, _)) => kind.to_lowercase().trim().to_owned(),
        None => kind.into_owned(),
    };
    if kind != "application/json" {
        let why = format!("Bad Content-Type {kind}, accept application/json");
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    let bad = |why: String| (StatusCode::BAD_REQUEST, why);
    let body = body::read(body).await.map_err(|error| bad(error.to_string()))?;
    let urls = peer_urls(&body).map_err(bad)?;
    urls.iter().try_for_each(|url| check_url(url)).map_err(bad)?;
    Ok(urls)
}

/// Reads `{"peerURLs":[…]}` as Go does: the name in any case, `null` for nothing, the rest ignored.
fn peer_urls(body: &[u8]) -> Result<Vec<String>, String> {
    const STRUCT: &str = "value of type struct { PeerURLs []string \"json:\\\"peerURLs\\\"\" }";
    let fields = match serde_json::from_slice(body).map_err(|error| syntax(body, &error))? {
        Value::Object(fields) => fields,
        Value::Null => Map::new(),
        other => return Err(misfit(&other, STRUCT)),
    };
    let mut urls = Vec::new();
    for (_, named) in fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("peerURLs")) {
        urls = match named {
            Value::Array(items) => items.iter().map(url_of).collect::<Result<_, _>>()?,
            Value::Null => Vec::new(),
            other => return Err(misfit(other, "struct field .peerURLs of type []string")),
        };
    }
    if urls.is_empty() { Err("no valid URLs given".to_owned()) } else { Ok(urls) }
}

fn url_of(item: &Value) -> Result<String, String> {
    match item {
        Value::String(url) => Ok(url.clone()),
        Value::Null => Ok(String::new()),
        other => Err(misfit(other, "struct field .peerURLs of type string")),
    }
}

fn misfit(value: &Value, place: &str) -> String {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    format!("json: cannot unmarshal {kind} into Go {place}")
}

/// What is wrong with a text that is no JSON; in Go's words where they are simple.
fn syntax(body: &[u8], error: &serde_json::Error) -> String {
    match body.trim_ascii() {
        [] => "unexpected end of JSON input".to_owned(),
        _ if error.is_eof() => "unexpected end of JSON input".to_owned(),
        [first, ..] if !b"{[\"-0123456789tfn".contains(first) => {
            format!("invalid character '{}' looking for beginning of value", char::from(*first))
        }
        _ => error.to_string(),
    }
}

/// Go's `types.NewURLs`, in its words.
fn check_url(url: &str) -> Result<(), String> {
    const SCHEMES: [&str; 4] = ["http", "https", "unix", "unixs"];
    let url = url.trim();
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(format!("URL scheme must be http, https, unix, or unixs: {url}"));
    };
    if !SCHEMES.contains(&scheme) {
        return Err(format!("URL scheme must be http, https, unix, or unixs: {url}"));
    }
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let has_port = host.rsplit_once(':').is_some_and(|(name, port)| {
        let is_name = !name.contains(':') || (name.starts_with('[') && name.ends_with(']'));
        is_name && port.bytes().all(|byte| byte.is_ascii_digit())
    });
    if !has_port {
        return Err(format!("URL address does not have the form \"host:port\": {url}"));
    }
    if path.is_empty() { Ok(()) } else { Err(format!("URL must not contain a path: {url}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_hexadecimal_and_echoed_as_they_are_known() {
        let said = |id: &[u8]| no_such_member(id).1;
        assert_eq!(said(b"00000000000000000000001"), "No such member: 1");
        assert_eq!(said(b"DEADbeef"), "No such member: deadbeef");
        assert_eq!(said(b"nothex"), "No such member: nothex");
        assert_eq!(hexadecimal(b"+1"), None);
        assert_eq!(hexadecimal(b""), None);
        assert_eq!(hexadecimal(b"10000000000000000"), None);
    }

    #[test]
    fn peer_urls_are_refused_in_etcds_words() {
        let refused = |body: &str| {
            let urls = peer_urls(body.as_bytes());
            urls.and_then(|urls| urls.iter().try_for_each(|url| check_url(url))).unwrap_err()
        };
        let scheme = "URL scheme must be http, https, unix, or unixs: ";
        let table = [
            ("", "unexpected end of JSON input"),
            ("{\"peerURLs\":", "unexpected end of JSON input"),
            ("x=y", "invalid character 'x' looking for beginning of value"),
            ("{}", "no valid URLs given"),
            ("{\"peerURLs\":[]}", "no valid URLs given"),
            ("null", "no valid URLs given"),
            ("{\"peerURLs\":null}", "no valid URLs given"),
            ("{\"PEERURLS\":[null]}", scheme),
            (
                "[]",
                "json: cannot unmarshal array into Go value of type struct { PeerURLs []string \
                 \"json:\\\"peerURLs\\\"\" }",
            ),
            (
                "{\"peerURLs\":\"http://a:1\"}",
                "json: cannot unmarshal string into Go struct field .peerURLs of type []string",
            ),
            (
                "{\"peerURLs\":[1]}",
                "json: cannot unmarshal number into Go struct field .peerURLs of type string",
            ),
            ("{\"peerURLs\":[\"ftp://a:1\"]}", &format!("{scheme}ftp://a:1")),
            ("{\"peerURLs\":[\"a:1\"]}", &format!("{scheme}a:1")),
            (
                "{\"peerURLs\":[\"http://a\"]}",
                "URL address does not have the form \"host:port\": http://a",
            ),
            ("{\"peerURLs\":[\"http://a:1/\"]}", "URL must not contain a path: http://a:1/"),
        ];
        for (body, why) in table {
            assert_eq!(refused(body), why, "{body}");
        }
        let good = "{\"name\":\"n2\",\"peerURLs\":[\"http://127.0.0.1:9\",\"https://[::1]:9\"]}";
        let urls = peer_urls(good.as_bytes()).unwrap();
        assert!(urls.len() == 2 && urls.iter().all(|url| check_url(url).is_ok()));
    }
}
