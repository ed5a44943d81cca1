//! The running renderer: one task a resource, and one that looks after them.
//!
//! The way of a change: `Source::changed` (or a changed file, or `reload_all`) wakes the task of
//! a resource -> a pass -> the reload if one is owed -> it sleeps again. Changes that come during
//! a pass are found by the next `changed`, so a storm coalesces by itself and its last state is
//! on disk one pass after it ends.
//!
//! Invariants:
//! * A task runs one thing at a time: never two commands of one resource at once.
//! * A failed pass or reload is tried again with doubling pauses, whether or not keys change.
//! * A resource file that turns bad changes nothing but its status: the last good version goes on.
//! * `shutdown` returns when every task has ended and every child is dead; owed marks stay.
//!
//! Deliberately not here: the steps of a pass (`pass`).

use crate::base::diagnostic::Diagnostic;
use crate::base::limits;
use crate::base::report::chain;
use crate::render::backup::Backups;
use crate::render::engine::pool::Pool;
use crate::render::failpoint::Failpoints;
use crate::render::files::Files;
use crate::render::owed::{Ledger, Mark};
use crate::render::pass::{Memory, PassError, Shop};
use crate::render::place::{self, Grounds};
use crate::render::resource::{self, Resource};
use crate::render::source::Source;
use crate::render::status::{Board, Part, ResourceStatus};
use crate::render::tender::{Tender, stopped};
use crate::sys::file::FileError;
use crate::sys::pulse::Pulse;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

/// How a renderer runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Holds `conf.d/` and `templates/`.
    pub confdir: PathBuf,
    /// Where marks are kept; survives restarts.
    pub state_dir: PathBuf,
    /// Program started as `PROGRAM render-worker`; `None` = this binary.
    pub worker_program: Option<PathBuf>,
    /// Where files may be rendered to.
    pub grounds: Grounds,
    /// What `node()` returns.
    pub node: Vec<(String, String)>,
    /// What `getenv` sees.
    pub environment: Vec<(String, String)>,
    /// First pause before a failed pass or reload is tried again.
    pub retry_first: Duration,
    /// For tests.
    pub failpoints: Failpoints,
}

impl Options {
    /// The usual options for these two directories.
    #[must_use]
    pub fn new(confdir: impl Into<PathBuf>, state_dir: impl Into<PathBuf>) -> Self {
        let (confdir, state_dir) = (confdir.into(), state_dir.into());
        Self {
            grounds: Grounds::around(&confdir).without(&state_dir),
            confdir,
            state_dir,
            worker_program: None,
            node: Vec::new(),
            environment: Vec::new(),
            retry_first: Duration::from_millis(limits::RETRY_BACKOFF_MS_MIN),
            failpoints: Failpoints::from_environment(),
        }
    }

    /// Nothing is rendered into the store or over the settings, nor outside of `allowed` if that
    /// is not empty.
    pub fn keep_off(&mut self, data_dir: &Path, settings: Option<&Path>, allowed: &[PathBuf]) {
        let grounds = std::mem::take(&mut self.grounds);
        let grounds = grounds.without_data(data_dir, &self.confdir).only_in(allowed);
        self.grounds = settings.into_iter().fold(grounds, Grounds::without);
    }

    fn shop(&self, source: Arc<dyn Source>, ledger: Ledger, board: Arc<Board>) -> Shop {
        Shop {
            source,
            board,
            pool: Pool::new(self.worker_program.clone()),
            ledger,
            backups: Backups::new(&self.state_dir),
            templates: self.confdir.join("templates"),
            grounds: self.grounds.clone(),
            node: self.node.clone(),
            environment: self.environment.clone(),
            failpoints: self.failpoints.clone(),
            running: Mutex::new(BTreeMap::new()),
        }
    }
}

/// Renders a resource once and returns the bytes; touches no file, runs no command.
///
/// # Errors
/// When the store cannot be asked or the template fails.
pub async fn render_once(
    options: &Options,
    source: Arc<dyn Source>,
    resource: &Resource,
) -> Result<Vec<u8>, Diagnostic> {
    let shop = options.shop(source, Ledger::at(&options.state_dir), Arc::default());
    let (_keep, stop) = watch::channel(false);
    let rendered = shop.render_now(resource, Memory::new(Mark::default(), stop)).await;
    shop.pool.shutdown().await;
    rendered.map_err(|error| match error {
        PassError::Template(error) => *error,
        other => Diagnostic::new(resource.file.display().to_string(), chain(&other)),
    })
}

/// A running renderer. Dropping it without `shutdown` stops the tasks at their next wait.
pub struct Renderer {
    board: Arc<Board>,
    reload: mpsc::Sender<oneshot::Sender<()>>,
    pulse: Pulse,
    stop: watch::Sender<bool>,
    supervisor: JoinHandle<()>,
}

