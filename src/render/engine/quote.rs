//! Quoting: any text as one word of a configuration format.
//!
//! Why a filter each: the formats share their quotes and not their rules, and a value that leaves
//! its quotes is a directive.
//!
//! Invariants:
//! * What comes out is one word of that format and stands for exactly what went in, or there is
//!   an error. Line breaks and other control characters stay, for the line guard to refuse.
//!
//! Deliberately not here: a format's second level of meaning, such as HAProxy's `%[...]` inside a
//! log format, its commas inside the parentheses of a converter, or a regular expression.
//!
//! Sources: HAProxy's configuration manual, section 2.2; nginx's `ngx_conf_read_token`;
//! systemd.exec(5) on `EnvironmentFile`.

/// Quotes for systemd's `EnvironmentFile` and for a POSIX shell alike.
pub(crate) fn env(text: &str) -> String {
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

/// Strong quotes of HAProxy: nothing means anything inside, and a `'` is written outside.
pub(crate) fn haproxy(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Double quotes of nginx; `None` for a text with `$`, for which nginx has no escape: it would
/// name a variable.
pub(crate) fn nginx(text: &str) -> Option<String> {
    if text.contains('$') {
        return None;
    }
    Some(format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_has_its_quotes() {
        let cases = [
            ("", "''", Some("\"\"")),
            ("a", "'a'", Some("\"a\"")),
            ("a b#{;}%", "'a b#{;}%'", Some("\"a b#{;}%\"")),
            ("it's", r"'it'\''s'", Some("\"it's\"")),
            (r#"a"\n"#, r#"'a"\n'"#, Some(r#""a\"\\n""#)),
            ("grün\\", r"'grün\'", Some(r#""grün\\""#)),
            ("$x ${y}", "'$x ${y}'", None),
        ];
        for (text, for_haproxy, for_nginx) in cases {
            assert_eq!(haproxy(text), for_haproxy, "{text}");
            assert_eq!(nginx(text).as_deref(), for_nginx, "{text}");
        }
        assert_eq!(env(r#"$5 `now` "a" \"#), r#""\$5 \`now\` \"a\" \\""#);
    }
}
