//! Whose value it was: the keys behind a text that made trouble.
//!
//! Why after the fact: filters see texts, and a text does not know its key. Carrying it along
//! would cost every render; looking for it costs a failed one.
//!
//! Invariants:
//! * Only keys the template was given are looked at, not all that were fetched.
//! * At most `KEYS_NAMED_MAX` names, the best reason first: the value is the text, holds it as
//!   JSON, or holds it at all.
//!
//! Deliberately not here: the words around the names.

use crate::render::engine::view::View;
use crate::render::guard;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

/// Keys an error names; of more, the first.
const KEYS_NAMED_MAX: usize = 3;

/// The keys whose value `text` is, or is a part of.
pub(crate) fn keys_with(view: &View, text: &str) -> Option<Box<str>> {
    let wanted = text.trim();
    let is_it = |value: &str| value.trim() == wanted;
    let holds = |value: &str| leaves(value).iter().any(|leaf| is_it(leaf));
    let contains = |value: &str| !wanted.is_empty() && value.contains(wanted);
    named(view, is_it).or_else(|| named(view, holds)).or_else(|| named(view, contains))
}

/// The keys whose value, plain or decoded, holds what the line guard refused in `text`.
pub(crate) fn hostile_keys(view: &View, text: &str) -> Option<Box<str>> {
    // A filter may have changed its letters.
    let refused = text.trim().to_lowercase();
    let is_hostile = |text: &str| guard::check_line(text).is_err();
    let related = |part: &str| {
        let part = part.trim().to_lowercase();
        !part.is_empty() && (refused.contains(&part) || part.contains(&refused))
    };
    let behind = |value: &str| {
        let parts = decoded(value);
        !refused.is_empty() && parts.iter().any(|part| is_hostile(part) && related(part))
    };
    let any = |value: &str| decoded(value).iter().any(|part| is_hostile(part));
    named(view, behind).or_else(|| named(view, any))
}

fn named(view: &View, is_it: impl Fn(&str) -> bool) -> Option<Box<str>> {
    let mut names = view.names_where(|value| is_it(&String::from_utf8_lossy(value)));
    names.truncate(KEYS_NAMED_MAX);
    (!names.is_empty()).then(|| names.join(" or ").into())
}

/// A value as it is, and what templates make of it: the texts in its JSON, its base64.
fn decoded(value: &str) -> Vec<String> {
    let mut texts = leaves(value);
    let letters: String = value.split_whitespace().collect();
    texts.extend(STANDARD.decode(letters).ok().and_then(|bytes| String::from_utf8(bytes).ok()));
    texts.push(value.to_owned());
    texts
}

/// Every text, number and name in a JSON value.
fn leaves(value: &str) -> Vec<String> {
    fn collect(json: &Json, out: &mut Vec<String>) {
        match json {
            Json::Null | Json::Bool(_) => {}
            Json::Number(number) => out.push(number.to_string()),
            Json::String(text) => out.push(text.clone()),
            Json::Array(list) => list.iter().for_each(|item| collect(item, out)),
            Json::Object(map) => map.iter().for_each(|(name, item)| {
                out.push(name.clone());
                collect(item, out);
            }),
        }
    }
    let mut out = Vec::new();
    if let Ok(json) = serde_json::from_str(value) {
        collect(&json, &mut out);
    }
    out
}
