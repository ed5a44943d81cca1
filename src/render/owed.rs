//! What is remembered of a rendered file across restarts: its revision, and whether its service
//! still has to be told.
//!
//! Why: confd forgot a failed reload, so a service ran with old settings beside a new file until
//! somebody noticed. Here the debt is on disk before the file is replaced, and is cleared after
//! the reload has succeeded. A second, useless reload is possible after a crash; a missing one is
//! not.
//!
//! The way of the data: one small file per destination, `<state>/<hash of path>.mark`, replaced
//! atomically.
//!
//! Invariants:
//! * A mark that says *owed* is durable before the destination is renamed.
//! * A mark that is damaged or of another version's format counts as owed, at revision 0.
//! * Marks that owe nothing are written without a sync: losing one costs nothing but the memory
//!   of a revision.
//!
//! Deliberately not here: running the reload.

use crate::base::codec::{Malformed, Reader, Writer};
use crate::base::id::Revision;
use crate::base::time::WallTime;
use crate::sys::file::{self, Durability, FileError};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

const FORMAT: u64 = 4;

/// What is known of one destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Revision it was rendered from.
    pub revision: Revision,
    /// Whether its service has yet to be told: by the command its resource has when it is paid.
    pub owed: bool,
    /// Whether the file from before is to be put back first.
    pub undo: bool,
    /// When its service was last told, or was about to be.
    pub reloaded: Option<WallTime>,
}

/// The marks of one daemon.
#[derive(Clone, Debug)]
pub struct Ledger {
    directory: PathBuf,
}

impl Ledger {
    /// Marks below `directory`, which need not be there as long as nothing is written.
    #[must_use]
    pub fn at(directory: &Path) -> Self {
        Self { directory: directory.to_path_buf() }
    }

    /// Marks below `directory`, which is made if missing, for this user only.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(directory: &Path) -> Result<Self, FileError> {
        file::make_directories(directory, 0o700)?;
        Ok(Self::at(directory))
    }

    /// The file that holds the mark of `dest`.
    #[must_use]
    pub fn path_of(&self, dest: &Path) -> PathBuf {
        self.directory.join(format!("{:016x}.mark", xxh3_64(dest.as_os_str().as_bytes())))
    }

    /// The file that holds what `dest` was before it was replaced.
    pub(crate) fn before_of(&self, dest: &Path) -> PathBuf {
        self.path_of(dest).with_extension("before")
    }

    /// The mark of `dest`; one that was never written owes nothing.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn read(&self, dest: &Path) -> Result<Mark, FileError> {
        let path = self.path_of(dest);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(decode(&bytes, dest).unwrap_or_else(|error| {
                tracing::warn!("{}: {error}; taking a reload as owed", path.display());
                Mark { owed: true, ..Mark::default() }
            })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Mark::default()),
            Err(error) => Err(FileError::at("read", &path)(error)),
        }
    }

    /// Writes the mark of `dest`; durable if it owes something.
    ///
    /// # Errors
    /// When a step of the replacement fails.
    pub fn write(&self, dest: &Path, mark: &Mark) -> Result<(), FileError> {
        let how = if mark.owed { Durability::Durable } else { Durability::Lazy };
        file::replace(&self.path_of(dest), &encode(mark, dest), 0o600, how)
    }
}

fn encode(mark: &Mark, dest: &Path) -> Vec<u8> {
    let mut out = Writer::new();
    out.uint(FORMAT).bytes(dest.as_os_str().as_bytes()).uint(mark.revision.0);
    out.bool(mark.owed).bool(mark.undo);
    out.option(mark.reloaded, |out, at| {
        out.uint(at.0);
    });
    let check = crc32c::crc32c(out.as_slice());
    out.fixed(check.into());
    out.into_vec()
}

fn decode(bytes: &[u8], dest: &Path) -> Result<Mark, Malformed> {
    let mut input = Reader::new(bytes);
    match input.uint()? {
        FORMAT => {}
        value => return Err(Malformed::Unknown { what: "format of a mark", value }),
    }
    let same_file = input.bytes()? == dest.as_os_str().as_bytes();
    let (revision, owed, undo) = (Revision(input.uint()?), input.bool()?, input.bool()?);
    let reloaded = input.option(Reader::uint)?.map(WallTime);
    let mark = Mark { revision, owed, undo, reloaded };
    let body = bytes.get(..bytes.len().saturating_sub(8)).unwrap_or_default();
    let checked = input.fixed()? == u64::from(crc32c::crc32c(body));
    input.finish()?;
    if checked && same_file { Ok(mark) } else { Err(Malformed::Checksum { what: "render mark" }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_survive_and_damage_is_owed() {
        std::fs::create_dir_all("target").unwrap();
        let dir = tempfile::tempdir_in("target").unwrap();
        let ledger = Ledger::open(&dir.path().join("a/b")).unwrap();
        let dest = Path::new("/etc/x.cfg");
        assert_eq!(ledger.read(dest).unwrap(), Mark::default());
        let mark =
            Mark { revision: Revision(9), owed: true, undo: true, reloaded: Some(WallTime(7)) };
        ledger.write(dest, &mark).unwrap();
        assert_eq!(ledger.read(dest).unwrap(), mark);
        let mut bytes = std::fs::read(ledger.path_of(dest)).unwrap();
        let owed_at = bytes.len() - 12;
        bytes[owed_at] = 0;
        std::fs::write(ledger.path_of(dest), &bytes).unwrap();
        assert!(ledger.read(dest).unwrap().owed);
        std::fs::write(ledger.path_of(dest), "").unwrap();
        assert!(ledger.read(dest).unwrap().owed);
        let mut older = Writer::new();
        older.uint(2).bytes(dest.as_os_str().as_bytes()).bytes(b"x").uint(9).fixed(1).fixed(2);
        std::fs::write(ledger.path_of(dest), older.bool(false).as_slice()).unwrap();
        let unknown = Mark { owed: true, ..Mark::default() };
        assert_eq!(ledger.read(dest).unwrap(), unknown, "one useless reload, no failed start");
    }
}
