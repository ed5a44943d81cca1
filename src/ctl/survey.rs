//! What a confdir would write, worked out without touching any of it.
//!
//! Why one module: `plan` shows what would change and `check` whether it could; both must see the
//! resources, settings and keys the daemon would, or their answer is worth nothing.
//!
//! How data passes: settings (`Site`) -> confdir -> resources, of which two never write one file
//! -> `render_once` each, from one revision -> the check command, on a copy in a directory of our
//! own.
//!
//! Invariants:
//! * Nothing is written but the copy, which only this user can read and which is gone afterwards.
//! * A problem of one resource does not hide those of the others.
//!
//! Deliberately not here: reloads, marks and history, which belong to a file that really changes;
//! staging beside the destination, which would collide with a daemon that runs.

use crate::base::diagnostic::{Diagnostic, Place, did_you_mean};
use crate::base::limits;
use crate::base::report::{Exit, Report, chain};
use crate::config::{self, Config, Flags, Surroundings};
use crate::ctl::advice;
use crate::ctl::frozen::Frozen;
use crate::render::place;
use crate::render::resource::{self, Resource};
use crate::render::stage::{self, StageError};
use crate::render::{Options, render_once};
use crate::sys::exec::{self, CommandLine, ExecError};
use crate::sys::file::{self, Durability};
use crate::sys::users::Identity;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Whose resources are meant.
#[derive(Clone, Debug, clap::Args)]
pub struct Site {
    /// Settings file of the daemon [env: ALTHING_CONFIG=] [default: /etc/althing/althing.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory that holds conf.d/ and templates/ [default: what the settings say]
    #[arg(long, value_name = "DIR")]
    pub confdir: Option<String>,
}

impl Site {
    /// The settings a daemon would run with here.
    ///
    /// # Errors
    /// Every mistake in them.
    pub fn settings(&self) -> Result<Config, Report> {
        let flags = Flags::of(self.config.clone(), self.confdir.clone());
        Ok(config::load(&flags, &Surroundings::of_this_process())?)
    }
}

/// The resources of a confdir, with what is needed to render them.
pub struct Survey {
    options: Options,
    /// The good ones, by name.
    pub resources: Vec<Resource>,
    /// What is wrong with the others.
    pub problems: Vec<Diagnostic>,
}

impl Survey {
    /// Reads the resources.
    ///
    /// # Errors
    /// When there is no directory of them.
    pub fn of(settings: &Config) -> Result<Self, Diagnostic> {
        let confdir = std::path::absolute(&settings.confdir.value)
            .unwrap_or_else(|_| settings.confdir.value.clone());
        // No mark is ever read or written here.
        let options = options(settings, &confdir, &confdir.join(".state"));
        let mut survey = Self { options, resources: Vec::new(), problems: Vec::new() };
        let loaded = resource::load(&confdir).map_err(|error| confdir_advice(settings, error))?;
        for one in loaded {
            match one.outcome {
                Ok(resources) => survey.resources.extend(resources),
                Err(errors) => survey.problems.extend(errors),
            }
        }
        survey.without_rivals();
        Ok(survey)
    }

    /// The resources that the daemon would take.
    fn without_rivals(&mut self) {
        let all = std::mem::take(&mut self.resources).into_iter().map(|resource| {
            let target = place::target(&resource);
            (resource, target)
        });
        let (good, refused) = place::sort_out(all.collect(), &self.options.grounds);
        self.resources = good;
        self.problems.extend(refused.into_iter().map(|(resource, error)| {
            let dest = resource.dest.display().to_string();
            placed(error, &resource, "dest", &dest)
        }));
    }

    /// What a resource's file would hold.
    ///
    /// # Errors
    /// When its template fails.
    pub async fn render(
        &self,
        resource: &Resource,
        keys: &Arc<Frozen>,
    ) -> Result<Vec<u8>, Diagnostic> {
        let source: Arc<Frozen> = Arc::clone(keys);
        let rendered = render_once(&self.options, source, resource).await;
        rendered.map_err(advice::with_next_step)
    }

    /// Whether the template and the destination could be used, as far as a look can tell.
    ///
    /// # Errors
    /// When the template is missing, or the destination is no regular file or has no directory.
    pub fn look_at(&self, resource: &Resource) -> Result<(), Diagnostic> {
        let templates = self.options.confdir.join("templates");
        let template = templates.join(&resource.src);
        if template.exists() {
            return look_at_destination(resource);
        }
        let message = format!("there is no template {}", template.display());
        let error = Diagnostic::new(resource.file.display().to_string(), message);
        let names = names_in(&templates);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let help = match did_you_mean(&resource.src, &names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "write it, or name one that is there".to_owned(),
        };
        Err(placed(error, resource, "src", &resource.src).help(help))
    }

