//! What of a Rust file is code, what is comment, and where its items end.
//!
//! The rules look for words and count braces. Both go wrong on plain text: a brace in a string,
//! a word in a comment, a `'{'`. So a file is read once, character by character, into two masks
//! of its own shape: `code` has every comment and the inside of every literal turned to spaces,
//! `comments` has everything else turned to spaces. Line and column stay what they were.
//!
//! Invariants:
//! * both masks have as many characters and the same line breaks as the file;
//! * no character is in both masks.
//!
//! Deliberately not a parser: it knows literals, comments, brackets and the word `fn`, no more.

/// One Rust file, split into what the compiler runs and what people read.
pub(crate) struct Source {
    /// The file with comments and the inside of literals blanked.
    pub(crate) code: String,
    /// The file with everything but comments blanked.
    pub(crate) comments: String,
    /// Lines taken up by test items; known once they are cut out.
    pub(crate) test_lines: usize,
}

/// A function: the line its `fn` stands on and the lines up to its closing brace.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) lines: usize,
}

impl Source {
    /// Splits `text` into its masks.
    pub(crate) fn new(text: &str) -> Self {
        let characters: Vec<char> = text.chars().collect();
        let mut source = Self { code: String::new(), comments: String::new(), test_lines: 0 };
        let mut at = 0;
        while at < characters.len() {
            let rest = &characters[at..];
            let before = at.checked_sub(1).map(|i| characters[i]);
            let (kind, length) = next_piece(rest, before);
            for character in &rest[..length] {
                source.push(*character, kind);
            }
            at += length;
        }
        source
    }

    fn push(&mut self, character: char, kind: Piece) {
        let blank = if character == '\n' { '\n' } else { ' ' };
        self.code.push(if kind == Piece::Code { character } else { blank });
        self.comments.push(if kind == Piece::Comment { character } else { blank });
    }

    /// Blanks every item that is compiled only for tests, in both masks.
    pub(crate) fn without_tests(mut self) -> Self {
        let code: Vec<char> = self.code.chars().collect();
        let spans = test_items(&code);
        self.test_lines = spans.iter().map(|(start, end)| 1 + newlines(&code[*start..*end])).sum();
        for mask in [&mut self.code, &mut self.comments] {
            let blanked = mask.chars().enumerate().map(|(at, character)| {
                let inside = spans.iter().any(|(start, end)| (*start..*end).contains(&at));
                if inside && character != '\n' { ' ' } else { character }
            });
            *mask = blanked.collect();
        }
        self
    }

    /// Every function with a body, nested ones too, in the order they begin.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let code: Vec<char> = self.code.chars().collect();
        let mut found = Vec::new();
        for (at, word) in words(&code) {
            let named = if word == "fn" { code[at + 2..].strip_prefix(&[' ']) } else { None };
            let Some(rest) = named else { continue };
            let name: String = rest.iter().take_while(|c| is_word(**c) || **c == '$').collect();
            let end = item_end(&code, at);
            if code.get(end - 1) == Some(&'}') {
                let line = 1 + newlines(&code[..at]);
                found.push(Function { name, line, lines: newlines(&code[at..end]) + 1 });
            }
        }
        found
    }

    /// Modules declared with `#[cfg(test)] mod name;`: their files hold tests only.
    pub(crate) fn test_modules(&self) -> Vec<String> {
        let code: Vec<char> = self.code.chars().collect();
        let declarations = test_items(&code).into_iter().filter_map(|(start, end)| {
            let item: String = code[start..end].iter().collect();
            let name = item.strip_suffix(';')?.rsplit_once("mod ")?.1;
            Some(name.trim().to_owned())
        });
        declarations.collect()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    Code,
    Comment,
    Literal,
}

/// The piece at the start of `rest` and its length; literals include their quotes.
fn next_piece(rest: &[char], before: Option<char>) -> (Piece, usize) {
    match rest {
        ['/', '/', ..] => (Piece::Comment, find(rest, |tail| tail[0] == '\n')),
        ['/', '*', ..] => (Piece::Comment, block_comment(rest)),
        ['"', ..] => (Piece::Literal, quoted(rest, '"')),
        ['\'', ..] if is_character_literal(rest) => (Piece::Literal, quoted(rest, '\'')),
        ['r' | 'b' | 'c', ..] if !before.is_some_and(is_word) => prefixed(rest),
        _ => (Piece::Code, 1),
    }
}

/// `r"…"`, `r#"…"#`, `b"…"`, `br#"…"#`, `c"…"`, `b'…'`, or a word that merely starts so.
fn prefixed(rest: &[char]) -> (Piece, usize) {
    let letters = find(rest, |tail| !matches!(tail[0], 'r' | 'b' | 'c'));
    let hashes = find(&rest[letters..], |tail| tail[0] != '#');
    let raw = rest[..letters].contains(&'r');
    match rest.get(letters + hashes) {
        Some('"') if raw && letters <= 2 => {
            let body = letters + hashes + 1;
            let closes = |tail: &[char]| {
                tail[0] == '"' && tail.iter().skip(1).take_while(|c| **c == '#').count() >= hashes
            };
            let end = body + find(&rest[body..], closes) + 1 + hashes;
            (Piece::Literal, end.min(rest.len()))
        }
        Some(quote @ ('"' | '\'')) if hashes == 0 && letters == 1 => {
            (Piece::Literal, 1 + quoted(&rest[1..], *quote))
        }
        _ => (Piece::Code, 1),
    }
}