impl Renderer {
    /// Reads the resources and starts a task for each. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the state directory cannot be made. Bad resources are a matter of `status`.
    pub fn start(options: Options, source: Arc<dyn Source>) -> Result<Self, FileError> {
        let ledger = Ledger::open(&options.state_dir)?;
        let board = Arc::new(Board::default());
        let shop = Arc::new(options.shop(source, ledger, board.clone()));
        let (stop, stopped) = watch::channel(false);
        let (reload, reloads) = mpsc::channel(1);
        let pulse = Pulse::default();
        let (files, tasks) = (BTreeMap::new(), BTreeMap::new());
        let supervisor = Supervisor { options, shop, files, tasks, stopped };
        let supervisor = tokio::spawn(supervisor.run(reloads, pulse.clone()));
        Ok(Self { board, reload, pulse, stop, supervisor })
    }

    /// How every resource is doing, by name.
    #[must_use]
    pub fn status(&self) -> Vec<ResourceStatus> {
        self.board.all()
    }

    /// Reads all resources and templates again (SIGHUP); returns when they are read, and a pass of
    /// each has been asked for. Nothing happens before it is first polled.
    pub fn reload_all(&self) -> impl Future<Output = ()> + Send + use<> {
        let queue = self.reload.clone();
        async move {
            let (done, read) = oneshot::channel();
            // Either fails only when the renderer has ended: there is nothing to read for.
            if queue.send(done).await.is_ok() {
                let _ = read.await;
            }
        }
    }

    /// The loop that looks after all resources, for the watchdog.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Returns when each resource has its file in place, checked; a reload may still be owed.
    /// Never, if one cannot be rendered.
    pub fn in_place(&self) -> impl Future<Output = ()> + Send + use<> {
        let board = self.board.clone();
        async move { board.in_place().await }
    }

    /// Returns when each resource has had its first pass and the reload after it, good or bad.
    pub async fn first_pass(&self) {
        self.board.first_pass().await;
    }

    /// Stops: running commands are killed, running file operations finish, marks stay.
    pub async fn shutdown(self) {
        let _ = self.stop.send(true);
        let _ = self.supervisor.await;
    }
}

/// Starts, replaces and ends the tasks of resources.
struct Supervisor {
    options: Options,
    shop: Arc<Shop>,
    /// The last good resources of each file.
    files: BTreeMap<PathBuf, Vec<Resource>>,
    tasks: BTreeMap<String, Running>,
    stopped: watch::Receiver<bool>,
}

/// Name, file and errors of a resource file, or of one resource in it.
type BadFile = (String, PathBuf, Vec<Diagnostic>);

