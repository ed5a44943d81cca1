//! Template engines: from keys at one revision to bytes.
//!
//! Why a child process: a template that loops or grows can neither be stopped nor bounded inside
//! a voter's process, and templates chew on bytes that anybody with write access chose. So the
//! engine runs in a worker of the same binary without files, environment or network, under
//! resource limits, and gets everything over a pipe.
//!
//! The way of a render: `bundle` reads the template files -> `pool` takes a warm worker and sends
//! them with the keys the last render used -> `child` runs the engine (`tera`) over a `View`,
//! which asks back for what was not sent -> bytes and the list of what was touched come back.
//!
//! Invariants:
//! * One render sees one revision.
//! * Whatever happens in the worker, the daemon gets bytes or a `Diagnostic`, in bounded time.
//!
//! Deliberately not here: what happens to the bytes (`stage`, `worker`).

mod blame;
pub mod bundle;
mod calls;
mod child;
mod filters;
mod formats;
mod functions;
mod glob;
mod lookup;
pub(crate) mod pool;
#[doc(hidden)]
pub mod protocol; // public for `fuzz/` alone
mod quote;
mod scan;
mod tera;
mod valid;
mod view;

use crate::base::codec::{Malformed, Reader, Writer};
use crate::base::diagnostic::Diagnostic;
use crate::base::id::Revision;
use crate::base::range::KeyRange;
use view::View;

pub use child::worker_main;

/// What a template may know besides keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// What `revision()` returns.
    pub revision: Revision,
    /// What `node()` returns: name and value, as the daemon describes this host.
    pub node: Vec<(String, String)>,
    /// What `getenv` finds; nothing else of the daemon's environment is visible.
    pub environment: Vec<(String, String)>,
}

/// One render in a worker: its keys, its surroundings, and what failed with which key.
pub(crate) struct Session {
    pub(crate) view: View,
    pub(crate) surroundings: Surroundings,
    /// Key and help of a function or filter that failed; the engine knows the place only.
    pub(crate) failure: Option<Failure>,
}

/// What a failing function knows and its engine's error does not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failure {
    pub(crate) key: Option<Box<str>>,
    pub(crate) help: Option<Box<str>>,
}

/// A finished render, good or bad, and what it read on the way.
#[derive(Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The file's bytes, or what was wrong.
    pub outcome: Result<Vec<u8>, Box<Diagnostic>>,
    /// What wakes the template next time; at most `limits::RENDER_TOUCHED_MAX`.
    pub touched: Vec<KeyRange>,
}

impl Surroundings {
    fn encode(&self, out: &mut Writer) {
        out.uint(self.revision.0);
        for pairs in [&self.node, &self.environment] {
            out.uint(pairs.len() as u64);
            for (name, value) in pairs {
                out.bytes(name.as_bytes()).bytes(value.as_bytes());
            }
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, Malformed> {
        let revision = Revision(input.uint()?);
        let (node, environment) = (pairs(input)?, pairs(input)?);
        Ok(Self { revision, node, environment })
    }
}

fn pairs(input: &mut Reader<'_>) -> Result<Vec<(String, String)>, Malformed> {
    let mut pairs = Vec::new();
    for _ in 0..input.uint()? {
        let name = String::from_utf8_lossy(input.bytes()?).into_owned();
        pairs.push((name, String::from_utf8_lossy(input.bytes()?).into_owned()));
    }
    Ok(pairs)
}
