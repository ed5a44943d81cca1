//! What the log is written on: a directory of numbered segment files.
//!
//! The log sees a disk only through `Medium`, so that the simulator runs the very same code on a
//! disk that loses and tears what was not flushed (`MemoryMedium`). `FileMedium` is the real one:
//! each verb is one or two system calls and decides nothing.
//!
//! Invariants:
//! * Files are made 0600 in a directory made 0700: the log holds every secret of the store.
//! * `sync` returns only when the device has confirmed; an error is handed up, never retried,
//!   because the kernel may have dropped the dirty pages by then.
//! * Names are durable only after `sync_dir`.
//!
//! Deliberately not here: locking the data directory (the daemon does, once for all of it), what
//! a segment holds, and `O_DIRECT`, which measured no faster for small frames.
//!
//! Sources: open(2), fsync(2); Rebello et al., "Can Applications Recover from fsync Failures?"
//! (USENIX ATC 2020).

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Number of a segment, which is its file's name. Never used twice for different content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentNumber(pub u64);

impl SegmentNumber {
    /// The next number.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Prints the file's name, so that numbers sort as names do.
impl fmt::Display for SegmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016}.wal", self.0)
    }
}

/// A directory of segments. Errors are those of the system underneath.
pub trait Medium {
    /// Numbers of all segments, ascending.
    ///
    /// # Errors
    /// The system's, as for every method here.
    fn segments(&mut self) -> io::Result<Vec<SegmentNumber>>;

    /// Length of a segment in bytes.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    fn length(&mut self, segment: SegmentNumber) -> io::Result<u64>;

    /// Fills `buffer` from `offset` on, and says how many bytes there were: fewer only at the end.
    ///
    /// # Errors
    /// The system's.
    fn read_at(
        &mut self,
        segment: SegmentNumber,
        offset: u64,
        buffer: &mut [u8],
    ) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`; a segment grows when needed. Not durable before `sync`.
    ///
    /// # Errors
    /// `StorageFull` on a full disk.
    fn write_at(&mut self, segment: SegmentNumber, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes the segment's bytes and length durable.
    ///
    /// # Errors
    /// After an error nothing written since the last success may be relied on.
    fn sync(&mut self, segment: SegmentNumber) -> io::Result<()>;

    /// Makes an empty segment.
    ///
    /// # Errors
    /// `AlreadyExists`.
    fn create(&mut self, segment: SegmentNumber) -> io::Result<()>;

    /// Renames a segment; its bytes stay. `to` must not exist.
    ///
    /// # Errors
    /// The system's.
    fn recycle(&mut self, from: SegmentNumber, to: SegmentNumber) -> io::Result<()>;

    /// Removes a segment.
    ///
    /// # Errors
    /// The system's.
    fn remove(&mut self, segment: SegmentNumber) -> io::Result<()>;

    /// Makes created, renamed and removed names durable.
    ///
    /// # Errors
    /// The system's.
    fn sync_dir(&mut self) -> io::Result<()>;

    /// The directory, for messages.
    fn place(&self) -> String;

    /// The segment's path, for messages.
    fn path_of(&self, segment: SegmentNumber) -> String {
        format!("{}/{segment}", self.place())
    }
}

/// Segments as files of one directory.
#[derive(Debug)]
pub struct FileMedium {
    directory: PathBuf,
    /// The segment worked on: the tail in daily life, each in turn during recovery.
    open: Option<(SegmentNumber, File)>,
}

impl FileMedium {
    /// Uses `directory`, making it (durably) if it is not there. Its parent must exist.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(directory: &Path) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).create(directory) {
            Ok(()) => {
                let parent = directory.parent().filter(|path| !path.as_os_str().is_empty());
                File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        Ok(Self { directory: directory.to_path_buf(), open: None })
    }

    fn path(&self, segment: SegmentNumber) -> PathBuf {
        self.directory.join(segment.to_string())
    }

    fn file(&mut self, segment: SegmentNumber) -> io::Result<&File> {
        let held = self.open.take_if(|(number, _)| *number == segment);
        let file = match held {
            Some((_, file)) => file,
            None => OpenOptions::new().read(true).write(true).open(self.path(segment))?,
        };
        Ok(&self.open.insert((segment, file)).1)
    }

    fn forget(&mut self, segment: SegmentNumber) {
        self.open.take_if(|(number, _)| *number == segment);
    }
}

impl Medium for FileMedium {
    fn segments(&mut self) -> io::Result<Vec<SegmentNumber>> {
        let mut numbers = Vec::new();
        for item in self.directory.read_dir()? {
            let name = item?.file_name();
            let stem = name.to_str().and_then(|name| name.strip_suffix(".wal"));
            let number = stem.and_then(|stem| stem.parse().ok()).map(SegmentNumber);
            // Other files are not ours: left alone, and `8.wal` is not `0000000000000008.wal`.
            numbers.extend(number.filter(|number| name.to_str() == Some(&number.to_string())));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn length(&mut self, segment: SegmentNumber) -> io::Result<u64> {
        Ok(self.file(segment)?.metadata()?.len())
    }

    fn read_at(
        &mut self,
        segment: SegmentNumber,
        offset: u64,
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        let file = self.file(segment)?;
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&mut self, segment: SegmentNumber, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(segment)?.write_all_at(bytes, offset)
    }

    fn sync(&mut self, segment: SegmentNumber) -> io::Result<()> {
        // fdatasync(2): flushes the length too when it changed, and nothing else of the inode.
        self.file(segment)?.sync_data()
    }

    fn create(&mut self, segment: SegmentNumber) -> io::Result<()> {
        let path = self.path(segment);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(path)?;
        self.open = Some((segment, file));
        Ok(())
    }

    fn recycle(&mut self, from: SegmentNumber, to: SegmentNumber) -> io::Result<()> {
        self.forget(from);
        std::fs::rename(self.path(from), self.path(to))
    }

    fn remove(&mut self, segment: SegmentNumber) -> io::Result<()> {
        self.forget(segment);
        std::fs::remove_file(self.path(segment))
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }

    fn place(&self) -> String {
        self.directory.display().to_string()
    }
}
