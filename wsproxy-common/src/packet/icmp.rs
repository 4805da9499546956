//! ICMP errors about packets that were translated: a router on the way to T quotes what it could
//! not pass on, and the message is made one about what S has sent.
//!
//! Those are ICMPv4's type 3 (RFC 792; its code 4 carries the MTU of the next hop, RFC 1191) and
//! ICMPv6's types 1 and 2 (RFC 4443, RFC 8201). The MTU in it is right for S as it stands: a
//! translated packet is as long as it was. Translated are the outer addresses and, of the quoted
//! packet, addresses, ports, sequence and acknowledgement number and checksums. What else is quoted
//! stays as the router saw it: no receiver looks at it (RFC 5927, section 4), and the window that S
//! said can't be told any more.
//!
//! The outer source becomes the address that S knows us by, not the router's: that one may never
//! arrive at S (private, link-local, or refused by source validation, RFC 2827), and S would not
//! hear that its packets are too large. NATs do the same for routers they have no mapping for (RFC
//! 5508, section 4).

use super::{
    Change, Flow, FlowKey, Headers, Sum, after,
    headers::{ACK, FRAGMENTED, TCP, tcp, v4, v6},
};

/// Bytes of an ICMP header, behind which the quoted packet begins.
pub const ICMP: u32 = 8;
/// Bytes of the quoted TCP header that every router sends (RFC 792): ports and sequence number.
const LEAST: u32 = 8;
/// Bytes of a TCP header without options.
const WHOLE: u32 = 20;

/// Next headers and types.
const ICMP_V4: u32 = 1;
const ICMP_V6: u32 = 58;
const UNREACHABLE_V4: u32 = 3;
const UNREACHABLE_V6: u32 = 1;
const TOO_BIG_V6: u32 = 2;
/// More fragments: the first one has its TCP header.
const MORE: u32 = 0x2000;

impl Headers {
    /// How many bytes of a TCP header an ICMP error quotes, 8 or 20; `None` when it is no error
    /// that is passed on, or not one that can be: a fragment, IP options, too short a quotation.
    /// `whole` is the length of the packet from its IP header on.
    #[must_use]
    #[inline(always)]
    pub fn quotes(&self, whole: u32) -> Option<u32> {
        let kind = self.host::<{ tcp::PORTS }>() >> 24;
        let said = if self.is_v6() {
            let next = self.host::<{ v6::LENGTH }>() >> 8 & 0xff;
            let passed_on = kind == UNREACHABLE_V6 || kind == TOO_BIG_V6;
            if self.host::<0>() >> 28 != 6 || next != ICMP_V6 || !passed_on {
                return None;
            }
            (self.host::<{ v6::LENGTH }>() >> 16) + 40
        } else {
            let complete = self.host::<{ v4::FRAGMENT }>() & FRAGMENTED == 0;
            let is_icmp = self.host::<{ v4::TTL }>() >> 16 & 0xff == ICMP_V4;
            let plain = self.host::<{ v4::LENGTH }>() >> 24 == 0x45;
            if !plain || !is_icmp || !complete || kind != UNREACHABLE_V4 {
                return None;
            }
            self.host::<{ v4::LENGTH }>() & 0xffff
        };
        let before = 2 * self.ip_length + ICMP;
        if said > whole || said < before + LEAST {
            None
        } else if said < before + WHOLE {
            Some(LEAST)
        } else {
            Some(WHOLE)
        }
    }

