//! v2's answers: status, headers, JSON.
//!
//! Invariants:
//! * Every answer names the cluster; success also says where Raft stands.
//! * An error's `index` is 0 when the request never reached the store.
//! * What went wrong inside is logged, not told.

use crate::api::body::BadBody;
use crate::api::reply::{Body, Response};
use crate::base::{ClusterTime, Fault, LogIndex, Rejected, Revision, Term, WallTime};
use crate::machine::Node;
use crate::node::{Status, Unserved};
use crate::wire::form::BadForm;
use crate::wire::v2::{self, ErrorBody};
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use std::borrow::Cow;

pub(super) const CLUSTER_ID: HeaderName = HeaderName::from_static("x-etcd-cluster-id");
const ETCD_INDEX: HeaderName = HeaderName::from_static("x-etcd-index");
const RAFT_INDEX: HeaderName = HeaderName::from_static("x-raft-index");
const RAFT_TERM: HeaderName = HeaderName::from_static("x-raft-term");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Where the store and Raft stood when a request was served.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stand {
    pub(super) revision: Revision,
    pub(super) index: LogIndex,
    pub(super) term: Term,
}

/// Why a request is not served.
#[derive(Debug)]
pub(super) enum Refused {
    /// It cannot be meant.
    Form(BadForm),
    /// Its body or its value is larger than allowed; holds what exactly.
    TooLarge(String),
    /// Its body came too slowly.
    TooSlow(String),
    /// The store says no.
    Rejected(Rejected, Revision),
    /// The cluster gave no verdict.
    Unserved(Unserved),
    /// This member is in trouble.
    Fault(Fault),
}

impl From<BadForm> for Refused {
    fn from(bad: BadForm) -> Self {
        Self::Form(bad)
    }
}

impl From<BadBody> for Refused {
    fn from(bad: BadBody) -> Self {
        let cause = bad.to_string();
        match bad {
            BadBody::TooLarge => Self::TooLarge(cause),
            BadBody::TooSlow => Self::TooSlow(cause),
            BadBody::Crowded => Self::Unserved(Unserved::Busy),
            BadBody::Broken(_) => Self::Form(BadForm::unreadable(cause)),
        }
    }
}

