//! After the swap: the service is told, what it says is verified, and the way back if it fails.
//!
//! The way of a failure with `on_failure = "rollback"`: the mark says that the old file is to come
//! back -> the old file is put where it was -> the service is told and verified again -> the mark
//! says no more than that a reload is owed. The new bytes are tried again after a pause; other
//! bytes at once.
//!
//! Invariants:
//! * The debt is cleared by a reload that succeeded with what the keys say, and by nothing else.
//! * Between the mark and its end a crash leaves the way back to be gone again from its start.
//! * Going back waits for no window and no interval.
//!
//! Deliberately not here: when to try again (`tender`).

use crate::base::id::Revision;
use crate::render::before::{self, Before};
use crate::render::failpoint::Failpoint;
use crate::render::gate::wall_now;
use crate::render::owed::Mark;
use crate::render::pass::{Memory, PassError, Shop, blocking};
use crate::render::place::{self, Grounds};
use crate::render::resource::Resource;
use crate::render::stage::{self, Compared};
use crate::render::status::Step;
use crate::sys::exec::{self, CommandLine, ExecError};
use crate::sys::file::{remove_if_there, sync_directory_of};
use crate::sys::users::Identity;
use std::path::Path;
use std::time::Duration;

impl Shop {
    /// Runs the reload that is owed, verifies that it helped, and clears the debt.
    pub(crate) async fn reload(
        &self,
        resource: &Resource,
        memory: &mut Memory,
    ) -> Result<(), PassError> {
        let begun = Mark { reloaded: Some(wall_now()), ..memory.mark };
        if !resource.min_reload_interval.is_zero() {
            self.remember(resource, memory, begun).await?;
        }
        if memory.mark.undo {
            return Err(self.go_back(resource, memory, None).await);
        }
        match self.tell_service(resource, memory).await {
            Ok(()) => {}
            Err(why @ (PassError::Reload(_) | PassError::Verify(_))) if resource.rolls_back => {
                let step = match &why {
                    PassError::Verify(_) => Step::Verify,
                    _ => Step::Reload,
                };
                let error = self.go_back(resource, memory, Some(Box::new(why))).await;
                // That is what has failed, however the way back went.
                self.at(resource, step);
                return Err(error);
            }
            Err(other) => return Err(other),
        }
        self.at(resource, Step::Disk);
        memory.failed = None;
        self.remember(resource, memory, Mark { owed: false, ..begun }).await?;
        let kept = self.ledger.before_of(&resource.dest);
        blocking(move || remove_if_there(&kept)).await
    }

    /// Runs the reload and the verification.
    async fn tell_service(&self, resource: &Resource, memory: &Memory) -> Result<(), PassError> {
        let (dest, timeout) = (&resource.dest, resource.reload_timeout);
        let revision = memory.mark.revision;
        if let Some(reload) = &resource.reload {
            self.at(resource, Step::Reload);
            let run = self.command(reload, resource, dest, revision, timeout);
            memory.unless_stopped(run).await?.map_err(PassError::Reload)?;
        }
        self.failpoints.reach(Failpoint::Reloaded)?;
        if let Some(verify) = &resource.verify {
            self.at(resource, Step::Verify);
            let run = self.command(verify, resource, dest, revision, timeout);
            memory.unless_stopped(run).await?.map_err(PassError::Verify)?;
        }
        self.failpoints.reach(Failpoint::Verified)?;
        Ok(())
    }

    /// Puts the old file back, if there is one, and tells the service. What comes of it is an
    /// error in any case: the new file is not in place.
    async fn go_back(
        &self,
        resource: &Resource,
        memory: &mut Memory,
        why: Option<Box<PassError>>,
    ) -> PassError {
        match self.try_to_go_back(resource, memory).await {
            Ok(true) => PassError::RolledBack { why },
            // There was no file before this one.
            Ok(false) => why.map_or(PassError::NoWayBack, |why| *why),
            Err(stop @ (PassError::Stopping | PassError::Tripped(_))) => stop,
            Err(error) => PassError::GoingBack(Box::new(error)),
        }
    }

    async fn try_to_go_back(
        &self,
        resource: &Resource,
        memory: &mut Memory,
    ) -> Result<bool, PassError> {
        self.at(resource, Step::Disk);
        let (kept, dest) = (self.ledger.before_of(&resource.dest), resource.dest.clone());
        let Some(before) = blocking(move || before::read(&kept, &dest)).await? else {
            self.remember(resource, memory, Mark { undo: false, ..memory.mark }).await?;
            return Ok(false);
        };
        self.remember(resource, memory, Mark { undo: true, ..memory.mark }).await?;
        self.failpoints.reach(Failpoint::GoingBack)?;
        let (wanted, grounds) = (resource.clone(), self.grounds.clone());
        blocking(move || put_back(&wanted, &grounds, &before)).await?;
        self.failpoints.reach(Failpoint::Back)?;
        self.tell_service(resource, memory).await?;
        self.at(resource, Step::Disk);
        self.remember(resource, memory, Mark { undo: false, ..memory.mark }).await?;
        memory.failed = Some(memory.rendered);
        memory.is_back = true;
        Ok(true)
    }

    /// Runs a command of a resource, when no other runs the same.
    pub(crate) async fn command(
        &self,
        line: &CommandLine,
        resource: &Resource,
        src: &Path,
        revision: Revision,
        timeout: Duration,
    ) -> Result<(), ExecError> {
        let (src, dest) = (src.to_string_lossy(), resource.dest.to_string_lossy());
        let (name, revision) = (&resource.name, revision.to_string());
        let variables = [("src", &*src), ("dest", &*dest), ("name", name), ("revision", &revision)];
        let line = line.with(&variables);
        let turn = self.turn(&line.to_string());
        let _turn = turn.lock().await;
        let who = resource.user.as_deref().map(Identity::to_become).transpose();
        let who = who.map_err(|source| ExecError::Nobody { command: line.to_string(), source })?;
        let done = exec::run_as(who.flatten(), &line, &variables, timeout).await.map(|_| ());
        done.map_err(|error| if resource.sensitive { error.without_output() } else { error })
    }
}

/// Makes the file what it was, with the owner and mode it had.
fn put_back(resource: &Resource, grounds: &Grounds, before: &Before) -> Result<(), PassError> {
    let dest = place::target(resource);
    grounds.permit(&dest)?;
    if let Compared::Differs(stage) = stage::stage(&dest, &before.bytes, before.access)? {
        stage.place()?;
        sync_directory_of(&dest)?;
    }
    Ok(())
}
