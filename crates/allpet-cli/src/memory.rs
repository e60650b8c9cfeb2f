//! The program's allocator and what it does with memory that was freed.
#![allow(unsafe_code)]

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` in the allocator's list of options, which only ever grows at its end.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Keeps freed pages instead of handing them back at once: a training step frees and takes hundreds of MiB over and
/// over, and pages that come back from the system must be cleared first (a tenth of a step's time).
pub(crate) fn keep_freed_pages() {
    // SAFETY: sets one number of the allocator's; any value of it is allowed, and no other thread runs yet.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) }
}
