//! Floor 5: the renderer. Files of this host follow the store.
//!
//! What: for each template resource, a file that is whole, checked, from one revision, and whose
//! service was told about it. Why inside the daemon: it replaces confd, and shares its process
//! with the store, so that a change is in the file some two milliseconds after it was written.
//!
//! The way of a change (each module once, downwards):
//!
//! ```text
//! source    a change of keys wakes the resource (or notify, or reload_all)
//! worker    which resources there are; place: where they may write
//! tender    one loop a resource; pass: its steps up to the new file; reload: those after it
//! engine    templates and keys -> bytes, in a child process, through the line guard
//! stage     bytes -> staged file beside the destination -> check -> rename
//! backup    a copy of the old file, if its resource asks for some; before: the one to go back to
//! gate      when files may be replaced and services told
//! owed      "a reload is owed" is on disk before the rename, gone after the reload
//! ```
//!
//! Invariants:
//! * A rendered file is whole, checked, from one revision, never older than the last one.
//! * A reload is owed until it succeeds, across restarts.
//! * One resource's trouble (bad template, hanging command, missing directory) is its own.
//!
//! Deliberately not known here: node, store, HTTP. `Source` is all the renderer asks for.

pub mod engine;
pub mod failpoint;
pub mod format;
pub mod guard;
pub mod owed;
pub mod place;
pub mod resource;
pub mod scope;
pub mod source;
pub mod stage;
pub mod status;
pub mod window;
pub mod worker;

mod backup;
mod before;
mod files;
mod gate;
mod pass;
mod reload;
mod tender;

pub use crate::base::diagnostic::Diagnostic;
pub use engine::worker_main;
pub use failpoint::{Failpoint, Failpoints};
pub use source::{Answer, Item, Snapshot, Source, SourceError};
pub use status::{ResourceStatus, Step, Waiting};
pub use worker::{Options, Renderer, render_once};
