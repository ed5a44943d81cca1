//! Named points between the steps of a pass, where a test can stop it.
//!
//! Why: "kill -9 between any two steps leaves a whole file and an owed reload" is a promise that
//! only a kill at each of them can prove. The points are compiled in always and cost one load;
//! they lie on the path of a changed file only.
//!
//! Invariant: without a test asking for it, no point does anything.
//!
//! Deliberately not here: points in the store.

use std::sync::{Arc, Mutex, PoisonError};

/// A point of a pass, in the order they are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failpoint {
    /// The bytes are there, nothing is on disk.
    Rendered,
    /// The staged file is complete beside the destination.
    Staged,
    /// The check command has passed it.
    Checked,
    /// A copy of the old file is durable.
    BackedUp,
    /// The owed mark is durable, the destination still old.
    Owed,
    /// The destination is new, its directory not synced.
    Renamed,
    /// The new destination is durable, the reload has not run.
    Synced,
    /// The reload has succeeded, what it did is not verified.
    Reloaded,
    /// The verification has succeeded, the mark is still there.
    Verified,
    /// After a failure: the mark says to go back, the new file is still there.
    GoingBack,
    /// The old file is back, its service does not know.
    Back,
}

impl Failpoint {
    /// The points of a rollback, in order.
    pub const OF_A_ROLLBACK: [Self; 2] = [Self::GoingBack, Self::Back];

    /// Every point of a pass that succeeds, in order.
    pub const ALL: [Self; 9] = [
        Self::Rendered,
        Self::Staged,
        Self::Checked,
        Self::BackedUp,
        Self::Owed,
        Self::Renamed,
        Self::Synced,
        Self::Reloaded,
        Self::Verified,
    ];

    /// What `ALTHING_FAILPOINT` calls it: `render-Owed`.
    #[must_use]
    pub fn name(self) -> String {
        format!("render-{self:?}")
    }
}

/// A pass was stopped on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stopped at failpoint {}", .0.name())]
pub struct Tripped(pub Failpoint);

#[derive(Clone, Copy, Debug)]
enum Action {
    Abort,
    Fail,
}

/// Which point is armed, if any. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Failpoints(Arc<Mutex<Option<(Failpoint, Action)>>>);

impl Failpoints {
    /// No point is armed.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// The point named by `ALTHING_FAILPOINT` aborts the process, as a kill would; a name that is
    /// not ours arms nothing.
    #[must_use]
    pub fn from_environment() -> Self {
        let name = std::env::var("ALTHING_FAILPOINT").unwrap_or_default();
        let mut points = Failpoint::ALL.into_iter().chain(Failpoint::OF_A_ROLLBACK);
        let point = points.find(|point| point.name() == name);
        Self(Arc::new(Mutex::new(point.map(|point| (point, Action::Abort)))))
    }

    /// From now on, passes fail when they reach `point`.
    pub fn fail_at(&self, point: Failpoint) {
        *self.lock() = Some((point, Action::Fail));
    }

    /// No point is armed any more.
    pub fn disarm(&self) {
        *self.lock() = None;
    }

    /// Reaches a point.
    ///
    /// # Errors
    /// When it is armed to fail.
    pub fn reach(&self, point: Failpoint) -> Result<(), Tripped> {
        match *self.lock() {
            Some((armed, Action::Abort)) if armed == point => std::process::abort(),
            Some((armed, Action::Fail)) if armed == point => Err(Tripped(point)),
            Some(_) | None => Ok(()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Failpoint, Action)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
