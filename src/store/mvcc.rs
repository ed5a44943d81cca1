//! The store of one member: the generations, and the one writer's way into them.
//!
//! The core inserts records and publishes; everyone else takes the latest `View` and reads. When
//! the active memtable is old or large enough it is frozen and a `Checkpoint` carries it to the
//! base, on whatever thread likes to wait for a disk; `thaw` forgets it once that is durable.
//!
//! Invariants:
//! * Only the core calls `&mut` methods; Views are immutable and may live anywhere.
//! * At most one generation is frozen. While it is, the active one only grows.
//! * A View is published at entry boundaries: it never shows half of an entry.

use crate::base::{Fault, LogIndex, Revision, Term};
use crate::store::base::{Base, BaseRead, Table};
use crate::store::checkpoint::Checkpoint;
use crate::store::memtable::Memtable;
use crate::store::meta::Meta;
use crate::store::reader::Reader;
use crate::store::record::Record;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Key of the one row in `Table::Meta`.
pub(super) const META_KEY: &[u8] = b"meta";

/// One published state.
pub struct View<B: Base> {
    /// Last entry applied.
    pub applied: LogIndex,
    /// Its term.
    pub applied_term: Term,
    /// The state's revision.
    pub revision: Revision,
    /// The oldest revision that can be read.
    pub compacted: Revision,
    /// What the machine says of this state: see `Meta`.
    pub note: u64,
    generations: Vec<Arc<Memtable>>,
    base: B,
    purged_to: Arc<AtomicU64>,
}

impl<B: Base> View<B> {
    /// Opens the state for reading; `None` when the View is so old that a later compaction has
    /// thinned out its state: take the newest View instead.
    ///
    /// # Errors
    /// When the database fails.
    pub fn read(&self) -> Result<Option<Reader<B>>, Fault> {
        let base = self.base.snapshot()?;
        // Asked after the snapshot is taken: a purge that this misses, the snapshot misses too.
        let purged_to = Revision(self.purged_to.load(Ordering::Acquire));
        if purged_to > self.revision {
            return Ok(None);
        }
        Ok(Some(Reader {
            generations: self.generations.clone(),
            base,
            revision: self.revision,
            compacted: self.compacted.max(purged_to),
            note: self.note,
        }))
    }
}

impl<B: Base> Clone for View<B> {
    fn clone(&self) -> Self {
        Self {
            generations: self.generations.clone(),
            base: self.base.clone(),
            purged_to: Arc::clone(&self.purged_to),
            ..*self
        }
    }
}

/// The store of one member.
pub struct Store<B: Base> {
    base: B,
    /// The meta row as it would be written now; `machine` is filled in by `freeze`.
    meta: Meta,
    active: Arc<Memtable>,
    frozen: Option<Arc<Memtable>>,
    /// The compacted revision of the newest checkpoint that purges, from before it commits.
    purged_to: Arc<AtomicU64>,
}

impl<B: Base> Store<B> {
    /// Makes an empty store: revision 1, nothing applied but what `meta` says.
    ///
    /// # Errors
    /// When the base is not empty, or fails.
    pub fn create(base: B, meta: Meta) -> Result<Self, Fault> {
        base.commit(&mut |tables| {
            if tables.get(Table::Meta, META_KEY)?.is_some() {
                return Err(Fault::Invariant("the data directory is in use already".into()));
            }
            tables.put(Table::Meta, META_KEY, &meta.encode())
        })?;
        Ok(Self::with(base, meta))
    }

    /// Opens the store a checkpoint left behind; `None` for an empty base.
    ///
    /// # Errors
    /// When the data is damaged or of a newer version, or the base fails.
    pub fn open(base: B) -> Result<Option<Self>, Fault> {
        let snapshot = base.snapshot()?;
        let Some(row) = snapshot.get(Table::Meta, META_KEY)? else { return Ok(None) };
        let meta = Meta::decode(row).map_err(|error| match error {
            newer @ crate::base::codec::Malformed::NewerFormat { .. } => {
                Fault::TooNew(newer.to_string())
            }
            damaged => Fault::damaged("the meta row", damaged),
        })?;
        drop(snapshot);
        Ok(Some(Self::with(base, meta)))
    }

