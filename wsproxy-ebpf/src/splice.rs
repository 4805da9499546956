//! The verdict over each skb of a spliced socket: redirect it to the other
//! socket of the session, or pass it to user space. `ARCHITECTURE.md`, "The
//! splice protocol", has the rules; `tests/src/model` proves them.

use core::mem::MaybeUninit;

use aya_ebpf::{
    EbpfContext as _,
    bindings::sk_action::{SK_DROP, SK_PASS},
    helpers::generated::{
        bpf_get_socket_cookie, bpf_ktime_get_coarse_ns, bpf_skb_adjust_room, bpf_skb_pull_data,
    },
    macros::stream_verdict,
    programs::SkBuffContext,
};
use wsproxy_common::{
    Direction, Owner, Reason,
    cursor::FrameCursor,
    direction::{EXPECTED_KNOWN, opposite},
    layout::{LINEARISE_MAX, LINEARISE_MIN},
};

use crate::{
    atomic,
    follow::follow,
    maps::{BY_COOKIE, DIRECTIONS, SOCKETS, count, notify},
    target,
};

const RELAY: u64 = Owner::Relay as u64;
const KERNEL: u64 = Owner::Kernel as u64;
const RESUME: u64 = Owner::Resume as u64;

/// Runs once per skb, under the source's socket lock: verdicts of one
/// direction never overlap, those of its opposite can.
#[stream_verdict]
pub fn wsproxy_splice(ctx: SkBuffContext) -> u32 {
    let reason = try_splice(&ctx);
    count(reason);
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(&ctx, "{} bytes, reason {}", ctx.len(), reason as u32);
    if matches!(reason, Reason::Empty) {
        // A bare FIN; TCP has noted it already. Passed while redirected bytes wait in this
        // socket's queue, it would wait behind them, and the kernel's worker takes the zero
        // bytes it then moves for a hard error: EPIPE, nothing is sent any more
        // (`sk_psock_backlog`). Dropped, it loses no byte.
        return SK_DROP;
    }
    // Both pass and redirect are SK_PASS: the redirect was noted in the skb. Never SK_DROP of
    // bytes: TCP has already acknowledged them.
    SK_PASS
}

#[inline(always)]
fn try_splice(ctx: &SkBuffContext) -> Reason {
    if ctx.len() == 0 {
        // It carries the FIN, which is not redirected.
        return Reason::Empty;
    }
    // SAFETY: plain helper call on the program's own context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // SAFETY: the value is copied at once.
    let Some(index) = (unsafe { BY_COOKIE.get(&cookie) }).copied() else {
        return Reason::Unknown;
    };
    let Some(record) = DIRECTIONS.get_ptr_mut(index) else {
        return Reason::Unknown;
    };
    // SAFETY: `record` points into the map; each word in it has one writer at a time or is
    // accessed atomically, see `Direction`.
    unsafe {
        let trimmed = trim(ctx, index, &raw mut (*record).expected_seq);
        // Its length may be another now.
        let len = u64::from(ctx.len());
        if len == 0 {
            return Reason::Empty;
        }
        if !trimmed {
            atomic::store(&raw mut (*record).broken, 1);
            return take_away(index, record, len, 0, Reason::TrimFailed);
        }
        splice(ctx, index, record, len)
    }
}

#[inline(always)]
unsafe fn splice(ctx: &SkBuffContext, index: u32, record: *mut Direction, len: u64) -> Reason {
    unsafe {
        let owner = &raw mut (*record).owner;
        match atomic::load(owner) {
            KERNEL => {}
            RESUME => {
                let settled = atomic::load(&raw const (*record).diverted)
                    == atomic::load(&raw const (*record).relayed);
                if !settled || !atomic::swap_if(owner, RESUME, KERNEL) {
                    return take_away(index, record, len, 0, Reason::ResumeLost);
                }
                count(Reason::Resumed);
            }
            _ => {
                divert(record, len);
                // User space may have offered the direction between our look at the owner and
                // our count: it no longer reads then, and nobody would fetch these bytes.
                if atomic::load(owner) == RESUME {
                    return take_away(index, record, 0, 0, Reason::ResumeLost);
                }
                return Reason::RelayOwns;
            }
        }

        // Announced first, owner looked at again after: either we see that user space took
        // the direction, or user space sees these bytes in `handed` and waits for them.
        let handed = atomic::add(&raw mut (*record).handed, len);
        match atomic::load(owner) {
            KERNEL => {}
            // Taken AND offered again since the first look: user space does not read any
            // more, so it must be told.
            RESUME => return take_away(index, record, len, len, Reason::ResumeLost),
            _ => {
                divert(record, len);
                atomic::add(&raw mut (*record).handed, len.wrapping_neg());
                return Reason::TakenMeanwhile;
            }
        }

        let Some(target) = target::look(opposite(index), &raw mut (*record).handed) else {
            return take_away(index, record, len, len, Reason::TargetGone);
        };
        // In flight: handed (this skb included), but not yet in the target's TCP. All of it
        // must fit what the target can take now, or the excess would pile up uncharged.
        let in_flight = handed.wrapping_sub(target.count) as i64;
        if in_flight > target.room {
            return take_away(index, record, len, len, Reason::NoRoom);
        }

        linearise(ctx, len);
        let mut before = MaybeUninit::<FrameCursor>::uninit();
        let followed = match follow(ctx.as_ptr().cast(), 0, index, record, len, before.as_mut_ptr())
        {
            Ok(followed) => followed,
            Err(reason) => return take_away(index, record, len, len, reason),
        };
        if SOCKETS.redirect_skb(ctx, opposite(index), 0) != i64::from(SK_PASS) {
            if followed {
                (*record).cursor = before.assume_init_read();
            }
            return take_away(index, record, len, len, Reason::TargetGone);
        }
        atomic::store(&raw mut (*record).last_activity_ns, bpf_ktime_get_coarse_ns());
        let bytes = &raw mut (*record).kernel_bytes;
        atomic::store(bytes, atomic::load(bytes).wrapping_add(len));
        let skbs = &raw mut (*record).kernel_skbs;
        atomic::store(skbs, atomic::load(skbs).wrapping_add(1));
        Reason::Redirected
    }
}

