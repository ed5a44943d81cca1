//! v2's tree of files and directories, as a view of the flat store.
//!
//! A file is a live record in `Space::Keys` whose key is a v2 path. A directory is *explicit* when
//! it has a live record in `Space::Dirs`, and *implicit* when only keys below it make it one,
//! which happens through v3. v2's own writes record every parent, so that a directory emptied
//! through v2 stays. Keys that no v2 client can name are not part of the tree.
//!
//! When a key and keys below it both exist (only v3 can do that), the tree shows the directory,
//! and whoever ends the directory ends the hidden key with it.
//!
//! Invariants:
//! * The root always exists and is never recorded.
//! * The parents of an explicit directory are explicit: so one lookup proves a whole path.
//! * The rules are the same for a published state and for an entry's draft (`look`).
//!
//! Sources: `etcdserver/api/v2store/{store,node}.go` for the semantics, observed on etcd 3.4.23.

pub mod event;
pub mod read;
pub(super) mod sweep;
pub(super) mod write;

use crate::base::{Fault, KeyPath, KeyRange, Rejected, Space};
use crate::machine::look::{Look, Stop};
use crate::store::Record;
use std::sync::Arc;

/// What stands at a path.
pub(super) enum Standing {
    /// The root directory.
    Root,
    /// A directory with a record of its own.
    Explicit(Arc<Record>),
    /// A directory because of what lies below; holds the first such key.
    Implicit(Arc<Record>),
    /// A file.
    File(Arc<Record>),
}

/// What stands at a path, if anything.
pub(super) fn standing(look: &impl Look, path: &KeyPath) -> Result<Option<Standing>, Fault> {
    if path.is_root() {
        return Ok(Some(Standing::Root));
    }
    if look.is_pure() {
        // Most paths that are asked for are files.
        let file = look.live(Space::Keys, path.key())?.map(Standing::File);
        return match file {
            Some(file) => Ok(Some(file)),
            None => Ok(look.live(Space::Dirs, path.key())?.map(Standing::Explicit)),
        };
    }
    if let Some(directory) = look.live(Space::Dirs, path.key())? {
        return Ok(Some(Standing::Explicit(directory)));
    }
    if let Some(first) = first_below(look, Space::Keys, path)? {
        return Ok(Some(Standing::Implicit(first)));
    }
    Ok(look.live(Space::Keys, path.key())?.map(Standing::File))
}

/// What stands at a path, or the refusal that names the first missing path or the file in the way.
pub(super) fn find(look: &impl Look, path: &KeyPath) -> Result<Standing, Stop> {
    match standing(look, path)? {
        Some(standing) => Ok(standing),
        None => Err(why_missing(look, path)?.into()),
    }
}

/// The refusal for a path at which nothing stands.
fn why_missing(look: &impl Look, path: &KeyPath) -> Result<Rejected, Fault> {
    for ancestor in path.ancestors() {
        match standing(look, &ancestor)? {
            Some(Standing::Root | Standing::Explicit(_) | Standing::Implicit(_)) => {}
            Some(Standing::File(_)) => return Ok(Rejected::NotADirectory(ancestor)),
            None => return Ok(Rejected::NotFound(ancestor)),
        }
    }
    Ok(Rejected::NotFound(path.clone()))
}

/// The first record of a space below a directory that is part of the tree.
fn first_below(
    look: &impl Look,
    space: Space,
    directory: &KeyPath,
) -> Result<Option<Arc<Record>>, Fault> {
    let range = KeyRange::below(directory);
    let mut records = look.scan(space, &range)?;
    records.find(|item| item.as_ref().map_or(true, is_in_tree)).transpose()
}

/// Whether a v2 client could name this record's key.
fn is_in_tree(record: &Arc<Record>) -> bool {
    KeyPath::from_key(&record.key).is_some()
}
