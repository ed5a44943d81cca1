//! What a v2 request asks, read as Go reads a form and checked as etcd checks it.
//!
//! A request's words come twice: in the query and, for PUT and POST, in a form-encoded body. The
//! body's come first and the first of a name counts, so `Parameters::parse` walks the body, then
//! the query, keeps the first value of each known name and only then looks at the values, in
//! etcd's order. A value without escapes is a slice of the body: nothing is copied.
//!
//! Invariants:
//! * Every name is checked on every method, before anybody looks at the key.
//! * The first thing wrong, in etcd's order, is what the client is told.
//!
//! Deliberately not here: which names together make which command (the door knows).
//!
//! Sources: Go's `net/url` (`ParseQuery`, `unescape`), `net/http` (`parsePostForm`), `mime`
//! (`ParseMediaType`), and etcd's `parseKeyRequest` (`etcdserver/api/v2http/client.go`).

use crate::base::{Ttl, limits};
use bytes::Bytes;
use std::borrow::Cow;

/// A request that cannot be meant: etcd's number and what exactly is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct BadForm {
    /// etcd's v2 error code.
    pub code: u16,
    /// For the user.
    pub cause: String,
}

impl BadForm {
    /// The request's body or query cannot be read (210).
    #[must_use]
    pub fn unreadable(cause: impl Into<String>) -> Self {
        Self { code: 210, cause: cause.into() }
    }

    fn quoted(code: u16, name: &str) -> Self {
        Self { code, cause: format!("invalid value for \"{name}\"") }
    }

    fn field(cause: impl Into<String>) -> Self {
        Self { code: 209, cause: cause.into() }
    }

    /// etcd's words for the code.
    #[must_use]
    pub fn message(&self) -> &'static str {
        match self.code {
            201 => "PrevValue is Required in POST form",
            202 => "The given TTL in POST form is not a number",
            203 => "The given index in POST form is not a number",
            209 => "Invalid field",
            211 => "Value provided on refresh",
            212 => "A TTL must be provided on refresh",
            _ => "Invalid POST form",
        }
    }
}

/// The words of a v2 keys request, each valid by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// The modifiedIndex the node must have; 0 = any.
    pub prev_index: u64,
    /// The first index a watch wants; 0 = from now on.
    pub wait_index: u64,
    /// List or delete everything below.
    pub recursive: bool,
    /// List in order.
    pub sorted: bool,
    /// Watch instead of read.
    pub wait: bool,
    /// The node is meant to be a directory.
    pub dir: bool,
    /// Read at the quorum; `None` = not said.
    pub quorum: Option<bool>,
    /// A watch goes on after its first event.
    pub stream: bool,
    /// The value the node must have; never empty.
    pub prev_value: Option<Bytes>,
    /// Answer with the action alone.
    pub no_value_on_success: bool,
    /// Time to live.
    pub ttl: Option<Ttl>,
    /// Whether the node must exist, or must not.
    pub prev_exist: Option<bool>,
    /// Keep the value, replace the TTL, tell no watcher.
    pub refresh: bool,
    /// What to store; "" when not given.
    pub value: Bytes,
}

/// The names etcd knows, in the order it checks them; `value` is never wrong.
const NAMES: [&str; 14] = [
    "prevIndex",
    "waitIndex",
    "recursive",
    "sorted",
    "wait",
    "dir",
    "quorum",
    "stream",
    "prevValue",
    "noValueOnSuccess",
    "ttl",
    "prevExist",
    "refresh",
    "value",
];

/// The first value of each known name.
#[derive(Default)]
struct Given<'a>([Option<Cow<'a, [u8]>>; NAMES.len()]);

