//! Template resources: which template makes which file out of which keys.
//!
//! Why a hand-made walk of the parsed TOML and not a derived reader: the author of a resource
//! gets file, line, column, the line with a caret and "did you mean" for every mistake of a file
//! at once, and a new key is one row in `ROWS`.
//!
//! The way of the data: `<confdir>/conf.d/**/*.toml` -> `load` -> one `Loaded` a file -> either
//! all `Resource`s of the file or all its errors. A file with an error yields nothing, so that
//! the last good version of it stays in force as a whole.
//!
//! Invariants:
//! * A `Resource` is complete: below this module nothing asks again whether a path is absolute
//!   or a mode is octal.
//! * `keys = []` means the same as no `keys`: what the template touched.
//!
//! Deliberately not here: reading templates (`engine::bundle`), and confd's lenient mode.
//!
//! Sources: `contracts/render.md` section 1; confd's resource keys.

use crate::base::diagnostic::{Diagnostic, did_you_mean};
use crate::base::limits;
use crate::base::path::KeyPath;
use crate::render::scope::Scope;
use crate::sys::exec::CommandLine;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A template language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// Tera 2.
    Tera,
}

/// One file to keep up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Path of the resource file below `conf.d` without `.toml`; `:2` and so on behind it when
    /// the file holds several.
    pub name: String,
    /// The resource file.
    pub file: PathBuf,
    /// Template, relative to `templates/`.
    pub src: String,
    /// Its language.
    pub engine: EngineKind,
    /// Absolute path of the file that is rendered.
    pub dest: PathBuf,
    /// Which keys the template sees, and under which names.
    pub scope: Scope,
    /// Permission bits; `None` = those of the old file, 0640 for a new one.
    pub mode: Option<u32>,
    /// Must succeed on the staged file before it replaces the old one.
    pub check: Option<CommandLine>,
    /// Time the check has.
    pub check_timeout: Duration,
    /// Tells the service about the new file; owed until it succeeds.
    pub reload: Option<CommandLine>,
    /// Time the reload has.
    pub reload_timeout: Duration,
}

/// What one resource file holds.
#[derive(Debug)]
pub struct Loaded {
    /// The file.
    pub file: PathBuf,
    /// Name of its resources, without the `:2` behind.
    pub name: String,
    /// Its resources, or every error in it.
    pub outcome: Result<Vec<Resource>, Vec<Diagnostic>>,
}

