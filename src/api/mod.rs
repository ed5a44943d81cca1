//! Floor: api. (scaffold)
