//! v2's JSON answers, written by hand.
//!
//! Every write and read of the v2 door ends here, so the bytes go straight into one buffer: no
//! tree of values, no field names hashed, one allocation an answer. The door shows its nodes
//! through the `Node` trait and keeps its own types.
//!
//! Invariants:
//! * The bytes are those of Go's `encoding/json` with HTML escaping on, in the order of etcd's
//!   structs (`v2store/event.go`, `v2store/node_extern.go`, `v2error/error.go`), newline included.
//! * Empty, false and zero fields are left out, but a file always shows its `value`.
//! * Any bytes are legal input: those that are not UTF-8 show as `\ufffd`, one for each byte.
//!
//! Deliberately not here: clocks (the caller says what time it is), status codes, headers.

use crate::base::{ClusterTime, Revision, WallTime};
use std::io::Write;

/// A file or directory as v2 shows it.
pub trait Node: Sized {
    /// Its path; `/` for the root, which v2 leaves out.
    fn key(&self) -> &[u8];
    /// The value of a file; `None` for directories, and for what is gone.
    fn value(&self) -> Option<&[u8]>;
    /// Whether it is a directory.
    fn is_directory(&self) -> bool;
    /// When it expires, in cluster time: what `ttl` is computed from.
    fn deadline(&self) -> Option<ClusterTime>;
    /// The same in wall time.
    fn expiration(&self) -> Option<WallTime>;
    /// Children of a listed directory.
    fn children(&self) -> &[Self];
    /// v2's modifiedIndex; 0 = not shown.
    fn modified_index(&self) -> Revision;
    /// v2's createdIndex; 0 = not shown.
    fn created_index(&self) -> Revision;
}

/// An error as v2 shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorBody<'a> {
    /// etcd's number.
    pub code: u16,
    /// etcd's words for that number.
    pub message: &'a str,
    /// What exactly; empty = left out.
    pub cause: &'a [u8],
    /// The store's index; 0 when the request never reached the store.
    pub index: Revision,
}

/// Appends an answer or event: `{"action":…,"node":…,"prevNode":…}` and a newline. `now` is what
/// `ttl` counts from.
pub fn write_event<N: Node>(
    out: &mut Vec<u8>,
    action: &str,
    node: &N,
    previous: Option<&N>,
    now: ClusterTime,
) {
    out.extend_from_slice(b"{\"action\":\"");
    out.extend_from_slice(action.as_bytes());
    out.extend_from_slice(b"\",\"node\":");
    write_node(out, node, now);
    if let Some(previous) = previous {
        out.extend_from_slice(b",\"prevNode\":");
        write_node(out, previous, now);
    }
    out.extend_from_slice(b"}\n");
}

/// Appends the answer of `noValueOnSuccess`: the action alone.
pub fn write_action(out: &mut Vec<u8>, action: &str) {
    out.extend_from_slice(b"{\"action\":\"");
    out.extend_from_slice(action.as_bytes());
    out.extend_from_slice(b"\"}\n");
}

/// Appends an error and a newline.
pub fn write_error(out: &mut Vec<u8>, error: ErrorBody<'_>) {
    out.extend_from_slice(b"{\"errorCode\":");
    write_number(out, error.code.into());
    out.extend_from_slice(b",\"message\":");
    write_string(out, error.message.as_bytes());
    if !error.cause.is_empty() {
        out.extend_from_slice(b",\"cause\":");
        write_string(out, error.cause);
    }
    out.extend_from_slice(b",\"index\":");
    write_number(out, error.index.0);
    out.extend_from_slice(b"}\n");
}

/// Bytes an event will take, roughly: what to reserve.
#[must_use]
pub fn event_bytes<N: Node>(node: &N, previous: Option<&N>) -> usize {
    const FRAME_BYTES: usize = 64;
    FRAME_BYTES + node_bytes(node) + previous.map_or(0, node_bytes)
}

fn node_bytes<N: Node>(node: &N) -> usize {
    const FIELDS_BYTES: usize = 160;
    let own = FIELDS_BYTES + node.key().len() + node.value().map_or(0, <[u8]>::len);
    own + node.children().iter().map(node_bytes).sum::<usize>()
}

