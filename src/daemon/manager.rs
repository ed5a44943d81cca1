//! What the service manager hears of the daemon, in the order it happens.
//!
//! What: `READY=1` when the files are in place, or when they have kept it waiting too long; a line
//! of status; a reload from its begin to its end; the watchdog's sign of life. Why one task: the
//! order of messages is then the order of this file.
//!
//! Invariants:
//! * READY comes once the doors serve, and within `render_timeout`, whatever the files are like:
//!   a host whose HAProxy waits for us must come up with its last good file.
//! * A reload that is still owed holds READY up no longer than a good one: its command may be
//!   waiting for a unit that waits for us.
//! * READY does not wait for other members; a cold cluster may be started one by one.
//! * Trouble with the manager's socket is told once and never ends the daemon.
//!
//! Deliberately not here: what a signal means (`daemon`), and STOPPING, which comes when this task
//! has ended.
//!
//! Sources: sd_notify(3), systemd.service(5).

use crate::base::limits;
use crate::base::report::{Report, chain};
use crate::daemon::SharedRenderer;
use crate::daemon::watchdog::Watchdog;
use crate::node::{Node, Status};
use crate::render::{Renderer, ResourceStatus};
use crate::sys::notify::{Message, Notifier};
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};

/// The teller, for the life of the daemon.
pub(crate) struct Manager<'a> {
    notifier: Arc<Notifier>,
    node: &'a Node,
    renderer: &'a SharedRenderer,
    /// Somebody asked for a reload.
    reload: &'a Notify,
    /// Settings, resources and templates were read again: the files may be others.
    was_read_again: Notify,
    /// The last status that was told.
    shown: RefCell<String>,
    /// READY was told: a file that is not there yet is trouble from now on.
    is_ready: Cell<bool>,
    was_refused: Cell<bool>,
}

impl<'a> Manager<'a> {
    pub(crate) fn new(
        notifier: Notifier,
        node: &'a Node,
        renderer: &'a SharedRenderer,
        reload: &'a Notify,
    ) -> Self {
        Self {
            notifier: Arc::new(notifier),
            node,
            renderer,
            reload,
            was_read_again: Notify::new(),
            shown: RefCell::default(),
            is_ready: Cell::new(false),
            was_refused: Cell::new(false),
        }
    }

    /// Tells until it is dropped. `reload` reads what the operator may have changed.
    pub(crate) async fn run(
        &self,
        render_timeout: Duration,
        watchdog: Watchdog,
        reload: impl AsyncFn() -> Result<(), Report>,
    ) -> Infallible {
        tokio::select! {
            never = self.be_ready(render_timeout, watchdog) => never,
            never = self.show_status() => never,
            never = self.reload(reload) => never,
        }
    }

    /// The end has begun: clients are sent away, then files and store are closed.
    pub(crate) fn stopping(&self) {
        self.tell(&[Message::Stopping, Message::Status("stopping")]);
    }

    /// Tells READY when it is time, and that all parts are alive from then on.
    async fn be_ready(&self, render_timeout: Duration, watchdog: Watchdog) -> Infallible {
        if tokio::time::timeout(render_timeout, self.files_in_place()).await.is_err() {
            let files = files_in_words(&self.renderer.files());
            let seconds = render_timeout.as_secs_f64();
            tracing::warn!("ready without all files after {seconds} s: {files}");
        }
        self.is_ready.set(true);
        self.tell_with_status(Message::Ready);
        let life = self.notifier.watchdog().map(|time| watchdog.start(self.notifier.clone(), time));
        if let Some(Err(error)) = &life {
            tracing::error!(%error, "no thread for the watchdog: systemd will end this process");
        }
        std::future::pending().await
    }

    /// Returns when every file is in place: of the confdir that is rendered from by then.
    async fn files_in_place(&self) {
        while let Some(in_place) = self.renderer.with(Renderer::in_place) {
            tokio::select! {
                () = in_place => return,
                () = self.was_read_again.notified() => {}
            }
        }
    }

    async fn show_status(&self) -> Infallible {
        let mut looks = interval(Duration::from_millis(limits::NOTIFY_STATUS_MS));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if self.status() != *self.shown.borrow() {
                self.tell_with_status(None);
            }
        }
    }

    async fn reload(&self, reload: impl AsyncFn() -> Result<(), Report>) -> Infallible {
        loop {
            self.reload.notified().await;
            // Before READY it is still the start, for the manager.
            let is_told = self.is_ready.get();
            if is_told {
                self.tell(&[Message::Reloading]);
            }
            tracing::info!("reading settings, resources and templates again");
            if let Err(report) = reload().await {
                tracing::error!("{report}");
            }
            self.was_read_again.notify_one();
            if is_told {
                self.tell_with_status(Message::Ready);
            }
        }
    }

    fn status(&self) -> String {
        let files = self.renderer.files();
        let is_missing = |file: &ResourceStatus| self.is_ready.get() && file.renders == 0;
        let is_good = !files.iter().any(|file| file.error.is_some() || is_missing(file));
        status_line(&self.node.handle().status(), is_good, &files_in_words(&files))
    }

    fn tell_with_status<'m>(&self, what: impl Into<Option<Message<'m>>>) {
        let status = self.status();
        let messages: Vec<_> = what.into().into_iter().chain([Message::Status(&status)]).collect();
        self.tell(&messages);
        self.shown.replace(status);
    }

    fn tell(&self, messages: &[Message<'_>]) {
        if let Err(error) = self.notifier.send(messages)
            && !self.was_refused.replace(true)
        {
            tracing::warn!("{}: systemd may take this process for hung", chain(&error));
        }
    }
}

