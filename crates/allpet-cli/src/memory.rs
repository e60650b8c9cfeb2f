//! The program's allocator: what it does with memory that was freed, and how much was taken at most.
#![allow(unsafe_code)]

use mimalloc::MiMalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// mimalloc, and two counters beside it.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static TAKEN: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn took(bytes: usize) {
    let taken = TAKEN.fetch_add(bytes, Relaxed) + bytes;
    if taken > MOST.load(Relaxed) {
        MOST.fetch_max(taken, Relaxed);
    }
}

// SAFETY: every call is handed on to mimalloc as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller's promise is mimalloc's condition, here and below.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: as above.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, data: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        took(size);
        TAKEN.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { MiMalloc.realloc(data, layout, size) }
    }

    unsafe fn dealloc(&self, data: *mut u8, layout: Layout) {
        TAKEN.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { MiMalloc.dealloc(data, layout) }
    }
}

/// Bytes that are taken from the allocator now; [`most_taken`] begins here.
pub(crate) fn taken_from_now() -> usize {
    let taken = TAKEN.load(Relaxed);
    MOST.store(taken, Relaxed);
    taken
}

/// The most bytes that were taken at once since [`taken_from_now`].
pub(crate) fn most_taken() -> usize {
    MOST.load(Relaxed)
}

/// `mi_option_purge_delay` in the allocator's list of options, which only ever grows at its end.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Keeps freed pages instead of handing them back at once: a training step frees and takes hundreds of MiB over and
/// over, and pages that come back from the system must be cleared first (a tenth of a step's time).
pub(crate) fn keep_freed_pages() {
    // SAFETY: sets one number of the allocator's; any value of it is allowed, and no other thread runs yet.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) }
}
