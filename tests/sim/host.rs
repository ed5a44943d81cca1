//! One host: a disk that loses and tears, a base, a clock that runs at its own rate, and, while it
//! is up, a member of the cluster on top of them.
//!
//! This is the simulator's driver: the same outputs a real one carries out, against things in
//! memory. What takes time is handed to the world as an event.

use crate::truth::Watcher;
use althing::base::{BootId, ClusterId, Fault, LogIndex, MemberId, Sequence, Term, WallTime};
use althing::machine::{Command, Genesis, Machine, Proposal};
use althing::replica::{Config, Input, JobId, Now, Output, ReadId, Replica, Request, SnapshotId};
use althing::store::checkpoint::{Checkpoint, Written};
use althing::store::wal::{Identity, MemoryMedium, Recovered, Wal, WalOptions};
use althing::store::{Membership, MemoryBase, Store, View, stream};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};

pub(crate) const CLUSTER: ClusterId = ClusterId(0xa17);

/// Small segments: rotation and recovery happen often.
const WAL: WalOptions = WalOptions { segment_bytes: 64 * 1024 };

/// The chunks of a snapshot stream.
pub(crate) type Stream = Arc<Vec<Vec<u8>>>;

/// One host.
pub(crate) struct Host {
    pub(crate) id: MemberId,
    pub(crate) disk: MemoryMedium,
    pub(crate) base: MemoryBase,
    pub(crate) base_made_at: LogIndex,
    /// How much faster than true time its clock runs, in parts per million.
    pub(crate) rate_ppm: i64,
    pub(crate) paused_until_us: u64,
    /// Hosts of one side hear each other.
    pub(crate) side: u64,
    pub(crate) slow_disk_until_us: u64,
    pub(crate) runs: u64,
    pub(crate) run: Option<Run>,
}

/// One run of a member.
pub(crate) struct Run {
    pub(crate) replica: Replica<MemoryBase>,
    pub(crate) wal: Wal<MemoryMedium>,
    pub(crate) view: View<MemoryBase>,
    pub(crate) watcher: Watcher,
    pub(crate) flushing: Option<JobId>,
    pub(crate) checkpoint: Option<Checkpoint<MemoryBase>>,
    pub(crate) written: Option<Written>,
    pub(crate) streams: BTreeMap<SnapshotId, Stream>,
    pub(crate) proposals: BTreeMap<Sequence, usize>,
    pub(crate) reads: BTreeMap<ReadId, usize>,
    pub(crate) boot: BootId,
    sequence: u64,
    read: u64,
}

impl Host {
    /// A host with an empty member: of a founded cluster, or one that waits for a snapshot.
    pub(crate) fn new(id: u64, voters: Option<u64>, rate_ppm: i64) -> Self {
        let id = MemberId(id);
        let base = MemoryBase::default();
        let founded = u64::from(voters.is_some());
        let voters = (1..=voters.unwrap_or(0)).map(MemberId).collect();
        let membership = Membership { voters, ..Membership::default() };
        let (index, term) = (LogIndex(founded), Term(founded));
        let genesis = Genesis { cluster: CLUSTER, member: id, membership, index, term };
        Machine::create(base.clone(), genesis).unwrap();
        Self {
            id,
            disk: MemoryMedium::new(),
            base,
            base_made_at: index,
            rate_ppm,
            paused_until_us: 0,
            side: 0,
            slow_disk_until_us: 0,
            runs: 0,
            run: None,
        }
    }

