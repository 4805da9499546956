//! Packets behind a frame header that was lost. The cursor can't be led over them before the
//! header has come. They go on all the same, since T's TCP tells S of the hole only by what
//! arrives behind it; copies are kept, and the cursor is led over those once the hole is filled.
//!
//! T gets no byte behind the hole before the segment that fills it has come by here, so nothing is
//! read by T that was not followed. Where there is no room for a copy the packet is dropped, as if
//! the link had lost it.
//!
//! Who calls has the direction ([`BUSY`]); a shelf that is worked on has
//! [`AT_WORK`] in its owner's word, so that nobody takes it meanwhile. Both are for the bytes to be
//! the right ones: whatever stands in a shelf, no access leaves it.

use core::{ffi::c_void, hint::black_box};

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_ktime_get_coarse_ns, bpf_loop, bpf_skb_load_bytes},
};
use wsproxy_common::{
    Direction, Reason,
    cursor::{HeaderSource, Walk},
    direction::{BUSY, EXPECTED_KNOWN, KEEPS, WATCH_FIN},
    layout::{PIECE, PIECES, SHELVES as COUNT},
    packet::{Seen, Segment, State, after},
};

use crate::{
    atomic,
    frames::{DROP, GO_ON},
    lengths,
    maps::{DIRECTIONS, FLOWS, SHELVES, WORK, Work, count},
    packet::payload_at,
};

/// Bytes on a shelf.
const BYTES: usize = PIECES * PIECE;
const _: () = assert!(BYTES.is_power_of_two() && PIECES.is_power_of_two());
/// Shelves that are tried when one is wanted.
const TRIES: u32 = 8;
/// A shelf that nothing was put on for so long, in ns, is anybody's: its sender is gone, nearly
/// always. A sender's longest pause between two tries is 120 s (`TCP_RTO_MAX`; RFC 6298, section
/// 2.5, allows 60 s), but that far backed off a connection has said nothing for minutes. If it does
/// go on, its frames are followed no more.
const FORGOTTEN: u64 = 60_000_000_000;
/// In [`Shelf::owner`]: something is put there or read. Indexes are smaller.
const AT_WORK: u64 = 1 << 31;
/// Looks at a piece, at most, in one go: at each one for each one that leads the cursor on, and as
/// many headers as there is room for, of 2 bytes each.
const LOOKS: u32 = (PIECES * PIECES + BYTES / 2) as u32;

/// A piece of the stream.
#[derive(Clone, Copy)]
#[repr(C)]
struct Piece {
    /// Sequence number of its first byte.
    seq: u32,
    /// Its bytes.
    length: u32,
}

/// What is kept of one direction.
#[repr(C)]
pub struct Shelf {
    /// Whose it is, as [`mark`] says; 0: nobody's. With [`AT_WORK`].
    owner: u64,
    /// When something was put here, in ns.
    since: u64,
    /// How many pieces there are.
    count: u32,
    /// Behind the last byte that went on behind the hole.
    to: u32,
    pieces: [Piece; PIECES],
    /// Of each piece, in the order of `pieces`.
    bytes: [u8; BYTES],
}

/// How far something is done with a shelf. In a map's memory: of numbers on the stack the verifier
/// would follow the history, turn by turn.
#[repr(C)]
pub struct Course {
    /// Where in the skb the bytes begin that are still to be copied.
    base: u32,
    /// Sequence number of the first one.
    seq: u32,
    /// How many they are.
    left: u32,
    /// The piece that is looked at next.
    nth: u32,
    /// Pieces looked at since the cursor was led over one.
    idle: u32,
    /// 1: a piece has all the bytes.
    is_there: u32,
}

/// A direction of a session, among all directions of all sessions.
#[inline(always)]
unsafe fn mark(index: u32, record: *const Direction) -> u64 {
    unsafe { atomic::load(&raw const (*record).generation) << 32 | (u64::from(index) + 1) }
}

/// The shelf that a direction has, to work on. `None`: another one has it by now, or it went with
/// an earlier process.
#[inline(always)]
unsafe fn shelf_of(record: *const Direction, mine: u64) -> Option<*mut Shelf> {
    unsafe {
        let at = atomic::load(&raw const (*record).behind) as u32;
        let shelf = SHELVES.get_ptr_mut(at)?;
        let owner = &raw mut (*shelf).owner;
        if atomic::swap_if(owner, mine, mine | AT_WORK) { Some(shelf) } else { None }
    }
}

