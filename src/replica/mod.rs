//! Floor: replica. (scaffold)
