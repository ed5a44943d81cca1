//! The ring of newest changes, and who waits for which.
//!
//! Applied entries are published here, whole and in order. The hub appends their changes to the
//! ring, drops the oldest revisions beyond its bounds, and gives back the wakers of those whose
//! interest one of the changes may touch; a cursor then looks for itself. Interests are indexed
//! by exact key, by prefix (one look-up for each length of prefix in use), and the few others
//! stand in a list.
//!
//! Invariants:
//! * The ring holds every change from `oldest` to `revision`, and whole revisions only.
//! * Everyone a change concerns is woken; some may be woken for nothing.
//! * Identities of watchers are never used twice.

use crate::base::limits::{WATCH_RING_BYTES_MAX, WATCH_RING_CHANGES_MAX, WATCHERS_MAX};
use crate::base::{KeyRange, Revision};
use crate::machine::Change;
use crate::store::Position;
use crate::watch::interest::{self, Interest};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A registered watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatcherId(u64);

/// There are `limits::WATCHERS_MAX` watchers already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this member has {WATCHERS_MAX} watchers already: watch at another member")]
pub struct HubFull;

/// The ring and the index; `W` is whatever wakes a watcher.
#[derive(Debug)]
pub struct Hub<W> {
    ring: Ring,
    wakers: BTreeMap<WatcherId, (Interest, W)>,
    exact: BTreeSet<(Bytes, WatcherId)>,
    prefixes: BTreeSet<(Bytes, WatcherId)>,
    /// How many of `prefixes` have each length.
    prefix_lengths: BTreeMap<usize, usize>,
    ranges: BTreeMap<WatcherId, KeyRange>,
    last_id: u64,
}

/// The newest changes.
#[derive(Debug)]
struct Ring {
    changes: VecDeque<Change>,
    bytes: usize,
    oldest: Revision,
    revision: Revision,
    changes_max: usize,
    bytes_max: usize,
}

impl<W: Clone> Hub<W> {
    /// A hub that will be told everything that follows `revision`.
    #[must_use]
    pub fn new(revision: Revision) -> Self {
        Self::with_bounds(revision, WATCH_RING_CHANGES_MAX, WATCH_RING_BYTES_MAX)
    }

    /// With a ring of another size, for tests.
    pub(super) fn with_bounds(revision: Revision, changes_max: usize, bytes_max: usize) -> Self {
        let changes = VecDeque::new();
        let oldest = revision.next();
        Self {
            ring: Ring { changes, bytes: 0, oldest, revision, changes_max, bytes_max },
            wakers: BTreeMap::new(),
            exact: BTreeSet::new(),
            prefixes: BTreeSet::new(),
            prefix_lengths: BTreeMap::new(),
            ranges: BTreeMap::new(),
            last_id: 0,
        }
    }

