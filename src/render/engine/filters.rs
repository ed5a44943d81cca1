//! The filters of templates beyond Tera's own.
//!
//! Formats (`from_json`, `from_yaml`, `to_json(pretty=)`, `to_yaml`, `to_toml`), encodings
//! (`b64encode`, `b64decode`, `sha256`), paths (`base`, `dir`), order (`natsort`), replacement
//! (`regex_replace`, and Tera's `join` and `replace` anew), quotes (`env_quote`, `shell_quote` =
//! `quote_sh`, `quote_haproxy`, `quote_nginx`), the validators `host`, `port`, `ip`, `ident`,
//! which pass their input on or fail, and `multiline`.
//!
//! Invariants:
//! * A text is marked as free of the line guard only by `multiline`; by writers of several lines,
//!   whose values stay on one; and where the template's own text (`calls`) meets text that is
//!   clean. Tera's `safe` is taken away; its `escape` and `indent` run stored text through the
//!   guard before they mark it.
//! * A filter that fails on a text names the key whose value it is, if there is one.
//!
//! Deliberately not here: filters that depend on the clock or on chance; what a format, a quote or
//! a port is (`formats`, `quote`, `valid`).
//!
//! Sources: RFC 4648; the arguments of `regex_replace` are those of tera-contrib 0.3.

use crate::base::limits;
use crate::render::engine::functions::{Shared, fail, with};
use crate::render::engine::{blame, formats, quote, valid};
use crate::render::guard;
use crate::sys::exec::shell_quote;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, PAD};
use regex::{Regex, RegexBuilder};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tera::{Error, Kwargs, State, StringInput, Tera, TeraResult, Value};

/// Registers all filters, and takes `safe` away.
pub(crate) fn register(tera: &mut Tera, shared: &Shared) {
    tera.register_filter("base", |path: &str, _: Kwargs, _: &State| base(path).to_owned());
    tera.register_filter("dir", |path: &str, _: Kwargs, _: &State| dir(path));
    tera.register_filter("natsort", natsort);
    tera.register_filter("b64encode", |text: &str, _: Kwargs, _: &State| BASE64.encode(text));
    tera.register_filter("sha256", |text: Cow<'_, str>, _: Kwargs, _: &State| sha256(&text));
    tera.register_filter("join", |list: &[Value], args: Kwargs, _: &State| join(list, &args));
    tera.register_filter("replace", |text: StringInput, args: Kwargs, _: &State| {
        replace(&text, &args)
    });
    let known = Mutex::default();
    tera.register_filter("regex_replace", move |text: StringInput, args: Kwargs, _: &State| {
        regex_replace(&known, &text, &args)
    });
    register_texts(tera, shared);
    register_writers(tera, shared);
    register_quotes(tera, shared);
    register_validators(tera, shared);
    tera.register_filter("safe", |_: &Value, _: Kwargs, _: &State| -> TeraResult<Value> {
        Err(Error::message(
            "there is no `safe` here: nothing is escaped; for several lines use `| multiline`",
        ))
    });
}

/// Filters that take a stored text apart.
fn register_texts(tera: &mut Tera, shared: &Shared) {
    let s = shared.clone();
    tera.register_filter("from_json", move |text: &str, _: Kwargs, _: &State| {
        let wrong = |error| format!("not valid JSON: {error}");
        formats::from_json(text).map_err(|error| blame(&s, text, LOOK, wrong(error)))
    });
    let s = shared.clone();
    tera.register_filter("from_yaml", move |text: &str, _: Kwargs, _: &State| {
        let wrong = |error| format!("not valid YAML: {error}");
        formats::from_yaml(text).map_err(|error| blame(&s, text, LOOK, wrong(error)))
    });
    let s = shared.clone();
    tera.register_filter("b64decode", move |text: &str, _: Kwargs, _: &State| {
        let help = "store the value as base64, or leave `b64decode` out";
        b64decode(text).map_err(|error| blame(&s, text, help, error.to_owned()))
    });
    let s = shared.clone();
    tera.register_filter("multiline", move |text: Cow<'_, str>, _: Kwargs, _: &State| {
        multiline(&s, &text)
    });
}

