//! The daemon's side of the render workers: starting, asking, stopping.
//!
//! The way of a render: a free worker or a new one -> one `Render` frame with templates and the
//! keys used last time -> its questions answered from the snapshot -> bytes. A worker that fails
//! to answer in time, or dies, is killed and the render fails; the next one gets a fresh worker.
//!
//! Invariants:
//! * At most `limits::RENDER_WORKERS_MAX` workers; each runs one render at a time.
//! * A worker inherits nothing: two pipes, no terminal, no environment but the allocator's.
//! * A worker is told no key that its resource may not read, whatever it asks: a template, or what
//!   somebody stored for it, may have taken it over.
//! * A dropped `render` future kills the worker it was using.
//! * The time of a render is bounded by `limits::RENDER_WALL_MS_MAX`, waiting for a worker aside.
//!
//! Deliberately not here: what a template is (`bundle`), and when to render (`worker`).

use crate::base::diagnostic::Diagnostic;
use crate::base::limits;
use crate::base::range::KeyRange;
use crate::render::engine::Rendered;
use crate::render::engine::lookup;
use crate::render::engine::protocol::{self, FromWorker, Request, ToWorker};
use crate::render::scope::Scope;
use crate::render::source::{Item, Snapshot, SourceError};
use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// The workers.
pub(crate) struct Pool {
    program: PathBuf,
    slots: Semaphore,
    idle: Mutex<Vec<Worker>>,
}

struct Worker {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
    used: Instant,
}

impl Pool {
    /// A pool that starts `program render-worker`; `None` = this very binary, by `/proc/self/exe`
    /// so that it is found even after an upgrade replaced the file.
    pub(crate) fn new(program: Option<PathBuf>) -> Self {
        Self {
            program: program.unwrap_or_else(|| PathBuf::from("/proc/self/exe")),
            slots: Semaphore::new(limits::RENDER_WORKERS_MAX),
            idle: Mutex::new(Vec::new()),
        }
    }

    /// Renders `request` once from `snapshot`; the template will probably ask for `likely`.
    pub(crate) async fn render(
        &self,
        request: Request,
        snapshot: &dyn Snapshot,
        likely: Vec<KeyRange>,
    ) -> Rendered {
        let path = request.bundle.files.first().map(|file| file.path.clone()).unwrap_or_default();
        let failed = |(message, help): (String, &str), touched: Vec<KeyRange>| Rendered {
            outcome: Err(Box::new(Diagnostic::new(path.clone(), message).help(help))),
            touched,
        };
        // The semaphore is never closed, so there is nothing to handle.
        let _slot = self.slots.acquire().await;
        let mut worker = match self.take() {
            Ok(worker) => worker,
            Err(error) => {
                let program = self.program.display();
                let message = format!("cannot start the render worker {program}: {error}");
                let help = "the system may be out of processes or memory; it is tried again";
                return failed((message, help), likely);
            }
        };
        let mut asked = likely;
        let limit = Duration::from_millis(limits::RENDER_WALL_MS_MAX);
        match tokio::time::timeout(limit, worker.exchange(request, snapshot, &mut asked)).await {
            Ok(Ok(rendered)) => {
                worker.used = Instant::now();
                self.lock().push(worker);
                rendered
            }
            Ok(Err(error)) => failed(worker.autopsy(&error).await, asked),
            Err(_) => {
                let seconds = limits::RENDER_WALL_MS_MAX / 1_000;
                // Without this, the killed worker would be a zombie until tokio looks.
                let _ = worker.child.kill().await;
                let message = format!("the render did not end within {seconds} s and was stopped");
                let help = "the machine or the store is too slow now; it is tried again";
                failed((message, help), asked)
            }
        }
    }

    /// Ends workers that were not used for `limits::RENDER_WORKER_IDLE_MS`.
    pub(crate) fn end_idle(&self) {
        let limit = Duration::from_millis(limits::RENDER_WORKER_IDLE_MS);
        self.lock().retain(|worker| worker.used.elapsed() < limit);
    }

    /// Ends all workers that are not rendering, and waits for them.
    pub(crate) async fn shutdown(&self) {
        let workers = std::mem::take(&mut *self.lock());
        for mut worker in workers {
            let _ = worker.child.kill().await;
        }
    }

