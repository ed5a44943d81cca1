//! The body of a watch: one event, or events until the client has enough.
//!
//! The answer's headers leave before the first event, so a body that is not there yet does the
//! waiting. It owns the watcher: when the client goes, the body is dropped, and with it the
//! registration. Of a revision with several events a long poll tells the first, as its client
//! comes back with that index plus one; a stream tells all.
//!
//! Invariant: a watch ends early (stop, or history lost) as etcd's does, with an empty rest; the
//! client asks again and is told what is wrong.

use crate::base::ClusterTime;
use crate::machine::tree::event::event_of;
use crate::machine::{Change, Event};
use crate::node::{Handle, Watcher};
use crate::sys::listen::Stop;
use crate::wire::v2;
use bytes::Bytes;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The events of a watch, as JSON lines.
pub(crate) struct Events(Option<Turn>);

/// Waits for the next lines; gives the watch back if it goes on.
type Turn = Pin<Box<dyn Future<Output = (Option<Bytes>, Option<Watch>)> + Send>>;

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("are_over", &self.are_over()).finish()
    }
}

/// One client's watch.
pub(super) struct Watch {
    pub(super) watcher: Watcher,
    pub(super) node: Handle,
    pub(super) stop: Stop,
    /// Whether it goes on after the first event.
    pub(super) stream: bool,
}

impl Events {
    pub(super) fn of(watch: Watch) -> Self {
        Self(Some(Box::pin(watch.turn())))
    }

    pub(crate) fn are_over(&self) -> bool {
        self.0.is_none()
    }

    /// The next lines; `None` when there are no more to come.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(turn) = &mut self.0 else { return Poll::Ready(None) };
        let (lines, watch) = ready!(turn.as_mut().poll(context));
        self.0 = watch.map(|watch| -> Turn { Box::pin(watch.turn()) });
        Poll::Ready(lines)
    }
}

impl Watch {
    async fn turn(mut self) -> (Option<Bytes>, Option<Self>) {
        loop {
            let changes = tokio::select! {
                () = self.stop.stopped() => return (None, None),
                changes = self.watcher.next() => changes,
            };
            let Ok(changes) = changes else { return (None, None) };
            let lines = lines(&changes, self.stream, self.node.now().0);
            if !lines.is_empty() {
                let goes_on = self.stream.then_some(self);
                return (Some(lines.into()), goes_on);
            }
        }
    }
}

/// Each change's event, or only the first, as a line of JSON.
fn lines(changes: &[Change], all: bool, now: ClusterTime) -> Vec<u8> {
    let wanted = if all { usize::MAX } else { 1 };
    let mut out = Vec::new();
    for Event { action, node, previous } in changes.iter().filter_map(event_of).take(wanted) {
        out.reserve(v2::event_bytes(&node, previous.as_ref()));
        v2::write_event(&mut out, action.name(), &node, previous.as_ref(), now);
    }
    out
}
