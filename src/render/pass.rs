//! One pass of one resource: render, stage, check, mark, replace.
//!
//! The order is the promise (DESIGN decision 18): the file is complete and checked before anybody
//! can see it, and the debt of a reload is on disk before the file changes. The failpoints stand
//! between the steps.
//!
//! Invariants:
//! * A failure before the rename leaves the old file untouched, and owes nothing new.
//! * No service is told about a file that may hold a part of the new bytes only.
//! * `Memory::mark` is what the ledger holds.
//! * Nothing of a sensitive resource's content is in an error.
//! * Two runs of one command never overlap, whoever asks: resources may share a reload.
//! * Stopping interrupts renders and commands, never a file operation.
//!
//! Deliberately not here: the reload after it (`reload`), and when to run (`tender`).

use crate::base::diagnostic::Diagnostic;
use crate::base::id::Revision;
use crate::base::limits;
use crate::base::range::KeyRange;
use crate::render::backup::Backups;
use crate::render::before;
use crate::render::engine::bundle::Bundle;
use crate::render::engine::pool::Pool;
use crate::render::engine::protocol::Request;
use crate::render::engine::{Rendered, Surroundings};
use crate::render::failpoint::{Failpoint, Failpoints, Tripped};
use crate::render::owed::{Ledger, Mark};
use crate::render::place::{self, Grounds, Refusal};
use crate::render::resource::Resource;
use crate::render::scope::tree;
use crate::render::source::{Snapshot, Source, SourceError};
use crate::render::stage::{self, Compared, Placed, Stage, StageError};
use crate::render::status::{Board, Step, Waiting};
use crate::sys::exec::ExecError;
use crate::sys::file::{FileError, make_directories, sync_directory_of};
use crate::sys::users::AccountError;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

/// Permission bits of a directory that `make_dirs` makes: the file itself is what is closed.
const DIRECTORY_MODE: u32 = 0o755;

