//! `/version` and `/health`: what monitors and clients ask before anything else.
//!
//! Health is a linearizable read: it answers whether this member can serve, not whether its
//! process runs. A disk without room makes it false too, as etcd's alarm NOSPACE does, unless the
//! query says `exclude=NOSPACE`. The shapes are etcd 3.5's, newlines (or none) included.
//!
//! Deliberately not here: metrics (`metrics`).

use crate::api::Tree;
use crate::base::limits::HEALTH_TIMEOUT_MS;
use crate::node::{Handle, ReadMode};
use std::convert::Infallible;
use std::time::Duration;
use warp::Filter;
use warp::http::StatusCode;
use warp::reply::{Reply, Response};

/// The etcd whose APIs the doors speak; clients choose what to ask by these numbers.
pub(super) const ETCD_VERSION: &str = "3.5.0";

/// The filters of this API.
pub(super) fn tree(node: Handle, insecure: bool) -> Tree {
    let version = warp::path!("version")
        .and(warp::get())
        .map(|| warp::reply::with_header(version(), "content-type", "application/json"))
        .map(Reply::into_response);
    let health = warp::path!("health")
        .and(warp::get())
        .and(warp::query::raw().or(warp::any().map(String::new)).unify())
        .and_then(move |query: String| health(node.clone(), insecure, query));
    version.or(health).unify().boxed()
}

fn version() -> String {
    format!(r#"{{"etcdserver":"{ETCD_VERSION}","etcdcluster":"{ETCD_VERSION}"}}"#)
}

async fn health(node: Handle, insecure: bool, query: String) -> Result<Response, Infallible> {
    let patience = Duration::from_millis(HEALTH_TIMEOUT_MS);
    let read = tokio::time::timeout(patience, node.read(ReadMode::Linearizable)).await;
    let has_space = excludes_no_space(&query) || !node.status().no_space;
    let healthy = matches!(read, Ok(Ok(_))) && has_space;
    let text = text(healthy, insecure);
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(warp::reply::with_status(text, status).into_response())
}

fn excludes_no_space(query: &str) -> bool {
    query.split('&').any(|pair| pair == "exclude=NOSPACE")
}

fn text(healthy: bool, insecure: bool) -> &'static str {
    match (healthy, insecure) {
        (true, false) => r#"{"health":"true"}"#,
        (true, true) => r#"{"health":"true","insecure":"true"}"#,
        (false, false) => "{\"health\":\"false\"}\n",
        (false, true) => "{\"health\":\"false\",\"insecure\":\"true\"}\n",
    }
}
