//! Reading a request's body, no further and no longer than it may take.
//!
//! Most bodies are one frame that came with the head, and are passed on without a copy. A body may
//! take `limits::BODY_GRACE_MS`, and beyond that one second for each
//! `limits::BODY_BYTES_PER_SECOND_MIN` bytes of it that came: a client that stalls is told so
//! instead of holding a place for ever.
//!
//! Invariants:
//! * Never more than `limits::BODY_BYTES_MAX` bytes are held of one body, and one that announces
//!   more is refused unread.
//! * Bodies of which more is to come hold `limits::BODIES_HELD_BYTES_MAX` together: thousands of
//!   slow ones cannot take the memory of everything else.

use crate::base::limits;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use std::sync::atomic::{AtomicUsize, Ordering};
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
    /// Too much of other bodies is held.
    #[error("too many requests")]
    Crowded,
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
    let mut share = Share::of(&HELD);
    while !body.is_end_stream() {
        let bytes = first.len() + whole.len();
        share.grow(bytes)?;
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

/// Bytes of bodies that are held while more of them is to come.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// One body's part of that.
struct Share {
    held: &'static AtomicUsize,
    bytes: usize,
}

impl Share {
    fn of(held: &'static AtomicUsize) -> Self {
        Self { held, bytes: 0 }
    }

    /// Makes it `bytes` large, which is not less than before.
    fn grow(&mut self, bytes: usize) -> Result<(), BadBody> {
        let more = bytes - std::mem::replace(&mut self.bytes, bytes);
        let before = if more > 0 { self.held.fetch_add(more, Ordering::Relaxed) } else { 0 };
        if before + more > limits::BODIES_HELD_BYTES_MAX { Err(BadBody::Crowded) } else { Ok(()) }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
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

    #[test]
    fn what_is_held_is_bounded_and_given_back() {
        static HELD: AtomicUsize = AtomicUsize::new(0);
        let [mut large, mut small] = [Share::of(&HELD), Share::of(&HELD)];
        large.grow(1).unwrap();
        large.grow(limits::BODIES_HELD_BYTES_MAX - 1).unwrap();
        small.grow(1).unwrap();
        assert!(matches!(small.grow(2), Err(BadBody::Crowded)));
        drop(large);
        small.grow(3).unwrap();
        drop(small);
        assert_eq!(HELD.load(Ordering::Relaxed), 0);
    }
}
