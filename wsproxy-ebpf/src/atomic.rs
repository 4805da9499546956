//! 64-bit atomics on map memory. `AtomicU64`'s methods do not exist on this
//! target (`atomic_cas: false`), the instructions do (cpu v3).
//!
//! Every operation here returns the old value on purpose: the fetching forms
//! are full barriers on every machine, the plain `lock +=` is not (arm64).

use core::{
    arch::asm,
    intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd},
};

/// Not 0: loads may overtake each other on this machine. Written by the loader; where it is 0 the
/// verifier takes out what depends on it.
#[unsafe(no_mangle)]
static WEAK_MEMORY: u32 = 0;

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

/// What is loaded before it is loaded before what stands behind it. `word` is any word of a map,
/// and keeps its value: BPF has no barrier by itself (`BPF_LOAD_ACQ` is of Linux 6.15).
#[inline(always)]
pub unsafe fn order_loads(word: *mut u64) {
    unsafe {
        if (&raw const WEAK_MEMORY).read_volatile() != 0 {
            add(word, 0);
        }
    }
}

/// A load that happens exactly once, where it stands: among other loads, anywhere on arm64.
#[inline(always)]
pub unsafe fn load(word: *const u64) -> u64 {
    unsafe { word.read_volatile() }
}

/// A store that happens exactly once, where it stands.
#[inline(always)]
pub unsafe fn store(word: *mut u64, value: u64) {
    unsafe { word.write_volatile(value) }
}
