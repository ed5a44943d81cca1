//! Althing's own API, for the command line and the status page of this host.
//!
//! `GET /althing/v1/status` says in one JSON object how the node and the rendered files are. What
//! there is to say of a file is declared here and comes from whoever owns the renderer: this floor
//! does not know what renders.

use crate::api::Tree;
use crate::base::time::WallTime;
use crate::node::{Handle, Status};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use warp::Filter;
use warp::reply::Reply;

/// How the rendered files of this host are; `None` where nothing is rendered.
pub type RendererStatus = Arc<dyn Fn() -> Option<Vec<RenderedFile>> + Send + Sync>;

/// How one rendered file is, for the status and the metrics.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RenderedFile {
    /// Name of its resource.
    pub name: String,
    /// The resource file.
    pub file: String,
    /// The rendered file; empty if its resource was never good.
    pub dest: String,
    /// Whether it is up to date and its service knows.
    pub ok: bool,
    /// What is against it.
    pub error: Option<String>,
    /// The revision it was rendered from.
    pub revision: u64,
    /// Passes so far, good or bad.
    pub renders: u64,
    /// Times it was replaced.
    pub changes: u64,
    /// Successful reloads.
    pub reloads: u64,
    /// Failures so far, by step.
    pub failures: BTreeMap<&'static str, u64>,
    /// Since when a reload is owed.
    #[serde(serialize_with = "as_text")]
    pub owed_since: Option<WallTime>,
    /// When the last pass ended.
    #[serde(serialize_with = "as_text")]
    pub last_pass: Option<WallTime>,
    /// When the last good pass ended.
    #[serde(serialize_with = "as_text")]
    pub last_success: Option<WallTime>,
    /// Whether something has changed that is not in the file yet, as it has to wait.
    pub behind: bool,
    /// What it waits for.
    pub waiting_for: String,
    /// Since when.
    #[serde(serialize_with = "as_text")]
    pub since: Option<WallTime>,
    /// When that ends by itself.
    #[serde(serialize_with = "as_text")]
    pub until: Option<WallTime>,
    /// Whether its content must not be shown.
    pub sensitive: bool,
}

fn as_text<S: Serializer>(time: &Option<WallTime>, to: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.to_string()).serialize(to)
}

/// The filters of this API.
pub(super) fn tree(node: Handle, renderer: RendererStatus) -> Tree {
    warp::path!("althing" / "v1" / "status")
        .and(warp::get())
        .map(move || warp::reply::json(&report(&node.status(), renderer())).into_response())
        .boxed()
}

fn report(node: &Status, files: Option<Vec<RenderedFile>>) -> Value {
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
            "noSpace": node.no_space,
            "clientUrls": node.client_urls,
        },
        "renderer": files.map(|files| json!({ "files": files })),
    })
}
