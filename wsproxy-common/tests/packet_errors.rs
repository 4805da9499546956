//! ICMP errors about translated packets: what the router quotes becomes what S has sent, and
//! nothing of anybody else's is touched.

mod packets;

use packets::{Leg, Spec, flows, fold, ip_length, sum, words};
use proptest::prelude::*;
use wsproxy_common::packet::{
    Flow, FlowKey, Headers, is_under_way,
    whole::{Checksum, quotation, translate, translate_error},
};

const ACK: u8 = 16;
const FIN: u8 = 1;

/// An ICMP error as a router writes it: kind and code, the four bytes behind the checksum, and the
/// beginning of a packet.
#[derive(Clone, Debug)]
struct Message {
    router: [u8; 16],
    kind: (u8, u8),
    rest: [u8; 4],
    ttl: u8,
}

impl Message {
    /// To whom has sent `quoted`.
    fn about(&self, quoted: &[u8]) -> Vec<u8> {
        let v6 = quoted[0] >> 4 == 6;
        let mut message = if v6 {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend((8 + quoted.len() as u16).to_be_bytes());
            header.extend([58, self.ttl]);
            header.extend(self.router);
            header.extend(&quoted[8..24]);
            header
        } else {
            let mut header = vec![0x45, 0xc0];
            header.extend((28 + quoted.len() as u16).to_be_bytes());
            header.extend([0, 1, 0, 0, self.ttl, 1, 0, 0]);
            header.extend(&self.router[12..]);
            header.extend(&quoted[12..16]);
            let checksum = !fold(sum(&header));
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            header
        };
        let at = message.len();
        message.extend([self.kind.0, self.kind.1, 0, 0]);
        message.extend(self.rest);
        message.extend(quoted);
        let checksum = !covered(&message);
        message[at + 2..at + 4].copy_from_slice(&checksum.to_be_bytes());
        message
    }
}

/// All that the ICMP checksum covers, itself included: 0xffff when it is right (RFC 792; RFC 4443,
/// section 2.3).
fn covered(message: &[u8]) -> u16 {
    let at = ip_length(message);
    let pseudo = if at == 40 { sum(&message[8..40]) + 58 + (message.len() - 40) as u64 } else { 0 };
    fold(pseudo + sum(&message[at..]))
}

/// The sum over a quoted segment that is all there, as its receiver would make it.
fn whole_segment(packet: &[u8]) -> u16 {
    fold(u64::from(packets::pseudo_sum(packet)) + sum(&packet[ip_length(packet)..]))
}

fn spec() -> impl Strategy<Value = Spec> {
    let payload = prop::collection::vec(any::<u8>(), 0..40);
    let flags = prop_oneof![4 => Just(ACK), 1 => Just(ACK | FIN), 1 => any::<u8>()];
    let ends = (any::<bool>(), any::<[[u8; 16]; 2]>(), any::<[u16; 2]>());
    let other = (any::<u8>(), any::<u8>(), any::<u32>(), 0usize..4);
    (ends, any::<(u32, u32, u16)>(), flags, payload, other).prop_map(
        |((v6, [source, destination], ports), numbers, flags, payload, other)| Spec {
            v6,
            source,
            destination,
            ports,
            seq: numbers.0,
            ack: numbers.1,
            flags,
            window: numbers.2,
            urgent: 0,
            options: vec![1; 4 * other.3],
            payload,
            service: other.0,
            ttl: other.1,
            label: other.2,
            partial: false,
        },
    )
}

fn leg() -> impl Strategy<Value = Leg> {
    let ends = any::<([u8; 16], [u8; 16], u16, u16)>();
    (ends, any::<[u32; 4]>(), 0u8..15).prop_map(|(ends, numbers, scale)| Leg {
        peer: ends.0,
        local: ends.1,
        peer_port: ends.2,
        local_port: ends.3,
        snd_seq: numbers[0],
        rcv_seq: numbers[1],
        clock: numbers[2],
        value: numbers[3],
        scales: (scale, scale),
    })
}

