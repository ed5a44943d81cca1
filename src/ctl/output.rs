//! How commands speak: values to stdout, trouble to stderr, colours where a person looks.
//!
//! Why a module: stored bytes are hostile to terminals (DESIGN decision 19), a closed pipe is no
//! error, and the three lines of a failure must look the same whichever verb failed.
//!
//! Invariants:
//! * A value goes out byte for byte, unless a terminal would obey its control characters.
//! * What stands in a line of several words is quoted as JSON when it is not one plain word's
//!   worth of text, so that a script can split lines safely.
//! * Colours only on a terminal; `NO_COLOR` and `CLICOLOR_FORCE` overrule.
//!
//! Sources: no-color.org; bixense.com/clicolors.

use crate::base::diagnostic::did_you_mean;
use crate::base::report::{Exit, Report};
use clap::error::{ContextKind, ContextValue};
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

/// Form of a command's output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people and simple scripts.
    #[default]
    Text,
    /// For programs; the forms are the API's own.
    Json,
}

/// Standard output, with what is known about its reader.
pub struct Out<'a> {
    sink: Box<dyn Write + 'a>,
    is_terminal: bool,
    has_colours: bool,
    is_closed: bool,
}

impl Out<'_> {
    /// The process's own.
    #[must_use]
    pub fn stdout() -> Self {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        let has_colours = wants_colours(is_terminal, |name| std::env::var(name).ok());
        Self { sink: Box::new(stdout), is_terminal, has_colours, is_closed: false }
    }

    /// A line of text.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn line(&mut self, line: &str) -> Result<(), Report> {
        self.bytes(format!("{line}\n").as_bytes())
    }

    /// A stored value, then a line feed. Its control characters are shown, not obeyed, on a
    /// terminal.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn value(&mut self, value: &str) -> Result<(), Report> {
        if self.is_terminal { self.line(&visible(value)) } else { self.line(value) }
    }

    /// `text`, bold where colours are.
    #[must_use]
    pub fn bold(&self, text: &str) -> String {
        paint(self.has_colours, "1", text)
    }

    /// `text` in a colour of the terminal's palette (SGR code), where colours are.
    #[must_use]
    pub fn coloured(&self, code: &str, text: &str) -> String {
        paint(self.has_colours, code, text)
    }

    /// Text for a line of its own: control characters are shown where a terminal would obey them.
    #[must_use]
    pub fn shown(&self, text: &str) -> String {
        if self.is_terminal { visible(text) } else { text.to_owned() }
    }

    /// Whether the reader went away, as `head` does when it has enough: no reason to complain.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Bytes as they are.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Report> {
        let written = self.sink.write_all(bytes).and_then(|()| self.sink.flush());
        written.map_err(|error| {
            self.is_closed = error.kind() == io::ErrorKind::BrokenPipe;
            Report::new(Exit::Failed, "cannot write to standard output").cause(error.to_string())
        })
    }
}

#[cfg(test)]
impl<'a> Out<'a> {
    /// Writes into a buffer, as into a pipe.
    pub(crate) fn buffer(buffer: &'a mut Vec<u8>) -> Self {
        Self { sink: Box::new(buffer), is_terminal: false, has_colours: false, is_closed: false }
    }

    /// Writes into a buffer, as to a terminal without colours.
    pub(crate) fn terminal(buffer: &'a mut Vec<u8>) -> Self {
        Self { sink: Box::new(buffer), is_terminal: true, has_colours: false, is_closed: false }
    }
}

/// Says what failed on standard error, and with which code the process ends.
#[must_use]
pub fn fail(report: &Report) -> ExitCode {
    let stderr = io::stderr();
    let colours = wants_colours(stderr.is_terminal(), |name| std::env::var(name).ok());
    // Nobody is left to be told when this fails.
    let _ = writeln!(stderr.lock(), "{}", coloured(&report.to_string(), colours));
    ExitCode::from(report.exit.code())
}

/// Shows what clap has to say: help and version are done, anything else is a usage error.
#[must_use]
pub fn usage(mut error: clap::Error, verbs: &[&str]) -> ExitCode {
    suggest_verb(&mut error, verbs);
    // Nobody is left to be told when this fails.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(Exit::Usage.code()) } else { ExitCode::SUCCESS }
}

