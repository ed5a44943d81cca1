//! A template with all it includes or extends, as text.
//!
//! Why the parent reads the files and not the worker: the worker then needs no file at all, and
//! a template is what it was when the render began.
//!
//! The way of the data: `read` opens the template, scans it for `{% include "x" %}` and
//! `{% extends "x" %}` (Tera 2 allows literal names only), and goes on with those. The worker
//! gets all texts and parses them once: as long as the texts are equal, it keeps the parsed form.
//!
//! Invariant: every file lies below `templates/`; at most `limits::TEMPLATE_FILES_MAX` of them.
//!
//! Deliberately not here: components defined in files that are neither included nor extended.

use crate::base::codec::{Malformed, Reader, Writer};
use crate::base::diagnostic::Diagnostic;
use crate::base::limits;
use crate::render::resource::read_bounded;
use std::path::{Component, Path};

/// One template file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateFile {
    /// Name inside `templates/`, as `include` writes it.
    pub name: String,
    /// Path shown in errors.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// A template and what it needs; the template itself comes first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle {
    /// The files, each name once.
    pub files: Vec<TemplateFile>,
    /// Whether lines that hold only a tag leave no empty lines behind.
    pub trim_blocks: bool,
}

impl Bundle {
    /// Reads template `name` and everything it names.
    ///
    /// # Errors
    /// A file is missing, unreadable, outside of `templates/`, or there are too many.
    pub fn read(templates: &Path, name: &str) -> Result<Self, Diagnostic> {
        let mut bundle = Self::default();
        let mut waiting = vec![name.to_owned()];
        while let Some(name) = waiting.pop() {
            if bundle.file(&name).is_some() {
                continue;
            }
            let file = read_file(templates, &name, &bundle)?;
            waiting.extend(mentioned(&file.text));
            bundle.files.push(file);
            if bundle.files.len() > limits::TEMPLATE_FILES_MAX {
                let message = format!("it includes more than {} files", limits::TEMPLATE_FILES_MAX);
                return Err(Diagnostic::new(templates.join(name).display().to_string(), message)
                    .help("put parts that belong together into one file"));
            }
        }
        Ok(bundle)
    }

    /// The file of this name.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&TemplateFile> {
        self.files.iter().find(|file| file.name == name)
    }

    /// The name of the template itself.
    #[must_use]
    pub fn main(&self) -> &str {
        self.files.first().map_or("", |file| file.name.as_str())
    }

    /// Writes all files.
    pub fn encode(&self, out: &mut Writer) {
        out.bool(self.trim_blocks).uint(self.files.len() as u64);
        for file in &self.files {
            out.bytes(file.name.as_bytes()).bytes(file.path.as_bytes()).bytes(file.text.as_bytes());
        }
    }

    /// Reads what `encode` wrote.
    ///
    /// # Errors
    /// When the bytes are something else.
    pub fn decode(input: &mut Reader<'_>) -> Result<Self, Malformed> {
        let text = |input: &mut Reader<'_>| -> Result<String, Malformed> {
            Ok(String::from_utf8_lossy(input.bytes()?).into_owned())
        };
        let trim_blocks = input.bool()?;
        let mut files = Vec::new();
        for _ in 0..input.uint()? {
            files.push(TemplateFile { name: text(input)?, path: text(input)?, text: text(input)? });
        }
        Ok(Self { files, trim_blocks })
    }
}

fn read_file(
    templates: &Path,
    name: &str,
    read_already: &Bundle,
) -> Result<TemplateFile, Diagnostic> {
    let path = templates.join(name);
    let shown = path.display().to_string();
    let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    let error = match inside.then(|| read_bounded(&path)) {
        Some(Ok(text)) => return Ok(TemplateFile { name: name.to_owned(), path: shown, text }),
        Some(Err(error)) => {
            Diagnostic::new(shown.clone(), format!("cannot read template {shown}: {error}"))
                .help("templates are looked for below the templates directory of the confdir")
        }
        None => {
            let message = format!("`{name}` is not inside the templates directory");
            Diagnostic::new(shown, message)
                .help("name a file below it, without a leading `/` and without `..`")
        }
    };
    let quoted = [format!("\"{name}\""), format!("'{name}'")];
    let mention = |from: &TemplateFile| {
        let at = |q: &String| from.text.find(q.as_str()).map(|at| at..at + q.len());
        let error = Diagnostic { file: from.path.clone(), ..error.clone() };
        quoted.iter().find_map(at).map(|range| error.at(&from.text, &range))
    };
    Err(read_already.files.iter().find_map(mention).unwrap_or(error))
}

/// Names in `{% include "x" %}` and `{% extends "x" %}`. A name inside a comment or a raw block
/// is taken too: it costs a read, and a missing file there is told where it is named.
fn mentioned(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for tag in text.split("{%").skip(1) {
        let tag = tag.trim_start_matches(['-', ' ', '\t', '\n', '\r']);
        let after = tag.strip_prefix("include").or_else(|| tag.strip_prefix("extends"));
        let Some(argument) = after.map(str::trim_start) else { continue };
        let quote = argument.chars().next().filter(|c| matches!(c, '"' | '\'' | '`'));
        let name = quote.and_then(|quote| argument.get(1..)?.split(quote).next());
        names.extend(name.map(str::to_owned));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_includes_and_tells_where_one_is_missing() {
        std::fs::create_dir_all("target").unwrap();
        let dir = tempfile::tempdir_in("target").unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("a.tera", "{%- extends 'base.tera' -%}\n{% include\n\"part.tera\" %}");
        write("base.tera", "{% include \"part.tera\" %}");
        write("part.tera", "x");
        let bundle = Bundle::read(dir.path(), "a.tera").unwrap();
        let mut names: Vec<&str> = bundle.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names.remove(0), "a.tera");
        names.sort_unstable();
        assert_eq!(names, ["base.tera", "part.tera"]);
        let mut out = Writer::new();
        bundle.encode(&mut out);
        assert_eq!(Bundle::decode(&mut Reader::new(out.as_slice())), Ok(bundle));

        write("a.tera", "x\n{% include \"gone.tera\" %}");
        let error = Bundle::read(dir.path(), "a.tera").unwrap_err().to_string();
        assert!(error.contains("a.tera:2:12\n") && error.contains("cannot read"), "{error}");
        write("a.tera", "{% include \"../secret\" %}");
        let error = Bundle::read(dir.path(), "a.tera").unwrap_err().to_string();
        assert!(error.contains("not inside the templates directory"), "{error}");
    }
}
