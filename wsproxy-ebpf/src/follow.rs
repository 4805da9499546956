//! The frames in an skb (`wsproxy_common::cursor`).

use core::{ffi::c_void, hint::black_box};

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

/// The stream's bytes in an skb.
struct InSkb {
    skb: *mut __sk_buff,
    /// Where the first byte that is walked over is; or would be, where payload before the skb's
    /// belongs to them, so it may have wrapped.
    base: u32,
}

impl HeaderSource for InSkb {
    #[inline(always)]
    fn load(&mut self, offset: u32, want: u32, out: &mut [u8; 14]) -> bool {
        let Some(length) = lengths::within(want, HEADER_MAX) else {
            return false;
        };
        let at = self.base.wrapping_add(offset);
        // SAFETY: the context of the running program, and a buffer of `HEADER_MAX` bytes.
        unsafe { bpf_skb_load_bytes(self.skb.cast(), at, out.as_mut_ptr().cast(), length) == 0 }
    }
}

/// Longest header of a frame, in bytes (RFC 6455, section 5.2).
const HEADER_MAX: u32 = 14;

/// What [`wsproxy_step`] is given, and whether it could not read a header.
#[repr(C)]
struct Context {
    skb: *mut __sk_buff,
    index: u32,
    base: u32,
    unread: u32,
}

/// A callback of `bpf_loop`: not 0 ends it.
unsafe extern "C" fn step(_nth: u64, context: *mut c_void) -> i64 {
    // SAFETY: `bpf_loop` gives what `wsproxy_walk` gave it.
    unsafe {
        let context = &mut *context.cast::<Context>();
        match wsproxy_step(context.skb, context.index, context.base) {
            STEP_ON => 0,
            why => {
                context.unread = why & UNREAD;
                1
            }
        }
    }
}

/// Answers of [`wsproxy_step`].
const STEP_ON: u32 = 0;
const LAST_STEP: u32 = 1;
const UNREAD: u32 = 2;

/// Leads the cursor of direction `index` over one frame, from [`Direction::offset`] on; `base` as
/// [`InSkb`] has it. A global function, so that the verifier need not find out what a turn of the
/// loop leaves for the next one: by itself it follows a few thousand instructions here; that of
/// Linux 7.2 followed a million when this stood in the callback. How far it is lies in a map: by
/// memory on the stack it would follow what was there through every branch.
///
/// # Safety
/// See [`follow`].
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsproxy_step(skb: *mut __sk_buff, index: u32, base: u32) -> u32 {
    unsafe {
        let Some(record) = DIRECTIONS.get_ptr_mut(index) else { return UNREAD };
        let mut walk = Walk { offset: (*record).offset, left: (*record).left, load_failed: 0 };
        let goes_on =
            (*record).cursor.walk_one(&mut InSkb { skb, base }, &mut walk, (*record).rules);
        (*record).offset = walk.offset;
        (*record).left = walk.left;
        match walk.load_failed {
            0 if goes_on => STEP_ON,
            0 => LAST_STEP,
            _ => UNREAD,
        }
    }
}

/// Leads the cursor over the next `len` bytes of the stream; `base` as [`InSkb`] has it. `before`
/// gets what the cursor was, to be put back when the skb is not redirected after all; there is
/// nothing of it unless the answer is `Ok(true)`. `Ok(false)`: this direction is not followed.
/// `Err`: the skb is for user space, which follows it itself; the cursor stands in front of it.
///
/// # Safety
/// `record` points into the map, and is that of `index`; the direction is the kernel's, with the
/// skb announced in [`Direction::handed`]: the cursor is nobody else's.
#[inline(always)]
pub unsafe fn follow(
    skb: *mut __sk_buff,
    base: u32,
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
        match wsproxy_walk(skb, index, len as u32, base) {
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

/// Leads a direction's cursor over `len` bytes; `base` as [`InSkb`] has it. Why user space must look
/// at them (a [`Reason`]), or 0. A global function, which the verifier checks by itself, once, instead
/// of along every way there is to it: a program loads in a sixth of the time. It may take numbers
/// only, and the context.
///
/// # Safety
/// See [`follow`].
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsproxy_walk(skb: *mut __sk_buff, index: u32, len: u32, base: u32) -> u32 {
    unsafe {
        // Into memory at once, instead of being kept elsewhere on the stack until the loop.
        let mut context = Context { skb, index, base, unread: 0 };
        let context = black_box(&raw mut context);
        let Some(record) = DIRECTIONS.get_ptr_mut(index) else { return HEADER_UNREAD };
        let pongs = (*record).cursor.counts.pongs;
        let walk = (*record).cursor.walk_begin(len);
        if walk.left == 0 {
            return 0;
        }
        (*record).offset = walk.offset;
        (*record).left = walk.left;
        bpf_loop(FRAMES_MAX, step as *mut c_void, context.cast(), 0);
        let left = (*record).left;
        let walk = Walk { offset: (*record).offset, left, load_failed: (*context).unread };
        match judge(record, &walk, pongs) {
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
