//! Floor: machine. (scaffold)
