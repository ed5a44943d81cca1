//! Which changes a watcher is told.
//!
//! v3 watches a range of keys, and that is all. v2 watches a path, in a tree that exists by its
//! files: an event belongs to a watcher at its path, above it when it watches recursively, and
//! below it when the event ended a directory that held the watched path. The last is the odd one.
//! Whether the path was there is known from the same revision, which holds a hushed tombstone for
//! everything that went with the directory. So a record is an event, a *farewell* that counts
//! once there is proof, or such a proof.
//!
//! Invariants:
//! * Hushed records (refreshes, and what went with its directory) are no events in v2.
//! * Below the watched path, what lies at or under a name that begins with `_` is not told, but
//!   for history.
//!
//! Source: etcd's `v2store/watcher_hub.go` (`notifyWatchers`, `isHidden`). Of its two oddities
//! in history the first is kept (no hidden rule), the second not (directories as string prefixes).

use crate::base::{KeyPath, KeyRange, Revision, Space};
use crate::store::Record;

/// What a watcher wants to know about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interest {
    /// v2: a path and, when recursive, everything below it.
    Tree {
        /// The path; nothing needs to be there.
        path: KeyPath,
        /// Whether changes below it count.
        recursive: bool,
        /// Up to this revision hidden names are told, too: etcd reads history without the rule.
        hides_after: Revision,
    },
    /// v3: the keys of a range.
    Range(KeyRange),
}

/// What a record means to a watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Concern {
    /// Nothing.
    None,
    /// An event to tell.
    Event,
    /// The end of a directory above: an event if the watched path was there.
    Farewell,
    /// The watched path was there until this revision.
    Proof,
}

impl Interest {
    pub(super) fn concern(&self, record: &Record) -> Concern {
        match self {
            Self::Range(range) if record.space == Space::Keys && range.contains(&record.key) => {
                Concern::Event
            }
            Self::Range(_) => Concern::None,
            Self::Tree { path, recursive, hides_after } => {
                let hides = record.position.revision > *hides_after;
                tree_concern(path, *recursive, hides, record)
            }
        }
    }
}

fn tree_concern(path: &KeyPath, recursive: bool, hides: bool, record: &Record) -> Concern {
    if !matches!(record.space, Space::Keys | Space::Dirs) {
        return Concern::None;
    }
    let beneath = below(path.key(), &record.key);
    let at_or_below = beneath.is_some() || record.key == path.key();
    match beneath {
        _ if record.hushed => {
            if at_or_below && !record.live {
                Concern::Proof
            } else {
                Concern::None
            }
        }
        // v3 may write keys that are no paths; v2 never shows them.
        Some(rest) if recursive && !(hides && is_hidden(rest)) => {
            let is_path = KeyPath::from_key(&record.key).is_some();
            if is_path { Concern::Event } else { Concern::None }
        }
        Some(_) => Concern::None,
        None if at_or_below => Concern::Event,
        None if ends_directory(record) && below(&record.key, path.key()).is_some() => {
            Concern::Farewell
        }
        None => Concern::None,
    }
}

/// Whether a directory, and all that was in it, ended with this record.
pub(super) fn ends_directory(record: &Record) -> bool {
    record.space == Space::Dirs && !record.live && !record.hushed
}

/// The part of `key` behind `directory` and a slash, if it is below it.
fn below<'a>(directory: &[u8], key: &'a [u8]) -> Option<&'a [u8]> {
    let directory = directory.strip_suffix(b"/").unwrap_or(directory);
    key.strip_prefix(directory)?.strip_prefix(b"/").filter(|rest| !rest.is_empty())
}

fn is_hidden(rest: &[u8]) -> bool {
    rest.split(|byte| *byte == b'/').any(|segment| segment.starts_with(b"_"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::tests::record;

    struct Row {
        path: &'static str,
        recursive: bool,
        record: Record,
    }

    fn row(path: &'static str, recursive: bool, key: &str) -> Row {
        Row { path, recursive, record: record(key, 5, "v") }
    }

    fn gone(mut row: Row, space: Space, hushed: bool) -> Row {
        row.record = Record { space, live: false, hushed, ..row.record };
        row
    }

    fn concern(row: &Row) -> Concern {
        let path = KeyPath::clean(row.path.as_bytes()).unwrap();
        let (recursive, hides_after) = (row.recursive, Revision(0));
        Interest::Tree { path, recursive, hides_after }.concern(&row.record)
    }

    #[test]
    fn a_path_hears_of_itself_and_recursively_of_what_is_below() {
        let table = [
            ("/a", false, "/a", Concern::Event),
            ("/a", false, "/a/b", Concern::None),
            ("/a", true, "/a/b/c", Concern::Event),
            ("/a", true, "/a", Concern::Event),
            ("/a", true, "/ab", Concern::None),
            ("/a/b", true, "/a", Concern::None),
            ("/", true, "/a", Concern::Event),
            ("/", false, "/a", Concern::None),
            ("/", true, "a", Concern::None),
            ("/", true, "/a//b", Concern::None),
            ("/", true, "/a/", Concern::None),
        ];
        for (path, recursive, key, expected) in table {
            assert_eq!(concern(&row(path, recursive, key)), expected, "{path} hears of {key}");
        }
    }

    #[test]
    fn hidden_is_relative_to_the_watched_path() {
        let table = [
            ("/", "/_x", Concern::None),
            ("/a", "/a/sub/_y/z", Concern::None),
            ("/a/_h", "/a/_h/x", Concern::Event),
            ("/a/_h", "/a/_h", Concern::Event),
            ("/a", "/a/v_isible", Concern::Event),
            ("/_a/b", "/_a/b/c", Concern::Event),
        ];
        for (path, key, expected) in table {
            assert_eq!(concern(&row(path, true, key)), expected, "{path} hears of {key}");
        }
    }

    #[test]
    fn history_shows_what_is_hidden() {
        let path = KeyPath::clean(b"/a").unwrap();
        for (hides_after, expected) in [(4, Concern::None), (5, Concern::Event)] {
            let interest = Interest::Tree {
                path: path.clone(),
                recursive: true,
                hides_after: Revision(hides_after),
            };
            assert_eq!(interest.concern(&record("/a/_x", 5, "v")), expected);
        }
    }

    #[test]
    fn the_end_of_a_directory_above_is_a_farewell_that_wants_proof() {
        let farewell = gone(row("/a/b/c", false, "/a"), Space::Dirs, false);
        assert_eq!(concern(&farewell), Concern::Farewell);
        let file = gone(row("/a/b/c", false, "/a"), Space::Keys, false);
        assert_eq!(concern(&file), Concern::None);
        for key in ["/a/b/c", "/a/b/c/d"] {
            let proof = gone(row("/a/b/c", false, key), Space::Keys, true);
            assert_eq!(concern(&proof), Concern::Proof, "{key}");
        }
        let other = gone(row("/a/b/c", false, "/a/b/x"), Space::Keys, true);
        assert_eq!(concern(&other), Concern::None);
    }

    #[test]
    fn a_refresh_is_no_event() {
        let mut refresh = row("/a", true, "/a/b");
        refresh.record.hushed = true;
        assert_eq!(concern(&refresh), Concern::None);
        let range = Interest::Range(KeyRange::prefix(b"/a"));
        assert_eq!(range.concern(&refresh.record), Concern::Event, "v3 hears of every put");
        refresh.record.space = Space::Dirs;
        assert_eq!(range.concern(&refresh.record), Concern::None);
    }
}