    /// Runs the check of a resource on a copy of its new file.
    ///
    /// # Errors
    /// When the check refuses, or cannot be run.
    pub async fn check(
        &self,
        resource: &Resource,
        bytes: &[u8],
        keys: &Frozen,
    ) -> Result<(), Diagnostic> {
        let Some(line) = &resource.check else { return Ok(()) };
        let outcome = run_check(resource, line, bytes, keys.revision().0).await;
        outcome.map_err(|Refusal { message, help }| {
            let shown = Diagnostic::new(resource.file.display().to_string(), message);
            let confdir = self.options.confdir.display();
            let look = format!("althing render {} --to - --confdir {confdir}", resource.name);
            placed(shown, resource, "check_cmd", &line.to_string())
                .help(help.unwrap_or_else(|| format!("see the file it looked at: {look}")))
        })
    }
}

/// The files of a directory, as far as they can be listed.
fn names_in(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// How the daemon with these settings renders.
#[must_use]
pub fn options(settings: &Config, confdir: &Path, state_dir: &Path) -> Options {
    let mut options = Options::new(confdir, state_dir);
    options.node = vec![("name".to_owned(), settings.name.value.clone())];
    options.environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let file = settings.file.as_ref().map(|file| file.path.as_path());
    options.keep_off(&settings.data_dir.value, file, &settings.allowed_dirs.value);
    options
}

/// The way out of a confdir that is none depends on who named it.
fn confdir_advice(settings: &Config, error: Diagnostic) -> Diagnostic {
    let confdir = settings.confdir.value.display();
    let origin = &settings.confdir.origin;
    let help = if settings.confdir.value.is_dir() {
        format!("create it: mkdir -p {confdir}/conf.d {confdir}/templates")
    } else {
        format!("name the directory that holds conf.d/ and templates/; {confdir} is from {origin}")
    };
    error.help(help)
}

/// An error about a key of a resource, shown at its value, or else at the key.
fn placed(error: Diagnostic, resource: &Resource, key: &str, value: &str) -> Diagnostic {
    let text = resource::read_bounded(&resource.file).unwrap_or_default();
    let place = range_of(&text, key, value).map(|range| Box::new(Place::of(&text, &range)));
    Diagnostic { place, ..error }
}

/// Where `key = "value"` has its value, else its key; a comment that names it is none.
fn range_of(text: &str, key: &str, value: &str) -> Option<Range<usize>> {
    let quoted = [format!("\"{value}\""), format!("'{value}'"), key.to_owned()];
    let mut lines = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with(key) {
            lines.push((at, line));
        }
        at += line.len();
    }
    quoted.iter().find_map(|wanted| {
        lines.iter().find_map(|(at, line)| {
            line.find(wanted.as_str()).map(|column| at + column..at + column + wanted.len())
        })
    })
}

