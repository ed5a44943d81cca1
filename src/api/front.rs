//! `/`: what runs here, for a person who points a browser or curl at the port.

use crate::api::reply::{self, Response};
use crate::node::Status;
use http::StatusCode;

/// The page.
pub(super) fn page(status: &Status) -> Response {
    let url = status.client_urls.first().map_or("http://127.0.0.1:2379", String::as_str);
    let text = format!(
        "This is althing {version}, member {name}: a key-value store that speaks etcd's API, and \
         renders this host's files from it.\n\
         \n\
         Try:\n  \
         curl -XPUT {url}/v2/keys/message -d value=Hello\n  \
         curl {url}/v2/keys/message\n  \
         curl '{url}/v2/keys/message?wait=true'\n\
         \n\
         Also here: /health, /version, /metrics, /v2/members, /v2/stats/self, \
         /althing/v1/status\n",
        version = env!("CARGO_PKG_VERSION"),
        name = status.name,
    );
    reply::text(StatusCode::OK, text.into())
}
