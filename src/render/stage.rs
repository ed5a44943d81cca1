//! From bytes to the destination: stage, compare, replace.
//!
//! Why stage beside the destination: a rename inside one directory is the only way a reader sees
//! the old file or the new one and never a part, and the check command can look at the very file
//! that will be used. The staged file's name starts with a dot and ends with the name of the
//! destination: directories read by pattern skip it, checkers that go by extension know it.
//!
//! Invariants:
//! * The staged file is created 0600, exclusively, without following links; owner and mode are
//!   set on the descriptor; it is synced before anybody looks at it.
//! * A destination that is a symbolic link or no regular file is refused, and so is a directory
//!   that others may write without the sticky bit.
//! * Equal bytes, mode and owner touch nothing on disk.
//! * An owner or group that this process may not give the file to is given up, and no reason to
//!   replace a file; set-id bits then go too.
//! * A destination that cannot be renamed over, as it is a mount point of its own, is written in
//!   place: first the space is reserved, so that a full disk is noticed while it is whole.
//! * A `Stage` that is dropped removes its file.
//! * One writer per destination, so the stage has a fixed name: what a crash left is replaced.
//!
//! Deliberately not here: when to check and reload (`pass`), and what users are called.
//!
//! Sources: `contracts/render.md` section 2; rename(2).

use crate::sys::file::{self, FileError};
use rustix::fs::{FallocateFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use std::fs::{File, Metadata};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Mode of a file that did not exist before.
const MODE_NEW: u32 = 0o640;

const STAGE_PREFIX: &str = ".althing-";

/// Why a file cannot be staged or put in place.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// A step failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The destination is not ours to replace.
    #[error("refusing to replace {path}: {why}", path = path.display())]
    Refused {
        /// The destination or its directory.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        why: &'static str,
    },
    /// Nobody made its directory.
    #[error(
        "there is no directory {path}: make it, or set make_dirs = true", path = path.display()
    )]
    NoDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// A destination that is written in place may hold a part of the new bytes.
    #[error("the file may be incomplete until the next try succeeds")]
    Torn(#[source] FileError),
}

/// Who may do what with the new file. `None` keeps what the old file has; a new one gets the
/// daemon's user and group, and 0640.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Number of the user.
    pub owner: Option<u32>,
    /// Number of the group.
    pub group: Option<u32>,
    /// Permission bits.
    pub mode: Option<u32>,
}

impl Access {
    /// What of it an old file lacks, as far as this process may give it.
    #[must_use]
    pub fn missing_in(self, old: &Metadata) -> Self {
        let is_root = rustix::process::geteuid().is_root();
        let is_mine = |group: u32| {
            let groups = rustix::process::getgroups().unwrap_or_default();
            let own = rustix::process::getegid().as_raw();
            own == group || groups.iter().any(|one| one.as_raw() == group)
        };
        Self {
            owner: self.owner.filter(|owner| *owner != old.uid() && is_root),
            group: self.group.filter(|group| *group != old.gid() && (is_root || is_mine(*group))),
            mode: self.mode.filter(|mode| *mode != old.mode() & 0o7777),
        }
    }

    /// What is not asked for is as it was.
    fn or_as_in(self, old: Option<&Metadata>) -> Self {
        Self {
            owner: self.owner.or(old.map(Metadata::uid)),
            group: self.group.or(old.map(Metadata::gid)),
            mode: self.mode.or(old.map(|old| old.mode() & 0o7777)),
        }
    }

    /// Gives the file this access, and returns what of it could be had: who is not root may give
    /// a file to the groups it is in, and to nobody else.
    fn give_to(self, file: &File, path: &Path) -> Result<Self, FileError> {
        let is = file.metadata().map_err(FileError::at("look at", path))?;
        let mut had = self;
        let group = self.group.filter(|group| *group != is.gid()).map(Gid::from_raw);
        if group.is_some() && !is_permitted(rustix::fs::fchown(file, None, group), path)? {
            had.group = None;
        }
        let owner = self.owner.filter(|owner| *owner != is.uid()).map(Uid::from_raw);
        if owner.is_some() && !is_permitted(rustix::fs::fchown(file, owner, None), path)? {
            had.owner = None;
        }
        let is_refused = (had.owner, had.group) != (self.owner, self.group);
        let mode = self.mode.unwrap_or(MODE_NEW) & if is_refused { 0o1777 } else { 0o7777 };
        // After the owner: changing the owner clears set-id bits.
        if owner.is_some() || group.is_some() || mode != is.mode() & 0o7777 {
            rustix::fs::fchmod(file, Mode::from_raw_mode(mode))
                .map_err(FileError::at("set the mode of", path))?;
        }
        Ok(Self { mode: Some(mode), ..had })
    }
}