impl Parameters {
    /// Reads and checks a request's words. `body` is empty unless it is a form (see
    /// `is_form`); `is_get` allows `wait`.
    ///
    /// # Errors
    /// The first thing wrong, in etcd's order.
    pub fn parse(query: &[u8], body: &Bytes, is_get: bool) -> Result<Self, BadForm> {
        if query.is_empty() && body.is_empty() {
            return Ok(Self::default());
        }
        let mut given = Given::default();
        given.read(body)?;
        given.read(query)?;
        given.check(body, is_get)
    }
}

impl<'a> Given<'a> {
    /// Takes the words of one source, whose later values of a name do not count. Go goes on behind
    /// what is wrong, and then tells of the first bad escape unless there is a semicolon anywhere.
    fn read(&mut self, source: &'a [u8]) -> Result<(), BadForm> {
        if source.contains(&b';') {
            return Err(BadForm::unreadable("invalid semicolon separator in query"));
        }
        for piece in source.split(|byte| *byte == b'&') {
            if piece.is_empty() {
                continue;
            }
            let (name, value) = match piece.iter().position(|byte| *byte == b'=') {
                Some(at) => (&piece[..at], &piece[at + 1..]),
                None => (piece, &piece[..0]),
            };
            let (name, value) = (unescape(name, true)?, unescape(value, true)?);
            let known = NAMES.iter().position(|known| known.as_bytes() == &*name);
            if let Some(slot) = known.and_then(|at| self.0.get_mut(at)) {
                slot.get_or_insert(value);
            }
        }
        Ok(())
    }

    fn check(mut self, body: &Bytes, is_get: bool) -> Result<Parameters, BadForm> {
        let prev_index = self.index("prevIndex")?;
        let wait_index = self.index("waitIndex")?;
        let recursive = self.switch("recursive")?;
        let sorted = self.switch("sorted")?;
        let wait = self.switch("wait")?;
        let dir = self.switch("dir")?;
        let quorum = self.switch("quorum")?;
        let stream = self.switch("stream")?;
        if wait == Some(true) && !is_get {
            return Err(BadForm::field("\"wait\" can only be used with GET requests"));
        }
        let prev_value = self.take("prevValue").map(|value| to_bytes(body, value));
        if prev_value.as_ref().is_some_and(Bytes::is_empty) {
            return Err(BadForm { code: 201, cause: "\"prevValue\" cannot be empty".into() });
        }
        let no_value_on_success = self.switch("noValueOnSuccess")?;
        let ttl = self.ttl()?;
        let prev_exist = self.switch("prevExist").map_err(|_| bare("prevExist"))?;
        let refresh = self.switch("refresh").map_err(|_| bare("refresh"))?.unwrap_or(false);
        let value = self.take("value").map_or_else(Bytes::new, |value| to_bytes(body, value));
        if refresh && !value.is_empty() {
            let cause = "A value was provided on a refresh".into();
            return Err(BadForm { code: 211, cause });
        }
        if refresh && ttl.is_none() {
            return Err(BadForm { code: 212, cause: "No TTL value set".into() });
        }
        Ok(Parameters {
            prev_index: prev_index.unwrap_or(0),
            wait_index: wait_index.unwrap_or(0),
            recursive: recursive.unwrap_or(false),
            sorted: sorted.unwrap_or(false),
            wait: wait.unwrap_or(false),
            dir: dir.unwrap_or(false),
            quorum,
            stream: stream.unwrap_or(false),
            prev_value,
            no_value_on_success: no_value_on_success.unwrap_or(false),
            ttl,
            prev_exist,
            refresh,
            value,
        })
    }

