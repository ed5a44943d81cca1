//! v2 key paths.
//!
//! A `KeyPath` is a cleaned absolute path: it starts with `/`, has no empty, `.` or `..` segment
//! and no trailing slash; the root is `/` alone. The same bytes are the key's name in v3
//! (DESIGN decision 3), so a path is bytes, not text. Cleaning follows Go's `path.Clean`, which
//! is what etcd applied to v2 keys (`etcdserver/api/v2http/client.go`).

use crate::base::limits;
use bytes::Bytes;
use std::fmt;

/// Why bytes are not a key path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// Longer than `limits::KEY_BYTES_MAX`.
    #[error("the key has {0} bytes, at most {max} are allowed", max = limits::KEY_BYTES_MAX)]
    TooLong(usize),
    /// Deeper than `limits::KEY_DEPTH_MAX`.
    #[error("the key has {0} segments, at most {max} are allowed", max = limits::KEY_DEPTH_MAX)]
    TooDeep(usize),
}

/// A cleaned absolute path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPath(Bytes);

impl KeyPath {
    /// The root directory.
    #[must_use]
    pub fn root() -> Self {
        Self(Bytes::from_static(b"/"))
    }

    /// Cleans `raw` (with or without a leading slash) into a path.
    ///
    /// # Errors
    /// When it is too long or too deep.
    pub fn clean(raw: &[u8]) -> Result<Self, BadPath> {
        if raw.len() > limits::KEY_BYTES_MAX {
            return Err(BadPath::TooLong(raw.len()));
        }
        let mut segments: Vec<&[u8]> = Vec::new();
        for segment in raw.split(|byte| *byte == b'/') {
            match segment {
                b"" | b"." => {}
                b".." => {
                    segments.pop();
                }
                name => segments.push(name),
            }
        }
        if segments.len() > limits::KEY_DEPTH_MAX {
            return Err(BadPath::TooDeep(segments.len()));
        }
        let mut cleaned = Vec::with_capacity(raw.len() + 1);
        for segment in segments {
            cleaned.push(b'/');
            cleaned.extend_from_slice(segment);
        }
        if cleaned.is_empty() {
            cleaned.push(b'/');
        }
        // The slash in front may be one byte too many.
        if cleaned.len() > limits::KEY_BYTES_MAX {
            return Err(BadPath::TooLong(cleaned.len()));
        }
        Ok(Self(cleaned.into()))
    }

    /// The path these stored bytes are, if a v2 client can name it: v3 keys may be anything.
    #[must_use]
    pub fn from_key(key: &Bytes) -> Option<Self> {
        let rest = key.strip_prefix(b"/")?;
        let proper = |segment: &[u8]| !segment.is_empty() && segment != b"." && segment != b"..";
        let depth = rest.iter().filter(|byte| **byte == b'/').count() + 1;
        let nameable = depth <= limits::KEY_DEPTH_MAX && key.len() <= limits::KEY_BYTES_MAX;
        let is_path = nameable && rest.split(|byte| *byte == b'/').all(proper);
        is_path.then(|| Self(key.clone()))
    }

    /// The path as a key.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        &self.0
    }

    /// Whether this is `/`.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// The directory this path is in; the root has none.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let slash = self.0.iter().rposition(|byte| *byte == b'/')?;
        Some(if slash == 0 { Self::root() } else { Self(self.0.slice(..slash)) })
    }

    /// Ancestors below the root, outermost first, without the path itself.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> + '_ {
        let slashes = self.0.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/');
        slashes.map(|(at, _)| Self(self.0.slice(..at)))
    }

    /// The child of this directory called `name`, which must be one proper segment.
    #[must_use]
    pub fn child(&self, name: &[u8]) -> Self {
        let mut path = self.children_prefix();
        path.extend_from_slice(name);
        Self(path.into())
    }

    /// What every key below this directory starts with: the path and a slash.
    #[must_use]
    pub fn children_prefix(&self) -> Vec<u8> {
        let mut prefix = self.0.to_vec();
        if !self.is_root() {
            prefix.push(b'/');
        }
        prefix
    }

    /// The last segment; empty for the root.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.0.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }

    /// Whether a listing leaves this path out: its name starts with `_` (etcd's hidden nodes).
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        self.name().starts_with(b"_")
    }

    /// Whether this path lies below `directory`.
    #[must_use]
    pub fn is_below(&self, directory: &Self) -> bool {
        self.0.len() > directory.0.len() && self.0.starts_with(&directory.children_prefix())
    }
}

/// Bytes that are not UTF-8 show as U+FFFD, as in etcd's JSON.
impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> KeyPath {
        KeyPath::clean(text.as_bytes()).unwrap()
    }

    #[test]
    fn cleans_as_go_does() {
        let cases = [
            ("", "/"),
            ("/", "/"),
            ("foo", "/foo"),
            ("/foo/", "/foo"),
            ("//foo///bar", "/foo/bar"),
            ("/foo/./bar/../baz", "/foo/baz"),
            ("/../..", "/"),
            ("/.../a..b", "/.../a..b"),
            ("/_hidden/x", "/_hidden/x"),
        ];
        for (raw, cleaned) in cases {
            assert_eq!(path(raw).to_string(), cleaned, "{raw}");
        }
        assert!(matches!(KeyPath::clean(&[b'a'; 20_000]), Err(BadPath::TooLong(20_000))));
        let longest = [b'a'; limits::KEY_BYTES_MAX];
        assert!(KeyPath::clean(&longest[1..]).is_ok());
        assert!(KeyPath::clean(&longest).is_err(), "with its slash, one byte too long");
        assert!(matches!(KeyPath::clean(&b"/a".repeat(129)), Err(BadPath::TooDeep(129))));
    }

    #[test]
    fn knows_its_family() {
        let key = path("/a/b/c");
        assert_eq!(key.parent(), Some(path("/a/b")));
        assert_eq!(path("/a").parent(), Some(KeyPath::root()));
        assert_eq!(KeyPath::root().parent(), None);
        assert_eq!(key.ancestors().collect::<Vec<_>>(), [path("/a"), path("/a/b")]);
        assert_eq!(KeyPath::root().child(b"x"), path("/x"));
        assert_eq!(path("/a").child(b"x"), path("/a/x"));
        assert!(key.is_below(&path("/a")) && key.is_below(&KeyPath::root()));
        assert!(!path("/ab").is_below(&path("/a")) && !key.is_below(&key));
        assert!(path("/a/_b").is_hidden() && !path("/_a/b").is_hidden());
    }

    #[test]
    fn only_proper_keys_are_paths() {
        for good in ["/a", "/a/b", "/...", "/a b"] {
            assert!(KeyPath::from_key(&Bytes::from_static(good.as_bytes())).is_some(), "{good}");
        }
        for bad in ["", "a", "/", "//a", "/a/", "/a//b", "/a/./b", "/.."] {
            assert!(KeyPath::from_key(&Bytes::from_static(bad.as_bytes())).is_none(), "{bad}");
        }
        assert!(KeyPath::from_key(&b"/a".repeat(128).into()).is_some());
        assert!(KeyPath::from_key(&b"/a".repeat(129).into()).is_none(), "no v2 client names it");
    }
}
