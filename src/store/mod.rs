//! Floor: store. (scaffold)