fn write_node<N: Node>(out: &mut Vec<u8>, node: &N, now: ClusterTime) {
    let mut object = Object::open(out);
    if node.key() != b"/" {
        write_string(object.field(b"\"key\":"), node.key());
    }
    if let Some(value) = node.value() {
        write_string(object.field(b"\"value\":"), value);
    }
    if node.is_directory() {
        object.field(b"\"dir\":true");
    }
    if let Some(expiration) = node.expiration() {
        // Writing to a Vec cannot fail.
        let _ = write!(object.field(b"\"expiration\":"), "\"{expiration}\"");
    }
    let ttl_seconds = node.deadline().map_or(0, |end| end.ms_since(now).div_ceil(1_000));
    object.number(b"\"ttl\":", ttl_seconds);
    if let Some((first, others)) = node.children().split_first() {
        let out = object.field(b"\"nodes\":[");
        write_node(out, first, now);
        for child in others {
            out.push(b',');
            write_node(out, child, now);
        }
        out.push(b']');
    }
    object.number(b"\"modifiedIndex\":", node.modified_index().0);
    object.number(b"\"createdIndex\":", node.created_index().0);
    object.close();
}

/// An object being written: puts the commas.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    /// Begins a field; the value is written to what it returns.
    fn field(&mut self, name: &[u8]) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
        self.out.extend_from_slice(name);
        self.out
    }

    /// A number that is left out when 0.
    fn number(&mut self, name: &[u8], value: u64) {
        if value != 0 {
            write_number(self.field(name), value);
        }
    }

    fn close(self) {
        self.out.push(b'}');
    }
}

fn write_number(out: &mut Vec<u8>, mut value: u64) {
    const DIGITS_MAX: usize = 20;
    let mut digits = [0_u8; DIGITS_MAX];
    let mut count = 0;
    for digit in digits.iter_mut().rev() {
        let last = (value % 10) as u8;
        *digit = b'0' + last;
        value /= 10;
        count += 1;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[DIGITS_MAX - count..]);
}

/// Appends a JSON string as Go does.
pub fn write_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    if bytes.iter().all(|byte| PLAIN[*byte as usize]) {
        out.extend_from_slice(bytes);
    } else {
        for chunk in bytes.utf8_chunks() {
            write_text(out, chunk.valid());
            // Go replaces every byte it cannot decode, not every run of them.
            chunk.invalid().iter().for_each(|_| out.extend_from_slice(b"\\ufffd"));
        }
    }
    out.push(b'"');
}

/// ASCII that stands for itself in a string.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0x20;
    while byte < 0x80 {
        plain[byte] = true;
        byte += 1;
    }
    let special = *b"\"\\<>&";
    let mut at = 0;
    while at < special.len() {
        plain[special[at] as usize] = false;
        at += 1;
    }
    plain
};