/// Reads all resource files below `confdir/conf.d`, in the order of their paths. Names that start
/// with a dot are left alone: editors keep half-written files there.
///
/// # Errors
/// When the directory itself cannot be read; a bad file is an outcome of its own.
pub fn load(confdir: &Path) -> Result<Vec<Loaded>, Diagnostic> {
    let root = confdir.join("conf.d");
    let mut files = Vec::new();
    walk(&root, &mut files).map_err(|(path, error)| {
        let message = format!("cannot read the directory of template resources: {error}");
        Diagnostic::new(path.display().to_string(), message)
            .help("create it, or name another one as confdir")
    })?;
    files.sort();
    if files.len() > limits::RESOURCES_MAX {
        let message =
            format!("{} resource files, at most {} are read", files.len(), limits::RESOURCES_MAX);
        return Err(Diagnostic::new(root.display().to_string(), message));
    }
    Ok(files.into_iter().map(|file| load_file(&root, file)).collect())
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), (PathBuf, std::io::Error)> {
    let at = |error| (dir.to_path_buf(), error);
    for entry in std::fs::read_dir(dir).map_err(at)? {
        let entry = entry.map_err(at)?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        // A linked directory is not followed: it could lead back here.
        if !hidden && entry.file_type().map_err(at)?.is_dir() {
            walk(&entry.path(), files)?;
        } else if !hidden && entry.path().extension().is_some_and(|ext| ext == "toml") {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn load_file(root: &Path, file: PathBuf) -> Loaded {
    let relative = file.strip_prefix(root).unwrap_or(&file).with_extension("");
    let name = relative.display().to_string();
    let outcome = match read_bounded(&file) {
        Ok(text) => parse(&file, &name, &text),
        Err(error) => Err(vec![Diagnostic::new(file.display().to_string(), error.to_string())]),
    };
    Loaded { file, name, outcome }
}

/// Reads a text file of the operator, at most `limits::TEMPLATE_BYTES_MAX`.
///
/// # Errors
/// When it cannot be read, is too large, or is not UTF-8.
pub fn read_bounded(file: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    let open = std::fs::File::open(file)?;
    open.take(limits::TEMPLATE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limits::TEMPLATE_BYTES_MAX {
        let message = format!("larger than {} bytes", limits::TEMPLATE_BYTES_MAX);
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, message));
    }
    Ok(text)
}

/// Parses one resource file.
///
/// # Errors
/// Everything that is wrong with it, in the order of the file.
pub fn parse(file: &Path, name: &str, text: &str) -> Result<Vec<Resource>, Vec<Diagnostic>> {
    let shown = file.display().to_string();
    let document = DeTable::parse(text).map_err(|error| {
        let message = error.message().replace('\n', ", ");
        vec![Diagnostic::new(&shown, message).at(text, &error.span().unwrap_or(0..0))]
    })?;
    let mut problems = Vec::new();
    let tables = template_tables(document.get_ref(), &mut problems);
    if tables.is_empty() && problems.is_empty() {
        problems.push(Problem::new(0..0, "no [template] table").help(EXAMPLE));
    }
    let several = tables.len() > 1;
    let mut resources = Vec::new();
    for (at, (table, range)) in tables.into_iter().enumerate() {
        let before = problems.len();
        let draft = Draft::read(table, &mut problems);
        if problems.len() > before {
            continue; // What misses now may be what was wrong.
        }
        let name = if several { format!("{name}:{}", at + 1) } else { name.to_owned() };
        match draft.finish(name, file) {
            Ok(resource) => resources.push(resource),
            Err(mut problem) => {
                if problem.range.is_empty() {
                    problem.range = range.start..text.len().min(range.start + "[template]".len());
                }
                problems.push(problem);
            }
        }
    }
    if problems.is_empty() {
        return Ok(resources);
    }
    problems.sort_by_key(|problem| problem.range.start);
    Err(problems.into_iter().map(|problem| problem.show(&shown, text)).collect())
}

const EXAMPLE: &str = "a resource is: [template] src = \"NAME.tera\" dest = \"/path/of/the/file\"";

type Table<'a, 'i> = (&'a DeTable<'i>, Range<usize>);

/// The tables called `template`, single or several; anything else at the top is a mistake.
fn template_tables<'a, 'i>(
    document: &'a DeTable<'i>,
    problems: &mut Vec<Problem>,
) -> Vec<Table<'a, 'i>> {
    let mut tables = Vec::new();
    for (key, value) in document {
        if key.get_ref() != "template" {
            problems.push(Problem::unknown(key, &["template"]));
            continue;
        }
        match value.get_ref() {
            DeValue::Table(table) => tables.push((table, value.span())),
            DeValue::Array(array) => {
                for entry in array.iter() {
                    match entry.get_ref().as_table() {
                        Some(table) => tables.push((table, entry.span())),
                        None => {
                            problems.push(Problem::new(entry.span(), "not a table").help(EXAMPLE));
                        }
                    }
                }
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => {
                problems.push(Problem::new(value.span(), "not a table").help(EXAMPLE));
            }
        }
    }
    tables
}

/// A mistake at a byte range; an empty range means the table as a whole.
#[derive(Debug)]
struct Problem {
    range: Range<usize>,
    message: String,
    help: Option<String>,
}

impl Problem {
    fn new(range: Range<usize>, message: impl Into<String>) -> Self {
        Self { range, message: message.into(), help: None }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    fn unknown(key: &Spanned<std::borrow::Cow<'_, str>>, known: &[&str]) -> Self {
        let problem = Self::new(key.span(), format!("unknown key `{}`", key.get_ref()));
        match did_you_mean(key.get_ref(), known) {
            Some(near) => problem.help(format!("did you mean `{near}`?")),
            None => problem.help(format!("known keys are: {}", known.join(", "))),
        }
    }

    fn show(self, file: &str, text: &str) -> Diagnostic {
        let shown = Diagnostic::new(file, self.message).at(text, &self.range);
        match self.help {
            Some(help) => shown.help(help),
            None => shown,
        }
    }
}

/// A key's value with its place, read into what a row wants.
struct Field<'a, 'i>(&'a Spanned<DeValue<'i>>);

impl Field<'_, '_> {
    fn wrong(&self, wanted: &str) -> Problem {
        let found = self.0.get_ref().type_str();
        Problem::new(self.0.span(), format!("expected {wanted}, found {found}"))
    }

    /// A value together with its place, for checks that need other keys too.
    fn placed<T>(&self, value: Result<T, Problem>) -> Result<(T, Range<usize>), Problem> {
        Ok((value?, self.0.span()))
    }

    fn string(&self) -> Result<String, Problem> {
        let text = self.0.get_ref().as_str().ok_or_else(|| self.wrong("a string"))?;
        if text.is_empty() {
            return Err(Problem::new(self.0.span(), "must not be empty"));
        }
        Ok(text.to_owned())
    }

    fn strings(&self) -> Result<Vec<String>, Problem> {
        let array = self.0.get_ref().as_array();
        let array = array.ok_or_else(|| self.wrong("an array of strings"))?;
        array.iter().map(|entry| Field(entry).string()).collect()
    }

    fn boolean(&self) -> Result<bool, Problem> {
        self.0.get_ref().as_bool().ok_or_else(|| self.wrong("true or false"))
    }

    fn key_path(&self, text: &str) -> Result<KeyPath, Problem> {
        KeyPath::clean(text.as_bytes())
            .map_err(|error| Problem::new(self.0.span(), error.to_string()))
    }

    fn key_paths(&self) -> Result<Vec<KeyPath>, Problem> {
        self.strings()?.iter().map(|text| self.key_path(text)).collect()
    }

    fn duration(&self) -> Result<Duration, Problem> {
        let text =
            self.0.get_ref().as_str().ok_or_else(|| self.wrong("a duration like \"30s\""))?;
        let wrong = || {
            Problem::new(self.0.span(), format!("`{text}` is not a duration"))
                .help("write a number above 0 and a unit: ms, s, m or h, as in \"30s\"")
        };
        parse_duration(text).filter(|time| !time.is_zero()).ok_or_else(wrong)
    }

    /// Octal, with or without a leading zero: confd read "644" as decimal, which nobody meant.
    fn mode(&self) -> Result<u32, Problem> {
        let help = "write the octal mode as a string: mode = \"0640\"";
        let text = self.0.get_ref().as_str().ok_or_else(|| self.wrong("a string").help(help))?;
        let digits = text.strip_prefix("0o").unwrap_or(text);
        match u32::from_str_radix(digits, 8) {
            Ok(mode) if mode <= 0o7777 => Ok(mode),
            Ok(_) | Err(_) => {
                let message = format!("`{text}` is not a file mode");
                Err(Problem::new(self.0.span(), message).help(help))
            }
        }
    }

    fn command(&self) -> Result<CommandLine, Problem> {
        if self.0.get_ref().is_str() {
            return Ok(CommandLine::Shell(self.string()?));
        }
        let words = self.strings().map_err(|_| self.wrong("a string or an array of strings"))?;
        if words.is_empty() {
            return Err(Problem::new(self.0.span(), "names no program"));
        }
        Ok(CommandLine::Argv(words))
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().ok()?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(unit_ms).map(Duration::from_millis)
}

/// A resource while its table is being read.
#[derive(Default)]
struct Draft {
    src: Option<(String, Range<usize>)>,
    engine: Option<EngineKind>,
    dest: Option<(String, Range<usize>)>,
    prefix: Option<KeyPath>,
    keys: Option<Vec<KeyPath>>,
    mode: Option<u32>,
    check: Option<(CommandLine, Range<usize>)>,
    check_timeout: Option<Duration>,
    reload: Option<(CommandLine, Range<usize>)>,
    reload_timeout: Option<Duration>,
    shell: Option<bool>,
}

/// One key of a resource.
struct Row {
    key: &'static str,
    read: fn(&mut Draft, &Field<'_, '_>) -> Result<(), Problem>,
}

/// Every key a resource may have. A new one is a row here, a field in `Draft` and `Resource`.
const ROWS: &[Row] = &[
    Row { key: "src", read: |d, f| put(&mut d.src, f.placed(f.string())) },
    Row { key: "dest", read: |d, f| put(&mut d.dest, f.placed(f.string())) },
    Row { key: "engine", read: |d, f| put(&mut d.engine, engine_named(f)) },
    Row { key: "prefix", read: |d, f| put(&mut d.prefix, f.key_path(&f.string()?)) },
    Row { key: "keys", read: |d, f| put(&mut d.keys, f.key_paths()) },
    Row { key: "mode", read: |d, f| put(&mut d.mode, f.mode()) },
    Row { key: "check_cmd", read: |d, f| put(&mut d.check, f.placed(f.command())) },
    Row { key: "check_timeout", read: |d, f| put(&mut d.check_timeout, f.duration()) },
    Row { key: "reload_cmd", read: |d, f| put(&mut d.reload, f.placed(f.command())) },
    Row { key: "reload_timeout", read: |d, f| put(&mut d.reload_timeout, f.duration()) },
    Row { key: "shell", read: |d, f| put(&mut d.shell, f.boolean()) },
];

fn put<T>(slot: &mut Option<T>, value: Result<T, Problem>) -> Result<(), Problem> {
    *slot = Some(value?);
    Ok(())
}

fn engine_named(field: &Field<'_, '_>) -> Result<EngineKind, Problem> {
    match field.string()?.as_str() {
        "tera" => Ok(EngineKind::Tera),
        other => Err(Problem::new(field.0.span(), format!("unknown engine `{other}`"))
            .help("this version has one engine: \"tera\"")),
    }
}

impl Draft {
    fn read(table: &DeTable<'_>, problems: &mut Vec<Problem>) -> Self {
        let mut draft = Self::default();
        for (key, value) in table {
            let outcome = match ROWS.iter().find(|row| row.key == key.get_ref()) {
                Some(row) => (row.read)(&mut draft, &Field(value)),
                None => {
                    let known: Vec<&str> = ROWS.iter().map(|row| row.key).collect();
                    Err(Problem::unknown(key, &known))
                }
            };
            if let Err(problem) = outcome {
                problems.push(problem);
            }
        }
        draft
    }

    fn finish(self, name: String, file: &Path) -> Result<Resource, Problem> {
        let missing = |key: &str| Problem::new(0..0, format!("`{key}` is missing")).help(EXAMPLE);
        let (src, src_at) = self.src.ok_or_else(|| missing("src"))?;
        let (dest, dest_at) = self.dest.ok_or_else(|| missing("dest"))?;
        check_src(&src, &src_at)?;
        let engine = self.engine.map_or_else(|| engine_of(&src, &src_at), Ok)?;
        let shell = self.shell.unwrap_or(true);
        let check = command_for(self.check, shell)?;
        let reload = command_for(self.reload, shell)?;
        let prefix = self.prefix.unwrap_or_else(KeyPath::root);
        Ok(Resource {
            name,
            file: file.to_path_buf(),
            src,
            engine,
            dest: check_dest(dest, &dest_at)?,
            scope: Scope::new(prefix, &self.keys.unwrap_or_default())
                .map_err(|error| Problem::new(0..0, error.to_string()))?,
            mode: self.mode,
            check,
            check_timeout: or_ms(self.check_timeout, limits::CHECK_TIMEOUT_MS),
            reload,
            reload_timeout: or_ms(self.reload_timeout, limits::RELOAD_TIMEOUT_MS),
        })
    }
}

fn or_ms(given: Option<Duration>, default_ms: u64) -> Duration {
    given.unwrap_or(Duration::from_millis(default_ms))
}

fn check_src(src: &str, at: &Range<usize>) -> Result<(), Problem> {
    let inside = Path::new(src).components().all(|part| matches!(part, Component::Normal(_)));
    if inside {
        return Ok(());
    }
    let message = "a template is named by its path inside the templates directory";
    Err(Problem::new(at.clone(), message).help("leave out the leading `/` and any `..`"))
}

fn engine_of(src: &str, at: &Range<usize>) -> Result<EngineKind, Problem> {
    let extension = Path::new(src).extension().and_then(|ext| ext.to_str());
    let problem = match extension {
        Some("tera") => return Ok(EngineKind::Tera),
        Some("tmpl") => Problem::new(at.clone(), "Go templates (.tmpl) are not supported yet"),
        Some(_) | None => Problem::new(at.clone(), "the file name does not tell the engine"),
    };
    Err(problem.help("name the template *.tera, or set engine = \"tera\""))
}

fn check_dest(dest: String, at: &Range<usize>) -> Result<PathBuf, Problem> {
    let path = PathBuf::from(dest);
    if !path.is_absolute() || path.file_name().is_none() || path.to_string_lossy().ends_with('/') {
        return Err(Problem::new(at.clone(), "not an absolute path of a file"));
    }
    Ok(path)
}

fn command_for(
    command: Option<(CommandLine, Range<usize>)>,
    shell: bool,
) -> Result<Option<CommandLine>, Problem> {
    match command {
        Some((CommandLine::Shell(_), at)) if !shell => {
            let message = "a command in one string needs a shell, and `shell` is false";
            Err(Problem::new(at, message).help("write it as an array: [\"program\", \"argument\"]"))
        }
        Some((command, _)) => Ok(Some(command)),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<Resource, String> {
        match parse(Path::new("conf.d/a.toml"), "a", text) {
            Ok(mut all) => Ok(all.remove(0)),
            Err(all) => Err(all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
        }
    }

    #[test]
    fn a_full_resource_is_read() {
        let resource = one(r#"
            [template]
            src = "sub/a.cfg.tera"
            dest = "/etc/a.cfg"
            prefix = "prod/"
            keys = ["/services/", "domain"]
            mode = "644"
            check_cmd = "check {{.src}}"
            reload_cmd = ["systemctl", "reload", "a"]
            check_timeout = "1500ms"
            reload_timeout = "2m"
        "#)
        .unwrap();
        assert_eq!((resource.name.as_str(), resource.mode), ("a", Some(0o644)));
        assert_eq!(resource.check, Some(CommandLine::Shell("check {{.src}}".into())));
        assert!(matches!(&resource.reload, Some(CommandLine::Argv(words)) if words.len() == 3));
        assert_eq!(resource.check_timeout, Duration::from_millis(1500));
        assert_eq!(resource.reload_timeout, Duration::from_secs(120));
        assert_eq!(resource.scope.full("/domain").unwrap().as_ref(), b"/prod/domain");
    }

    #[test]
    fn several_tables_get_numbers() {
        let table = "[[template]]\nsrc = \"a.tera\"\ndest = \"/etc/a\"\n";
        let all = parse(Path::new("a.toml"), "a", &table.repeat(2)).unwrap();
        let names: Vec<&str> = all.iter().map(|resource| resource.name.as_str()).collect();
        assert_eq!(names, ["a:1", "a:2"]);
    }

    #[test]
    fn mistakes_show_their_place() {
        let good = "[template]\nsrc = \"a.tera\"\ndest = \"/a\"\n";
        let cases = [
            ("relaod_cmd = \"x\"", ":4:1", "did you mean `reload_cmd`?"),
            ("banana = 1", ":4:1", "known keys are: src, dest"),
            ("mode = 644", ":4:8", "mode = \"0640\""),
            ("mode = \"999\"", ":4:8", "`999` is not a file mode"),
            ("keys = \"/a\"", ":4:8", "expected an array of strings, found string"),
            ("check_timeout = \"5 parsecs\"", ":4:17", "is not a duration"),
            ("shell = false\ncheck_cmd = \"a b\"", ":5:13", "as an array"),
            ("check_cmd = []", ":4:13", "names no program"),
            ("prefix = ", ":4:10", "error: "),
            ("[tempalte]", ":4:2", "did you mean `template`?"),
        ];
        for (line, place, text) in cases {
            let error = one(&format!("{good}{line}\n")).unwrap_err();
            assert!(error.contains(&format!("--> conf.d/a.toml{place}\n")), "{line}: {error}");
            assert!(error.contains(text) && error.contains('^'), "{line}: {error}");
        }
        for (text, message) in [
            ("", "no [template] table"),
            ("[template]\ndest = \"/a\"", "`src` is missing"),
            ("[template]\nsrc = \"a.tera\"", "`dest` is missing"),
            ("[template]\nsrc = \"../a.tera\"\ndest = \"/a\"", "inside the templates directory"),
            ("[template]\nsrc = \"a.tmpl\"\ndest = \"/a\"", "not supported yet"),
            ("[template]\nsrc = \"a.conf\"\ndest = \"/a\"", "does not tell the engine"),
            ("[template]\nsrc = \"a.tera\"\ndest = \"a\"", "not an absolute path"),
            ("[template]\nsrc = \"a.tera\"\ndest = \"/etc/\"", "not an absolute path"),
        ] {
            let error = one(text).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn every_mistake_of_a_file_is_told_at_once() {
        let error = one("[template]\nsrc = 1\ndst = \"/a\"\n").unwrap_err();
        assert!(error.contains(":2:7") && error.contains(":3:1"), "{error}");
    }
}