/// Whether a change of owner was allowed; a number that this user namespace lacks is not.
fn is_permitted(changed: Result<(), Errno>, path: &Path) -> Result<bool, FileError> {
    match changed {
        Ok(()) => Ok(true),
        Err(Errno::PERM | Errno::INVAL) => Ok(false),
        Err(error) => Err(FileError::at("set the owner of", path)(error)),
    }
}

/// What comparing with the destination showed.
#[derive(Debug)]
pub enum Compared {
    /// The destination has these bytes, this mode and this owner.
    Same,
    /// It differs; here is the complete new file.
    Differs(Stage),
}

/// A complete file beside its destination.
#[derive(Debug)]
pub struct Stage {
    path: PathBuf,
    dest: PathBuf,
    access: Access,
    replaces: bool,
    /// It is not its owner's or group's.
    is_ours: bool,
    file: File,
}

/// How a stage became the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// By rename.
    Renamed,
    /// By rename, though this process may not give it the owner or group it should have.
    AsOurs,
    /// By writing into the old file, which is a mount point of its own: not atomic.
    InPlace,
}

/// Compares `bytes` with `dest` and stages them if they differ.
///
/// # Errors
/// When the destination is refused, or the stage cannot be written.
pub fn stage(dest: &Path, bytes: &[u8], access: Access) -> Result<Compared, StageError> {
    let old = look_at(dest)?;
    let wanted = access.or_as_in(old.as_ref());
    if is_same(dest, old.as_ref(), wanted, bytes)? {
        return Ok(Compared::Same);
    }
    refuse_open_directory(dest)?;
    let path = file::neighbour(dest, STAGE_PREFIX);
    file::remove_if_there(&path)?;
    let file = file::create_exclusive(&path, 0o600)?;
    let (dest_owned, replaces) = (dest.to_path_buf(), old.is_some());
    let mut stage =
        Stage { path, dest: dest_owned, access: wanted, replaces, is_ours: false, file };
    stage.fill(bytes)?;
    if stage.is_ours && is_same(dest, old.as_ref(), stage.access.or_as_in(old.as_ref()), bytes)? {
        return Ok(Compared::Same);
    }
    Ok(Compared::Differs(stage))
}

fn is_same(
    dest: &Path,
    old: Option<&Metadata>,
    access: Access,
    bytes: &[u8],
) -> Result<bool, FileError> {
    let Some(old) = old else { return Ok(false) };
    Ok(access == Access::default().or_as_in(Some(old))
        && old.len() == bytes.len() as u64
        && std::fs::read(dest).map_err(FileError::at("read", dest))? == bytes)
}

/// What is known of a destination; `None` = it is not there.
///
/// # Errors
/// When it is nothing that a file replaces.
pub fn look_at(dest: &Path) -> Result<Option<Metadata>, StageError> {
    let refused = |why| Err(StageError::Refused { path: dest.to_path_buf(), why });
    match std::fs::symlink_metadata(dest) {
        Ok(old) if old.file_type().is_symlink() => refused(
            "it is a symbolic link; name the file it leads to as dest, or set \
                 follow_symlinks = true",
        ),
        Ok(old) if old.is_dir() => refused("it is a directory"),
        Ok(old) if !old.is_file() => refused("it is no regular file"),
        Ok(old) => Ok(Some(old)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::at("look at", dest)(error).into()),
    }
}

/// In a directory anybody may write, anybody may swap the staged file before it is renamed.
fn refuse_open_directory(dest: &Path) -> Result<(), StageError> {
    let directory = dest.parent().unwrap_or(Path::new("/"));
    let mode = match std::fs::metadata(directory) {
        Ok(is) => is.mode(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(StageError::NoDirectory { path: directory.to_path_buf() });
        }
        Err(error) => return Err(FileError::at("look at", directory)(error).into()),
    };
    if mode & 0o002 != 0 && mode & 0o1000 == 0 {
        let why = "others may write its directory; take that right away: chmod o-w";
        return Err(StageError::Refused { path: dest.to_path_buf(), why });
    }
    Ok(())
}

impl Stage {
    /// The file it becomes.
    #[must_use]
    pub fn dest(&self) -> &Path {
        &self.dest
    }

    /// Whether there is such a file.
    #[must_use]
    pub fn replaces(&self) -> bool {
        self.replaces
    }

