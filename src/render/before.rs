//! The file as it was before it was replaced, for `on_failure = "rollback"`.
//!
//! Why not `backup`: what is put back must be the last file its service was well with, with its
//! owner and mode, and be found after a crash; a backup is for people.
//!
//! The way of the bytes: destination -> `<state>/<hash of path>.before` -> destination.
//!
//! Invariants:
//! * It is durable before the file is replaced, and goes after its service has taken the new one.
//! * While a reload is owed it is kept as it is: what stands in the file then may be what failed.
//! * One that is damaged is none.
//!
//! Deliberately not here: when to go back (`pass`).

use crate::base::codec::{Malformed, Reader, Writer};
use crate::base::limits;
use crate::render::stage::Access;
use crate::sys::file::{self, Durability, FileError};
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// An old file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Before {
    pub(crate) bytes: Vec<u8>,
    pub(crate) access: Access,
}

/// Keeps what `dest` is now at `path`. A file that is not there leaves nothing to go back to.
pub(crate) fn keep(path: &Path, dest: &Path) -> Result<(), FileError> {
    match read_whole(dest) {
        Ok(before) => file::replace(path, &encode(&before, dest), 0o600, Durability::Durable),
        Err(error) if error.kind() == ErrorKind::NotFound => file::remove_if_there(path),
        Err(error) => Err(FileError::at("keep", dest)(error)),
    }
}

/// What was kept of `dest` at `path`.
pub(crate) fn read(path: &Path, dest: &Path) -> Result<Option<Before>, FileError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(decode(&bytes, dest)
            .inspect_err(|error| tracing::warn!("{}: {error}", path.display()))
            .ok()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::at("read", path)(error)),
    }
}

fn read_whole(dest: &Path) -> std::io::Result<Before> {
    let open = std::fs::File::open(dest)?;
    let is = open.metadata()?;
    let access =
        Access { owner: Some(is.uid()), group: Some(is.gid()), mode: Some(is.mode() & 0o7777) };
    let (mut bytes, most) = (Vec::new(), limits::RENDER_OUTPUT_BYTES_MAX);
    open.take(most as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        let message = format!("larger than {most} bytes; set on_failure = \"keep\"");
        return Err(std::io::Error::new(ErrorKind::FileTooLarge, message));
    }
    Ok(Before { bytes, access })
}

fn encode(before: &Before, dest: &Path) -> Vec<u8> {
    let mut out = Writer::with_capacity(before.bytes.len() + 256);
    out.bytes(dest.as_os_str().as_bytes());
    let Access { owner, group, mode } = before.access;
    for number in [owner, group, mode] {
        out.option(number, |out, number| {
            out.uint(number.into());
        });
    }
    out.bytes(&before.bytes);
    let check = crc32c::crc32c(out.as_slice());
    out.fixed(check.into());
    out.into_vec()
}

fn decode(bytes: &[u8], dest: &Path) -> Result<Before, Malformed> {
    let mut input = Reader::new(bytes);
    let is_same_file = input.bytes()? == dest.as_os_str().as_bytes();
    let mut number = || {
        let number = input.option(Reader::uint)?;
        number.map(|number| u32::try_from(number).map_err(|_| Malformed::Overflow)).transpose()
    };
    let access = Access { owner: number()?, group: number()?, mode: number()? };
    let before = Before { bytes: input.bytes()?.to_vec(), access };
    let body = bytes.get(..bytes.len().saturating_sub(8)).unwrap_or_default();
    let is_checked = input.fixed()? == u64::from(crc32c::crc32c(body));
    input.finish()?;
    if is_checked && is_same_file {
        return Ok(before);
    }
    Err(Malformed::Checksum { what: "kept file" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_kept_with_its_mode_and_damage_is_nothing() {
        std::fs::create_dir_all("target").unwrap();
        let dir = tempfile::tempdir_in("target").unwrap();
        let (dest, path) = (dir.path().join("a.cfg"), dir.path().join("x.before"));
        keep(&path, &dest).unwrap();
        assert_eq!(read(&path, &dest).unwrap(), None);
        std::fs::write(&dest, "old").unwrap();
        keep(&path, &dest).unwrap();
        let before = read(&path, &dest).unwrap().unwrap();
        let is = std::fs::metadata(&dest).unwrap();
        assert_eq!(
            (before.bytes.as_slice(), before.access.mode),
            (&b"old"[..], Some(is.mode() & 0o7777))
        );
        assert_eq!(read(&path, Path::new("/other")).unwrap(), None);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.len() - 9;
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read(&path, &dest).unwrap(), None);
        std::fs::remove_file(&dest).unwrap();
        keep(&path, &dest).unwrap();
        assert!(!path.exists());
    }
}
