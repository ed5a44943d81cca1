//! Ranges of keys, as v3 writes them and as v2 needs them.
//!
//! Keys order bytewise. A range is half open, `[start, end)`, or runs to the end of the space.
//! etcd's encoding of it in a request (`range_end` empty = one key, `"\0"` = to the end) is the
//! v3 door's affair.

use crate::base::path::KeyPath;
use bytes::Bytes;

/// A half-open range of keys; `end` `None` = no upper bound. May be empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyRange {
    /// First key of the range.
    pub start: Bytes,
    /// First key after the range.
    pub end: Option<Bytes>,
}

impl KeyRange {
    /// Every key.
    #[must_use]
    pub fn all() -> Self {
        Self { start: Bytes::new(), end: None }
    }

    /// Exactly one key.
    #[must_use]
    pub fn single(key: &Bytes) -> Self {
        let mut end = key.to_vec();
        end.push(0);
        Self { start: key.clone(), end: Some(end.into()) }
    }

    /// Every key that starts with `prefix`; the empty prefix means all.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        let mut end = prefix.to_vec();
        while let Some(last) = end.pop() {
            if last < 0xff {
                end.push(last + 1);
                return Self { start: Bytes::copy_from_slice(prefix), end: Some(end.into()) };
            }
        }
        Self { start: Bytes::copy_from_slice(prefix), end: None }
    }

    /// Everything below a v2 directory.
    #[must_use]
    pub fn below(directory: &KeyPath) -> Self {
        Self::prefix(&directory.children_prefix())
    }

    /// Whether `key` is in the range.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        *self.start <= *key && self.end.as_ref().is_none_or(|end| *key < **end)
    }

    /// Whether every key that can be in `other` is in this one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let ends_after = |end: &Bytes| other.end.as_ref().is_some_and(|other| other <= end);
        self.start <= other.start && self.end.as_ref().is_none_or(ends_after)
    }

    /// Whether no key can be in the range.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    /// The key, if the range holds exactly one.
    #[must_use]
    pub fn as_single(&self) -> Option<&Bytes> {
        let end = self.end.as_ref()?;
        let single = end.len() == self.start.len() + 1
            && end.starts_with(&self.start)
            && end.last() == Some(&0);
        single.then_some(&self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_they_say() {
        let one = KeyRange::single(&Bytes::from_static(b"/a"));
        assert!(one.contains(b"/a") && !one.contains(b"/a\0") && !one.contains(b"/b"));
        assert_eq!(one.as_single(), Some(&Bytes::from_static(b"/a")));
        let below = KeyRange::below(&KeyPath::clean(b"/a").unwrap());
        assert!(below.contains(b"/a/b") && below.contains(b"/a/\xff") && !below.contains(b"/a"));
        assert!(!below.contains(b"/ab") && below.as_single().is_none());
        assert_eq!(KeyRange::prefix(b"\xff\xff").end, None);
        assert_eq!(KeyRange::prefix(b"a\xff").end, Some(Bytes::from_static(b"b")));
        assert!(KeyRange::all().contains(b"") && !KeyRange::all().is_empty());
        let inverted =
            KeyRange { start: Bytes::from_static(b"b"), end: Some(Bytes::from_static(b"a")) };
        assert!(inverted.is_empty());
        assert!(below.covers(&below) && KeyRange::all().covers(&below) && !one.covers(&below));
        assert!(below.covers(&KeyRange::single(&Bytes::from_static(b"/a/b"))));
        assert!(!below.covers(&one) && !below.covers(&KeyRange::all()));
    }
}
