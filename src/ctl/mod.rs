//! Floor: ctl. (scaffold)