/// Length of a quoted literal that starts at its opening quote; an escape hides a quote.
fn quoted(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            found if found == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// `'x'` and `'\n'` are literals, `'static` is a lifetime.
fn is_character_literal(rest: &[char]) -> bool {
    matches!(rest, ['\'', '\\', ..] | ['\'', _, '\'', ..])
}

/// Length of a block comment; they nest.
fn block_comment(rest: &[char]) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => (at, depth) = (at + 2, depth + 1),
            ['*', '/', ..] => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Start and end of each item below a `#[cfg(test)]`, the attribute included.
fn test_items(code: &[char]) -> Vec<(usize, usize)> {
    const ATTRIBUTE: &[char] = &['#', '[', 'c', 'f', 'g', '(', 't', 'e', 's', 't', ')', ']'];
    let mut spans = Vec::new();
    let mut at = 0;
    while at < code.len() {
        if code[at..].starts_with(ATTRIBUTE) {
            let end = item_end(code, at);
            spans.push((at, end));
            at = end;
        } else {
            at += 1;
        }
    }
    spans
}

/// Where the item that begins at `start` ends: after the `;`, or the `}` of the first block, that
/// stands outside every round and square bracket. Masked code only.
fn item_end(code: &[char], start: usize) -> usize {
    let (mut brackets, mut braces) = (0, 0);
    for (at, character) in code.iter().enumerate().skip(start) {
        match character {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            '{' => braces += 1,
            '}' => braces -= 1,
            _ => {}
        }
        if matches!(character, '}' | ';') && braces == 0 && brackets == 0 {
            return at + 1;
        }
    }
    code.len()
}

/// Every identifier-like word and where it starts.
pub(crate) fn words(code: &[char]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < code.len() {
        let length = find(&code[at..], |tail| !is_word(tail[0]));
        if length > 0 {
            found.push((at, code[at..at + length].iter().collect()));
        }
        at += length.max(1);
    }
    found
}

/// Whether a character may be inside an identifier.
pub(crate) fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Offset of the first tail that `matches`, or the length.
fn find(characters: &[char], matches: impl Fn(&[char]) -> bool) -> usize {
    (0..characters.len()).find(|at| matches(&characters[*at..])).unwrap_or(characters.len())
}

fn newlines(code: &[char]) -> usize {
    code.iter().filter(|c| **c == '\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        let source = Source::new(text);
        assert_eq!(source.code.chars().count(), text.chars().count());
        assert_eq!(source.code.matches('\n').count(), text.matches('\n').count());
        source.code
    }

    /// Cases compare word by word: `code` has checked that nothing moved.
    #[test]
    fn literals_and_comments_are_blanked() {
        let cases = [
            ("a // {\nb", "a b"),
            ("a /* { /* } */ { */ b", "a b"),
            (r#"f("{ \" }") {"#, "f( ) {"),
            ("f('{', '\\'', '\\u{7d}') }", "f( , , ) }"),
            ("<'a>(x: &'a str) {", "<'a>(x: &'a str) {"),
            ("r#\"{\"}\"# + br\"{\" + b\"}\" + b'{' + c\"{\"", "+ + + +"),
            ("r##\"a\"#{\"## }", "}"),
            ("r#fn for_r\"{\"", "r#fn for_r"),
            ("\"multi\n{line\" }", "}"),
            ("\"open {", ""),
        ];
        for (text, expected) in cases {
            let words: Vec<_> = code(text).split_whitespace().map(str::to_owned).collect();
            assert_eq!(words.join(" "), expected, "{text}");
        }
    }

    #[test]
    fn comments_keep_their_words() {
        let source = Source::new("let a = \"// no\"; // yes\n");
        assert_eq!(source.comments.trim(), "// yes");
    }

    #[test]
    fn functions_are_measured_past_braces_in_literals() {
        let text = "pub fn one(a: [u8; 2]) -> char {\n    // }\n    '}'\n}\n\
                    trait T {\n    fn declared(&self);\n    fn two(&self) { \"}\n}\"; }\n}\n\
                    type F = fn(u8) -> u8;\n\
                    fn three() where [(); 2]: Sized {\n    fn inner() {\n    }\n}\n";
        let functions = Source::new(text).functions();
        let found: Vec<_> = functions.iter().map(|f| (f.name.as_str(), f.line, f.lines)).collect();
        assert_eq!(found, [("one", 1, 4), ("two", 7, 2), ("three", 11, 4), ("inner", 12, 2)]);
    }

    #[test]
    fn test_items_are_cut_out_wherever_they_stand() {
        let text = "#[cfg(test)]\nuse a::b;\nfn kept() {}\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n\
                    fn gone() { }\n}\n#[cfg(test)]\nmod golden;\nfn last() {}\n";
        let source = Source::new(text);
        assert_eq!(source.test_modules(), ["golden"]);
        let names: Vec<_> =
            source.without_tests().functions().into_iter().map(|f| f.name).collect();
        assert_eq!(names, ["kept", "last"]);
    }
}
