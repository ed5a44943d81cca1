//! Floor: node. (scaffold)
