//! Althing's own API, for the command line and the status page of this host.
//!
//! `GET /althing/v1/status` says in one JSON object how the node and the renderer are. The
//! renderer's part comes as a value from whoever owns it: this floor does not know what renders.

use crate::api::Tree;
use crate::node::{Handle, Status};
use serde_json::{Value, json};
use std::sync::Arc;
use warp::Filter;
use warp::reply::Reply;

/// What the renderer is doing, as JSON; `null` without one.
pub type RendererStatus = Arc<dyn Fn() -> Value + Send + Sync>;

/// The filters of this API.
pub(super) fn tree(node: Handle, renderer: RendererStatus) -> Tree {
    warp::path!("althing" / "v1" / "status")
        .and(warp::get())
        .map(move || warp::reply::json(&report(&node.status(), &renderer())).into_response())
        .boxed()
}

fn report(node: &Status, renderer: &Value) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "node": {
            "name": node.name,
            "cluster": node.cluster.to_string(),
            "member": node.member.to_string(),
            "role": node.role.name(),
            "leader": node.leader.map(|leader| leader.to_string()),
            "term": node.term.0,
            "applied": node.applied.0,
            "revision": node.revision.0,
            "clientUrls": node.client_urls,
        },
        "renderer": renderer,
    })
}
