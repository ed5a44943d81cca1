//! The Tera 2 engine.
//!
//! Why Tera: errors with a place, unknown filters refused when a template is parsed, one small
//! dependency. `preserve_order` is on, for otherwise maps iterate in another order in every
//! process and the file would "change" at each restart.
//!
//! The way of a render: the bundle is parsed once and kept while its texts are equal -> the
//! session goes where functions find it -> Tera writes into a bounded buffer, the line guard
//! being its escape function -> bytes, or an error turned into a `Diagnostic`.
//!
//! Invariants:
//! * Autoescape is on for every template (the empty suffix ends every name).
//! * After a guard refusal the template is rendered again with marks before each `{{`, to find
//!   the place, as Tera tells none for a failing writer. The good path pays nothing for this.
//!
//! Deliberately not here: limits of time and memory (`child`).

use crate::base::diagnostic::Diagnostic;
use crate::base::limits;
use crate::render::engine::bundle::{Bundle, TemplateFile};
use crate::render::engine::functions::{self, Shared};
use crate::render::engine::{Failure, Rendered, Session, filters};
use crate::render::guard::{self, Hostile};
use std::cell::RefCell;
use std::io::Write;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use tera::{Context, ErrorKind, Kwargs, State, Tera};

/// Tera with the template sets it has parsed, least recently used first.
pub(crate) struct TeraEngine {
    parsed: Vec<(Bundle, Tera)>,
    shared: Shared,
}

/// What the guard refused: the escape function has no other way to tell.
#[derive(Clone)]
struct Refusal {
    text: String,
    hostile: Hostile,
}

thread_local! {
    static REFUSED: RefCell<Option<Refusal>> = const { RefCell::new(None) };
    static MARK: RefCell<Option<(usize, Range<usize>)>> = const { RefCell::new(None) };
}

/// Tera's escape function: passes a text unchanged, or not at all.
fn pass_guard(text: &str, out: &mut dyn Write) -> std::io::Result<()> {
    if let Err(hostile) = guard::check_line(text) {
        let refusal = Refusal { text: text.to_owned(), hostile };
        REFUSED.with(|refused| *refused.borrow_mut() = Some(refusal));
        return Err(std::io::Error::other("refused by the line guard"));
    }
    out.write_all(text.as_bytes())
}

impl TeraEngine {
    pub(crate) fn new() -> Self {
        Self { parsed: Vec::new(), shared: Arc::new(Mutex::new(None)) }
    }

    /// Renders the first file of `bundle`.
    pub(crate) fn render(&mut self, bundle: &Bundle, session: Session) -> Rendered {
        *functions::lock(&self.shared) = Some(session);
        let outcome = self.run(bundle).map_err(Box::new);
        let session = functions::lock(&self.shared).take();
        let touched = session.map_or_else(Vec::new, |session| session.view.touched());
        Rendered { outcome, touched }
    }

    /// The parsed form of `bundle`, at the end of the list.
    fn parse(&mut self, bundle: &Bundle) -> Result<(), Diagnostic> {
        if let Some(at) = self.parsed.iter().position(|(known, _)| known == bundle) {
            let found = self.parsed.remove(at);
            self.parsed.push(found);
            return Ok(());
        }
        // An edited template replaces its old self.
        let main = bundle.files.first().map(|file| &file.name);
        self.parsed.retain(|(known, _)| known.files.first().map(|file| &file.name) != main);
        let tera = compile(bundle, &self.shared).map_err(|error| explain(bundle, &error, None))?;
        if self.parsed.len() >= limits::RENDER_TEMPLATES_PARSED_MAX {
            self.parsed.remove(0);
        }
        self.parsed.push((bundle.clone(), tera));
        Ok(())
    }

    fn run(&mut self, bundle: &Bundle) -> Result<Vec<u8>, Diagnostic> {
        self.parse(bundle)?;
        let Some((_, tera)) = self.parsed.last() else { return Ok(Vec::new()) };
        let mut out = Bounded::default();
        let main = bundle.files.first().map_or("", |file| file.name.as_str());
        REFUSED.with(|refused| refused.borrow_mut().take());
        let Err(error) = tera.render_to(main, &Context::new(), &mut out) else {
            return Ok(out.bytes);
        };
        if out.full {
            let bytes = limits::RENDER_OUTPUT_BYTES_MAX;
            let message = format!("the output is larger than {bytes} bytes");
            return Err(Diagnostic::new(path_of(bundle, main), message)
                .help("a loop may write more than was meant; else split the file"));
        }
        match REFUSED.with(|refused| refused.borrow_mut().take()) {
            Some(refusal) => Err(self.explain_refusal(bundle, &refusal)),
            None => Err(explain(bundle, &error, self.take_failure())),
        }
    }