const LOOK: &str = "look at the value of the key";

fn register_writers(tera: &mut Tera, shared: &Shared) {
    let s = shared.clone();
    tera.register_filter("to_json", move |value: &Value, args: Kwargs, _: &State| {
        let pretty = args.get("pretty")?.unwrap_or_default();
        let text = written(&s, formats::to_json(value, pretty))?;
        // The line feeds of a pretty text are between tokens: see `formats`.
        Ok(if pretty { Value::safe_string(&text) } else { Value::from(text) })
    });
    type Writer = fn(&Value) -> TeraResult<String>;
    let mut lines = |name: &'static str, write: Writer| {
        let s = shared.clone();
        tera.register_filter(name, move |value: &Value, _: Kwargs, _: &State| {
            // The template's own line break follows, as it does behind every other expression.
            let text = written(&s, write(value))?;
            TeraResult::Ok(Value::safe_string(text.trim_end_matches('\n')))
        });
    };
    lines("to_yaml", formats::to_yaml);
    lines("to_toml", formats::to_toml);
}

fn written(shared: &Shared, text: TeraResult<String>) -> TeraResult<String> {
    let help = "leave the value out, or write another format";
    text.map_err(|error| explained(shared, None, help, error.to_string()))
}

fn register_quotes(tera: &mut Tera, shared: &Shared) {
    let mut quotes = |name: &'static str, quoted: fn(&str) -> String| {
        tera.register_filter(name, move |text: Cow<'_, str>, _: Kwargs, _: &State| quoted(&text));
    };
    quotes("env_quote", quote::env);
    quotes("shell_quote", shell_quote);
    quotes("quote_sh", shell_quote);
    quotes("quote_haproxy", quote::haproxy);
    let s = shared.clone();
    tera.register_filter("quote_nginx", move |text: Cow<'_, str>, _: Kwargs, _: &State| {
        quote::nginx(&text).ok_or_else(|| {
            let message = format!("nginx has no way to write the `$` in `{}`", text.escape_debug());
            let help = "correct the value; in a template's own text, `geo $dollar { default \"$\"; }` \
                        gives ${dollar}";
            blame(&s, &text, help, message)
        })
    });
}

fn register_validators(tera: &mut Tera, shared: &Shared) {
    let mut validator = |name: &'static str, is_it: fn(&str) -> bool, wanted: &'static str| {
        let s = shared.clone();
        tera.register_filter(name, move |value: &Value, _: Kwargs, _: &State| {
            let text = value.to_string();
            if is_it(&text) {
                return Ok(value.clone());
            }
            let message = format!("`{}` is not {wanted}", text.escape_debug());
            Err(blame(&s, &text, "correct the stored value, or leave the filter out", message))
        });
    };
    validator("host", valid::is_host, "a host name or IP address");
    validator("ip", valid::is_ip, "an IP address");
    let name =
        "a name of letters, digits, `_`, `-` and `.` that begins with neither of the last two";
    validator("ident", valid::is_ident, name);
    validator("port", valid::is_port, "a port from 1 to 65535");
}

/// The error about a text, and about the key whose value it is.
fn blame(shared: &Shared, text: &str, help: &str, message: String) -> Error {
    explained(shared, Some(text), help, message)
}