/// Whether nobody has that shelf, or a session that is not on the packet path any more.
#[inline(always)]
unsafe fn is_left(owner: u64, at: u32) -> bool {
    unsafe {
        if owner == 0 {
            return true;
        }
        let index = (owner as u32).wrapping_sub(1);
        let (Some(flow), Some(record)) = (FLOWS.get_ptr(index), DIRECTIONS.get_ptr(index)) else {
            return true;
        };
        let state = State::from_word(atomic::load(&raw const (*flow).state));
        let behind = atomic::load(&raw const (*record).behind) & !BUSY;
        !state.is_translated() || behind != KEEPS | u64::from(at)
    }
}

/// A shelf to work on, for a direction that has none.
#[inline(always)]
unsafe fn take_shelf(record: *mut Direction, mine: u64, stands: u32) -> Option<*mut Shelf> {
    unsafe {
        let now = bpf_ktime_get_coarse_ns();
        for nth in 0..TRIES {
            let at = (mine as u32).wrapping_add(nth) % COUNT;
            let shelf = SHELVES.get_ptr_mut(at)?;
            let word = &raw mut (*shelf).owner;
            let owner = atomic::load(word);
            if owner & AT_WORK != 0 {
                continue;
            }
            let since = atomic::load(&raw const (*shelf).since);
            let free = owner == mine || is_left(owner, at) || now.wrapping_sub(since) > FORGOTTEN;
            if free && atomic::swap_if(word, owner, mine | AT_WORK) {
                (*shelf).count = 0;
                (*shelf).to = stands;
                atomic::store(&raw mut (*record).behind, BUSY | KEEPS | u64::from(at));
                return Some(shelf);
            }
        }
        None
    }
}

/// What was kept of a direction is not there any more: nobody will know where its frames begin.
#[inline(always)]
unsafe fn lose(record: *mut Direction) {
    unsafe {
        (*record).cursor.lose();
        atomic::store(&raw mut (*record).behind, BUSY);
    }
}

/// Whether a segment brings bytes that the cursor still waits for, while others went on.
#[inline(always)]
pub unsafe fn fills(record: *const Direction, known: &Seen, segment: &Segment, ack: u32) -> bool {
    unsafe {
        atomic::load(&raw const (*record).behind) & KEEPS != 0
            && known.is_behind(segment, ack, atomic::load(&raw const (*record).expected_seq) as u32)
    }
}

/// Keeps a copy of the segment in [`Work`], which lies behind the hole; [`DROP`]: it must not go
/// on.
///
/// # Safety
/// The context of the running program; the direction is the caller's.
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsproxy_keep(skb: *mut __sk_buff, index: u32) -> u32 {
    unsafe { keep(skb, index) }.unwrap_or(DROP)
}

#[inline(always)]
unsafe fn keep(skb: *mut __sk_buff, index: u32) -> Option<u32> {
    unsafe {
        let work = WORK.get_ptr_mut(0)?;
        let record = DIRECTIONS.get_ptr_mut(index)?;
        let watched = atomic::load(&raw const (*record).follow) & WATCH_FIN != 0;
        // Whether a Close came before it nobody knows.
        if (*work).fin != 0 && watched {
            return None;
        }
        let mine = mark(index, record);
        let has_one = atomic::load(&raw const (*record).behind) & KEEPS != 0;
        let shelf = if has_one {
            let Some(shelf) = shelf_of(record, mine) else {
                lose(record);
                return Some(GO_ON);
            };
            shelf
        } else {
            take_shelf(record, mine, atomic::load(&raw const (*record).expected_seq) as u32)?
        };
        let kept = put_all(skb, work, shelf);
        atomic::swap_if(&raw mut (*shelf).owner, mine | AT_WORK, mine);
        if !kept {
            return None;
        }
        count(Reason::Kept);
        Some(GO_ON)
    }
}

/// Puts a copy of the segment there; false: there is no room.
#[inline(always)]
unsafe fn put_all(skb: *mut __sk_buff, work: *mut Work, shelf: *mut Shelf) -> bool {
    unsafe {
        let segment = (*work).segment;
        let course = &raw mut (*work).course;
        (*course).base = payload_at(work, &segment);
        (*course).seq = segment.seq;
        (*course).left = segment.payload;
        (*course).nth = 0;
        (*course).is_there = 0;
        let before = (*shelf).count;
        let mut copy = Copy { skb: skb.cast(), shelf, course };
        let context = (&raw mut copy).cast();
        bpf_loop(PIECES as u32, compare as *mut c_void, context, 0);
        if (*course).is_there == 0 {
            bpf_loop(PIECES as u32, put as *mut c_void, context, 0);
            if (*course).left != 0 {
                // Nor are its first bytes kept: the cursor must not stand behind what went on.
                (*shelf).count = before;
                return false;
            }
        }
        let end = segment.seq.wrapping_add(segment.payload);
        if after(end, (*shelf).to) {
            (*shelf).to = end;
        }
        atomic::store(&raw mut (*shelf).since, bpf_ktime_get_coarse_ns());
        true
    }
}