fn write_text(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut done = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let escaped: &[u8] = match byte {
            _ if PLAIN[*byte as usize] => continue,
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            // U+2028 and U+2029, which end a line in JavaScript, are E2 80 A8 and E2 80 A9.
            0xe2 if bytes[at..].starts_with(b"\xe2\x80\xa8") => b"\\u2028",
            0xe2 if bytes[at..].starts_with(b"\xe2\x80\xa9") => b"\\u2029",
            0x80.. => continue,
            _ => b"",
        };
        out.extend_from_slice(&bytes[done..at]);
        if escaped.is_empty() {
            let _ = write!(out, "\\u{byte:04x}");
        }
        out.extend_from_slice(escaped);
        done = at + if *byte == 0xe2 { 3 } else { 1 };
    }
    out.extend_from_slice(&bytes[done..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Shown {
        key: &'static str,
        value: Option<&'static str>,
        dir: bool,
        deadline: Option<u64>,
        children: Vec<Shown>,
        modified: u64,
        created: u64,
    }

    impl Node for Shown {
        fn key(&self) -> &[u8] {
            self.key.as_bytes()
        }
        fn value(&self) -> Option<&[u8]> {
            self.value.map(str::as_bytes)
        }
        fn is_directory(&self) -> bool {
            self.dir
        }
        fn deadline(&self) -> Option<ClusterTime> {
            self.deadline.map(ClusterTime)
        }
        fn expiration(&self) -> Option<WallTime> {
            self.deadline.map(|ms| WallTime(ms * 1_000_000))
        }
        fn children(&self) -> &[Self] {
            &self.children
        }
        fn modified_index(&self) -> Revision {
            Revision(self.modified)
        }
        fn created_index(&self) -> Revision {
            Revision(self.created)
        }
    }

    fn event(action: &str, node: &Shown, previous: Option<&Shown>, now: u64) -> String {
        let mut out = Vec::new();
        write_event(&mut out, action, node, previous, ClusterTime(now));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn events_are_gos_bytes() {
        let before =
            Shown { key: "/a", value: Some(""), modified: 4, created: 4, ..Shown::default() };
        let after = Shown { modified: 5, created: 4, key: "/a", ..Shown::default() };
        assert_eq!(
            event("delete", &after, Some(&before), 0),
            "{\"action\":\"delete\",\"node\":{\"key\":\"/a\",\"modifiedIndex\":5,\
             \"createdIndex\":4},\"prevNode\":{\"key\":\"/a\",\"value\":\"\",\
             \"modifiedIndex\":4,\"createdIndex\":4}}\n"
        );
    }

    #[test]
    fn a_listing_nests_and_the_root_has_no_key() {
        let file = Shown {
            key: "/d/f",
            value: Some("x"),
            deadline: Some(10_001),
            modified: 7,
            created: 7,
            ..Shown::default()
        };
        let hidden = Shown { key: "/e", dir: true, modified: 8, created: 8, ..Shown::default() };
        let dir = Shown {
            key: "/d",
            dir: true,
            children: vec![file],
            modified: 6,
            created: 6,
            ..Shown::default()
        };
        let root = Shown { key: "/", dir: true, children: vec![dir, hidden], ..Shown::default() };
        assert_eq!(
            event("get", &root, None, 5_000),
            "{\"action\":\"get\",\"node\":{\"dir\":true,\"nodes\":[{\"key\":\"/d\",\"dir\":true,\
             \"nodes\":[{\"key\":\"/d/f\",\"value\":\"x\",\
             \"expiration\":\"1970-01-01T00:00:10.001Z\",\"ttl\":6,\"modifiedIndex\":7,\
             \"createdIndex\":7}],\"modifiedIndex\":6,\"createdIndex\":6},{\"key\":\"/e\",\
             \"dir\":true,\"modifiedIndex\":8,\"createdIndex\":8}]}}\n"
        );
        let empty_root = Shown { key: "/", dir: true, ..Shown::default() };
        assert_eq!(
            event("get", &empty_root, None, 0),
            "{\"action\":\"get\",\"node\":{\"dir\":true}}\n"
        );
    }

    #[test]
    fn ttl_is_the_ceiling_and_zero_is_left_out() {
        for (now, shown) in [(0, "\"ttl\":2,"), (1, "\"ttl\":2,"), (1_000, "\"ttl\":1,")] {
            let node = Shown { key: "/t", deadline: Some(2_000), ..Shown::default() };
            let text = event("get", &node, None, now).replace('}', ",}");
            assert!(text.contains(shown), "{now}: {text}");
        }
        let node = Shown { key: "/t", deadline: Some(2_000), ..Shown::default() };
        for now in [2_000, 9_000] {
            let text = event("get", &node, None, now);
            assert!(text.contains("expiration") && !text.contains("ttl"), "{text}");
        }
    }

    #[test]
    fn strings_escape_as_gos_do() {
        let cases: [(&[u8], &str); 11] = [
            (b"plain /text~\x7f", "\"plain /text~\x7f\""),
            (b"<tag>&\"\\", r#""\u003ctag\u003e\u0026\"\\""#),
            (b"a\nb\rc\td", r#""a\nb\rc\td""#),
            (b"\0\x08\x0c\x1f", r#""\u0000\u0008\u000c\u001f""#),
            ("\u{2028}x\u{2029}\u{2030}".as_bytes(), "\"\\u2028x\\u2029\u{2030}\""),
            ("ü€𐍈".as_bytes(), "\"ü€𐍈\""),
            (b"a\xffb\xc3", r#""a\ufffdb\ufffd""#),
            (b"\xe2\x82", r#""\ufffd\ufffd""#),
            (b"\xed\xa0\x80", r#""\ufffd\ufffd\ufffd""#),
            (b"", "\"\""),
            ("\u{2028}".as_bytes(), "\"\\u2028\""),
        ];
        for (bytes, text) in cases {
            let mut out = Vec::new();
            write_string(&mut out, bytes);
            assert_eq!(String::from_utf8(out).unwrap(), text, "{bytes:?}");
        }
    }

    #[test]
    fn numbers_have_all_their_digits() {
        for value in [0, 7, 10, 1_234_567_890, u64::MAX] {
            let mut out = Vec::new();
            write_number(&mut out, value);
            assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
        }
    }

    #[test]
    fn errors_leave_out_an_empty_cause() {
        let mut out = Vec::new();
        let error = ErrorBody {
            code: 101,
            message: "Compare failed",
            cause: b"[9 != 3]",
            index: Revision(3),
        };
        write_error(&mut out, error);
        write_error(&mut out, ErrorBody { cause: b"", ..error });
        write_action(&mut out, "set");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"errorCode\":101,\"message\":\"Compare failed\",\"cause\":\"[9 != 3]\",\
             \"index\":3}\n{\"errorCode\":101,\"message\":\"Compare failed\",\"index\":3}\n\
             {\"action\":\"set\"}\n"
        );
    }
}
