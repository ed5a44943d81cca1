//! Giving freed memory back to the system.
//!
//! Why: the allocator gives pages back while its threads work. A daemon that falls idle right after
//! a load would keep what the load had needed, tens of megabytes, until the next requests.
//!
//! Deliberately not here: when (`node::driver`), and the heaps of other threads.
//!
//! Source: mimalloc's documentation of `mi_collect`.

/// Gives back what this thread has freed, and what no thread uses. Takes a millisecond or so: not
/// for a busy moment. Does nothing in a program with another allocator.
#[expect(unsafe_code, reason = "no crate offers this function as a safe one")]
pub fn give_back() {
    const EVERYTHING: bool = true;
    // SAFETY: the function takes no pointer and may be called at any time from any thread.
    unsafe { libmimalloc_sys::mi_collect(EVERYTHING) }
}