/// What a copy is made of.
#[repr(C)]
struct Copy {
    skb: *mut c_void,
    shelf: *mut Shelf,
    course: *mut Course,
}

/// Whether a piece has it all already; a callback of `bpf_loop`: not 0 ends it.
unsafe extern "C" fn compare(_nth: u64, context: *mut c_void) -> i64 {
    // SAFETY: `bpf_loop` gives what `keep` gave it; shelf and course are in maps.
    unsafe {
        let Copy { shelf, course, .. } = *context.cast::<Copy>();
        let nth = (*course).nth;
        if nth >= (*shelf).count {
            return 1;
        }
        (*course).nth = nth + 1;
        let piece = (*shelf).pieces[nth as usize % PIECES];
        let (seq, left) = ((*course).seq, (*course).left);
        let before_its_end = !after(seq.wrapping_add(left), piece.seq.wrapping_add(piece.length));
        let is_there = u32::from(!after(piece.seq, seq) && before_its_end);
        (*course).is_there = is_there;
        i64::from(is_there)
    }
}

/// Copies the next piece; a callback of `bpf_loop`: not 0 ends it.
unsafe extern "C" fn put(_nth: u64, context: *mut c_void) -> i64 {
    // SAFETY: as above; the bytes of a piece lie within those of the shelf.
    unsafe {
        let Copy { skb, shelf, course } = *context.cast::<Copy>();
        let (left, base, seq) = ((*course).left, (*course).base, (*course).seq);
        let slot = (*shelf).count as usize;
        if left == 0 || slot >= PIECES {
            return 1;
        }
        let length = if left < PIECE as u32 { left } else { PIECE as u32 };
        let to = (&raw mut (*shelf).bytes).cast::<u8>().add((slot % PIECES) * PIECE);
        let Some(length) = lengths::within(length, PIECE as u32) else { return 1 };
        if bpf_skb_load_bytes(skb, base, to.cast(), length) != 0 {
            return 1;
        }
        (*shelf).pieces[slot % PIECES] = Piece { seq, length };
        (*shelf).count = slot as u32 + 1;
        (*course).base = base.wrapping_add(length);
        (*course).seq = seq.wrapping_add(length);
        (*course).left = left - length;
        0
    }
}

/// The bytes of a shelf, from `at` on.
struct OnShelf {
    shelf: *const Shelf,
    at: u32,
}

impl HeaderSource for OnShelf {
    #[inline(always)]
    fn load(&mut self, offset: u32, want: u32, out: &mut [u8; 14]) -> bool {
        let from = self.at.wrapping_add(offset) as usize;
        let (mut front, mut back) = (0_u64, 0_u64);
        for nth in 0..8 {
            front = front << 8 | u64::from(self.byte(from.wrapping_add(nth)));
        }
        for nth in 8..14 {
            back = back << 8 | u64::from(self.byte(from.wrapping_add(nth)));
        }
        // What lies behind them is left alone; without a branch for each byte.
        if want < 8 {
            front &= !(u64::MAX >> (want * 8 & 63));
            back = 0;
        } else {
            back &= !((1 << ((14_u32.wrapping_sub(want)) * 8 & 63)) - 1);
        }
        let (front, back) = (front.to_be_bytes(), back.to_be_bytes());
        let mut at = 0;
        while at < 14 {
            out[at] = if at < 8 { front[at] } else { back[at - 6] };
            at += 1;
        }
        true
    }
}

impl OnShelf {
    #[inline(always)]
    fn byte(&self, at: usize) -> u8 {
        // SAFETY: the shelf is in the map, and the index within its bytes.
        unsafe { (*self.shelf).bytes[at % BYTES] }
    }
}

/// Leads the cursor of direction `index`, of which something is kept, over that, as far as there is
/// no other hole that it needs the bytes of. 0.
///
/// # Safety
/// The direction is the caller's.
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsproxy_catch_up(index: u32) -> u32 {
    unsafe { catch_up(index) };
    0
}

