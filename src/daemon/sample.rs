//! The sample of `--dev`: one resource and its template, to change and watch.
//!
//! Invariant: what is there already is never overwritten; the sample is the user's to edit.

use crate::sys::file::{self, FileError};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

const RESOURCE: &str = include_str!("../../templates/dev/hello.toml");
const TEMPLATE: &str = include_str!("../../templates/dev/hello.txt.tera");
/// Stands in the resource for the file it renders: destinations are absolute.
const DESTINATION: &str = "\"{DESTINATION}\"";
/// Permission bits of the sample's files, before the umask has its say.
const FILE_MODE: u32 = 0o644;

/// Writes what is missing below `confdir`; returns the file the sample renders.
pub(crate) fn write(confdir: &Path) -> Result<PathBuf, FileError> {
    let confdir = std::path::absolute(confdir).map_err(FileError::at("find", confdir))?;
    let dest = confdir.join("hello.txt");
    // TOML and JSON agree on the escapes of a string.
    let quoted = serde_json::Value::from(dest.to_string_lossy()).to_string();
    write_new(&confdir.join("conf.d/hello.toml"), &RESOURCE.replace(DESTINATION, &quoted))?;
    write_new(&confdir.join("templates/hello.txt.tera"), TEMPLATE)?;
    Ok(dest)
}

fn write_new(path: &Path, text: &str) -> Result<(), FileError> {
    if path.exists() {
        return Ok(());
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(FileError::at("make the directory", directory))?;
    }
    let mut file = file::create_exclusive(path, FILE_MODE)?;
    file.write_all(text.as_bytes()).map_err(FileError::at("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::resource;

    #[test]
    fn the_sample_is_a_good_resource_and_stays_as_edited() {
        fs::create_dir_all("target").unwrap();
        let dir = tempfile::tempdir_in("target").unwrap();
        let confdir = dir.path().join("with \"quotes\"");
        let dest = write(&confdir).unwrap();
        let loaded = resource::load(&confdir).unwrap();
        let resources = loaded[0].outcome.as_ref().unwrap();
        assert_eq!((resources[0].name.as_str(), &resources[0].dest), ("hello", &dest));
        assert!(confdir.join("templates").join(&resources[0].src).exists());
        let template = confdir.join("templates/hello.txt.tera");
        fs::write(&template, "mine").unwrap();
        fs::remove_file(confdir.join("conf.d/hello.toml")).unwrap();
        write(&confdir).unwrap();
        assert_eq!(fs::read_to_string(&template).unwrap(), "mine");
        assert!(confdir.join("conf.d/hello.toml").exists());
    }
}
