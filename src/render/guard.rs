//! The line guard: stored bytes cannot add lines to a file.
//!
//! Why: who may write a key must not be able to write a directive. Most configuration formats
//! end a statement at the end of the line, so a value `web\nuser root` would be two statements.
//! The guard looks at every string a template puts into its output, *after* all filters, so that
//! a line break out of decoded JSON or base64 is seen too. The template's own text is free.
//!
//! The hook is Tera's escape function, called for each `{{ }}` whose value is not marked safe
//! (`vm/interpreter.rs::write_value` of tera 2.4): autoescape is on for all templates, and this
//! is the escape function. `engine::filters` sees to it that only `| multiline` can mark a stored
//! value safe. What a `{% set %}` block or a component captured was guarded while it was written.
//!
//! Invariants:
//! * Refused: every control character of Unicode (C0 with tab, DEL, C1) and the separators
//!   U+2028 and U+2029. Tab is among them because in `fstab`, `hosts` and Makefiles it is syntax.
//! * `| multiline` lets white space of any kind through, and nothing else: NUL and ESC have no
//!   place in a text file.
//! * The guard never changes a byte; it lets a string pass or stops the render.
//!
//! Deliberately not here: quoting for a particular format (filters do that), and which key it was
//! (`engine::tera` finds it after the fact, so that the good path costs one scan).
//!
//! Sources: OWASP on CRLF injection (CWE-93).

/// Why a string may not be put into the output: the first character that is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hostile(pub char);

impl std::fmt::Display for Hostile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.0 {
            '\n' => "a line feed",
            '\r' => "a carriage return",
            '\t' => "a tab",
            '\0' => "a NUL",
            '\u{1b}' => "an escape character",
            '\u{2028}' | '\u{2029}' => "a line separator",
            _ => "a control character",
        };
        write!(f, "{name} (U+{:04X})", u32::from(self.0))
    }
}

/// Whether `text` may stand inside a line.
///
/// # Errors
/// The first character that may not.
pub fn check_line(text: &str) -> Result<(), Hostile> {
    // Bytes first: what needs a closer look starts below 0x20, at 0x7f, or with 0xc2 or 0xe2.
    let suspect = |byte: u8| byte < 0x20 || byte == 0x7f || byte == 0xc2 || byte == 0xe2;
    if !text.bytes().any(suspect) {
        return Ok(());
    }
    text.chars().find(|c| is_hostile(*c)).map_or(Ok(()), |c| Err(Hostile(c)))
}

/// Whether `text` may stand in a file over several lines.
///
/// # Errors
/// The first character that may not.
pub fn check_multiline(text: &str) -> Result<(), Hostile> {
    let hostile = text.chars().find(|c| is_hostile(*c) && !c.is_whitespace());
    hostile.map_or(Ok(()), |c| Err(Hostile(c)))
}

fn is_hostile(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_refused() {
        for good in ["", "plain", "Grüße", "a b", "“quoted” – dash", "Â¡", "日本"] {
            assert_eq!(check_line(good), Ok(()), "{good}");
        }
        for bad in "\0\t\n\r\u{b}\u{1b}\u{7f}\u{85}\u{9b}\u{2028}\u{2029}".chars() {
            assert_eq!(check_line(&format!("a{bad}b")), Err(Hostile(bad)), "{bad:?}");
        }
        assert_eq!(check_multiline("a\r\n\tb\u{85}\u{2028}c\u{c}"), Ok(()));
        for bad in "\0\u{1b}\u{7f}\u{9b}".chars() {
            assert_eq!(check_multiline(&format!("a\n{bad}")), Err(Hostile(bad)), "{bad:?}");
        }
        assert_eq!(Hostile('\n').to_string(), "a line feed (U+000A)");
    }
}
