//! The calls in a template: their arguments are checked, and the template's own text is set free.
//!
//! Why before Tera parses: Tera ignores an argument nobody asked for, so `defalt=` would be a
//! default that never comes; and to the line guard, which sees values, the `"\n"` a template
//! joins lines with would look like one a stored value brought.
//!
//! The way of the data: `check` refuses unknown arguments and those without a name -> `own_texts`
//! replaces each string that holds a line break or the like, where it is an argument, the value
//! of a `set` or the beginning of an expression, by a variable of the same length. The variable is
//! marked safe: it was written by the operator. Nothing else of the template changes, so places
//! in errors stay true.
//!
//! Invariants:
//! * Only a whole argument that is one string becomes such a variable: `sep="\n"` does,
//!   `sep="\n" ~ x` does not.
//! * The pattern of a replacement is set free too when it is the template's own; only then may
//!   the replacement bring a line break (`filters`), as otherwise a stored pattern would choose
//!   where.
//! * A name is used only if no file of the bundle has it.
//!
//! Deliberately not here: values; what a filter does with a safe text.
//!
//! Sources: `filters.rs`, `tests.rs` and `functions.rs` of tera 2.4 for their arguments.

use crate::base::diagnostic::{Diagnostic, did_you_mean};
use crate::render::engine::bundle::{Bundle, TemplateFile};
use crate::render::engine::scan::{self, Kind, Token};
use crate::render::guard;
use std::ops::Range;
use tera::{Context, Value};

/// What may be called, and with which arguments; the one most often meant comes first.
const FUNCTIONS: &[(&str, &[&str])] = &[
    ("exists", &["key"]),
    ("get", &["key"]),
    ("getenv", &["name", "default"]),
    ("gets", &["pattern"]),
    ("getv", &["key", "default"]),
    ("getvs", &["pattern"]),
    ("lookup_ip", &["name"]),
    ("ls", &["path"]),
    ("lsdir", &["path"]),
    ("node", &[]),
    ("range", &["end", "start", "step_by"]),
    ("revision", &[]),
    ("throw", &["message"]),
];

/// Filters and tests that take arguments; each other one takes none.
const FILTERS: &[(&str, &[&str])] = &[
    ("default", &["value", "boolean"]),
    ("get", &["key", "default"]),
    ("group_by", &["attribute"]),
    ("indent", &["width", "indentation", "first", "blank"]),
    ("int", &["base"]),
    ("join", &["sep"]),
    ("nth", &["n"]),
    ("pluralize", &["singular", "plural"]),
    ("regex_replace", &["pattern", "rep"]),
    ("replace", &["from", "to"]),
    ("round", &["method", "precision"]),
    ("sort", &["attribute"]),
    ("split", &["pat"]),
    ("to_json", &["pretty"]),
    ("trim", &["pat"]),
    ("trim_end", &["pat"]),
    ("trim_start", &["pat"]),
    ("truncate", &["length", "end"]),
];

const TESTS: &[(&str, &[&str])] = &[
    ("containing", &["pat"]),
    ("divisible_by", &["divisor"]),
    ("ending_with", &["pat"]),
    ("starting_with", &["pat"]),
];

/// Arguments that say where a replacement goes.
const WHERE: &[&str] = &["from", "pattern"];

type Words<'t> = [(Token<'t>, Range<usize>)];

/// One call: what is called, and its arguments as indices of words.
struct Call<'t> {
    name: &'t str,
    known: Option<&'static [&'static str]>,
    /// The first word behind `(`.
    first: usize,
    /// Names of arguments: word before `=`.
    named: Vec<usize>,
}

/// Refuses arguments that are not known, or have no name.
///
/// # Errors
/// The first such argument, with its place.
pub(crate) fn check(bundle: &Bundle) -> Result<(), Diagnostic> {
    for file in &bundle.files {
        for part in scan::parts(&file.text).iter().filter(|part| part.kind != Kind::Comment) {
            let words = scan::tokens(&file.text, part);
            calls(&words).iter().try_for_each(|call| check_call(file, &words, call))?;
        }
    }
    Ok(())
}

