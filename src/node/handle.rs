//! The waist: all that guests know of the cluster.
//!
//! `propose` is answered after this member has applied the entry, so a client that reads here
//! afterwards sees its own write. `read` gives a View that is linearizable by default: a sole
//! voter's latest View is, at once; otherwise the core asks a majority first (ReadIndex). `watch`
//! gives a cursor. `status` says who leads.
//!
//! Invariant: none of these holds a lock or a database transaction across an await.

use crate::base::Fault;
use crate::base::{ClusterId, ClusterTime, LogIndex, MemberId, Revision, Term, WallTime};
use crate::machine::{Answer, Command};
use crate::node::Options;
use crate::node::clock::{self, Clock};
use crate::node::core::Core;
use crate::node::inbox::{Asked, AskedRead, Inbox};
use crate::node::meters::{Figures, Meters};
use crate::node::watches::{Watcher, Watches};
use crate::replica::Role;
use crate::store::env::Lmdb;
use crate::store::{Reader, View};
use crate::watch::Interest;
use arc_swap::ArcSwap;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, oneshot};

/// Why a request got no verdict from the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unserved {
    /// Nothing was written: no leader was found in time.
    #[error("no leader")]
    NoLeader,
    /// Nothing was written: a queue is full.
    #[error("too many requests")]
    Busy,
    /// Nothing was written: the log has no room.
    #[error("the disk of the store is full")]
    NoSpace,
    /// Nobody knows: it was sent, and no answer came in time.
    #[error("request timed out")]
    Unknown,
    /// This member is stopping, or local trouble has stopped it.
    #[error("server stopped")]
    Stopping,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadMode {
    /// As fresh as every write that was answered before it began.
    Linearizable,
    /// What this member knows; may be stale.
    Local,
}

/// Who leads and how far things are: for headers, health and the status page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The cluster.
    pub cluster: ClusterId,
    /// This member.
    pub member: MemberId,
    /// Its name.
    pub name: String,
    /// What its clients connect to.
    pub client_urls: Vec<String>,
    /// Its part in the cluster.
    pub role: Role,
    /// The leader, if one is known.
    pub leader: Option<MemberId>,
    /// When it became known, by this host's wall clock: for display.
    pub leader_since: WallTime,
    /// When this process began, likewise.
    pub started: WallTime,
    /// The term.
    pub term: Term,
    /// The last entry applied here.
    pub applied: LogIndex,
    /// The key space's revision here.
    pub revision: Revision,
    /// Whether the disk has no room for the log or the database: an alarm, which ends by itself.
    pub no_space: bool,
}

/// What the driver shares with the handles.
pub(super) struct Shared {
    pub(super) inbox: Inbox,
    pub(super) view: ArcSwap<View<Lmdb>>,
    pub(super) status: ArcSwap<Status>,
    /// Whether the latest View is linearizable without asking.
    pub(super) reads_alone: AtomicBool,
    pub(super) watches: Watches,
    pub(super) clock: Clock,
    /// Turns the core has taken: it takes one every tick, whatever happens.
    pub(super) turns: AtomicU64,
    pub(super) meters: Meters,
    pub(super) space: Space,
    base: Lmdb,
    pub(super) fault: Mutex<Option<Fault>>,
    pub(super) faulted: Notify,
}

impl Shared {
    pub(super) fn new(view: View<Lmdb>, base: Lmdb, status: Status) -> Self {
        Self {
            inbox: Inbox::default(),
            watches: Watches::new(&view),
            view: ArcSwap::from_pointee(view),
            status: ArcSwap::from_pointee(status),
            reads_alone: AtomicBool::new(false),
            clock: Clock::start(),
            turns: AtomicU64::new(0),
            meters: Meters::default(),
            space: Space::default(),
            base,
            fault: Mutex::default(),
            faulted: Notify::new(),
        }
    }

    /// Tells everyone that the member has ended, and why if it was a fault.
    pub(super) fn end(&self, fault: Option<Fault>) {
        self.inbox.stop();
        self.watches.close();
        // Dropping the senders tells every waiting client.
        drop(self.inbox.take_rest());
        if let Some(fault) = fault {
            *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
            self.faulted.notify_one();
        }
    }
}

impl Status {
    pub(super) fn new(cluster: ClusterId, member: MemberId, options: Options) -> Self {
        Self {
            cluster,
            member,
            name: options.name,
            client_urls: options.client_urls,
            role: Role::Follower,
            leader: None,
            leader_since: WallTime(0),
            started: clock::wall(),
            term: Term(0),
            applied: LogIndex(0),
            revision: Revision(0),
            no_space: false,
        }
    }
}

