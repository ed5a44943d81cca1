//! v2's reads: a node, and what a listing shows of a directory.
//!
//! Keys and explicit directories are read in key order and merged into one sorted tree. A listing
//! of one level jumps over everything deeper, so it costs as much as it shows; a recursive one
//! reads the subtree once. Hidden children (`_name`) are left out of listings and make no
//! difference to what stands where.
//!
//! Deliberately sorted always: etcd's order is random unless asked, and sorted is one of those.

use crate::base::{Fault, KeyPath, KeyRange, Rejected, Revision, Space};
use crate::machine::look::{At, Look, Stop};
use crate::machine::outcome::Node;
use crate::machine::tree::event::node_of;
use crate::machine::tree::{Standing, find};
use crate::store::{Base, Reader, Record};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How much of a directory to show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Everything below, or one level.
    pub recursive: bool,
}

/// The node at a path, at the reader's revision. A directory's `children` are sorted and may be
/// empty; those of a sub-directory are `None` unless the listing is recursive. The root has the
/// indexes 0.
///
/// # Errors
/// `Rejected` as etcd refuses: `NotFound` with the first missing path, `NotADirectory` with the
/// file in the way. `Fault` when stored bytes are damaged or the database fails.
pub fn get<B: Base>(
    reader: &Reader<B>,
    path: &KeyPath,
    listing: Listing,
) -> Result<Result<Node, Rejected>, Fault> {
    get_at(reader, reader.revision(), path, listing)
}

/// `get` at an older revision.
///
/// # Errors
/// As `get`; also `Compacted` and `FutureRevision`.
pub fn get_at<B: Base>(
    reader: &Reader<B>,
    revision: Revision,
    path: &KeyPath,
    listing: Listing,
) -> Result<Result<Node, Rejected>, Fault> {
    if revision > reader.revision() {
        return Ok(Err(Rejected::FutureRevision));
    }
    if revision < reader.compacted() {
        let oldest = reader.compacted();
        return Ok(Err(Rejected::Compacted { oldest, requested: revision }));
    }
    match read(&At { reader, revision }, path, listing) {
        Ok(node) => Ok(Ok(node)),
        Err(Stop::Rejected(rejected)) => Ok(Err(rejected)),
        Err(Stop::Fault(fault)) => Err(fault),
    }
}

fn read(look: &impl Look, path: &KeyPath, listing: Listing) -> Result<Node, Stop> {
    let mut node = match find(look, path)? {
        Standing::File(file) => return node_of(&file).ok_or_else(|| unnameable(path)),
        Standing::Explicit(directory) => node_of(&directory).ok_or_else(|| unnameable(path))?,
        Standing::Implicit(first) => directory(path.clone(), first.created_index),
        Standing::Root => directory(KeyPath::root(), Revision(0)),
    };
    node.children = Some(children(look, path, listing)?);
    Ok(node)
}

fn unnameable(path: &KeyPath) -> Stop {
    Stop::Fault(Fault::Invariant(format!("the record of {path} has another key")))
}

/// A directory without a record.
fn directory(path: KeyPath, index: Revision) -> Node {
    Node {
        path,
        value: None,
        dir: true,
        deadline: None,
        expiration: None,
        children: None,
        modified_index: index,
        created_index: index,
    }
}

/// One name of a listing.
#[derive(Default)]
struct Branch {
    /// Its record in `Keys`: what it is unless it is a directory.
    file: Option<Arc<Record>>,
    /// Its record in `Dirs`.
    explicit: Option<Arc<Record>>,
    /// The first key below it.
    first: Option<Arc<Record>>,
    /// What a recursive listing shows below it.
    branches: Branches,
}

type Branches = BTreeMap<Bytes, Branch>;

fn children(look: &impl Look, path: &KeyPath, listing: Listing) -> Result<Vec<Node>, Fault> {
    let mut branches = Branches::new();
    for space in [Space::Keys, Space::Dirs] {
        if listing.recursive {
            gather_all(look, space, path, &mut branches)?;
        } else {
            gather_level(look, space, path, &mut branches)?;
        }
    }
    Ok(to_nodes(branches, path, listing))
}

