//! Frames on the packet path: the cursor is led over a segment, or a copy of that is kept.
//!
//! What the packet program calls here is a *global function*, as are those of [`crate::behind`]:
//! the verifier (5.6 on, `btf_check_subprog_call`) follows it once and by itself, instead of once
//! for each way that leads to it. So it is given numbers and the context only, looks up what they
//! stand for, and finds the rest in [`Work`].

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_loop};
use core::ffi::c_void;
use wsproxy_common::{
    Direction,
    direction::{BUSY, EXPECTED_KNOWN, KEEPS, WATCH_FIN},
    packet::after,
};

use crate::{
    atomic, behind,
    maps::{DIRECTIONS, WORK, Work},
    packet::payload_at,
};

/// The segment may go on.
pub const GO_ON: u32 = 0;
/// It must not: as if the link had lost it.
pub const DROP: u32 = 1;
/// It must not, and its session comes back: the segment is for user space.
pub const COME_BACK: u32 = 2;

/// Looks at a direction that another CPU has, at most: some 10 us, in which that is done with any
/// packet but one of hundreds of frames.
const PATIENCE: u32 = 1024;

/// Leads the cursor of direction `index` over the segment in [`Work`]; [`GO_ON`] and others.
///
/// # Safety
/// The context of the running program.
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsproxy_follow(skb: *mut __sk_buff, index: u32) -> u32 {
    unsafe { follow_alone(skb, index) }.unwrap_or(DROP)
}

/// Cursor and shelf are one CPU's at a time: packets of a direction come to several when its
/// sender's thread, or a queue of the device, moves to another one.
#[inline(always)]
unsafe fn follow_alone(skb: *mut __sk_buff, index: u32) -> Option<u32> {
    unsafe {
        let work = WORK.get_ptr_mut(0)?;
        let record = DIRECTIONS.get_ptr_mut(index)?;
        let word = &raw mut (*record).behind;
        if !try_to_have(word) {
            let mut context = word;
            bpf_loop(PATIENCE, wait as *mut c_void, (&raw mut context).cast(), 0);
            if !try_to_have(word) {
                return None;
            }
        }
        let led = lead(skb, index, work, record);
        // Nobody else writes it meanwhile.
        let behind = atomic::load(word);
        atomic::swap_if(word, behind, behind & !BUSY);
        Some(led)
    }
}

#[inline(always)]
unsafe fn try_to_have(word: *mut u64) -> bool {
    unsafe {
        let behind = atomic::load(word);
        behind & BUSY == 0 && atomic::swap_if(word, behind, behind | BUSY)
    }
}

/// A callback of `bpf_loop`: not 0 ends it.
unsafe extern "C" fn wait(_nth: u64, context: *mut c_void) -> i64 {
    // SAFETY: `bpf_loop` gives what `follow_alone` gave it; the word is in a map.
    unsafe { i64::from(atomic::load(*context.cast::<*mut u64>()) & BUSY == 0) }
}

/// What comes of a segment.
#[inline(always)]
unsafe fn lead(skb: *mut __sk_buff, index: u32, work: *mut Work, record: *mut Direction) -> u32 {
    unsafe {
        match follow(skb, index, work, record) {
            Followed::Yes => {
                if atomic::load(&raw const (*record).behind) & KEEPS != 0 {
                    behind::wsproxy_catch_up(index);
                }
                GO_ON
            }
            // What T gets too late to be kept from it must not break a rule that is enforced.
            Followed::Behind if (*record).rules.enforced == 0 => behind::wsproxy_keep(skb, index),
            _ => COME_BACK,
        }
    }
}

/// What came of leading the frame cursor over a segment.
#[derive(PartialEq, Eq)]
enum Followed {
    /// It stands behind the segment.
    Yes,
    /// A header has not come yet, and what lies behind it can't be followed before it has.
    Behind,
    /// The segment is for user space, and must not go on.
    No,
}

/// Leads the frame cursor over what is new in a segment.
#[inline(always)]
unsafe fn follow(
    skb: *mut __sk_buff,
    index: u32,
    work: *mut Work,
    record: *mut Direction,
) -> Followed {
    unsafe {
        let segment = (*work).segment;
        let at = &raw mut (*record).expected_seq;
        let stands = atomic::load(at) as u32;
        let end = segment.seq.wrapping_add(segment.payload);
        if after(end, stands) {
            let missing = segment.seq.wrapping_sub(stands);
            let cursor = &(*record).cursor;
            if (missing as i32) > 0 && cursor.payload_left < u64::from(missing) && !cursor.is_lost()
            {
                return Followed::Behind;
            }
            let base = payload_at(work, &segment).wrapping_sub(missing);
            let length = u64::from(end.wrapping_sub(stands));
            let before = &raw mut (*work).before;
            if crate::follow::follow(skb, base, index, record, length, before).is_err() {
                return Followed::No;
            }
            atomic::store(at, EXPECTED_KNOWN | u64::from(end));
        }
        let watched = atomic::load(&raw const (*record).follow) & WATCH_FIN != 0;
        if (*work).fin != 0 && watched && (*record).cursor.counts.closes == 0 {
            return Followed::No;
        }
        Followed::Yes
    }
}
