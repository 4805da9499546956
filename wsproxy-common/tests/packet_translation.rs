//! Whole packets, translated: against the reference, there and back, and whatever bytes come.

mod packets;

use packets::{
    Leg, Spec, flows, header_is_right, ip_length, plain, pseudo_sum, translated, verified,
    without_checksums,
};
use proptest::prelude::*;
use wsproxy_common::packet::{
    Flow, FlowKey,
    whole::{Checksum, headers, translate},
};

const FIN: u8 = 1;
const SYN: u8 = 2;
const ACK: u8 = 16;

/// Numbers, many of them near where they wrap or change their sign.
fn number() -> impl Strategy<Value = u32> {
    let near = |centre: u32| (0u32..64).prop_map(move |n| centre.wrapping_sub(32).wrapping_add(n));
    prop_oneof![4 => any::<u32>(), 2 => near(0), 1 => near(1 << 31)]
}

fn option() -> impl Strategy<Value = Vec<u8>> {
    let timestamps = (number(), number()).prop_map(|(value, echo)| {
        [&[8, 10][..], &value.to_be_bytes(), &echo.to_be_bytes()].concat()
    });
    let sack = prop::collection::vec(number(), 0..9).prop_map(|edges| {
        let mut option = vec![5, 2 + 4 * edges.len() as u8];
        option.extend(edges.iter().flat_map(|edge| edge.to_be_bytes()));
        option
    });
    let unknown = (2u8..255, prop::collection::vec(any::<u8>(), 0..12))
        .prop_map(|(kind, bytes)| [&[kind, 2 + bytes.len() as u8][..], &bytes].concat());
    let broken = (prop_oneof![Just(5u8), Just(8), any::<u8>()], any::<u8>())
        .prop_map(|(kind, length)| vec![kind, length]);
    prop_oneof![
        4 => Just(vec![1]),
        4 => timestamps,
        4 => sack,
        2 => unknown,
        1 => broken,
        1 => Just(vec![0]),
    ]
}

/// Options one behind the other, filled up to a whole word; some cut off.
fn options() -> impl Strategy<Value = Vec<u8>> {
    let usual = (number(), number()).prop_map(|(value, echo)| {
        [&[1, 1, 8, 10][..], &value.to_be_bytes(), &echo.to_be_bytes()].concat()
    });
    let any_of_them = (prop::collection::vec(option(), 0..6), prop_oneof![Just(0u8), any::<u8>()])
        .prop_map(|(options, filling)| {
            let mut bytes = options.concat();
            bytes.truncate(40);
            bytes.resize(bytes.len().next_multiple_of(4), filling);
            bytes
        });
    let noise = (0usize..11).prop_flat_map(|n| prop::collection::vec(any::<u8>(), 4 * n));
    prop_oneof![2 => usual, 4 => any_of_them, 1 => noise]
}

fn spec() -> impl Strategy<Value = Spec> {
    let payload = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..40),
        // Around where the length field has no room.
        1 => (65_400usize..65_700).prop_map(|length| vec![0x5A; length]),
    ];
    let flags = prop_oneof![4 => Just(ACK), 1 => Just(ACK | FIN), 1 => Just(SYN), 2 => any::<u8>()];
    let ends = (any::<bool>(), any::<[[u8; 16]; 2]>(), any::<[u16; 2]>());
    let numbers = (number(), number(), flags, any::<u16>(), any::<u16>());
    let other = (any::<u8>(), any::<u8>(), any::<u32>(), any::<bool>());
    (ends, numbers, options(), payload, other).prop_map(
        |((v6, [source, destination], ports), numbers, options, payload, other)| Spec {
            v6,
            source,
            destination,
            ports,
            seq: numbers.0,
            ack: numbers.1,
            flags: numbers.2,
            window: numbers.3,
            urgent: numbers.4,
            options,
            payload,
            service: other.0,
            ttl: other.1,
            label: other.2,
            partial: other.3,
        },
    )
}

