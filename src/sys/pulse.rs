//! A loop's sign of life, given when asked.
//!
//! Why: a timer that pets the watchdog proves that timers work. Here the loop itself answers,
//! between two of its turns; one that hangs in its work does not.
//!
//! How data passes: the watchdog holds a clone and calls `ask`; the loop has `answer` among the
//! branches of its `select!`, and the count goes up; the watchdog sees it at its next look.
//!
//! Invariant: asking never waits, and asking twice is asking once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

/// What the asking and the answering side share.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    asked: Notify,
    answers: AtomicU64,
}

impl Pulse {
    /// Wants a sign.
    pub fn ask(&self) {
        self.0.asked.notify_one();
    }

    /// Waits to be asked, and answers. May be dropped and called again.
    pub async fn answer(&self) {
        self.0.asked.notified().await;
        self.0.answers.fetch_add(1, Ordering::Relaxed);
    }

    /// How often the loop has answered.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.0.answers.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_question_is_answered_once() {
        let pulse = Pulse::default();
        pulse.ask();
        pulse.ask();
        let looping = pulse.clone();
        let answering = tokio::spawn(async move {
            loop {
                looping.answer().await;
            }
        });
        while pulse.answers() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(pulse.answers(), 1);
        answering.abort();
    }
}
