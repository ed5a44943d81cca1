//! Floor 5: the doors. HTTP is known here and nowhere below.
//!
//! `service` makes the hyper service of one listener. A request passes the guard (is this a
//! client, or somebody's web page?), is routed by its first path segments, and every answer is
//! counted and gets the CORS headers, if there are any to give. The keys of v2 come first and
//! straight: they are the hot path. What has no more than a path to look at is a small warp filter
//! tree, one an API (`health`, `agent`).
//!
//! ```text
//! sys::listen -> guard -> /v2/keys…            -> v2::keys -> node::Handle
//!                      -> /v2/members, stats … -> v2::members, v2::stats
//!                      -> /version, /health    -> health
//!                      -> /metrics             -> metrics
//!                      -> /althing/v1/…        -> agent
//!                      -> /                    -> front
//!                      -> 404
//! ```
//!
//! Invariants:
//! * A door speaks to the node through `Handle` only and keeps no state of its own.
//! * Paths are normalised, never redirected: a redirected PUT loses its body in many clients.
//! * Nothing is logged for a request that goes well.
//!
//! Deliberately not here: sockets (`sys::listen`), what an operation means (`machine`).

pub mod agent;
mod body;
mod front;
mod guard;
mod health;
mod metrics;
mod reply;
mod traffic;
pub mod v2;

pub use agent::{RenderedFile, RendererStatus};
pub use guard::{Cors, Policy};
pub use reply::{Body, Response};

use crate::api::metrics::Metrics;
use crate::api::traffic::{Row, Traffic};
use crate::node::Handle;
use crate::sys::listen::Stop;
use crate::wire::form;
use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::{Service, service_fn};
use hyper_util::service::TowerToHyperService;
use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;
use warp::filters::BoxedFilter;

/// A tree of warp filters that answers.
type Tree = BoxedFilter<(warp::reply::Response,)>;

/// Where v2's keys begin.
const KEYS: &str = "/v2/keys";

/// What the doors of every listener share.
pub struct Doors {
    node: Handle,
    keys: v2::Keys,
    members: v2::Members,
    stats: v2::Stats,
    metrics: Metrics,
    traffic: Arc<Traffic>,
    health: Tree,
    agent: Tree,
}

impl Doors {
    /// The doors of a node. `renderer` tells what the renderer is doing, for the status; `stop`
    /// ends watches when the daemon begins to drain; `insecure`, which `/health` tells, says that
    /// plain text is spoken beyond loopback.
    #[must_use]
    pub fn new(node: Handle, renderer: RendererStatus, stop: Stop, insecure: bool) -> Self {
        let health = health::tree(node.clone(), insecure);
        let traffic = Arc::new(Traffic::default());
        Self {
            keys: v2::Keys::new(node.clone(), stop, Arc::clone(&traffic)),
            members: v2::Members::new(node.clone()),
            stats: v2::Stats::new(node.clone(), Arc::clone(&traffic)),
            metrics: Metrics::new(node.clone(), Arc::clone(&renderer), Arc::clone(&traffic)),
            agent: agent::tree(node.clone(), renderer),
            health,
            traffic,
            node,
        }
    }

    async fn answer(&self, policy: &Policy, request: Request<Incoming>) -> Response {
        let row = Row::of(request.method());
        let response = self.guarded(policy, request).await;
        self.traffic.answered(row, response.status());
        response
    }

    async fn guarded(&self, policy: &Policy, request: Request<Incoming>) -> Response {
        let origin = match policy.admit(&request) {
            Ok(origin) => origin,
            Err(refusal) => return *refusal,
        };
        let mut response = self.route(request).await;
        if let Some(origin) = origin {
            guard::allow(&mut response, origin);
        }
        response
    }

    async fn route(&self, request: Request<Incoming>) -> Response {
        if *request.method() == Method::OPTIONS {
            return match normalised(request.uri().path()) {
                Some(_) => reply::empty(),
                None => reply::bad_request(),
            };
        }
        match key_of(request.uri().path()) {
            Some(_) => self.keys.serve(request).await,
            None => Box::pin(self.route_rest(request)).await,
        }
    }

    async fn route_rest(&self, request: Request<Incoming>) -> Response {
        let Some(path) = normalised(request.uri().path()) else { return reply::bad_request() };
        if path.strip_prefix(KEYS.as_bytes()).is_some_and(is_segment_end) {
            let (parts, body) = request.into_parts();
            return self.keys.serve_key(&parts, body, &path[KEYS.len()..]).await;
        }
        // Only members and keys take a trailing slash.
        let has_slash = request.uri().path().ends_with('/') && !path.is_empty();
        let mut segments = path.split(|byte| *byte == b'/').skip(1);
        match segments.next().unwrap_or_default() {
            b"v2" => self.route_v2(request, &path, has_slash).await,
            b"version" | b"health" if !has_slash => through(&self.health, request).await,
            b"althing" => through(&self.agent, request).await,
            b"metrics" if segments.next().is_none() && !has_slash => self.metrics.page(),
            b"" => only_read(request.method(), || front::page(&self.node.status())),
            _ => reply::not_found(),
        }
    }

