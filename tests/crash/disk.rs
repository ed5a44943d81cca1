//! A directory that can lose power: `tools/crashfs` mounted over a folder, as a guard.
//!
//! Data written to a file is volatile there until the file is flushed. `cut_power` keeps none or
//! some of the volatile writes, in order or not, whole or torn, after which every call fails;
//! `replug` unmounts the dead disk and mounts a fresh one over what survived.
//!
//! Invariants: at most one mount, unmounted when dropped, also when a test fails; the tool's
//! process is killed by its id if it does not end by itself.

use crate::common::{program, run, scratch, skip, wait_until};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// For a mount, an unmount, a command: seconds on a busy machine.
const WITHIN: Duration = Duration::from_secs(20);

/// What a power cut leaves of the volatile writes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Keeps {
    /// None of them.
    Nothing,
    /// Of each file a random choice, in order or not.
    Random,
    /// The same, and of some writes only some sectors.
    Torn,
}

/// The mounted folder.
pub(crate) struct Disk {
    home: TempDir,
    fusermount: PathBuf,
    tool: Option<Child>,
}

impl Disk {
    /// Mounts an empty disk; `None` after saying what is missing for it.
    #[track_caller]
    pub(crate) fn mount(name: &str) -> Option<Self> {
        let fusermount = program("fusermount")?;
        let home = scratch(name);
        if File::options().read(true).write(true).open("/dev/fuse").is_err() {
            skip("needs /dev/fuse and the right to open it: load the module, or run as root");
            return None;
        }
        // The tool names this interpreter: Debian's packages are not seen by another.
        let mut import = Command::new("/usr/bin/python3");
        let import = import.args(["-c", "import fusepy"]).stdin(Stdio::null());
        if !Path::new(import.get_program()).exists()
            || !run(import, home.path(), WITHIN).status.success()
        {
            skip("needs fusepy: install it, on Debian with `apt-get install python3-fusepy`");
            return None;
        }
        for folder in ["backing", "mounted"] {
            fs::create_dir(home.path().join(folder)).unwrap();
        }
        let mut disk = Self { home, fusermount, tool: None };
        disk.plug();
        Some(disk)
    }

    /// Where the files are.
    pub(crate) fn path(&self) -> PathBuf {
        self.home.path().join("mounted")
    }

    /// Makes calls fail from now on, in the tool's words: `{"fsync": "EIO", "after": 9}`.
    pub(crate) fn misbehave(&self, how: &Value) {
        let (draft, control) = (self.home.path().join("draft"), self.control());
        fs::write(&draft, how.to_string()).unwrap();
        fs::rename(draft, control).unwrap();
    }

    /// Makes calls work again.
    pub(crate) fn behave(&self) {
        self.misbehave(&json!({}));
    }

    /// Loses power now. What happens to volatile writes is drawn from `seed`.
    #[track_caller]
    pub(crate) fn cut_power(&self, keeps: Keeps, seed: u64) {
        let (keep, torn) = match keeps {
            Keeps::Nothing => ("none", false),
            Keeps::Random => ("random", false),
            Keeps::Torn => ("random", true),
        };
        self.misbehave(&json!({"cut": 1, "seed": seed, "keep": keep, "torn": torn}));
        // The tool looks at its orders when it is called.
        wait_until("the power is off", WITHIN, || fs::metadata(self.path()).is_err());
    }

    /// Replaces the disk by a fresh one that holds what survived. No process may use it.
    #[track_caller]
    pub(crate) fn replug(&mut self) {
        self.unplug();
        self.plug();
    }

    fn control(&self) -> PathBuf {
        self.home.path().join("control.json")
    }

    #[track_caller]
    fn plug(&mut self) {
        self.behave();
        let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/crashfs");
        let mut command = Command::new(tool);
        command.arg(self.home.path().join("backing")).arg(self.path()).arg(self.control());
        let log = File::options().create(true).append(true).open(self.home.path().join("log"));
        let log = log.unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut ended = None;
        wait_until("the disk is mounted", WITHIN, || {
            ended = child.try_wait().unwrap();
            ended.is_some() || self.is_mounted()
        });
        self.tool = Some(child);
        assert!(ended.is_none(), "crashfs ended with {ended:?}: {}", self.log());
    }

    /// A mount is another device than the folder it is in.
    fn is_mounted(&self) -> bool {
        let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
        device(&self.path()).is_some_and(|mounted| Some(mounted) != device(self.home.path()))
    }

    #[track_caller]
    fn unplug(&mut self) {
        let Some(mut tool) = self.tool.take() else { return };
        let unmounted = self.unmount("-u");
        if !unmounted {
            let _ = tool.kill();
        }
        wait_until("crashfs ends", WITHIN, || tool.try_wait().unwrap().is_some());
        assert!(unmounted, "the disk is in use: {}", self.log());
    }

    fn unmount(&self, how: &str) -> bool {
        let mut command = Command::new(&self.fusermount);
        command.arg(how).arg(self.path()).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(mut tool) = self.tool.take() {
            // Lazily: a daemon that outlived its guard must not keep the mount.
            self.unmount("-uz");
            let _ = tool.kill();
            let _ = tool.wait();
        }
    }
}
