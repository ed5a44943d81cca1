//! The renderer's `Source` over the node of this process.
//!
//! Why local reads: a rendered file follows this member's own store, so it works on while the
//! cluster has no quorum; a revision never goes back, so neither does a file.
//!
//! Invariants:
//! * One snapshot is one View: all its ranges are from one revision.
//! * No read transaction outlives a call.
//!
//! Deliberately not here: leases and anything a template cannot see.

use crate::base::{ClusterTime, KeyRange, Revision, Space};
use crate::node::{Handle, ReadMode, ReadState, WatchLost};
use crate::render::source::{Answer, Item, Snapshot, Source, SourceError};
use crate::store::Record;
use crate::watch::Interest;
use bytes::Bytes;

/// The store of this process, as the renderer sees it.
pub struct NodeSource(pub Handle);

/// One View, and the time its keys' lives are counted from.
struct NodeSnapshot {
    state: ReadState,
    now: ClusterTime,
}

fn unavailable(error: &dyn std::error::Error) -> SourceError {
    SourceError::Unavailable(error.to_string())
}

impl NodeSource {
    async fn read(&self, at_least: Revision) -> Result<NodeSnapshot, SourceError> {
        loop {
            let state = self.0.read(ReadMode::Local).await.map_err(|error| unavailable(&error))?;
            if state.revision >= at_least {
                return Ok(NodeSnapshot { state, now: self.0.now().0 });
            }
            self.wait(&[KeyRange::all()], at_least).await?;
        }
    }

    async fn newest(&self) -> Result<Revision, SourceError> {
        let state = self.0.read(ReadMode::Local).await.map_err(|error| unavailable(&error))?;
        Ok(state.revision)
    }

    /// Until something in `ranges` happened at or after `from`.
    async fn wait(&self, ranges: &[KeyRange], from: Revision) -> Result<Revision, SourceError> {
        let interest = Interest::Range(hull(ranges));
        let mut watcher =
            self.0.watch(interest, Some(from)).map_err(|error| unavailable(&error))?;
        loop {
            let changes = match watcher.next().await {
                Ok(changes) => changes,
                // What was missed is in the newest View.
                Err(WatchLost::Compacted { .. }) => return self.newest().await,
                Err(lost @ (WatchLost::Stopping | WatchLost::Fault(_))) => {
                    return Err(unavailable(&lost));
                }
            };
            let concerns = |key: &Bytes| ranges.iter().any(|range| range.contains(key));
            let hit = changes.iter().rev().find(|change| concerns(&change.record.key));
            if let Some(change) = hit {
                return Ok(change.record.position.revision);
            }
        }
    }
}

impl Source for NodeSource {
    fn snapshot(&self, at_least: Revision) -> Answer<'_, Box<dyn Snapshot>> {
        Box::pin(async move {
            let snapshot = self.read(at_least).await?;
            Ok(Box::new(snapshot) as Box<dyn Snapshot>)
        })
    }

    fn changed(&self, ranges: Vec<KeyRange>, after: Revision) -> Answer<'_, Revision> {
        Box::pin(async move {
            if ranges.is_empty() {
                return std::future::pending().await;
            }
            self.wait(&ranges, after.next()).await
        })
    }
}

impl Snapshot for NodeSnapshot {
    fn revision(&self) -> Revision {
        self.state.revision
    }

    fn range(&self, range: KeyRange) -> Answer<'_, Vec<Item>> {
        Box::pin(std::future::ready(self.items(&range)))
    }
}

impl NodeSnapshot {
    fn items(&self, range: &KeyRange) -> Result<Vec<Item>, SourceError> {
        let reader = self.state.read().map_err(|fault| unavailable(&fault))?;
        let reader = reader.ok_or(SourceError::Compacted(self.state.revision))?;
        let records = reader
            .range(Space::Keys, range, self.state.revision)
            .map_err(|fault| unavailable(&fault))?;
        let mut items = Vec::new();
        for record in records {
            let record = record.map_err(|fault| unavailable(&fault))?;
            items.push(self.item(&record));
        }
        Ok(items)
    }

    fn item(&self, record: &Record) -> Item {
        let seconds = |end: ClusterTime| end.ms_since(self.now).div_ceil(1_000);
        Item {
            key: record.key.clone(),
            value: record.value.clone(),
            mod_revision: record.position.revision,
            ttl_seconds: record.deadline.map(seconds),
        }
    }
}

/// The smallest range that holds all of `ranges`: one cursor instead of a thousand.
fn hull(ranges: &[KeyRange]) -> KeyRange {
    let start = ranges.iter().map(|range| &range.start).min().cloned().unwrap_or_default();
    let ends: Option<Vec<&Bytes>> = ranges.iter().map(|range| range.end.as_ref()).collect();
    KeyRange { start, end: ends.and_then(|ends| ends.into_iter().max().cloned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_holds_them_all() {
        let range = |start: &'static str, end: Option<&'static str>| KeyRange {
            start: Bytes::from_static(start.as_bytes()),
            end: end.map(|end| Bytes::from_static(end.as_bytes())),
        };
        let two = [range("/b", Some("/c")), range("/a", Some("/a0"))];
        assert_eq!(hull(&two), range("/a", Some("/c")));
        assert_eq!(hull(&[range("/b", None), range("/a", Some("/z"))]), range("/a", None));
    }
}
