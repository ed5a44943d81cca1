//! Earlier versions of rendered files, for who has to go back at night.
//!
//! The way of the bytes: before a file is replaced, its old bytes are copied to
//! `<state>/backups/<path of the file>/<number>.<revision>`; then the oldest copies beyond
//! `backup` of the resource go. A person finds them by path, newest last.
//!
//! Invariants:
//! * A copy is durable before the file is replaced; if it cannot be made, the file is not replaced.
//! * A copy is readable by nobody who could not read the file: it keeps its mode, and the directory
//!   is the daemon's alone.
//! * Bytes that are the newest copy already are not copied again, so that tries that fail later do
//!   not push older versions out.
//!
//! Deliberately not here: putting a copy back, and what a resource that is no more has left.

use crate::base::id::Revision;
use crate::base::limits;
use crate::sys::file::{self, Durability, FileError};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// All copies of one daemon.
#[derive(Clone, Debug)]
pub(crate) struct Backups(PathBuf);

impl Backups {
    /// Copies below `state_dir`, which nobody else can look into.
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self(state_dir.join("backups"))
    }

    /// Where the copies of `dest` are. `..` in its path leads nowhere.
    pub(crate) fn of(&self, dest: &Path) -> PathBuf {
        let normal = dest.components().filter(|part| matches!(part, Component::Normal(_)));
        self.0.join(normal.collect::<PathBuf>())
    }

    /// Copies what `dest` is now, which was rendered from `revision`, and leaves `max` copies.
    pub(crate) fn keep(&self, dest: &Path, revision: Revision, max: u32) -> Result<(), FileError> {
        let (bytes, mode) = match read(dest) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(FileError::at("back up", dest)(error)),
        };
        let folder = self.of(dest);
        file::make_directories(&folder, 0o700)?;
        let mut kept = numbered(&folder).map_err(FileError::at("list", &folder))?;
        let newest = kept.last().map(|(_, path)| path);
        if newest.is_some_and(|path| std::fs::read(path).is_ok_and(|same| same == bytes)) {
            return Ok(());
        }
        let number = kept.last().map_or(1, |(number, _)| number + 1);
        let path = folder.join(format!("{number:06}.{revision}"));
        file::replace(&path, &bytes, mode, Durability::Durable)?;
        kept.push((number, path));
        let too_many = kept.len().saturating_sub(usize::try_from(max).unwrap_or(usize::MAX));
        kept.iter().take(too_many).try_for_each(|(_, path)| file::remove_if_there(path))
    }
}

/// Bytes and mode of a file that is not larger than what a template may make.
fn read(dest: &Path) -> std::io::Result<(Vec<u8>, u32)> {
    let open = File::open(dest)?;
    let mode = open.metadata()?.mode() & 0o7777;
    let mut bytes = Vec::new();
    let most = limits::RENDER_OUTPUT_BYTES_MAX;
    open.take(most as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        let message = format!("larger than {most} bytes; set backup = 0 or move it away");
        return Err(std::io::Error::new(ErrorKind::FileTooLarge, message));
    }
    Ok((bytes, mode))
}

/// The copies in a directory by number; other files are not ours.
fn numbered(folder: &Path) -> std::io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        found.extend(number.map(|number| (number, path)));
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_versions_are_kept() {
        std::fs::create_dir_all("target").unwrap();
        let dir = tempfile::tempdir_in(std::fs::canonicalize("target").unwrap()).unwrap();
        let backups = Backups::new(&dir.path().join("state"));
        let dest = dir.path().join("a.cfg");
        backups.keep(&dest, Revision(0), 2).unwrap();
        assert!(!backups.of(&dest).exists(), "nothing was there to keep");
        file::make_directories(&dir.path().join("state"), 0o700).unwrap();
        for (revision, bytes) in [(3, "one"), (5, "two"), (5, "two"), (9, "three")] {
            std::fs::write(&dest, bytes).unwrap();
            backups.keep(&dest, Revision(revision), 2).unwrap();
        }
        let kept = numbered(&backups.of(&dest)).unwrap();
        let names: Vec<_> = kept.iter().map(|(_, path)| path.file_name().unwrap()).collect();
        assert_eq!(names, ["000002.5", "000003.9"]);
        assert_eq!(std::fs::read_to_string(&kept[0].1).unwrap(), "two");
    }

    #[test]
    fn copies_stay_below_the_state() {
        let backups = Backups::new(Path::new("/s"));
        let of = backups.of(Path::new("/etc/../../x"));
        assert_eq!(of, Path::new("/s/backups/etc/x"));
    }
}
