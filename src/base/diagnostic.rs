//! One error at one place of one file, shown so that its author sees what to change.
//!
//! Why: a resource or template is written by hand, and "invalid key" without a place costs its
//! author minutes. Parsers and engines give a message and a byte range; this module turns it into
//! line, column, the line itself, a caret and help. It crosses the worker pipe as bytes.
//!
//! Invariants:
//! * Lines and columns count from 1; columns count characters, not bytes.
//! * Showing never panics, whatever the range.
//!
//! Deliberately not here: colours, and what the errors mean.

use crate::base::codec::{Malformed, Reader, Writer};
use crate::base::limits;
use std::fmt;
use std::ops::Range;

/// Longest source line shown; the rest of a minified file helps nobody.
const LINE_CHARS_MAX: usize = 200;

/// Where in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The whole line, without its end.
    pub text: String,
    /// Characters the caret line marks, at least 1.
    pub width: usize,
}

/// An error with its place, the key involved and what to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong, one sentence without a full stop.
    pub message: String,
    /// The file, as the user knows it.
    pub file: String,
    /// Where in the file, if known.
    pub place: Option<Box<Place>>,
    /// The store key involved, as the template names it.
    pub key: Option<Box<str>>,
    /// What to do about it.
    pub help: Option<Box<str>>,
    /// How the place was reached, outermost last: include chains.
    pub notes: Vec<String>,
}

impl Place {
    /// The place of a byte range in `source`; a range past the end means the last line.
    #[must_use]
    pub fn of(source: &str, range: &Range<usize>) -> Self {
        let start = floor_char(source, range.start);
        let end = floor_char(source, range.end.max(start));
        let line_start =
            source.get(..start).and_then(|head| head.rfind('\n')).map_or(0, |at| at + 1);
        let tail = source.get(line_start..).unwrap_or_default();
        let text = tail.lines().next().unwrap_or_default();
        let line_end = line_start + text.len();
        let marked = source.get(start..end.min(line_end).max(start)).unwrap_or_default();
        let before = source.get(line_start..start).unwrap_or_default();
        Self {
            line: source.get(..line_start).unwrap_or_default().matches('\n').count() + 1,
            column: before.chars().count() + 1,
            text: text.chars().take(LINE_CHARS_MAX).collect(),
            width: marked.chars().count().max(1),
        }
    }
}

fn floor_char(source: &str, at: usize) -> usize {
    let mut at = at.min(source.len());
    while !source.is_char_boundary(at) {
        at -= 1;
    }
    at
}

impl Diagnostic {
    /// An error about a file as a whole.
    pub fn new(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self { file: file.into(), message: message.into(), ..Self::default() }
    }

    /// Sets the place to a byte range of `source`.
    #[must_use]
    pub fn at(mut self, source: &str, range: &Range<usize>) -> Self {
        self.place = Some(Box::new(Place::of(source, range)));
        self
    }

    /// Sets what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<Box<str>>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Sets the key involved.
    #[must_use]
    pub fn key(mut self, key: impl Into<Box<str>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Writes the fields behind each other.
    pub fn encode(&self, out: &mut Writer) {
        out.bytes(self.message.as_bytes()).bytes(self.file.as_bytes());
        out.option(self.place.as_ref(), |out, place| {
            out.uint(place.line as u64).uint(place.column as u64).uint(place.width as u64);
            out.bytes(place.text.as_bytes());
        });
        for text in [&self.key, &self.help] {
            out.option(text.as_ref(), |out, text| {
                out.bytes(text.as_bytes());
            });
        }
        out.uint(self.notes.len() as u64);
        for note in &self.notes {
            out.bytes(note.as_bytes());
        }
    }

    /// Reads what `encode` wrote.
    ///
    /// # Errors
    /// When the bytes are something else.
    pub fn decode(input: &mut Reader<'_>) -> Result<Self, Malformed> {
        let message = text(input)?;
        let file = text(input)?;
        let place = input.option(|input| {
            let mut count = || Ok(usize::try_from(input.uint()?).unwrap_or(usize::MAX));
            let (line, column, width) = (count()?, count()?, count()?);
            Ok(Box::new(Place { line, column, width, text: text(input)? }))
        })?;
        let key = input.option(text)?.map(String::into_boxed_str);
        let help = input.option(text)?.map(String::into_boxed_str);
        let count = input.count(limits::DIAGNOSTIC_NOTES_MAX)?;
        let notes = (0..count).map(|_| text(input)).collect::<Result<_, _>>()?;
        Ok(Self { message, file, place, key, help, notes })
    }
}

/// A byte string as text; bytes that are not UTF-8 show as U+FFFD.
fn text(input: &mut Reader<'_>) -> Result<String, Malformed> {
    Ok(String::from_utf8_lossy(input.bytes()?).into_owned())
}

impl std::error::Error for Diagnostic {}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", printable(&self.message))?;
        let digits = self.place.as_ref().map_or(0, |place| place.line.to_string().len());
        let margin = " ".repeat(digits);
        match &self.place {
            Some(place) => show_place(f, &self.file, place, &margin)?,
            None if !self.file.is_empty() => write!(f, "\n --> {}", self.file)?,
            None => {}
        }
        if let Some(key) = &self.key {
            write!(f, "\n{margin} = key: {}", printable(key))?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n{margin} = help: {}", printable(help))?;
        }
        for note in &self.notes {
            write!(f, "\n{margin} = note: {}", printable(note))?;
        }
        Ok(())
    }
}

