//! Floor: store. (scaffold)

pub mod log;
pub mod wal;
