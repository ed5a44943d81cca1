//! The keys a resource may have: one row each, and what they mean together.
//!
//! The way of the data: `read` goes through a `[template]` table, each key filling its field of
//! the `Draft` by its row -> `finish` puts in the defaults and makes the `Resource`.
//!
//! Invariant: a key without a row is refused, with the nearest one that has a row.
//!
//! Sources: `contracts/render.md` section 1.

use crate::base::limits;
use crate::base::path::KeyPath;
use crate::render::format::Format;
use crate::render::resource::field::{Field, Placed, Problem};
use crate::render::resource::{Account, EXAMPLE, Resource, Wait};
use crate::render::scope::Scope;
use crate::render::window::Window;
use crate::sys::exec::CommandLine;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;
use toml::de::DeTable;

/// A resource while its table is being read.
#[derive(Default)]
pub(super) struct Draft {
    src: Option<Placed<String>>,
    engine: Option<()>,
    dest: Option<Placed<String>>,
    prefix: Option<KeyPath>,
    keys: Option<Vec<KeyPath>>,
    read_keys: Option<Vec<KeyPath>>,
    required: Option<Placed<Vec<KeyPath>>>,
    owner: Option<Placed<Account>>,
    uid: Option<Placed<Account>>,
    group: Option<Placed<Account>>,
    gid: Option<Placed<Account>>,
    mode: Option<u32>,
    make_dirs: Option<bool>,
    follow_symlinks: Option<bool>,
    check: Option<Placed<CommandLine>>,
    check_timeout: Option<Duration>,
    reload: Option<Placed<CommandLine>>,
    reload_timeout: Option<Duration>,
    verify: Option<Placed<CommandLine>>,
    on_failure: Option<Placed<bool>>,
    output_format: Option<Format>,
    user: Option<String>,
    shell: Option<bool>,
    wait: Option<Wait>,
    min_reload_interval: Option<Duration>,
    splay: Option<Duration>,
    window: Option<Window>,
    sensitive: Option<bool>,
    backup: Option<u32>,
    trim_blocks: Option<bool>,
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
    Row { key: "prefix", read: |d, f| put(&mut d.prefix, f.key_path()) },
    Row { key: "keys", read: |d, f| put(&mut d.keys, f.key_paths()) },
    Row { key: "read_keys", read: |d, f| put(&mut d.read_keys, f.key_paths()) },
    Row { key: "required", read: |d, f| put(&mut d.required, f.placed(f.key_paths())) },
    Row { key: "owner", read: |d, f| put(&mut d.owner, f.name()) },
    Row { key: "uid", read: |d, f| put(&mut d.uid, f.id()) },
    Row { key: "group", read: |d, f| put(&mut d.group, f.name()) },
    Row { key: "gid", read: |d, f| put(&mut d.gid, f.id()) },
    Row { key: "mode", read: |d, f| put(&mut d.mode, f.mode()) },
    Row { key: "make_dirs", read: |d, f| put(&mut d.make_dirs, f.boolean()) },
    Row { key: "follow_symlinks", read: |d, f| put(&mut d.follow_symlinks, f.boolean()) },
    Row { key: "check_cmd", read: |d, f| put(&mut d.check, f.command()) },
    Row { key: "check_timeout", read: |d, f| put(&mut d.check_timeout, f.duration()) },
    Row { key: "reload_cmd", read: |d, f| put(&mut d.reload, f.command()) },
    Row { key: "reload_timeout", read: |d, f| put(&mut d.reload_timeout, f.duration()) },
    Row { key: "verify_cmd", read: |d, f| put(&mut d.verify, f.command()) },
    Row { key: "on_failure", read: |d, f| put(&mut d.on_failure, f.placed(rolls_back(f))) },
    Row { key: "output_format", read: |d, f| put(&mut d.output_format, f.one_of(&Format::ALL)) },
    Row { key: "user", read: |d, f| put(&mut d.user, f.string()) },
    Row { key: "shell", read: |d, f| put(&mut d.shell, f.boolean()) },
    Row { key: "wait", read: |d, f| put(&mut d.wait, f.wait()) },
    Row { key: "min_reload_interval", read: |d, f| put(&mut d.min_reload_interval, f.duration()) },
    Row { key: "splay", read: |d, f| put(&mut d.splay, f.duration()) },
    Row { key: "window", read: |d, f| put(&mut d.window, f.window()) },
    Row { key: "sensitive", read: |d, f| put(&mut d.sensitive, f.boolean()) },
    Row { key: "backup", read: |d, f| put(&mut d.backup, f.number(limits::BACKUPS_MAX)) },
    Row { key: "trim_blocks", read: |d, f| put(&mut d.trim_blocks, f.boolean()) },
];

/// Whether a resource may have this key.
pub(super) fn is_known(key: &str) -> bool {
    ROWS.iter().any(|row| row.key == key)
}

fn put<T>(slot: &mut Option<T>, value: Result<T, Problem>) -> Result<(), Problem> {
    *slot = Some(value?);
    Ok(())
}

fn engine_named(field: &Field<'_, '_>) -> Result<(), Problem> {
    match field.string()?.as_str() {
        "tera" => Ok(()),
        other => Err(Problem::new(field.0.span(), format!("unknown engine `{other}`"))
            .help("this version has one engine: \"tera\"")),
    }
}

