//! The keys of one render, as the worker sees them.
//!
//! Why: a template asks for keys one by one, and a pipe round trip each would cost more than the
//! render. So the parent sends along what the last render used, and only what is missing is
//! asked for; what was touched is noted either way, for it is what wakes the template next time.
//!
//! Invariants:
//! * Everything comes from one revision: the parent answers from one snapshot.
//! * A range once fetched is never fetched again; no more than `limits::RENDER_INPUT_BYTES_MAX`
//!   are held.
//! * A name once looked up has the same addresses to the end of the render.
//! * A single key outside of the resource's `keys` is an error, since "missing" would be a lie;
//!   a pattern or listing shows what of it is inside.
//!
//! Deliberately not here: how Tera calls it (`functions`).

use crate::base::limits;
use crate::base::path::{BadPath, KeyPath};
use crate::base::range::KeyRange;
use crate::render::engine::glob::Pattern;
use crate::render::scope::Scope;
use crate::render::source::Item;
use std::collections::{BTreeMap, BTreeSet};

/// Fetches a range of the render's snapshot.
pub(crate) trait Fetch: Send {
    /// All keys of `range`, in order; the error is for the user.
    fn fetch(&mut self, range: &KeyRange) -> Result<Vec<Item>, String>;

    /// The addresses of a host, sorted; none when it has none or they cannot be found out.
    fn lookup(&mut self, host: &str) -> Result<Vec<String>, String>;
}

/// Why a template does not get a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ViewError {
    #[error("the resource's `keys` do not include this key: {name}")]
    Outside { name: String, keys: String },
    #[error("{0}")]
    BadPath(#[from] BadPath),
    #[error("{0}")]
    BadPattern(String),
    #[error("the template reads more than {} bytes of keys", limits::RENDER_INPUT_BYTES_MAX)]
    TooMuch,
    #[error("the template looks up more than {} names", limits::LOOKUPS_MAX)]
    TooManyLookups,
    #[error("the store did not answer: {0}")]
    Unavailable(String),
}

/// Keys of one revision within a scope.
pub(crate) struct View {
    scope: Scope,
    fetch: Box<dyn Fetch>,
    fetched: Vec<(KeyRange, Vec<Item>)>,
    bytes: usize,
    touched: BTreeSet<KeyRange>,
    /// Every pattern asked for: what `touched` holds of it is the whole directory.
    patterns: BTreeMap<String, Pattern>,
    addresses: BTreeMap<String, Vec<String>>,
}

impl View {
    pub(crate) fn new(
        scope: Scope,
        preloaded: Vec<(KeyRange, Vec<Item>)>,
        fetch: Box<dyn Fetch>,
    ) -> Self {
        let bytes = preloaded.iter().map(|(_, items)| weight(items)).sum();
        Self {
            scope,
            fetch,
            fetched: preloaded,
            bytes,
            touched: BTreeSet::new(),
            patterns: BTreeMap::new(),
            addresses: BTreeMap::new(),
        }
    }

    /// The key called `name`, if it exists.
    pub(crate) fn get(&mut self, name: &str) -> Result<Option<Item>, ViewError> {
        let full = self.scope.full(name)?;
        if !self.scope.sees(&full) {
            let keys = self.scope.keys_shown();
            return Err(ViewError::Outside { name: name.to_owned(), keys });
        }
        Ok(self.range(&KeyRange::single(&full))?.first().cloned())
    }

    /// Name and item of every key that matches `pattern`, in key order.
    pub(crate) fn matching(&mut self, pattern: &str) -> Result<Vec<(String, Item)>, ViewError> {
        let absolute =
            if pattern.starts_with('/') { pattern.to_owned() } else { format!("/{pattern}") };
        let bad = |error| ViewError::BadPattern(format!("{error}: {pattern}"));
        let parsed = Pattern::parse(&absolute).map_err(bad)?;
        let range = match parsed.as_name() {
            Some(name) => KeyRange::single(&self.scope.full(&name)?),
            None => self.below(&parsed.directory())?,
        };
        let mut found = Vec::new();
        let scope = self.scope.clone();
        for item in self.range(&range)? {
            if let Some(name) = scope.name(&item.key).filter(|name| parsed.matches(name)) {
                found.push((name.to_owned(), item.clone()));
            }
        }
        self.patterns.insert(absolute, parsed);
        Ok(found)
    }

