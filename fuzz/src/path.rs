//! Key paths and ranges of keys.

use althing::base::limits::{KEY_BYTES_MAX, KEY_DEPTH_MAX};
use althing::base::path::BadPath;
use althing::base::{KeyPath, KeyRange};
use bytes::Bytes;

/// Cleans `data` into a path, takes it for a stored key, and makes ranges of its parts.
pub fn check(data: &[u8]) {
    let cleaned = KeyPath::clean(data);
    match &cleaned {
        Ok(path) => proper(path),
        Err(BadPath::TooLong(bytes)) => assert!(*bytes > KEY_BYTES_MAX),
        Err(BadPath::TooDeep(depth)) => assert!(*depth > KEY_DEPTH_MAX),
    }
    let key = Bytes::copy_from_slice(data);
    let is_clean = cleaned.is_ok_and(|path| *path.key() == key && !path.is_root());
    assert_eq!(KeyPath::from_key(&key).is_some(), is_clean);
    if let Some(at) = data.iter().position(|byte| *byte == b',') {
        ranges(&key.slice(..at), &key.slice(at + 1..));
    }
}

fn proper(path: &KeyPath) {
    let key = path.key();
    assert!(key.len() <= KEY_BYTES_MAX, "{} bytes", key.len());
    assert_eq!(KeyPath::clean(key).as_ref(), Ok(path), "cleaning changes nothing any more");
    if path.is_root() {
        assert_eq!((&key[..], path.parent()), (&b"/"[..], None));
        return;
    }
    let mut segments = key.split(|byte| *byte == b'/');
    assert_eq!(segments.next(), Some(&b""[..]), "it begins with a slash");
    for segment in segments {
        assert!(!matches!(segment, b"" | b"." | b".."), "{path}");
    }
    assert_eq!(KeyPath::from_key(key).as_ref(), Some(path));
    let Some(parent) = path.parent() else { panic!("{path} has no parent") };
    assert_eq!(parent.child(path.name()), *path);
    let ancestors: Vec<KeyPath> = path.ancestors().collect();
    assert!(ancestors.len() < KEY_DEPTH_MAX);
    for above in ancestors.iter().chain([&KeyPath::root()]) {
        assert!(path.is_below(above) && KeyRange::below(above).contains(key), "{path} {above}");
    }
}

fn ranges(one: &Bytes, other: &Bytes) {
    let single = KeyRange::single(one);
    assert_eq!((single.as_single(), single.contains(other)), (Some(one), one == other));
    let prefix = KeyRange::prefix(one);
    assert!(prefix.contains(one) && !prefix.is_empty());
    assert_eq!(prefix.contains(other), other.starts_with(one));
    let span = KeyRange { start: one.clone(), end: Some(other.clone()) };
    assert_eq!((span.is_empty(), span.contains(one)), (one >= other, one < other));
    assert!(!span.contains(other));
}
