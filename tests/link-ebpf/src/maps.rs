//! What user space sets and reads.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{macros::map, maps::Array};

pub use crate::numbers::{Count, Setting};

/// One number a [`Setting`].
#[map]
static SETTINGS: Array<u64> = Array::with_max_entries(8, 0);

/// One number a [`Count`].
#[map]
static COUNTS: Array<u64> = Array::with_max_entries(8, 0);

#[inline(always)]
pub fn setting(which: Setting) -> u64 {
    match SETTINGS.get_ptr(which as u32) {
        // SAFETY: the map's memory; user space may write it meanwhile, a whole word at a time.
        Some(value) => unsafe { value.read_volatile() },
        None => 0,
    }
}

/// Counts one; what was counted before.
#[inline(always)]
pub fn count(which: Count) -> u64 {
    match COUNTS.get_ptr_mut(which as u32) {
        // SAFETY: the map's memory, which other CPUs change in the same way only.
        Some(n) => unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(n, 1) },
        None => 0,
    }
}
