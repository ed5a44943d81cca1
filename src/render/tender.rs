//! The task of one resource: wait, pass, reload, wait.
//!
//! Why a task each: a hanging command or a slow check of one resource must not delay another.
//!
//! A change is put off while `wait` sees more of them, and while the `gate` forbids the reload it
//! may need: the pass itself waits, so that the file and what its service has loaded
//! do not part, and whatever comes meanwhile is in that one pass. Nothing is dropped. Only the pass
//! at the start does not wait: it makes a file that is not there, and replaces none.
//!
//! Invariants:
//! * One thing at a time: a pass, or a reload, or waiting.
//! * A file that changes all the time is rendered at least once in `wait.max`.
//! * Whatever failed is tried again after a pause that doubles up to
//!   `limits::RETRY_BACKOFF_MS_MAX`; a change of keys or files is tried at once.
//! * A pass that placed new bytes is followed by its reload before anything else.
//!
//! Deliberately not here: the steps of a pass (`pass`), and which resources there are (`worker`).

use crate::base::id::Revision;
use crate::base::limits;
use crate::base::report::chain;
use crate::render::gate::Gate;
use crate::render::owed::Mark;
use crate::render::pass::{Memory, Outcome, PassError, Shop};
use crate::render::resource::Resource;
use crate::render::source::SourceError;
use crate::render::status::{Part, ResourceStatus, Step, Waiting};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::time::Instant;

/// When something that failed is tried again.
struct Retry {
    first: Duration,
    pause: Duration,
    at: Option<Instant>,
}

impl Retry {
    fn new(first: Duration) -> Self {
        Self { first, pause: first, at: None }
    }

    fn clear(&mut self) {
        (self.pause, self.at) = (self.first, None);
    }

    /// Plans the next try: after the pause, give or take a quarter, so that hosts that failed
    /// together do not come back together.
    fn failed(&mut self) {
        let chance = RandomState::new().hash_one(0) % 512;
        let jittered =
            self.pause.saturating_mul(u32::try_from(768 + chance).unwrap_or(1024)) / 1024;
        self.at = Some(Instant::now() + jittered);
        self.pause = (self.pause * 2).min(Duration::from_millis(limits::RETRY_BACKOFF_MS_MAX));
    }

    fn is_due(&self) -> bool {
        self.at.is_none_or(|at| at <= Instant::now())
    }
}

/// The task of one resource.
pub(crate) struct Tender {
    shop: Arc<Shop>,
    resource: Resource,
    memory: Memory,
    pass_retry: Retry,
    reload_retry: Retry,
    /// When the file may be replaced and its service told.
    gate: Gate,
    /// The last pass would have replaced the file, and may not yet.
    is_put_off: bool,
    /// The last wait failed: the next try is a pass, after its pause.
    source_is_down: bool,
}

impl Tender {
    pub(crate) fn new(
        shop: Arc<Shop>,
        resource: Resource,
        retry_first: Duration,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let gate = Gate::of(&resource, shop.host());
        Self {
            shop,
            gate,
            is_put_off: false,
            resource,
            memory: Memory::new(Mark::default(), stop),
            pass_retry: Retry::new(retry_first),
            reload_retry: Retry::new(retry_first),
            source_is_down: false,
        }
    }

    pub(crate) async fn run(
        mut self,
        mut stop: watch::Receiver<bool>,
        mut kick: watch::Receiver<()>,
    ) {
        self.recall();
        let mut pass_is_due = true;
        loop {
            self.wait_for(Waiting::Nothing, None);
            if pass_is_due {
                self.pass().await;
            }
            self.reload_if_owed().await;
            if std::mem::take(&mut self.is_put_off) {
                self.until_open(&mut stop).await;
                pass_is_due = true;
                continue;
            }
            match self.sleep(&mut stop, &mut kick).await {
                Wake::Stop => return,
                Wake::Files => (self.memory.may_retry, pass_is_due) = (true, true),
                Wake::Keys(revision) => {
                    self.memory.seen = self.memory.seen.max(revision);
                    self.quiet(&mut stop, &mut kick).await;
                    self.gate.spreads();
                    pass_is_due = true;
                }
                Wake::SourceDown(error) => {
                    pass_is_due = false;
                    self.source_is_down = true;
                    self.pass_retry.failed();
                    self.wait_for(Waiting::End(Step::Store), None);
                    self.tell(Part::Pass, Some(error.to_string()));
                }
                Wake::Retry => {
                    let is_due = |retry: &Retry| retry.at.is_some() && retry.is_due();
                    self.memory.may_retry = self.memory.is_back && is_due(&self.reload_retry);
                    pass_is_due = is_due(&self.pass_retry) || self.memory.may_retry;
                }
            }
            self.source_is_down &= !pass_is_due;
            if pass_is_due {
                self.until_open(&mut stop).await;
            }
        }
    }