fn check_call(file: &TemplateFile, words: &Words<'_>, call: &Call<'_>) -> Result<(), Diagnostic> {
    let Some(known) = call.known else { return Ok(()) };
    let at = |index: usize, message: String| {
        let range = words.get(index).map_or(0..0, |(_, range)| range.clone());
        Err(Diagnostic::new(&file.path, message).at(&file.text, &range))
    };
    let name = call.name;
    if let (Some(argument), Some(first)) = (without_name(words, call.first), known.first()) {
        return at(call.first, format!("the argument of `{name}` has no name"))
            .map_err(|error| error.help(format!("write {name}({first}={argument})")));
    }
    for index in &call.named {
        let Some(Token::Word(argument)) = word(words, *index) else { continue };
        if !known.contains(&argument) {
            let help = match did_you_mean(argument, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None if known.is_empty() => format!("`{name}` takes no arguments"),
                None => format!("`{name}` takes {}", known.join(", ")),
            };
            return at(*index, format!("`{name}` has no argument `{argument}`"))
                .map_err(|error| error.help(help));
        }
    }
    Ok(())
}

/// The first argument of a call if it is a string, or one word alone.
fn without_name<'t>(words: &Words<'t>, first: usize) -> Option<&'t str> {
    match (word(words, first)?, word(words, first + 1)?) {
        (Token::Text(text), _) | (Token::Word(text), Token::Sign(')' | ',')) => Some(text),
        _ => None,
    }
}

fn word<'t>(words: &Words<'t>, at: usize) -> Option<Token<'t>> {
    words.get(at).map(|(token, _)| *token)
}

/// The calls among the words of one tag or expression.
fn calls<'t>(words: &Words<'t>) -> Vec<Call<'t>> {
    let mut found: Vec<Call<'t>> = Vec::new();
    if word(words, 0) == Some(Token::Word("component")) {
        return found;
    }
    // What was opened and is not closed yet; a call by its index.
    let mut open: Vec<Option<usize>> = Vec::new();
    for at in 0..words.len() {
        match word(words, at) {
            Some(Token::Sign('(')) => {
                let call = at.checked_sub(1).and_then(|name| called(words, name));
                open.push(call.map(|call| {
                    found.push(call);
                    found.len() - 1
                }));
            }
            Some(Token::Sign('[' | '{')) => open.push(None),
            Some(Token::Sign(')' | ']' | '}')) => {
                open.pop();
            }
            Some(Token::Word(_)) if is_name_of_argument(words, at) => {
                let call = open.last().copied().flatten().and_then(|call| found.get_mut(call));
                if let Some(call) = call {
                    call.named.push(at);
                }
            }
            Some(Token::Word(_) | Token::Text(_) | Token::Sign(_)) | None => {}
        }
    }
    found
}

fn is_name_of_argument(words: &Words<'_>, at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|before| word(words, before));
    matches!(before, Some(Token::Sign('(' | ',')))
        && word(words, at + 1) == Some(Token::Sign('='))
        && word(words, at + 2) != Some(Token::Sign('='))
}

/// The call of the word before a `(`: a filter behind `|`, a test behind `is`, else a function.
fn called<'t>(words: &Words<'t>, at: usize) -> Option<Call<'t>> {
    let Some(Token::Word(name)) = word(words, at) else { return None };
    let before = |steps: usize| at.checked_sub(steps).and_then(|before| word(words, before));
    let of = |table: &'static [(&str, &'static [&'static str])]| {
        table.iter().find(|(known, _)| *known == name).map(|(_, arguments)| *arguments)
    };
    let is_test = |word: Option<Token<'_>>| word == Some(Token::Word("is"));
    let known = match before(1) {
        Some(Token::Sign('|')) => of(FILTERS).or(Some(&[])),
        Some(Token::Word("filter")) if at == 1 => of(FILTERS).or(Some(&[])),
        Some(Token::Word("not")) if is_test(before(2)) => of(TESTS),
        word if is_test(word) => of(TESTS),
        _ => of(FUNCTIONS),
    };
    Some(Call { name, known, first: at + 2, named: Vec::new() })
}

