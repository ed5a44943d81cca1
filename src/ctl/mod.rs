//! Floor: ctl. (scaffold)
pub mod bench;