    fn take(&self) -> std::io::Result<Worker> {
        while let Some(mut worker) = self.lock().pop() {
            if matches!(worker.child.try_wait(), Ok(None)) {
                return Ok(worker);
            }
        }
        self.start()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Worker>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self) -> std::io::Result<Worker> {
        let mut command = tokio::process::Command::new(&self.program);
        command.arg0("althing").arg("render-worker").env_clear().current_dir("/");
        // The allocator reserves a GiB of addresses at once otherwise, which is more than the
        // worker may have: then the first growth of its stack ends it.
        command.env("MIMALLOC_ARENA_RESERVE", limits::RENDER_ARENA_KIB.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        // Its own group: a Ctrl-C at the daemon's terminal is the daemon's affair.
        let mut child = command.process_group(0).kill_on_drop(true).spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (input, output) = pipes.ok_or_else(|| std::io::Error::other("no pipes"))?;
        Ok(Worker { child, input, output, used: Instant::now() })
    }
}

impl Worker {
    async fn exchange(
        &mut self,
        mut request: Request,
        snapshot: &dyn Snapshot,
        asked: &mut Vec<KeyRange>,
    ) -> std::io::Result<Rendered> {
        let sight = Sight { snapshot, scope: request.scope.clone() };
        match sight.preload(asked).await {
            Ok(preloaded) => request.preloaded = preloaded,
            Err(error) => {
                let error = Box::new(Diagnostic::new("", error.to_string()));
                return Ok(Rendered { outcome: Err(error), touched: std::mem::take(asked) });
            }
        }
        self.send(&ToWorker::Render(Box::new(request))).await?;
        let mut patience = Duration::from_millis(limits::LOOKUPS_MS_MAX);
        loop {
            let answer = match self.receive().await? {
                FromWorker::Range(range) if !sight.scope.reaches(&range) => {
                    return Err(std::io::Error::other("it asked for keys of other resources"));
                }
                FromWorker::Range(range) => {
                    if asked.len() < limits::RENDER_TOUCHED_MAX {
                        asked.push(range.clone());
                    }
                    match sight.range(&range).await {
                        Ok(items) => ToWorker::Items(items),
                        Err(error) => ToWorker::Unavailable(error.to_string()),
                    }
                }
                FromWorker::Lookup(host) => {
                    let began = Instant::now();
                    let addresses = lookup::addresses(host, patience).await;
                    patience = patience.saturating_sub(began.elapsed());
                    ToWorker::Addresses(addresses)
                }
                FromWorker::Ended(mut rendered) => {
                    rendered.touched.retain(|range| sight.scope.reaches(range));
                    return Ok(rendered);
                }
            };
            self.send(&answer).await?;
        }
    }

    async fn send(&mut self, message: &ToWorker) -> std::io::Result<()> {
        self.input.write_all(&protocol::framed(&message.encode())?).await
    }

    async fn receive(&mut self) -> std::io::Result<FromWorker> {
        let mut length = [0; 4];
        self.output.read_exact(&mut length).await?;
        let mut frame = vec![0; protocol::length_of(length)?];
        self.output.read_exact(&mut frame).await?;
        FromWorker::decode(&frame).map_err(std::io::Error::other)
    }

    /// Why a worker broke off, from how it died, and what to do.
    async fn autopsy(mut self, error: &std::io::Error) -> (String, &'static str) {
        let died = tokio::time::timeout(Duration::from_secs(1), self.child.wait()).await;
        match died {
            Ok(Ok(status)) => cause_of_death(status),
            Ok(Err(_)) | Err(_) => {
                (format!("the render worker broke off: {error}"), "it is tried again")
            }
        }
    }
}

fn cause_of_death(status: ExitStatus) -> (String, &'static str) {
    match status.signal().and_then(Signal::from_named_raw) {
        Some(Signal::XCPU) => {
            let seconds = limits::RENDER_CPU_SECONDS_MAX;
            let message = format!(
                "the template computed for more than {seconds} s and was stopped; is it looping?"
            );
            (message, "loop over less: a narrower pattern, or one loop inside another less")
        }
        Some(Signal::ABORT) => {
            let mib = limits::RENDER_MEMORY_BYTES_MAX / 1024 / 1024;
            let message =
                format!("the template needed more than {mib} MiB of memory and was stopped");
            (message, "read fewer keys, or split the file into several")
        }
        Some(Signal::SEGV) => (
            "the template is nested too deeply and was stopped".to_owned(),
            "look for an include, a component or a value inside itself",
        ),
        Some(Signal::KILL) => (
            "the render worker was killed, by the system or by somebody".to_owned(),
            "look for an out-of-memory message of the kernel; it is tried again",
        ),
        Some(_) | None => (format!("the render worker ended with {status}"), "it is tried again"),
    }
}

/// What of the store one render may see.
struct Sight<'a> {
    snapshot: &'a dyn Snapshot,
    scope: Scope,
}

