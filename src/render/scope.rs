//! The part of the key space one template sees, and the names it sees it under.
//!
//! A template names keys relative to its resource's prefix. With `keys`, it may read those keys
//! and what is below them, and changes of them trigger it; without, it may read all below the
//! prefix and is triggered by what it touched.
//!
//! Invariants:
//! * A name is a key below the prefix; `/prod/httpx` is not below `/prod/http`.
//! * Keys that are not UTF-8 have no name and are never seen.
//!
//! Deliberately not here: fetching.

use crate::base::codec::{Malformed, Reader, Writer};
use crate::base::path::{BadPath, KeyPath};
use crate::base::range::KeyRange;
use bytes::Bytes;

/// Prefix and keys of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    prefix: KeyPath,
    /// Full paths; empty = all below the prefix.
    keys: Vec<KeyPath>,
    /// Full paths of what is read too, and wakes nobody.
    read_keys: Vec<KeyPath>,
}

impl Scope {
    /// A scope; `keys` are relative to `prefix`. No keys means all below the prefix.
    ///
    /// # Errors
    /// When prefix and key together are too long or too deep.
    pub fn new(prefix: KeyPath, keys: &[KeyPath]) -> Result<Self, BadPath> {
        let keys = keys.iter().map(|key| join(&prefix, key)).collect::<Result<_, _>>()?;
        Ok(Self { prefix, keys, read_keys: Vec::new() })
    }

    /// The same scope, with keys that may be read and do not trigger.
    ///
    /// # Errors
    /// When prefix and key together are too long or too deep.
    pub fn reading(self, read_keys: &[KeyPath]) -> Result<Self, BadPath> {
        let read_keys = read_keys.iter().map(|key| join(&self.prefix, key));
        let read_keys = read_keys.collect::<Result<_, _>>()?;
        Ok(Self { read_keys, ..self })
    }

    /// The full path of a name, whether the template may read it or not.
    ///
    /// # Errors
    /// When both together are too long or too deep.
    pub fn below_prefix(&self, name: &KeyPath) -> Result<KeyPath, BadPath> {
        join(&self.prefix, name)
    }

    /// The stored key a template means by `name`.
    ///
    /// # Errors
    /// When the name is too long or too deep.
    pub fn full(&self, name: &str) -> Result<Bytes, BadPath> {
        Ok(self.below_prefix(&KeyPath::clean(name.as_bytes())?)?.key().clone())
    }

    /// What a template calls a stored key; `None` if it does not see it.
    #[must_use]
    pub fn name<'a>(&self, key: &'a [u8]) -> Option<&'a str> {
        if !self.sees(key) {
            return None;
        }
        let name =
            if self.prefix.is_root() { key } else { key.strip_prefix(&self.prefix.key()[..])? };
        std::str::from_utf8(name).ok().filter(|name| name.starts_with('/'))
    }

    /// Whether the template may read a stored key.
    #[must_use]
    pub fn sees(&self, key: &[u8]) -> bool {
        covers(&self.prefix, key)
            && (self.keys.is_empty() || self.named().any(|allowed| covers(allowed, key)))
    }

    /// What the resource names, triggers first.
    fn named(&self) -> impl Iterator<Item = &KeyPath> {
        self.keys.iter().chain(&self.read_keys)
    }

    /// All that may be read as ranges, or nothing if that is all below the prefix.
    #[must_use]
    pub fn readable(&self) -> Vec<KeyRange> {
        if self.keys.is_empty() { Vec::new() } else { self.named().flat_map(tree).collect() }
    }

    /// Whether what a template read is among the `read_keys`, and so wakes nobody.
    #[must_use]
    pub fn is_only_read(&self, range: &KeyRange) -> bool {
        self.read_keys.iter().flat_map(tree).any(|read| read.covers(range))
    }

    /// Whether a template of this resource can ask for `range`; what it does not see of that is
    /// for `sees` to leave out.
    #[must_use]
    pub fn reaches(&self, range: &KeyRange) -> bool {
        tree(&self.prefix).iter().any(|all| all.covers(range))
    }

    /// The `keys` of the resource as ranges, or nothing if they were left out.
    #[must_use]
    pub fn key_ranges(&self) -> Vec<KeyRange> {
        self.keys.iter().flat_map(tree).collect()
    }

    /// Everything below the prefix.
    #[must_use]
    pub fn whole(&self) -> KeyRange {
        KeyRange::below(&self.prefix)
    }

    /// `keys` and `read_keys`, for messages; nothing if there are no `keys`.
    #[must_use]
    pub fn keys_shown(&self) -> String {
        if self.keys.is_empty() {
            return String::new();
        }
        self.named().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    /// Writes prefix and keys.
    pub fn encode(&self, out: &mut Writer) {
        out.bytes(self.prefix.key());
        for keys in [&self.keys, &self.read_keys] {
            out.uint(keys.len() as u64);
            for key in keys {
                out.bytes(key.key());
            }
        }
    }

    /// Reads what `encode` wrote.
    ///
    /// # Errors
    /// When the bytes are something else.
    pub fn decode(input: &mut Reader<'_>) -> Result<Self, Malformed> {
        let prefix = path(input)?;
        let mut paths = || (0..input.uint()?).map(|_| path(input)).collect::<Result<_, _>>();
        let (keys, read_keys) = (paths()?, paths()?);
        Ok(Self { prefix, keys, read_keys })
    }
}

