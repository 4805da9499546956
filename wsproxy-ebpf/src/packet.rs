//! The packet path: segments of sessions whose sockets are frozen are translated and sent on;
//! the stack never sees them. `ARCHITECTURE.md`, "The packet path", has the rules;
//! `wsproxy_common::packet` has the algebra.

mod icmp;

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{__sk_buff, BPF_F_PSEUDO_HDR, TC_ACT_OK, TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::generated::{
        bpf_ktime_get_coarse_ns, bpf_l4_csum_replace, bpf_loop, bpf_redirect, bpf_redirect_neigh,
        bpf_skb_load_bytes, bpf_skb_store_bytes,
    },
    macros::classifier,
    programs::TcContext,
};
use wsproxy_common::{
    Direction, Reason,
    direction::{FOLLOW_FRAMES, opposite},
    packet::{
        ACK, Change, FIN, FLAG_COME_BACK, Flow, HEADERS, Headers, JUMBO, KNOWN, Moves, OPTIONS,
        Options, Pair, RST, SYN, Seen, Segment, State, Sum, TCP_AT, V4_AT, V4_LENGTH, V6_LENGTH,
        after, observe,
    },
};

use crate::{
    atomic, behind, frames, lengths,
    maps::{DIRECTIONS, FLOWS, KEYS, WORK, Work, count, notify},
};

/// Length of an Ethernet header, which loopback packets have too.
const ETHERNET: u32 = 14;
const ETH_P_IP: u32 = 0x0800_u16.to_be() as u32;
const ETH_P_IPV6: u32 = 0x86dd_u16.to_be() as u32;
/// Where the checksum stands in a TCP header.
const CHECKSUM: u32 = 16;
/// Bytes of a TCP header without options.
const TCP_LENGTH: u32 = 20;
/// `BPF_F_IPV6` of `bpf_l4_csum_replace`: kernels before 6.16 don't know it, and refuse.
const F_IPV6: u64 = 1 << 7;
/// Index of a device that no host has: the kernel gives them from 1 on.
const NOWHERE: u32 = i32::MAX as u32;
/// Times that a number is tried to be moved while another CPU moves it too.
const TRIES: u32 = 4;

/// A packet comes in over a device, or one of this host goes out over loopback.
#[classifier]
pub fn wsproxy_packet(ctx: TcContext) -> i32 {
    // SAFETY: the context of the running program.
    unsafe { packet(ctx.as_ptr().cast()) }.unwrap_or(TC_ACT_UNSPEC)
}

