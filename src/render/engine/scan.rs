//! The outline of a template's text: its tags, expressions and comments, and the words in them.
//!
//! Why beside Tera's own parser: that one shows neither its tokens nor their places, and four
//! things are done to the text before or after Tera sees it: marking places (`tera`), checking
//! arguments and finding the template's own text (`calls`), and `trim_blocks`.
//!
//! Invariants:
//! * Ranges are byte offsets of the text as it was given.
//! * `trim_blocks` moves white space into the tag beside it and so changes no length: an offset
//!   behind a tag means the same place before and after.
//! * A text Tera would refuse is scanned to its end without an error; Tera then tells what is
//!   wrong with it.
//!
//! Deliberately not here: meaning.
//!
//! Sources: `parsing/lexer.rs` of tera 2.4.

use std::ops::Range;

/// What a part of a template does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Comment,
    Tag,
    Expression,
}

/// A part between two stretches of plain text, its delimiters included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) kind: Kind,
    pub(crate) range: Range<usize>,
}

/// The parts of a template in order; what is between `raw` and `endraw` is plain text.
pub(crate) fn parts(text: &str) -> Vec<Part> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some((kind, open)) = next_part(text, at) {
        let rest = text.get(open..).unwrap_or_default();
        let length = match kind {
            Kind::Comment => rest.find("#}").map(|end| end + 2),
            Kind::Tag => end_of(rest, "%}"),
            Kind::Expression => end_of(rest, "}}"),
        };
        let end = open + length.unwrap_or(rest.len());
        found.push(Part { kind, range: open..end });
        let raw = kind == Kind::Tag && word_of(text, open) == "raw";
        at = if raw { endraw(text, end) } else { end };
    }
    found
}

fn next_part(text: &str, from: usize) -> Option<(Kind, usize)> {
    let rest = text.get(from..)?;
    rest.match_indices('{').find_map(|(at, _)| {
        let kind = match rest.as_bytes().get(at + 1)? {
            b'#' => Kind::Comment,
            b'%' => Kind::Tag,
            b'{' => Kind::Expression,
            _ => return None,
        };
        Some((kind, from + at))
    })
}

/// The first word of the tag at `open`.
fn word_of(text: &str, open: usize) -> &str {
    let inner = text.get(open + 2..).unwrap_or_default();
    let inner = inner.strip_prefix('-').unwrap_or(inner).trim_start();
    let end = inner.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    inner.get(..end.unwrap_or(inner.len())).unwrap_or_default()
}

/// Where the `endraw` tag behind `from` begins.
fn endraw(text: &str, from: usize) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    let mut tags = rest.match_indices("{%").map(|(at, _)| from + at);
    tags.find(|at| word_of(text, *at) == "endraw").unwrap_or(text.len())
}

/// Offset just behind `close`, skipping quoted strings.
fn end_of(text: &str, close: &str) -> Option<usize> {
    let mut at = 2;
    loop {
        let rest = text.get(at..)?;
        let next = rest.chars().next()?;
        if rest.starts_with(close) {
            return Some(at + close.len());
        }
        at += if is_quote(next) { end_of_string(rest) } else { next.len_utf8() };
    }
}

fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\'' | '`')
}

/// The length of the quoted string `text` begins with.
fn end_of_string(text: &str) -> usize {
    let mut chars = text.char_indices();
    let quote = chars.next().map(|(_, quote)| quote);
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            chars.next();
        } else if Some(c) == quote {
            return at + c.len_utf8();
        }
    }
    text.len()
}

