//! The filters of templates beyond Tera's own.
//!
//! `from_json`, `to_json(pretty=)`, `base`, `dir`, `natsort`, `b64encode`, `b64decode`,
//! `env_quote` (systemd's `EnvironmentFile`), `shell_quote`, `multiline`, and the validators
//! `host`, `port`, `ip`, `ident`, which pass their input on or fail.
//!
//! Invariants:
//! * Only `multiline`, and the line breaks `to_json(pretty=true)` puts between its own tokens,
//!   mark a text as free of the line guard. Tera's `safe` is taken away; its `escape`, `replace`,
//!   `indent` and `join` run stored text through the guard before they mark it.
//! * JSON comes out with sorted keys and without raw control characters or line separators.
//!
//! Deliberately not here: filters that depend on the clock or on chance.
//!
//! Sources: systemd.exec(5) on EnvironmentFile, RFC 4648, RFC 8259, RFC 1123 section 2.1.

use crate::render::engine::functions::{Shared, fail, parse_json, with};
use crate::render::guard;
use crate::sys::exec::shell_quote;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, PAD};
use std::borrow::Cow;
use tera::{Error, Kwargs, State, Tera, TeraResult, Value};

/// Registers all filters, and takes `safe` away.
pub(crate) fn register(tera: &mut Tera, shared: &Shared) {
    let s = shared.clone();
    tera.register_filter("from_json", move |text: &str, _: Kwargs, _: &State| from_json(&s, text));
    let s = shared.clone();
    tera.register_filter("multiline", move |text: Cow<'_, str>, _: Kwargs, _: &State| {
        multiline(&s, &text)
    });
    tera.register_filter("to_json", |value: &Value, args: Kwargs, _: &State| to_json(value, &args));
    tera.register_filter("base", |path: &str, _: Kwargs, _: &State| base(path).to_owned());
    tera.register_filter("dir", |path: &str, _: Kwargs, _: &State| dir(path));
    tera.register_filter("natsort", natsort);
    tera.register_filter("b64encode", |text: &str, _: Kwargs, _: &State| BASE64.encode(text));
    tera.register_filter("b64decode", b64decode);
    tera.register_filter("env_quote", |text: Cow<'_, str>, _: Kwargs, _: &State| env_quote(&text));
    tera.register_filter("shell_quote", |text: Cow<'_, str>, _: Kwargs, _: &State| {
        shell_quote(&text)
    });
    register_validators(tera);
    tera.register_filter("safe", |_: &Value, _: Kwargs, _: &State| -> TeraResult<Value> {
        Err(Error::message(
            "there is no `safe` here: nothing is escaped; for several lines use `| multiline`",
        ))
    });
}

fn register_validators(tera: &mut Tera) {
    tera.register_filter("host", |text: Cow<'_, str>, _: Kwargs, _: &State| {
        valid(&text, is_host(&text), "a host name or IP address")
    });
    tera.register_filter("ip", |text: Cow<'_, str>, _: Kwargs, _: &State| {
        valid(&text, text.parse::<std::net::IpAddr>().is_ok(), "an IP address")
    });
    tera.register_filter("ident", |text: Cow<'_, str>, _: Kwargs, _: &State| {
        valid(&text, is_ident(&text), "a name of letters, digits, `_`, `-` and `.`")
    });
    tera.register_filter("port", |value: Value, _: Kwargs, _: &State| {
        let text = value.to_string();
        let good = text.parse::<u16>().is_ok_and(|port| port > 0);
        valid(&text, good, "a port from 1 to 65535").map(|_| value)
    });
}

fn valid(text: &str, good: bool, wanted: &str) -> TeraResult<Value> {
    if good {
        return Ok(Value::from(text));
    }
    Err(Error::message(format!("`{}` is not {wanted}", text.escape_debug())))
}

fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=63).contains(&label.len())
            && label.chars().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    text.parse::<std::net::IpAddr>().is_ok() || (name.len() <= 253 && name.split('.').all(label))
}

fn is_ident(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    !text.is_empty() && text.chars().all(inner)
}

fn from_json(shared: &Shared, text: &str) -> TeraResult<Value> {
    parse_json(text).map_err(|error| {
        blame(shared, text, "look at the value of the key", format!("not valid JSON: {error}"))
    })
}

/// The error about a text, and about the key whose value it is.
fn blame(shared: &Shared, text: &str, help: &str, message: String) -> Error {
    let outcome = with(shared, |session| {
        let key = session.view.names_where(|value| value == text.as_bytes()).into_iter().next();
        Ok(fail(session, key.as_deref(), help, message))
    });
    outcome.unwrap_or_else(|error| error)
}

