//! Giving freed memory back to the system.
//!
//! Why: the allocator gives a thread's pages back only while that thread works. A daemon that falls
//! idle right after a load would keep what the load had needed, tens of megabytes, until each of
//! its threads has work again.
//!
//! What: `give_back` for a thread that knows when it rests, as the core's does; `when_idle` for the
//! threads of an event loop, which do not: it looks at them all, and when a load is over it has
//! each make one call.
//!
//! Source: mimalloc's documentation of `mi_collect`.

use crate::base::limits;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};
use tokio::runtime::{Handle, RuntimeMetrics};

/// Gives back what this thread has freed, and what no thread uses. Takes a millisecond or so: not
/// for a busy moment. Does nothing in a program with another allocator.
#[expect(unsafe_code, reason = "no crate offers this function as a safe one")]
pub fn give_back() {
    const EVERYTHING: bool = true;
    // Pages that become free in one call are given back by the next.
    for _ in 0..2 {
        // SAFETY: the function takes no pointer and may be called at any time from any thread.
        unsafe { libmimalloc_sys::mi_collect(EVERYTHING) }
    }
}

/// Looks after the threads of an event loop for as long as it runs: when a load is over, each
/// gives back.
pub async fn when_idle(runtime: &Handle) -> ! {
    let rest = Duration::from_millis(limits::REST_MS_MAX);
    let metrics = runtime.metrics();
    let (mut known, mut given) = (worked(&metrics), Duration::ZERO);
    loop {
        tokio::time::sleep(Duration::from_millis(limits::REST_LOOK_MS)).await;
        let before = std::mem::replace(&mut known, worked(&metrics));
        // However little they did: twenty answers of a megabyte are dropped within microseconds.
        if known - before <= rest && known != given {
            Round::start(runtime, metrics.num_workers());
            // Its own work is no load.
            tokio::time::sleep(Duration::from_millis(limits::REST_ROUND_MS)).await;
            known = worked(&metrics);
            given = known;
        }
    }
}

/// Time that all threads have worked since they started.
fn worked(metrics: &RuntimeMetrics) -> Duration {
    (0..metrics.num_workers()).map(|worker| metrics.worker_total_busy_duration(worker)).sum()
}

/// One visit to each thread.
#[derive(Debug, Default)]
struct Round(Mutex<HashSet<ThreadId>>);

impl Round {
    /// As many tasks as there are threads, none of which ends before each thread has had one: the
    /// threads that rest wake to share them. One that is busy for long is left alone.
    fn start(runtime: &Handle, threads: usize) -> Arc<Self> {
        let (round, begin) = (Arc::new(Self::default()), Instant::now());
        let patience = Duration::from_millis(limits::REST_ROUND_MS);
        for _ in 0..threads {
            let round = Arc::clone(&round);
            runtime.spawn(async move {
                while round.visit() < threads && begin.elapsed() < patience {
                    tokio::task::yield_now().await;
                }
            });
        }
        round
    }

    /// Has this thread give back, unless it has; how many have.
    fn visit(&self) -> usize {
        let visited = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if visited().insert(std::thread::current().id()) {
            give_back();
        }
        visited().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_visits_every_thread() {
        const THREADS: usize = 4;
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(THREADS).enable_all().build().unwrap();
        let begin = Instant::now();
        loop {
            let round = Round::start(runtime.handle(), THREADS);
            // Its tasks have ended when this is the last one that holds it.
            while Arc::strong_count(&round) > 1 {
                assert!(begin.elapsed() < Duration::from_secs(60), "a round goes on for ever");
                std::thread::yield_now();
            }
            // On a machine that is busy a round may end before each thread has woken.
            if round.0.lock().unwrap().len() == THREADS {
                break;
            }
        }
    }
}
