//! The fixed headers of a segment: IPv4 without options or IPv6 without extensions, and TCP.
//! Of a train of IPv6 segments that is too long for the length field, Linux before 7 writes the
//! true length into an extension, and takes it away when it cuts the train (`hop_jumbo_hdr`).

use super::{Change, Flow, FlowKey, Sum};

/// Words of 32 bits in the buffer: the TCP header begins at 10, the IP header before it.
pub const HEADERS: usize = 15;
/// Where an IPv4 header begins in the buffer; an IPv6 header begins at 0.
pub const V4_AT: usize = 5;
/// Where the TCP header begins in the buffer.
pub const TCP_AT: usize = 10;

/// Bytes of an IPv4 header.
pub const V4_LENGTH: u32 = 20;
/// Bytes of an IPv6 header.
pub const V6_LENGTH: u32 = 40;
/// Bytes of the extension that has the length of a train.
pub const JUMBO: u32 = 8;

/// Words of an IPv6 header, counted from 0.
pub(super) mod v6 {
    /// Payload length, next header, hop limit.
    pub const LENGTH: usize = 1;
    pub const SOURCE: usize = 2;
    pub const DESTINATION: usize = 6;
}

/// Words of an IPv4 header, counted from 0.
pub(super) mod v4 {
    /// Version, header length, type of service, total length.
    pub const LENGTH: usize = super::V4_AT;
    /// Identification, flags, fragment offset.
    pub const FRAGMENT: usize = super::V4_AT + 1;
    /// Time to live, protocol, checksum.
    pub const TTL: usize = super::V4_AT + 2;
    pub const SOURCE: usize = super::V4_AT + 3;
    pub const DESTINATION: usize = super::V4_AT + 4;
}

/// Words of a TCP header, counted from 0.
pub(super) mod tcp {
    pub const PORTS: usize = 10;
    pub const SEQ: usize = 11;
    pub const ACK: usize = 12;
    /// Header length, flags, window.
    pub const FLAGS: usize = 13;
    /// Checksum, urgent pointer.
    pub const CHECKSUM: usize = 14;
}

/// TCP flag.
pub const FIN: u8 = 1;
/// TCP flag.
pub const SYN: u8 = 2;
/// TCP flag.
pub const RST: u8 = 4;
/// TCP flag.
pub const ACK: u8 = 16;

pub(super) const TCP: u32 = 6;
/// What a packet that we send begins its way with.
const TTL: u32 = 64;
/// More fragments, or a fragment offset.
pub(super) const FRAGMENTED: u32 = 0x3fff;

/// What a segment says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number of its first byte.
    pub seq: u32,
    /// Acknowledgement number; counts with [`ACK`].
    pub ack: u32,
    /// Bytes of payload.
    pub payload: u32,
    /// TCP flags.
    pub flags: u8,
    /// Bytes of options behind the TCP header.
    pub options: u8,
    /// The window field.
    pub window: u16,
}

impl Segment {
    /// Whether a flag is set.
    #[must_use]
    #[inline(always)]
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// What it acknowledges, without its bytes and its end.
    #[must_use]
    #[inline(always)]
    pub const fn bare(&self) -> Self {
        Self { payload: 0, flags: self.flags & ACK, ..*self }
    }

    /// Sequence numbers that it takes.
    #[must_use]
    #[inline(always)]
    pub const fn length(&self) -> u32 {
        self.payload + self.has(FIN) as u32 + self.has(SYN) as u32
    }
}

/// The headers of a packet, to be read and changed: words in network order, as they lie in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Headers {
    /// The IP header, up to [`TCP_AT`], and the TCP header behind it.
    pub words: [u32; HEADERS],
    /// How long the IP header is, in bytes: 20 for IPv4, 40 for IPv6, 48 with the true length of
    /// a train behind it.
    pub ip_length: u32,
}

impl Headers {
    /// Whether the IP header is an IPv6 one.
    #[must_use]
    #[inline(always)]
    pub const fn is_v6(&self) -> bool {
        self.ip_length != V4_LENGTH
    }

    /// Whether what stands in the place of the TCP header says how long a train is: the TCP
    /// header comes [`JUMBO`] bytes later (RFC 2675, section 2). `whole` is the length of the
    /// packet from its IPv6 header on.
    #[must_use]
    #[inline(always)]
    pub const fn is_jumbo(&self, whole: u32) -> bool {
        /// TCP comes next; one unit of 8 bytes; the option "jumbo payload", 4 bytes long.
        const OPTION: u32 = 0x0600_c204;
        /// No payload length, and options for every hop come next.
        const HOP_BY_HOP: u32 = 0;
        self.host::<{ v6::LENGTH }>() >> 8 == HOP_BY_HOP
            && self.host::<{ tcp::PORTS }>() == OPTION
            && self.host::<{ tcp::SEQ }>() == whole.wrapping_sub(V6_LENGTH)
            && whole > 0xffff
    }

    #[inline(always)]
    pub(super) const fn host<const AT: usize>(&self) -> u32 {
        u32::from_be(self.words[AT])
    }

    #[inline(always)]
    const fn address<const AT: usize>(&self) -> [u32; 4] {
        [self.words[AT], self.words[AT + 1], self.words[AT + 2], self.words[AT + 3]]
    }

    /// Puts a word there; notes what the sum changes by.
    #[inline(always)]
    pub(super) fn set<const AT: usize>(&mut self, word: u32, sum: &mut Sum) {
        sum.word(self.words[AT], word);
        self.words[AT] = word;
    }

    #[inline(always)]
    pub(super) fn set_address<const AT: usize>(&mut self, address: &[u32; 4], sum: &mut Sum) {
        let mut at = 0;
        while at < 4 {
            sum.word(self.words[AT + at], address[at]);
            self.words[AT + at] = address[at];
            at += 1;
        }
    }