    /// The addresses of `host`, sorted; see `Fetch::lookup`.
    pub(crate) fn lookup(&mut self, host: &str) -> Result<&[String], ViewError> {
        if !self.addresses.contains_key(host) {
            if self.addresses.len() >= limits::LOOKUPS_MAX {
                return Err(ViewError::TooManyLookups);
            }
            let found = self.fetch.lookup(host).map_err(ViewError::Unavailable)?;
            self.addresses.insert(host.to_owned(), found);
        }
        Ok(self.addresses.get(host).map_or(&[], Vec::as_slice))
    }

    /// Names of the children of `directory`, sorted; with `directories_only`, of those that have
    /// children themselves. A key without children lists as its own last name, as in confd.
    pub(crate) fn children(
        &mut self,
        directory: &str,
        directories_only: bool,
    ) -> Result<Vec<String>, ViewError> {
        let range = self.below(directory)?;
        let skip = range.start.len();
        let scope = self.scope.clone();
        let mut names = BTreeSet::new();
        for item in self.range(&range)?.iter().filter(|item| scope.name(&item.key).is_some()) {
            let tail = item.key.get(skip..).unwrap_or_default();
            let name = tail.split(|byte| *byte == b'/').next().unwrap_or_default();
            if name.len() < tail.len() || !directories_only {
                names.insert(String::from_utf8_lossy(name).into_owned());
            }
        }
        if names.is_empty() && !directories_only {
            names.extend(self.own_name(directory)?);
        }
        Ok(names.into_iter().collect())
    }

    fn own_name(&mut self, directory: &str) -> Result<Option<String>, ViewError> {
        let full = self.scope.full(directory)?;
        if !self.scope.sees(&full) {
            return Ok(None);
        }
        let leaf = self.range(&KeyRange::single(&full))?.first();
        let name = leaf.and_then(|item| item.key.rsplit(|byte| *byte == b'/').next());
        Ok(name.map(|name| String::from_utf8_lossy(name).into_owned()))
    }

    fn below(&self, directory: &str) -> Result<KeyRange, ViewError> {
        Ok(KeyRange::below(&KeyPath::clean(&self.scope.full(directory)?)?))
    }

    fn range(&mut self, range: &KeyRange) -> Result<&[Item], ViewError> {
        let at = self.fetched.iter().position(|(known, _)| known.covers(range));
        let at = match at {
            Some(at) => at,
            None => {
                let items = self.fetch.fetch(range).map_err(ViewError::Unavailable)?;
                self.bytes += weight(&items);
                if self.bytes > limits::RENDER_INPUT_BYTES_MAX {
                    return Err(ViewError::TooMuch);
                }
                self.fetched.push((range.clone(), items));
                self.fetched.len() - 1
            }
        };
        let (_, items) = self.fetched.get(at).map_or((range, &[][..]), |(r, i)| (r, i.as_slice()));
        let from = items.partition_point(|item| item.key < range.start);
        let past = |item: &Item| range.end.as_ref().is_none_or(|end| item.key < *end);
        let to = items.partition_point(past).max(from);
        self.touched.insert(range.clone());
        Ok(items.get(from..to).unwrap_or_default())
    }

    /// What the template read, for waking it: at most `limits::RENDER_TOUCHED_MAX` ranges.
    pub(crate) fn touched(&self) -> Vec<KeyRange> {
        if self.touched.len() > limits::RENDER_TOUCHED_MAX {
            return vec![self.scope.whole()];
        }
        self.touched.iter().cloned().collect()
    }

    /// Names of the keys given to the template so far whose value `is_it`, sorted; for telling
    /// whose value made trouble.
    pub(crate) fn names_where(&self, is_it: impl Fn(&[u8]) -> bool) -> Vec<String> {
        let items = self.fetched.iter().flat_map(|(_, items)| items);
        let suspects = items.filter(|item| is_it(&item.value));
        let named = suspects.filter_map(|item| Some((item, self.scope.name(&item.key)?)));
        let given = named.filter(|(item, name)| {
            self.touched.contains(&KeyRange::single(&item.key))
                || self.patterns.values().any(|pattern| pattern.matches(name))
        });
        let names: BTreeSet<String> = given.map(|(_, name)| name.to_owned()).collect();
        names.into_iter().collect()
    }
}

