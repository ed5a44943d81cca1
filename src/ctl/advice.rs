//! The next step for errors of templates and resources that do not bring one.
//!
//! Why here: the engine knows what is wrong, and a person at the command line wants to know what
//! to type. Every message of the house names cause, place and next step (`tests/errors.rs`).
//!
//! Invariant: help that is there already is never replaced.
//!
//! Deliberately not here: the messages themselves.

use crate::base::diagnostic::{Diagnostic, did_you_mean};
use crate::ctl::words;

/// The same error with help.
#[must_use]
pub fn with_next_step(error: Diagnostic) -> Diagnostic {
    if error.help.is_some() {
        return error;
    }
    let help = next_step(&error);
    error.help(help)
}

fn next_step(error: &Diagnostic) -> String {
    let message = error.message.as_str();
    for kind in ["filter", "function"] {
        if let Some(name) = message.strip_prefix(&format!("Unknown {kind} `")) {
            return known(kind, name.split('`').next().unwrap_or_default());
        }
    }
    if message.contains("is not defined") {
        return "read a key with getv(key=\"/...\"), or set the variable first: {% set x = 1 %}"
            .to_owned();
    }
    if message == "not an absolute path of a file" {
        return "write the whole path, such as dest = \"/etc/haproxy/haproxy.cfg\"".to_owned();
    }
    if message == "Unexpected end of input" {
        return "a {% for %} or {% if %} lacks its {% endfor %} or {% endif %}, or a tag its end"
            .to_owned();
    }
    if error.file.ends_with(".toml") {
        return "a resource is lines of `key = value` below [template]; text stands in quotes"
            .to_owned();
    }
    if error.key.is_some() {
        return "correct the value of the key".to_owned();
    }
    "mend the template there: {{ expression }} prints, {% for x in list %} ... {% endfor %} loops"
        .to_owned()
}

fn known(kind: &str, name: &str) -> String {
    let names = words::names(kind);
    match did_you_mean(name, &names) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("{kind}s are: {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help(file: &str, message: &str) -> String {
        with_next_step(Diagnostic::new(file, message)).help.unwrap().into()
    }

    #[test]
    fn every_error_gets_a_next_step() {
        assert_eq!(help("a.tera", "Unknown filter `from_jsn`"), "did you mean `from_json`?");
        assert!(help("a.tera", "Unknown function `x`").starts_with("functions are: exists, get,"));
        assert!(help("a.tera", "`x` is not defined").contains("getv("));
        assert!(help("a.tera", "Found x").contains("endfor"));
        assert!(help("a.tera", "Unexpected end of input").contains("lacks its"));
        assert!(help("a.toml", "not an absolute path of a file").contains("whole path"));
        assert!(help("a.toml", "expected `=`").contains("[template]"));
        let kept = with_next_step(Diagnostic::new("a", "b").help("c"));
        assert_eq!(kept.help.as_deref(), Some("c"));
    }
}
