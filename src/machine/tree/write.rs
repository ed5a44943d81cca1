//! v2's writes: one method a command, each a page of etcd's store.
//!
//! Every method checks first and writes into the draft last; a refusal anywhere in an entry throws
//! the whole draft away, so parents made on the way to a refusal never show.
//!
//! `set` makes a new node where a file was (createdIndex moves, v3's create revision stays);
//! `update` and `compareAndSwap` keep the node. All of them replace the TTL or remove it. A
//! `refresh` keeps the value and is hushed, but through `create` it is an ordinary event, as in
//! etcd.

use crate::base::{KeyPath, Rejected, Revision, Space, limits};
use crate::machine::command::{Condition, Content, Put};
use crate::machine::draft::Write;
use crate::machine::look::{Look, Stop, Workspace};
use crate::machine::outcome::{Action, Event};
use crate::machine::tree::event::describe;
use crate::machine::tree::sweep::Sweep;
use crate::machine::tree::{Standing, find, first_below, standing, why_missing};
use crate::store::{Base, Record};
use bytes::Bytes;
use std::sync::Arc;

/// What a write came to; `None` if v2 has no words for it, which the caller takes for a bug.
type Written = Result<Option<Event>, Stop>;

impl<B: Base> Workspace<'_, B> {
    /// v2 `set`.
    pub(in crate::machine) fn set(&mut self, put: &Put) -> Written {
        refuse_root(&put.path)?;
        let file = match standing(self, &put.path)? {
            None if put.refresh => return Err(why_missing(self, &put.path)?.into()),
            None => None,
            Some(Standing::File(file)) => Some(file),
            Some(_) => return Err(Rejected::NotAFile(put.path.clone()).into()),
        };
        if file.is_none() || !self.is_pure() {
            self.make_parents(&put.path)?;
        }
        let value = value_of(put, file.as_deref());
        Ok(self.place(put, &put.path, Action::Set, value, file))
    }

    /// v2 `create`.
    pub(in crate::machine) fn create(&mut self, put: &Put) -> Written {
        self.create_at(put, &put.path)
    }

    /// v2 in-order `create`: two of one entry under one directory would have the same name, and
    /// the second is refused as any create is.
    pub(in crate::machine) fn create_in_order(&mut self, put: &Put) -> Written {
        let name = format!("{:020}", self.draft.revision().0);
        let path = put.path.child(name.as_bytes());
        if KeyPath::from_key(path.key()).is_none() {
            let most = limits::KEY_DEPTH_MAX;
            let cause =
                format!("an in-order key below {} is too long or over {most} deep", put.path);
            return Err(Rejected::Invalid { cause }.into());
        }
        self.create_at(put, &path)
    }

    fn create_at(&mut self, put: &Put, path: &KeyPath) -> Written {
        refuse_root(path)?;
        if standing(self, path)?.is_some() {
            return Err(Rejected::AlreadyExists(path.clone()).into());
        }
        self.make_parents(path)?;
        let unhushed = Put { refresh: false, ..put.clone() };
        Ok(self.place(&unhushed, path, Action::Create, value_of(&unhushed, None), None))
    }

    /// v2 `update`.
    pub(in crate::machine) fn update(&mut self, put: &Put) -> Written {
        refuse_root(&put.path)?;
        let directory = match find(self, &put.path)? {
            Standing::File(file) => {
                return Ok(self.rewrite(put, Action::Update, file));
            }
            _ if !value_of(put, None).is_empty() => {
                return Err(Rejected::NotAFile(put.path.clone()).into());
            }
            Standing::Explicit(record) => record,
            Standing::Implicit(first) => {
                self.make_parents(&put.path)?;
                self.make_explicit(&put.path, &first)
            }
            Standing::Root => return Err(Rejected::RootReadOnly.into()),
        };
        let write = Write {
            space: Space::Dirs,
            key: put.path.key().clone(),
            action: Action::Update,
            hushed: put.refresh,
            created_index: directory.created_index,
            // Only the event tells the new index: the directory itself was not touched.
            modified_index: directory.modified_index,
            expiry: self.draft.expiry(put.ttl),
            value: Bytes::new(),
        };
        Ok(describe(&self.draft.put(write, Some(directory))))
    }

    /// v2 `compareAndSwap`.
    pub(in crate::machine) fn compare_and_swap(
        &mut self,
        put: &Put,
        condition: &Condition,
    ) -> Written {
        refuse_root(&put.path)?;
        let file = self.find_file(&put.path)?;
        compare(condition, &file)?;
        Ok(self.rewrite(put, Action::CompareAndSwap, file))
    }

    /// v2 `compareAndDelete`. The root is refused as any directory is.
    pub(in crate::machine) fn compare_and_delete(
        &mut self,
        path: &KeyPath,
        condition: &Condition,
    ) -> Written {
        let file = self.find_file(path)?;
        compare(condition, &file)?;
        Ok(describe(&self.draft.end(file, Action::CompareAndDelete, false)))
    }

    /// v2 `delete`; a directory's contents are left to the sweep.
    pub(in crate::machine) fn delete(
        &mut self,
        path: &KeyPath,
        dir: bool,
        recursive: bool,
    ) -> Result<(Option<Event>, Option<Sweep>), Stop> {
        refuse_root(path)?;
        let directory = match find(self, path)? {
            Standing::File(file) => {
                return Ok((describe(&self.draft.end(file, Action::Delete, false)), None));
            }
            directory => directory,
        };
        if !dir && !recursive {
            return Err(Rejected::NotAFile(path.clone()).into());
        }
        if !recursive && !self.is_empty(path)? {
            return Err(Rejected::DirectoryNotEmpty(path.clone()).into());
        }
        let (event, sweep) = self.end_directory(path, &directory, Action::Delete)?;
        Ok((event, Some(sweep)))
    }

    fn find_file(&self, path: &KeyPath) -> Result<Arc<Record>, Stop> {
        match find(self, path)? {
            Standing::File(file) => Ok(file),
            _ => Err(Rejected::NotAFile(path.clone()).into()),
        }
    }

    fn is_empty(&self, directory: &KeyPath) -> Result<bool, Stop> {
        let has_key = first_below(self, Space::Keys, directory)?.is_some();
        Ok(!has_key && first_below(self, Space::Dirs, directory)?.is_none())
    }

    /// Makes a new node, where nothing or a file is.
    fn place(
        &mut self,
        put: &Put,
        path: &KeyPath,
        action: Action,
        value: Bytes,
        file: Option<Arc<Record>>,
    ) -> Option<Event> {
        let space = match put.content {
            Content::File(_) => Space::Keys,
            Content::Directory => Space::Dirs,
        };
        if let Some(file) = file.as_ref().filter(|file| file.space != space) {
            self.draft.end(Arc::clone(file), action, true);
        }
        let write = Write {
            space,
            key: path.key().clone(),
            action,
            hushed: put.refresh,
            created_index: self.draft.revision(),
            modified_index: self.draft.revision(),
            expiry: self.draft.expiry(put.ttl),
            value: if space == Space::Keys { value } else { Bytes::new() },
        };
        describe(&self.draft.put(write, file))
    }

    /// Changes an existing file, which stays the node it is.
    fn rewrite(&mut self, put: &Put, action: Action, file: Arc<Record>) -> Option<Event> {
        let write = Write {
            space: Space::Keys,
            key: put.path.key().clone(),
            action,
            hushed: put.refresh,
            created_index: file.created_index,
            modified_index: self.draft.revision(),
            expiry: self.draft.expiry(put.ttl),
            value: value_of(put, Some(&file)),
        };
        describe(&self.draft.put(write, Some(file)))
    }

    /// Makes every directory on the way to a path explicit.
    fn make_parents(&mut self, path: &KeyPath) -> Result<(), Stop> {
        let Some(parent) = path.parent().filter(|parent| !parent.is_root()) else { return Ok(()) };
        if self.live(Space::Dirs, parent.key())?.is_some() {
            return Ok(());
        }
        for ancestor in path.ancestors() {
            match standing(self, &ancestor)? {
                Some(Standing::Root | Standing::Explicit(_)) => {}
                Some(Standing::Implicit(first)) => {
                    self.make_explicit(&ancestor, &first);
                }
                Some(Standing::File(_)) => return Err(Rejected::NotADirectory(ancestor).into()),
                None => self.make_directory(&ancestor),
            }
        }
        Ok(())
    }

    fn make_directory(&mut self, path: &KeyPath) {
        let write = Write {
            space: Space::Dirs,
            key: path.key().clone(),
            action: Action::Create,
            hushed: true,
            created_index: self.draft.revision(),
            modified_index: self.draft.revision(),
            expiry: None,
            value: Bytes::new(),
        };
        self.draft.put(write, None);
    }
}

fn refuse_root(path: &KeyPath) -> Result<(), Rejected> {
    if path.is_root() { Err(Rejected::RootReadOnly) } else { Ok(()) }
}

/// The value to store: a refresh keeps the old one.
fn value_of(put: &Put, old: Option<&Record>) -> Bytes {
    match (&put.content, old) {
        (_, Some(old)) if put.refresh => old.value.clone(),
        (Content::File(value), _) => value.clone(),
        (Content::Directory, _) => Bytes::new(),
    }
}

/// Refuses with what differs, in etcd's brackets.
fn compare(condition: &Condition, file: &Record) -> Result<(), Rejected> {
    let index = file.modified_index;
    let wrong_value = condition.value.as_ref().filter(|value| **value != file.value);
    let wrong_index = condition.index.filter(|given: &Revision| *given != index);
    let value =
        wrong_value.map(|given| [b"[", &given[..], b" != ", &file.value[..], b"]"].concat());
    let index = wrong_index.map(|given| format!("[{given} != {index}]").into_bytes());
    let differences: Vec<Vec<u8>> = value.into_iter().chain(index).collect();
    if differences.is_empty() {
        return Ok(());
    }
    Err(Rejected::CompareFailed { cause: differences.join(&b' ') })
}