    fn with(base: B, meta: Meta) -> Self {
        let purged_to = Arc::new(AtomicU64::new(meta.compacted.0));
        Self { base, meta, active: Arc::default(), frozen: None, purged_to }
    }

    /// What the store says about itself, as of the last `publish`.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// For the fields the owner keeps here: membership, compacted revision.
    pub fn meta_mut(&mut self) -> &mut Meta {
        &mut self.meta
    }

    /// Adds a record. Readers see it when its revision is published.
    pub fn insert(&mut self, record: &Arc<Record>) {
        assert!(record.position.revision > self.meta.revision, "insert behind the published state");
        self.active.insert(record);
    }

    /// Makes everything up to `revision` visible, as the state after entry `applied`.
    pub fn publish(&mut self, applied: LogIndex, term: Term, revision: Revision) {
        assert!(applied > self.meta.applied, "entry {applied} published twice");
        assert!(revision >= self.meta.revision, "the revision went back");
        self.meta.applied = applied;
        self.meta.applied_term = term;
        self.meta.revision = revision;
    }

    /// The published state.
    #[must_use]
    pub fn view(&self) -> View<B> {
        View {
            applied: self.meta.applied,
            applied_term: self.meta.applied_term,
            revision: self.meta.revision,
            compacted: self.meta.compacted,
            note: self.meta.note,
            generations: self.generations(),
            base: self.base.clone(),
            purged_to: Arc::clone(&self.purged_to),
        }
    }

    /// Opens the published state for the core itself, which no compaction outruns.
    ///
    /// # Errors
    /// When the database fails.
    pub fn read(&self) -> Result<Reader<B>, Fault> {
        Ok(Reader {
            generations: self.generations(),
            base: self.base.snapshot()?,
            revision: self.meta.revision,
            compacted: self.meta.compacted,
            note: self.meta.note,
        })
    }

    /// The published state again, for a reader that was opened by `read` and may be behind by now:
    /// opening a database snapshot for every entry would cost more than applying it.
    ///
    /// # Errors
    /// When the database fails.
    pub fn read_on(&self, reader: Option<Reader<B>>) -> Result<Reader<B>, Fault> {
        let same = |reader: &Reader<B>| {
            reader.generations.first().is_some_and(|active| Arc::ptr_eq(active, &self.active))
        };
        match reader.filter(same) {
            Some(reader) => Ok(Reader {
                revision: self.meta.revision,
                compacted: self.meta.compacted,
                note: self.meta.note,
                ..reader
            }),
            None => self.read(),
        }
    }

    fn generations(&self) -> Vec<Arc<Memtable>> {
        std::iter::once(&self.active).chain(&self.frozen).map(Arc::clone).collect()
    }

    /// Memory held by records that are not yet in the base.
    #[must_use]
    pub fn overlay_bytes(&self) -> usize {
        self.active.bytes() + self.frozen.as_ref().map_or(0, |frozen| frozen.bytes())
    }

    /// Bytes the next checkpoint would write.
    #[must_use]
    pub fn active_bytes(&self) -> usize {
        self.active.bytes()
    }

    /// Whether a checkpoint is under way.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// Freezes the active generation and gives the checkpoint that will write it; `None` while
    /// one is under way. `machine` is the machine's bookkeeping at this very state.
    pub fn freeze(&mut self, machine: bytes::Bytes) -> Option<Checkpoint<B>> {
        if self.frozen.is_some() {
            return None;
        }
        let frozen = std::mem::take(&mut self.active);
        self.frozen = Some(Arc::clone(&frozen));
        let meta = Meta { machine, ..self.meta.clone() };
        let purged_to = Arc::clone(&self.purged_to);
        Some(Checkpoint::new(self.base.clone(), frozen, meta, purged_to))
    }

    /// Forgets the frozen generation, whose checkpoint is durable now.
    pub fn thaw(&mut self) {
        assert!(self.frozen.take().is_some(), "thaw without a frozen generation");
    }
}
