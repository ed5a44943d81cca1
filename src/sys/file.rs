//! Replacing a small file so that a reader, or a machine that lost power, sees the old bytes or
//! the new ones and nothing between.
//!
//! The way of the bytes: a dot-named neighbour is created exclusively, written, synced if asked,
//! renamed over the target, and the directory synced if asked.
//!
//! Invariants:
//! * The neighbour is never followed if it is a symbolic link (`O_EXCL | O_NOFOLLOW`), and it
//!   never keeps a name a program would pick up: it starts with a dot.
//! * One writer per target: a neighbour left by a crash is removed by the next replacement.
//! * A directory that was made survives a power cut.
//!
//! Deliberately not here: keeping owner and mode of the old file (`render::stage` does).
//!
//! Sources: rename(2), fsync(2); "All File Systems Are Not Created Equal" (Pillai et al., OSDI
//! 2014) for why the directory is synced as well.

use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A step of a replacement failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {path}", path = path.display())]
pub struct FileError {
    /// The step.
    pub doing: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: std::io::Error,
}

impl FileError {
    /// Adapter for `map_err`: the step and the path around a system error.
    pub fn at<E: Into<std::io::Error>>(doing: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |source| Self { doing, path: path.to_path_buf(), source: source.into() }
    }
}

/// Whether a replacement survives a power cut from the moment it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// File and directory are synced.
    Durable,
    /// Atomic for readers; after a power cut the old or the new bytes are there.
    Lazy,
}

/// Replaces `path` by `bytes` with permission bits `mode`.
///
/// # Errors
/// When any step fails; the old file is then still in place.
pub fn replace(path: &Path, bytes: &[u8], mode: u32, how: Durability) -> Result<(), FileError> {
    let new = neighbour(path, ".new-");
    remove_if_there(&new)?;
    let mut file = create_exclusive(&new, mode)?;
    file.write_all(bytes).map_err(FileError::at("write", &new))?;
    if how == Durability::Durable {
        file.sync_all().map_err(FileError::at("sync", &new))?;
    }
    std::fs::rename(&new, path).map_err(FileError::at("rename over", path))?;
    match how {
        Durability::Durable => sync_directory_of(path),
        Durability::Lazy => Ok(()),
    }
}

/// A path in the same directory: a dot-name that ends with the name of `path`, so that a checker
/// that goes by extension still recognizes the file.
#[must_use]
pub fn neighbour(path: &Path, dot_prefix: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(dot_prefix);
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

/// Creates a file that must not exist yet, for reading and writing by descriptor.
///
/// # Errors
/// When it exists, is a symbolic link, or the directory is missing or not writable.
pub fn create_exclusive(path: &Path, mode: u32) -> Result<File, FileError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::from_raw_mode(mode))
        .map(File::from)
        .map_err(FileError::at("create", path))
}

/// Removes a file; one that is not there is fine.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove_if_there(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(FileError::at("remove", path)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Makes a directory and those above it that are missing, with permission bits `mode`.
///
/// # Errors
/// When one of them cannot be made, or is there and no directory.
pub fn make_directories(path: &Path, mode: u32) -> Result<(), FileError> {
    let missing: Vec<&Path> = path.ancestors().take_while(|dir| !dir.is_dir()).collect();
    for directory in missing.into_iter().rev() {
        rustix::fs::mkdir(directory, Mode::from_raw_mode(mode))
            .map_err(FileError::at("make the directory", directory))?;
        sync_directory_of(directory)?;
    }
    Ok(())
}

/// Makes a rename inside the directory of `path` survive a power cut.
///
/// # Errors
/// When the directory cannot be opened or synced.
pub fn sync_directory_of(path: &Path) -> Result<(), FileError> {
    let directory = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let open = File::open(directory).map_err(FileError::at("open", directory))?;
    open.sync_all().map_err(FileError::at("sync", directory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn directory() -> tempfile::TempDir {
        std::fs::create_dir_all("target").unwrap();
        tempfile::tempdir_in("target").unwrap()
    }

    #[test]
    fn replaces_whole_files_and_cleans_up() {
        let dir = directory();
        let path = dir.path().join("mark");
        std::fs::write(dir.path().join(".new-mark"), "left by a crash").unwrap();
        for (bytes, how) in [("one", Durability::Durable), ("two", Durability::Lazy)] {
            replace(&path, bytes.as_bytes(), 0o600, how).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), bytes);
        }
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn missing_directories_are_made() {
        let dir = directory();
        let deep = dir.path().join("a/b/c");
        for _ in 0..2 {
            make_directories(&deep, 0o700).unwrap();
        }
        assert_eq!(std::fs::metadata(&deep).unwrap().permissions().mode() & 0o7777, 0o700);
        std::fs::write(deep.join("file"), "").unwrap();
        let error = make_directories(&deep.join("file/d"), 0o700).unwrap_err();
        assert!(error.to_string().ends_with("a/b/c/file"), "{error}");
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        let dir = directory();
        let victim = dir.path().join("victim");
        std::os::unix::fs::symlink(&victim, dir.path().join("link")).unwrap();
        let error = create_exclusive(&dir.path().join("link"), 0o600).unwrap_err();
        assert!(error.to_string().starts_with("cannot create "), "{error}");
        assert!(!victim.exists());
    }
}