/// Cuts off the front of the skb what an earlier one has brought already; false when it
/// can't. A retransmission that TCP has merged with new data is queued whole, and a reader
/// may have stopped inside a packet before the socket came into the map: TCP's own readers
/// skip the old part by `copied_seq`, `tcp_read_skb` does not. `expected` is
/// [`Direction::expected_seq`].
#[inline(always)]
unsafe fn trim(ctx: &SkBuffContext, index: u32, expected: *mut u64) -> bool {
    /// Most that one call cuts off (`sk_skb_adjust_room`).
    const STEP: u32 = 0xfff;
    /// Calls that cut off an skb of 64 KiB.
    const STEPS: u32 = 17;
    unsafe {
        let skb = ctx.skb.skb;
        // `TCP_SKB_CB(skb)->seq` and `end_seq`: still there, in the words that the kernel
        // shows a program of this type as its own (`struct sk_skb_cb`). The self-test checks
        // it on the running kernel.
        let (seq, end) = ((*skb).cb[0], (*skb).cb[1]);
        let known = atomic::load(expected);
        atomic::store(expected, EXPECTED_KNOWN | u64::from(end));
        let read_to =
            if known == 0 { target::read_up_to(index).unwrap_or(seq) } else { known as u32 };
        let mut old = read_to.wrapping_sub(seq);
        if (old as i32) <= 0 {
            return true;
        }
        count(Reason::Trimmed);
        for _ in 0..STEPS {
            let step = if old > STEP { STEP } else { old };
            if bpf_skb_adjust_room(skb, -(step as i32), 0, 0) != 0 {
                return false;
            }
            old -= step;
            if old == 0 {
                return true;
            }
        }
        false
    }
}

/// Counts `len` bytes as passed to user space; a full barrier.
#[inline(always)]
unsafe fn divert(record: *mut Direction, len: u64) {
    unsafe {
        // The new value is looked at so that the fetching form, the barrier, is emitted.
        core::hint::black_box(atomic::add(&raw mut (*record).diverted, len));
    }
}

/// Gives the direction to user space, starting with this skb, takes `announced` bytes back
/// from `handed`, and says so.
#[inline(always)]
unsafe fn take_away(
    index: u32,
    record: *mut Direction,
    len: u64,
    announced: u64,
    reason: Reason,
) -> Reason {
    unsafe {
        atomic::store(&raw mut (*record).owner, RELAY);
        divert(record, len);
        atomic::add(&raw mut (*record).handed, announced.wrapping_neg());
        notify(index, atomic::load(&raw const (*record).generation), reason);
    }
    reason
}

/// Makes a fragmented skb linear, where that is likely to pay: the kernel's worker sends
/// linear data in one call and each page fragment in one of its own.
#[inline(always)]
fn linearise(ctx: &SkBuffContext, len: u64) {
    if len < u64::from(LINEARISE_MIN) || len > u64::from(LINEARISE_MAX) {
        return;
    }
    // SAFETY: reads of the program's own context; the packet pointers are not used after.
    unsafe {
        let skb = ctx.skb.skb;
        if u64::from((*skb).data_end.wrapping_sub((*skb).data)) >= len {
            return;
        }
        let done = bpf_skb_pull_data(skb, len as u32) == 0;
        count(if done { Reason::Linearised } else { Reason::LineariseFailed });
    }
}