fn message(v6: bool) -> impl Strategy<Value = Message> {
    let kind = if v6 {
        prop_oneof![Just((2, 0)), (0u8..8).prop_map(|code| (1, code))].boxed()
    } else {
        (0u8..16).prop_map(|code| (3, code)).boxed()
    };
    (any::<[u8; 16]>(), kind, any::<[u8; 4]>(), 1u8..)
        .prop_map(|(router, kind, rest, ttl)| Message { router, kind, rest, ttl })
}

/// A packet that S sends, both sides, a message, and how much of the packet is quoted.
fn case() -> impl Strategy<Value = (Spec, [Leg; 2], Message, usize)> {
    (spec(), [leg(), leg()]).prop_flat_map(|(mut spec, mut legs)| {
        // The window is not told back, so it has to be the same on both sides.
        legs[1].scales = legs[0].scales;
        spec.source = legs[0].peer;
        spec.destination = legs[0].local;
        spec.ports = [legs[0].peer_port, legs[0].local_port];
        let (ip, all) = (if spec.v6 { 40 } else { 20 }, spec.bytes().len());
        let quoted = prop_oneof![Just(ip + 8), Just(all), ip + 8..=all];
        (Just(spec.clone()), Just(legs), message(spec.v6), quoted)
    })
}

/// Without what a message about a packet need not tell back: time to live, the header's checksum,
/// the quoted TCP checksum, and a TCP header that is not all there but for ports and number.
fn comparable(mut quoted: Vec<u8>) -> Vec<u8> {
    let at = ip_length(&quoted);
    if quoted.len() < at + 20 {
        quoted.truncate(at + 8);
    }
    if at == 40 {
        quoted[7] = 0;
    } else {
        quoted[8] = 0;
        quoted[10..12].fill(0);
    }
    if let Some(field) = quoted.get_mut(at + 16..at + 18) {
        field.fill(0);
    }
    quoted
}