    fn take_failure(&self) -> Option<Failure> {
        functions::lock(&self.shared).as_mut()?.failure.take()
    }

    fn explain_refusal(&self, bundle: &Bundle, refusal: &Refusal) -> Diagnostic {
        let message =
            format!("a stored value contains {}: it could add lines to the file", refusal.hostile);
        let place = locate(bundle, &self.shared);
        let file = place.as_ref().and_then(|(file, _)| bundle.files.get(*file));
        let shown = file.or(bundle.files.first()).map_or("", |file| file.path.as_str());
        let mut error = Diagnostic::new(shown, message)
            .help("correct the value, or let it span lines on purpose with `| multiline`");
        if let (Some(file), Some((_, range))) = (file, &place) {
            error = error.at(&file.text, range);
        }
        error.key = self.keys_behind(&refusal.text);
        error
    }

    /// The keys whose values can be the refused text: holding it as it is, or encoded.
    fn keys_behind(&self, text: &str) -> Option<Box<str>> {
        let session = functions::lock(&self.shared);
        let view = &session.as_ref()?.view;
        let core = text.trim();
        let mut names = view.names_where(|value| {
            let value = String::from_utf8_lossy(value);
            guard::check_line(&value).is_err() && !core.is_empty() && value.contains(core)
        });
        if names.is_empty() {
            names = view.names_where(holds_hostile);
        }
        names.truncate(3);
        (!names.is_empty()).then(|| names.join(" or ").into())
    }
}

/// Whether a value is hostile as it is, or after decoding JSON.
fn holds_hostile(value: &[u8]) -> bool {
    fn any(json: &serde_json::Value) -> bool {
        match json {
            serde_json::Value::String(text) => guard::check_line(text).is_err(),
            serde_json::Value::Array(list) => list.iter().any(any),
            serde_json::Value::Object(map) => {
                map.iter().any(|(key, value)| guard::check_line(key).is_err() || any(value))
            }
            serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {
                false
            }
        }
    }
    guard::check_line(&String::from_utf8_lossy(value)).is_err()
        || serde_json::from_slice(value).is_ok_and(|json| any(&json))
}

fn compile(bundle: &Bundle, shared: &Shared) -> Result<Tera, tera::Error> {
    let texts = bundle.files.iter().map(|file| (file.name.clone(), file.text.clone()));
    build(texts.collect(), shared, |_| {})
}

fn build(
    texts: Vec<(String, String)>,
    shared: &Shared,
    more: impl FnOnce(&mut Tera),
) -> Result<Tera, tera::Error> {
    let mut tera = Tera::default();
    functions::register(&mut tera, shared);
    filters::register(&mut tera, shared);
    tera.set_escape_fn(pass_guard);
    tera.autoescape_on([""]);
    more(&mut tera);
    tera.add_raw_templates(texts)?;
    Ok(tera)
}

/// Renders once more with a mark before each `{{`, and returns the file and range of the last
/// one before the guard refused.
fn locate(bundle: &Bundle, shared: &Shared) -> Option<(usize, Range<usize>)> {
    let marked =
        bundle.files.iter().enumerate().map(|(at, file)| (file.name.clone(), mark(at, file)));
    let set_mark = |args: Kwargs, _: &State| -> tera::TeraResult<&'static str> {
        let (file, from, to) =
            (args.must_get("file")?, args.must_get("from")?, args.must_get("to")?);
        MARK.with(|mark| *mark.borrow_mut() = Some((file, from..to)));
        Ok("")
    };
    let tera =
        build(marked.collect(), shared, |tera| tera.register_function(MARKER, set_mark)).ok()?;
    MARK.with(|mark| mark.borrow_mut().take());
    let main = bundle.files.first()?;
    let outcome = tera.render_to(&main.name, &Context::new(), Bounded::default());
    let refused = REFUSED.with(|refused| refused.borrow_mut().take()).is_some();
    let mark = MARK.with(|mark| mark.borrow_mut().take());
    mark.filter(|_| outcome.is_err() && refused)
}

/// A name no template of a user has.
const MARKER: &str = "althing_mark_place";

