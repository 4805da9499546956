//! Walking the frames of bytes that can only be read a header at a time, as an skb in BPF.

use core::hint::black_box;

use super::header::Header;
use super::{FrameCursor, MAX_HEADER, Rules};

/// Where headers are read from.
pub trait HeaderSource {
    /// Copies the `want` bytes (1 to 14) at `offset` to the front of `out`, leaving the rest of
    /// it alone. False: they cannot be read, and the walk stops.
    fn load(&mut self, offset: u32, want: u32, out: &mut [u8; 14]) -> bool;
}

impl HeaderSource for &[u8] {
    fn load(&mut self, offset: u32, want: u32, out: &mut [u8; 14]) -> bool {
        let bytes = self.get(offset as usize..).and_then(|rest| rest.get(..want as usize));
        match (bytes, out.get_mut(..want as usize)) {
            (Some(bytes), Some(out)) => {
                out.copy_from_slice(bytes);
                true
            }
            _ => false,
        }
    }
}

/// How far a walk has come.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Walk {
    /// Bytes followed so far.
    pub offset: u32,
    /// Bytes still to follow. Apart from `offset`, because the verifier sees that this one
    /// is not 0 where a difference would tell it nothing.
    pub left: u32,
    /// Not 0: a header could not be read.
    pub load_failed: u32,
}

/// Why a walk ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WalkEnd {
    /// All bytes are followed.
    Done,
    /// More frames than the bound allows: the cursor stands at `consumed` and can go on there.
    BoundReached,
    /// The cursor can no longer follow this stream.
    Lost,
    /// The source refused a header: the cursor stands at `consumed`.
    LoadFailed,
    /// A frame breaks an enforced rule.
    Forbidden,
}

/// The result of a walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalkOutcome {
    /// Bytes followed; less than the length unless `end` is `Done` (or `Lost` or
    /// `Forbidden` at the last byte).
    pub consumed: u32,
    /// Why it stopped there.
    pub end: WalkEnd,
}

/// Headers are read into this: aligned, so that BPF loads words from it, not bytes.
#[repr(align(8))]
struct Buffer([u8; 14]);

impl Buffer {
    /// Zeros that the compiler does not know to be zeros: it would call `memset`, which in BPF is
    /// a loop over bytes.
    #[inline(always)]
    fn zeroed() -> Self {
        let [a, b, c, d, e, f, g, h] = black_box(0u64).to_ne_bytes();
        Self([a, b, c, d, e, f, g, h, a, b, c, d, e, f])
    }
}

impl FrameCursor {
    /// Follows `len` bytes of `src`, reading at most `max_headers` headers (or pieces of one).
    #[inline(always)]
    pub fn walk<R: HeaderSource>(
        &mut self,
        src: &mut R,
        len: u32,
        max_headers: u32,
        rules: Rules,
    ) -> WalkOutcome {
        let mut walk = self.walk_begin(len);
        let mut headers = 0;
        while headers < max_headers && self.walk_one(src, &mut walk, rules) {
            headers += 1;
        }
        self.walk_end(&walk, rules)
    }

    /// Starts a walk over `len` bytes with what they hold of the frame that is under way. Often
    /// that is all: `walk.left == 0` says so, and no loop is needed.
    #[inline(always)]
    pub fn walk_begin(&mut self, len: u32) -> Walk {
        let offset = self.skip_payload(len as u64) as u32;
        Walk { offset, left: len.wrapping_sub(offset), load_failed: 0 }
    }

    /// One step: a header (or the piece of it that is there) and what there is of its payload.
    /// False: there is nothing to go on with; `walk_end` says why.
    #[inline(always)]
    pub fn walk_one<R: HeaderSource>(
        &mut self,
        src: &mut R,
        walk: &mut Walk,
        rules: Rules,
    ) -> bool {
        let left = walk.left;
        if left == 0 || self.is_lost() {
            return false;
        }
        let want = if left < MAX_HEADER { left } else { MAX_HEADER };
        let mut buffer = Buffer::zeroed();
        if !src.load(walk.offset, want, &mut buffer.0) {
            walk.load_failed = 1;
            return false;
        }
        let taken = self.take(Header::from_bytes(&buffer.0), want, rules);
        let left = left.wrapping_sub(taken);
        let skipped = self.skip_payload(left as u64) as u32;
        walk.offset = walk.offset.wrapping_add(taken).wrapping_add(skipped);
        walk.left = left.wrapping_sub(skipped);
        walk.left != 0 && !self.is_forbidden(rules)
    }

    /// How the walk ended, once the steps are over.
    #[inline(always)]
    pub fn walk_end(&self, walk: &Walk, rules: Rules) -> WalkOutcome {
        let end = if self.is_forbidden(rules) {
            WalkEnd::Forbidden
        } else if self.is_lost() {
            WalkEnd::Lost
        } else if walk.load_failed != 0 {
            WalkEnd::LoadFailed
        } else if walk.left != 0 {
            WalkEnd::BoundReached
        } else {
            WalkEnd::Done
        };
        WalkOutcome { consumed: walk.offset, end }
    }
}