fn leg() -> impl Strategy<Value = Leg> {
    let ends = (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<u16>(), any::<u16>());
    let numbers = (number(), number(), number(), number());
    (ends, numbers, (0u8..15, 0u8..15)).prop_map(|(ends, numbers, scales)| Leg {
        peer: ends.0,
        local: ends.1,
        peer_port: ends.2,
        local_port: ends.3,
        snd_seq: numbers.0,
        rcv_seq: numbers.1,
        clock: numbers.2,
        value: numbers.3,
        scales,
    })
}

fn checksum(spec: &Spec) -> Checksum {
    if spec.partial { Checksum::Partial } else { Checksum::Complete }
}

/// The packet, translated; it must be one that can be.
fn there(spec: &Spec, packet: &[u8], flow: &Flow) -> Vec<u8> {
    let mut new = packet.to_vec();
    assert!(translate(&mut new, flow, checksum(spec)).is_some(), "{spec:?}");
    new
}

/// The answer to a packet: everything the other way round.
fn answer(packet: &[u8]) -> Vec<u8> {
    let mut new = packet.to_vec();
    let at = ip_length(packet);
    let half = if at == 40 { 16 } else { 4 };
    let addresses = at - 2 * half;
    new[addresses..at].rotate_left(half);
    new[at..at + 4].rotate_left(2);
    new[at + 4..at + 12].rotate_left(4);
    if packet[at + 20..].starts_with(&[1, 1, 8, 10]) && packet[at + 12] >> 4 == 8 {
        new[at + 24..at + 32].rotate_left(4);
    }
    new
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_translation_is_the_references(spec in spec(), legs in [leg(), leg()]) {
        let packet = spec.bytes();
        let flow = flows(&legs, spec.v6)[0];
        let new = there(&spec, &packet, &flow);
        prop_assert_eq!(
            without_checksums(new.clone()),
            without_checksums(translated(&packet, &flow))
        );
        prop_assert!(header_is_right(&new));
        if spec.partial {
            let at = ip_length(&new);
            let field = u16::from_be_bytes([new[at + 16], new[at + 17]]);
            // Both are zero in ones' complement.
            prop_assert_eq!(field % 0xffff, pseudo_sum(&new) % 0xffff);
        } else {
            prop_assert_eq!(verified(&new), 0xffff);
        }
    }

    #[test]
    fn an_answer_comes_back_to_whom_it_answers(mut spec in spec(), legs in [leg(), leg()]) {
        let client = &legs[0];
        spec.source = client.peer;
        spec.destination = client.local;
        spec.ports = [client.peer_port, client.local_port];
        spec.flags |= ACK;
        spec.ttl = 64;
        let packet = spec.bytes();
        let [there_flow, back_flow] = flows(&legs, spec.v6);
        let out = there(&spec, &packet, &there_flow);
        let back = there(&spec, &answer(&out), &back_flow);
        let same = |mut packet: Vec<u8>| {
            let at = ip_length(&packet);
            let words = usize::from(packet[at + 12] >> 4);
            // The window is no part of it: it is scaled by another pair of scales.
            packet[at + 14..at + 16].fill(0);
            // Blocks of SACK are in the numbers of whom they are sent to.
            if !packet[at + 20..].starts_with(&[1, 1, 8, 10]) || words != 8 {
                packet[at + 20..at + words * 4].fill(0);
            }
            without_checksums(packet)
        };
        prop_assert_eq!(same(answer(&back)), same(packet));
        // It arrives as a packet of the session's other direction.
        let key = headers(&answer(&out)).unwrap().key();
        prop_assert_eq!(key, FlowKey {
            source: there_flow.destination,
            destination: there_flow.source,
            ports: there_flow.ports.rotate_left(16),
        });
    }

    #[test]
    fn what_t_acknowledges_is_what_s_sent(mut spec in spec(), legs in [leg(), leg()], holes in 0u32..4) {
        spec.options = [&[1, 1, 8, 10][..], &spec.seq.rotate_left(7).to_be_bytes(), &[0; 4]].concat();
        spec.flags = ACK;
        let packet = spec.bytes();
        let [there_flow, back_flow] = flows(&legs, spec.v6);
        let out = there(&spec, &packet, &there_flow);
        let at = ip_length(&out);
        // T says that it has this packet, behind a hole.
        let first = be32(&out[at + 4..]);
        let behind = first.wrapping_add(spec.payload.len() as u32);
        let mut reply = Spec { seq: be32(&out[at + 8..]), ack: first.wrapping_sub(holes), ..spec.clone() };
        reply.options = [
            &[1, 1, 8, 10][..], &[0; 4], &out[at + 24..at + 28],
            &[1, 1, 5, 10], &first.to_be_bytes(), &behind.to_be_bytes(),
        ].concat();
        let reply = there(&spec, &reply.bytes(), &back_flow);
        let tcp = &reply[at..];
        prop_assert_eq!(be32(&tcp[4..]), spec.ack, "sequence number: what S waits for");
        prop_assert_eq!(be32(&tcp[8..]), spec.seq.wrapping_sub(holes));
        prop_assert_eq!(&tcp[28..32], &packet[at + 24..at + 28], "TSecr: the TSval of S");
        prop_assert_eq!(be32(&tcp[36..]), spec.seq);
        prop_assert_eq!(be32(&tcp[40..]), spec.seq.wrapping_add(spec.payload.len() as u32));
    }

    #[test]
    fn a_window_is_never_told_larger_than_it_is(window: u16, scale in 0u8..15, told_scale in 0u8..15) {
        let flow = Flow { scale, told_scale, ..Flow::default() };
        let real = u64::from(window) << scale;
        let told = u64::from(flow.window(window)) << told_scale;
        prop_assert!(told <= real);
        // Less only by what the field can't say.
        prop_assert!(real - told < 1 << told_scale || flow.window(window) == 0xffff);
        if scale == told_scale {
            prop_assert_eq!(flow.window(window), window);
        }
    }

    #[test]
    fn whatever_bytes_come_lengths_stay_and_nothing_panics(
        mut bytes in prop::collection::vec(any::<u8>(), 0..140),
        first in prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()],
        length in prop_oneof![1 => any::<u16>(), 3 => 0u16..160],
        legs in [leg(), leg()],
    ) {
        if let Some(byte) = bytes.first_mut() {
            *byte = first;
        }
        let is_v6 = first >> 4 == 6;
        let at = if is_v6 { 4 } else { 2 };
        if bytes.len() >= 12 {
            bytes[at..at + 2].copy_from_slice(&length.to_be_bytes());
            bytes[if is_v6 { 6 } else { 9 }] = 6;
            if !is_v6 {
                bytes[6..8].fill(0);
            }
        }
        let mut new = bytes.clone();
        let flow = flows(&legs, is_v6)[0];
        match translate(&mut new, &flow, Checksum::Complete) {
            None => prop_assert_eq!(new, bytes, "left alone"),
            Some(segment) => {
                let ip = ip_length(&bytes);
                let said = usize::from(length) + if is_v6 { 40 } else { 0 };
                prop_assert_eq!(
                    ip + 20 + usize::from(segment.options) + segment.payload as usize,
                    said
                );
                prop_assert!(said <= bytes.len(), "bytes that are not there");
                prop_assert_eq!(
                    without_checksums(new.clone()),
                    without_checksums(translated(&bytes, &flow))
                );
                // What was wrong stays wrong, and by as much.
                prop_assert_eq!(verified(&new) % 0xffff, verified(&bytes) % 0xffff);
            }
        }
    }
}

