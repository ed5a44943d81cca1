//! Records in v2's words: nodes and events.
//!
//! A change is told the same whether it comes straight from apply or is read back from history:
//! `change_of` finds the record a change replaced, as the draft knew it.
//!
//! Invariants: an event is a function of its change alone; a hushed record is no event.

use crate::base::{Fault, KeyPath, Revision, Space};
use crate::machine::outcome::{Action, Change, Event, Node};
use crate::store::{Base, Position, Reader, Record};
use std::sync::Arc;

/// The v2 event of a change; `None` for what v2 does not tell: refreshes, what went with its
/// directory, parents made on the way, keys outside the tree, and spaces that are not the tree's.
#[must_use]
pub fn event_of(change: &Change) -> Option<Event> {
    if change.record.hushed { None } else { describe(change) }
}

/// The event a client is answered with, whether watchers hear of it or not.
pub(crate) fn describe(change: &Change) -> Option<Event> {
    let record = &change.record;
    let mut node = node_of(record)?;
    // A directory whose TTL changed tells its new index here, and goes on showing the old one.
    node.modified_index = record.position.revision;
    Some(Event {
        action: Action::from_byte(record.action)?,
        node,
        previous: change.previous.as_deref().and_then(node_of),
    })
}

/// A record of the tree as a node, without children.
pub(super) fn node_of(record: &Record) -> Option<Node> {
    let dir = match record.space {
        Space::Keys => false,
        Space::Dirs => true,
        Space::Leases | Space::Auth | Space::Members => return None,
    };
    Some(Node {
        path: KeyPath::from_key(&record.key)?,
        value: (record.live && !dir).then(|| record.value.clone()),
        dir,
        deadline: record.deadline,
        expiration: record.expiration,
        children: None,
        modified_index: record.modified_index,
        created_index: record.created_index,
    })
}

/// The change a stored record was: for watchers that read history. What a compaction removed is
/// not found any more, and the change has no `previous` then.
///
/// # Errors
/// When stored bytes are damaged or the database fails.
pub fn change_of<B: Base>(reader: &Reader<B>, record: Arc<Record>) -> Result<Change, Fault> {
    let previous = match live_before(reader, record.space, &record, record.position)? {
        None if record.space == Space::Dirs && record.live => replaced_file(reader, &record)?,
        previous => previous,
    };
    Ok(Change { record, previous })
}

fn live_before<B: Base>(
    reader: &Reader<B>,
    space: Space,
    record: &Record,
    position: Position,
) -> Result<Option<Arc<Record>>, Fault> {
    let found = reader.newest_before(space, &record.key, just_before(position))?;
    Ok(found.filter(|found| found.live))
}

/// The file a new directory took the place of: its tombstone is the record right before, and only
/// such a tombstone is made by a `set`.
fn replaced_file<B: Base>(
    reader: &Reader<B>,
    directory: &Record,
) -> Result<Option<Arc<Record>>, Fault> {
    let before = just_before(directory.position);
    let gave_way =
        |end: &Record| end.position == before && !end.live && end.action == Action::Set as u8;
    match reader.newest_before(Space::Keys, &directory.key, before)? {
        Some(end) if gave_way(&end) => live_before(reader, Space::Keys, directory, before),
        _ => Ok(None),
    }
}

fn just_before(position: Position) -> Position {
    match position.sub.checked_sub(1) {
        Some(sub) => Position { sub, ..position },
        None => Position::end_of(Revision(position.revision.0.saturating_sub(1))),
    }
}
