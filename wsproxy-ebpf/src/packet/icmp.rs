//! ICMP errors about packets that were translated. The gateway's stack would look for the socket
//! that has sent the quoted packet, find a frozen one, and tell nobody
//! (`wsproxy_common::packet`, `icmp.rs`, has what becomes of them).

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_skb_load_bytes, bpf_skb_store_bytes},
};
use wsproxy_common::{
    Reason,
    direction::opposite,
    packet::{Flow, Headers, ICMP, KNOWN, V4_AT, V4_LENGTH, V6_LENGTH, is_under_way},
};

use super::{ETHERNET, drop_for, put_sum, send, state_of};
use crate::{
    atomic,
    maps::{FLOWS, KEYS, Work, count},
};

/// Where the checksum stands in an ICMP header.
const CHECKSUM: u32 = 2;

/// A packet that is no segment; `None`: nothing of ours is quoted in it, or something that the
/// stack has to hear of.
#[inline(always)]
pub unsafe fn error(skb: *mut __sk_buff, work: *mut Work) -> Option<i32> {
    unsafe {
        // Said on this host: no router says anything on loopback.
        if (*skb).ingress_ifindex == 0 {
            return None;
        }
        let (outer, quoted) = (&raw mut (*work).headers, &raw mut (*work).quoted);
        let bytes = (*outer).quotes((*skb).len.wrapping_sub(ETHERNET))?;
        load_quoted(skb, outer, quoted, bytes)?;
        let key = (*quoted).quoted_key(&*outer)?;
        let index = *KEYS.get(&key)?;
        // From T, whose way the router is on, to S, who has sent what is quoted.
        let flow = FLOWS.get_ptr_mut(index)?;
        let theirs = FLOWS.get_ptr_mut(opposite(index))?;
        if !state_of(work, flow).is_translated() {
            return None;
        }
        let seq = (*quoted).quoted_seq(&*flow);
        let acked = atomic::load(&raw const (*flow).acked) as u32;
        let owed = atomic::load(&raw const (*flow).owed);
        if owed & KNOWN != 0 && is_under_way(seq, acked, owed as u32) {
            return None;
        }
        let sent = atomic::load(&raw const (*theirs).sent) as u32;
        if !is_under_way(seq, acked, sent) {
            return Some(drop_for(Reason::ErrorAstray));
        }
        Some(pass_on(skb, work, bytes, flow))
    }
}

/// Translates the message and sends it on.
#[inline(always)]
unsafe fn pass_on(skb: *mut __sk_buff, work: *mut Work, bytes: u32, flow: *mut Flow) -> i32 {
    unsafe {
        let (outer, quoted) = (&raw mut (*work).headers, &raw mut (*work).quoted);
        let is_v6 = (*outer).is_v6();
        let change = (*quoted).translate_quoted(&mut *outer, bytes, &*flow);
        let at = ETHERNET + (*outer).ip_length + CHECKSUM;
        let done = store_outer(skb, outer)
            && store_quoted(skb, quoted, bytes)
            && put_sum(skb, at, change, is_v6);
        if !done {
            return drop_for(Reason::Untranslated);
        }
        count(Reason::ErrorTranslated);
        send(skb, flow)
    }
}

/// Where the quoted headers begin in the packet, where in the buffer, and how long they are.
#[inline(always)]
unsafe fn place(quoted: *const Headers, bytes: u32) -> (u32, usize, u32) {
    let is_v6 = unsafe { (*quoted).is_v6() };
    // Lengths that the verifier can see through.
    let ip_length = if is_v6 { V6_LENGTH } else { V4_LENGTH };
    let length = ip_length + if bytes == 8 { 8 } else { 20 };
    (ETHERNET + ip_length + ICMP, if is_v6 { 0 } else { V4_AT }, length)
}

#[inline(always)]
unsafe fn load_quoted(
    skb: *mut __sk_buff,
    outer: *const Headers,
    quoted: *mut Headers,
    bytes: u32,
) -> Option<()> {
    unsafe {
        (*quoted).ip_length = (*outer).ip_length;
        let (from, first, length) = place(quoted, bytes);
        let to = (&raw mut (*quoted).words).cast::<u32>().add(first);
        if bpf_skb_load_bytes(skb.cast(), from, to.cast(), length) == 0 { Some(()) } else { None }
    }
}

#[inline(always)]
unsafe fn store_quoted(skb: *mut __sk_buff, quoted: *const Headers, bytes: u32) -> bool {
    unsafe {
        let (to, first, length) = place(quoted, bytes);
        let from = (&raw const (*quoted).words).cast::<u32>().add(first);
        bpf_skb_store_bytes(skb.cast(), to, from.cast(), length, 0) == 0
    }
}

#[inline(always)]
unsafe fn store_outer(skb: *mut __sk_buff, outer: *const Headers) -> bool {
    unsafe {
        let words = (&raw const (*outer).words).cast::<u32>();
        if (*outer).is_v6() {
            bpf_skb_store_bytes(skb.cast(), ETHERNET, words.cast(), 40, 0) == 0
        } else {
            bpf_skb_store_bytes(skb.cast(), ETHERNET, words.add(V4_AT).cast(), 20, 0) == 0
        }
    }
}
