//! JSON, YAML and TOML in templates.
//!
//! Why the writers are here and not a crate's: what a writer puts on several lines passes the
//! line guard, so no line break of a *value* may be among them. These write every text on one
//! line, with escapes, and so one answer holds for all three formats.
//!
//! Invariants:
//! * Names of a map come out sorted, so that a file does not change without a reason.
//! * Integers of 64 bits stay exact; what a format cannot write (larger ones, infinity, TOML's
//!   null) is an error and never another value.
//! * The only control characters in written text are line feeds between tokens.
//! * Values are at most `DEPTH_MAX` deep, in and out; YAML is read within the budgets below, so
//!   aliases of aliases are refused.
//!
//! Deliberately not here: YAML's tags and several documents in one text.
//!
//! Sources: RFC 8259, YAML 1.2.2, TOML 1.0.

use crate::render::guard;
use serde_json::{Map, Value as Json};
use std::fmt::Write;
use tera::{Error, TeraResult, Value};

/// Levels of lists and maps a value may have: what JSON's reader allows.
const DEPTH_MAX: usize = 127;

/// Values in one YAML text, aliases counted as often as they stand.
const YAML_NODES_MAX: usize = 250_000;

/// JSON text as a value, objects sorted by name so that loops over them are stable; the error is
/// one line.
pub(crate) fn from_json(text: &str) -> Result<Value, String> {
    read(text, serde_json::from_str(text).map_err(|error| error.to_string())?)
}

/// YAML text as a value, maps sorted as `from_json` does; the error is one line.
pub(crate) fn from_yaml(text: &str) -> Result<Value, String> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: DEPTH_MAX, max_nodes: YAML_NODES_MAX },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: YAML_NODES_MAX },
        strict_booleans: true,
        // `007` is more often a code than a number, and it would come back as `7.0`.
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
    };
    let json = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let shown = error.to_string();
        shown.lines().next().unwrap_or("it cannot be read").to_owned()
    })?;
    read(text, json)
}

fn read(text: &str, mut json: Json) -> Result<Value, String> {
    if has_huge(&json)
        && let Some(digits) = long_integer(text)
    {
        return Err(format!("{digits} has more than 64 bits; as a text it would be kept"));
    }
    json.sort_all_objects();
    Ok(Value::from_serializable(&json))
}

/// Whether there is a number that both readers make a float of, even if it was an integer.
fn has_huge(json: &Json) -> bool {
    match json {
        Json::Number(number) => {
            number.is_f64() && number.as_f64().is_some_and(|float| float.abs() >= 2_f64.powi(63))
        }
        Json::Array(list) => list.iter().any(has_huge),
        Json::Object(map) => map.values().any(has_huge),
        Json::Null | Json::Bool(_) | Json::String(_) => false,
    }
}

/// A word of digits that 64 bits may not hold.
fn long_integer(text: &str) -> Option<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "+-._".contains(c);
    let is_long = |word: &&str| {
        let digits = word.trim_start_matches(['+', '-']);
        digits.len() >= 19 && digits.chars().all(|c| c.is_ascii_digit())
    };
    text.split(|c| !is_part(c)).find(is_long)
}

/// A value as JSON, on one line or, `pretty`, on several.
pub(crate) fn to_json(value: &Value, pretty: bool) -> TeraResult<String> {
    let json = plain(value, "JSON")?;
    let text =
        if pretty { serde_json::to_string_pretty(&json) } else { serde_json::to_string(&json) };
    text.map(|text| escape_separators(&text)).map_err(|error| cannot("JSON", &error))
}

/// A value as a YAML document in block style.
pub(crate) fn to_yaml(value: &Value) -> TeraResult<String> {
    let mut out = String::new();
    yaml_node(&mut out, &plain(value, "YAML")?, 0);
    Ok(out)
}