fn explained(shared: &Shared, text: Option<&str>, help: &str, message: String) -> Error {
    let outcome = with(shared, |session| {
        let key = text.and_then(|text| blame::keys_with(&session.view, text));
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

/// Whether the line guard has nothing against a text, or it was let through before.
fn is_clean(text: &StringInput<'_>) -> bool {
    text.is_safe() || guard::check_line(text.as_str()).is_ok()
}

/// Tera's `join`, but that a value the guard would refuse makes a text it will refuse, instead of
/// an error at once: `multiline` may follow.
fn join(list: &[Value], args: &Kwargs) -> TeraResult<Value> {
    let sep = args.get::<StringInput<'_>>("sep")?;
    let texts: Vec<String> = list.iter().map(ToString::to_string).collect();
    let joined = texts.join(sep.as_ref().map_or("", |sep| sep.as_str()));
    let mut items = list.iter().zip(&texts);
    let is_safe = items.all(|(item, text)| item.is_safe() || guard::check_line(text).is_ok());
    Ok(match is_safe && sep.is_none_or(|sep| is_clean(&sep)) {
        true => Value::safe_string(&joined),
        false => Value::from(joined),
    })
}

/// Tera's `replace`, with the template's own text free.
fn replace(text: &StringInput<'_>, args: &Kwargs) -> TeraResult<Value> {
    let from = args.must_get::<StringInput<'_>>("from")?;
    let to = args.must_get::<StringInput<'_>>("to")?;
    let replaced = text.as_str().replace(from.as_str(), to.as_str());
    Ok(guarded(text, &from, &to, replaced))
}

/// A text after a replacement. A line break of `to` is free if no stored text says where it goes;
/// what was let through before stays so if `to` brings none.
fn guarded(
    text: &StringInput<'_>,
    from: &StringInput<'_>,
    to: &StringInput<'_>,
    replaced: String,
) -> Value {
    let own = from.is_safe() && to.is_safe() && is_clean(text);
    match own || (text.is_safe() && guard::check_line(to.as_str()).is_ok()) {
        true => Value::safe_string(&replaced),
        false => Value::from(replaced),
    }
}

/// `regex_replace(pattern=, rep=)`: every match, with `$1` and `$name` for what it captured.
fn regex_replace(
    known: &Mutex<BTreeMap<String, Regex>>,
    text: &StringInput<'_>,
    args: &Kwargs,
) -> TeraResult<Value> {
    let pattern = args.must_get::<StringInput<'_>>("pattern")?;
    let rep = args.must_get::<StringInput<'_>>("rep")?;
    let regex = compiled(known, pattern.as_str())?;
    let replaced = regex.replace_all(text.as_str(), rep.as_str()).into_owned();
    Ok(guarded(text, &pattern, &rep, replaced))
}

/// A pattern inside a loop is compiled once.
fn compiled(known: &Mutex<BTreeMap<String, Regex>>, pattern: &str) -> TeraResult<Regex> {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(regex) = known.get(pattern) {
        return Ok(regex.clone());
    }
    let regex = RegexBuilder::new(pattern).size_limit(limits::REGEX_BYTES_MAX).build();
    let regex = regex.map_err(|error| {
        // The last line of several says what is wrong, the others show where.
        let shown = error.to_string();
        let why = shown.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Error::message(format!("`{pattern}` is not a regular expression: {why}"))
    })?;
    if known.len() >= limits::REGEXES_KEPT_MAX {
        known.clear();
    }
    known.insert(pattern.to_owned(), regex.clone());
    Ok(regex)
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

/// The SHA-256 of a text in lower-case hexadecimal digits.
fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As Go does it: padded, and bits behind the last byte are not looked at.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, PAD.with_decode_allow_trailing_bits(true));

/// Line breaks inside are skipped, as in Go.
fn b64decode(text: &str) -> Result<String, &'static str> {
    let letters: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    let bytes = BASE64.decode(letters).map_err(|_| "not valid base64")?;
    String::from_utf8(bytes).map_err(|_| "the decoded base64 is not UTF-8 text")
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
    fn digits_sort_as_numbers() {
        let mut names = ["web10", "web2", "web02", "a", "web", "", "99999999999999999999", "9"];
        names.sort_by_cached_key(|name| natural_key(name));
        let sorted = ["", "9", "99999999999999999999", "a", "web", "web02", "web2", "web10"];
        assert_eq!(names, sorted);
    }

    #[test]
    fn patterns_are_kept_in_bounds() {
        let known = Mutex::default();
        for number in 0..=limits::REGEXES_KEPT_MAX {
            compiled(&known, &format!("a{number}")).unwrap();
        }
        assert_eq!(known.lock().unwrap().len(), 1);
        let error = compiled(&known, "(").unwrap_err().to_string();
        assert_eq!(error, "`(` is not a regular expression: unclosed group");
        assert!(compiled(&known, "(a{1000}){1000}").is_err());
    }
}