fn show_place(f: &mut fmt::Formatter<'_>, file: &str, place: &Place, margin: &str) -> fmt::Result {
    let Place { line, column, text, width } = place;
    write!(f, "\n{margin}--> {file}:{line}:{column}\n{margin} |\n{line} | {}", printable(text))?;
    // A place that came over the pipe may be none.
    let before = column.saturating_sub(1);
    let lead: String =
        text.chars().take(before).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    let carets = (*width).min(text.chars().count().saturating_sub(before)).max(1);
    write!(f, "\n{margin} | {lead}{}", "^".repeat(carets))
}

/// Messages may quote stored bytes; a terminal must not obey them.
fn printable(text: &str) -> String {
    let keep = |c: char| !c.is_control() || c == '\t' || c == '\n';
    text.chars().map(|c| if keep(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// The candidate most like `word`, if one is near enough to be meant.
#[must_use]
pub fn did_you_mean<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let scored = candidates.iter().map(|candidate| (distance(word, candidate), *candidate));
    let (score, best) = scored.min()?;
    (score <= 1 + word.chars().count().min(best.len()) / 4).then_some(best)
}

/// Edits (insert, delete, replace, swap of neighbours) between two words, by the optimal string
/// alignment recurrence.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    let cell = |rows: &[Vec<usize>], i: usize, j: usize| -> usize {
        rows.get(i).and_then(|row| row.get(j)).copied().unwrap_or(usize::MAX / 2)
    };
    for i in 1..=a.len() {
        rows.push(vec![i]);
        for j in 1..=b.len() {
            let same = usize::from(a.get(i - 1) != b.get(j - 1));
            let mut best = (cell(&rows, i - 1, j) + 1).min(cell(&rows, i, j - 1) + 1);
            best = best.min(cell(&rows, i - 1, j - 1) + same);
            let swapped =
                i > 1 && j > 1 && a.get(i - 1) == b.get(j - 2) && a.get(i - 2) == b.get(j - 1);
            if swapped {
                best = best.min(cell(&rows, i - 2, j - 2) + 1);
            }
            if let Some(row) = rows.last_mut() {
                row.push(best);
            }
        }
    }
    cell(&rows, a.len(), b.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_line_column_caret_and_help() {
        let source = "[template]\nsrc = \"a\"\n\tdst = \"ü\"\n";
        let at = source.find("dst").unwrap();
        let error = Diagnostic::new("conf.d/a.toml", "unknown key `dst`")
            .at(source, &(at..at + 3))
            .key("/a\u{1b}b")
            .help("did you mean `dest`?");
        let expected = "error: unknown key `dst`\n --> conf.d/a.toml:3:2\n  |\n3 | \tdst = \"ü\"\n  | \t^^^\n  = key: /a\u{fffd}b\n  = help: did you mean `dest`?";
        assert_eq!(error.to_string(), expected);
        let mut out = Writer::new();
        error.encode(&mut out);
        assert_eq!(Diagnostic::decode(&mut Reader::new(out.as_slice())), Ok(error));
    }

    #[test]
    fn any_range_has_a_place() {
        for (source, range) in [("", 0..9), ("é", 1..1), ("a\n", 2..2), ("a\nb", 7..9)] {
            let place = Place::of(source, &range);
            assert!(place.line >= 1 && place.column >= 1 && place.width >= 1);
            let _ = Diagnostic::new("f", "m").at(source, &range).to_string();
        }
    }

    #[test]
    fn near_words_are_suggested() {
        let keys = ["src", "dest", "reload_cmd", "check_cmd"];
        let cases = [
            ("dst", Some("dest")),
            ("scr", Some("src")),
            ("reload", None),
            ("relaod_cmd", Some("reload_cmd")),
            ("banana", None),
        ];
        for (word, expected) in cases {
            assert_eq!(did_you_mean(word, &keys), expected, "{word}");
        }
    }
}