/// A word of a tag or an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token<'t> {
    /// A name, a keyword or a number.
    Word(&'t str),
    /// A string with its quotes.
    Text(&'t str),
    Sign(char),
}

/// The words of a tag or an expression, and where they are.
pub(crate) fn tokens<'t>(text: &'t str, part: &Part) -> Vec<(Token<'t>, Range<usize>)> {
    let mut found = Vec::new();
    let end = part.range.end.saturating_sub(2);
    let mut at = part.range.start + 2;
    while let Some((rest, c)) =
        text.get(at..end).and_then(|rest| Some((rest, rest.chars().next()?)))
    {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let length = match c {
            c if is_quote(c) => end_of_string(rest),
            c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        let word = rest.get(..length).unwrap_or_default();
        let token = match c {
            c if is_quote(c) => Token::Text(word),
            c if is_word(c) => Token::Word(word),
            c => Token::Sign(c),
        };
        if !c.is_whitespace() {
            found.push((token, at..at + length));
        }
        at += length;
    }
    // White space control is no word: `{{- x -}}`.
    let is_dash = |edge: Option<&(Token<'_>, Range<usize>)>, at: usize| {
        edge.is_some_and(|(token, range)| *token == Token::Sign('-') && range.start == at)
    };
    if is_dash(found.last(), end.wrapping_sub(1)) {
        found.pop();
    }
    if is_dash(found.first(), part.range.start + 2) {
        found.remove(0);
    }
    found
}

/// The text in which a line that holds only one tag or comment leaves nothing behind: the white
/// space before it and the line break after it are moved inside its delimiters.
pub(crate) fn trim_blocks(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for part in parts(text).iter().filter(|part| part.kind != Kind::Expression) {
        let Some(line) = alone_on_its_line(text, part) else { continue };
        let piece = |range: Range<usize>| text.get(range).unwrap_or_default();
        let Range { start, end } = part.range;
        let open = start + 2 + usize::from(piece(start + 2..start + 3) == "-");
        let close = end - 2 - usize::from(piece(end - 3..end - 2) == "-");
        for range in [
            done..line.start,
            start..open,
            line.start..start,
            open..close,
            end..line.end,
            close..end,
        ] {
            out.push_str(piece(range));
        }
        done = line.end;
    }
    out.push_str(text.get(done..).unwrap_or_default());
    out
}

/// The whole lines of a part that shares them with nothing, up to and with the line feed.
fn alone_on_its_line(text: &str, part: &Part) -> Option<Range<usize>> {
    let blank = |c: char| matches!(c, ' ' | '\t' | '\r');
    let before = text.get(..part.range.start)?;
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let after = text.get(part.range.end..)?;
    let end = after.find('\n').map_or(after.len(), |at| at + 1);
    let inner = text.get(part.range.start..part.range.end)?;
    let is_whole = inner.len() > 4 && (inner.ends_with("%}") || inner.ends_with("#}"));
    let alone = before.get(start..)?.chars().all(blank)
        && after.get(..end)?.trim_end_matches('\n').chars().all(blank);
    (alone && is_whole).then_some(start..part.range.end + end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<&str> {
        parts(text).into_iter().map(|part| text.get(part.range).unwrap()).collect()
    }

    #[test]
    fn parts_are_found_where_tera_finds_them() {
        assert_eq!(
            shown("a{b}{ {{ '}}' }}{# {{ #}{%- if x -%}"),
            ["{{ '}}' }}", "{# {{ #}", "{%- if x -%}"]
        );
        assert_eq!(
            shown("{% raw %}{{ endraw {% x %}{% endraw %}{{ 1 }}"),
            ["{% raw %}", "{% endraw %}", "{{ 1 }}"]
        );
        assert_eq!(shown("{{ \"a\\\"}}\" }} {{"), ["{{ \"a\\\"}}\" }}", "{{"]);
        for broken in ["{", "{{", "{%", "{#", "{{ 'a", "{% raw %}", "{{}}", "{%-%}", "ü{{'ü\\"] {
            let _ = trim_blocks(broken);
            parts(broken).iter().for_each(|part| {
                let _ = tokens(broken, part);
            });
        }
    }

    #[test]
    fn tokens_are_words_strings_and_signs() {
        let text = "{{- a_1 | f(x='é)', y=2.5) -}}";
        let part = parts(text).remove(0);
        let words: Vec<&str> =
            tokens(text, &part).into_iter().map(|(_, range)| text.get(range).unwrap()).collect();
        let expected = ["a_1", "|", "f", "(", "x", "=", "'é)'", ",", "y", "=", "2", ".", "5", ")"];
        assert_eq!(words, expected);
    }

    #[test]
    fn trimming_moves_white_space_into_the_tag() {
        for (text, expected) in [
            ("a\n  {% if x %}\nb\n", "a\n{%   if x \n%}b\n"),
            ("{%- if x -%} \r\nb", "{%- if x  \r\n-%}b"),
            ("{# c #}\n{# d #}", "{# c \n#}{# d #}"),
            ("a {% if x %}\nb", "a {% if x %}\nb"),
            ("{% if x %}{% if y %}\n", "{% if x %}{% if y %}\n"),
            ("  {{ x }}\n", "  {{ x }}\n"),
            ("{% raw %}\n{% if x %}\n{% endraw %}\n", "{% raw \n%}{% if x %}\n{% endraw \n%}"),
            ("{% set x = [\n1,\n] %}\ny", "{% set x = [\n1,\n] \n%}y"),
        ] {
            assert_eq!(trim_blocks(text), expected);
        }
    }
}