fn payload(packet: &[u8]) -> Option<u32> {
    let segment = headers(packet)?.segment(packet.len() as u32)?;
    Some(segment.payload)
}

#[test]
fn trains_longer_than_the_length_field_and_only_they_have_none() {
    for v6 in [false, true] {
        let at = if v6 { 4 } else { 2 };
        for length in [0, 1, 65_475, 65_495, 65_496, 65_516, 200_000] {
            assert_eq!(payload(&plain(v6, length).bytes()), Some(length as u32), "{v6} {length}");
        }
        let mut short = plain(v6, 10).bytes();
        short[at..at + 2].fill(0);
        assert_eq!(payload(&short), None, "no length, but room for it");
    }
}

/// The same IPv6 train as Linux before 7 writes it: with its length in an extension (RFC 2675).
fn with_its_length(packet: &[u8]) -> Vec<u8> {
    let length = u32::try_from(packet.len() - 40).unwrap();
    let option = [&[6, 0, 0xc2, 4][..], &length.to_be_bytes()].concat();
    let mut packet = [&packet[..40], &option, &packet[40..]].concat();
    // The option counts too, but the segment is as long as it was.
    let length = u32::try_from(packet.len() - 40).unwrap();
    packet[44..48].copy_from_slice(&length.to_be_bytes());
    packet[6] = 0;
    packet
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_train_with_its_length_in_an_extension_is_translated_as_one_without(
        mut spec in spec(), legs in [leg(), leg()], length in 65_516usize..140_000,
    ) {
        spec.v6 = true;
        spec.payload.resize(length, 0xA5);
        let packet = spec.bytes();
        let flow = flows(&legs, true)[0];
        let train = with_its_length(&packet);
        prop_assert_eq!(payload(&train), payload(&packet));
        prop_assert_eq!(headers(&train).unwrap().key(), headers(&packet).unwrap().key());
        let expected = with_its_length(&there(&spec, &packet, &flow));
        prop_assert!(there(&spec, &train, &flow) == expected);
    }
}