/// clap finds verbs that begin alike, but not letters that changed places.
fn suggest_verb(error: &mut clap::Error, verbs: &[&str]) {
    let Some(ContextValue::String(said)) = error.get(ContextKind::InvalidSubcommand) else {
        return;
    };
    let near = did_you_mean(said, verbs).map(str::to_owned);
    if let (Some(near), None) = (near, error.get(ContextKind::SuggestedSubcommand)) {
        let tip = ContextValue::Strings(vec![near]);
        error.insert(ContextKind::SuggestedSubcommand, tip);
    }
}

/// Colours the labels at the starts of lines.
fn coloured(text: &str, colours: bool) -> String {
    let labels = [("error:", "1;31"), ("cause:", "1;33"), ("help:", "1;36")];
    let lines = text.lines().map(|line| {
        let label = labels.iter().find(|(label, _)| line.starts_with(label));
        match label.and_then(|(label, code)| Some((label, code, line.strip_prefix(label)?))) {
            Some((label, code, rest)) => format!("{}{rest}", paint(colours, code, label)),
            None => line.to_owned(),
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn paint(colours: bool, code: &str, text: &str) -> String {
    if colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

fn wants_colours(is_terminal: bool, variable: impl Fn(&str) -> Option<String>) -> bool {
    if variable("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        return false;
    }
    let forced = variable("CLICOLOR_FORCE").is_some_and(|value| !value.is_empty() && value != "0");
    forced || is_terminal
}

/// Control characters other than tab and line feed as `\u{..}`.
fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && !"\t\n".contains(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// `text` for a place in a line: as it is when that is unmistakable, else as a JSON string.
#[must_use]
pub fn quoted(text: &str) -> String {
    let is_plain = !text.is_empty()
        && !text.starts_with(['"', ' '])
        && !text.ends_with(' ')
        && !text.chars().any(|c| c.is_control() || c == char::REPLACEMENT_CHARACTER);
    if is_plain {
        return text.to_owned();
    }
    let mut json = serde_json::Value::from(text).to_string();
    // JSON leaves these as they are; a terminal would not.
    for character in ('\u{7f}'..='\u{9f}').filter(|c| text.contains(*c)) {
        json = json.replace(character, &format!("\\u{:04x}", u32::from(character)));
    }
    json
}

/// Rows as columns, two spaces between, nothing behind the last.
#[must_use]
pub fn columns(rows: &[Vec<String>]) -> Vec<String> {
    let count = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_bytes_in_a_pipe_and_harmless_on_a_terminal() {
        let (mut pipe, mut terminal) = (Vec::new(), Vec::new());
        let value = "a\x1b[31m\tb\nc";
        Out::buffer(&mut pipe).value(value).unwrap();
        Out::terminal(&mut terminal).value(value).unwrap();
        assert_eq!(pipe, b"a\x1b[31m\tb\nc\n");
        assert_eq!(terminal, b"a\\u{1b}[31m\tb\nc\n");
    }

    #[test]
    fn only_odd_text_is_quoted() {
        let table = [
            ("plain text", "plain text"),
            ("{\"a\": 1}", "{\"a\": 1}"),
            ("ü", "ü"),
            ("", "\"\""),
            ("a\nb", "\"a\\nb\""),
            (" a", "\" a\""),
            ("\"a\"", "\"\\\"a\\\"\""),
            ("a\u{9b}31m", "\"a\\u009b31m\""),
            ("\x7f", "\"\\u007f\""),
        ];
        for (text, expected) in table {
            assert_eq!(quoted(text), expected);
        }
    }

    #[test]
    fn colours_follow_the_terminal_and_two_variables() {
        let table = [
            (true, "", "", true),
            (false, "", "", false),
            (true, "1", "", false),
            (false, "", "1", true),
            (false, "", "0", false),
            (true, "1", "1", false),
        ];
        for (is_terminal, no_color, force, expected) in table {
            let variable = |name: &str| match name {
                "NO_COLOR" => Some(no_color.to_owned()),
                "CLICOLOR_FORCE" => Some(force.to_owned()),
                _ => None,
            };
            assert_eq!(wants_colours(is_terminal, variable), expected);
        }
        let shown = coloured("error: no\n --> file\nhelp: yes", true);
        assert_eq!(shown, "\x1b[1;31merror:\x1b[0m no\n --> file\n\x1b[1;36mhelp:\x1b[0m yes");
        assert_eq!(coloured("error: no", false), "error: no");
    }

    #[test]
    fn columns_line_up() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let lines = columns(&[row(["NAME", "TO", "WHY"]), row(["a", "/etc/ü", ""])]);
        assert_eq!(lines, ["NAME  TO      WHY", "a     /etc/ü"]);
        assert!(columns(&[]).is_empty());
    }
}