impl From<Unserved> for Refused {
    fn from(unserved: Unserved) -> Self {
        Self::Unserved(unserved)
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// The cluster's id as every answer of v2 shows it.
pub(super) fn cluster_header(status: &Status) -> HeaderValue {
    let cluster = status.cluster.to_string();
    HeaderValue::from_str(&cluster).unwrap_or_else(|_| HeaderValue::from_static("0"))
}

/// A success.
pub(super) fn success(
    cluster: &HeaderValue,
    status: StatusCode,
    at: Stand,
    body: Body,
) -> Response {
    const HEADERS: usize = 8;
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let mut headers = HeaderMap::with_capacity(HEADERS);
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(CLUSTER_ID, cluster.clone());
    headers.insert(ETCD_INDEX, at.revision.0.into());
    headers.insert(RAFT_INDEX, at.index.0.into());
    headers.insert(RAFT_TERM, at.term.0.into());
    *response.headers_mut() = headers;
    response
}

/// A refusal.
pub(super) fn refusal(cluster: &HeaderValue, refused: &Refused) -> Response {
    if let Refused::Fault(fault) = refused {
        tracing::error!(error = fault as &dyn std::error::Error, "a read failed");
    }
    let (status, mut body) = (status_of(refused), Vec::new());
    let (index, cause) = (index_of(refused), cause_of(refused));
    let (code, message) = words_of(refused);
    v2::write_error(&mut body, ErrorBody { code, message: &message, cause: &cause, index });
    let mut response = Response::new(Body::whole(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(CLUSTER_ID, cluster.clone());
    headers.insert(ETCD_INDEX, index.0.into());
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn status_of(refused: &Refused) -> StatusCode {
    match refused {
        Refused::Form(_) => StatusCode::BAD_REQUEST,
        Refused::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        Refused::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
        Refused::Unserved(Unserved::Busy) => StatusCode::SERVICE_UNAVAILABLE,
        Refused::Unserved(_) | Refused::Fault(_) => StatusCode::INTERNAL_SERVER_ERROR,
        Refused::Rejected(rejected, _) => match rejected {
            Rejected::NotFound(_) => StatusCode::NOT_FOUND,
            Rejected::CompareFailed { .. } | Rejected::AlreadyExists(_) => {
                StatusCode::PRECONDITION_FAILED
            }
            Rejected::NotAFile(_) | Rejected::DirectoryNotEmpty(_) => StatusCode::FORBIDDEN,
            Rejected::OutcomeUnknown | Rejected::NoSpace => StatusCode::INTERNAL_SERVER_ERROR,
            Rejected::NotADirectory(_)
            | Rejected::RootReadOnly
            | Rejected::Invalid { .. }
            | Rejected::Compacted { .. }
            | Rejected::FutureRevision => StatusCode::BAD_REQUEST,
        },
    }
}

/// The code and etcd's words for it.
fn words_of(refused: &Refused) -> (u16, String) {
    const INTERNAL: u16 = 300;
    match refused {
        Refused::Form(bad) => (bad.code, bad.message().into()),
        Refused::TooLarge(_) | Refused::TooSlow(_) => (210, "Invalid POST form".into()),
        Refused::Rejected(rejected, _) => match rejected.v2_code() {
            INTERNAL => (INTERNAL, "Raft Internal Error".into()),
            code => (code, rejected.to_string()),
        },
        Refused::Unserved(_) | Refused::Fault(_) => (INTERNAL, "Raft Internal Error".into()),
    }
}

fn cause_of(refused: &Refused) -> Cow<'_, [u8]> {
    let text: &str = match refused {
        Refused::Form(bad) => &bad.cause,
        Refused::TooLarge(cause) | Refused::TooSlow(cause) => cause,
        // etcd's members keep user keys below a prefix, and cutting it off the root leaves this.
        Refused::Rejected(Rejected::NotAFile(path), _) if path.is_root() => "",
        Refused::Rejected(rejected, _) => return rejected.cause().into(),
        Refused::Unserved(Unserved::NoLeader) => "etcdserver: no leader",
        Refused::Unserved(Unserved::Busy) => "etcdserver: too many requests",
        Refused::Unserved(Unserved::NoSpace) => "etcdserver: no space",
        Refused::Unserved(Unserved::Unknown) => "etcdserver: request timed out",
        Refused::Unserved(Unserved::Stopping) => "etcdserver: server stopped",
        Refused::Fault(_) => "this member cannot read its data: see its log",
    };
    text.as_bytes().into()
}

fn index_of(refused: &Refused) -> Revision {
    match refused {
        Refused::Rejected(_, revision) => *revision,
        Refused::Form(_)
        | Refused::TooLarge(_)
        | Refused::TooSlow(_)
        | Refused::Unserved(_)
        | Refused::Fault(_) => Revision(0),
    }
}

/// The bytes of an answer or event.
pub(super) fn event_body(
    action: &str,
    node: &Node,
    previous: Option<&Node>,
    now: ClusterTime,
) -> Bytes {
    let mut out = Vec::with_capacity(v2::event_bytes(node, previous));
    v2::write_event(&mut out, action, node, previous, now);
    out.into()
}

/// How the machine's nodes show in JSON.
impl v2::Node for Node {
    fn key(&self) -> &[u8] {
        self.path.key()
    }

    fn value(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }

    fn is_directory(&self) -> bool {
        self.dir
    }

    fn deadline(&self) -> Option<ClusterTime> {
        self.deadline
    }

    fn expiration(&self) -> Option<WallTime> {
        self.expiration
    }

    fn children(&self) -> &[Self] {
        self.children.as_deref().unwrap_or_default()
    }

    fn modified_index(&self) -> Revision {
        self.modified_index
    }

    fn created_index(&self) -> Revision {
        self.created_index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::KeyPath;
    use http_body_util::BodyExt;

    /// Go shows each byte it cannot read as `\ufffd`, escaped; a character as itself.
    #[tokio::test]
    async fn a_cause_keeps_the_bytes_of_names_and_values() {
        let cluster = HeaderValue::from_static("1");
        let path = KeyPath::clean(b"/a\xf0\x9fb\xef\xbf\xbd").unwrap();
        let compared = Rejected::CompareFailed { cause: b"[\xff != x]".to_vec() };
        for (rejected, cause) in [
            (Rejected::NotFound(path), "\"cause\":\"/a\\ufffd\\ufffdb\u{fffd}\""),
            (compared, "\"cause\":\"[\\ufffd != x]\""),
        ] {
            let answer = refusal(&cluster, &Refused::Rejected(rejected, Revision(1)));
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            let body = String::from_utf8(body.to_vec()).unwrap();
            assert!(body.contains(cause), "{body}");
        }
    }

    #[test]
    fn a_full_queue_asks_to_come_again() {
        let cluster = HeaderValue::from_static("1");
        let answer = refusal(&cluster, &Refused::Unserved(Unserved::Busy));
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers().get(RETRY_AFTER), Some(&HeaderValue::from_static("1")));
        let answer = refusal(&cluster, &Refused::Unserved(Unserved::NoLeader));
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(answer.headers().get(RETRY_AFTER).is_none());
    }
}