#[test]
fn other_extensions_are_nothing_for_us() {
    let train = with_its_length(&plain(true, 70_000).bytes());
    assert_eq!(payload(&train), Some(70_000));
    for (at, byte) in [(4, 1), (6, 43), (40, 17), (41, 1), (42, 5), (43, 6), (44, 1), (47, 1)] {
        let mut other = train.clone();
        assert_ne!(other[at], byte);
        other[at] = byte;
        assert_eq!(payload(&other), None, "byte {at}");
    }
    let short = with_its_length(&plain(true, 100).bytes());
    assert_eq!(payload(&short), None, "it would have fitted into the field");
}

#[test]
fn lengths_that_contradict_each_other_are_nothing_for_us() {
    for v6 in [false, true] {
        let at = if v6 { 4 } else { 2 };
        let header = if v6 { 0 } else { 20 };
        let with = |length: u16| {
            let mut packet = plain(v6, 10).bytes();
            packet[at..at + 2].copy_from_slice(&(header + length).to_be_bytes());
            payload(&packet)
        };
        assert_eq!(with(30), Some(10));
        assert_eq!(with(20), Some(0), "padding of the link behind it");
        for length in [0, 1, 19] {
            assert_eq!(with(length), None, "no room for a TCP header in {length}");
        }
        assert_eq!(with(31), None, "more than there is");
        let mut packet = plain(v6, 10).bytes();
        let offset = ip_length(&packet) + 12;
        packet[offset] = 4 << 4;
        assert_eq!(payload(&packet), None, "a TCP header that is too short");
        packet[offset] = 15 << 4;
        assert_eq!(payload(&packet), None, "options that are not there");
    }
}

#[test]
fn fragments_ip_options_and_other_protocols_are_nothing_for_us() {
    let v4 = plain(false, 4).bytes();
    for (at, byte) in [(6, 0x20), (6, 0x01), (7, 1), (0, 0x46), (9, 17), (9, 0)] {
        let mut packet = v4.clone();
        packet[at] = byte;
        assert_eq!(payload(&packet), None, "byte {at} is {byte}");
    }
    // Don't fragment, and the reserved bit.
    for byte in [0x40, 0x80] {
        let mut packet = v4.clone();
        packet[6] = byte;
        assert_eq!(payload(&packet), Some(4));
    }
    let v6 = plain(true, 4).bytes();
    for next in [0, 43, 44, 60, 17] {
        let mut packet = v6.clone();
        packet[6] = next;
        assert_eq!(payload(&packet), None, "next header {next}");
    }
}