/// Why a pass or reload did not succeed; the causes are behind it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PassError {
    #[error(transparent)]
    Template(#[from] Box<Diagnostic>),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(
        "the store is at revision {found}, this file was rendered from {last}: refusing to go \
         back; if the store was restored from a backup, remove {mark}", mark = mark.display()
    )]
    Older { found: Revision, last: Revision, mark: PathBuf },
    #[error(transparent)]
    Stage(#[from] StageError),
    #[error(transparent)]
    Place(#[from] Refusal),
    #[error("the old file is back in place; the new one will be tried again")]
    RolledBack {
        #[source]
        why: Option<Box<PassError>>,
    },
    #[error("a reload failed and the file from before is not there: the new one stays")]
    NoWayBack,
    #[error("the service has failed with the new file, and going back to the old one did too")]
    GoingBack(#[source] Box<PassError>),
    #[error("the check refused the new file, the old one stays")]
    Check(#[source] ExecError),
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error("the reload is owed and will be tried again")]
    Reload(#[source] ExecError),
    #[error("the service does not work with the new file, the reload will be tried again")]
    Verify(#[source] ExecError),
    #[error(transparent)]
    Tripped(#[from] Tripped),
    #[error("stopping")]
    Stopping,
}

impl From<FileError> for PassError {
    fn from(error: FileError) -> Self {
        Self::Stage(StageError::File(error))
    }
}

/// What all resources share.
pub(crate) struct Shop {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) board: Arc<Board>,
    pub(crate) pool: Pool,
    pub(crate) ledger: Ledger,
    pub(crate) backups: Backups,
    pub(crate) templates: PathBuf,
    pub(crate) grounds: Grounds,
    pub(crate) node: Vec<(String, String)>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) failpoints: Failpoints,
    pub(crate) running: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// What one resource remembers between passes.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) mark: Mark,
    /// Newest revision looked at: changes after it matter.
    pub(crate) seen: Revision,
    /// What the last render read.
    pub(crate) touched: Vec<KeyRange>,
    pub(crate) stop: watch::Receiver<bool>,
    /// What is odd about the file was told.
    pub(crate) was_told: bool,
    /// A file that is there must not be replaced now.
    pub(crate) is_shut: bool,
    /// Hash of the last bytes rendered.
    pub(crate) rendered: u64,
    /// Hash of the bytes the service failed with, since when the old ones are back.
    pub(crate) failed: Option<u64>,
    /// Those may be tried again.
    pub(crate) may_retry: bool,
    /// The old file is back: nobody is told before the new one is in place.
    pub(crate) is_back: bool,
    /// The file may hold a part of the new bytes only.
    pub(crate) torn: bool,
}

/// What a good pass did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Same,
    Replaced,
    /// The file would be replaced, and must not be now.
    PutOff,
    /// The service has just failed with these bytes.
    HeldBack,
}

impl Memory {
    pub(crate) fn new(mark: Mark, stop: watch::Receiver<bool>) -> Self {
        let (seen, touched) = (Revision(0), Vec::new());
        Self {
            mark,
            seen,
            touched,
            stop,
            was_told: false,
            is_shut: false,
            rendered: 0,
            failed: None,
            may_retry: true,
            is_back: false,
            torn: false,
        }
    }

    /// Runs `work` unless stopping comes first; what was started is then killed.
    pub(crate) async fn unless_stopped<T>(
        &self,
        work: impl Future<Output = T>,
    ) -> Result<T, PassError> {
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => Err(PassError::Stopping),
            done = work => Ok(done),
        }
    }

    /// What wakes the resource.
    pub(crate) fn triggers(&self, resource: &Resource) -> Vec<KeyRange> {
        let mut ranges = resource.scope.key_ranges();
        if ranges.is_empty() && self.touched.is_empty() {
            return vec![resource.scope.whole()];
        }
        if ranges.is_empty() {
            let wakes = |range: &&KeyRange| !resource.scope.is_only_read(range);
            ranges = self.touched.iter().filter(wakes).cloned().collect();
        }
        ranges.extend(resource.required.iter().flat_map(tree));
        ranges
    }

    /// The new file is where it belongs; what is odd about it is told once.
    fn placed(&mut self, resource: &Resource, how: Placed) {
        (self.torn, self.is_back) = (false, false);
        let odd = match how {
            Placed::Renamed => return,
            Placed::AsOurs => "is the daemon's own now: it may not give it to its owner or group",
            Placed::InPlace => "is a mount point: written in place, which is not atomic",
        };
        if !std::mem::replace(&mut self.was_told, true) {
            tracing::warn!("resource {}: {} {odd}", resource.name, resource.dest.display());
        }
    }

    fn holds_back(&self) -> bool {
        self.failed == Some(self.rendered) && !self.may_retry
    }

    fn likely(&self, resource: &Resource) -> Vec<KeyRange> {
        let keys = resource.scope.readable();
        if keys.is_empty() { self.touched.clone() } else { keys }
    }
}

impl Shop {
    /// Tells what the resource is at.
    pub(crate) fn at(&self, resource: &Resource, step: Step) {
        self.board.wait_for(&resource.name, Waiting::End(step), None);
    }

    /// This host, among others with the same resources.
    pub(crate) fn host(&self) -> &str {
        self.node.iter().find(|(key, _)| key == "name").map_or("", |(_, name)| name)
    }

    /// One pass up to the renamed file. A reload that becomes owed is in `memory.mark`.
    pub(crate) async fn pass(
        &self,
        resource: &Resource,
        memory: &mut Memory,
    ) -> Result<Outcome, PassError> {
        self.at(resource, Step::Store);
        let snapshot = self.snapshot(memory).await?;
        let revision = snapshot.revision();
        memory.seen = memory.seen.max(revision);
        if revision < memory.mark.revision {
            let mark = self.ledger.path_of(&resource.dest);
            return Err(PassError::Older { found: revision, last: memory.mark.revision, mark });
        }
        let bytes = self.render(resource, memory, &*snapshot).await?;
        drop(snapshot);
        self.failpoints.reach(Failpoint::Rendered)?;
        let mark = Mark { revision, ..memory.mark };
        memory.rendered = xxh3_64(&bytes);
        self.at(resource, Step::Disk);
        let (wanted, grounds) = (resource.clone(), self.grounds.clone());
        match blocking(move || stage(&wanted, &grounds, &bytes)).await? {
            Compared::Same => {
                (memory.torn, memory.is_back) = (false, false);
                self.remember(resource, memory, mark).await?;
                Ok(Outcome::Same)
            }
            Compared::Differs(_) if memory.holds_back() => Ok(Outcome::HeldBack),
            Compared::Differs(stage) if memory.is_shut && stage.replaces() => Ok(Outcome::PutOff),
            Compared::Differs(stage) => {
                self.install(resource, memory, stage, mark).await?;
                Ok(Outcome::Replaced)
            }
        }
    }

    /// Renders from the newest revision at hand.
    pub(crate) async fn render_now(
        &self,
        resource: &Resource,
        mut memory: Memory,
    ) -> Result<Vec<u8>, PassError> {
        let snapshot = self.snapshot(&memory).await?;
        self.render(resource, &mut memory, &*snapshot).await
    }

    async fn snapshot(&self, memory: &Memory) -> Result<Box<dyn Snapshot>, PassError> {
        let limit = Duration::from_millis(limits::RENDER_WALL_MS_MAX);
        let taken = tokio::time::timeout(limit, self.source.snapshot(memory.seen));
        match memory.unless_stopped(taken).await? {
            Ok(snapshot) => Ok(snapshot?),
            Err(_) => {
                let why = format!("no answer for revision {}", memory.seen);
                Err(SourceError::Unavailable(why).into())
            }
        }
    }

    /// Renders at the snapshot's revision, and remembers what was touched.
    async fn render(
        &self,
        resource: &Resource,
        memory: &mut Memory,
        snapshot: &dyn Snapshot,
    ) -> Result<Vec<u8>, PassError> {
        require(resource, snapshot).await?;
        self.at(resource, Step::Disk);
        let (templates, src) = (self.templates.clone(), resource.src.clone());
        let read = blocking(move || Bundle::read(&templates, &src).map_err(Box::new)).await?;
        let bundle = Bundle { trim_blocks: resource.trim_blocks, ..read };
        self.at(resource, Step::Template);
        let surroundings = Surroundings {
            revision: snapshot.revision(),
            node: self.node.clone(),
            environment: self.environment.clone(),
        };
        let scope = resource.scope.clone();
        let request = Request { bundle, scope, surroundings, preloaded: Vec::new() };
        let rendered = self.pool.render(request, snapshot, memory.likely(resource));
        let Rendered { outcome, touched } = memory.unless_stopped(rendered).await?;
        match &outcome {
            Ok(_) => memory.touched = touched,
            // A failed render may have ended before it read what the last one did.
            Err(_) => {
                memory.touched.extend(touched);
                memory.touched.sort();
                memory.touched.dedup();
                memory.touched.truncate(limits::RENDER_TOUCHED_MAX);
            }
        }
        let hidden = |error| if resource.sensitive { without_values(error) } else { error };
        let bytes = outcome.map_err(|error| Box::new(hidden(*error)))?;
        in_form(resource, &bytes)?;
        Ok(bytes)
    }

    async fn install(
        &self,
        resource: &Resource,
        memory: &mut Memory,
        stage: Stage,
        mut mark: Mark,
    ) -> Result<(), PassError> {
        self.failpoints.reach(Failpoint::Staged)?;
        if let Some(check) = &resource.check {
            self.at(resource, Step::Check);
            let run =
                self.command(check, resource, stage.path(), mark.revision, resource.check_timeout);
            memory.unless_stopped(run).await?.map_err(PassError::Check)?;
            self.at(resource, Step::Disk);
        }
        self.failpoints.reach(Failpoint::Checked)?;
        if resource.backup > 0 {
            let (backups, dest) = (self.backups.clone(), resource.dest.clone());
            let (revision, max) = (memory.mark.revision, resource.backup);
            blocking(move || backups.keep(&dest, revision, max)).await?;
        }
        if resource.rolls_back && !memory.mark.owed {
            let (kept, dest) = (self.ledger.before_of(&resource.dest), resource.dest.clone());
            blocking(move || before::keep(&kept, &dest)).await?;
        }
        self.failpoints.reach(Failpoint::BackedUp)?;
        let before = memory.mark;
        if resource.reload.is_some() || resource.verify.is_some() {
            (mark.owed, mark.undo) = (true, false);
            self.remember(resource, memory, mark).await?;
        }
        self.failpoints.reach(Failpoint::Owed)?;
        let dest = stage.dest().to_path_buf();
        match blocking(move || stage.place()).await {
            Ok(placed) => memory.placed(resource, placed),
            Err(error) => {
                memory.torn = matches!(error, PassError::Stage(StageError::Torn(_)));
                if !memory.torn {
                    self.remember(resource, memory, before).await?;
                }
                return Err(error);
            }
        }
        self.failpoints.reach(Failpoint::Renamed)?;
        blocking(move || sync_directory_of(&dest)).await?;
        self.failpoints.reach(Failpoint::Synced)?;
        self.remember(resource, memory, mark).await
    }

    /// Writes the mark if it says something new.
    pub(crate) async fn remember(
        &self,
        resource: &Resource,
        memory: &mut Memory,
        mark: Mark,
    ) -> Result<(), PassError> {
        if memory.mark == mark {
            return Ok(());
        }
        let (ledger, dest) = (self.ledger.clone(), resource.dest.clone());
        blocking(move || ledger.write(&dest, &mark)).await?;
        memory.mark = mark;
        Ok(())
    }

    /// The lock of a command; locks nobody holds are forgotten.
    pub(crate) fn turn(&self, command: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, turn| Arc::strong_count(turn) > 1);
        running.entry(command.to_owned()).or_default().clone()
    }
}