struct Running {
    resource: Resource,
    stop: watch::Sender<bool>,
    kick: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl Supervisor {
    async fn run(mut self, mut reloads: mpsc::Receiver<oneshot::Sender<()>>, pulse: Pulse) {
        let (mut files, mut events) = Files::watch(&self.options.confdir);
        let mut idle =
            tokio::time::interval(Duration::from_millis(limits::RENDER_WORKER_IDLE_MS / 4));
        self.reconcile().await;
        self.shop.board.set_listed();
        loop {
            let (mut quiet_first, mut told) = (false, None);
            tokio::select! {
                biased;
                () = stopped(&mut self.stopped) => break,
                () = pulse.answer() => continue,
                Some(done) = reloads.recv() => told = Some(done),
                Some(()) = events.recv() => quiet_first = true,
                _ = idle.tick() => {
                    self.shop.pool.end_idle();
                    if files.is_working() && !self.tasks.values().any(Running::has_ended) {
                        continue;
                    }
                }
            }
            if quiet_first {
                quiet(&mut events).await;
            }
            files.renew(&self.options.confdir);
            self.reconcile().await;
            for running in self.tasks.values() {
                running.kick.send_replace(());
            }
            if let Some(done) = told {
                // Whoever asked may have stopped waiting.
                let _ = done.send(());
            }
        }
        self.tasks.values().for_each(Running::stop);
        for running in self.tasks.values_mut() {
            // A panicked task has ended too; its panic is on standard error.
            let _ = (&mut running.task).await;
        }
        self.shop.pool.shutdown().await;
    }

    /// Makes the tasks what the resource files say. One that is held up by a file operation keeps
    /// its destination until it has ended; a later call starts its successor.
    async fn reconcile(&mut self) {
        let wanted = self.wanted().await;
        let obsolete = self.tasks.extract_if(.., |name, running| {
            wanted.get(name) != Some(&running.resource) || running.has_ended()
        });
        let obsolete: Vec<(String, Running)> = obsolete.collect();
        obsolete.iter().for_each(|(_, running)| running.stop());
        let latest = Instant::now() + Duration::from_millis(limits::RENDER_END_MS_MAX);
        for (name, mut running) in obsolete {
            if timeout_at(latest, &mut running.task).await.is_err() {
                tracing::warn!("resource {name}: its change waits for a file system to answer");
                self.tasks.insert(name, running);
            }
        }
        let taken: BTreeSet<PathBuf> =
            self.tasks.values().map(|running| running.resource.dest.clone()).collect();
        for resource in wanted.into_values() {
            if !self.tasks.contains_key(&resource.name) && !taken.contains(&resource.dest) {
                self.tasks.insert(resource.name.clone(), self.start(resource));
            }
        }
    }

    /// Every resource by name: read now, or the last good version of a file that turned bad.
    async fn wanted(&mut self) -> BTreeMap<String, Resource> {
        let confdir = self.options.confdir.clone();
        let loaded = tokio::task::spawn_blocking(move || resource::load(&confdir)).await;
        let mut bad: Vec<BadFile> = Vec::new();
        match loaded {
            Ok(Ok(loaded)) => {
                let seen: Vec<PathBuf> = loaded.iter().map(|one| one.file.clone()).collect();
                self.files.retain(|file, _| seen.contains(file));
                for one in loaded {
                    match one.outcome {
                        Ok(resources) => drop(self.files.insert(one.file, resources)),
                        Err(errors) => bad.push((one.name, one.file, errors)),
                    }
                }
                self.shop.board.set_error("conf.d", Part::File, None);
            }
            Ok(Err(error)) => {
                bad.push(("conf.d".to_owned(), self.options.confdir.clone(), vec![error]));
            }
            Err(_) => {}
        }
        let wanted = self.without_rivals(&mut bad).await;
        let bad_names: Vec<&str> = bad.iter().map(|(name, ..)| name.as_str()).collect();
        self.shop.board.keep_only(|name| wanted.contains_key(name) || bad_names.contains(&name));
        for name in wanted.keys() {
            self.shop.board.set_error(name, Part::File, None);
        }
        for (name, file, errors) in bad {
            self.tell_bad_file(&name, &file, &errors, &wanted);
        }
        wanted
    }

    /// Two resources must not write one file, and none may write where it must not.
    async fn without_rivals(&self, bad: &mut Vec<BadFile>) -> BTreeMap<String, Resource> {
        let all: Vec<Resource> = self.files.values().flatten().cloned().collect();
        let (grounds, unlooked) = (self.options.grounds.clone(), all.clone());
        let looked_at = tokio::task::spawn_blocking(move || {
            let targets: Vec<PathBuf> = all.iter().map(place::target).collect();
            place::sort_out(all.into_iter().zip(targets).collect(), &grounds)
        });
        let limit = Duration::from_millis(limits::RENDER_END_MS_MAX);
        // Every pass looks again at where it writes: what is left out here is found there.
        let (good, refused) = match tokio::time::timeout(limit, looked_at).await {
            Ok(Ok(sorted)) => sorted,
            Ok(Err(_)) | Err(_) => {
                tracing::warn!("destinations are compared by name: a file system does not answer");
                let named = unlooked.into_iter().map(|one| (one.clone(), one.dest)).collect();
                place::sort_out(named, &Grounds::default())
            }
        };
        bad.extend(refused.into_iter().map(|(one, error)| (one.name, one.file, vec![error])));
        good.into_iter().map(|resource| (resource.name.clone(), resource)).collect()
    }

    fn tell_bad_file(
        &self,
        name: &str,
        file: &Path,
        errors: &[Diagnostic],
        wanted: &BTreeMap<String, Resource>,
    ) {
        let shown: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let shown = shown.join("\n");
        let part = format!("{name}:");
        let in_force: Vec<&str> = wanted
            .keys()
            .map(String::as_str)
            .filter(|one| *one == name || one.starts_with(&part))
            .collect();
        let names = if in_force.is_empty() { vec![name] } else { in_force };
        for name in names {
            self.shop.board.add(name, |status| status.file = file.to_path_buf());
            if self.shop.board.set_error(name, Part::File, Some(shown.clone())) {
                tracing::error!("resource {name}: {shown}");
            }
        }
    }

    fn start(&self, resource: Resource) -> Running {
        let (stop, stopped) = watch::channel(false);
        let (kick, kicked) = watch::channel(());
        self.shop.board.add(&resource.name, |status| {
            status.file.clone_from(&resource.file);
            status.dest.clone_from(&resource.dest);
            status.sensitive = resource.sensitive;
        });
        let (shop, retry_first) = (self.shop.clone(), self.options.retry_first);
        let tender = Tender::new(shop, resource.clone(), retry_first, stopped.clone());
        let task = tokio::spawn(tender.run(stopped, kicked));
        Running { resource, stop, kick, task }
    }
}

impl Running {
    /// Asks it to end: what it runs is killed, a file operation ends first.
    fn stop(&self) {
        self.stop.send_replace(true);
    }

    fn has_ended(&self) -> bool {
        self.task.is_finished()
    }
}

/// Waits until files stop changing, for a bounded time.
async fn quiet(events: &mut mpsc::Receiver<()>) {
    let latest = Instant::now() + Duration::from_millis(limits::FILES_WAIT_MS_MAX);
    let pause = Duration::from_millis(limits::FILES_QUIET_MS);
    while Instant::now() < latest {
        match tokio::time::timeout(pause, events.recv()).await {
            Ok(Some(())) => {}
            Ok(None) | Err(_) => return,
        }
    }
}
