//! Opening a data directory, or making one.
//!
//! ```text
//! <data-dir>/state/   LMDB: the last checkpoint, and who this member is
//! <data-dir>/wal/     the log since then
//! ```
//!
//! A new directory becomes a cluster of one: the member draws its ids, and writes the *genesis*:
//! entry 1 of term 1, which every member of this cluster starts behind. The state is made first
//! and names the member, so a crash between the two steps is finished by the next start.
//!
//! Invariant: a directory whose log is missing or shorter than its state is refused, never
//! completed with guesses; a majority may have been promised what is missing.

use crate::base::{BootId, ClusterId, Fault, LogIndex, MemberId, Term};
use crate::machine::{Genesis, Machine};
use crate::node::Options;
use crate::replica::{Config, Replica};
use crate::store::Membership;
use crate::store::env::Lmdb;
use crate::store::wal::{FileMedium, Identity, Recovered, Wal, WalError, WalOptions};
use std::io;
use std::path::{Path, PathBuf};

/// The entry every member of a cluster starts behind.
const GENESIS: (LogIndex, Term) = (LogIndex(1), Term(1));

/// Why a member could not be started.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A directory of the data directory could not be made or read.
    #[error("cannot use {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The log cannot be used.
    #[error("cannot open the log in {}", path.display())]
    Log {
        /// Its directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: WalError,
    },
    /// The state cannot be used.
    #[error("cannot open the state in {}", path.display())]
    State {
        /// Its directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: Fault,
    },
    /// Log and state do not belong together.
    #[error("the log and the state in {} do not belong together", path.display())]
    Mismatch {
        /// The data directory.
        path: PathBuf,
        /// How they differ, and what to do.
        #[source]
        source: Fault,
    },
    /// The log is gone.
    #[error(
        "the log in {} is gone, but the state next to it goes up to entry {applied}: restore the \
         whole data directory, or remove it and join the cluster as a new member",
        path.display()
    )]
    LogGone {
        /// Its directory.
        path: PathBuf,
        /// Last entry in the state.
        applied: LogIndex,
    },
    /// The system gave no random numbers or no thread.
    #[error("cannot start")]
    System(#[source] io::Error),
}

/// A member ready to run.
pub(super) struct Opened {
    pub(super) cluster: ClusterId,
    pub(super) member: MemberId,
    pub(super) boot: BootId,
    pub(super) replica: Replica<Lmdb>,
    pub(super) wal: Wal<FileMedium>,
    /// The database below `replica`, for its size.
    pub(super) base: Lmdb,
}

/// Opens the data directory, or makes a cluster of one in an empty one.
pub(super) fn open(options: &Options) -> Result<Opened, NodeError> {
    let state_dir = make_directory(&options.data_dir, "state")?;
    let state = |source| NodeError::State { path: state_dir.clone(), source };
    let base = Lmdb::open(&state_dir).map_err(state)?;
    let machine = match Machine::open(base.clone()).map_err(state)? {
        Some(machine) => machine,
        None => Machine::create(base.clone(), genesis()?).map_err(state)?,
    };
    let (cluster, member) = (machine.cluster(), machine.member());
    let (wal, recovered) = open_log(options, Identity { cluster, member }, machine.applied())?;
    let boot = BootId(random()?);
    let config = Config { member, boot, seed: random()?, base_made_at: GENESIS.0 };
    let replica = Replica::open(config, machine, recovered)
        .map_err(|source| NodeError::Mismatch { path: options.data_dir.clone(), source })?;
    Ok(Opened { cluster, member, boot, replica, wal, base })
}

/// A new cluster of one new member.
fn genesis() -> Result<Genesis, NodeError> {
    // 0 means "nobody" to Raft.
    let member = MemberId(random()?.max(1));
    let (index, term) = GENESIS;
    let membership = Membership { voters: vec![member], ..Membership::default() };
    Ok(Genesis { cluster: ClusterId(random()?), member, membership, index, term })
}

fn open_log(
    options: &Options,
    identity: Identity,
    applied: LogIndex,
) -> Result<(Wal<FileMedium>, Recovered), NodeError> {
    let path = make_directory(&options.data_dir, "wal")?;
    let failed = |source| NodeError::Log { path: path.clone(), source };
    let mut medium = FileMedium::open(&path)
        .map_err(|source| NodeError::Directory { path: path.clone(), source })?;
    let wal_options = WalOptions { segment_bytes: options.wal_segment_bytes };
    if Wal::exists(&mut medium).map_err(failed)? {
        let (wal, recovered) =
            Wal::open(medium, identity, random()?, wal_options).map_err(failed)?;
        if recovered.torn_bytes > 0 {
            // What a power cut leaves: it was never acknowledged.
            tracing::info!(bytes = recovered.torn_bytes, "dropped a torn end of the log");
        }
        return Ok((wal, recovered));
    }
    if applied > GENESIS.0 {
        return Err(NodeError::LogGone { path, applied });
    }
    // The marker of the genesis is the first thing the core writes.
    let wal = Wal::create(medium, identity, random()?, wal_options).map_err(failed)?;
    Ok((wal, Recovered::default()))
}

/// Makes a directory for this user alone, durably.
fn make_directory(parent: &Path, name: &str) -> Result<PathBuf, NodeError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let path = parent.join(name);
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
    let made = made.and_then(|()| std::fs::File::open(parent)?.sync_all());
    made.map_err(|source| NodeError::Directory { path: path.clone(), source })?;
    Ok(path)
}

/// 64 bits from the system's random source.
fn random() -> Result<u64, NodeError> {
    let mut bytes = [0; 8];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    match filled {
        Ok(8) => Ok(u64::from_ne_bytes(bytes)),
        Ok(_) => Err(NodeError::System(io::ErrorKind::UnexpectedEof.into())),
        Err(errno) => Err(NodeError::System(errno.into())),
    }
}
