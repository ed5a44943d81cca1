//! Where resources may write, and which of two that write the same file keeps it.
//!
//! Why by real paths: a destination inside `conf.d/` would make a stored value a resource, and so
//! a command; one inside `templates/` a template. A link or a second spelling of the way there
//! must not make a difference, and neither may it hide that two resources write one file.
//!
//! The way of the data: `Resource` -> `target` (its directory without links; the file a link leads
//! to, if the resource follows links) -> `Grounds::permit` -> `sort_out` for all of a daemon.
//!
//! Invariants:
//! * Nothing is written inside the daemon's own directories, nor outside `allowed_dirs` if some
//!   are named. Every pass asks again: links can change.
//! * The first resource by order keeps a file that two of them write.
//!
//! Deliberately not here: what is wrong with the file itself (`stage`).
//!
//! Sources: `contracts/security.md` S9.

use crate::base::diagnostic::Diagnostic;
use crate::base::limits;
use crate::render::resource::Resource;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// What of a confdir is read by the daemon.
const OWN_IN_CONFDIR: [&str; 3] = ["conf.d", "templates", "services.d"];
/// What of a data directory is the daemon's, when a confdir shares it, as `--dev` has it.
const OWN_IN_DATA_DIR: [&str; 5] = ["lock", "render", "run", "state", "wal"];

/// Why nothing is written there, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{message}; {help}")]
pub struct Refusal {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl Refusal {
    fn new(message: String, help: &str) -> Self {
        Self { message, help: help.to_owned() }
    }
}

/// Where files may be rendered to.
#[derive(Clone, Debug, Default)]
pub struct Grounds {
    /// The daemon's own files and directories.
    own: Vec<PathBuf>,
    /// Empty = everywhere else.
    allowed: Vec<PathBuf>,
}

impl Grounds {
    /// Everywhere but in what this confdir says.
    #[must_use]
    pub fn around(confdir: &Path) -> Self {
        let own = OWN_IN_CONFDIR.map(|name| confdir.join(name));
        Self { own: own.into(), allowed: Vec::new() }
    }

    /// Nor in this file or directory.
    #[must_use]
    pub fn without(mut self, own: impl Into<PathBuf>) -> Self {
        self.own.push(own.into());
        self
    }

    /// Nor in the store of the daemon; what else is in its directory is the confdir's, if that is
    /// in there too.
    #[must_use]
    pub fn without_data(mut self, data_dir: &Path, confdir: &Path) -> Self {
        if real(confdir).starts_with(real(data_dir)) {
            self.own.extend(OWN_IN_DATA_DIR.map(|name| data_dir.join(name)));
            return self;
        }
        self.without(data_dir)
    }

    /// Only in these directories, if any are named.
    #[must_use]
    pub fn only_in(mut self, allowed: &[PathBuf]) -> Self {
        self.allowed = allowed.to_vec();
        self
    }

