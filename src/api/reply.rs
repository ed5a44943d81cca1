//! Answers in HTTP: bodies, and the plain pages etcd gives.
//!
//! A body is whole, which is one buffer and no allocation more, or a watch, which writes on until
//! its client or its events end.
//!
//! Invariant: the texts are etcd's (Go's `http.Error`), newline and `nosniff` included.

use crate::api::v2::watch::Events;
use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderName, HeaderValue};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// An answer.
pub type Response = http::Response<Body>;

/// The body of an answer.
#[derive(Debug)]
pub struct Body(Kind);

#[derive(Debug)]
enum Kind {
    Whole(Bytes),
    Events(Events),
}

impl Body {
    /// A body that is there.
    #[must_use]
    pub fn whole(bytes: Bytes) -> Self {
        Self(Kind::Whole(bytes))
    }

    /// A body that comes event by event.
    #[must_use]
    pub(super) fn events(events: Events) -> Self {
        Self(Kind::Events(events))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.get_mut().0 {
            Kind::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Events(events) => events.poll(context).map(|next| Some(Ok(Frame::data(next?)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::Events(events) => events.are_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Events(_) => SizeHint::new(),
        }
    }
}

/// 200 and nothing.
pub(super) fn empty() -> Response {
    Response::new(Body::whole(Bytes::new()))
}

/// etcd's 404 page.
pub(super) fn not_found() -> Response {
    text(StatusCode::NOT_FOUND, Bytes::from_static(b"404 page not found\n"))
}

/// What Go answers to a request line it cannot read, before it closes the connection.
pub(super) fn bad_request() -> Response {
    let mut response = text(StatusCode::BAD_REQUEST, Bytes::from_static(b"400 Bad Request"));
    response.headers_mut().remove(header::X_CONTENT_TYPE_OPTIONS);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// 405 with the methods that are allowed.
pub(super) fn method_not_allowed(allow: &'static str) -> Response {
    let mut response =
        text(StatusCode::METHOD_NOT_ALLOWED, Bytes::from_static(b"Method Not Allowed\n"));
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

/// A JSON text.
pub(super) fn json(status: StatusCode, body: Bytes) -> Response {
    let mut response = Response::new(Body::whole(body));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// A page of plain text.
pub(super) fn text(status: StatusCode, body: Bytes) -> Response {
    const NOSNIFF: (HeaderName, HeaderValue) =
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    let mut response = Response::new(Body::whole(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response.headers_mut().insert(NOSNIFF.0, NOSNIFF.1);
    response
}