fn multiline(shared: &Shared, text: &str) -> TeraResult<Value> {
    let Err(hostile) = guard::check_multiline(text) else {
        return Ok(Value::safe_string(text));
    };
    let message = format!("the text contains {hostile}, which `multiline` does not allow");
    Err(blame(shared, text, "only line breaks and tabs may pass", message))
}

fn to_json(value: &Value, args: &Kwargs) -> TeraResult<Value> {
    let pretty: bool = args.get("pretty")?.unwrap_or_default();
    let wrong = |error: serde_json::Error| Error::message(format!("cannot write JSON: {error}"));
    let mut json = serde_json::to_value(value).map_err(wrong)?;
    json.sort_all_objects();
    if !pretty {
        return Ok(Value::from(escape_separators(&json.to_string())));
    }
    let text = serde_json::to_string_pretty(&json).map_err(wrong)?;
    // The only control characters left are the line feeds serde_json put between tokens.
    Ok(Value::safe_string(&escape_separators(&text)))
}

/// JSON escapes C0 only; the rest of what the line guard refuses is written as `\uXXXX` too.
fn escape_separators(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\n' => out.push(c),
            c if guard::check_line(c.encode_utf8(&mut [0; 4])).is_err() => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out
}

/// Go's `path.Base`.
fn base(path: &str) -> &str {
    match path.trim_end_matches('/').rsplit('/').next() {
        Some(name) if !name.is_empty() => name,
        _ if path.is_empty() => ".",
        _ => "/",
    }
}

/// Go's `path.Dir` for clean paths: what is before the last slash.
fn dir(path: &str) -> String {
    match path.rsplit_once('/') {
        None => ".".to_owned(),
        Some((head, _)) if head.trim_end_matches('/').is_empty() => "/".to_owned(),
        Some((head, _)) => head.trim_end_matches('/').to_owned(),
    }
}

/// Sorts texts so that runs of digits compare as numbers: `web2` before `web10`.
fn natsort(list: &[Value], _: Kwargs, _: &State) -> Vec<Value> {
    let mut list = list.to_vec();
    list.sort_by_cached_key(|value| natural_key(&value.to_string()));
    list
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Run {
    /// Digits without leading zeros, by length first: numbers of any size.
    Number(usize, String),
    Text(String),
}

fn natural_key(text: &str) -> (Vec<Run>, String) {
    let mut runs = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let digits = first.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(rest.len());
        let (run, tail) = rest.split_at(end);
        let number = run.trim_start_matches('0');
        runs.push(if digits {
            Run::Number(number.len(), number.to_owned())
        } else {
            Run::Text(run.to_owned())
        });
        rest = tail;
    }
    (runs, text.to_owned())
}

/// Quotes for systemd's `EnvironmentFile` and for a POSIX shell alike.
fn env_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '`' | '$') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// As Go does it: padded, and bits behind the last byte are not looked at.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, PAD.with_decode_allow_trailing_bits(true));

/// Line breaks inside are skipped, as in Go.
fn b64decode(text: &str, _: Kwargs, _: &State) -> TeraResult<String> {
    let letters: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    let bytes = BASE64.decode(letters).map_err(|_| Error::message("not valid base64"))?;
    String::from_utf8(bytes).map_err(|_| Error::message("the decoded base64 is not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_split_as_in_go() {
        for (path, b, d) in [
            ("", ".", "."),
            ("/", "/", "/"),
            ("/a", "a", "/"),
            ("/a/b", "b", "/a"),
            ("a", "a", "."),
            ("/a/b/", "b", "/a/b"),
        ] {
            assert_eq!((base(path), dir(path).as_str()), (b, d), "{path}");
        }
    }

    #[test]
    fn quoting_and_sorting() {
        assert_eq!(env_quote(r#"$5 `now` "a" \"#), r#""\$5 \`now\` \"a\" \\""#);
        let mut names = ["web10", "web2", "web02", "a", "web"];
        names.sort_by_cached_key(|name| natural_key(name));
        assert_eq!(names, ["a", "web", "web02", "web2", "web10"]);
        assert_eq!(escape_separators("\"a\u{7f}\u{2028}é\"\n"), "\"a\\u007f\\u2028é\"\n");
    }

    #[test]
    fn validators_know_their_kind() {
        for good in ["web1", "a.example.test", "10.0.0.1", "fd00::1", "x.", "_srv.a"] {
            assert!(is_host(good), "{good}");
        }
        for bad in ["", "a b", "-a", "a-", "a..b", "a\nb", "ü"] {
            assert!(!is_host(bad), "{bad}");
        }
        assert!(is_ident("a-b_c.1") && !is_ident("") && !is_ident("a/b") && !is_ident("a b"));
    }
}
