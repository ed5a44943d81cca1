//! The Tera 2 engine.
//!
//! Why Tera: errors with a place, unknown filters refused when a template is parsed, one small
//! dependency. `preserve_order` is on, for otherwise maps iterate in another order in every
//! process and the file would "change" at each restart.
//!
//! The way of a render: the bundle is parsed once, its lines trimmed (`scan`) and its calls
//! checked (`calls`), and kept while its texts are equal -> the session goes where functions find
//! it -> Tera writes into a bounded buffer, the line guard being its escape function -> bytes, or
//! an error turned into a `Diagnostic`.
//!
//! Invariants:
//! * Autoescape is on for every template (the empty suffix ends every name).
//! * What Tera is given has the same length as the file, so its places are places of the file.
//! * After a guard refusal the template is rendered again with marks before each `{{`, to find
//!   the place, as Tera tells none for a failing writer. The good path pays nothing for this.
//!
//! Deliberately not here: limits of time and memory (`child`).

use crate::base::diagnostic::Diagnostic;
use crate::base::limits;
use crate::render::engine::bundle::{Bundle, TemplateFile};
use crate::render::engine::calls::{self, OwnTexts};
use crate::render::engine::functions::{self, Shared};
use crate::render::engine::scan::{self, Kind};
use crate::render::engine::{Failure, Rendered, Session, blame, filters};
use crate::render::guard::{self, Hostile};
use std::cell::RefCell;
use std::io::Write;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use tera::{ErrorKind, Kwargs, State, Tera};

/// Tera with the template sets it has parsed, least recently used first.
pub(crate) struct TeraEngine {
    parsed: Vec<Parsed>,
    shared: Shared,
}

/// Templates as Tera knows them.
struct Parsed {
    bundle: Bundle,
    /// The text of each file as Tera was given it.
    texts: Vec<String>,
    own: OwnTexts,
    tera: Tera,
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
        if let Some(at) = self.parsed.iter().position(|known| known.bundle == *bundle) {
            let found = self.parsed.remove(at);
            self.parsed.push(found);
            return Ok(());
        }
        // An edited template replaces its old self.
        let main = bundle.files.first().map(|file| &file.name);
        self.parsed.retain(|known| known.bundle.files.first().map(|file| &file.name) != main);
        let parsed = Parsed::new(bundle, &self.shared)?;
        if self.parsed.len() >= limits::RENDER_TEMPLATES_PARSED_MAX {
            self.parsed.remove(0);
        }
        self.parsed.push(parsed);
        Ok(())
    }

    fn run(&mut self, bundle: &Bundle) -> Result<Vec<u8>, Diagnostic> {
        self.parse(bundle)?;
        let Some(parsed) = self.parsed.last() else { return Ok(Vec::new()) };
        let mut out = Bounded::default();
        REFUSED.with(|refused| refused.borrow_mut().take());
        let Err(error) = parsed.tera.render_to(bundle.main(), &parsed.own.context, &mut out) else {
            return Ok(out.bytes);
        };
        if out.full {
            let bytes = limits::RENDER_OUTPUT_BYTES_MAX;
            let message = format!("the output is larger than {bytes} bytes");
            return Err(Diagnostic::new(path_of(bundle, bundle.main()), message)
                .help("a loop may write more than was meant; else split the file"));
        }
        match REFUSED.with(|refused| refused.borrow_mut().take()) {
            Some(refusal) => Err(self.explain_refusal(parsed, &refusal)),
            None => Err(parsed.explain(&error, self.take_failure())),
        }
    }

    fn take_failure(&self) -> Option<Failure> {
        functions::lock(&self.shared).as_mut()?.failure.take()
    }

    fn explain_refusal(&self, parsed: &Parsed, refusal: &Refusal) -> Diagnostic {
        let key = functions::lock(&self.shared)
            .as_ref()
            .and_then(|session| blame::hostile_keys(&session.view, &refusal.text));
        let (what, help) = match key {
            Some(_) => {
                ("a stored value", "correct the value, or let it span lines on purpose with")
            }
            None => ("what is printed here", "let it span lines on purpose with"),
        };
        let message =
            format!("{what} contains {}: it could add lines to the file", refusal.hostile);
        let files = &parsed.bundle.files;
        let place = parsed.locate(&self.shared);
        let file = place.as_ref().and_then(|(file, _)| files.get(*file));
        let shown = file.or(files.first()).map_or("", |file| file.path.as_str());
        let mut error = Diagnostic::new(shown, message).help(format!("{help} `| multiline`"));
        if let (Some(file), Some((_, range))) = (file, &place) {
            error = error.at(&file.text, range);
        }
        error.key = key;
        error
    }
}