    fn take(&mut self, name: &str) -> Option<Cow<'a, [u8]>> {
        let at = NAMES.iter().position(|known| *known == name)?;
        self.0.get_mut(at)?.take()
    }

    fn index(&mut self, name: &str) -> Result<Option<u64>, BadForm> {
        let parse = |text: Cow<'_, [u8]>| number(&text).ok_or(BadForm::quoted(203, name));
        self.take(name).map(parse).transpose()
    }

    fn switch(&mut self, name: &str) -> Result<Option<bool>, BadForm> {
        let parse = |text: Cow<'_, [u8]>| match &*text {
            b"1" | b"t" | b"T" | b"TRUE" | b"true" | b"True" => Ok(true),
            b"0" | b"f" | b"F" | b"FALSE" | b"false" | b"False" => Ok(false),
            _ => Err(BadForm::quoted(209, name)),
        };
        self.take(name).map(parse).transpose()
    }

    /// An empty `ttl` counts as none. A huge one is refused: etcd overflows to "for ever".
    fn ttl(&mut self) -> Result<Option<Ttl>, BadForm> {
        let Some(text) = self.take("ttl").filter(|text| !text.is_empty()) else { return Ok(None) };
        let seconds = number(&text).ok_or(BadForm::quoted(202, "ttl"))?;
        let too_long = || BadForm {
            code: 202,
            cause: format!(
                "invalid value for \"ttl\": {seconds} seconds, at most {} are allowed",
                limits::TTL_SECONDS_MAX
            ),
        };
        Ttl::from_seconds(seconds).ok_or_else(too_long).map(Some)
    }
}

/// etcd leaves the quotes out for two of the names.
fn bare(name: &str) -> BadForm {
    BadForm::field(format!("invalid value for {name}"))
}

/// Go's `ParseUint(text, 10, 64)`: digits only.
fn number(text: &[u8]) -> Option<u64> {
    let digits_only = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits_only.then(|| std::str::from_utf8(text).ok()?.parse().ok())?
}

/// Bytes of a value: a slice of the body where it stands there unescaped.
fn to_bytes(body: &Bytes, value: Cow<'_, [u8]>) -> Bytes {
    match value {
        Cow::Owned(value) => value.into(),
        Cow::Borrowed(value) if body.as_ptr_range().contains(&value.as_ptr()) => {
            body.slice_ref(value)
        }
        Cow::Borrowed(value) => Bytes::copy_from_slice(value),
    }
}

/// Undoes percent-encoding; `plus_is_space` in forms and queries, not in paths.
///
/// # Errors
/// For an escape that is none, in Go's words.
pub fn unescape(text: &[u8], plus_is_space: bool) -> Result<Cow<'_, [u8]>, BadForm> {
    let special = |byte: &u8| *byte == b'%' || (plus_is_space && *byte == b'+');
    let Some(first) = text.iter().position(special) else { return Ok(Cow::Borrowed(text)) };
    let mut decoded = Vec::with_capacity(text.len());
    decoded.extend_from_slice(&text[..first]);
    let mut rest = &text[first..];
    while let [byte, after @ ..] = rest {
        rest = after;
        match byte {
            b'+' if plus_is_space => decoded.push(b' '),
            b'%' => {
                let escape = after.split_first_chunk::<2>();
                let Some((&[high, low], after)) = escape else { return Err(bad_escape(after)) };
                let (Some(high), Some(low)) = (hex(high), hex(low)) else {
                    return Err(bad_escape(&[high, low]));
                };
                decoded.push(high << 4 | low);
                rest = after;
            }
            other => decoded.push(*other),
        }
    }
    Ok(Cow::Owned(decoded))
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// `after` are the at most two bytes behind the percent sign.
fn bad_escape(after: &[u8]) -> BadForm {
    let mut shown = String::new();
    for chunk in after.utf8_chunks() {
        chunk.valid().chars().for_each(|character| quote(&mut shown, character));
        chunk.invalid().iter().for_each(|byte| shown += &format!("\\x{byte:02x}"));
    }
    BadForm::unreadable(format!("invalid URL escape \"%{shown}\""))
}

