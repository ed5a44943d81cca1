//! Floor: wire. (scaffold)