fn key_of(message: &[u8]) -> Option<FlowKey> {
    let (outer, quoted, _) = quotation(message)?;
    quoted.quoted_key(&outer)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn there_and_back_is_what_was_sent((spec, legs, message, quoted) in case()) {
        let [there, back] = flows(&legs, spec.v6);
        let packet = spec.bytes();
        let mut out = packet.clone();
        translate(&mut out, &there, Checksum::Complete).unwrap();
        let told = message.about(&out[..quoted]);
        prop_assert_eq!(covered(&told), 0xffff, "the message was right");
        let mut error = told.clone();
        prop_assert!(translate_error(&mut error, &back).is_some());
        let ip = ip_length(&told);

        // It came as a message to T's connection, and goes to S as one about what S has sent.
        prop_assert_eq!(key_of(&told), Some(FlowKey {
            source: there.destination,
            destination: there.source,
            ports: there.ports.rotate_left(16),
        }));
        prop_assert_eq!(key_of(&error), Some(FlowKey {
            source: back.source,
            destination: back.destination,
            ports: back.ports,
        }));
        let inside = ip + 8;
        prop_assert_eq!(
            comparable(error[inside..].to_vec()),
            comparable(packet[..quoted].to_vec())
        );
        // Type, code and MTU stay.
        prop_assert_eq!(&error[ip..ip + 2], &told[ip..ip + 2]);
        prop_assert_eq!(&error[ip + 4..ip + 8], &told[ip + 4..ip + 8]);
        prop_assert_eq!(error[if spec.v6 { 7 } else { 8 }], 64, "a fresh time to live");
        // All checksums are right, whatever was quoted.
        prop_assert_eq!(covered(&error), 0xffff);
        prop_assert!(packets::header_is_right(&error));
        prop_assert!(packets::header_is_right(&error[inside..]));
        if quoted == packet.len() {
            prop_assert_eq!(whole_segment(&error[inside..]), 0xffff);
        }
    }

    #[test]
    fn the_sequence_number_is_the_senders((spec, legs, message, quoted) in case()) {
        let [there, back] = flows(&legs, spec.v6);
        let mut out = spec.bytes();
        translate(&mut out, &there, Checksum::Complete).unwrap();
        let (_, headers, _) = quotation(&message.about(&out[..quoted])).unwrap();
        prop_assert_eq!(headers.quoted_seq(&back), spec.seq);
    }

    /// A wrong checksum stays wrong: the endpoint drops it, as it would without us.
    #[test]
    fn what_was_wrong_stays_wrong((spec, legs, message, quoted) in case(), by in 1u16..0xffff) {
        let [there, back] = flows(&legs, spec.v6);
        let mut out = spec.bytes();
        translate(&mut out, &there, Checksum::Complete).unwrap();
        let mut told = message.about(&out[..quoted]);
        let at = ip_length(&told) + 2;
        let field = u16::from_be_bytes([told[at], told[at + 1]]);
        told[at..at + 2].copy_from_slice(&field.wrapping_add(by).to_be_bytes());
        let before = covered(&told) % 0xffff;
        translate_error(&mut told, &back).unwrap();
        prop_assert_eq!(covered(&told) % 0xffff, before);
    }

    #[test]
    fn whatever_bytes_come_nothing_else_is_touched(
        mut bytes in prop::collection::vec(any::<u8>(), 0..140),
        v6: bool,
        spoil in prop::option::weighted(0.5, (0usize..60, any::<u8>())),
        legs in [leg(), leg()],
    ) {
        // Near enough to a message that it is one now and then.
        let ip = if v6 { 40 } else { 20 };
        if bytes.len() > 2 * ip + 8 {
            let length = bytes.len() as u16;
            for (at, length) in [(0, length), (ip + 8, 1500)] {
                let here = &mut bytes[at..];
                here[0] = if v6 { 0x60 } else { 0x45 };
                let field = if v6 { 4 } else { 2 };
                let length = if v6 { length - 40 } else { length };
                here[field..field + 2].copy_from_slice(&length.to_be_bytes());
                here[6..8].fill(0);
                here[if v6 { 6 } else { 9 }] = if at != 0 { 6 } else if v6 { 58 } else { 1 };
            }
            bytes[ip] = if v6 { 2 } else { 3 };
            let (to, from) = if v6 { (24..40, 56) } else { (16..20, 40) };
            bytes.copy_within(to, from);
        }
        if let Some((at, byte)) = spoil
            && let Some(spoiled) = bytes.get_mut(at)
        {
            *spoiled = byte;
        }
        let flow = flows(&legs, v6)[1];
        let mut new = bytes.clone();
        if translate_error(&mut new, &flow).is_none() {
            prop_assert_eq!(new, bytes);
        } else {
            prop_assert_eq!(new.len(), bytes.len());
            let ip = ip_length(&bytes);
            prop_assert_eq!(&new[ip..ip + 2], &bytes[ip..ip + 2]);
            prop_assert_eq!(&new[ip + 4..ip + 8], &bytes[ip + 4..ip + 8]);
            // Behind the fixed TCP header nothing is.
            let behind = bytes.len().min(2 * ip + 28);
            prop_assert_eq!(&new[behind..], &bytes[behind..]);
            prop_assert_eq!(covered(&new) % 0xffff, covered(&bytes) % 0xffff);
        }
    }

    /// RFC 5927, section 4.1: sent, and not acknowledged.
    #[test]
    fn only_what_is_under_way_counts(acked: u32, under_way in 0u32..1 << 30, ahead: u32) {
        let sent = acked.wrapping_add(under_way);
        let seq = acked.wrapping_add(ahead);
        prop_assert!(!is_under_way(sent, acked, sent));
        prop_assert!(!is_under_way(acked.wrapping_sub(1), acked, sent));
        prop_assert_eq!(is_under_way(acked, acked, sent), under_way > 0);
        // Numbers further away than half of all there are compare as they like.
        if ahead < 1 << 31 {
            prop_assert_eq!(is_under_way(seq, acked, sent), ahead < under_way);
        }
    }
}