fn look_at_destination(resource: &Resource) -> Result<(), Diagnostic> {
    let refused = |key: &str, message: String, help: String| {
        let shown = Diagnostic::new(resource.file.display().to_string(), message);
        let dest = resource.dest.display().to_string();
        let value = if key == "dest" { dest.as_str() } else { key };
        Err(placed(shown, resource, key, value).help(help))
    };
    if let Err(error) = resource.access() {
        let key = if error.is_of_user() { "owner" } else { "group" };
        let said = chain(&error);
        let (what, next) = said.split_once("; ").unwrap_or((&said, "give its number"));
        return refused(key, what.to_owned(), next.to_owned());
    }
    if let Some(Err(error)) = resource.user.as_deref().map(Identity::of) {
        let said = chain(&error);
        let (what, _) = said.split_once("; ").unwrap_or((&said, ""));
        return refused("user", what.to_owned(), "create it, or leave `user` out".to_owned());
    }
    let dest = place::target(resource);
    let directory = dest.parent().unwrap_or(Path::new("/"));
    match stage::look_at(&dest) {
        Err(StageError::Refused { path, why }) => {
            let (what, next) = why.split_once("; ").unwrap_or((why, "name a file as dest"));
            let message = format!("{} is not replaced: {what}", path.display());
            refused("dest", message, next.to_owned())
        }
        Ok(None) | Err(_) if !directory.is_dir() && !resource.make_dirs => refused(
            "dest",
            format!("the directory of {} does not exist", dest.display()),
            format!("set make_dirs = true, or create it: mkdir -p {}", directory.display()),
        ),
        // What else is wrong with it is for the user the daemon runs as.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Runs a check on a copy of the new file.
async fn run_check(
    resource: &Resource,
    line: &CommandLine,
    bytes: &[u8],
    revision: u64,
) -> Result<(), Refusal> {
    let scratch = Scratch::make().map_err(|error| Refusal {
        message: format!("cannot make a directory to check the file in: {error}"),
        help: Some("name a directory of your own as TMPDIR".to_owned()),
    })?;
    let src = scratch.0.join(resource.dest.file_name().unwrap_or_default());
    file::replace(&src, bytes, 0o600, Durability::Lazy).map_err(|error| Refusal {
        message: chain(&error),
        help: Some("make room there, or name another directory as TMPDIR".to_owned()),
    })?;
    let (src, dest) = (src.to_string_lossy(), resource.dest.to_string_lossy());
    let (name, revision) = (resource.name.as_str(), revision.to_string());
    let variables = [("src", &*src), ("dest", &*dest), ("name", name), ("revision", &revision)];
    // Whoever asks and is not root asks as the user that he is.
    let who = resource.user.as_deref().and_then(|user| Identity::to_become(user).ok()).flatten();
    if let Some(who) = who {
        scratch.give_to(who);
    }
    let line = line.with(&variables);
    let run = exec::run_as(who, &line, &variables, resource.check_timeout).await;
    run.map(|_| ()).map_err(|error| match error {
        ExecError::Start { .. } => Refusal {
            message: format!("the check cannot be run: {}", chain(&error).replace(&*src, &dest)),
            help: Some("install the program, or correct check_cmd".to_owned()),
        },
        _ if resource.sensitive => Refusal {
            message: "the check refuses the new file; what it says is not shown: the resource is \
                      sensitive"
                .to_owned(),
            help: None,
        },
        ExecError::Nobody { .. } | ExecError::Failed { .. } | ExecError::TimedOut { .. } => {
            Refusal {
                // The copy is gone by the time anybody reads this.
                message: format!(
                    "the check refuses the new file: {}",
                    chain(&error).replace(&*src, &dest)
                ),
                help: None,
            }
        }
    })
}

/// Why a new file was not found good.
struct Refusal {
    message: String,
    /// Where it is not to look at the file.
    help: Option<String>,
}

/// A directory only we can look into, gone when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> std::io::Result<Self> {
        let mut last = std::io::Error::other("no free name");
        for _ in 0..limits::SCRATCH_NAMES_MAX {
            let chance = RandomState::new().hash_one(std::process::id());
            let path = std::env::temp_dir().join(format!("althing-check-{chance:016x}"));
            // Not recursive: what somebody else put there is an error, not a home.
            match std::fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Lets a check that runs as somebody else look at the copy; if it cannot, it will say so.
    fn give_to(&self, who: Identity) {
        let files = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        let all = files.map(|entry| entry.path()).chain([self.0.clone()]);
        all.for_each(|path| drop(chown(path, Some(who.user), Some(who.group))));
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left behind, it is unreadable to others.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// All problems as one report.
#[must_use]
pub fn report(exit: Exit, problems: Vec<Diagnostic>) -> Report {
    let shown = problems.into_iter().map(|one| advice::with_next_step(one).to_string());
    let shown = shown.collect::<Vec<_>>().join("\n");
    Report::new(exit, shown.strip_prefix("error: ").unwrap_or(&shown))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn resource(folder: &Path, dest: &str, more: &str) -> Resource {
        let file = folder.join("web.toml");
        let text = format!("[template]\nsrc = \"web.tera\"\ndest = \"{dest}\"\n{more}");
        std::fs::write(&file, &text).unwrap();
        resource::parse(&file, "web", &text).unwrap().remove(0)
    }

    #[test]
    fn a_value_is_found_at_its_key_and_not_in_a_comment() {
        let text =
            "# dest = \"/a\" and check_cmd\n[template]\ndest = \"/a\"\ncheck_cmd = [\"x\"]\n";
        let found = |key, value| range_of(text, key, value).map(|range| &text[range]);
        assert_eq!(range_of(text, "dest", "/a").map(|range| range.start), text.rfind("\"/a\""));
        assert_eq!((found("check_cmd", "x y"), found("src", "a")), (Some("check_cmd"), None));
    }

    fn folder() -> tempfile::TempDir {
        std::fs::create_dir_all("target").unwrap();
        tempfile::tempdir_in(std::fs::canonicalize("target").unwrap()).unwrap()
    }

    #[test]
    fn destinations_that_could_not_be_written_are_told() {
        let folder = folder();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        let below = folder.path().join("none/x");
        let table = [
            (link.as_path(), "", "is a symbolic link"),
            (&link, "follow_symlinks = true", ""),
            (Path::new("/dev/null"), "", "is no regular file"),
            (&folder.path().join("new"), "owner = \"no such user\"", "there is no user"),
            (&folder.path().join("new"), "group = \"no such group\"", "there is no group"),
            (folder.path(), "", "is a directory"),
            (&below, "", "does not exist"),
            (&below, "make_dirs = true\n", ""),
            (&folder.path().join("new"), "", ""),
        ];
        for (dest, more, expected) in table {
            let resource = resource(folder.path(), dest.to_str().unwrap(), more);
            let said = look_at_destination(&resource).err().map(|error| error.to_string());
            let said = said.unwrap_or_default();
            assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{said}");
        }
    }

    #[test]
    fn a_scratch_directory_is_ours_alone_and_goes() {
        let scratch = Scratch::make().unwrap();
        let path = scratch.0.clone();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o700);
        drop(scratch);
        assert!(!path.exists());
    }
}