/// Appends a character as Go's `strconv.Quote` does, of those that two bytes can hold.
fn quote(out: &mut String, character: char) {
    const SOFT_HYPHEN: char = '\u{ad}';
    match character {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0b' => out.push_str("\\v"),
        '\x0c' => out.push_str("\\f"),
        '\t' | '\n' | '\r' => out.extend(character.escape_default()),
        ' '..='~' => out.push(character),
        '\0'..='\x7f' => out.push_str(&format!("\\x{:02x}", u32::from(character))),
        '\u{80}'..='\u{a0}' | SOFT_HYPHEN => {
            out.push_str(&format!("\\u{:04x}", u32::from(character)));
        }
        _ => out.push(character),
    }
}

/// Whether a body of this content type is a form. Go's rules: no type, or another one, and the
/// body is ignored without a word.
///
/// # Errors
/// For a content type that cannot be read.
pub fn is_form(content_type: Option<&[u8]>) -> Result<bool, BadForm> {
    const FORM: &[u8] = b"application/x-www-form-urlencoded";
    let Some(text) = content_type.filter(|text| !text.is_empty()) else { return Ok(false) };
    if text.eq_ignore_ascii_case(FORM) {
        return Ok(true);
    }
    let base_end = text.iter().position(|byte| *byte == b';').unwrap_or(text.len());
    let (base, mut rest) = text.split_at(base_end);
    let base = base.trim_ascii();
    check_media_type(base)?;
    let mut names: Vec<&[u8]> = Vec::new();
    while let [b';', after @ ..] = rest.trim_ascii_start() {
        if after.trim_ascii().is_empty() {
            rest = b"";
            break;
        }
        let bad = || BadForm::unreadable("mime: invalid media parameter");
        let (name, behind) = media_parameter(after).ok_or_else(bad)?;
        if names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            return Err(BadForm::unreadable("mime: duplicate parameter name"));
        }
        names.push(name);
        rest = behind;
    }
    if !rest.trim_ascii().is_empty() {
        return Err(BadForm::unreadable("mime: invalid media parameter"));
    }
    Ok(base.eq_ignore_ascii_case(FORM))
}

fn check_media_type(text: &[u8]) -> Result<(), BadForm> {
    let (kind, rest) = token(text);
    let cause = match rest {
        _ if kind.is_empty() => "mime: no media type",
        [] => return Ok(()),
        [b'/', subtype @ ..] => match token(subtype) {
            ([], _) => "mime: expected token after slash",
            (_, []) => return Ok(()),
            _ => "mime: unexpected content after media subtype",
        },
        _ => "mime: expected slash after first token",
    };
    Err(BadForm::unreadable(cause))
}

/// Takes `name=value` or `name="value"`; gives the name and what follows.
fn media_parameter(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, rest) = token(text.trim_ascii_start());
    let value = rest.trim_ascii_start().strip_prefix(b"=").filter(|_| !name.is_empty())?;
    let value = value.trim_ascii_start();
    let Some(quoted) = value.strip_prefix(b"\"") else {
        let (value, rest) = token(value);
        return (!value.is_empty()).then_some((name, rest));
    };
    let mut escaped = false;
    let end = quoted.iter().position(|byte| match byte {
        _ if std::mem::take(&mut escaped) => false,
        b'\\' => {
            escaped = true;
            false
        }
        byte => *byte == b'"',
    })?;
    Some((name, quoted.get(end + 1..)?))
}

