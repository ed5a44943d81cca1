//! Patterns of key names, as `gets` and `getvs` take them.
//!
//! The rules are those of Go's `path.Match`, which confd's templates rely on: `*` any run of
//! characters, `?` one, `[a-c]` and `[^a-c]` one of a class, `\` takes the next as it is; none of
//! them crosses a `/`. A pattern names the whole key.
//!
//! Invariant: matching takes time proportional to pattern times name, whatever the pattern.
//!
//! Deliberately not here: `**`, which confd does not have either.

/// One step of a pattern.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Literal(char),
    AnyOne,
    AnyRun,
    Class { negated: bool, ranges: Vec<(char, char)> },
}

/// A parsed pattern.
#[derive(Debug)]
pub(crate) struct Pattern {
    steps: Vec<Step>,
}

/// The pattern ends inside a class or an escape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed pattern: a `[` without `]`, or a `\\` at the end")]
pub(crate) struct BadPattern;

impl Pattern {
    pub(crate) fn parse(text: &str) -> Result<Self, BadPattern> {
        let mut chars = text.chars().peekable();
        let mut steps = Vec::new();
        while let Some(c) = chars.next() {
            steps.push(match c {
                '*' => Step::AnyRun,
                '?' => Step::AnyOne,
                '\\' => Step::Literal(chars.next().ok_or(BadPattern)?),
                '[' => class(&mut chars)?,
                other => Step::Literal(other),
            });
        }
        Ok(Self { steps })
    }

    /// The name itself, if the pattern can match only one.
    pub(crate) fn as_name(&self) -> Option<String> {
        let literal = |step: &Step| if let Step::Literal(c) = step { Some(*c) } else { None };
        self.steps.iter().map(literal).collect()
    }

    /// The deepest directory every match lies in, without the slash at its end.
    pub(crate) fn directory(&self) -> String {
        let literal = |step: &Step| if let Step::Literal(c) = step { Some(*c) } else { None };
        let head: String = self.steps.iter().map_while(literal).collect();
        head.rfind('/').and_then(|at| head.get(..at)).unwrap_or_default().to_owned()
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let (mut step, mut at) = (0, 0);
        // Where to go on when a literal fails: after the last run, one character further. The
        // last run is enough: runs end at a slash, and slashes are matched one to one.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            match (self.steps.get(step), name.get(at)) {
                (None, None) => return true,
                (Some(Step::AnyRun), _) => {
                    step += 1;
                    retry = Some((step, at));
                    continue;
                }
                (Some(single), Some(c)) if single.takes(*c) => {
                    (step, at) = (step + 1, at + 1);
                    continue;
                }
                (Some(_), _) | (None, Some(_)) => {}
            }
            match retry {
                Some((after, from)) if name.get(from).is_some_and(|c| *c != '/') => {
                    retry = Some((after, from + 1));
                    (step, at) = (after, from + 1);
                }
                Some(_) | None => return false,
            }
        }
    }
}

impl Step {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Literal(literal) => *literal == c,
            Self::AnyOne => c != '/',
            Self::AnyRun => false,
            Self::Class { negated, ranges } => {
                let inside = ranges.iter().any(|(low, high)| (*low..=*high).contains(&c));
                c != '/' && inside != *negated
            }
        }
    }
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Step, BadPattern> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        // A `]` closes only after at least one range, as in Go.
        if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
            return Ok(Step::Class { negated, ranges });
        }
        let low = class_char(chars)?;
        let high = if chars.next_if_eq(&'-').is_some() { class_char(chars)? } else { low };
        ranges.push((low, high));
    }
}

fn class_char(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<char, BadPattern> {
    match chars.next().ok_or(BadPattern)? {
        '-' | ']' => Err(BadPattern),
        '\\' => chars.next().ok_or(BadPattern),
        c => Ok(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_go_does() {
        let cases = [
            ("/a/*", "/a/b", true),
            ("/a/*", "/a/", true),
            ("/a/*", "/a/b/c", false),
            ("/a/**", "/a/b/c", false),
            ("/*/x*y", "/q/xzzy", true),
            ("/*/x*y", "/q/xzz", false),
            ("*", "/a", false),
            ("/?", "/a", true),
            ("/?", "//", false),
            ("/[a-c]", "/b", true),
            ("/[^a-c]", "/b", false),
            ("/[^a-c]", "/d", true),
            ("/[x]b", "/xb", true),
            ("/\\*", "/*", true),
            ("/\\*", "/a", false),
            ("", "", true),
            ("/a*b*c", "/abbbcbc", true),
            ("/a*b*c", "/abbbcb", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(
                Pattern::parse(pattern).unwrap().matches(name),
                expected,
                "{pattern} {name}"
            );
        }
        for bad in ["[", "[a", "[]", "[a-]", "\\", "[-a]"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn knows_where_to_look() {
        for (text, directory, name) in [
            ("/a/b/*", "/a/b", None),
            ("/a/b*/c", "/a", None),
            ("/*", "", None),
            ("*", "", None),
            ("/a/b", "/a", Some("/a/b")),
            ("/a\\*/b", "/a*", Some("/a*/b")),
        ] {
            let pattern = Pattern::parse(text).unwrap();
            assert_eq!(
                (pattern.directory().as_str(), pattern.as_name().as_deref()),
                (directory, name)
            );
        }
    }

    #[test]
    fn many_runs_do_not_explode() {
        let pattern = Pattern::parse(&format!("/{}b", "*a".repeat(50))).unwrap();
        assert!(!pattern.matches(&format!("/{}", "a".repeat(5_000))));
    }
}