impl Sight<'_> {
    async fn range(&self, range: &KeyRange) -> Result<Vec<Item>, SourceError> {
        let mut items = self.snapshot.range(range.clone()).await?;
        items.retain(|item| self.scope.sees(&item.key));
        Ok(items)
    }

    /// Reads what the template will probably want, within bounds.
    async fn preload(
        &self,
        likely: &[KeyRange],
    ) -> Result<Vec<(KeyRange, Vec<Item>)>, SourceError> {
        let mut loaded = Vec::new();
        let mut bytes = 0;
        for range in likely.iter().take(limits::RENDER_PRELOAD_RANGES_MAX) {
            let items = self.range(range).await?;
            bytes += items.iter().map(|item| item.key.len() + item.value.len()).sum::<usize>();
            if bytes > limits::RENDER_PRELOAD_BYTES_MAX {
                break;
            }
            loaded.push((range.clone(), items));
        }
        Ok(loaded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::Revision;
    use crate::base::path::KeyPath;
    use crate::render::engine::Surroundings;
    use crate::render::engine::bundle::Bundle;
    use crate::render::source::Answer;

    struct Store;

    impl Snapshot for Store {
        fn revision(&self) -> Revision {
            Revision(7)
        }

        fn range(&self, range: KeyRange) -> Answer<'_, Vec<Item>> {
            let item = |key: &'static str, value: &'static str| Item {
                key: key.into(),
                value: value.into(),
                mod_revision: Revision(7),
                ttl_seconds: None,
            };
            let all = [item("/app/a", "mine"), item("/app/b", "hidden"), item("/other", "foreign")];
            let found = all.into_iter().filter(|item| range.contains(&item.key)).collect();
            Box::pin(async move { Ok(found) })
        }
    }

    /// A render by a worker that asks for `range` and keeps what it is told: how it ended, and
    /// what it was told.
    async fn taken_over(range: KeyRange) -> (String, String) {
        let folder = tempfile::tempdir_in(std::fs::canonicalize("target").unwrap()).unwrap();
        let (worker, told) = (folder.path().join("worker"), folder.path().join("told"));
        let question = protocol::framed(&FromWorker::Range(range).encode()).unwrap();
        let bytes: String = question.iter().map(|byte| format!("\\{byte:03o}")).collect();
        let hear = format!("/bin/dd bs=4096 count=1 2>/dev/null >> {}", told.display());
        let script = format!("#!/bin/sh\n{hear}\nprintf '{bytes}'\n{hear}\n");
        let text = folder.path().join("text");
        std::fs::write(&text, script).unwrap();
        // Not written here: a child that another test forks meanwhile would hold it open, and a
        // file open for writing cannot be started.
        let mut copy = std::process::Command::new("install");
        assert!(copy.args(["-m", "700"]).args([&text, &worker]).status().unwrap().success());
        let path = |text: &str| KeyPath::clean(text.as_bytes()).unwrap();
        let request = Request {
            bundle: Bundle::default(),
            scope: Scope::new(path("/app"), &[path("/a")]).unwrap(),
            surroundings: Surroundings {
                revision: Revision(7),
                node: Vec::new(),
                environment: Vec::new(),
            },
            preloaded: Vec::new(),
        };
        let likely = vec![KeyRange::all()];
        let rendered = Pool::new(Some(worker)).render(request, &Store, likely).await;
        let told = std::fs::read(told).unwrap();
        (rendered.outcome.unwrap_err().to_string(), String::from_utf8_lossy(&told).into_owned())
    }

    #[tokio::test]
    async fn a_worker_is_told_only_what_its_resource_may_read() {
        let below = |text: &str| KeyRange::below(&KeyPath::clean(text.as_bytes()).unwrap());
        let (_, told) = taken_over(below("/app")).await;
        assert!(told.contains("mine") && !told.contains("hidden") && !told.contains("foreign"));
        let (error, told) = taken_over(KeyRange::all()).await;
        assert!(error.contains("keys of other resources"), "{error}");
        assert!(told.contains("mine") && !told.contains("hidden") && !told.contains("foreign"));
    }
}
