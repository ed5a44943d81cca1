//! Floor: config. (scaffold)