    /// Whether a `target` may be written.
    ///
    /// # Errors
    /// When it must not.
    pub fn permit(&self, target: &Path) -> Result<(), Refusal> {
        let shown = target.display();
        if target.components().any(|part| part == Component::ParentDir) {
            let message = format!("{shown} is reached by a link to a directory that is not there");
            return Err(Refusal::new(message, "name the file itself as dest"));
        }
        if let Some(own) = self.own.iter().map(|own| real(own)).find(|own| target.starts_with(own))
        {
            let message = format!("{shown} is the daemon's own: {} is its to read", own.display());
            return Err(Refusal::new(message, "render to a directory of the service it is for"));
        }
        let is_inside = |allowed: &PathBuf| target.starts_with(real(allowed));
        if self.allowed.is_empty() || self.allowed.iter().any(is_inside) {
            return Ok(());
        }
        let allowed: Vec<String> =
            self.allowed.iter().map(|allowed| allowed.display().to_string()).collect();
        let message = format!("{shown} is outside of allowed_dirs: {}", allowed.join(", "));
        let help = "name a file inside of them, or add its directory to the setting";
        Err(Refusal::new(message, help))
    }
}

/// A path without links on the way, as far as it exists.
fn real(path: &Path) -> PathBuf {
    let found = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    match found.map(|(above, real)| (real, path.strip_prefix(above))) {
        Some((real, Ok(rest))) if rest.as_os_str().is_empty() => real,
        Some((real, Ok(rest))) => real.join(rest),
        Some((_, Err(_))) | None => path.to_path_buf(),
    }
}

/// A file in its real directory; whether it is a link itself is left open.
fn in_real_directory(file: &Path) -> PathBuf {
    match (file.parent(), file.file_name()) {
        (Some(directory), Some(name)) => real(directory).join(name),
        (None, _) | (_, None) => file.to_path_buf(),
    }
}

/// The file a resource really writes.
#[must_use]
pub fn target(resource: &Resource) -> PathBuf {
    let mut path = in_real_directory(&resource.dest);
    if !resource.follow_symlinks {
        return path;
    }
    for _ in 0..limits::DEST_LINKS_MAX {
        let Ok(to) = std::fs::read_link(&path) else { break };
        // An absolute one replaces what is before it.
        path = in_real_directory(&path.with_file_name("").join(to));
    }
    path
}

/// Splits resources into those that may be written, and the others with what is against them.
/// Each comes with its `target`.
#[must_use]
pub fn sort_out(
    resources: Vec<(Resource, PathBuf)>,
    grounds: &Grounds,
) -> (Vec<Resource>, Vec<(Resource, Diagnostic)>) {
    let mut owners: BTreeMap<PathBuf, String> = BTreeMap::new();
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for (resource, target) in resources {
        let rival = owners.get(&target).map(|owner| {
            let message = format!("resource `{owner}` writes {} already", target.display());
            Refusal::new(message, "give one of them another dest")
        });
        match grounds.permit(&target).err().or(rival) {
            Some(Refusal { message, help }) => {
                let file = resource.file.display().to_string();
                bad.push((resource, Diagnostic::new(file, message).help(help)));
            }
            None => {
                owners.insert(target, resource.name.clone());
                good.push(resource);
            }
        }
    }
    (good, bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn folder() -> tempfile::TempDir {
        std::fs::create_dir_all("target").unwrap();
        tempfile::tempdir_in(std::fs::canonicalize("target").unwrap()).unwrap()
    }

    fn resource(name: &str, dest: &Path, more: &str) -> Resource {
        let text = format!("[template]\nsrc = \"a.tera\"\ndest = {dest:?}\n{more}");
        let file = Path::new("conf.d").join(name).with_extension("toml");
        crate::render::resource::parse(&file, name, &text).unwrap().remove(0)
    }

    fn refused(grounds: &Grounds, dest: &Path, more: &str) -> String {
        let resource = resource("a", dest, more);
        let target = target(&resource);
        let (good, mut bad) = sort_out(vec![(resource, target)], grounds);
        assert_eq!(good.len() + bad.len(), 1);
        bad.pop().map_or(String::new(), |(_, error)| error.message)
    }

    #[test]
    fn the_daemons_own_directories_are_no_destination() {
        let folder = folder();
        let [confdir, data, out] = ["confdir", "data", "out"].map(|name| folder.path().join(name));
        for made in [&confdir.join("conf.d/sub"), &data, &out] {
            std::fs::create_dir_all(made).unwrap();
        }
        symlink(&confdir, out.join("link")).unwrap();
        symlink(confdir.join("conf.d/new.toml"), out.join("file")).unwrap();
        symlink("nowhere/../../confdir/conf.d/new.toml", out.join("later")).unwrap();
        let grounds = Grounds::around(&confdir).without_data(&data, &confdir);
        let table = [
            (confdir.join("conf.d/gen.toml"), "", true),
            (confdir.join("conf.d"), "", true),
            (confdir.join("conf.d/sub/new/gen.toml"), "make_dirs = true", true),
            (confdir.join("templates/a.tera"), "", true),
            (data.join("wal/x"), "", true),
            (out.join("link/conf.d/gen.toml"), "", true),
            (out.join("link/templates/new/a.tera"), "make_dirs = true", true),
            (out.join("file"), "follow_symlinks = true", true),
            (out.join("later"), "follow_symlinks = true", true),
            (out.join("file"), "", false),
            (out.join("link/hello.txt"), "", false),
            (confdir.join("conf.dx"), "", false),
        ];
        for (dest, more, is_refused) in table {
            let said = refused(&grounds, &dest, more);
            assert_eq!(!said.is_empty(), is_refused, "{}: {said}", dest.display());
        }
        let shared = Grounds::around(&confdir).without_data(&confdir, &confdir);
        assert_eq!(refused(&shared, &confdir.join("hello.txt"), ""), "");
        assert!(refused(&shared, &confdir.join("render/x"), "").contains("the daemon's own"));
    }

    #[test]
    fn allowed_directories_are_real_ones() {
        let folder = folder();
        let [inside, outside] = ["in", "outside"].map(|name| folder.path().join(name));
        for made in [&inside, &outside] {
            std::fs::create_dir_all(made).unwrap();
        }
        symlink(&outside, inside.join("link")).unwrap();
        let grounds = Grounds::default().only_in(std::slice::from_ref(&inside));
        assert_eq!(refused(&grounds, &inside.join("a"), ""), "");
        assert!(refused(&grounds, &inside.join("link/a"), "").contains("outside of allowed_dirs"));
        assert!(refused(&grounds, &outside.join("a"), "").contains("outside of allowed_dirs"));
    }

    #[test]
    fn one_file_has_one_resource_however_it_is_spelt() {
        let folder = folder();
        let out = folder.path().join("out");
        std::fs::create_dir_all(&out).unwrap();
        symlink(&out, folder.path().join("outlink")).unwrap();
        symlink("same", out.join("other")).unwrap();
        let all = [
            resource("a", &out.join("same"), ""),
            resource("b", &folder.path().join("outlink/same"), ""),
            resource("c", &out.join("other"), "follow_symlinks = true"),
            resource("d", &out.join("other"), ""),
        ];
        let all = all.map(|resource| (resource.clone(), target(&resource)));
        let (good, bad) = sort_out(all.into(), &Grounds::default());
        let names = |all: &[Resource]| all.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&good), ["a", "d"]);
        assert_eq!(bad.len(), 2);
        assert!(bad.iter().all(|(_, e)| e.message.starts_with("resource `a` writes ")), "{bad:?}");
    }
}