/// Fails unless every required key exists, or has keys below it.
async fn require(resource: &Resource, snapshot: &dyn Snapshot) -> Result<(), PassError> {
    for key in &resource.required {
        let mut is_there = false;
        for range in tree(key) {
            let found = snapshot.range(range).await?;
            is_there |= !found.is_empty();
        }
        if !is_there {
            let file = resource.file.display().to_string();
            let error = Diagnostic::new(file, format!("required key does not exist: {key}"))
                .help("set it, or take it off `required`; until then the old file stays");
            return Err(PassError::Template(Box::new(error)));
        }
    }
    Ok(())
}

/// A message of the template engine can quote a stored value; place, key and help cannot.
fn without_values(error: Diagnostic) -> Diagnostic {
    let message = "the template failed; why is not shown, as the resource is `sensitive`";
    Diagnostic { message: message.to_owned(), notes: Vec::new(), ..error }
}

/// Fails unless the bytes are what `output_format` says. The place is in the rendered file, whose
/// lines a sensitive resource does not show.
fn in_form(resource: &Resource, bytes: &[u8]) -> Result<(), Box<Diagnostic>> {
    let Some(format) = resource.output_format else { return Ok(()) };
    format.check(bytes, &resource.dest.display().to_string()).map_err(|error| {
        if !resource.sensitive {
            return Box::new(error);
        }
        let at = error.place.map_or_else(String::new, |at| format!(" (line {})", at.line));
        let message = format!("the rendered file cannot be parsed{at}; why is not shown");
        Box::new(Diagnostic { message, place: None, ..error })
    })
}

/// Stages `bytes` as the resource asks for.
fn stage(resource: &Resource, grounds: &Grounds, bytes: &[u8]) -> Result<Compared, PassError> {
    let dest = place::target(resource);
    grounds.permit(&dest)?;
    let access = resource.access()?;
    if let Some(directory) = dest.parent().filter(|_| resource.make_dirs) {
        make_directories(directory, DIRECTORY_MODE)?;
    }
    Ok(stage::stage(&dest, bytes, access)?)
}

/// Runs file work where it may block.
pub(crate) async fn blocking<T: Send + 'static, E: Into<PassError> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, PassError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(Into::into),
        // The runtime is going down, or the closure panicked: either way this pass is over.
        Err(_) => Err(PassError::Stopping),
    }
}