/// A map as a TOML document.
pub(crate) fn to_toml(value: &Value) -> TeraResult<String> {
    let Json::Object(map) = plain(value, "TOML")? else {
        return Err(cannot("TOML", &format!("a document is a map, not a {}", value.name())));
    };
    let mut out = String::new();
    toml_table(&mut out, "", &map).map_err(|why| cannot("TOML", &why))?;
    Ok(out)
}

fn cannot(format: &str, why: &impl std::fmt::Display) -> Error {
    Error::message(format!("cannot write {format}: {why}"))
}

/// The value as sorted JSON, which all formats here can be written from.
fn plain(value: &Value, format: &str) -> TeraResult<Json> {
    check(value, 0).map_err(|why| cannot(format, &why))?;
    let mut json = serde_json::to_value(value).map_err(|error| cannot(format, &error))?;
    json.sort_all_objects();
    Ok(json)
}

fn check(value: &Value, depth: usize) -> Result<(), &'static str> {
    if depth > DEPTH_MAX {
        return Err("the value is nested too deeply");
    }
    if value.is_f64() && value.as_f64().is_some_and(|number| !number.is_finite()) {
        return Err("infinity and what is not a number have no form there");
    }
    if let Some(list) = value.as_array() {
        list.iter().try_for_each(|item| check(item, depth + 1))?;
    }
    value.as_map().map_or(Ok(()), |map| map.values().try_for_each(|item| check(item, depth + 1)))
}

