//! Floor 1: bytes others see.
//!
//! Formats that programs outside this process read and write: v2's JSON (`v2`) and the form a v2
//! request comes in (`form`). Data passes through as plain borrowed words: a door fills them from
//! the machine's types, so the format neither knows a store nor costs a copy.
//!
//! Invariants:
//! * What is written is byte for byte what etcd's Go encoder writes.
//! * What is read is checked whole before anybody acts on it.
//!
//! Deliberately not here: HTTP itself (status, headers), sockets, what a request means.

pub mod form;
pub mod v2;
