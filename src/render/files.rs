//! Noticing that templates or resource files changed.
//!
//! Why by hand: editors replace files by rename, packages swap directories, container platforms
//! swap a symbolic link called `..data`. What changed does not matter here, only that something
//! did; the debounced answer is to read everything again, which is small.
//!
//! Invariants:
//! * Reading files causes no event: opens and reads are filtered out.
//! * At most one event is queued.
//!
//! Deliberately not here: templates that are links out of the directory; a change of the target
//! is seen at the next change in the directory, at a retry, or at a reload signal.

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::path::Path;
use tokio::sync::mpsc;

/// Watches a confdir while it lives.
pub(crate) struct Files {
    watcher: Option<RecommendedWatcher>,
}

impl Files {
    /// Starts watching; changes arrive on the receiver.
    pub(crate) fn watch(confdir: &Path) -> (Self, mpsc::Receiver<()>) {
        let (sender, receiver) = mpsc::channel(1);
        let handler = move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| is_change(event.kind)) {
                // Full = an event waits already, and one is as good as many.
                let _ = sender.try_send(());
            }
        };
        let watcher = notify::recommended_watcher(handler)
            .inspect_err(|error| tracing::warn!("cannot watch {}: {error}", confdir.display()));
        let mut files = Self { watcher: watcher.ok() };
        files.renew(confdir);
        (files, receiver)
    }

    /// Watches directories that came or were swapped since.
    pub(crate) fn renew(&mut self, confdir: &Path) {
        let Some(watcher) = &mut self.watcher else { return };
        let _ = watcher.watch(confdir, RecursiveMode::NonRecursive);
        for name in ["conf.d", "templates"] {
            // A directory that is missing comes as an event of the confdir.
            let _ = watcher.watch(&confdir.join(name), RecursiveMode::Recursive);
        }
    }

    /// Whether events come at all; else somebody has to look from time to time.
    pub(crate) fn is_working(&self) -> bool {
        self.watcher.is_some()
    }
}

fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    }
}
