//! 64-bit atomics on map memory. `AtomicU64`'s methods do not exist on this
//! target (`atomic_cas: false`), the instructions do (cpu v3).
//!
//! Every operation here returns the old value on purpose: the fetching forms
//! are full barriers on every machine, the plain `lock +=` is not (arm64).

use core::{
    arch::asm,
    intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd},
};

/// Adds and returns the NEW value.
#[inline(always)]
pub unsafe fn add(word: *mut u64, n: u64) -> u64 {
    let mut old = unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(word, n) };
    // Somebody uses the result: without that the compiler takes the form that does not fetch.
    // SAFETY: a register is copied to itself.
    unsafe { asm!("{0} = {0}", inout(reg) old, options(nomem, nostack)) };
    old.wrapping_add(n)
}

/// Stores `new` if the word is `old`; says whether it did.
#[inline(always)]
pub unsafe fn swap_if(word: *mut u64, old: u64, new: u64) -> bool {
    unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(word, old, new)
            .1
    }
}

/// A load that happens exactly once, where it stands.
#[inline(always)]
pub unsafe fn load(word: *const u64) -> u64 {
    unsafe { word.read_volatile() }
}

/// A store that happens exactly once, where it stands.
#[inline(always)]
pub unsafe fn store(word: *mut u64, value: u64) {
    unsafe { word.write_volatile(value) }
}
