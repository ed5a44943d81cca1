//! The end of a directory with everything below it, some keys a turn.
//!
//! The directory's own tombstone is the one event v2 tells of it. Everything below goes with
//! hushed tombstones: first the keys, then the directories, each in key order. A sweep remembers
//! the last key it took, so the next turn goes on there without a second look.
//!
//! Invariant: until a sweep is done its entry runs no other command.

use crate::base::{Fault, KeyPath, KeyRange, Space};
use crate::machine::draft::Write;
use crate::machine::look::{Look, Workspace};
use crate::machine::outcome::{Action, Event};
use crate::machine::tree::event::describe;
use crate::machine::tree::{Standing, is_in_tree};
use crate::store::{Base, Record};
use bytes::Bytes;
use std::sync::Arc;

/// What is left to end below a directory.
pub(in crate::machine) struct Sweep {
    space: Space,
    range: KeyRange,
    directory: KeyPath,
    action: Action,
}

impl Sweep {
    fn below(directory: &KeyPath, action: Action) -> Self {
        let range = KeyRange::below(directory);
        Self { space: Space::Keys, range, directory: directory.clone(), action }
    }

    /// Ends up to `limit` records; returns how many, and whether nothing is left.
    pub(in crate::machine) fn turn<B: Base>(
        &mut self,
        work: &mut Workspace<'_, B>,
        limit: usize,
    ) -> Result<(usize, bool), Fault> {
        let mut ended = 0;
        loop {
            ended += self.end_some(work, limit - ended)?;
            if ended >= limit {
                return Ok((ended, false));
            }
            if self.space == Space::Dirs {
                return Ok((ended, true));
            }
            self.space = Space::Dirs;
            self.range = KeyRange::below(&self.directory);
        }
    }

    fn end_some<B: Base>(
        &mut self,
        work: &mut Workspace<'_, B>,
        limit: usize,
    ) -> Result<usize, Fault> {
        let in_tree = work.scan(self.space, &self.range)?.filter(|item| {
            // Keys no v2 client can name are not the tree's to end.
            item.as_ref().map_or(true, is_in_tree)
        });
        let victims: Vec<Arc<Record>> = in_tree.take(limit).collect::<Result<_, _>>()?;
        if let Some(last) = victims.last() {
            self.range.start = KeyRange::single(&last.key).end.unwrap_or_default();
        }
        let ended = victims.len();
        for victim in victims {
            work.draft.end(victim, self.action, true);
        }
        Ok(ended)
    }
}

impl<B: Base> Workspace<'_, B> {
    /// Ends a directory; the sweep that is returned has to end what lies below.
    pub(in crate::machine) fn end_directory(
        &mut self,
        path: &KeyPath,
        directory: &Standing,
        action: Action,
    ) -> Result<(Option<Event>, Sweep), Fault> {
        let record = match directory {
            Standing::Explicit(record) => Arc::clone(record),
            Standing::Implicit(first) => self.make_explicit(path, first),
            Standing::Root | Standing::File(_) => {
                return Err(Fault::Invariant(format!("{path} is not a directory that can end")));
            }
        };
        let event = describe(&self.draft.end(record, action, false));
        if let Some(hidden) = self.live(Space::Keys, path.key())? {
            self.draft.end(hidden, action, true);
        }
        Ok((event, Sweep::below(path, action)))
    }

    /// Gives an implicit directory the record it does without, as v2 shows it already: with the
    /// index of its first key.
    pub(in crate::machine) fn make_explicit(
        &mut self,
        path: &KeyPath,
        first: &Record,
    ) -> Arc<Record> {
        let made = self.draft.put(
            Write {
                space: Space::Dirs,
                key: path.key().clone(),
                action: Action::Create,
                hushed: true,
                created_index: first.created_index,
                modified_index: first.created_index,
                expiry: None,
                value: Bytes::new(),
            },
            None,
        );
        made.record
    }
}
