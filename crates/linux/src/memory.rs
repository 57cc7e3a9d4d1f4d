//! What a process keeps of memory that it does not use.

/// Gives freed memory back to the system, where the C library can (glibc keeps what was freed in
/// the middle of its heaps, and each thread's heap, until it is told). Takes milliseconds, in which
/// other threads' allocations may wait: nothing for a hot path.
pub fn give_back_freed() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number and changes nothing that is in use.
    let _ = unsafe { libc::malloc_trim(0) };
}
