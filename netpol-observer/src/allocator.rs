//! How the allocator of the C library is to keep memory.

/// Large pieces are given back when they are freed, and few threads have heaps of their own: an agent's memory is that of the cluster's objects, and what
/// was freed beside them in eight heaps is of no use to anybody. With another C library than glibc nothing is done.
pub fn keep_small() {
    #[cfg(target_env = "gnu")]
    {
        /// Heaps. Two threads allocate much: the one that takes in the objects, and the one that explains.
        const ARENAS: libc::c_int = 2;
        /// Bytes; what glibc begins with. Unless it is set, it grows with the largest piece that was freed, up to 32 MiB.
        const LARGE: libc::c_int = 128 * 1024;
        // SAFETY: sets two numbers under the allocator's own lock.
        let set = unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) & libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
        if set == 0 {
            tracing::debug!("the allocator does not take advice");
        }
    }
}