/// Every record below a directory.
fn gather_all(
    look: &impl Look,
    space: Space,
    path: &KeyPath,
    branches: &mut Branches,
) -> Result<(), Fault> {
    let prefix_bytes = path.children_prefix().len();
    let range = KeyRange::below(path);
    for record in look.scan(space, &range)? {
        let record = record?;
        if KeyPath::from_key(&record.key).is_some() {
            plant(branches, record, prefix_bytes);
        }
    }
    Ok(())
}

/// Hangs a record into the tree, up to the first hidden name on its way.
fn plant(mut branches: &mut Branches, record: Arc<Record>, mut at: usize) {
    let key = record.key.clone();
    loop {
        let rest = key.slice(at.min(key.len())..);
        let length = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
        if rest.starts_with(b"_") {
            return;
        }
        let branch = branches.entry(rest.slice(..length)).or_default();
        if length == rest.len() {
            branch.hold(record);
            return;
        }
        branch.pass(&record);
        branches = &mut branch.branches;
        at += length + 1;
    }
}

/// The records directly below a directory, and one of each deeper directory.
fn gather_level(
    look: &impl Look,
    space: Space,
    path: &KeyPath,
    branches: &mut Branches,
) -> Result<(), Fault> {
    let prefix_bytes = path.children_prefix().len();
    let mut range = KeyRange::below(path);
    while let Some(deeper) = gather_until_deeper(look, space, &range, prefix_bytes, branches)? {
        // Everything else below that directory would say the same of it.
        let Some(end) = KeyRange::below(&deeper).end else { break };
        range.start = end;
    }
    Ok(())
}

/// Takes records up to the first that lies deeper; returns the directory it lies in.
fn gather_until_deeper(
    look: &impl Look,
    space: Space,
    range: &KeyRange,
    prefix_bytes: usize,
    branches: &mut Branches,
) -> Result<Option<KeyPath>, Fault> {
    for record in look.scan(space, range)? {
        let record = record?;
        if KeyPath::from_key(&record.key).is_none() {
            continue;
        }
        let rest = record.key.slice(prefix_bytes.min(record.key.len())..);
        let slash = rest.iter().position(|byte| *byte == b'/');
        plant_level(branches, &rest, slash, &record);
        if let Some(slash) = slash {
            let directory = record.key.slice(..prefix_bytes + slash);
            return Ok(KeyPath::from_key(&directory));
        }
    }
    Ok(None)
}

fn plant_level(branches: &mut Branches, rest: &Bytes, slash: Option<usize>, record: &Arc<Record>) {
    if rest.starts_with(b"_") {
        return;
    }
    let branch = branches.entry(rest.slice(..slash.unwrap_or(rest.len()))).or_default();
    match slash {
        Some(_) => branch.pass(record),
        None => branch.hold(Arc::clone(record)),
    }
}

impl Branch {
    /// The record is this very node's.
    fn hold(&mut self, record: Arc<Record>) {
        match record.space {
            Space::Dirs => self.explicit = Some(record),
            _ => self.file = Some(record),
        }
    }

    /// The record lies below this node.
    fn pass(&mut self, record: &Arc<Record>) {
        if record.space == Space::Keys && self.first.is_none() {
            self.first = Some(Arc::clone(record));
        }
    }

    fn into_node(self, path: &KeyPath, listing: Listing) -> Option<Node> {
        let mut node = match (self.explicit, self.first, self.file) {
            (Some(record), _, _) => node_of(&record)?,
            (None, Some(first), _) => directory(path.clone(), first.created_index),
            (None, None, file) => return node_of(&*file?),
        };
        if listing.recursive {
            node.children = Some(to_nodes(self.branches, path, listing));
        }
        Some(node)
    }
}

/// Recursion is bounded: paths of the tree have at most `limits::KEY_DEPTH_MAX` names.
fn to_nodes(branches: Branches, parent: &KeyPath, listing: Listing) -> Vec<Node> {
    let named = branches.into_iter().map(|(name, branch)| (parent.child(&name), branch));
    named.filter_map(|(path, branch)| branch.into_node(&path, listing)).collect()
}