/// What is done with the packet; `None`: it is none of ours.
#[inline(always)]
unsafe fn packet(skb: *mut __sk_buff) -> Option<i32> {
    unsafe {
        let work = WORK.get_ptr_mut(0)?;
        load_headers(skb, &raw mut (*work).headers)?;
        let Some(segment) = (*work).headers.segment((*skb).len.wrapping_sub(ETHERNET)) else {
            return icmp::error(skb, work);
        };
        (*work).key = (*work).headers.key();
        let index = *KEYS.get(&(*work).key)?;
        let flow = FLOWS.get_ptr_mut(index)?;
        let record = DIRECTIONS.get_ptr_mut(index)?;
        let state = state_of(work, flow);
        match state {
            State::Off => return None,
            State::Hold => return Some(drop_for(Reason::Held)),
            State::Watch => {
                // A stranger can't tell where a side stands.
                let first = FLOWS.get_ptr_mut(index & !1)?;
                if Pair(atomic::load(&raw const (*first).pair)).is_at(index, segment.seq) {
                    note_value(skb, work, flow, &segment);
                }
                // Since a moment ago packets are translated: the next one is.
                let to_stack = watch(index, first, &segment);
                return if to_stack { None } else { Some(drop_for(Reason::Held)) };
            }
            _ => {}
        }
        let theirs = FLOWS.get_ptr_mut(opposite(index))?;
        let their_record = DIRECTIONS.get_ptr_mut(opposite(index))?;
        if matches!(state, State::Ended) && segment.has(SYN) && !segment.has(ACK) {
            return None;
        }
        (*work).known = seen(flow, theirs);
        let known = &(*work).known;
        let ack = segment.ack.wrapping_add((*flow).ack_add);
        let settles = matches!(state, State::Settle);
        let fresh = known.is_fresh(&segment, ack);
        let is_new = fresh && settles;
        let follow = atomic::load(&raw const (*record).follow) & FOLLOW_FRAMES != 0;
        let mut led = frames::GO_ON;
        if !is_new && follow && (fresh || behind::fills(record, known, &segment, ack)) {
            (*work).segment = segment;
            // Of a FIN that answers one, nobody has to be told.
            (*work).fin = u32::from(segment.has(FIN) && known.their_fin & KNOWN == 0);
            led = frames::wsproxy_follow(skb, index);
            if led == frames::DROP {
                return Some(drop_for(Reason::NotKept));
            }
        }
        if is_new || led != frames::GO_ON {
            // Its bytes come again; what it acknowledges is so all the same. Without that a session
            // whose side only sends such segments would not get quiet.
            let moves = observe(known, &segment.bare(), ack, (*flow).scale);
            // Where others were faster, it acknowledges that once more when it comes again.
            let _busy = apply(index, flow, record, their_record, known, &moves);
            if is_new {
                return Some(drop_for(Reason::Settled));
            }
            raise(index, flow, record, FLAG_COME_BACK, Reason::ForUserSpace);
            return Some(lose(skb));
        }
        let moves = observe(known, &segment, ack, (*flow).scale);
        if apply(index, flow, record, their_record, known, &moves).is_err() {
            return Some(drop_for(Reason::NotKept));
        }
        // Since we looked, the session may have gone as far as back to its sockets.
        if !State::from_word(atomic::load(&raw const (*flow).state)).is_translated() {
            return Some(drop_for(Reason::Held));
        }
        Some(forward(skb, work, flow, &segment))
    }
}

/// What is done with the packets of a flow. All else that the flow says is read later, so that it
/// is not what an earlier session left there.
#[inline(always)]
unsafe fn state_of(work: *mut Work, flow: *const Flow) -> State {
    unsafe {
        let state = State::from_word(atomic::load(&raw const (*flow).state));
        atomic::order_loads(&raw mut (*work).order);
        state
    }
}

/// Drops a packet for a moment: a sender on this host is told (`NET_XMIT_DROP`), and waits with the
/// rest, which soon makes a session quiet.
#[inline(always)]
fn drop_for(reason: Reason) -> i32 {
    count(reason);
    TC_ACT_SHOT
}

/// Drops a packet that user space has to see first, which may be a while: nobody may be there. A
/// sender on this host that is told takes it for not sent, tries again each 500 ms, and gives the
/// connection up after 15 tries (`tcp_probe_timer`). Of a redirection that leads nowhere it is told
/// that it went (`sch_handle_egress`; `TC_ACT_STOLEN` is no answer that tcx knows).
#[inline(always)]
unsafe fn lose(skb: *mut __sk_buff) -> i32 {
    unsafe {
        if (*skb).ingress_ifindex == 0 {
            return bpf_redirect(NOWHERE, 0) as i32;
        }
        TC_ACT_SHOT
    }
}