fn path(input: &mut Reader<'_>) -> Result<KeyPath, Malformed> {
    KeyPath::clean(input.bytes()?).map_err(|_| Malformed::Overflow)
}

fn join(prefix: &KeyPath, name: &KeyPath) -> Result<KeyPath, BadPath> {
    let mut full = prefix.children_prefix();
    full.extend_from_slice(name.key());
    KeyPath::clean(&full)
}

/// Whether `key` is `path` or below it.
fn covers(path: &KeyPath, key: &[u8]) -> bool {
    *path.key() == key || key.starts_with(&path.children_prefix())
}

/// A path and everything below it.
#[must_use]
pub fn tree(path: &KeyPath) -> Vec<KeyRange> {
    let below = KeyRange::below(path);
    if path.is_root() { vec![below] } else { vec![KeyRange::single(path.key()), below] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> KeyPath {
        KeyPath::clean(text.as_bytes()).unwrap()
    }

    #[test]
    fn names_are_relative_and_bounded() {
        let scope = Scope::new(path("/prod/http"), &[path("/services"), path("/domain")]).unwrap();
        let cases: [(&str, Option<&str>); 6] = [
            ("/prod/http/services/web/host", Some("/services/web/host")),
            ("/prod/http/domain", Some("/domain")),
            ("/prod/http/domainx", None),
            ("/prod/httpx/services/evil", None),
            ("/prod/other", None),
            ("/services/web", None),
        ];
        for (key, name) in cases {
            assert_eq!(scope.name(key.as_bytes()), name, "{key}");
        }
        assert_eq!(scope.full("services/../domain/").unwrap().as_ref(), b"/prod/http/domain");
        assert_eq!(scope.full("/../../etc").unwrap().as_ref(), b"/prod/http/etc");
        let all = Scope::new(KeyPath::root(), &[path("/")]).unwrap();
        assert_eq!(all.name(b"/a/b"), Some("/a/b"));
        assert_eq!(all.name(b"/\xff"), None);
        assert!(all.reaches(&KeyRange::single(&all.full("/").unwrap())));
        let scope = scope.reading(&[path("/defaults"), path("/one")]).unwrap();
        assert_eq!(scope.name(b"/prod/http/defaults/x"), Some("/defaults/x"));
        let below = |text: &str| KeyRange::below(&path(text));
        let reads = [
            (below("/prod/http/defaults"), true),
            (below("/prod/http/defaults/a"), true),
            (KeyRange::single(path("/prod/http/one").key()), true),
            (below("/prod/http"), false),
            (below("/prod/http/services"), false),
            (KeyRange::all(), false),
        ];
        for (range, expected) in reads {
            assert_eq!(scope.is_only_read(&range), expected, "{range:?}");
            assert_eq!(scope.reaches(&range), range != KeyRange::all(), "{range:?}");
        }
        assert!(!scope.reaches(&below("/prod")) && !scope.reaches(&below("/prod/httpx")));
        let mut out = Writer::new();
        scope.encode(&mut out);
        assert_eq!(Scope::decode(&mut Reader::new(out.as_slice())), Ok(scope));
    }
}