/// `leader of term 2, revision 7, 3 files up to date`, trouble first.
fn status_line(node: &Status, is_good: bool, files: &str) -> String {
    let place = match (node.leader, node.role.name()) {
        (Some(leader), role) if leader != node.member => format!("{role}, led by {leader}"),
        (Some(_), role) => role.to_owned(),
        (None, role) => format!("{role} without a leader"),
    };
    let full = if node.no_space { "the disk of the store is full, " } else { "" };
    let place = format!("{full}{place}, term {}, revision {}", node.term, node.revision);
    if is_good { format!("{place}, {files}") } else { format!("degraded: {files}; {place}") }
}

fn files_in_words(files: &[ResourceStatus]) -> String {
    let count = |is: fn(&&ResourceStatus) -> bool| files.iter().filter(is).count();
    let waiting = count(|file| file.error.is_none() && file.renders == 0);
    let reloading = match count(|file| file.error.is_none() && file.owed_since.is_some()) {
        0 => "",
        _ => ", reloading",
    };
    let behind = count(|file| file.error.is_none() && file.renders > 0 && file.behind);
    let bad = files.iter().filter(|file| file.error.is_some());
    let bad: Vec<&str> = bad.map(|file| file.name.as_str()).collect();
    match (files.len(), bad.as_slice(), waiting) {
        (0, ..) => "nothing to render".to_owned(),
        (all, [], 0) if behind > 0 => {
            format!("{} of {all} files up to date, {behind} waiting{reloading}", all - behind)
        }
        (1, [], 0) => format!("1 file up to date{reloading}"),
        (all, [], 0) => format!("{all} files up to date{reloading}"),
        (all, [], waiting) => format!("{} of {all} files rendered", all - waiting),
        (all, bad, _) => format!("{} of {all} files failed: {}", bad.len(), listed(bad)),
    }
}

fn listed(names: &[&str]) -> String {
    let named: Vec<&str> = names.iter().take(limits::STATUS_NAMES_MAX).copied().collect();
    match names.len() - named.len() {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ClusterId, LogIndex, MemberId, Revision, Term, WallTime};
    use crate::node::Role;

    fn file(name: &str, ok: bool, renders: u64) -> ResourceStatus {
        let error = (!ok).then(|| "bad".to_owned());
        ResourceStatus { name: name.to_owned(), ok, error, renders, ..ResourceStatus::default() }
    }

    #[test]
    fn files_are_counted_and_the_bad_ones_named() {
        let owed_since = Some(std::time::UNIX_EPOCH);
        let owing = ResourceStatus { ok: false, owed_since, ..file("a", true, 1) };
        let behind = ResourceStatus { behind: true, ..file("a", true, 1) };
        let table = [
            (vec![], "nothing to render"),
            (vec![file("a", true, 1)], "1 file up to date"),
            (vec![owing], "1 file up to date, reloading"),
            (vec![behind, file("b", true, 1)], "1 of 2 files up to date, 1 waiting"),
            (vec![file("a", true, 1), file("b", true, 2)], "2 files up to date"),
            (vec![file("a", true, 1), file("b", true, 0)], "1 of 2 files rendered"),
            (vec![file("a", true, 0), file("b", false, 1)], "1 of 2 files failed: b"),
            (
                ["a", "b", "c", "d", "e"].map(|name| file(name, false, 1)).into(),
                "5 of 5 files failed: a, b, c and 2 more",
            ),
        ];
        for (files, expected) in table {
            assert_eq!(files_in_words(&files), expected);
        }
    }

    #[test]
    fn the_status_says_trouble_first() {
        let node = Status {
            cluster: ClusterId(1),
            member: MemberId(2),
            name: "box1".to_owned(),
            client_urls: Vec::new(),
            role: Role::Leader,
            leader: Some(MemberId(2)),
            term: Term(3),
            applied: LogIndex(9),
            revision: Revision(7),
            leader_since: WallTime(0),
            started: WallTime(0),
            no_space: false,
        };
        assert_eq!(status_line(&node, true, "x"), "leader, term 3, revision 7, x");
        let full = Status { no_space: true, ..node.clone() };
        let expected = "the disk of the store is full, leader, term 3, revision 7, x";
        assert_eq!(status_line(&full, true, "x"), expected);
        assert_eq!(status_line(&node, false, "x"), "degraded: x; leader, term 3, revision 7");
        let alone = Status { role: Role::Follower, leader: None, ..node.clone() };
        assert_eq!(
            status_line(&alone, true, "x"),
            "follower without a leader, term 3, revision 7, x"
        );
        let led = Status { role: Role::Follower, leader: Some(MemberId(5)), ..node };
        let expected = format!("follower, led by {}, term 3, revision 7, x", MemberId(5));
        assert_eq!(status_line(&led, true, "x"), expected);
    }
}
