//! The data directory: ours alone, and one daemon at a time.
//!
//! Why a lock and not a pid file: the kernel lets go of a lock when its process dies, however it
//! dies. The pid written into the file is for the message only.
//!
//! Layout: `lock`; `run/client-url`, the address the daemon really serves on, for scripts and
//! tests; `render/`, what the renderer must remember; the rest is the store's.
//!
//! Invariants:
//! * While a `Home` lives, no other process has one of the same directory.
//! * Nobody but its owner can look into the directory.
//!
//! Deliberately not here: anything about keys.

use crate::base::report::{Exit, Report};
use crate::base::url::HttpUrl;
use crate::sys::file::{self, Durability, FileError};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Why there is no home.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HomeError {
    /// A step failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another daemon lives here.
    #[error("{path} is in use by the althing of process {pid}", path = .path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Its process, as its lock file says.
        pid: String,
    },
    /// Others can look in.
    #[error("{path} has mode {mode:04o}: others than its owner could read the store", path = .path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl From<HomeError> for Report {
    fn from(error: HomeError) -> Self {
        let report = Self::new(Exit::Failed, error.to_string());
        match &error {
            HomeError::File(file) => report
                .cause(file.source.to_string())
                .help("name another directory with --data-dir, or give this one to the user the daemon runs as"),
            HomeError::InUse { pid, .. } => report.help(format!(
                "talk to that one, stop it with `kill {pid}`, or name another --data-dir"
            )),
            HomeError::Open { path, .. } => {
                report.help(format!("close it: chmod 700 {}", path.display()))
            }
        }
    }
}

/// A locked data directory.
#[derive(Debug)]
pub(crate) struct Home {
    path: PathBuf,
    /// Closing it lets go of the lock.
    _lock: File,
}

impl Home {
    /// Makes the directory if needed, and locks it.
    pub(crate) fn open(path: &Path) -> Result<Self, HomeError> {
        let path = std::path::absolute(path).map_err(FileError::at("find", path))?;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(FileError::at("make the directory", &path))?;
        close_to_others(&path)?;
        let lock = lock(&path)?;
        let run = path.join("run");
        fs::create_dir_all(&run).map_err(FileError::at("make the directory", &run))?;
        file::remove_if_there(&run.join("client-url"))?;
        Ok(Self { path, _lock: lock })
    }

    /// The directory, as an absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the renderer keeps what it must remember.
    pub(crate) fn render_state(&self) -> PathBuf {
        self.path.join("render")
    }

    /// Says where clients are served; whoever reads it finds the daemon ready.
    pub(crate) fn publish(&self, url: &HttpUrl) -> Result<(), FileError> {
        let text = format!("{url}\n");
        file::replace(&self.client_url(), text.as_bytes(), 0o600, Durability::Lazy)
    }

    /// Takes back what `publish` said.
    pub(crate) fn withdraw(&self) -> Result<(), FileError> {
        file::remove_if_there(&self.client_url())
    }

    fn client_url(&self) -> PathBuf {
        self.path.join("run/client-url")
    }
}

/// An empty directory is closed; one with something in it may be shared on purpose.
fn close_to_others(path: &Path) -> Result<(), HomeError> {
    let metadata = fs::metadata(path).map_err(FileError::at("look at", path))?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let mut entries = fs::read_dir(path).map_err(FileError::at("list", path))?;
    if entries.next().is_some() {
        return Err(HomeError::Open { path: path.to_owned(), mode });
    }
    let closed = fs::set_permissions(path, Permissions::from_mode(0o700));
    Ok(closed.map_err(FileError::at("close to others", path))?)
}

fn lock(home: &Path) -> Result<File, HomeError> {
    let path = home.join("lock");
    let mut options = File::options();
    options.create(true).truncate(false).read(true).write(true);
    let mut lock = options.open(&path).map_err(FileError::at("open", &path))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(in_use(home, &mut lock)),
        Err(errno) => return Err(FileError::at("lock", &path)(errno).into()),
    }
    sign(&mut lock).map_err(FileError::at("write", &path))?;
    Ok(lock)
}

fn sign(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

fn in_use(home: &Path, lock: &mut File) -> HomeError {
    let mut pid = String::new();
    // Without a readable pid the message is poorer, not wrong.
    let _ = lock.take(32).read_to_string(&mut pid);
    HomeError::InUse { path: home.to_owned(), pid: pid.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> tempfile::TempDir {
        fs::create_dir_all("target").unwrap();
        tempfile::tempdir_in("target").unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn one_daemon_at_a_time() {
        let dir = directory();
        let path = dir.path().join("new/data");
        let home = Home::open(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        let report = Report::from(Home::open(&path).unwrap_err());
        let pid = std::process::id();
        assert!(report.error.ends_with(&format!("is in use by the althing of process {pid}")));
        assert!(report.help.unwrap().contains(&format!("kill {pid}")));
        drop(home);
        Home::open(&path).unwrap();
    }

    #[test]
    fn the_address_is_there_while_it_is_true() {
        let dir = directory();
        let path = dir.path().join("data");
        let url: HttpUrl = "http://127.0.0.1:5".parse().unwrap();
        let home = Home::open(&path).unwrap();
        home.publish(&url).unwrap();
        let file = path.join("run/client-url");
        assert_eq!(fs::read_to_string(&file).unwrap(), "http://127.0.0.1:5\n");
        home.withdraw().unwrap();
        assert!(!file.exists());
        home.publish(&url).unwrap();
        drop(home);
        // A killed daemon leaves it behind; the next one takes it away before it serves.
        assert!(file.exists());
        Home::open(&path).unwrap();
        assert!(!file.exists());
    }

    #[test]
    fn an_open_directory_is_closed_or_refused() {
        let dir = directory();
        let path = dir.path().join("data");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        drop(Home::open(&path).unwrap());
        assert_eq!(mode(&path), 0o700);
        fs::set_permissions(&path, Permissions::from_mode(0o750)).unwrap();
        let report = Report::from(Home::open(&path).unwrap_err());
        assert!(report.error.contains("has mode 0750"), "{report}");
        assert!(report.help.unwrap().starts_with("close it: chmod 700 "));
        fs::write(dir.path().join("file"), "").unwrap();
        let report = Report::from(Home::open(&dir.path().join("file")).unwrap_err());
        assert!(report.error.starts_with("cannot make the directory "), "{report}");
    }
}
