//! Floor: render. (scaffold)
