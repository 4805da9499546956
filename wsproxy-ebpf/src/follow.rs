//! The frames in an skb (`wsproxy_common::cursor`).

use core::ffi::c_void;

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_loop, bpf_skb_load_bytes},
};
use wsproxy_common::{
    Direction, Reason,
    cursor::{FrameCursor, HeaderSource, PONG_FIRST_BYTE, Walk, WalkEnd},
    direction::{FOLLOW_FRAMES, WATCH_PONGS},
    layout::FRAMES_MAX,
};

use crate::{atomic, lengths, maps::DIRECTIONS};

/// Bytes of the stream, in an skb.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Bytes {
    skb: *mut c_void,
    /// How many of the bytes that are walked over came before, and are not in the skb.
    missing: u32,
    /// Where in the skb the others begin.
    base: u32,
}

impl Bytes {
    /// All of an skb that begins with the stream's bytes.
    #[inline(always)]
    pub fn all_of(skb: *mut c_void) -> Self {
        Self { skb, missing: 0, base: 0 }
    }

    /// Behind `missing` bytes, those from `base` on.
    #[inline(always)]
    pub fn from(skb: *mut c_void, base: u32, missing: u32) -> Self {
        Self { skb, missing, base }
    }
}

impl HeaderSource for Bytes {
    #[inline(always)]
    fn load(&mut self, offset: u32, want: u32, out: &mut [u8; 14]) -> bool {
        if offset < self.missing {
            return false;
        }
        let at = self.base.wrapping_add(offset).wrapping_sub(self.missing);
        let Some(length) = lengths::within(want, HEADER_MAX) else {
            return false;
        };
        // SAFETY: the context of the running program, and a buffer of `HEADER_MAX` bytes.
        unsafe { bpf_skb_load_bytes(self.skb, at, out.as_mut_ptr().cast(), length) == 0 }
    }
}

/// Longest header of a frame, in bytes (RFC 6455, section 5.2).
const HEADER_MAX: u32 = 14;

/// What a step of the walk works on. The cursor is led where it lies: what comes from a map's
/// memory is a plain number to the verifier, what comes from the stack has a history that it
/// would follow through every branch.
#[repr(C)]
struct Context {
    record: *mut Direction,
    walk: Walk,
    bytes: Bytes,
}

/// One frame; a callback of `bpf_loop`: not 0 ends it.
unsafe extern "C" fn step(_nth: u64, context: *mut c_void) -> i64 {
    // SAFETY: `bpf_loop` gives what `follow` gave it; the record is in the map.
    unsafe {
        let Context { record, walk, bytes } = &mut *context.cast::<Context>();
        let rules = (**record).rules;
        i64::from(!(**record).cursor.walk_one(bytes, walk, rules))
    }
}

/// Leads the cursor over the next `len` bytes of the stream. `before` gets what it was, to be put
/// back when the skb is not redirected after all; there is nothing of it unless the answer is `Ok(true)`.
/// `Ok(false)`: this direction is not followed. `Err`: the skb is for user space, which follows
/// it itself; the cursor stands in front of it.
///
/// # Safety
/// `record` points into the map, and is that of `index`; the direction is the kernel's, with the
/// skb announced in [`Direction::handed`]: the cursor is nobody else's.
#[inline(always)]
pub unsafe fn follow(
    bytes: Bytes,
    index: u32,
    record: *mut Direction,
    len: u64,
    before: *mut FrameCursor,
) -> Result<bool, Reason> {
    unsafe {
        if atomic::load(&raw const (*record).follow) & FOLLOW_FRAMES == 0 {
            return Ok(false);
        }
        *before = (*record).cursor;
        match wsproxy_walk(bytes.skb.cast(), index, len as u32, bytes.base, bytes.missing) {
            0 => Ok(true),
            why => {
                (*record).cursor = *before;
                Err(match why {
                    MANY_FRAMES => Reason::ManyFrames,
                    HEADER_UNREAD => Reason::HeaderUnread,
                    FORBIDDEN => Reason::Forbidden,
                    _ => Reason::Pong,
                })
            }
        }
    }
}

/// Answers of [`wsproxy_walk`]: a function that is checked by itself gives a number. None is 0.
const MANY_FRAMES: u32 = Reason::ManyFrames as u32;
const HEADER_UNREAD: u32 = Reason::HeaderUnread as u32;
const FORBIDDEN: u32 = Reason::Forbidden as u32;

/// Leads a direction's cursor over `len` bytes, as [`Bytes`] has them; why user space must look at
/// them (a [`Reason`]), or 0. A global function, which the verifier checks by itself, once, instead
/// of along every way there is to it: a program loads in a sixth of the time. It may take numbers
/// only, and the context.
///
/// # Safety
/// See [`follow`].
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsproxy_walk(
    skb: *mut __sk_buff,
    index: u32,
    len: u32,
    base: u32,
    missing: u32,
) -> u32 {
    unsafe {
        let Some(record) = DIRECTIONS.get_ptr_mut(index) else { return HEADER_UNREAD };
        let pongs = (*record).cursor.counts.pongs;
        let walk = (*record).cursor.walk_begin(len);
        if walk.left == 0 {
            return 0;
        }
        let mut context = Context { record, walk, bytes: Bytes { skb: skb.cast(), missing, base } };
        bpf_loop(FRAMES_MAX, step as *mut c_void, (&raw mut context).cast(), 0);
        match judge(record, &context.walk, pongs) {
            None => 0,
            Some(why) => why as u32,
        }
    }
}

/// Why user space must look at what was walked over, if it must. `pongs` were counted before.
#[inline(always)]
unsafe fn judge(record: *const Direction, walk: &Walk, pongs: u64) -> Option<Reason> {
    unsafe {
        let cursor = &(*record).cursor;
        match cursor.walk_end(walk, (*record).rules).end {
            WalkEnd::Done | WalkEnd::Lost => {}
            WalkEnd::BoundReached => return Some(Reason::ManyFrames),
            WalkEnd::LoadFailed => return Some(Reason::HeaderUnread),
            WalkEnd::Forbidden => return Some(Reason::Forbidden),
        }
        // Read after the packet has come: a Ping that it answers was sent before.
        if atomic::load(&raw const (*record).follow) & WATCH_PONGS != 0 {
            let begins = cursor.header_have != 0 && cursor.header[0] == PONG_FIRST_BYTE;
            if begins || cursor.counts.pongs != pongs {
                return Some(Reason::Pong);
            }
        }
        None
    }
}