/// Loads the headers; `None` when there are none that could be ours.
#[inline(always)]
unsafe fn load_headers(skb: *mut __sk_buff, headers: *mut Headers) -> Option<()> {
    unsafe {
        // A VLAN's packets are looked at on the VLAN's own device.
        if (*skb).vlan_present != 0 {
            return None;
        }
        let protocol = (*skb).protocol;
        let to = (&raw mut (*headers).words).cast::<u32>();
        let loaded = if protocol == ETH_P_IP {
            (*headers).ip_length = V4_LENGTH;
            let length = (HEADERS - V4_AT) as u32 * 4;
            bpf_skb_load_bytes(skb.cast(), ETHERNET, to.add(V4_AT).cast(), length)
        } else if protocol == ETH_P_IPV6 {
            (*headers).ip_length = V6_LENGTH;
            match bpf_skb_load_bytes(skb.cast(), ETHERNET, to.cast(), HEADERS as u32 * 4) {
                0 if (*headers).is_jumbo((*skb).len.wrapping_sub(ETHERNET)) => {
                    (*headers).ip_length = V6_LENGTH + JUMBO;
                    let at = ETHERNET + V6_LENGTH + JUMBO;
                    bpf_skb_load_bytes(skb.cast(), at, to.add(TCP_AT).cast(), TCP_LENGTH)
                }
                loaded => loaded,
            }
        } else {
            return None;
        };
        if loaded == 0 { Some(()) } else { None }
    }
}

/// Notes the TSval of a packet.
#[inline(always)]
unsafe fn note_value(skb: *mut __sk_buff, work: *mut Work, flow: *mut Flow, segment: &Segment) {
    unsafe {
        /// Timestamps, and their padding.
        const LENGTH: u32 = 12;
        let options = &raw mut (*work).options;
        let (at, to) =
            (ETHERNET + (*work).headers.ip_length + 20, (&raw mut (*options).words).cast());
        if u32::from(segment.options) >= LENGTH
            && bpf_skb_load_bytes(skb.cast(), at, to, LENGTH) == 0
            && let Some(value) = (*options).first_value()
        {
            atomic::store(&raw mut (*flow).value, KNOWN | u64::from(value));
        }
    }
}

/// Notes how far a packet comes that goes to the stack; false: it must not go there, since packets
/// are translated from now on. Whoever decides that does so on the number noted
/// last, so no packet is on its way to the stack when it takes effect.
#[inline(always)]
unsafe fn watch(index: u32, first: *mut Flow, segment: &Segment) -> bool {
    unsafe {
        let word = &raw mut (*first).pair;
        let end = segment.seq.wrapping_add(segment.length());
        for _ in 0..TRIES {
            let pair = Pair(atomic::load(word));
            if pair.is_translated() {
                return false;
            }
            if segment.has(SYN) || segment.has(RST) {
                return true;
            }
            match pair.moved(index, end) {
                Some(moved) if !atomic::swap_if(word, pair.0, moved.0) => {}
                _ => return true,
            }
        }
        // Packets of both sides at the same time, again and again.
        false
    }
}

#[inline(always)]
unsafe fn seen(flow: *const Flow, theirs: *const Flow) -> Seen {
    unsafe {
        Seen {
            sent: atomic::load(&raw const (*flow).sent),
            acked: atomic::load(&raw const (*flow).acked),
            edge: atomic::load(&raw const (*flow).edge),
            fin: atomic::load(&raw const (*flow).fin),
            their_sent: atomic::load(&raw const (*theirs).sent),
            their_acked: atomic::load(&raw const (*theirs).acked),
            their_edge: atomic::load(&raw const (*theirs).edge),
            their_fin: atomic::load(&raw const (*theirs).fin),
        }
    }
}

/// Other CPUs moved the same number again and again.
struct Busy;

/// Moves a number forward; what it was. `None`: it stood there already, or further. Whether it was
/// moved here or elsewhere, what is looked at next is looked at later: a swap that changes nothing
/// is a barrier too. A copy of a packet that another CPU has noted must not go on where that
/// one sees, looking again, that the session is held.
#[inline(always)]
unsafe fn advance(word: *mut u64, to: u32) -> Result<Option<u32>, Busy> {
    unsafe {
        for _ in 0..TRIES {
            let old = atomic::load(word);
            let stands = old & KNOWN != 0 && !after(to, old as u32);
            let new = if stands { old } else { KNOWN | u64::from(to) };
            if atomic::swap_if(word, old, new) {
                return Ok(if stands { None } else { Some(old as u32) });
            }
        }
        Err(Busy)
    }
}