#[inline(always)]
unsafe fn catch_up(index: u32) -> Option<()> {
    unsafe {
        let work = WORK.get_ptr_mut(0)?;
        let record = DIRECTIONS.get_ptr_mut(index)?;
        let mine = mark(index, record);
        let Some(shelf) = shelf_of(record, mine) else {
            lose(record);
            return None;
        };
        let course = &raw mut (*work).course;
        (*course).nth = 0;
        (*course).idle = 0;
        let mut context = index;
        bpf_loop(LOOKS, look as *mut c_void, (&raw mut context).cast(), 0);
        let owner = if is_done(record, shelf) {
            atomic::store(&raw mut (*record).behind, BUSY);
            0
        } else {
            mine
        };
        atomic::swap_if(&raw mut (*shelf).owner, mine | AT_WORK, owner);
        Some(())
    }
}

/// Whether the cursor needs nothing of what is kept any more; it stands behind it then.
#[inline(always)]
unsafe fn is_done(record: *mut Direction, shelf: *const Shelf) -> bool {
    unsafe {
        let at = &raw mut (*record).expected_seq;
        let (stands, to) = (atomic::load(at) as u32, (*shelf).to);
        if after(to, stands) {
            let ahead = u64::from(to.wrapping_sub(stands));
            if (*record).cursor.payload_left < ahead && !(*record).cursor.is_lost() {
                return false;
            }
            // All of it is payload; or what it is nobody will know.
            (*record).cursor.skip_payload(ahead);
            atomic::store(at, EXPECTED_KNOWN | u64::from(to));
        }
        true
    }
}

/// A callback of `bpf_loop`: not 0 ends it. One header at a time: a loop within the loop is more
/// than the verifier follows.
unsafe extern "C" fn look(_nth: u64, context: *mut c_void) -> i64 {
    // The verifier is to see that it is 0 or 1; that it could not be anything else the compiler
    // knows from the function.
    // SAFETY: `bpf_loop` gives what `catch_up` gave it.
    unsafe { i64::from(black_box(wsproxy_look(*context.cast::<u32>())) & LAST_LOOK) }
}

/// Leads the cursor of direction `index` over the next header, if it begins or goes on in the piece
/// that is looked at; [`LOOK_ON`], or that was the last look. A global function, as
/// [`crate::follow::wsproxy_step`].
///
/// # Safety
/// The direction is the caller's, and so is its shelf.
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsproxy_look(index: u32) -> u32 {
    unsafe { look_on(index) }.map_or(LAST_LOOK, |()| LOOK_ON)
}

/// Answers of [`wsproxy_look`].
const LOOK_ON: u32 = 0;
const LAST_LOOK: u32 = 1;

#[inline(always)]
unsafe fn look_on(index: u32) -> Option<()> {
    unsafe {
        let course = &raw mut (*WORK.get_ptr_mut(0)?).course;
        let record = DIRECTIONS.get_ptr_mut(index)?;
        let shelf = SHELVES.get_ptr(atomic::load(&raw const (*record).behind) as u32)?;
        let (count, slot, idle) = ((*shelf).count, (*course).nth % PIECES as u32, (*course).idle);
        if idle >= count || (*record).cursor.is_lost() {
            return None;
        }
        let piece = (*shelf).pieces[slot as usize];
        let at = &raw mut (*record).expected_seq;
        let stands = atomic::load(at) as u32;
        let end = piece.seq.wrapping_add(piece.length);
        let (left, ahead) = ((*record).cursor.payload_left, end.wrapping_sub(stands));
        let header = stands.wrapping_add(left as u32);
        // Passed already, payload to its end, or behind the next header.
        if !after(end, stands) || left >= u64::from(ahead) || after(piece.seq, header) {
            (*course).nth = if slot + 1 < count { slot + 1 } else { 0 };
            (*course).idle = idle + 1;
            return Some(());
        }
        (*record).cursor.skip_payload(left);
        let begins = (slot * PIECE as u32).wrapping_add(header.wrapping_sub(piece.seq));
        let mut bytes = OnShelf { shelf, at: begins };
        let mut walk = Walk { offset: 0, left: end.wrapping_sub(header), load_failed: 0 };
        (*record).cursor.walk_one(&mut bytes, &mut walk, (*record).rules);
        atomic::store(at, EXPECTED_KNOWN | u64::from(end.wrapping_sub(walk.left)));
        (*course).idle = 0;
        Some(())
    }
}
