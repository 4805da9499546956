//! Ones' complement sums, as far as a checksum changes by what was changed (RFC 1624). They are
//! the same in any byte order.

/// A difference between two sums, not folded yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// A difference that was folded.
    #[must_use]
    #[inline(always)]
    pub const fn of(folded: u32) -> Self {
        Self(folded as u64)
    }

    /// Two differences, folded ones, together.
    #[must_use]
    #[inline(always)]
    pub const fn added(a: u32, b: u32) -> u32 {
        Self(a as u64 + b as u64).folded()
    }

    /// Four bytes at an even place were `old` and are `new`.
    #[inline(always)]
    pub fn word(&mut self, old: u32, new: u32) {
        self.0 += u64::from(!old) + u64::from(new);
    }

    /// The difference in 32 bits, as the kernel's `csum_diff` gives it.
    #[must_use]
    #[inline(always)]
    pub const fn folded(self) -> u32 {
        let once = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        ((once & 0xffff_ffff) + (once >> 32)) as u32
    }

    /// The checksum field that was `old`.
    #[must_use]
    #[inline(always)]
    pub const fn applied_to(self, old: u16) -> u16 {
        let sum = !old as u64 + self.folded() as u64;
        let once = (sum & 0xffff) + (sum >> 16);
        let twice = (once & 0xffff) + (once >> 16);
        let thrice = (twice & 0xffff) + (twice >> 16);
        !(thrice as u16)
    }
}
