//! The watchdog: a sign of life for the service manager, only while every part shows one.
//!
//! Why not a timer: it would go on while the core, the doors or the renderer hang, and a hung
//! process would never be replaced. So each part is asked, and one that is silent keeps the sign
//! back until systemd ends the process and starts a new one.
//!
//! How data passes: a thread of its own looks at each `Part` every third of the manager's time;
//! when all have moved since the last sign, it sends the next one.
//!
//! Invariants:
//! * A sign means that each part has moved since the one before.
//! * Looking never waits: no part can hold the look at another up, and a runtime that hangs as a
//!   whole is still seen and named.
//! * The thread ends with its `Life`; no sign follows.
//!
//! Deliberately not seen: a command of a template that hangs. It has its own deadline, and its
//! resource is the only one that waits.
//!
//! Sources: sd_watchdog_enabled(3).

use crate::base::limits;
use crate::base::report::chain;
use crate::sys::notify::{Message, Notifier};
use crate::sys::pulse::Pulse;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;
use tokio::runtime::Handle;

/// Something that must move.
struct Part {
    name: String,
    /// Whether it has moved since the last call.
    moved: Box<dyn FnMut() -> bool + Send>,
    /// Whether it has moved since the last sign.
    is_alive: bool,
}

/// Every part of the process, looked at together.
#[derive(Default)]
pub(crate) struct Watchdog {
    parts: Vec<Part>,
    /// Looks since the last sign.
    looks: u32,
}

impl Watchdog {
    /// Adds something that can tell whether it has moved since it was last asked.
    pub(crate) fn watch(&mut self, name: &str, moved: impl FnMut() -> bool + Send + 'static) {
        let moved = Box::new(moved);
        self.parts.push(Part { name: name.to_owned(), moved, is_alive: false });
    }

    /// Adds a loop that answers.
    pub(crate) fn watch_pulse(&mut self, name: &str, pulse: Pulse) {
        let mut known = pulse.answers();
        pulse.ask();
        self.watch(name, move || {
            let answers = pulse.answers();
            pulse.ask();
            answers != std::mem::replace(&mut known, answers)
        });
    }

    /// Adds something that counts its turns.
    pub(crate) fn watch_count(&mut self, name: &str, count: impl Fn() -> u64 + Send + 'static) {
        let mut known = count();
        self.watch(name, move || {
            let now = count();
            now != std::mem::replace(&mut known, now)
        });
    }

    /// Adds the threads that serve clients: each rests, or has finished work since the last look.
    pub(crate) fn watch_workers(&mut self, runtime: &Handle) {
        for worker in 0..runtime.metrics().num_workers() {
            let metrics = runtime.metrics();
            let look = move || {
                // Odd = it is parked.
                let parks = metrics.worker_park_unpark_count(worker);
                (parks, metrics.worker_total_busy_duration(worker))
            };
            let mut known = look();
            self.watch(&format!("serving thread {worker}"), move || {
                let now = look();
                now.0 % 2 == 1 || now != std::mem::replace(&mut known, now)
            });
        }
    }

    /// Starts the thread that looks, and sends a sign within every `allowed` while all is well.
    pub(crate) fn start(self, notifier: Arc<Notifier>, allowed: Duration) -> io::Result<Life> {
        let (stop, stopped) = sync_channel(0);
        let watch = move || self.run(&notifier, allowed, &stopped);
        let thread = Builder::new().name("watchdog".into()).spawn(watch)?;
        Ok(Life { stop: Some(stop), thread: Some(thread) })
    }

    fn run(mut self, notifier: &Notifier, allowed: Duration, stopped: &Receiver<()>) {
        let pause = allowed / limits::WATCHDOG_LOOKS;
        while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            if self.look(allowed)
                && let Err(error) = notifier.send(&[Message::Watchdog])
            {
                tracing::warn!("{}: systemd may take this process for hung", chain(&error));
            }
        }
    }

    /// Whether the next sign is due. A part that is silent for the manager's whole time is named
    /// in the log: afterwards nobody can ask.
    fn look(&mut self, allowed: Duration) -> bool {
        for part in &mut self.parts {
            part.is_alive |= (part.moved)();
        }
        self.looks += 1;
        if self.parts.iter().all(|part| part.is_alive) {
            self.parts.iter_mut().for_each(|part| part.is_alive = false);
            self.looks = 0;
            return true;
        }
        if self.looks == limits::WATCHDOG_LOOKS - 1 {
            for part in self.parts.iter().filter(|part| !part.is_alive) {
                tracing::error!(
                    "no sign of life from the {}: the service manager allows {} s",
                    part.name,
                    allowed.as_secs_f64()
                );
            }
        }
        false
    }
}

/// The running thread; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Life {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the watchdog panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    const ALLOWED: Duration = Duration::from_secs(3);

    #[test]
    fn one_silent_part_keeps_the_sign_back() {
        let turns = [Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0))];
        let turn = |part: usize| turns[part].fetch_add(1, Ordering::Relaxed);
        let mut dog = Watchdog::default();
        for count in turns.clone() {
            dog.watch_count("part", move || count.load(Ordering::Relaxed));
        }
        assert!(!dog.look(ALLOWED), "none has moved");
        turn(0);
        assert!(!dog.look(ALLOWED), "the second has not moved");
        turn(1);
        assert!(dog.look(ALLOWED), "both have moved since the last sign, if not at once");
        turn(1);
        assert!(!dog.look(ALLOWED), "the first has not moved since");
    }

    #[tokio::test]
    async fn a_loop_is_alive_while_it_answers() {
        let pulse = Pulse::default();
        let mut dog = Watchdog::default();
        dog.watch_pulse("loop", pulse.clone());
        assert!(!dog.look(ALLOWED), "nobody has answered");
        for _ in 0..3 {
            pulse.answer().await;
            assert!(dog.look(ALLOWED));
        }
        assert!(!dog.look(ALLOWED), "it was asked and is silent");
    }

    #[test]
    fn a_thread_that_hangs_is_seen_beside_one_that_rests() {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build().unwrap();
        let mut dog = Watchdog::default();
        dog.watch_workers(runtime.handle());
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while !dog.look(ALLOWED) {
            assert!(std::time::Instant::now() < deadline, "resting threads are alive");
            std::thread::yield_now();
        }
        let (let_go, hang) = std::sync::mpsc::sync_channel::<()>(0);
        let (begun, has_begun) = std::sync::mpsc::sync_channel(0);
        runtime.spawn(async move {
            begun.send(()).unwrap();
            let _ = hang.recv();
        });
        has_begun.recv().unwrap();
        // The looks before it was noticed that the thread no longer rests may still be good.
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        let mut silent = 0;
        while silent < 1_000 {
            assert!(std::time::Instant::now() < deadline, "the hanging thread looks alive");
            silent = if dog.look(ALLOWED) { 0 } else { silent + 1 };
        }
        drop(let_go);
        while !dog.look(ALLOWED) {
            assert!(std::time::Instant::now() < deadline, "it goes on");
            std::thread::yield_now();
        }
    }
}