    /// The newest revision published.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.ring.revision
    }

    /// How many watch.
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.wakers.len()
    }

    /// Appends the changes of applied entries, in order, and gives the wakers of those who may
    /// want to know, each once.
    pub fn publish(&mut self, changes: Vec<Change>) -> Vec<W> {
        let mut concerned = Vec::new();
        for change in changes {
            if !self.wakers.is_empty() {
                self.find_concerned(&change, &mut concerned);
            }
            self.ring.push(change);
        }
        self.ring.shrink();
        concerned.sort_unstable();
        concerned.dedup();
        concerned.iter().filter_map(|id| Some(self.wakers.get(id)?.1.clone())).collect()
    }

    /// The wakers of everyone: the member stops.
    #[must_use]
    pub fn everyone(&self) -> Vec<W> {
        self.wakers.values().map(|(_, waker)| waker.clone()).collect()
    }

    /// Forgets the ring: the state was replaced by a snapshot at `revision`. Everyone is woken,
    /// and goes on from the new history.
    pub fn reset(&mut self, revision: Revision) -> Vec<W> {
        assert!(revision >= self.ring.revision, "a snapshot from the past");
        self.ring.changes.clear();
        self.ring.bytes = 0;
        self.ring.revision = revision;
        self.ring.oldest = revision.next();
        self.everyone()
    }

    /// Adds a watcher. Register before the first look, so that nothing falls in between.
    ///
    /// # Errors
    /// When there are too many.
    pub fn register(&mut self, interest: Interest, waker: W) -> Result<WatcherId, HubFull> {
        if self.wakers.len() >= WATCHERS_MAX {
            return Err(HubFull);
        }
        self.last_id += 1;
        let id = WatcherId(self.last_id);
        let places = Places::of(&interest);
        if let Some(key) = places.exact {
            self.exact.insert((key, id));
        }
        if let Some(prefix) = places.prefix {
            *self.prefix_lengths.entry(prefix.len()).or_default() += 1;
            self.prefixes.insert((prefix, id));
        }
        if let Some(range) = places.range {
            self.ranges.insert(id, range);
        }
        self.wakers.insert(id, (interest, waker));
        Ok(id)
    }

    /// Removes a watcher; a second time does nothing.
    pub fn deregister(&mut self, id: WatcherId) {
        let Some((interest, _)) = self.wakers.remove(&id) else { return };
        let places = Places::of(&interest);
        if let Some(key) = places.exact {
            self.exact.remove(&(key, id));
        }
        if let Some(prefix) = places.prefix {
            if let Some(count) = self.prefix_lengths.get_mut(&prefix.len()) {
                *count -= 1;
            }
            self.prefix_lengths.retain(|_, count| *count > 0);
            self.prefixes.remove(&(prefix, id));
        }
        self.ranges.remove(&id);
    }

    fn find_concerned(&self, change: &Change, concerned: &mut Vec<WatcherId>) {
        let key = &change.record.key;
        concerned.extend(ids_at(&self.exact, key));
        for length in self.prefix_lengths.range(..=key.len()).map(|(length, _)| *length) {
            concerned.extend(ids_at(&self.prefixes, &key.slice(..length)));
        }
        concerned.extend(self.ranges.iter().filter(|(_, r)| r.contains(key)).map(|(id, _)| *id));
        if interest::ends_directory(&change.record) {
            let mut from = key.to_vec();
            from.push(b'/');
            let inside = self.exact.range((Bytes::from(from.clone()), WatcherId(0))..);
            concerned
                .extend(inside.take_while(|(path, _)| path.starts_with(&from)).map(|(_, id)| *id));
        }
    }
}

impl<W> Hub<W> {
    /// The changes from a position on; `None` when some of them are no longer in the ring.
    pub(super) fn since(&self, from: Position) -> Option<impl Iterator<Item = &Change>> {
        let ring = &self.ring;
        let first = ring.changes.partition_point(|change| change.record.position < from);
        (from.revision >= ring.oldest).then(|| ring.changes.range(first..))
    }

    /// Where a cursor that has seen everything stands.
    pub(super) fn end(&self) -> Position {
        Position::start_of(self.ring.revision.next())
    }
}

impl Ring {
    fn push(&mut self, change: Change) {
        let position = change.record.position;
        let last = self.changes.back().map(|last| last.record.position);
        assert!(position.revision >= self.oldest, "a change published twice");
        assert!(last.is_none_or(|last| last < position), "changes published out of order");
        self.revision = position.revision;
        self.bytes += cost_bytes(&change);
        self.changes.push_back(change);
    }

    /// Drops the oldest revisions until the bounds hold.
    fn shrink(&mut self) {
        while self.changes.len() > self.changes_max || self.bytes > self.bytes_max {
            let Some(first) = self.changes.front() else { break };
            self.oldest = first.record.position.revision.next();
            let old = |change: &mut Change| change.record.position.revision < self.oldest;
            while let Some(dropped) = self.changes.pop_front_if(old) {
                self.bytes -= cost_bytes(&dropped);
            }
        }
    }
}

/// Bytes a change takes in memory, roughly.
pub(super) fn cost_bytes(change: &Change) -> usize {
    change.record.cost_bytes() + change.previous.as_ref().map_or(0, |old| old.cost_bytes())
}

fn ids_at<'a>(
    index: &'a BTreeSet<(Bytes, WatcherId)>,
    key: &Bytes,
) -> impl Iterator<Item = WatcherId> + 'a {
    let all_of_key = (key.clone(), WatcherId(0))..=(key.clone(), WatcherId(u64::MAX));
    index.range(all_of_key).map(|(_, id)| *id)
}

/// Where an interest stands in the index.
#[derive(Default)]
struct Places {
    exact: Option<Bytes>,
    prefix: Option<Bytes>,
    range: Option<KeyRange>,
}

