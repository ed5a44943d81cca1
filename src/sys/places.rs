//! How many connections there is room for.
//!
//! A connection takes a place before it is served and gives it back when dropped. The bound is
//! asked for at each of them, as an operator may change the limit of descriptors of a running
//! process.
//!
//! Invariant: never more places than the bound, nor fewer than `limits::CONNECTIONS_MIN`.
//!
//! Deliberately not here: what becomes of those who find none (`listen`).

use crate::base::limits;
use crate::sys::usage;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The places of all listeners together.
#[derive(Clone, Debug)]
pub(super) struct Places {
    taken: Arc<AtomicUsize>,
    bound: fn() -> usize,
}

/// One of them, taken.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Places {
    /// As many as descriptors allow.
    pub(super) fn of_this_process() -> Self {
        Self::bounded_by(|| bound(usage::descriptors_max()))
    }

    /// As many as `bound` says at the time.
    pub(super) fn bounded_by(bound: fn() -> usize) -> Self {
        Self { taken: Arc::default(), bound }
    }

    /// Takes one, if there is one.
    pub(super) fn take(&self) -> Option<Place> {
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        let place = Place(Arc::clone(&self.taken));
        (before < (self.bound)()).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Connections a process with so many descriptors takes.
fn bound(descriptors_max: u64) -> usize {
    let descriptors = usize::try_from(descriptors_max).unwrap_or(usize::MAX);
    let spare = descriptors.saturating_sub(limits::DESCRIPTORS_RESERVED);
    spare.clamp(limits::CONNECTIONS_MIN, limits::CONNECTIONS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_the_process_keeps_descriptors() {
        assert_eq!(bound(1_024), 1_024 - limits::DESCRIPTORS_RESERVED);
        assert_eq!(bound(64), limits::CONNECTIONS_MIN);
        assert_eq!(bound(u64::MAX), limits::CONNECTIONS_MAX);
    }

    #[test]
    fn a_place_given_back_can_be_taken_again() {
        let places = Places::bounded_by(|| 2);
        let held = [places.take().unwrap(), places.clone().take().unwrap()];
        assert!(places.take().is_none() && places.take().is_none());
        drop(held);
        assert!(places.take().is_some());
    }
}
