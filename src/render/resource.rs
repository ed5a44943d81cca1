//! Template resources: which template makes which file out of which keys.
//!
//! Why a hand-made walk of the parsed TOML and not a derived reader: the author of a resource
//! gets file, line, column, the line with a caret and "did you mean" for every mistake of a file
//! at once, and a new key is one row in `draft::ROWS`.
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

mod draft;
mod field;
pub mod words;

use crate::base::diagnostic::Diagnostic;
use crate::base::limits;
use crate::base::path::KeyPath;
use crate::render::format::Format;
use crate::render::scope::Scope;
use crate::render::stage::Access;
use crate::render::window::Window;
use crate::sys::exec::CommandLine;
use crate::sys::users::{self, AccountError};
use draft::Draft;
use field::Problem;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::de::DeTable;

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
    /// Absolute path of the file that is rendered.
    pub dest: PathBuf,
    /// Which keys the template sees, and under which names.
    pub scope: Scope,
    /// Full paths of keys without which nothing is rendered: each must exist, or have keys below
    /// it. They wake the resource too.
    pub required: Vec<KeyPath>,
    /// Whose the file is; `None` = the old file's owner, the daemon's user for a new one.
    pub owner: Option<Account>,
    /// Its group; `None` as for the owner.
    pub group: Option<Account>,
    /// Permission bits; `None` = those of the old file, 0640 for a new one.
    pub mode: Option<u32>,
    /// Whether missing directories above the file are made.
    pub make_dirs: bool,
    /// Whether a destination that is a symbolic link means the file it leads to.
    pub follow_symlinks: bool,
    /// Must succeed on the staged file before it replaces the old one.
    pub check: Option<CommandLine>,
    /// Time the check has.
    pub check_timeout: Duration,
    /// Tells the service about the new file; owed until it succeeds.
    pub reload: Option<CommandLine>,
    /// Whom its commands run as; `None` = the daemon's user.
    pub user: Option<String>,
    /// Time the reload has, and the verification after it.
    pub reload_timeout: Duration,
    /// Must succeed after the reload; until it does, the reload is owed.
    pub verify: Option<CommandLine>,
    /// Whether the old file comes back when the reload or the verification fails.
    pub rolls_back: bool,
    /// What the file must be parsed as before it is installed.
    pub output_format: Option<Format>,
    /// How long keys must stay as they are before they are rendered.
    pub wait: Wait,
    /// Shortest time between two reloads; what changes meanwhile is in the next one. 0 = none.
    pub min_reload_interval: Duration,
    /// Longest time a change waits for this host's turn, so that not all hosts reload at once.
    pub splay: Duration,
    /// When the file may be replaced and its service told; `None` = at any time.
    pub window: Option<Window>,
    /// Whether the content is kept out of logs, status and diffs.
    pub sensitive: bool,
    /// How many earlier versions of the file are kept.
    pub backup: u32,
    /// Whether a template line that holds only a tag leaves no empty line behind.
    pub trim_blocks: bool,
}

impl Resource {
    /// Who may do what with the file.
    ///
    /// # Errors
    /// When a user or group has no number.
    pub fn access(&self) -> Result<Access, AccountError> {
        Ok(Access {
            owner: self.owner.as_ref().map(|owner| owner.number(users::user_id)).transpose()?,
            group: self.group.as_ref().map(|group| group.number(users::group_id)).transpose()?,
            mode: self.mode,
        })
    }
}

/// A user or a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// By number.
    Id(u32),
    /// By a name, which is looked up when the file is made.
    Name(String),
}

impl Account {
    fn number(&self, look_up: fn(&str) -> Result<u32, AccountError>) -> Result<u32, AccountError> {
        match self {
            Self::Id(id) => Ok(*id),
            Self::Name(name) => look_up(name),
        }
    }
}

/// A burst of changes is waited out: rendered once no key has changed for `min`, and at the
/// latest `max` after the first change. Both 0 = at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    /// Time without a change.
    pub min: Duration,
    /// Time after the first change.
    pub max: Duration,
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
        Err(error) => Err(vec![unreadable(&file, &error)]),
    };
    Loaded { file, name, outcome }
}