    /// Of the headers of a quoted packet: who would answer it, as a packet says it that arrives.
    /// `None` when it is no segment, or not sent by whom the message is for, which is `outer`'s.
    #[must_use]
    #[inline(always)]
    pub fn quoted_key(&self, outer: &Self) -> Option<FlowKey> {
        let is_segment = if self.is_v6() {
            let next = self.host::<{ v6::LENGTH }>() >> 8 & 0xff;
            self.host::<0>() >> 28 == 6 && next == TCP
        } else {
            let first = self.host::<{ v4::FRAGMENT }>() & FRAGMENTED & !MORE == 0;
            let is_tcp = self.host::<{ v4::TTL }>() >> 16 & 0xff == TCP;
            self.host::<{ v4::LENGTH }>() >> 24 == 0x45 && is_tcp && first
        };
        let (sent, to) = (self.key(), outer.key().destination);
        let ours = sent.source[0] == to[0]
            && sent.source[1] == to[1]
            && sent.source[2] == to[2]
            && sent.source[3] == to[3];
        if !is_segment || !ours {
            return None;
        }
        Some(FlowKey {
            source: sent.destination,
            destination: sent.source,
            ports: sent.ports.rotate_left(16),
        })
    }

    /// Of the headers of a quoted packet: its sequence number, as S has sent it. `flow` is the
    /// direction from T to S.
    #[must_use]
    #[inline(always)]
    pub const fn quoted_seq(&self, flow: &Flow) -> u32 {
        self.host::<{ tcp::SEQ }>().wrapping_add(flow.ack_add)
    }

    /// Of the headers of a quoted packet, of whose TCP header `bytes` are there: makes them what S
    /// has sent, and those of the message, `outer`, what S is to see. `flow` is the direction from
    /// T to S: its constants are the other direction's with the other sign. The ICMP checksum is
    /// left as it is: it changes by what is returned.
    #[inline(always)]
    pub fn translate_quoted(&mut self, outer: &mut Self, bytes: u32, flow: &Flow) -> Change {
        let pseudo = outer.readdress(flow);
        let mut addresses = Sum::default();
        let mut all = Sum::default();
        if self.is_v6() {
            self.set_address::<{ v6::SOURCE }>(&flow.destination, &mut addresses);
            self.set_address::<{ v6::DESTINATION }>(&flow.source, &mut addresses);
        } else {
            self.set::<{ v4::SOURCE }>(flow.destination[3], &mut addresses);
            self.set::<{ v4::DESTINATION }>(flow.source[3], &mut addresses);
            let old = self.host::<{ v4::TTL }>();
            let checksum = u16::from_be(addresses.applied_to((old as u16).to_be()));
            self.set::<{ v4::TTL }>((old & !0xffff | u32::from(checksum)).to_be(), &mut all);
        }
        let mut segment = Sum::default();
        self.set::<{ tcp::PORTS }>(flow.ports.rotate_left(16), &mut segment);
        let seq = self.quoted_seq(flow);
        self.set::<{ tcp::SEQ }>(seq.to_be(), &mut segment);
        if bytes >= WHOLE {
            if self.host::<{ tcp::FLAGS }>() >> 16 & ACK as u32 != 0 {
                let ack = self.host::<{ tcp::ACK }>().wrapping_add(flow.seq_add);
                self.set::<{ tcp::ACK }>(ack.to_be(), &mut segment);
            }
            let old = self.host::<{ tcp::CHECKSUM }>();
            let covered = Sum::added(addresses.folded(), segment.folded());
            let checksum = Sum::of(covered).applied_to(((old >> 16) as u16).to_be());
            let new = old & 0xffff | u32::from(u16::from_be(checksum)) << 16;
            self.set::<{ tcp::CHECKSUM }>(new.to_be(), &mut all);
        }
        let quoted = Sum::added(addresses.folded(), segment.folded());
        // ICMPv4 has no pseudo-header (RFC 792), ICMPv6 has (RFC 4443, section 2.3).
        let pseudo = if self.is_v6() { pseudo } else { 0 };
        Change { addresses: pseudo, segment: Sum::added(quoted, all.folded()) }
    }
}

/// Whether a sequence number lies in what is under way: sent, and not acknowledged. A stranger who
/// does not see the session can't quote one (RFC 5927, section 4.1).
#[must_use]
#[inline(always)]
pub const fn is_under_way(seq: u32, acked: u32, sent: u32) -> bool {
    !after(acked, seq) && after(sent, seq)
}