/// The template's own texts with line breaks and the like, as variables.
#[derive(Debug, Default)]
pub(crate) struct OwnTexts {
    names: Vec<String>,
    /// The variables, for rendering.
    pub(crate) context: Context,
}

impl OwnTexts {
    /// A message of Tera that lists variables, without these.
    pub(crate) fn left_out(&self, message: &str) -> String {
        let mark = "Available variables: ";
        let Some((head, list)) = message.split_once(mark) else { return message.to_owned() };
        let kept: Vec<&str> =
            list.split(", ").filter(|name| !self.names.iter().any(|own| own == name)).collect();
        match kept.is_empty() {
            true => head.trim_end().to_owned(),
            false => format!("{head}{mark}{}", kept.join(", ")),
        }
    }

    /// `text` with its own texts replaced by variables of the same length, which are added.
    pub(crate) fn replace(&mut self, text: &str, bundle: &Bundle) -> String {
        let mut out = String::with_capacity(text.len());
        let mut done = 0;
        for (literal, range) in own_texts(text) {
            let Some(name) = self.name_for(range.len(), bundle) else { continue };
            self.context.insert_value(name.clone(), Value::safe_string(&literal));
            out.push_str(text.get(done..range.start).unwrap_or_default());
            out.push_str(&name);
            self.names.push(name);
            done = range.end;
        }
        out.push_str(text.get(done..).unwrap_or_default());
        out
    }

    /// A name of this length that nothing has yet.
    fn name_for(&self, length: usize, bundle: &Bundle) -> Option<String> {
        let digits = length.checked_sub(1).filter(|digits| *digits > 0)?;
        let names = (0..1_000).map(|number| format!("v{number:0digits$}"));
        let is_free = |name: &String| {
            !self.names.contains(name)
                && !bundle.files.iter().any(|file| file.text.contains(name.as_str()))
        };
        names.filter(|name| name.len() == length).find(is_free)
    }
}

/// The strings of a template that are set free, with their places.
fn own_texts(text: &str) -> Vec<(String, Range<usize>)> {
    let mut found = Vec::new();
    let mut in_component = false;
    for part in scan::parts(text).iter().filter(|part| part.kind != Kind::Comment) {
        let words = scan::tokens(text, part);
        match word(&words, 0) {
            // A component sees none of the variables around it.
            Some(Token::Word("component")) => in_component = true,
            Some(Token::Word("endcomponent")) => in_component = false,
            _ if in_component => {}
            _ => found.extend(own_among(&words, part.kind)),
        }
    }
    found
}

fn own_among(words: &Words<'_>, kind: Kind) -> Vec<(String, Range<usize>)> {
    let mut found: Vec<(String, Range<usize>)> = Vec::new();
    let mut take = |at: usize, always: bool| {
        let Some((Token::Text(quoted), range)) = words.get(at) else { return };
        let literal = unescaped(quoted);
        if always || guard::check_line(&literal).is_err() {
            found.push((literal, range.clone()));
        }
    };
    if kind == Kind::Expression {
        take(0, false);
    }
    if matches!(word(words, 0), Some(Token::Word("set" | "set_global"))) {
        take(3, false);
    }
    for call in calls(words) {
        for name in call.named {
            let ends = matches!(word(words, name + 3), Some(Token::Sign(',' | ')')));
            let is_where = WHERE.iter().any(|known| word(words, name) == Some(Token::Word(known)));
            if ends {
                take(name + 2, is_where);
            }
        }
    }
    found.sort_by_key(|(_, range)| range.start);
    found
}

