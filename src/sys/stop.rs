//! The word that the process is stopping, for everyone who holds a token of it.
//!
//! Invariant: fired once is fired for ever; a stopper that is dropped has fired.

use tokio::sync::watch;

/// Fires once, for everyone who holds a clone: the process is stopping.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// Fires the `Stop` tokens made with it; also when dropped.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

impl Stopper {
    /// A stopper and its first token.
    #[must_use]
    pub fn new() -> (Self, Stop) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), Stop(receiver))
    }

    /// Fires.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Whether it has.
    #[must_use]
    pub fn has_fired(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Ends when the stopper has fired.
    pub async fn stopped(&mut self) {
        // An error means that the stopper is gone, which is as good.
        let _ = self.0.wait_for(|stopped| *stopped).await;
    }
}
