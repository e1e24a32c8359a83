//! mimalloc, called by the names that cost least: nearly every allocation needs no alignment beyond the ordinary, and
//! the crate's own wrapper asks for it each time (a tenth of a request's instructions in allocation, measured by
//! `make cost`).

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys as mi;

/// What mimalloc gives without being asked, as C's `malloc` must (`MI_MAX_ALIGN_SIZE`).
const ORDINARY: usize = 16;

/// The program's allocator.
pub struct Allocator;

#[expect(
    unsafe_code,
    reason = "the crate declares only what every allocator has; this takes a bool and touches nothing of ours"
)]
mod more {
    // SAFETY: as `mimalloc.h` declares it.
    unsafe extern "C" {
        pub(super) safe fn mi_collect(force: bool);
    }
}

/// Gives back to the operating system what the calling thread has not needed for a second. mimalloc itself does so only
/// in passing, when it takes or gives pages: a thread that has just become idle would keep all that it was busy with.
pub fn give_back() {
    more::mi_collect(false);
}

#[expect(unsafe_code, reason = "an allocator is unsafe by its trait; every pointer comes from mimalloc and goes back")]
// SAFETY: each call is passed on as it is. mimalloc frees and moves what any of its functions gave, and a block that
// needs no more than the ordinary alignment keeps it when it is moved.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        unsafe {
            match layout.align() <= ORDINARY && layout.size() >= layout.align() {
                true => mi::mi_malloc(layout.size()),
                false => mi::mi_malloc_aligned(layout.size(), layout.align()),
            }
        }
        .cast()
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        unsafe {
            match layout.align() <= ORDINARY && layout.size() >= layout.align() {
                true => mi::mi_zalloc(layout.size()),
                false => mi::mi_zalloc_aligned(layout.size(), layout.align()),
            }
        }
        .cast()
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        unsafe {
            match layout.align() <= ORDINARY && size >= layout.align() {
                true => mi::mi_realloc(pointer.cast(), size),
                false => mi::mi_realloc_aligned(pointer.cast(), size, layout.align()),
            }
        }
        .cast()
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, _: Layout) {
        unsafe { mi::mi_free(pointer.cast()) }
    }
}
