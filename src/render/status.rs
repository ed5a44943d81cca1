//! What is known of each resource, for `althing status`, the health page, and who asks why a file
//! is not what it should be.
//!
//! Invariants:
//! * Reading is one short lock and a copy; nobody holds it across a wait.
//! * A file system that does not answer is told as an error while it lasts: only that one resource
//!   waits, so nothing else would show it.
//! * Only `add` makes an entry: a task that ends after its resource was forgotten brings none back.
//!
//! Deliberately not here: history. The log has it.

use crate::base::id::Revision;
use crate::base::limits;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;

/// One resource, or one resource file that cannot be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceStatus {
    /// Name of the resource.
    pub name: String,
    /// Its resource file.
    pub file: PathBuf,
    /// The file it renders; empty if the resource file was never good.
    pub dest: PathBuf,
    /// Whether the last pass succeeded and no reload is owed.
    pub ok: bool,
    /// What the last pass or reload, or the edited resource file, has against it.
    pub error: Option<String>,
    /// Revision the destination was last found or made equal to.
    pub revision: Revision,
    /// Renders so far, good or bad.
    pub renders: u64,
    /// Times the destination was replaced.
    pub changes: u64,
    /// Successful reloads.
    pub reloads: u64,
    /// Failures so far, by what did not succeed.
    pub failures: BTreeMap<Step, u64>,
    /// Since when a reload is owed.
    pub owed_since: Option<SystemTime>,
    /// When the last pass ended, good or bad.
    pub last_pass: Option<SystemTime>,
    /// When the last good pass ended.
    pub last_success: Option<SystemTime>,
    /// Whether the file is known to be behind its keys: its pass is put off.
    pub behind: bool,
    /// What it is waiting for.
    pub waiting: Waiting,
    /// Since when.
    pub since: Option<SystemTime>,
    /// When that wait ends by itself.
    pub until: Option<SystemTime>,
    /// Whether the content must not be shown.
    pub sensitive: bool,
}

/// What a pass or a reload is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The store has to answer.
    Store,
    /// The template is rendered.
    Template,
    /// A file is read or written.
    Disk,
    /// `check_cmd` runs.
    Check,
    /// `reload_cmd` runs.
    Reload,
    /// `verify_cmd` runs.
    Verify,
}

impl Step {
    /// Its name in the status and the metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Template => "template",
            Self::Disk => "disk",
            Self::Check => "check",
            Self::Reload => "reload",
            Self::Verify => "verify",
        }
    }
}

/// What a resource waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Waiting {
    /// Nothing: a pass is next.
    #[default]
    Nothing,
    /// The end of a step of its pass or reload.
    End(Step),
    /// A change of its keys, its template or its resource file.
    Change,
    /// Its keys staying as they are (`wait`).
    Quiet,
    /// The next reload being allowed (`min_reload_interval`).
    ReloadInterval,
    /// The hours in which its file may be replaced (`window`).
    Window,
    /// Its turn among the hosts that see the same change (`splay`).
    Turn,
    /// The next try of what failed; a change comes first if it is earlier.
    Retry,
}

impl Waiting {
    /// Whether a pass waits with it: something has changed, and is not in the file yet.
    #[must_use]
    pub fn puts_off(self) -> bool {
        match self {
            Self::Quiet | Self::ReloadInterval | Self::Window | Self::Turn => true,
            Self::Nothing | Self::End(_) | Self::Change | Self::Retry => false,
        }
    }
}

impl std::fmt::Display for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::End(step) => write!(f, "the {}", step.name()),
            Self::Change => f.write_str("a change"),
            Self::Quiet => f.write_str("its keys to stay as they are"),
            Self::ReloadInterval => f.write_str("the next reload to be allowed"),
            Self::Window => f.write_str("its window to open"),
            Self::Turn => f.write_str("its turn among the hosts"),
            Self::Retry => f.write_str("the next try"),
        }
    }
}

impl ResourceStatus {
    /// What it is at has failed.
    pub(crate) fn count_failure(&mut self) {
        if let Waiting::End(step) = self.waiting {
            *self.failures.entry(step).or_default() += 1;
        }
    }
}

/// The status of all resources.
#[derive(Debug, Default)]
pub(crate) struct Board {
    entries: Mutex<BTreeMap<String, Entry>>,
    /// Whether every resource is listed; marked as changed with every entry.
    listed: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Entry {
    status: ResourceStatus,
    /// When what it waits for began, by a clock nobody sets.
    began: Option<Instant>,
    /// Its first pass is over, good or bad, and the reload after it.
    has_rested: bool,
    pass_error: Option<String>,
    reload_error: Option<String>,
    file_error: Option<String>,
}

/// Whose error is set or cleared: they do not overwrite each other.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    Pass,
    Reload,
    File,
}

impl Board {
    /// Begins to tell of `name`, or goes on.
    pub(crate) fn add(&self, name: &str, change: impl FnOnce(&mut ResourceStatus)) {
        let mut entries = self.lock();
        let entry = entries.entry(name.to_owned()).or_default();
        name.clone_into(&mut entry.status.name);
        change(&mut entry.status);
        drop(entries);
        self.listed.send_modify(|_| {});
    }

    pub(crate) fn update(&self, name: &str, change: impl FnOnce(&mut ResourceStatus)) {
        if let Some(entry) = self.lock().get_mut(name) {
            change(&mut entry.status);
        }
        self.listed.send_modify(|_| {});
    }

