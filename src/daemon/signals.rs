//! Signals as messages.
//!
//! How data passes: the kernel -> signal-hook's pipe -> a thread that reads it -> a bounded
//! channel -> the daemon's loop, which alone decides what a signal means.
//!
//! Invariants:
//! * Nothing but a write to a pipe happens inside a signal handler.
//! * The thread ends with the `Signals`.
//! * A full channel drops a signal: as many of its kind are waiting to be seen.
//!
//! Deliberately not here: SIGPIPE, which Rust ignores, and SIGKILL, which nobody can.

use crate::base::limits;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals as Pending};
use std::io;
use std::thread::JoinHandle;
use tokio::sync::mpsc;

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGTERM or SIGINT: drain and end.
    Stop,
    /// SIGHUP: read resources and templates again.
    Reload,
}

/// The signals of this process, from its creation on.
#[derive(Debug)]
pub(crate) struct Signals {
    messages: mpsc::Receiver<Signal>,
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Signals {
    /// Takes over SIGTERM, SIGINT and SIGHUP.
    ///
    /// # Errors
    /// When the system refuses a handler, a pipe or a thread.
    pub(crate) fn catch() -> io::Result<Self> {
        let mut pending = Pending::new([SIGTERM, SIGINT, SIGHUP])?;
        let handle = pending.handle();
        let (sender, messages) = mpsc::channel(limits::SIGNALS_WAITING_MAX);
        let read = move || {
            for signal in pending.forever() {
                let meaning = if signal == SIGHUP { Signal::Reload } else { Signal::Stop };
                let _ = sender.try_send(meaning);
            }
        };
        let thread = std::thread::Builder::new().name("signals".into()).spawn(read)?;
        Ok(Self { messages, handle, thread: Some(thread) })
    }

    /// The next signal. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Signal {
        // The sender lives as long as the thread, and that as long as `self`.
        self.messages.recv().await.unwrap_or(Signal::Stop)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            // It panics only if this file does; the process is ending anyway.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn signals_arrive_as_messages() {
        let mut signals = Signals::catch().unwrap();
        for (raised, expected) in
            [(SIGHUP, Signal::Reload), (SIGTERM, Signal::Stop), (SIGINT, Signal::Stop)]
        {
            signal_hook::low_level::raise(raised).unwrap();
            let next = tokio::time::timeout(Duration::from_secs(20), signals.next());
            assert_eq!(next.await.unwrap(), expected);
        }
    }
}