fn weight(items: &[Item]) -> usize {
    items.iter().map(|item| item.key.len() + item.value.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::Revision;
    use bytes::Bytes;

    struct Fixed(Vec<Item>, usize);

    impl Fetch for Fixed {
        fn fetch(&mut self, range: &KeyRange) -> Result<Vec<Item>, String> {
            self.1 += 1;
            Ok(self.0.iter().filter(|item| range.contains(&item.key)).cloned().collect())
        }

        fn lookup(&mut self, host: &str) -> Result<Vec<String>, String> {
            self.1 += 1;
            Ok(vec![format!("{host}-{}", self.1)])
        }
    }

    fn view(prefix: &str, keys: &[&str]) -> View {
        let stored = ["/p/a/leaf", "/p/b", "/p/d/x", "/p/d/y/z", "/p/b-not-below/k", "/q/other"];
        let mut items: Vec<Item> = stored
            .iter()
            .map(|key| Item {
                key: Bytes::copy_from_slice(key.as_bytes()),
                value: Bytes::from_static(b"v"),
                mod_revision: Revision(7),
                ttl_seconds: None,
            })
            .collect();
        items.sort_by(|a, b| a.key.cmp(&b.key));
        let path = |text: &&str| KeyPath::clean(text.as_bytes()).unwrap();
        let keys: Vec<KeyPath> = keys.iter().map(path).collect();
        View::new(Scope::new(path(&prefix), &keys).unwrap(), vec![], Box::new(Fixed(items, 0)))
    }

    #[test]
    fn lists_and_matches_below_the_prefix() {
        let mut all = view("/p", &[]);
        assert_eq!(all.children("/", false).unwrap(), ["a", "b", "b-not-below", "d"]);
        assert_eq!(all.children("/", true).unwrap(), ["a", "b-not-below", "d"]);
        assert_eq!(all.children("d/", false).unwrap(), ["x", "y"]);
        assert_eq!(all.children("/b", false).unwrap(), ["b"]);
        assert_eq!(all.children("/nothing", false).unwrap(), [""; 0]);
        let names =
            |found: Vec<(String, Item)>| found.into_iter().map(|(n, _)| n).collect::<Vec<_>>();
        assert_eq!(names(all.matching("/*/*").unwrap()), ["/a/leaf", "/b-not-below/k", "/d/x"]);
        assert_eq!(names(all.matching("b").unwrap()), ["/b"]);
        assert!(all.matching("/[").is_err());
        assert!(all.get("/b").unwrap().is_some() && all.get("/x").unwrap().is_none());
    }

    #[test]
    fn keys_bound_what_is_seen() {
        let mut some = view("/p", &["/d", "/b"]);
        assert_eq!(some.children("/", false).unwrap(), ["b", "d"]);
        assert!(matches!(some.get("/a/leaf"), Err(ViewError::Outside { .. })));
        assert!(some.get("/d/y/z").unwrap().is_some());
    }

    #[test]
    fn names_only_what_the_template_was_given() {
        let mut all = view("/p", &[]);
        let _ = all.matching("/a/*");
        let _ = all.matching("/b*");
        let _ = all.children("/d", false);
        assert_eq!(all.names_where(|_| true), ["/a/leaf", "/b"]);
        let _ = all.get("/d/x");
        assert_eq!(all.names_where(|_| true), ["/a/leaf", "/b", "/d/x"]);
        assert_eq!(all.names_where(|value| value != b"v"), [""; 0]);
    }

    #[test]
    fn a_name_is_looked_up_once() {
        let mut all = view("/p", &[]);
        for (host, expected) in [("a", "a-1"), ("b", "b-2"), ("a", "a-1")] {
            assert_eq!(all.lookup(host).unwrap(), [expected]);
        }
        let hosts = (0..limits::LOOKUPS_MAX).map(|number| number.to_string());
        let failed = hosts.filter(|host| all.lookup(host).is_err()).count();
        assert_eq!(failed, 2);
    }

    #[test]
    fn remembers_what_was_touched() {
        let mut all = view("/p", &[]);
        let _ = all.get("/zz");
        let _ = all.children("/d", false);
        let path = KeyPath::clean(b"/p/d").unwrap();
        assert_eq!(all.touched(), [KeyRange::below(&path), KeyRange::single(&"/p/zz".into())]);
    }
}
