//! `/version` and `/health`: what monitors and clients ask before anything else.
//!
//! Health is a linearizable read: it answers whether this member can serve, not whether its
//! process runs. The shapes are etcd 3.5's, newlines (or none) included.
//!
//! Deliberately not here: metrics, and alarms, which do not exist yet.

use crate::api::Tree;
use crate::base::limits::HEALTH_TIMEOUT_MS;
use crate::node::{Handle, ReadMode};
use std::convert::Infallible;
use std::time::Duration;
use warp::Filter;
use warp::http::StatusCode;
use warp::reply::{Reply, Response};

/// The etcd whose APIs the doors speak; clients choose what to ask by these numbers.
const VERSION: &str = r#"{"etcdserver":"3.5.0","etcdcluster":"3.5.0"}"#;

/// The filters of this API.
pub(super) fn tree(node: Handle) -> Tree {
    let version = warp::path!("version")
        .and(warp::get())
        .map(|| warp::reply::with_header(VERSION, "content-type", "application/json"))
        .map(Reply::into_response);
    let health = warp::path!("health").and(warp::get()).and_then(move || health(node.clone()));
    version.or(health).unify().boxed()
}

async fn health(node: Handle) -> Result<Response, Infallible> {
    let patience = Duration::from_millis(HEALTH_TIMEOUT_MS);
    let read = tokio::time::timeout(patience, node.read(ReadMode::Linearizable)).await;
    let healthy = matches!(read, Ok(Ok(_)));
    Ok(if healthy {
        r#"{"health":"true"}"#.into_response()
    } else {
        let unhealthy = "{\"health\":\"false\"}\n";
        warp::reply::with_status(unhealthy, StatusCode::SERVICE_UNAVAILABLE).into_response()
    })
}