    /// Tells what `name` waits for from now on, and when that ends by itself.
    pub(crate) fn wait_for(&self, name: &str, waiting: Waiting, until: Option<SystemTime>) {
        if let Some(entry) = self.lock().get_mut(name) {
            entry.began = Some(Instant::now());
            entry.has_rested |= !matches!(waiting, Waiting::Nothing | Waiting::End(_));
            let status = &mut entry.status;
            (status.waiting, status.until) = (waiting, until);
            status.since = Some(SystemTime::now());
        }
        self.listed.send_modify(|_| {});
    }

    /// Sets or clears one error; tells whether that is news, for the log.
    pub(crate) fn set_error(&self, name: &str, part: Part, error: Option<String>) -> bool {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(name) else { return false };
        let slot = match part {
            Part::Pass => &mut entry.pass_error,
            Part::Reload => &mut entry.reload_error,
            Part::File => &mut entry.file_error,
        };
        let news = *slot != error;
        *slot = error;
        drop(entries);
        self.listed.send_modify(|_| {});
        news
    }

    /// Every resource of the first reading is on the board.
    pub(crate) fn set_listed(&self) {
        self.listed.send_replace(true);
    }

    /// Returns when each resource has its file in place, owed reloads aside.
    pub(crate) async fn in_place(&self) {
        self.until_each(Entry::is_in_place).await;
    }

    /// Returns when each resource has had its first pass and the reload after it, good or bad.
    pub(crate) async fn first_pass(&self) {
        self.until_each(|entry| entry.has_rested || entry.was_never_good()).await;
    }

    async fn until_each(&self, is: fn(&Entry) -> bool) {
        let mut listed = self.listed.subscribe();
        while !(*listed.borrow_and_update() && self.lock().values().all(is)) {
            // Its sender is this board, which lives as long as this call.
            let _ = listed.changed().await;
        }
    }

    pub(crate) fn keep_only(&self, keep: impl Fn(&str) -> bool) {
        self.lock().retain(|name, _| keep(name));
        self.listed.send_modify(|_| {});
    }

    pub(crate) fn all(&self) -> Vec<ResourceStatus> {
        self.lock().values().map(Entry::shown).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn is_in_place(&self) -> bool {
        // A revision is set by good passes only.
        let was_good = self.status.revision > Revision(0);
        let is_there = was_good || self.status.waiting.puts_off();
        is_there && self.pass_error.is_none() && self.file_error.is_none()
    }

    fn was_never_good(&self) -> bool {
        self.status.dest.as_os_str().is_empty()
    }

    /// The operating system bounds no read and no write; every other step has its own end.
    fn hang(&self) -> Option<String> {
        let lasts =
            self.began.filter(|_| self.status.waiting == Waiting::End(Step::Disk))?.elapsed();
        let seconds = lasts.as_secs();
        (lasts > Duration::from_millis(limits::RENDER_DISK_MS_MAX)).then(|| {
            format!(
                "a file system has not answered for {seconds} s: nothing happens to this file \
                 until it does; the others go on"
            )
        })
    }

    fn shown(&self) -> ResourceStatus {
        let hang = self.hang();
        let errors = [&hang, &self.file_error, &self.pass_error, &self.reload_error];
        let errors: Vec<&str> = errors.into_iter().flatten().map(String::as_str).collect();
        let error = (!errors.is_empty()).then(|| errors.join("\n"));
        let ok = error.is_none() && self.status.owed_since.is_none();
        // Where a reload is owed, that is what waits.
        let behind = self.status.waiting.puts_off() && self.status.owed_since.is_none();
        ResourceStatus { ok, error, behind, ..self.status.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn a_file_system_that_does_not_answer_is_told() {
        let board = Board::default();
        board.add("a", |_| {});
        let error = || board.all().remove(0).error;
        for step in [Step::Disk, Step::Check] {
            board.wait_for("a", Waiting::End(step), None);
            assert_eq!(error(), None);
            let long = Duration::from_millis(limits::RENDER_DISK_MS_MAX + 2_000);
            board.lock().get_mut("a").unwrap().began = Some(Instant::now() - long);
            let told = error().is_some_and(|error| error.contains("has not answered for 12 s"));
            assert_eq!(told, step == Step::Disk, "{:?}", error());
        }
    }

    #[test]
    fn files_are_in_place_when_all_are_listed_and_none_failed() {
        let board = Board::default();
        let mut waiting = pin!(board.in_place());
        let mut is_over = || {
            let mut context = Context::from_waker(Waker::noop());
            waiting.as_mut().poll(&mut context) == Poll::Ready(())
        };
        assert!(!is_over(), "nothing is listed yet");
        board.add("a", |status| status.revision = Revision(1));
        board.add("b", |_| {});
        board.set_listed();
        assert!(!is_over(), "b had no pass yet");
        board.update("b", |status| status.renders = 1);
        assert!(!is_over(), "b had a pass, and is about to say how it went");
        board.set_error("b", Part::Pass, Some("bad".to_owned()));
        board.update("b", |status| status.revision = Revision(1));
        assert!(!is_over(), "b failed");
        board.set_error("b", Part::Reload, Some("owed".to_owned()));
        assert!(!is_over(), "b still failed");
        board.set_error("b", Part::Pass, None);
        assert!(is_over(), "an owed reload is another matter");
    }
}