impl Parsed {
    fn new(bundle: &Bundle, shared: &Shared) -> Result<Self, Diagnostic> {
        let mut own = OwnTexts::default();
        let text_of = |file: &TemplateFile| {
            let trimmed = bundle.trim_blocks.then(|| scan::trim_blocks(&file.text));
            own.replace(trimmed.as_ref().unwrap_or(&file.text), bundle)
        };
        let texts: Vec<String> = bundle.files.iter().map(text_of).collect();
        let mut parsed = Self { bundle: bundle.clone(), texts, own, tera: Tera::default() };
        let built = build(parsed.named(&parsed.texts), shared, |_| {});
        let built = built.map_err(|error| parsed.explain(&error, None));
        // What is not there has no arguments; everything else is said better by the check.
        if !built.as_ref().is_err_and(|error| error.message.starts_with("Unknown")) {
            calls::check(bundle)?;
        }
        parsed.tera = built?;
        Ok(parsed)
    }

    fn named(&self, texts: &[String]) -> Vec<(String, String)> {
        let names = self.bundle.files.iter().map(|file| file.name.clone());
        names.zip(texts.iter().cloned()).collect()
    }

    /// Renders once more with a mark before each `{{`, and returns the file and range of the
    /// last one before the guard refused.
    fn locate(&self, shared: &Shared) -> Option<(usize, Range<usize>)> {
        let marked: Vec<String> =
            self.texts.iter().enumerate().map(|(at, text)| mark(at, text)).collect();
        let set_mark = |args: Kwargs, _: &State| -> tera::TeraResult<&'static str> {
            let (file, from, to) =
                (args.must_get("file")?, args.must_get("from")?, args.must_get("to")?);
            MARK.with(|mark| *mark.borrow_mut() = Some((file, from..to)));
            Ok("")
        };
        let more = |tera: &mut Tera| tera.register_function(MARKER, set_mark);
        let tera = build(self.named(&marked), shared, more).ok()?;
        MARK.with(|mark| mark.borrow_mut().take());
        let outcome = tera.render_to(self.bundle.main(), &self.own.context, Bounded::default());
        let refused = REFUSED.with(|refused| refused.borrow_mut().take()).is_some();
        let mark = MARK.with(|mark| mark.borrow_mut().take());
        mark.filter(|_| outcome.is_err() && refused)
    }

    fn explain(&self, error: &tera::Error, failure: Option<Failure>) -> Diagnostic {
        let bundle = &self.bundle;
        let mut help = None;
        let mut shown = match error.kind() {
            ErrorKind::SyntaxError(report) | ErrorKind::RenderingError(report) => {
                let range = &report.span().range;
                let text = bundle.file(report.filename()).map_or("", |file| file.text.as_str());
                if text.get(range.clone()).is_some_and(|call| call.starts_with("throw")) {
                    help = Some(Box::from("the template itself stops here; its message says why"));
                }
                let message = self.own.left_out(report.message());
                Diagnostic::new(path_of(bundle, report.filename()), message).at(text, range)
            }
            // Tera's enum may grow; every other kind tells itself, some as a finished report.
            other => {
                let text = other.to_string();
                let main = || Diagnostic::new(path_of(bundle, bundle.main()), &text);
                self.reported(&text).unwrap_or_else(main)
            }
        };
        let whole = error.to_string();
        let notes = whole.split("\n\nnote: ").skip(1).filter_map(|note| note.lines().next());
        shown.notes = notes.take(limits::DIAGNOSTIC_NOTES_MAX).map(str::to_owned).collect();
        let failure = failure.unwrap_or_default();
        shown.key = failure.key;
        shown.help = failure.help.or(help);
        shown
    }

    /// Takes a report Tera has already put into words apart: `error: …`, ` --> name:line:column`.
    /// Unknown filters and functions come this way.
    fn reported(&self, text: &str) -> Option<Diagnostic> {
        let (message, rest) = text.strip_prefix("error: ")?.split_once('\n')?;
        let mut place = rest.trim_start().strip_prefix("--> ")?.lines().next()?.rsplitn(3, ':');
        let column: usize = place.next()?.parse().ok()?;
        let line: usize = place.next()?.parse().ok()?;
        let name = place.next()?;
        let at = self.bundle.files.iter().position(|file| file.name == name)?;
        let (file, given) = (self.bundle.files.get(at)?, self.texts.get(at)?);
        let line_at: usize = given.split_inclusive('\n').take(line - 1).map(str::len).sum();
        let tail = given.get(line_at..)?;
        let start = tail.char_indices().nth(column - 1).map_or(tail.len(), |(at, _)| at) + line_at;
        let carets = rest.lines().find(|line| line.contains('^'))?.matches('^').count();
        Some(Diagnostic::new(&file.path, message).at(&file.text, &(start..start + carets)))
    }
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

/// A name no template of a user has.
const MARKER: &str = "althing_mark_place";

fn mark(at: usize, text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut done = 0;
    for part in scan::parts(text).iter().filter(|part| part.kind == Kind::Expression) {
        let Range { start, end } = part.range;
        out.push_str(text.get(done..start).unwrap_or_default());
        out.push_str(&format!("{{{{ {MARKER}(file={at}, from={start}, to={end}) }}}}"));
        done = start;
    }
    out.push_str(text.get(done..).unwrap_or_default());
    out
}

fn path_of(bundle: &Bundle, name: &str) -> String {
    bundle.file(name).map_or_else(|| name.to_owned(), |file| file.path.clone())
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