    async fn route_v2(&self, request: Request<Incoming>, path: &[u8], has_slash: bool) -> Response {
        const MEMBERS: &[u8] = b"/v2/members";
        if let Some(rest) = path.strip_prefix(MEMBERS).filter(|rest| is_segment_end(rest)) {
            let rest = if has_slash { [rest, b"/"].concat() } else { rest.to_vec() };
            let (parts, body) = request.into_parts();
            return self.members.serve(&parts, body, &rest).await;
        }
        let method = request.method();
        match path {
            _ if has_slash => reply::not_found(),
            b"/v2/machines" => only_read(method, || v2::machines(&self.node.status())),
            b"/v2/leader" => only_read(method, || v2::leader(&self.node.status())),
            _ => match path.strip_prefix(b"/v2/stats/") {
                Some(name) => self.stats.serve(method, name),
                None => reply::not_found(),
            },
        }
    }
}

/// Answers a method that only reads.
fn only_read(method: &Method, answer: impl FnOnce() -> Response) -> Response {
    match *method {
        Method::GET | Method::HEAD => answer(),
        _ => reply::method_not_allowed("GET,HEAD"),
    }
}

/// The service of one listener.
pub fn service(
    doors: Arc<Doors>,
    policy: Policy,
) -> impl Service<
    Request<Incoming>,
    Response = Response,
    Error = Infallible,
    Future: Future<Output = Result<Response, Infallible>> + Send,
> + Clone {
    let policy = Arc::new(policy);
    service_fn(move |request| {
        let (doors, policy) = (Arc::clone(&doors), Arc::clone(&policy));
        async move { Ok(doors.answer(&policy, request).await) }
    })
}

/// The key part of a path of v2's keys that needs no normalising beyond what keys get anyway.
fn key_of(path: &str) -> Option<&str> {
    let key = path.strip_prefix(KEYS)?;
    // Going up could leave the keys.
    (is_segment_end(key.as_bytes()) && !key.contains("..") && !has_escaped_dot(key)).then_some(key)
}

fn is_segment_end(rest: &[u8]) -> bool {
    matches!(rest.first(), None | Some(b'/'))
}

fn has_escaped_dot(path: &str) -> bool {
    path.as_bytes().windows(3).any(|window| window.eq_ignore_ascii_case(b"%2e"))
}

/// A path decoded and cleaned as Go's `path.Clean` does; `None` for a bad escape.
fn normalised(path: &str) -> Option<Vec<u8>> {
    let decoded: Cow<'_, [u8]> = form::unescape(path.as_bytes(), false).ok()?;
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in decoded.split(|byte| *byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => {
                segments.pop();
            }
            name => segments.push(name),
        }
    }
    let mut cleaned = Vec::with_capacity(decoded.len());
    for segment in segments {
        cleaned.push(b'/');
        cleaned.extend_from_slice(segment);
    }
    Some(cleaned)
}

/// Sends a request through a tree of filters. These take no bodies.
async fn through(tree: &Tree, request: Request<Incoming>) -> Response {
    let service = TowerToHyperService::new(warp::service(tree.clone()));
    let Ok(response) = service.call(request.map(|_| Empty::<Bytes>::new())).await;
    let (parts, body) = response.into_parts();
    match parts.status {
        http::StatusCode::NOT_FOUND => reply::not_found(),
        http::StatusCode::METHOD_NOT_ALLOWED => reply::method_not_allowed("GET"),
        // Filters answer with whole bodies, which cannot fail.
        _ => {
            let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            Response::from_parts(parts, Body::whole(bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_from_their_neighbours() {
        for (path, key) in [("/v2/keys", ""), ("/v2/keys/", "/"), ("/v2/keys//a%20b/", "//a%20b/")]
        {
            assert_eq!(key_of(path), Some(key), "{path}");
        }
        for path in ["/v2/keysfoo", "/v2/key", "/V2/keys/a", "/v2/KEYS", "/", "/v2/keys/../x"] {
            assert_eq!(key_of(path), None, "{path}");
        }
    }

    #[test]
    fn paths_are_normalised_before_they_are_routed() {
        let table = [
            ("//v2//keys/a", "/v2/keys/a"),
            ("/v2/keys/../members", "/v2/members"),
            ("/v2/%2e%2e/v2/keys/a%2Fb/", "/v2/keys/a/b"),
            ("/", ""),
            ("/../..", ""),
        ];
        for (path, cleaned) in table {
            assert_eq!(normalised(path).as_deref(), Some(cleaned.as_bytes()), "{path}");
        }
        assert_eq!(normalised("/%zz"), None);
    }
}