/// Splits an RFC 2045 token off.
fn token(text: &[u8]) -> (&[u8], &[u8]) {
    let in_token = |byte: &u8| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(byte);
    let end = text.iter().position(|byte| !in_token(byte)).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str, body: &str) -> Result<Parameters, (u16, String)> {
        let body = Bytes::copy_from_slice(body.as_bytes());
        Parameters::parse(query.as_bytes(), &body, false).map_err(|bad| (bad.code, bad.cause))
    }

    fn refused(query: &str) -> (u16, String) {
        parse(query, "").unwrap_err()
    }

    #[test]
    fn the_body_comes_first_and_the_first_value_counts() {
        let value = |query, body| parse(query, body).unwrap().value;
        assert_eq!(value("value=query", "value=body"), "body");
        assert_eq!(value("value=q1&value=q2", ""), "q1");
        assert_eq!(value("", "value=one&value=two"), "one");
        assert_eq!(value("", "&&value=2&&"), "2");
        assert_eq!(value("", "value"), "");
        assert_eq!(value("", "v%61lue=a+b%20%26"), "a b &");
        assert_eq!(value("", "Value=x&foo=bar"), "");
        assert_eq!(value("", "value=a=b"), "a=b");
        let hidden = parse("ttl=50&recursive=bad", "ttl=&recursive=t").unwrap();
        assert_eq!((hidden.ttl, hidden.recursive), (None, true));
    }

    #[test]
    fn an_unescaped_value_is_not_copied() {
        let body = Bytes::from_static(b"ttl=5&value=payload");
        let value = Parameters::parse(b"", &body, false).unwrap().value;
        assert_eq!(value.as_ptr(), body[12..].as_ptr());
        let (query, none) = (b"value=payload", Bytes::new());
        assert_eq!(Parameters::parse(query, &none, false).unwrap().value, "payload");
    }

    #[test]
    fn unreadable_forms_are_210_in_gos_words() {
        let cases = [
            ("recursive=%zz", "invalid URL escape \"%zz\""),
            ("%", "invalid URL escape \"%\""),
            ("x=%1", "invalid URL escape \"%1\""),
            ("x=%1&y=;", "invalid semicolon separator in query"),
            ("x=%1&y=%2", "invalid URL escape \"%1\""),
            ("x=%'b", "invalid URL escape \"%'b\""),
            ("x=%\"\\", "invalid URL escape \"%\\\"\\\\\""),
            ("x=%\t\x01", "invalid URL escape \"%\\t\\x01\""),
            ("x=%ü", "invalid URL escape \"%ü\""),
            ("x=%\u{a0}", "invalid URL escape \"%\\u00a0\""),
            ("x=%€", "invalid URL escape \"%\\xe2\\x82\""),
            ("a=1;b=2", "invalid semicolon separator in query"),
            ("recursive;=true&sorted;=false", "invalid semicolon separator in query"),
        ];
        for (query, cause) in cases {
            assert_eq!(refused(query), (210, cause.to_owned()), "{query}");
        }
        assert_eq!(parse("%", "value=a;b").unwrap_err().1, "invalid semicolon separator in query");
        assert_eq!(parse("", "value=a%3Bb").unwrap().value, "a;b");
    }

    #[test]
    fn numbers_are_digits_only() {
        for name in ["prevIndex", "waitIndex"] {
            for bad in ["+1", "%201", "0x1", "", "18446744073709551616", "-1", "1.5", "abc"] {
                let cause = format!("invalid value for \"{name}\"");
                assert_eq!(refused(&format!("{name}={bad}")), (203, cause), "{bad}");
            }
        }
        let good = parse("prevIndex=007&waitIndex=18446744073709551615", "").unwrap();
        assert_eq!((good.prev_index, good.wait_index), (7, u64::MAX));
        assert_eq!(refused("ttl=x"), (202, "invalid value for \"ttl\"".into()));
        assert_eq!(refused("ttl=-1").0, 202);
        assert_eq!(refused("ttl=9223372037").0, 202);
        assert_eq!(parse("ttl=0", "").unwrap().ttl, Ttl::from_seconds(0));
        assert_eq!(parse("ttl=", "").unwrap().ttl, None);
    }

    #[test]
    fn switches_are_gos_booleans() {
        let names = ["recursive", "sorted", "dir", "quorum", "stream", "noValueOnSuccess", "wait"];
        for name in names {
            for bad in ["", "yes", "2", "on", "tRUE"] {
                let cause = format!("invalid value for \"{name}\"");
                assert_eq!(refused(&format!("{name}={bad}")), (209, cause), "{bad}");
            }
        }
        for (text, value) in [("1", true), ("T", true), ("True", true), ("F", false), ("0", false)]
        {
            assert_eq!(parse(&format!("quorum={text}"), "").unwrap().quorum, Some(value));
        }
        assert_eq!(refused("prevExist=zz"), (209, "invalid value for prevExist".into()));
        assert_eq!(refused("refresh="), (209, "invalid value for refresh".into()));
    }

    #[test]
    fn wait_is_for_get_alone() {
        let cause = "\"wait\" can only be used with GET requests".to_owned();
        assert_eq!(refused("wait=true"), (209, cause));
        assert!(!parse("wait=false", "").unwrap().wait);
        assert!(Parameters::parse(b"wait=true", &Bytes::new(), true).unwrap().wait);
    }

    #[test]
    fn refresh_wants_a_ttl_and_no_value() {
        assert_eq!(refused("refresh=true"), (212, "No TTL value set".into()));
        assert_eq!(refused("refresh=true&ttl="), (212, "No TTL value set".into()));
        let cause = "A value was provided on a refresh".to_owned();
        assert_eq!(refused("refresh=true&value=x"), (211, cause));
        assert!(parse("refresh=true&value=&ttl=4", "").unwrap().refresh);
        assert!(!parse("refresh=false&value=x", "").unwrap().refresh);
        assert_eq!(refused("prevValue="), (201, "\"prevValue\" cannot be empty".into()));
    }

    /// Each query is wrong in two places; the earlier in etcd's order is reported.
    #[test]
    fn the_order_is_etcds() {
        let order = [
            "prevIndex=x",
            "waitIndex=x",
            "recursive=x",
            "sorted=x",
            "wait=x",
            "dir=x",
            "quorum=x",
            "stream=x",
            "prevValue=",
            "noValueOnSuccess=x",
            "ttl=x",
            "prevExist=x",
            "refresh=x",
        ];
        for pair in order.windows(2) {
            let [first, second] = pair else { continue };
            assert_eq!(refused(&format!("{second}&{first}")), refused(first));
        }
        assert_eq!(refused("prevValue=&wait=true").0, 209);
    }

    #[test]
    fn content_types_are_read_as_go_does() {
        let form = "application/x-www-form-urlencoded";
        let yes = [
            form.to_owned(),
            form.to_uppercase(),
            format!(" {form} ; charset=utf-8"),
            format!("{form};"),
            format!("{form}; charset=\"a\\\"b\"; x=y"),
        ];
        for text in yes {
            assert_eq!(is_form(Some(text.as_bytes())), Ok(true), "{text}");
        }
        for text in ["application/json", "text", "multipart/form-data; boundary=XX"] {
            assert_eq!(is_form(Some(text.as_bytes())), Ok(false), "{text}");
        }
        assert_eq!((is_form(None), is_form(Some(b""))), (Ok(false), Ok(false)));
        let bad = [
            (format!("{form}; charset"), "mime: invalid media parameter"),
            ("application/json; =x".into(), "mime: invalid media parameter"),
            (format!("{form}; a=b; A=c"), "mime: duplicate parameter name"),
            ("text/plain; a=b; a=b".into(), "mime: duplicate parameter name"),
            (" ".into(), "mime: no media type"),
            ("a/".into(), "mime: expected token after slash"),
            ("a b".into(), "mime: expected slash after first token"),
            ("a/b c".into(), "mime: unexpected content after media subtype"),
        ];
        for (text, cause) in bad {
            assert_eq!(is_form(Some(text.as_bytes())), Err(BadForm::unreadable(cause)), "{text}");
        }
    }

    #[test]
    fn a_plus_in_a_path_is_a_plus() {
        assert_eq!(*unescape(b"a+b%2Fc", false).unwrap(), *b"a+b/c");
        assert!(unescape(b"%zz", false).is_err());
    }
}