fn unreadable(file: &Path, error: &std::io::Error) -> Diagnostic {
    let shown = Diagnostic::new(file.display().to_string(), error.to_string());
    match std::fs::read_link(file) {
        Ok(to) if error.kind() == std::io::ErrorKind::NotFound => shown.help(format!(
            "it is a link to {}, which is not there: restore that, or remove the link",
            to.display()
        )),
        Ok(_) | Err(_) => shown.help("let the user of the daemon read it, as UTF-8 text"),
    }
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
        let range = error.span().unwrap_or(0..0);
        let is_second = text.get(range.clone()).is_some_and(|key| key.contains("template"));
        let shown = Diagnostic::new(&shown, message).at(text, &range);
        vec![if is_second { shown.help(SEVERAL) } else { shown }]
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

const SEVERAL: &str = "for several files, write [[template]] above each of them";

type Table<'a, 'i> = (&'a DeTable<'i>, Range<usize>);

/// The tables called `template`, single or several; anything else at the top is a mistake.
fn template_tables<'a, 'i>(
    document: &'a DeTable<'i>,
    problems: &mut Vec<Problem>,
) -> Vec<Table<'a, 'i>> {
    let mut tables = Vec::new();
    for (key, value) in document {
        if key.get_ref() != "template" {
            let name = key.get_ref();
            problems.push(match draft::is_known(name) {
                true => Problem::new(key.span(), format!("`{name}` is above [template]"))
                    .help(format!("write `{name}` below [template]")),
                false => Problem::unknown(key, &["template"]),
            });
            continue;
        }
        let several = value.get_ref().as_array().map(|array| array.iter().collect());
        for entry in several.unwrap_or(vec![value]) {
            match entry.get_ref().as_table() {
                Some(table) => tables.push((table, entry.span())),
                None => problems.push(Problem::new(entry.span(), "not a table").help(EXAMPLE)),
            }
        }
    }
    tables
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
            required = ["domain", "/services/web"]
            owner = "haproxy"
            gid = 0x10
            make_dirs = true
            verify_cmd = ["true"]
            wait = { min = "200ms" }
            min_reload_interval = "10s"
            sensitive = true
            backup = 20
            read_keys = ["/defaults"]
            follow_symlinks = true
            output_format = "yaml"
            on_failure = "rollback"
            splay = "5s"
            window = "Mon-Fri 06:00-20:00"
            trim_blocks = true
        "#)
        .unwrap();
        assert_eq!((resource.name.as_str(), resource.mode), ("a", Some(0o644)));
        assert_eq!(resource.check, Some(CommandLine::Shell("check {{.src}}".into())));
        assert!(matches!(&resource.reload, Some(CommandLine::Argv(words)) if words.len() == 3));
        assert_eq!(resource.check_timeout, Duration::from_millis(1500));
        assert_eq!(resource.reload_timeout, Duration::from_secs(120));
        assert_eq!(resource.scope.full("/domain").unwrap().as_ref(), b"/prod/domain");
        let required: Vec<String> = resource.required.iter().map(ToString::to_string).collect();
        assert_eq!(required, ["/prod/domain", "/prod/services/web"]);
        assert_eq!(resource.owner, Some(Account::Name("haproxy".into())));
        assert_eq!(resource.group, Some(Account::Id(16)));
        assert_eq!(resource.verify, Some(CommandLine::Argv(vec!["true".into()])));
        let (min, max) = (Duration::from_millis(200), Duration::from_millis(800));
        assert_eq!(resource.wait, Wait { min, max });
        assert_eq!(resource.min_reload_interval, Duration::from_secs(10));
        assert_eq!(resource.scope.name(b"/prod/defaults/a"), Some("/defaults/a"));
        assert_eq!(resource.output_format, Some(Format::Yaml));
        assert_eq!(resource.splay, Duration::from_secs(5));
        assert_eq!(resource.window, Window::parse("Mon-Fri 06:00-20:00 UTC"));
        assert!(resource.follow_symlinks && resource.rolls_back);
        assert!(resource.make_dirs && resource.sensitive && resource.backup == 20);
        assert!(resource.trim_blocks);
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
            ("mode = \"4755\"", ":4:8", "no set-id and no sticky bit"),
            ("window = \"daily\"", ":4:10", "is no window"),
            ("splay = \"0s\"", ":4:9", "is not a duration"),
            ("output_format = \"xml\"", ":4:17", "one of \"json\", \"yaml\", \"toml\""),
            ("on_failure = \"rollback\"", ":4:14", "nothing says that the new file failed"),
            ("on_failure = \"roll\"\nreload_cmd = \"x\"", ":4:14", "one of \"rollback\""),
            ("read_keys = \"/a\"", ":4:13", "expected an array of strings"),
            ("mode = \"0000\"", ":4:8", "nobody could read"),
            ("[template]", ":4:2", "write [[template]] above each"),
            ("keys = \"/a\"", ":4:8", "expected an array of strings, found string"),
            ("check_timeout = \"5 parsecs\"", ":4:17", "is not a duration"),
            ("shell = false\ncheck_cmd = \"a b\"", ":5:13", "as an array"),
            ("check_cmd = []", ":4:13", "names no program"),
            ("wait = \"5s\"", ":4:8", "expected a table"),
            ("wait = { mni = \"5s\" }", ":4:10", "did you mean `min`?"),
            ("wait = { min = \"5s\", max = \"1s\" }", ":4:8", "shorter than `min`"),
            ("min_reload_interval = \"0s\"", ":4:23", "is not a duration"),
            ("backup = 1000", ":4:10", "a number from 0 to"),
            ("uid = -1", ":4:7", "a number from 0 to"),
            ("owner = \"a\"\nuid = 0", ":5:7", "leave one of them out"),
            ("required = [\"\"]", ":4:13", "must not be empty"),
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
            ("[template]\nsrc = \"a.tera\"\ndest = \"/d/../e\"", "no `.` and no `..`"),
            ("[template]\nsrc = \"a.tera\"\ndest = \"/d/./e\"", "no `.` and no `..`"),
            ("src = \"a.tera\"\n[template]\ndest = \"/a\"", "write `src` below [template]"),
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
