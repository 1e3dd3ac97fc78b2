//! What the allocator is asked for at run time. The program brings the allocator along, this library does not know which.

use std::sync::OnceLock;

static FLUSH: OnceLock<fn()> = OnceLock::new();

/// Tells how a thread gives back what the allocator keeps for it alone.
pub fn flush_threads_by(flush: fn()) {
    // The first one stays: there is one program.
    let _ = FLUSH.set(flush);
}

/// Gives back what the allocator keeps for this thread. After a peak these are few bytes, but each of them in a page of
/// its own, which stays as long as they are kept.
pub(crate) fn flush_thread() {
    if let Some(flush) = FLUSH.get() {
        flush();
    }
}
