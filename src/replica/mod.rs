//! Floor 3: consensus (the outline; the body follows).
pub mod words;

pub use words::*;

// The driver's view:
//
// impl<B: Base> Replica<B> {
//     /// `machine` from the last checkpoint, `log` from `Wal` recovery.
//     pub fn open(config: Config, machine: Machine<B>, log: Log) -> Result<Self, Fault>;
//     pub fn handle(&mut self, now: Now, input: Input<B>, out: &mut Vec<Output<B>>);
//     pub fn wants_turn(&self) -> bool;   // then, when idle: handle(now, Input::Continue, out)
//     pub fn view(&self) -> View<B>;      // for the first readers, before the first Publish
//     pub fn status(&self) -> Status;
//     pub fn machine(&self) -> &Machine<B>;
// }
//
// A new member that waits for its first snapshot opens with a machine created by
// `Genesis { index: LogIndex(0), term: Term(0), membership: Membership::default(), .. }`.
