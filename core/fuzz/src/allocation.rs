//! How much memory a piece of code takes: the system's allocator, counted for each thread.
//!
//! What is freed on another thread than it was taken on counts for neither, which is near enough:
//! targets start no threads.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What [`measure`] saw, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// The most that was in use at once beyond what there was before.
    pub peak: usize,
    /// The largest single allocation.
    pub largest: usize,
}

thread_local! {
    static NOW: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn taken(bytes: usize) {
    let now = NOW.get() + bytes as isize;
    NOW.set(now);
    PEAK.set(PEAK.get().max(now));
    LARGEST.set(LARGEST.get().max(bytes));
}

fn given_back(bytes: usize) {
    NOW.set(NOW.get() - bytes as isize);
}

// SAFETY: every call goes to the system's allocator with the very arguments that came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // As if both were there for a moment, as they may be.
        taken(size);
        given_back(layout.size());
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        given_back(layout.size());
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Runs `work` and says what memory it took on this thread.
pub fn measure(work: impl FnOnce()) -> Used {
    let before = NOW.get();
    PEAK.set(before);
    LARGEST.set(0);
    work();
    Used { peak: (PEAK.get() - before).max(0) as usize, largest: LARGEST.get() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peak_and_largest_are_seen() {
        let used = measure(|| {
            drop(vec![0_u8; 5000]);
            let kept = [vec![1_u8; 3000], vec![2_u8; 3000]];
            assert_eq!(kept.iter().map(Vec::len).sum::<usize>(), 6000);
        });
        assert_eq!(used, Used { peak: 6000, largest: 5000 });
    }
}