    /// The staged file, for the check command.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn fill(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.file.write_all(bytes).map_err(FileError::at("write", &self.path))?;
        let had = self.access.give_to(&self.file, &self.path)?;
        self.is_ours = (had.owner, had.group) != (self.access.owner, self.access.group);
        self.access = had;
        self.file.sync_all().map_err(FileError::at("sync", &self.path))
    }

    /// Renames the stage over its destination. The rename is not durable before `sync`.
    ///
    /// # Errors
    /// When the rename fails; the old file is then still there, unless the error is `Torn`.
    pub fn place(self) -> Result<Placed, StageError> {
        match rustix::fs::rename(&self.path, &self.dest) {
            Ok(()) if self.is_ours => Ok(Placed::AsOurs),
            Ok(()) => Ok(Placed::Renamed),
            // A bind mount, as container engines make for single files, cannot be renamed over.
            Err(Errno::BUSY | Errno::XDEV) => {
                self.write_in_place()?;
                Ok(Placed::InPlace)
            }
            Err(error) => Err(FileError::at("rename over", &self.dest)(error).into()),
        }
    }

    fn write_in_place(&self) -> Result<(), StageError> {
        let bytes = std::fs::read(&self.path).map_err(FileError::at("read", &self.path))?;
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dest = rustix::fs::open(&self.dest, flags, Mode::empty());
        let mut dest = dest.map(File::from).map_err(FileError::at("open", &self.dest))?;
        match rustix::fs::fallocate(&dest, FallocateFlags::KEEP_SIZE, 0, bytes.len() as u64) {
            // Not every file system can reserve, and none reserves nothing for an empty file.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::INVAL) => {}
            Err(error) => {
                return Err(FileError::at("make room in", &self.dest)(error).into());
            }
        }
        self.overwrite(&mut dest, &bytes).map_err(StageError::Torn)
    }

    fn overwrite(&self, dest: &mut File, bytes: &[u8]) -> Result<(), FileError> {
        dest.write_all(bytes).map_err(FileError::at("write", &self.dest))?;
        dest.set_len(bytes.len() as u64).map_err(FileError::at("cut", &self.dest))?;
        self.access.give_to(dest, &self.dest)?;
        dest.sync_all().map_err(FileError::at("sync", &self.dest))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // After a rename there is nothing left under this name.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn directory() -> tempfile::TempDir {
        std::fs::create_dir_all("target").unwrap();
        tempfile::tempdir_in(std::fs::canonicalize("target").unwrap()).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn put(dest: &Path, bytes: &[u8], mode: Option<u32>) -> bool {
        match stage(dest, bytes, Access { mode, ..Access::default() }).unwrap() {
            Compared::Same => false,
            Compared::Differs(stage) => stage.place().unwrap() == Placed::Renamed,
        }
    }

    #[test]
    fn modes_are_kept_and_equal_files_left_alone() {
        let dir = directory();
        let dest = dir.path().join("a.cfg");
        assert!(put(&dest, b"one", None));
        assert_eq!(mode(&dest), 0o640);
        assert!(!put(&dest, b"one", None));
        std::fs::set_permissions(&dest, std::fs::Permissions::from_mode(0o604)).unwrap();
        assert!(put(&dest, b"two", None));
        assert_eq!((mode(&dest), std::fs::read(&dest).unwrap().as_slice()), (0o604, &b"two"[..]));
        assert!(put(&dest, b"two", Some(0o600)));
        assert_eq!(mode(&dest), 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_dropped_stage_and_a_crash_leave_no_trash() {
        let dir = directory();
        let dest = dir.path().join("a.cfg");
        let left = dir.path().join(".althing-a.cfg");
        std::fs::write(&left, "left by a crash").unwrap();
        let Compared::Differs(stage) = stage(&dest, b"x", Access::default()).unwrap() else {
            panic!("same")
        };
        assert_eq!(stage.path(), left);
        assert_eq!(std::fs::read(&left).unwrap(), b"x");
        drop(stage);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn dangerous_destinations_are_refused() {
        let dir = directory();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        let open = dir.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        for (dest, why) in [
            (link, "symbolic link"),
            (dir.path().to_path_buf(), "directory"),
            (open.join("x"), "others may write"),
        ] {
            let error = stage(&dest, b"x", Access::default()).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let error = stage(&dir.path().join("none/x"), b"x", Access::default()).unwrap_err();
        let said = error.to_string();
        assert!(said.contains("none: make it, or set make_dirs = true"), "{said}");
    }
}
