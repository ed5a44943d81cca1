//! Reading a request's body, no further and no longer than it may take.
//!
//! Most bodies are one frame that came with the head, and are passed on without a copy. A body may
//! take `limits::BODY_GRACE_MS`, and beyond that one second for each
//! `limits::BODY_BYTES_PER_SECOND_MIN` bytes of it that came: a client that stalls is told so
//! instead of holding a place for ever.
//!
//! Invariant: never more than `limits::BODY_BYTES_MAX` bytes are held, and a body that announces
//! more is refused unread.

use crate::base::limits;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadBody {
    /// It is too long.
    #[error("http: POST too large: at most {} bytes are allowed", limits::BODY_BYTES_MAX)]
    TooLarge,
    /// It comes too slowly.
    #[error(
        "the body came too slowly: less than {} bytes a second",
        limits::BODY_BYTES_PER_SECOND_MIN
    )]
    TooSlow,
    /// The client stopped, or spoke no HTTP.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
}

/// Reads a whole body.
pub(super) async fn read(mut body: Incoming) -> Result<Bytes, BadBody> {
    let max = limits::BODY_BYTES_MAX;
    if body.size_hint().lower() > max as u64 {
        return Err(BadBody::TooLarge);
    }
    let begun = Instant::now();
    let (mut first, mut whole) = (Bytes::new(), BytesMut::new());
    loop {
        let bytes = first.len() + whole.len();
        let frame = timeout_at(begun + patience(bytes), body.frame()).await;
        let Some(frame) = frame.map_err(|_| BadBody::TooSlow)? else { break };
        let Ok(data) = frame?.into_data() else { continue };
        if bytes + data.len() > max {
            return Err(BadBody::TooLarge);
        }
        if bytes == 0 {
            first = data;
        } else {
            whole.extend_from_slice(&std::mem::take(&mut first));
            whole.extend_from_slice(&data);
        }
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

/// How long a body may have taken when so much of it is there.
fn patience(bytes: usize) -> Duration {
    let paid = (bytes as u64).saturating_mul(1_000) / limits::BODY_BYTES_PER_SECOND_MIN;
    Duration::from_millis(limits::BODY_GRACE_MS + paid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thousand_bytes_win_a_second() {
        assert_eq!(patience(0), Duration::from_secs(10));
        assert_eq!(patience(999), Duration::from_millis(10_999));
        assert_eq!(patience(5_000), Duration::from_secs(15));
    }
}