/// JSON escapes C0 only; the rest of what the line guard refuses is written as `\uXXXX` too.
fn escape_separators(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\n' => out.push(c),
            c if guard::check_line(c.encode_utf8(&mut [0; 4])).is_err() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// A text in double quotes, with escapes that JSON, YAML and TOML share.
fn quoted(text: &str) -> String {
    escape_separators(&Json::from(text).to_string())
}

/// One node and the line feed behind it; its first line stands where the caller left off.
fn yaml_node(out: &mut String, node: &Json, indent: usize) {
    let mut first = true;
    let mut begin = |out: &mut String| {
        if !std::mem::take(&mut first) {
            out.push_str(&" ".repeat(indent));
        }
    };
    match node {
        Json::Object(map) if !map.is_empty() => {
            for (name, value) in map {
                begin(out);
                out.push_str(&yaml_text(name));
                out.push(':');
                yaml_value(out, value, indent);
            }
        }
        Json::Array(list) if !list.is_empty() => {
            for value in list {
                begin(out);
                out.push_str("- ");
                yaml_node(out, value, indent + 2);
            }
        }
        Json::String(text) => out.extend([&yaml_text(text), "\n"]),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Object(_) | Json::Array(_) => {
            out.extend([&node.to_string(), "\n"]);
        }
    }
}

/// What stands behind `name:`, on the same line or indented below it.
fn yaml_value(out: &mut String, value: &Json, indent: usize) {
    let is_block = match value {
        Json::Object(map) => !map.is_empty(),
        Json::Array(list) => !list.is_empty(),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => false,
    };
    if is_block {
        out.push('\n');
        out.push_str(&" ".repeat(indent + 2));
        yaml_node(out, value, indent + 2);
    } else {
        out.push(' ');
        yaml_node(out, value, indent);
    }
}

/// Plain where every YAML reader sees a text, else quoted.
fn yaml_text(text: &str) -> String {
    /// Words some reader takes for something else than a text.
    const TAKEN: &[&str] = &["true", "false", "yes", "no", "on", "off", "y", "n", "null"];
    let inner = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(inner)
        && !TAKEN.iter().any(|taken| text.eq_ignore_ascii_case(taken));
    if is_plain { text.to_owned() } else { quoted(text) }
}

/// The lines of one table: its own values first, then the tables in it.
fn toml_table(out: &mut String, path: &str, map: &Map<String, Json>) -> Result<(), String> {
    for (name, value) in map.iter().filter(|(_, value)| !has_header(value)) {
        let _ = writeln!(out, "{} = {}", toml_name(name), toml_value(value)?);
    }
    for (name, value) in map.iter().filter(|(_, value)| has_header(value)) {
        let path = [path, &toml_name(name)].concat();
        let (tables, open, close) = match value {
            Json::Array(list) => (list.iter().collect(), "[[", "]]"),
            other => (vec![other], "[", "]"),
        };
        for table in tables.into_iter().filter_map(Json::as_object) {
            let gap = if out.is_empty() { "" } else { "\n" };
            let _ = writeln!(out, "{gap}{open}{path}{close}");
            toml_table(out, &format!("{path}."), table)?;
        }
    }
    Ok(())
}

/// Whether a value is written under a header of its own: a table, or a list of nothing else.
fn has_header(value: &Json) -> bool {
    match value {
        Json::Object(_) => true,
        Json::Array(list) => !list.is_empty() && list.iter().all(Json::is_object),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => false,
    }
}

fn toml_name(name: &str) -> String {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let is_bare = !name.is_empty() && name.chars().all(inner);
    if is_bare { name.to_owned() } else { quoted(name) }
}

fn toml_value(value: &Json) -> Result<String, String> {
    match value {
        Json::Null => Err("it has no null; leave the value out".to_owned()),
        Json::Number(number) if number.is_u64() && !number.is_i64() => {
            Err(format!("{number} is more than its integers hold"))
        }
        Json::Bool(_) | Json::Number(_) => Ok(value.to_string()),
        Json::String(text) => Ok(quoted(text)),
        Json::Array(list) => {
            let items = list.iter().map(toml_value).collect::<Result<Vec<_>, _>>()?;
            Ok(format!("[{}]", items.join(", ")))
        }
        Json::Object(map) => {
            let pair = |(name, value): (&String, &Json)| {
                Ok(format!("{} = {}", toml_name(name), toml_value(value)?))
            };
            let pairs = map.iter().map(pair).collect::<Result<Vec<_>, String>>()?;
            Ok(format!("{{ {} }}", pairs.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIXED: &str = r#"{"z":[1,[],{"b":{},"a":["x\ny",null]},[[2]]],"n":null,
        "big":18446744073709551615,"low":-9223372036854775808,"f":2.0,"no":"no","":"é\u2028",
        "a b":" x: #","m":{"true":true}}"#;

    #[test]
    fn yaml_is_written_in_blocks_and_read_back() {
        let value = from_json(MIXED).unwrap();
        let expected = "\"\": \"é\\u2028\"\n\"a b\": \" x: #\"\nbig: 18446744073709551615\nf: 2.0\n\
            low: -9223372036854775808\nm:\n  \"true\": true\n\"n\": null\n\"no\": \"no\"\nz:\n  \
            - 1\n  - []\n  - a:\n      - \"x\\ny\"\n      - null\n    b: {}\n  - - - 2\n";
        let yaml = to_yaml(&value).unwrap();
        assert_eq!(yaml, expected);
        assert_eq!(from_yaml(&yaml), Ok(value));
        for (json, expected) in
            [("[]", "[]\n"), ("{}", "{}\n"), ("\"1\"", "\"1\"\n"), ("-1", "-1\n")]
        {
            assert_eq!(to_yaml(&from_json(json).unwrap()).unwrap(), expected);
        }
    }

    #[test]
    fn hostile_texts_stay_on_their_line() {
        for text in
            ["a\nb: c", "x\r\n- y", "\u{85}", "\u{2028}", "\u{7f}\t\0", "'\"\\", "---", "\n"]
        {
            let map = Value::from_serializable(&serde_json::json!({ text: [text], "k": text }));
            let (yaml, toml) = (to_yaml(&map).unwrap(), to_toml(&map).unwrap());
            assert_eq!(from_yaml(&yaml).as_ref(), Ok(&map), "{yaml}");
            let read: Json = toml::from_str(&toml).unwrap();
            assert_eq!(Value::from_serializable(&read), map, "{toml}");
            assert_eq!((yaml.lines().count(), toml.lines().count()), (3, 2), "{yaml}{toml}");
            for line in [yaml, toml].concat().lines() {
                assert_eq!(guard::check_line(line), Ok(()));
            }
        }
    }

    #[test]
    fn toml_puts_tables_last() {
        let json = r#"{"s":{"t":{"x":1},"a b":[]},"l":[{"n":1},{"n":{"d":2.5}}],"mixed":[1,{"a":"b"}],"v":"x"}"#;
        let expected = "mixed = [1, { a = \"b\" }]\nv = \"x\"\n\n[[l]]\nn = 1\n\n[[l]]\n\n[l.n]\nd = 2.5\n\
            \n[s]\n\"a b\" = []\n\n[s.t]\nx = 1\n";
        let value = from_json(json).unwrap();
        assert_eq!(to_toml(&value).unwrap(), expected);
        let read: Json = toml::from_str(expected).unwrap();
        assert_eq!(Value::from_serializable(&read), value);
        for (json, why) in [
            ("[1]", "a document is a map"),
            ("{\"a\":null}", "no null"),
            ("{\"a\":[null]}", "no null"),
            ("{\"a\":9223372036854775808}", "more than its integers hold"),
        ] {
            let error = to_toml(&from_json(json).unwrap()).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn what_has_no_form_is_refused() {
        let mut deep = Value::from(1);
        for _ in 0..=DEPTH_MAX {
            deep = Value::from(vec![deep]);
        }
        for value in
            [Value::from(f64::INFINITY), Value::from(f64::NAN), Value::from(u128::MAX), deep]
        {
            assert!(to_json(&value, false).is_err() && to_yaml(&value).is_err(), "{value}");
        }
    }

    #[test]
    fn integers_are_exact_or_refused() {
        for exact in ["18446744073709551615", "-9223372036854775808", "9007199254740993"] {
            let (json, yaml) = (from_json(exact).unwrap(), from_yaml(exact).unwrap());
            assert_eq!((json.to_string().as_str(), yaml.to_string().as_str()), (exact, exact));
        }
        for long in ["18446744073709551616", "[1,-9223372036854775809]"] {
            for error in [from_json(long).unwrap_err(), from_yaml(long).unwrap_err()] {
                assert!(error.contains("more than 64 bits"), "{error}");
            }
        }
        assert!(from_json("[1e30, 100000000000000000000.5]").is_ok());
    }

    #[test]
    fn yaml_is_read_within_budgets() {
        let laughs = |levels: usize| {
            let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
            for level in 1..levels {
                let alias = vec![format!("*a{}", level - 1); 10].join(", ");
                let _ = writeln!(text, "a{level}: &a{level} [{alias}]");
            }
            text
        };
        assert!(from_yaml(&laughs(2)).is_ok());
        assert!(from_yaml(&laughs(9)).is_err());
        for bad in
            [&"[".repeat(5_000), "a: b: c", "a: 1\na: 2", "x: .inf", "a: *b", "\"", "a\n---\nb"]
        {
            let error = from_yaml(bad).expect_err(bad);
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        for (yaml, json) in [
            ("", "null"),
            ("yes", "\"yes\""),
            ("a: 08\nb: 0o17\nc: 1_0", "{\"a\":\"08\",\"b\":15,\"c\":\"1_0\"}"),
            ("x: &x {b: 1, a: 2}\ny: *x", "{\"x\":{\"a\":2,\"b\":1},\"y\":{\"a\":2,\"b\":1}}"),
            ("t: |\n  a\n  b\nn: ~", "{\"n\":null,\"t\":\"a\\nb\\n\"}"),
            ("1: one\ntrue: two", "{\"1\":\"one\",\"true\":\"two\"}"),
            ("n: 18446744073709551615", "{\"n\":18446744073709551615}"),
            ("n: -9223372036854775808", "{\"n\":-9223372036854775808}"),
        ] {
            let read = from_yaml(yaml).map(|value| to_json(&value, false).unwrap());
            assert_eq!(read.as_deref(), Ok(json), "{yaml}");
        }
    }
}
