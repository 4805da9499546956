//! Packets to be translated, and a reference for what becomes of them: it works on bytes, as
//! RFC 9293, 7323 and 2018 draw them, and shares nothing with the translation but [`Flow`].
#![allow(dead_code)] // every test file uses its own part of this

use wsproxy_common::packet::{Flow, KNOWN, mapped};

/// One packet to be written; anything may be wrong with its options.
#[derive(Clone, Debug)]
pub struct Spec {
    pub v6: bool,
    pub source: [u8; 16],
    pub destination: [u8; 16],
    pub ports: [u16; 2],
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub urgent: u16,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
    /// Type of service or traffic class, time to live or hop limit.
    pub service: u8,
    pub ttl: u8,
    /// Identification and flags, or the flow label.
    pub label: u32,
    /// Only the pseudo-header's sum stands in the checksum field.
    pub partial: bool,
}

impl Spec {
    /// The packet from its IP header on.
    pub fn bytes(&self) -> Vec<u8> {
        let length = 20 + self.options.len() + self.payload.len();
        assert!(self.options.len() <= 40 && self.options.len().is_multiple_of(4));
        let mut packet = if self.v6 { self.v6_header(length) } else { self.v4_header(length) };
        let at = packet.len();
        packet.extend(self.ports.iter().flat_map(|port| port.to_be_bytes()));
        packet.extend(self.seq.to_be_bytes());
        packet.extend(self.ack.to_be_bytes());
        packet.push(((20 + self.options.len()) as u8 / 4) << 4);
        packet.push(self.flags);
        packet.extend(self.window.to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(self.urgent.to_be_bytes());
        packet.extend(&self.options);
        packet.extend(&self.payload);
        let pseudo = pseudo_sum(&packet);
        let field =
            if self.partial { pseudo } else { !fold(u64::from(pseudo) + sum(&packet[at..])) };
        packet[at + 16..at + 18].copy_from_slice(&field.to_be_bytes());
        packet
    }

    fn v4_header(&self, length: usize) -> Vec<u8> {
        // A train of segments may be too long for the field.
        let total = u16::try_from(20 + length).unwrap_or(0);
        let mut header = vec![0x45, self.service];
        header.extend(total.to_be_bytes());
        // No fragment: neither offset nor MF.
        header.extend((self.label & 0xffff_c000).to_be_bytes());
        header.extend([self.ttl, 6, 0, 0]);
        header.extend(&self.source[12..]);
        header.extend(&self.destination[12..]);
        let checksum = !fold(sum(&header));
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header
    }

    fn v6_header(&self, length: usize) -> Vec<u8> {
        let label = 6 << 28 | u32::from(self.service) << 20 | self.label & 0xf_ffff;
        let mut header = label.to_be_bytes().to_vec();
        header.extend(u16::try_from(length).unwrap_or(0).to_be_bytes());
        header.extend([6, self.ttl]);
        header.extend(self.source);
        header.extend(self.destination);
        header
    }
}

/// A bare acknowledgement with some bytes, to have something wrong or to be quoted.
pub fn plain(v6: bool, payload: usize) -> Spec {
    Spec {
        v6,
        source: [1; 16],
        destination: [2; 16],
        ports: [1000, 80],
        seq: 5,
        ack: 7,
        flags: 16,
        window: 100,
        urgent: 0,
        options: Vec::new(),
        payload: vec![7; payload],
        service: 0,
        ttl: 3,
        label: 0,
        partial: false,
    }
}

/// The sum of 16-bit words in network order (RFC 1071).
pub fn sum(bytes: &[u8]) -> u64 {
    bytes
        .chunks(2)
        .map(|pair| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u64::from(*low)))
        .sum()
}

pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

pub fn ip_length(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 6 { 40 } else { 20 }
}

/// The folded sum of the pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1).
pub fn pseudo_sum(packet: &[u8]) -> u16 {
    let at = ip_length(packet);
    let addresses = if at == 40 { &packet[8..40] } else { &packet[12..20] };
    fold(sum(addresses) + 6 + (packet.len() - at) as u64)
}

/// All that the TCP checksum covers, itself included: 0xffff when it is right.
pub fn verified(packet: &[u8]) -> u16 {
    fold(u64::from(pseudo_sum(packet)) + sum(&packet[ip_length(packet)..]))
}

/// The IPv4 header's checksum is right; IPv6 has none.
pub fn header_is_right(packet: &[u8]) -> bool {
    packet[0] >> 4 == 6 || fold(sum(&packet[..20])) == 0xffff
}