/// Writes down what a segment of direction `index` has changed, and tells of an end. An error: not
/// all of it is written, and the segment must not go on.
#[inline(always)]
unsafe fn apply(
    index: u32,
    flow: *mut Flow,
    record: *mut Direction,
    their_record: *mut Direction,
    known: &Seen,
    moves: &Moves,
) -> Result<(), Busy> {
    unsafe {
        if let Some(sent) = moves.sent {
            advance(&raw mut (*flow).sent, sent)?;
            atomic::store(&raw mut (*record).last_activity_ns, bpf_ktime_get_coarse_ns());
        }
        if let Some(edge) = moves.edge {
            advance(&raw mut (*flow).edge, edge)?;
        }
        if let Some(acked) = moves.acked
            && let Some(before) = advance(&raw mut (*flow).acked, acked)?
        {
            // The FIN has a number, but is no byte.
            let fin = u32::from(known.their_fin == KNOWN | u64::from(acked));
            let bytes = acked.wrapping_sub(before).wrapping_sub(fin);
            atomic::add(&raw mut (*their_record).packet_bytes, u64::from(bytes));
        }
        if let Some(fin) = moves.fin {
            atomic::store(&raw mut (*flow).fin, KNOWN | u64::from(fin));
            count(Reason::Finished);
            notify(index, atomic::load(&raw const (*record).generation), Reason::Finished);
        }
        if moves.flags != 0 {
            raise(index, flow, record, moves.flags, Reason::Over);
        }
        atomic::add(&raw mut (*record).kernel_skbs, 1);
        Ok(())
    }
}

/// Sets flags, and tells of those that were not set.
#[inline(always)]
unsafe fn raise(index: u32, flow: *mut Flow, record: *mut Direction, set: u32, reason: Reason) {
    unsafe {
        let flags = &raw mut (*flow).flags;
        let before = flags.read_volatile();
        count(reason);
        if before & set != set {
            flags.write_volatile(before | set);
            notify(index, atomic::load(&raw const (*record).generation), reason);
        }
    }
}

/// Where the payload of a segment begins in its skb.
#[inline(always)]
pub unsafe fn payload_at(work: *const Work, segment: &Segment) -> u32 {
    unsafe { ETHERNET + (*work).headers.ip_length + TCP_LENGTH + u32::from(segment.options) }
}

/// One option; a callback of `bpf_loop`: not 0 ends it.
unsafe extern "C" fn step(_nth: u64, context: *mut c_void) -> i64 {
    // SAFETY: `bpf_loop` gives what `translate_options` gave it.
    unsafe { i64::from(!(**context.cast::<*mut Options>()).step()) }
}

/// Loads and translates the options; what the checksum changes by, `None` when there is nothing
/// that can be read.
#[inline(always)]
unsafe fn translate_options(
    skb: *mut __sk_buff,
    options: *mut Options,
    ip_length: u32,
) -> Option<u32> {
    unsafe {
        let length = lengths::within((*options).length, OPTIONS as u32)?;
        let at = ETHERNET + ip_length + 20;
        let bytes = &raw mut (*options).words;
        if bpf_skb_load_bytes(skb.cast(), at, bytes.cast(), length) != 0 {
            return None;
        }
        if let Some(change) = (*options).usual() {
            return Some(change);
        }
        let before = (*options).sum();
        // The context of a loop lies on the stack.
        let mut context = options;
        bpf_loop(OPTIONS as u32, step as *mut c_void, (&raw mut context).cast(), 0);
        Some(Options::change(before, (*options).sum()))
    }
}

