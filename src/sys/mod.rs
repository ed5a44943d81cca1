//! Floor: sys. (scaffold)
