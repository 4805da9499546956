//! Which packets the link touches. ARP and neighbour discovery always pass: a link without them
//! tests nothing.

use aya_ebpf::programs::TcContext;

use crate::maps::{Setting, setting};

const ETHERNET: usize = 14;
const V4: u16 = 0x0800;
const V6: u16 = 0x86dd;
const TCP: u8 = 6;

/// Whether the plan is for this packet.
#[inline(always)]
pub fn is_meant(skb: &TcContext) -> bool {
    match tcp_header(skb) {
        Some(at) => has_port(skb, at) && has_payload(skb, at),
        None => false,
    }
}

/// Whether it is one of TCP at all.
#[inline(always)]
pub fn is_tcp(skb: &TcContext) -> bool {
    tcp_header(skb).is_some()
}

/// Where the TCP header begins. Fragments and extension headers are not looked through: neither
/// is TCP's way of sending.
#[inline(always)]
fn tcp_header(skb: &TcContext) -> Option<usize> {
    let kind = u16::from_be(skb.load(ETHERNET - 2).ok()?);
    let (protocol, length) = match kind {
        V4 => {
            let first: u8 = skb.load(ETHERNET).ok()?;
            (skb.load::<u8>(ETHERNET + 9).ok()?, usize::from(first & 15) * 4)
        }
        V6 => (skb.load::<u8>(ETHERNET + 6).ok()?, 40),
        _ => return None,
    };
    (protocol == TCP).then_some(ETHERNET + length)
}

#[inline(always)]
fn has_port(skb: &TcContext, tcp: usize) -> bool {
    let port = setting(Setting::Port);
    let is = |at| skb.load::<u16>(at).is_ok_and(|found| u64::from(u16::from_be(found)) == port);
    port == 0 || is(tcp) || is(tcp + 2)
}

#[inline(always)]
fn has_payload(skb: &TcContext, tcp: usize) -> bool {
    if setting(Setting::OnlyPayload) == 0 {
        return true;
    }
    let Ok(offset) = skb.load::<u8>(tcp + 12) else { return false };
    skb.len() as usize > tcp + usize::from(offset >> 4) * 4
}