    /// Who sends to whom.
    #[must_use]
    #[inline(always)]
    pub fn key(&self) -> FlowKey {
        let (source, destination) = if self.is_v6() {
            (self.address::<{ v6::SOURCE }>(), self.address::<{ v6::DESTINATION }>())
        } else {
            (mapped(self.words[v4::SOURCE]), mapped(self.words[v4::DESTINATION]))
        };
        FlowKey { source, destination, ports: self.words[tcp::PORTS] }
    }

    /// What the segment says; `None` when it is not one that can be translated: a fragment, IP
    /// options, an extension header, another protocol, lengths that contradict each other.
    /// `whole` is the length of the packet from its IP header on.
    #[must_use]
    #[inline(always)]
    pub fn segment(&self, whole: u32) -> Option<Segment> {
        let said = if self.is_v6() {
            // What comes behind the extension was looked at before.
            let is_tcp = self.host::<{ v6::LENGTH }>() >> 8 & 0xff == TCP;
            if self.host::<0>() >> 28 != 6 || !is_tcp && self.ip_length == V6_LENGTH {
                return None;
            }
            match self.host::<{ v6::LENGTH }>() >> 16 {
                0 => 0,
                payload => payload + V6_LENGTH,
            }
        } else {
            let complete = self.host::<{ v4::FRAGMENT }>() & FRAGMENTED == 0;
            let is_tcp = self.host::<{ v4::TTL }>() >> 16 & 0xff == TCP;
            if self.host::<{ v4::LENGTH }>() >> 24 != 0x45 || !is_tcp || !complete {
                return None;
            }
            self.host::<{ v4::LENGTH }>() & 0xffff
        };
        // A train of segments that is too long for the length field has 0 in it (`iph_set_totlen`).
        let said = if said == 0 && whole > 0xffff { whole } else { said };
        // A stack drops what is cut off, and would never acknowledge it; behind it may be padding.
        if said > whole {
            return None;
        }
        let length = said.checked_sub(self.ip_length)?;
        let flags = self.host::<{ tcp::FLAGS }>();
        let header = (flags >> 28) * 4;
        if header < 20 {
            return None;
        }
        Some(Segment {
            seq: self.host::<{ tcp::SEQ }>(),
            ack: self.host::<{ tcp::ACK }>(),
            payload: length.checked_sub(header)?,
            flags: (flags >> 16) as u8,
            options: (header - 20) as u8,
            window: flags as u16,
        })
    }

    /// Makes the headers those that T is to see. The TCP checksum is left as it is: it changes by
    /// what is returned. The IP header's own checksum is put right.
    #[inline(always)]
    pub fn translate(&mut self, flow: &Flow, segment: &Segment) -> Change {
        let addresses = self.readdress(flow);
        let mut sum = Sum::default();
        self.set::<{ tcp::PORTS }>(flow.ports, &mut sum);
        self.set::<{ tcp::SEQ }>(segment.seq.wrapping_add(flow.seq_add).to_be(), &mut sum);
        if segment.has(ACK) {
            self.set::<{ tcp::ACK }>(segment.ack.wrapping_add(flow.ack_add).to_be(), &mut sum);
        }
        // The window of a SYN is never scaled (RFC 7323, section 2.2).
        if !segment.has(SYN) {
            let window = u32::from(flow.window(segment.window));
            let flags = self.host::<{ tcp::FLAGS }>() & !0xffff | window;
            self.set::<{ tcp::FLAGS }>(flags.to_be(), &mut sum);
        }
        Change { addresses, segment: sum.folded() }
    }

    /// Puts the addresses there that T is to see, and a fresh time to live; what the addresses
    /// change a sum by. The IP header's own checksum is put right.
    #[inline(always)]
    pub(super) fn readdress(&mut self, flow: &Flow) -> u32 {
        let mut addresses = Sum::default();
        if self.is_v6() {
            self.set_address::<{ v6::SOURCE }>(&flow.source, &mut addresses);
            self.set_address::<{ v6::DESTINATION }>(&flow.destination, &mut addresses);
            let length = self.host::<{ v6::LENGTH }>() & !0xff | TTL;
            self.words[v6::LENGTH] = length.to_be();
        } else {
            self.set::<{ v4::SOURCE }>(flow.source[3], &mut addresses);
            self.set::<{ v4::DESTINATION }>(flow.destination[3], &mut addresses);
            self.finish_v4(addresses);
        }
        addresses.folded()
    }

    /// A fresh time to live, and the header's checksum.
    #[inline(always)]
    fn finish_v4(&mut self, addresses: Sum) {
        let old = self.host::<{ v4::TTL }>();
        let new = old & 0x00ff_ffff | TTL << 24;
        let mut header = addresses;
        header.word(old.to_be(), new.to_be());
        let checksum = header.applied_to((old as u16).to_be());
        self.words[v4::TTL] = (new & !0xffff | u32::from(u16::from_be(checksum))).to_be();
    }
}

impl Flow {
    /// The window field that says to T what `window` says of S; less than that, where it can't
    /// be said.
    #[must_use]
    #[inline(always)]
    pub fn window(&self, window: u16) -> u16 {
        let told = (u32::from(window) << (self.scale & 15)) >> (self.told_scale & 15);
        if told > 0xffff { 0xffff } else { told as u16 }
    }
}

/// An IPv4 address as an IPv6 one (RFC 4291, section 2.5.5.2).
#[must_use]
#[inline(always)]
pub const fn mapped(v4: u32) -> [u32; 4] {
    [0, 0, 0xffff_u32.to_be(), v4]
}
