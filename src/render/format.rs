//! Whether a rendered file is what its reader can parse: `output_format`.
//!
//! Why: a template that leaves a comma out makes a whole file that no program takes. With this
//! key the old file stays, and the error shows line and column, without any program installed.
//!
//! Invariants:
//! * The text is read whole; what it means is no concern here.
//! * What a YAML text may cost to read is bounded, aliases included.
//!
//! Deliberately not here: schemas; that is what `check_cmd` is for.

use crate::base::diagnostic::Diagnostic;
use crate::base::limits;
use serde::de::IgnoredAny;
use std::ops::Range;
use toml::de::DeTable;

/// A form of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON value.
    Json,
    /// One YAML document or several.
    Yaml,
    /// A TOML document.
    Toml,
}

impl Format {
    /// Every form with its name in a resource.
    pub const ALL: [(&str, Self); 3] =
        [("json", Self::Json), ("yaml", Self::Yaml), ("toml", Self::Toml)];

    /// Whether `bytes` are of this form; `file` is what the error names.
    ///
    /// # Errors
    /// With the place of the first mistake.
    pub fn check(self, bytes: &[u8], file: &str) -> Result<(), Diagnostic> {
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let shown = Diagnostic::new(file, format!("the rendered file is not UTF-8: {error}"));
            shown.help("print text only")
        })?;
        let (name, found) = match self {
            Self::Json => ("JSON", json(text)),
            Self::Yaml => ("YAML", yaml(text)),
            Self::Toml => ("TOML", toml(text)),
        };
        found.map_err(|(message, range)| {
            Diagnostic::new(file, format!("the rendered file is not {name}: {message}"))
                .at(text, &range)
                .help("correct the template or the value it prints there; the old file stays")
        })
    }
}

/// What is wrong, and at which bytes.
type Mistake = (String, Range<usize>);

fn json(text: &str) -> Result<(), Mistake> {
    serde_json::from_str::<IgnoredAny>(text)
        .map(|_| ())
        .map_err(|error| (without_place(&error), place(text, error.line(), error.column())))
}

fn yaml(text: &str) -> Result<(), Mistake> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: limits::OUTPUT_DEPTH_MAX,
            max_nodes: limits::OUTPUT_NODES_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: limits::OUTPUT_NODES_MAX,
        },
        with_snippet: false,
    };
    let read = serde_saphyr::from_multiple_with_options::<IgnoredAny>(text, options);
    read.map(|_| ()).map_err(|error| {
        let at = error.location().map_or((1, 1), |at| (at.line(), at.column()));
        let [line, column] = [at.0, at.1].map(|number| usize::try_from(number).unwrap_or(1));
        (without_place(&error), place(text, line, column))
    })
}

fn toml(text: &str) -> Result<(), Mistake> {
    DeTable::parse(text).map(|_| ()).map_err(|error| {
        (error.message().replace('\n', ", "), error.span().unwrap_or(text.len()..text.len()))
    })
}

/// The place is shown in another way.
fn without_place(error: &impl std::fmt::Display) -> String {
    let message = error.to_string();
    let first = message.lines().next().unwrap_or_default();
    first.split(" at line ").next().unwrap_or_default().to_owned()
}

/// The bytes of a line and column, both from 1.
fn place(text: &str, line: usize, column: usize) -> Range<usize> {
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let at = before + column.saturating_sub(1);
    at..at + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_have_a_place() {
        let table = [
            (Format::Json, "{\"a\": [1, 2]}\n", ""),
            (Format::Json, "{\"a\": 1,}\n", "1:9"),
            (Format::Json, "{}\n{}\n", "2:1"),
            (Format::Json, "", "1:1"),
            (Format::Yaml, "a: 1\nb:\n  - x\n", ""),
            (Format::Yaml, "a: 1\n---\nb: 2\n", ""),
            (Format::Yaml, "", ""),
            (Format::Yaml, "a: 1\nb: [1, 2\n", "2:4"),
            (Format::Yaml, "a: 1\nb: c: d\n", "2:5"),
            (Format::Toml, "a = 1\n[b]\nc = \"x\"\n", ""),
            (Format::Toml, "a = 1\nb = x\n", "2:5"),
            (Format::Toml, "a = 1\na = 2\n", "2:1"),
        ];
        for (format, text, expected) in table {
            let found = format.check(text.as_bytes(), "/x").err();
            let place = found.as_ref().and_then(|error| error.place.as_ref());
            let place = place.map_or(String::new(), |at| format!("{}:{}", at.line, at.column));
            assert_eq!(place, expected, "{format:?} {text:?}: {found:?}");
        }
        assert!(Format::Json.check(b"\xff", "/x").is_err());
    }

    /// Each line stands for ten of the line before.
    #[test]
    fn a_bomb_is_not_unfolded() {
        let mut text = "a0: &a0 x\n".to_owned();
        for level in 1..12 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            text += &format!("a{level}: &a{level} [{aliases}]\n");
        }
        let begun = std::time::Instant::now();
        let _ = Format::Yaml.check(text.as_bytes(), "/x");
        assert!(begun.elapsed() < std::time::Duration::from_secs(20));
    }
}
