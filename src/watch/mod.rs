//! Floor: watch. (scaffold)
