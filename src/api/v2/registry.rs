//! `/v2/keys/_etcd/machines`: the members, shown as keys.
//!
//! etcd up to 0.4 kept its members there, and clients of that time read them to find the cluster.
//! Here nothing is stored: a read of these paths that finds no key is answered from the status.
//! The values have etcd 0.4's form, each address twice, as there is no other listener.
//!
//! Invariants: keys that somebody stores at these paths win; the directory is hidden, as its name
//! begins with `_`.

use crate::base::{KeyPath, Revision};
use crate::machine::Node;
use crate::node::Handle;
use crate::sys::http::form;

const MACHINES: &[u8] = b"/_etcd/machines";

/// The member or the list of members that a path names.
pub(super) fn look(path: &KeyPath, node: &Handle) -> Option<Node> {
    let rest = path.key().strip_prefix(MACHINES)?;
    let status = node.status();
    let url = status.client_urls.first()?.as_bytes();
    let member = [MACHINES, b"/", status.name.as_bytes()].concat();
    let member = shown(&member, Some(form(&[("etcd", url), ("raft", url)])))?;
    match rest {
        b"" => Some(Node { children: Some(vec![member]), ..shown(MACHINES, None)? }),
        _ => (member.path == *path).then_some(member),
    }
}

/// A file with this value, or a directory. Its indexes are those of an empty store.
fn shown(path: &[u8], value: Option<String>) -> Option<Node> {
    Some(Node {
        path: KeyPath::clean(path).ok()?,
        dir: value.is_none(),
        value: value.map(Into::into),
        deadline: None,
        expiration: None,
        children: None,
        modified_index: Revision(1),
        created_index: Revision(1),
    })
}
