//! Floor 2: the replicated state machine. (scaffold)
pub mod command;
pub mod envelope;
pub mod outcome;

pub use command::{Command, Condition, Content, Due, Put};
pub use envelope::{Envelope, Proposal};
pub use outcome::{Action, Answer, Change, Event, Node, Outcome, Verdict};