fn mark(at: usize, file: &TemplateFile) -> String {
    let mut out = String::with_capacity(file.text.len() * 2);
    let mut done = 0;
    for range in expressions(&file.text) {
        out.push_str(file.text.get(done..range.start).unwrap_or_default());
        let (from, to) = (range.start, range.end);
        out.push_str(&format!("{{{{ {MARKER}(file={at}, from={from}, to={to}) }}}}"));
        done = range.start;
    }
    out.push_str(file.text.get(done..).unwrap_or_default());
    out
}

/// The byte ranges of `{{ … }}` in a template, outside of comments, tags and raw blocks.
fn expressions(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(open) = text.get(at..).and_then(|rest| rest.find('{')).map(|offset| at + offset)
    {
        let rest = text.get(open..).unwrap_or_default();
        at = if rest.starts_with("{#") {
            rest.find("#}").map_or(text.len(), |end| open + end + 2)
        } else if rest.starts_with("{{") {
            let end = end_of(rest, "}}").map_or(text.len(), |end| open + end);
            found.push(open..end);
            end
        } else if rest.starts_with("{%") {
            let end = end_of(rest, "%}").unwrap_or(rest.len());
            let tag = rest.get(2..end).unwrap_or_default().trim_matches(['-', ' ', '%', '}']);
            open + if tag == "raw" { end_of_raw(rest).unwrap_or(rest.len()) } else { end }
        } else {
            open + 1
        };
    }
    found
}

fn end_of_raw(text: &str) -> Option<usize> {
    let at = text.find("endraw")?;
    text.get(at..)?.find("%}").map(|end| at + end + 2)
}

/// Offset just behind `close`, skipping quoted strings.
fn end_of(text: &str, close: &str) -> Option<usize> {
    let mut quote: Option<char> = None;
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(2) {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '\'' | '`') => quote = Some(c),
            None if text.get(at..).is_some_and(|rest| rest.starts_with(close)) => {
                return Some(at + close.len());
            }
            None => {}
        }
    }
    None
}

fn path_of(bundle: &Bundle, name: &str) -> String {
    bundle.file(name).map_or_else(|| name.to_owned(), |file| file.path.clone())
}

fn explain(bundle: &Bundle, error: &tera::Error, failure: Option<Failure>) -> Diagnostic {
    let main = bundle.files.first().map_or("", |file| file.name.as_str());
    let mut shown = match error.kind() {
        ErrorKind::SyntaxError(report) | ErrorKind::RenderingError(report) => {
            let file = bundle.file(report.filename());
            let text = file.map_or("", |file| file.text.as_str());
            Diagnostic::new(path_of(bundle, report.filename()), report.message())
                .at(text, &report.span().range)
        }
        // Tera's enum may grow; every other kind tells itself, some as a finished report.
        other => {
            let text = other.to_string();
            reported(bundle, &text).unwrap_or_else(|| Diagnostic::new(path_of(bundle, main), text))
        }
    };
    let whole = error.to_string();
    let notes = whole.split("\n\nnote: ").skip(1).filter_map(|note| note.lines().next());
    shown.notes = notes.take(limits::DIAGNOSTIC_NOTES_MAX).map(str::to_owned).collect();
    let failure = failure.unwrap_or_default();
    shown.key = failure.key;
    shown.help = failure.help;
    shown
}

/// Takes a report Tera has already put into words apart: `error: …`, ` --> name:line:column`.
/// Unknown filters and functions come this way.
fn reported(bundle: &Bundle, text: &str) -> Option<Diagnostic> {
    let (message, rest) = text.strip_prefix("error: ")?.split_once('\n')?;
    let mut place = rest.trim_start().strip_prefix("--> ")?.lines().next()?.rsplitn(3, ':');
    let column: usize = place.next()?.parse().ok()?;
    let line: usize = place.next()?.parse().ok()?;
    let file = bundle.file(place.next()?)?;
    let line_at: usize = file.text.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let tail = file.text.get(line_at..)?;
    let start = tail.char_indices().nth(column - 1).map_or(tail.len(), |(at, _)| at) + line_at;
    let carets = rest.lines().find(|line| line.contains('^'))?.matches('^').count();
    Some(Diagnostic::new(&file.path, message).at(&file.text, &(start..start + carets)))
}

/// Output up to the limit.
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
    full: bool,
}

impl Write for Bounded {
    fn write(&mut self, chunk: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + chunk.len() > limits::RENDER_OUTPUT_BYTES_MAX {
            self.full = true;
            return Err(std::io::Error::other("the output is too large"));
        }
        self.bytes.extend_from_slice(chunk);
        Ok(chunk.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