/// Translates the packet and sends it on.
#[inline(always)]
unsafe fn forward(skb: *mut __sk_buff, work: *mut Work, flow: *mut Flow, segment: &Segment) -> i32 {
    unsafe {
        let headers = &raw mut (*work).headers;
        let ip_length = (*headers).ip_length;
        let mut change = (*headers).translate(&*flow, segment);
        if segment.options != 0 {
            let options = &raw mut (*work).options;
            (*options).begin(&*flow, segment);
            let Some(by) = translate_options(skb, options, ip_length) else {
                return drop_for(Reason::Untranslated);
            };
            if let Some(value) = (*options).value() {
                atomic::store(&raw mut (*flow).value, KNOWN | u64::from(value));
            }
            let Some(length) = lengths::within(u32::from(segment.options), OPTIONS as u32) else {
                return drop_for(Reason::Untranslated);
            };
            let at = ETHERNET + ip_length + 20;
            let bytes = (&raw const (*options).words).cast();
            if bpf_skb_store_bytes(skb.cast(), at, bytes, length, 0) != 0 {
                return drop_for(Reason::Untranslated);
            }
            change.segment = Sum::added(change.segment, by);
        }
        if !store(skb, headers, change) {
            return drop_for(Reason::Untranslated);
        }
        count(Reason::Translated);
        send(skb, flow)
    }
}

/// Sends a packet to T, whose addresses it has by now.
#[inline(always)]
unsafe fn send(skb: *mut __sk_buff, flow: *mut Flow) -> i32 {
    unsafe {
        // Of this host, to this host: it is on its way there already.
        if (*skb).ingress_ifindex == 0 && (*flow).local != 0 {
            return TC_ACT_OK;
        }
        bpf_redirect_neigh((*flow).device, core::ptr::null_mut(), 0, 0) as i32
    }
}

/// Writes the headers back and puts the TCP checksum right: of one that the device is still to
/// compute only the addresses' part is in the field.
#[inline(always)]
unsafe fn store(skb: *mut __sk_buff, headers: *const Headers, change: Change) -> bool {
    unsafe {
        let bytes = (&raw const (*headers).words).cast::<u32>();
        let is_v6 = (*headers).is_v6();
        let stored = if (*headers).ip_length > V6_LENGTH {
            let (ip, tcp) = (bytes.cast(), bytes.add(TCP_AT).cast());
            match bpf_skb_store_bytes(skb.cast(), ETHERNET, ip, V6_LENGTH, 0) {
                0 => {
                    let at = ETHERNET + V6_LENGTH + JUMBO;
                    bpf_skb_store_bytes(skb.cast(), at, tcp, TCP_LENGTH, 0)
                }
                failed => failed,
            }
        } else if is_v6 {
            bpf_skb_store_bytes(skb.cast(), ETHERNET, bytes.cast(), HEADERS as u32 * 4, 0)
        } else {
            let length = (HEADERS - V4_AT) as u32 * 4;
            bpf_skb_store_bytes(skb.cast(), ETHERNET, bytes.add(V4_AT).cast(), length, 0)
        };
        let at = ETHERNET + (*headers).ip_length + CHECKSUM;
        stored == 0 && put_sum(skb, at, change, is_v6)
    }
}

/// Puts the checksum at `at` right.
#[inline(always)]
unsafe fn put_sum(skb: *mut __sk_buff, at: u32, change: Change, is_v6: bool) -> bool {
    unsafe {
        let (addresses, rest) = (u64::from(change.addresses), u64::from(change.segment));
        let pseudo = u64::from(BPF_F_PSEUDO_HDR);
        let v6 = if is_v6 { F_IPV6 } else { 0 };
        bpf_l4_csum_replace(skb.cast(), at, 0, rest, 0) == 0
            && (bpf_l4_csum_replace(skb.cast(), at, 0, addresses, pseudo | v6) == 0
                || (v6 != 0 && bpf_l4_csum_replace(skb.cast(), at, 0, addresses, pseudo) == 0))
    }
}
