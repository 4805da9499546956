//! Any bytes as a packet, any flow: no panic, what the translation does not name stays, a checksum
//! is as right as it was, and the answer comes back to what it answers. The same of the bytes as an
//! ICMP error.
//!
//! Input: 33 bytes of the flow (source and destination words, ports, the four constants, scales),
//! then the packet from its IP header on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wsproxy_common::packet::{
    Flow, KNOWN, Seen, Segment, after, observe,
    whole::{Checksum, headers, quotation, translate, translate_error},
};

const FLOW: usize = 33;

fuzz_target!(|data: &[u8]| {
    let Some((flow, packet)) = data.split_at_checked(FLOW) else { return };
    let [there, back] = flows(flow);
    check_error(packet, &back);
    for checksum in [Checksum::Complete, Checksum::Partial] {
        let mut new = packet.to_vec();
        let Some(segment) = translate(&mut new, &there, checksum) else {
            assert_eq!(new, packet, "left alone");
            continue;
        };
        check_fields(packet, &new, &segment);
        if checksum == Checksum::Complete {
            assert_eq!(sum(packet), sum(&new), "the checksum is as right as it was");
        }
        check_way_back(&new, &back, &segment, checksum);
        check_observed(&segment, &there);
    }
});

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// A flow and the one that leads back.
fn flows(bytes: &[u8]) -> [Flow; 2] {
    let words: [u32; 8] = std::array::from_fn(|n| word(bytes, 4 * n));
    let there = Flow {
        source: [words[0], 0, 0, words[0]],
        destination: [words[1], 1, 2, words[1]],
        ports: words[2],
        seq_add: words[3],
        ack_add: words[4],
        value_add: words[5],
        echo_add: words[6],
        scale: (words[7] & 15) as u8,
        told_scale: bytes[32] & 15,
        ..Flow::default()
    };
    let back = Flow {
        seq_add: there.ack_add.wrapping_neg(),
        ack_add: there.seq_add.wrapping_neg(),
        value_add: there.echo_add.wrapping_neg(),
        echo_add: there.value_add.wrapping_neg(),
        ..there
    };
    [there, back]
}

fn ip_length(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 6 { 40 } else { 20 }
}

/// The sum over the addresses and the segment, which a translation must not change.
fn sum(packet: &[u8]) -> u64 {
    let at = ip_length(packet);
    let addresses = if at == 40 { &packet[8..40] } else { &packet[12..20] };
    (words(addresses) + words(&packet[at..])) % 0xffff
}

fn words(bytes: &[u8]) -> u64 {
    let high = |pair: &[u8]| u64::from(pair[0]) << 8;
    let low = |pair: &[u8]| pair.get(1).map_or(0, |byte| u64::from(*byte));
    bytes.chunks(2).map(|pair| high(pair) + low(pair)).sum()
}

/// What no field of the translation covers is what it was.
fn check_fields(old: &[u8], new: &[u8], segment: &Segment) {
    let at = ip_length(old);
    assert_eq!(old.len(), new.len());
    if at == 40 {
        assert_eq!(old[..7], new[..7]);
    } else {
        assert_eq!((&old[..8], old[9]), (&new[..8], new[9]));
    }
    assert_eq!(old[at + 12..at + 14], new[at + 12..at + 14], "header length and flags");
    assert_eq!(old[at + 18..at + 20], new[at + 18..at + 20], "urgent pointer");
    let payload = at + 20 + usize::from(segment.options);
    assert_eq!(old[payload..], new[payload..]);
    assert!(payload + segment.payload as usize <= old.len());
    let kinds = |packet: &[u8]| lengths(&packet[at + 20..payload]);
    assert_eq!(kinds(old), kinds(new), "kinds and lengths of options");
}

/// Kinds and lengths of the options, as far as they can be read.
fn lengths(mut options: &[u8]) -> Vec<(u8, u8)> {
    let mut found = Vec::new();
    while let [kind, rest @ ..] = options {
        let length = match kind {
            0 => return found,
            1 => 1,
            _ => rest.first().copied().unwrap_or(0),
        };
        found.push((*kind, length));
        if length == 0 || usize::from(length) > options.len() {
            return found;
        }
        options = &options[usize::from(length)..];
    }
    found
}

/// The answer to what T got is, for S, the answer to what S sent.
fn check_way_back(new: &[u8], back: &Flow, sent: &Segment, checksum: Checksum) {
    let at = ip_length(new);
    let mut answer = new.to_vec();
    answer[at + 4..at + 12].rotate_left(4);
    answer[at + 13] |= 16;
    assert!(translate(&mut answer, back, checksum).is_some());
    assert_eq!(word(&answer, at + 8), sent.seq);
    if sent.has(16) {
        assert_eq!(word(&answer, at + 4), sent.ack);
    }
    let key = headers(&answer).map(|headers| headers.key());
    assert_eq!(key.map(|key| key.ports), Some(back.ports));
}

/// As an ICMP error: only what names the connection changes, and is what S has sent.
fn check_error(packet: &[u8], back: &Flow) {
    let mut new = packet.to_vec();
    if translate_error(&mut new, back).is_none() {
        assert_eq!(new, packet, "left alone");
        return;
    }
    let at = ip_length(packet);
    assert_eq!(packet.len(), new.len());
    assert_eq!(packet[at..at + 2], new[at..at + 2], "type and code");
    assert_eq!(packet[at + 4..at + 8], new[at + 4..at + 8], "the MTU");
    let behind = packet.len().min(2 * at + 28);
    assert_eq!(packet[behind..], new[behind..]);
    let covered = |packet: &[u8]| {
        let pseudo = if at == 40 { &packet[8..40] } else { &[][..] };
        (words(pseudo) + words(&packet[at..])) % 0xffff
    };
    assert_eq!(covered(packet), covered(&new), "the checksum is as right as it was");
    let (_, old, _) = quotation(packet).unwrap();
    let (_, quoted, _) = quotation(&new).unwrap();
    let key = quoted.key();
    assert_eq!((key.ports, key.destination[3]), (back.ports.rotate_left(16), back.source[3]));
    assert_eq!(quoted.quoted_seq(&Flow::default()), old.quoted_seq(back));
}

/// Whatever is known, numbers move forward only, and to what is there.
fn check_observed(segment: &Segment, flow: &Flow) {
    let known = |word: u32| KNOWN | u64::from(word);
    let seen = Seen {
        sent: known(flow.source[0]),
        acked: known(flow.destination[0]),
        edge: known(flow.destination[0].wrapping_add(flow.ports >> 16)),
        fin: 0,
        their_sent: known(flow.destination[0].wrapping_add(flow.ports >> 20)),
        their_acked: known(flow.source[0].wrapping_sub(flow.ports & 0xfff)),
        their_edge: known(flow.source[0].wrapping_add(flow.ports & 0xffff)),
        their_fin: 0,
    };
    let ack = segment.ack.wrapping_add(flow.ack_add);
    let moves = observe(&seen, segment, ack, flow.scale.min(14));
    let end = segment.seq.wrapping_add(segment.length());
    assert!(moves.sent.is_none_or(|sent| sent == end && after(sent, seen.sent as u32)));
    assert!(moves.fin.is_none_or(|fin| fin == end));
    assert!(moves.acked.is_none_or(|acked| {
        after(acked, seen.acked as u32) && !after(acked, seen.their_sent as u32)
    }));
    assert!(moves.edge.is_none_or(|edge| after(edge, seen.edge as u32)));
}
