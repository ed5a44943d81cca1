//! Noticing that templates or resource files changed.
//!
//! Why by hand: editors replace files by rename, packages swap directories, container platforms
//! swap a symbolic link called `..data`. What changed does not matter here, only that something
//! did; the debounced answer is to read everything again, which is small.
//!
//! Invariants:
//! * Reading files causes no event: opens and reads are filtered out.
//! * Nothing else in the confdir causes one either: a file rendered to there must not have every
//!   other file rendered again. Nor do dot-files, but for `..data` and the like.
//! * At most one event is queued.
//!
//! Deliberately not here: templates that are links out of the directory; a change of the target
//! is seen at the next change in the directory, at a retry, or at a reload signal.

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::path::{Component, Path, PathBuf};
use tokio::sync::mpsc;

/// Watches a confdir while it lives.
pub(crate) struct Files {
    watcher: Option<RecommendedWatcher>,
}

impl Files {
    /// Starts watching; changes arrive on the receiver.
    pub(crate) fn watch(confdir: &Path) -> (Self, mpsc::Receiver<()>) {
        let (sender, receiver) = mpsc::channel(1);
        let root = std::path::absolute(confdir).unwrap_or_else(|_| confdir.to_path_buf());
        let handler = move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| is_change(event.kind) && concerns(&event.paths, &root)) {
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
        if watcher.watch(confdir, RecursiveMode::NonRecursive).is_err()
            && let Some(above) = confdir.parent()
        {
            // Somebody may be about to make it.
            let _ = watcher.watch(above, RecursiveMode::NonRecursive);
        }
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

/// Whether one of these paths is of a resource or a template. No path at all means that events
/// were lost.
fn concerns(paths: &[PathBuf], confdir: &Path) -> bool {
    let concerns = |path: &PathBuf| {
        let Ok(below) = path.strip_prefix(confdir) else { return false };
        let mut names = below.components().filter_map(|part| match part {
            Component::Normal(name) => Some(name.as_encoded_bytes()),
            _ => None,
        });
        let is_ours = match names.next() {
            None => true,
            Some(first) => [&b"conf.d"[..], b"templates"].contains(&first) || is_swap(first),
        };
        is_ours && !names.any(|name| name.starts_with(b".") && !is_swap(name))
    };
    paths.is_empty() || paths.iter().any(concerns)
}

/// What container platforms put a new version of all files behind.
fn is_swap(name: &[u8]) -> bool {
    name.starts_with(b"..")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_resources_and_templates_matter() {
        let table = [
            ("/c", true),
            ("/c/conf.d", true),
            ("/c/conf.d/a.toml", true),
            ("/c/templates/sub/a.tera", true),
            ("/c/..data", true),
            ("/c/conf.d/..data", true),
            ("/c/conf.d/..2026/a.toml", true),
            ("/c/conf.d/.a.toml.swp", false),
            ("/c/templates/.git/index", false),
            ("/c/hello.txt", false),
            ("/c/.althing-hello.txt", false),
            ("/c/out/conf.d", false),
            ("/d", false),
        ];
        for (path, matters) in table {
            assert_eq!(concerns(&[path.into()], Path::new("/c")), matters, "{path}");
        }
        assert!(concerns(&["/c/x".into(), "/c/conf.d/x".into()], Path::new("/c")));
        assert!(concerns(&[], Path::new("/c")), "events were lost");
    }
}