    /// Starts the member from what is on disk.
    pub(crate) fn start(&mut self, seed: u64) -> Result<(), Fault> {
        self.runs += 1;
        let (mut disk, salt) = (self.disk.clone(), seed ^ self.id.0 ^ (self.runs << 20));
        let identity = Identity { cluster: CLUSTER, member: self.id };
        let (wal, recovered) = if Wal::exists(&mut disk)? {
            Wal::open(disk, identity, salt, WAL)?
        } else {
            (Wal::create(disk, identity, salt, WAL)?, Recovered::default())
        };
        let machine = Machine::open(self.base.clone())?.unwrap();
        let boot = BootId(self.runs);
        let base_made_at = self.base_made_at;
        let config = Config { member: self.id, boot, seed, base_made_at };
        let replica = Replica::open(config, machine, recovered)?;
        let view = replica.view();
        self.run = Some(Run {
            replica,
            wal,
            watcher: Watcher::begin(view.revision),
            view,
            flushing: None,
            checkpoint: None,
            written: None,
            streams: BTreeMap::new(),
            proposals: BTreeMap::new(),
            reads: BTreeMap::new(),
            boot,
            sequence: 0,
            read: 0,
        });
        Ok(())
    }

    /// What its clocks show.
    pub(crate) fn now(&self, true_us: u64) -> Now {
        let rate = u64::try_from(1_000_000 + self.rate_ppm).unwrap();
        let mono_ms = true_us * rate / 1_000_000 / 1_000;
        Now { mono_ms, wall: WallTime(mono_ms * 1_000_000) }
    }

    /// True time of so many milliseconds on its clock.
    pub(crate) fn true_us(&self, local_ms: u64) -> u64 {
        local_ms * 1_000 * 1_000_000 / u64::try_from(1_000_000 + self.rate_ppm).unwrap()
    }
}

thread_local! {
    /// Whether this thread is inside a member: its panic is a finding, not a message.
    static FED: Cell<bool> = const { Cell::new(false) };
}

/// Keeps members' panics, which `Run::handle` reports, off the standard error.
fn listen_to_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !FED.get() {
                print(panic);
            }
        }));
    });
}

impl Run {
    /// Feeds the member. `Err` holds its last words when it panicked.
    pub(crate) fn handle(
        &mut self,
        now: Now,
        input: Input<MemoryBase>,
    ) -> Result<Vec<Output<MemoryBase>>, String> {
        let mut out = Vec::new();
        listen_to_panics();
        FED.set(true);
        let fed = catch_unwind(AssertUnwindSafe(|| self.replica.handle(now, input, &mut out)));
        FED.set(false);
        match fed {
            Ok(()) => Ok(out),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
                Err(text.unwrap_or_else(|| "no words".into()))
            }
        }
    }

    /// A client's commands as a numbered request.
    pub(crate) fn request(
        &mut self,
        member: MemberId,
        client: usize,
        commands: Vec<Command>,
    ) -> Request {
        self.sequence += 1;
        let sequence = Sequence(self.sequence);
        self.proposals.insert(sequence, client);
        let (origin, boot) = (member, self.boot);
        let proposal = Proposal { origin, boot, sequence, trace: 0, principal: None, commands };
        Request { sequence, proposal: proposal.encode().into() }
    }

    /// A client's read.
    pub(crate) fn read_id(&mut self, client: usize) -> ReadId {
        self.read += 1;
        self.reads.insert(ReadId(self.read), client);
        ReadId(self.read)
    }
}

/// The stream of a base, as `Output::BuildSnapshot` asks.
pub(crate) fn build_stream(base: &MemoryBase) -> Result<Stream, Fault> {
    let store = Store::open(base.clone())?.unwrap();
    let mut chunks = Vec::new();
    stream::write(&store.view(), store.meta(), &mut |chunk| {
        chunks.push(chunk);
        Ok(())
    })?;
    Ok(Arc::new(chunks))
}

/// Loads a stream into a new base for this member.
pub(crate) fn load_stream(chunks: &[Vec<u8>], member: MemberId) -> Result<MemoryBase, Fault> {
    let base = MemoryBase::default();
    let mut installer = stream::Installer::new(base.clone(), member);
    chunks.iter().try_for_each(|chunk| installer.feed(chunk))?;
    installer.finish()?;
    Ok(base)
}
