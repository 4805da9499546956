//! Lengths for helpers, as older verifiers want to see them.

use core::arch::asm;

/// A length that the verifier knows to be of 1 to `max` bytes; `None` when it is not. "Not 0" is
/// nothing to verifiers before Linux 6.8 (`regs_refine_cond_op`): they have to see a number that is
/// compared and then made larger by 1, which the compiler would see through.
#[inline(always)]
pub fn within(length: u32, max: u32) -> Option<u32> {
    let mut bounded = u64::from(length);
    // SAFETY: arithmetic on one register.
    unsafe { asm!("{0} += -1", inout(reg) bounded, options(pure, nomem, nostack)) };
    if bounded >= u64::from(max) {
        return None;
    }
    // SAFETY: arithmetic on one register.
    unsafe { asm!("{0} += 1", inout(reg) bounded, options(pure, nomem, nostack)) };
    Some(bounded as u32)
}