/// What a quoted string stands for.
fn unescaped(quoted: &str) -> String {
    let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        out.push(match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                Some(other) => other,
                None => break,
            },
            (c, false) => c,
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(text: &str) -> Bundle {
        let file = TemplateFile { name: "t".into(), path: "t".into(), text: text.into() };
        Bundle { files: vec![file], trim_blocks: false }
    }

    #[test]
    fn arguments_are_known_and_named() {
        for good in [
            "{{ getv(key='/x', default=getv(key='/y')) | to_json(pretty=true) }}",
            "{% if a is containing(pat='x') and b(unknown=1) %}{% filter indent(first=true) %}",
            "{% component c(x, y='1') %}{{ <c x={f(a=1)} /> }}{{ (a == b) | join(sep='=') }}",
            "{# getv(defalt=1) #}{% raw %}{{ getv('x') }}{% endraw %} getv(defalt=1)",
            "{{ [getv(key='x'), {'a': range(end=[1, 2] | length)}] }}",
        ] {
            assert_eq!(check(&bundle(good)), Ok(()), "{good}");
        }
        for (bad, column, message, help) in [
            ("{{ getv(key='/x', defalt='d') }}", 19, "`getv` has no argument `defalt`", "default"),
            ("{{ x | to_json(prety=true) }}", 16, "`to_json` has no", "did you mean `pretty`?"),
            ("{{ x | upper(a=1) }}", 14, "`upper` has no", "takes no arguments"),
            ("{{ x | join(separator=',') }}", 13, "`join` has no", "`join` takes sep"),
            ("{{ getv('/x') }}", 9, "has no name", "write getv(key='/x')"),
            ("{{ getv(k) }}", 9, "has no name", "write getv(key=k)"),
            ("{{ x | default(\"y\") }}", 16, "has no name", "write default(value=\"y\")"),
            ("{% if x is not containing(at='x') %}", 27, "`containing` has no", "`pat`"),
            (
                "{% filter replace(form='X', to='') %}",
                19,
                "`replace` has no",
                "did you mean `from`?",
            ),
            ("{{ getvs(pattern=getv(kee='x')) }}", 23, "`getv` has no", "did you mean `key`?"),
        ] {
            let error = check(&bundle(bad)).unwrap_err();
            assert_eq!(error.place.as_ref().unwrap().column, column, "{error}");
            assert!(error.message.contains(message), "{error}");
            assert!(error.help.as_deref().unwrap_or_default().contains(help), "{error}");
        }
    }

    #[test]
    fn own_texts_are_whole_strings_of_the_template() {
        let own = |text: &str| own_texts(text).into_iter().map(|(own, _)| own).collect::<Vec<_>>();
        for (text, expected) in [
            ("{{ x | join(sep=\"\\n\") }}", vec!["\n"]),
            ("{{ x | replace(from=',', to='\\t\\\\') }}", vec![",", "\t\\"]),
            ("{{ \"a\tb\" }}{% set nl = '\n' %}", vec!["a\tb", "\n"]),
            ("{{ x | join(sep='\\n' ~ y) }}{{ x | join(sep=y ~ '\\n') }}", vec![]),
            ("{{ x | join(sep='\\n' if y else z) }}{{ x | join(sep=', ') }}", vec![]),
            ("{% component c(x='\\n') %}{{ '\\n' }}{% endcomponent c %}", vec![]),
            ("{{ <c x='\\n' /> }}{% include '\\n' %}{# '\\n' #}", vec![]),
        ] {
            assert_eq!(own(text), expected, "{text}");
        }
    }

    #[test]
    fn names_are_free_and_as_long_as_the_text() {
        let text = "v000 {{ x | join(sep=\"\\n\") }}{{ x | replace(from='', to='\n') }}";
        let mut own = OwnTexts::default();
        let replaced = own.replace(text, &bundle(text));
        assert_eq!(replaced, "v000 {{ x | join(sep=v001) }}{{ x | replace(from=v1, to=v01) }}");
        let shown = own.left_out("x is not defined. Available variables: a, v01, v1");
        assert_eq!(shown, "x is not defined. Available variables: a");
        assert_eq!(own.left_out("no. Available variables: v01"), "no.");
        assert_eq!(own.left_out("else"), "else");
    }
}
