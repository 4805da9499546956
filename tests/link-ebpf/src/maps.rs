//! What user space sets and reads. The numbers are those of `Setting` and `Count` in
//! `tests/src/link.rs`; they change together.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{macros::map, maps::Array};

/// One number a [`Setting`].
#[map]
static SETTINGS: Array<u64> = Array::with_max_entries(8, 0);

/// One number a [`Count`].
#[map]
static COUNTS: Array<u64> = Array::with_max_entries(8, 0);

/// Index into the settings.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Setting {
    /// Decides every packet's fate, together with its number.
    Seed = 0,
    /// Out of 2^32 packets, so many are lost.
    Drop = 1,
    /// Out of 2^32, so many are lost or doubled.
    Duplicate = 2,
    /// Out of 2^32, so many are lost, doubled or held back.
    Hold = 3,
    /// The device that held packets go to; 0: there is none.
    Line = 4,
    /// The device that they come back to.
    Link = 5,
    /// Only packets from or to this TCP port; 0: all.
    Port = 6,
    /// Not 0: only packets with payload.
    OnlyPayload = 7,
}

/// Index into the counts.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Count {
    /// Packets that a fate was drawn for.
    Seen = 0,
    /// Passed on at once, doubled ones included.
    Passed = 1,
    /// Lost.
    Dropped = 2,
    /// Sent twice.
    Duplicated = 3,
    /// Given to the delay line.
    Held = 4,
    /// Come back from it.
    Returned = 5,
}

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
