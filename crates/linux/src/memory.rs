//! What a process keeps of memory that it does not use.

/// Gives freed memory back to the system, where the C library can (glibc keeps what was freed in
/// the middle of its heaps, and each thread's heap, until it is told). Takes milliseconds, in which
/// other threads' allocations may wait: nothing for a hot path.
pub fn give_back_freed() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number and changes nothing that is in use.
    let _ = unsafe { libc::malloc_trim(0) };
}

/// Has the C library ask the system for every block from this size on, and give it back when it is
/// freed. Left alone, glibc raises the size with each large block that is freed (up to 32 MiB):
/// then every thread that once moved a file keeps a buffer's worth for ever.
#[cfg(target_env = "gnu")]
const LARGE: i32 = 256 << 10;

/// Has this process keep little of what it frees. For the beginning of a program, before it has
/// threads; where the C library cannot, nothing happens.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    for parameter in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        // SAFETY: it takes numbers, and no other thread is there yet.
        let _ = unsafe { libc::mallopt(parameter, LARGE) };
    }
}