    async fn sleep(
        &self,
        stop: &mut watch::Receiver<bool>,
        kick: &mut watch::Receiver<()>,
    ) -> Wake {
        let retry = |retry: &Retry| retry.at.map(|at| (at, Waiting::Retry));
        let again = retry(&self.reload_retry).filter(|_| self.memory.is_back);
        let next = [retry(&self.pass_retry), again, self.owed_retry()]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at);
        let waiting = match next {
            Some(_) if self.source_is_down => Waiting::End(Step::Store),
            Some((_, waiting)) => waiting,
            None => Waiting::Change,
        };
        let next = next.map(|(at, _)| at);
        self.wait_for(waiting, next);
        tokio::select! {
            biased;
            () = stopped(stop) => Wake::Stop,
            Ok(()) = kick.changed() => Wake::Files,
            changed = self.changed(), if !self.source_is_down => {
                changed.map_or_else(Wake::SourceDown, Wake::Keys)
            }
            () = sleep_until(next) => Wake::Retry,
        }
    }

    async fn changed(&self) -> Result<Revision, SourceError> {
        let triggers = self.memory.triggers(&self.resource);
        self.shop.source.changed(triggers, self.memory.seen).await
    }

    /// Returns when no key has changed for `wait.min`, or `wait.max` is over; or at once when
    /// there is something to look at other than keys.
    async fn quiet(&mut self, stop: &mut watch::Receiver<bool>, kick: &mut watch::Receiver<()>) {
        let wait = self.resource.wait;
        if wait.max.is_zero() {
            return; // A timer that is over costs up to a millisecond all the same.
        }
        let latest = Instant::now() + wait.max;
        loop {
            let until = latest.min(Instant::now() + wait.min);
            self.wait_for(Waiting::Quiet, Some(until));
            tokio::select! {
                biased;
                () = stopped(stop) => return,
                Ok(()) = kick.changed() => return,
                () = tokio::time::sleep_until(until) => return,
                changed = self.changed() => match changed {
                    Ok(revision) => self.memory.seen = self.memory.seen.max(revision),
                    // The pass says so.
                    Err(_) => return,
                },
            }
        }
    }

    /// A pass may end in a reload, so it begins when that is allowed. A torn file waits for nothing.
    async fn until_open(&mut self, stop: &mut watch::Receiver<bool>) {
        while let Some((at, waiting)) = self.gate.shut().filter(|_| !self.memory.torn) {
            self.wait_for(waiting, Some(at));
            tokio::select! {
                () = stopped(stop) => return,
                () = sleep_until(Some(at)) => {}
            }
            if waiting == Waiting::Window {
                // It opens for all hosts at once.
                self.gate.spreads();
            }
        }
    }

    fn wait_for(&self, waiting: Waiting, until: Option<Instant>) {
        let until = until.map(|at| SystemTime::now() + at.duration_since(Instant::now()));
        self.shop.board.wait_for(&self.resource.name, waiting, until);
    }

    fn update(&self, change: impl FnOnce(&mut ResourceStatus)) {
        self.shop.board.update(&self.resource.name, change);
    }

    /// Reads what an earlier run left.
    fn recall(&mut self) {
        match self.shop.ledger.read(&self.resource.dest) {
            Ok(mark) => {
                self.memory.mark = mark;
                mark.reloaded.into_iter().for_each(|at| self.gate.recall(at));
            }
            Err(error) => tracing::warn!("resource {}: {error}", self.resource.name),
        }
        self.show_debt();
    }

    async fn pass(&mut self) {
        self.memory.is_shut = self.gate.shut().is_some() && !self.memory.torn;
        let done = self.shop.pass(&self.resource, &mut self.memory).await;
        self.memory.may_retry = false;
        let now = SystemTime::now();
        self.update(|status| (status.renders, status.last_pass) = (status.renders + 1, Some(now)));
        let error = match done {
            Ok(outcome) => {
                self.pass_retry.clear();
                self.passed(outcome, now);
                None
            }
            Err(PassError::Stopping) => return,
            Err(error) => {
                self.pass_retry.failed();
                Some(chain(&error))
            }
        };
        self.tell(Part::Pass, error);
        self.show_debt();
    }

    fn passed(&mut self, outcome: Outcome, now: SystemTime) {
        let revision = self.memory.mark.revision;
        if self.memory.failed != Some(self.memory.rendered) {
            self.memory.failed = None;
        }
        if outcome == Outcome::Replaced {
            // New content is worth a try now, whatever the last reload said.
            if self.memory.failed.is_none() {
                self.reload_retry.clear();
            }
            let (name, dest) = (&self.resource.name, self.resource.dest.display());
            tracing::info!("resource {name}: {dest} is new, from revision {revision}");
        }
        self.is_put_off = outcome == Outcome::PutOff;
        if self.is_put_off || outcome == Outcome::HeldBack {
            return;
        }
        self.update(|status| {
            status.changes += u64::from(outcome == Outcome::Replaced);
            status.last_success = Some(now);
            status.revision = revision;
        });
    }

    async fn reload_if_owed(&mut self) {
        let due = self.owed_retry().is_none_or(|(at, _)| at <= Instant::now());
        if !self.may_reload() || !due {
            return;
        }
        self.gate.reloads();
        let error = match self.shop.reload(&self.resource, &mut self.memory).await {
            Ok(()) => {
                self.reload_retry.clear();
                let ran = u64::from(self.resource.reload.is_some());
                self.update(|status| status.reloads += ran);
                None
            }
            Err(PassError::Stopping) => return,
            Err(error) => {
                self.reload_retry.failed();
                Some(chain(&error))
            }
        };
        self.tell(Part::Reload, error);
        self.show_debt();
    }

    /// Shows how a part of the work went, and logs it when that is news.
    fn tell(&self, part: Part, error: Option<String>) {
        let name = &self.resource.name;
        if error.is_some() {
            self.update(ResourceStatus::count_failure);
        }
        if self.shop.board.set_error(name, part, error.clone()) {
            match error {
                Some(error) => tracing::error!("resource {name}: {error}"),
                None => tracing::info!("resource {name}: in order again"),
            }
        }
    }

    fn show_debt(&self) {
        let owed = self.memory.mark.owed;
        self.update(|status| {
            let since = status.owed_since.unwrap_or_else(SystemTime::now);
            status.owed_since = owed.then_some(since);
        });
    }

    /// When an owed reload may run; a torn file is first made whole by a pass.
    fn owed_retry(&self) -> Option<(Instant, Waiting)> {
        let retry = self.reload_retry.at.map(|at| (at, Waiting::Retry));
        let shut = self.gate.shut().filter(|_| !self.memory.mark.undo);
        let latest = [retry, shut].into_iter().flatten().max_by_key(|(at, _)| *at);
        latest.filter(|_| self.may_reload())
    }

    fn may_reload(&self) -> bool {
        self.memory.mark.owed && !self.memory.torn && !self.memory.is_back
    }
}

/// Why a task wakes up.
enum Wake {
    Stop,
    Files,
    Keys(Revision),
    SourceDown(SourceError),
    Retry,
}

/// Returns when stopping was asked for, or whoever could ask is gone.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// May return before: who waits looks at the clock again.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => {
            let look = Instant::now() + Duration::from_millis(limits::WINDOW_LOOK_MS_MAX);
            tokio::time::sleep_until(at.min(look)).await;
        }
        None => std::future::pending().await,
    }
}