/// The checksum fields zeroed, so that packets can be compared.
pub fn without_checksums(mut packet: Vec<u8>) -> Vec<u8> {
    let at = ip_length(&packet);
    packet[at + 16..at + 18].fill(0);
    if at == 20 {
        packet[10..12].fill(0);
    }
    packet
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn add(bytes: &mut [u8], n: u32) {
    let new = be32(bytes).wrapping_add(n);
    bytes[..4].copy_from_slice(&new.to_be_bytes());
}

fn put_words(bytes: &mut [u8], words: &[u32]) {
    for (four, word) in bytes.chunks_mut(4).zip(words) {
        four.copy_from_slice(&word.to_ne_bytes());
    }
}

/// What the packet should become; its checksums are not put right.
pub fn translated(packet: &[u8], flow: &Flow) -> Vec<u8> {
    let mut new = packet.to_vec();
    let at = ip_length(packet);
    if at == 40 {
        new[7] = 64;
        put_words(&mut new[8..24], &flow.source);
        put_words(&mut new[24..40], &flow.destination);
    } else {
        new[8] = 64;
        put_words(&mut new[12..16], &flow.source[3..]);
        put_words(&mut new[16..20], &flow.destination[3..]);
    }
    let tcp = &mut new[at..];
    let (header, flags) = (usize::from(tcp[12] >> 4) * 4, tcp[13]);
    put_words(&mut tcp[..4], &[flow.ports]);
    add(&mut tcp[4..], flow.seq_add);
    if flags & 16 != 0 {
        add(&mut tcp[8..], flow.ack_add);
    }
    if flags & 2 == 0 {
        let window = u64::from(u16::from_be_bytes([tcp[14], tcp[15]]));
        let told = (window << flow.scale >> flow.told_scale).min(0xffff) as u16;
        tcp[14..16].copy_from_slice(&told.to_be_bytes());
    }
    translate_options(&mut tcp[20..header], flow, flags & 16 != 0);
    new
}

fn translate_options(options: &mut [u8], flow: &Flow, has_ack: bool) {
    let mut rest = options;
    while let [kind, _, ..] = *rest {
        if kind == 0 {
            return;
        }
        let length = if kind == 1 { 1 } else { usize::from(rest[1]) };
        if (kind != 1 && length < 2) || length > rest.len() {
            return;
        }
        let (option, behind) = rest.split_at_mut(length);
        match kind {
            8 if length == 10 => {
                add(&mut option[2..], flow.value_add);
                if has_ack {
                    add(&mut option[6..], flow.echo_add);
                }
            }
            5 => option[2..].chunks_exact_mut(4).for_each(|edge| add(edge, flow.ack_add)),
            _ => {}
        }
        rest = behind;
    }
}

/// One connection of the gateway: the peer's address and ours, and what both sides counted when it
/// was frozen.
#[derive(Clone, Copy, Debug)]
pub struct Leg {
    pub peer: [u8; 16],
    pub local: [u8; 16],
    pub peer_port: u16,
    pub local_port: u16,
    pub snd_seq: u32,
    pub rcv_seq: u32,
    /// Our clock towards the peer; the peer's last TSval.
    pub clock: u32,
    pub value: u32,
    /// Scales of the peer, of ours.
    pub scales: (u8, u8),
}

pub fn words(address: &[u8; 16], v6: bool) -> [u32; 4] {
    let at =
        |n: usize| u32::from_ne_bytes([address[n], address[n + 1], address[n + 2], address[n + 3]]);
    if v6 { [at(0), at(4), at(8), at(12)] } else { mapped(at(12)) }
}

fn ports(source: u16, destination: u16) -> u32 {
    (u32::from(source) << 16 | u32::from(destination)).to_be()
}

/// What is done with packets of either side: the algebra of `Plan::flows`.
pub fn flows(legs: &[Leg; 2], v6: bool) -> [Flow; 2] {
    [0, 1].map(|side| {
        let (near, far) = (&legs[side], &legs[1 - side]);
        Flow {
            source: words(&far.local, v6),
            destination: words(&far.peer, v6),
            ports: ports(far.local_port, far.peer_port),
            seq_add: far.snd_seq.wrapping_sub(near.rcv_seq),
            ack_add: far.rcv_seq.wrapping_sub(near.snd_seq),
            value_add: far.clock.wrapping_sub(near.value),
            echo_add: far.value.wrapping_sub(near.clock),
            scale: near.scales.0,
            told_scale: far.scales.1,
            v6: u8::from(v6),
            sent: KNOWN | u64::from(near.rcv_seq),
            acked: KNOWN | u64::from(far.rcv_seq),
            edge: KNOWN | u64::from(far.rcv_seq.wrapping_add(65_535)),
            value: KNOWN | u64::from(near.value),
            ..Flow::default()
        }
    })
}