/// Who waits for room on the disk at this moment.
#[derive(Debug, Default)]
pub(super) struct Space {
    pub(super) log_waits: AtomicBool,
    pub(super) checkpoint_waits: AtomicBool,
}

impl Space {
    fn is_short(&self) -> bool {
        self.log_waits.load(Ordering::Relaxed) || self.checkpoint_waits.load(Ordering::Relaxed)
    }
}

/// A state to read from.
pub struct ReadState {
    view: Arc<View<Lmdb>>,
    shared: Arc<Shared>,
}

impl ReadState {
    /// Opens the state for reading; or, if a compaction has outrun it since it was taken, the
    /// newest one. Not to be held across an await.
    ///
    /// # Errors
    /// When the database fails.
    pub fn reader(&mut self) -> Result<Reader<Lmdb>, Fault> {
        loop {
            if let Some(reader) = self.view.read()? {
                return Ok(reader);
            }
            self.view = self.shared.view.load_full();
        }
    }
}

impl Deref for ReadState {
    type Target = View<Lmdb>;

    fn deref(&self) -> &View<Lmdb> {
        &self.view
    }
}

/// A guest's way to the cluster.
#[derive(Clone)]
pub struct Handle {
    core: Arc<Core>,
}

impl Handle {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// Has the commands executed, all in one revision or none, and gives the verdict.
    ///
    /// # Errors
    /// When the cluster gave no verdict: see `Unserved` for whether it may have happened.
    pub async fn propose(&self, commands: Vec<Command>) -> Result<Answer, Unserved> {
        let counted = self.core.shared.meters.begin(&commands);
        let end = self.ask(commands).await;
        counted.ended(&end);
        end
    }

    async fn ask(&self, commands: Vec<Command>) -> Result<Answer, Unserved> {
        if self.core.shared.space.log_waits.load(Ordering::Relaxed) {
            return Err(Unserved::NoSpace);
        }
        let (reply, answer) = oneshot::channel();
        self.core.shared.inbox.propose(Asked { commands, reply })?;
        self.core.attend();
        answer.await.unwrap_or(Err(Unserved::Stopping))
    }

    /// A state to read from, as fresh as asked.
    ///
    /// # Errors
    /// When a linearizable read finds no leader in time.
    pub async fn read(&self, mode: ReadMode) -> Result<ReadState, Unserved> {
        let latest = self.latest();
        // Asked after the View is taken: if this member was alone until now, nothing newer than
        // the View had been answered when the read began.
        if mode == ReadMode::Local || self.core.shared.reads_alone.load(Ordering::Acquire) {
            return Ok(latest);
        }
        let (reply, ready) = oneshot::channel();
        self.core.shared.inbox.read(AskedRead { reply })?;
        let applied: LogIndex = ready.await.unwrap_or(Err(Unserved::Stopping))?;
        let latest = self.latest();
        assert!(latest.applied >= applied, "a read was released before its View");
        Ok(latest)
    }

    fn latest(&self) -> ReadState {
        ReadState { view: self.core.shared.view.load_full(), shared: Arc::clone(&self.core.shared) }
    }

    /// A cursor over the changes in `interest`, from revision `from` on, or from now on.
    ///
    /// # Errors
    /// `Busy` when there are too many watchers.
    pub fn watch(&self, interest: Interest, from: Option<Revision>) -> Result<Watcher, Unserved> {
        Watcher::open(Arc::clone(&self.core.shared), interest, from)
    }

    /// Who leads, and how far this member is.
    #[must_use]
    pub fn status(&self) -> Status {
        let (known, view) = (self.core.shared.status.load(), self.core.shared.view.load());
        let no_space = self.core.shared.space.is_short();
        Status { applied: view.applied, revision: view.revision, no_space, ..Status::clone(&known) }
    }

    /// What this member has counted: the numbers behind `status`, for monitoring.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let shared = &self.core.shared;
        let compacted = shared.view.load().compacted;
        shared.meters.figures(compacted, shared.watches.count(), shared.base.used_bytes())
    }

    /// Cluster time and wall time now, to say how long a key has to live.
    #[must_use]
    pub fn now(&self) -> (ClusterTime, WallTime) {
        (self.core.shared.clock.cluster(), clock::wall())
    }
}