impl Places {
    fn of(interest: &Interest) -> Self {
        match interest {
            Interest::Tree { path, recursive, .. } => Self {
                exact: Some(path.key().clone()),
                prefix: recursive.then(|| path.children_prefix().into()),
                range: None,
            },
            Interest::Range(range) => {
                if let Some(key) = range.as_single() {
                    Self { exact: Some(key.clone()), ..Self::default() }
                } else if KeyRange::prefix(&range.start) == *range {
                    Self { prefix: Some(range.start.clone()), ..Self::default() }
                } else {
                    Self { range: Some(range.clone()), ..Self::default() }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{KeyPath, Space};
    use crate::store::record::tests::record;
    use std::sync::Arc;

    fn change(key: &str, revision: u64) -> Change {
        Change { record: Arc::new(record(key, revision, "v")), previous: None }
    }

    fn tree(path: &str, recursive: bool) -> Interest {
        let path = KeyPath::clean(path.as_bytes()).unwrap();
        Interest::Tree { path, recursive, hides_after: Revision(0) }
    }

    #[test]
    fn wakes_those_concerned_and_nobody_else() {
        let mut hub = Hub::new(Revision(1));
        let watch = |hub: &mut Hub<&'static str>, interest, name| hub.register(interest, name);
        watch(&mut hub, tree("/a", false), "a").unwrap();
        watch(&mut hub, tree("/a", true), "a/").unwrap();
        let root = watch(&mut hub, tree("/", true), "root").unwrap();
        watch(&mut hub, tree("/a/b/c", false), "a/b/c").unwrap();
        watch(&mut hub, Interest::Range(KeyRange::single(&Bytes::from_static(b"/a"))), "=")
            .unwrap();
        watch(&mut hub, Interest::Range(KeyRange::prefix(b"/a/b")), "b*").unwrap();
        let odd = KeyRange { start: Bytes::from_static(b"/a/c"), end: None };
        watch(&mut hub, Interest::Range(odd), "c..").unwrap();

        assert_eq!(hub.publish(vec![change("/a", 2)]), ["a", "a/", "root", "="]);
        assert_eq!(hub.publish(vec![change("/a/b", 3)]), ["a/", "root", "b*"]);
        assert_eq!(hub.publish(vec![change("/ab", 4)]), ["root", "c.."]);
        assert_eq!(hub.publish(vec![change("/a/x", 5), change("/a/y", 6)]), ["a/", "root", "c.."]);
        let mut farewell = record("/a", 7, "");
        farewell = Record { space: Space::Dirs, live: false, ..farewell };
        let farewell = Change { record: Arc::new(farewell), previous: None };
        assert_eq!(hub.publish(vec![farewell]), ["a", "a/", "root", "a/b/c", "="]);
        hub.deregister(root);
        hub.deregister(root);
        assert_eq!(hub.publish(vec![change("/", 8)]), Vec::<&str>::new());
        assert_eq!(hub.reset(Revision(20)).len(), hub.watchers());
    }

    use crate::store::Record;

    #[test]
    fn deregistering_leaves_nothing_behind() {
        let mut hub = Hub::new(Revision(1));
        let interests = [
            tree("/a", true),
            tree("/a", true),
            tree("/b", false),
            Interest::Range(KeyRange::all()),
            Interest::Range(KeyRange { start: Bytes::from_static(b"x"), end: None }),
        ];
        let ids: Vec<_> = interests.map(|i| hub.register(i, ()).unwrap()).into_iter().collect();
        ids.into_iter().for_each(|id| hub.deregister(id));
        assert!(hub.exact.is_empty() && hub.prefixes.is_empty() && hub.ranges.is_empty());
        assert!(hub.prefix_lengths.is_empty() && hub.watchers() == 0);
    }

    #[test]
    fn the_ring_drops_whole_revisions() {
        let mut hub: Hub<()> = Hub::with_bounds(Revision(1), 3, 10_000);
        let sub = |revision, sub| {
            let mut change = change("/k", revision);
            Arc::make_mut(&mut change.record).position.sub = sub;
            change
        };
        hub.publish(vec![sub(2, 0), sub(2, 1), sub(3, 0)]);
        let seen = |hub: &Hub<()>, from| {
            hub.since(Position::start_of(Revision(from))).map(Iterator::count)
        };
        assert_eq!((seen(&hub, 1), seen(&hub, 2), seen(&hub, 3)), (None, Some(3), Some(1)));
        hub.publish(vec![sub(4, 0)]);
        assert_eq!((seen(&hub, 2), seen(&hub, 3)), (None, Some(2)));
        hub.publish((0..9).map(|n| sub(5, n)).collect());
        assert_eq!((seen(&hub, 5), seen(&hub, 6)), (None, Some(0)));
        assert_eq!(hub.ring.bytes, 0);
    }

    #[test]
    fn a_thousand_watchers_of_one_prefix_wake_at_once() {
        let mut hub = Hub::new(Revision(1));
        for n in 0..1_000 {
            hub.register(tree("/services", true), n).unwrap();
        }
        assert_eq!(hub.publish(vec![change("/services/web", 2)]).len(), 1_000);
    }
}