fn rolls_back(field: &Field<'_, '_>) -> Result<bool, Problem> {
    field.one_of(&[("rollback", true), ("keep", false)])
}

impl Draft {
    pub(super) fn read(table: &DeTable<'_>, problems: &mut Vec<Problem>) -> Self {
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

    pub(super) fn finish(self, name: String, file: &Path) -> Result<Resource, Problem> {
        let missing = |key: &str| Problem::new(0..0, format!("`{key}` is missing")).help(EXAMPLE);
        let (src, src_at) = self.src.ok_or_else(|| missing("src"))?;
        let (dest, dest_at) = self.dest.ok_or_else(|| missing("dest"))?;
        check_src(&src, &src_at)?;
        if self.engine.is_none() {
            check_extension(&src, &src_at)?;
        }
        let shell = self.shell.unwrap_or(true);
        let prefix = self.prefix.unwrap_or_else(KeyPath::root);
        let scope = Scope::new(prefix, &self.keys.unwrap_or_default())
            .and_then(|scope| scope.reading(&self.read_keys.unwrap_or_default()))
            .map_err(|error| Problem::new(0..0, error.to_string()))?;
        Ok(Resource {
            name,
            file: file.to_path_buf(),
            src,
            dest: check_dest(dest, &dest_at)?,
            required: full_paths(&scope, self.required)?,
            scope,
            owner: either(("owner", self.owner), ("uid", self.uid))?,
            group: either(("group", self.group), ("gid", self.gid))?,
            mode: self.mode,
            make_dirs: self.make_dirs.unwrap_or_default(),
            follow_symlinks: self.follow_symlinks.unwrap_or_default(),
            check: command_for(self.check, shell)?,
            check_timeout: or_ms(self.check_timeout, limits::CHECK_TIMEOUT_MS),
            rolls_back: can_fail(self.on_failure, self.reload.is_some() || self.verify.is_some())?,
            reload: command_for(self.reload, shell)?,
            reload_timeout: or_ms(self.reload_timeout, limits::RELOAD_TIMEOUT_MS),
            verify: command_for(self.verify, shell)?,
            output_format: self.output_format,
            user: self.user,
            wait: self.wait.unwrap_or_default(),
            min_reload_interval: self.min_reload_interval.unwrap_or_default(),
            splay: self.splay.unwrap_or_default(),
            window: self.window,
            sensitive: self.sensitive.unwrap_or_default(),
            backup: self.backup.unwrap_or_default(),
            trim_blocks: self.trim_blocks.unwrap_or_default(),
        })
    }
}

fn or_ms(given: Option<Duration>, default_ms: u64) -> Duration {
    given.unwrap_or(Duration::from_millis(default_ms))
}

fn full_paths(scope: &Scope, names: Option<Placed<Vec<KeyPath>>>) -> Result<Vec<KeyPath>, Problem> {
    let (names, at) = names.unwrap_or_default();
    let full = names.iter().map(|name| scope.below_prefix(name)).collect::<Result<_, _>>();
    full.map_err(|error| Problem::new(at, error.to_string()))
}

/// A user or group that can be given by name or by number.
fn either(
    (name, named): (&str, Option<Placed<Account>>),
    (id, numbered): (&str, Option<Placed<Account>>),
) -> Result<Option<Account>, Problem> {
    match (named, numbered) {
        (Some(_), Some((_, at))) => {
            let message = format!("`{name}` and `{id}` say the same thing");
            Err(Problem::new(at, message).help("leave one of them out"))
        }
        (Some((account, _)), None) | (None, Some((account, _))) => Ok(Some(account)),
        (None, None) => Ok(None),
    }
}

fn check_src(src: &str, at: &Range<usize>) -> Result<(), Problem> {
    let inside = Path::new(src).components().all(|part| matches!(part, Component::Normal(_)));
    if inside {
        return Ok(());
    }
    let message = "a template is named by its path inside the templates directory";
    Err(Problem::new(at.clone(), message).help("leave out the leading `/` and any `..`"))
}

fn check_extension(src: &str, at: &Range<usize>) -> Result<(), Problem> {
    let extension = Path::new(src).extension().and_then(|ext| ext.to_str());
    let problem = match extension {
        Some("tera") => return Ok(()),
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
    if path.as_os_str().to_string_lossy().split('/').any(|name| name == "." || name == "..") {
        let problem = Problem::new(at.clone(), "a destination has no `.` and no `..` in it");
        return Err(problem.help("write the path as it is without them"));
    }
    Ok(path)
}

/// Without a command after it, a new file cannot fail.
fn can_fail(on_failure: Option<Placed<bool>>, has_command: bool) -> Result<bool, Problem> {
    match on_failure {
        Some((true, at)) if !has_command => {
            Err(Problem::new(at, "nothing says that the new file failed")
                .help("add a reload_cmd or a verify_cmd, or leave this out"))
        }
        Some((rolls_back, _)) => Ok(rolls_back),
        None => Ok(false),
    }
}

fn command_for(
    command: Option<Placed<CommandLine>>,
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
    use crate::render::resource::words::KEYS;

    #[test]
    fn every_key_has_its_word() {
        let rows: Vec<&str> = ROWS.iter().map(|row| row.key).collect();
        assert_eq!(KEYS.iter().map(|word| word.key).collect::<Vec<_>>(), rows);
    }
}