fn plain(v6: bool) -> (Spec, [Leg; 2]) {
    let leg = |n: u8| Leg {
        peer: [n; 16],
        local: [n + 1; 16],
        peer_port: 1000,
        local_port: 80,
        snd_seq: 1 << n,
        rcv_seq: 7,
        clock: 0,
        value: 0,
        scales: (7, 7),
    };
    let legs = [leg(1), leg(3)];
    let spec = Spec { source: legs[0].peer, destination: legs[0].local, ..packets::plain(v6, 30) };
    (spec, legs)
}

/// A message about a translated packet, and the flow that makes it one for S.
fn told(v6: bool) -> (Vec<u8>, Flow) {
    let (spec, legs) = plain(v6);
    let [there, back] = flows(&legs, v6);
    let mut out = spec.bytes();
    translate(&mut out, &there, Checksum::Complete).unwrap();
    let kind = if v6 { (2, 0) } else { (3, 4) };
    let message = Message { router: [9; 16], kind, rest: [0, 0, 5, 0], ttl: 60 };
    (message.about(&out), back)
}

#[test]
fn other_messages_are_nothing_for_us() {
    for v6 in [false, true] {
        let (message, back) = told(v6);
        let (ip, inside) = (ip_length(&message), ip_length(&message) + 8);
        assert!(translate_error(&mut message.clone(), &back).is_some());
        let mut spoiled: Vec<(usize, u8)> = [0, 4, 5, 8, 11, 12, 128, 129].map(|k| (ip, k)).into();
        spoiled.push((ip, if v6 { 3 } else { 1 }));
        // Of another protocol, about another protocol, about a packet that somebody else sent.
        let (protocol, source) = if v6 { (6, 8) } else { (9, 12) };
        spoiled.extend([(protocol, 17), (inside + protocol, 17), (inside + source, 99)]);
        if !v6 {
            // IP options, fragments, and what is behind a fragment's offset.
            spoiled.extend([(0, 0x46), (6, 0x20), (7, 1), (inside, 0x46), (inside + 7, 1)]);
        }
        for (at, byte) in spoiled {
            let mut other = message.clone();
            other[at] = byte;
            let before = other.clone();
            assert_eq!(translate_error(&mut other, &back), None, "{v6}: byte {at} is {byte}");
            assert_eq!(other, before, "left alone");
        }
    }
}

#[test]
fn eight_bytes_of_tcp_will_do_and_fewer_will_not() {
    for v6 in [false, true] {
        let (message, back) = told(v6);
        let ip = ip_length(&message);
        for tcp in [0, 7, 8, 9, 19, 20, 21] {
            let mut short = message[..2 * ip + 8 + tcp].to_vec();
            let field = if v6 { 4 } else { 2 };
            let length = short.len() as u16 - if v6 { 40 } else { 0 };
            short[field..field + 2].copy_from_slice(&length.to_be_bytes());
            let quoted = quotation(&short).map(|(_, _, bytes)| bytes);
            let expected = (tcp >= 8).then_some(if tcp >= 20 { 20 } else { 8 });
            assert_eq!(quoted, expected, "{v6}: {tcp} bytes");
            assert_eq!(translate_error(&mut short, &back).is_some(), tcp >= 8);
        }
        // Padding of the link is no quotation.
        let mut padded = message.clone();
        let field = if v6 { 4 } else { 2 };
        let length = (2 * ip + 8 + 8) as u16 - if v6 { 40 } else { 0 };
        padded[field..field + 2].copy_from_slice(&length.to_be_bytes());
        assert_eq!(quotation(&padded).map(|(_, _, bytes)| bytes), Some(8));
        // Less than the IP header says.
        assert_eq!(quotation(&message[..message.len() - 1]), None);
    }
}

#[test]
fn the_message_comes_from_the_address_that_s_knows() {
    for v6 in [false, true] {
        let (mut message, back) = told(v6);
        translate_error(&mut message, &back).unwrap();
        let (outer, _, _): (Headers, _, _) = quotation(&message).unwrap();
        let (_, legs) = plain(v6);
        assert_eq!(outer.key().source, words(&legs[0].local, v6));
        assert_eq!(outer.key().destination, words(&legs[0].peer, v6));
    }
}
