//! A whole packet, from its IP header on: the parts put together as the BPF program does it, for
//! tests, fuzzing and whoever has a packet in memory.

use super::{
    Flow, HEADERS, Headers, ICMP, JUMBO, OPTIONS, Options, Segment, Sum, TCP_AT, V4_AT, V4_LENGTH,
    V6_LENGTH,
};

/// Where the checksum stands in a TCP header.
const CHECKSUM: usize = 16;

/// What stands in the checksum field of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// The checksum.
    Complete,
    /// The sum of the pseudo-header alone: the device computes the rest (`CHECKSUM_PARTIAL`).
    Partial,
}

/// Reads the headers of a packet; `None` when they are not all there, or it is no IP packet.
#[must_use]
pub fn headers(packet: &[u8]) -> Option<Headers> {
    let mut headers = Headers::default();
    let first = match packet.first()? >> 4 {
        4 => V4_AT,
        6 => 0,
        _ => return None,
    };
    headers.ip_length = if first == 0 { V6_LENGTH } else { V4_LENGTH };
    let bytes = packet.get(..(HEADERS - first) * 4)?;
    read(bytes, headers.words.get_mut(first..)?);
    if headers.is_v6() && headers.is_jumbo(u32::try_from(packet.len()).ok()?) {
        headers.ip_length = V6_LENGTH + JUMBO;
        let at = headers.ip_length as usize;
        read(packet.get(at..at + 20)?, headers.words.get_mut(TCP_AT..)?);
    }
    Some(headers)
}

/// Translates a packet in place; what it said before. `None`: it can't be translated, and is what
/// it was.
pub fn translate(packet: &mut [u8], flow: &Flow, checksum: Checksum) -> Option<Segment> {
    let mut headers = headers(packet)?;
    let segment = headers.segment(u32::try_from(packet.len()).ok()?)?;
    let ip_length = headers.ip_length as usize;
    let at = ip_length + 20;
    let end = at + usize::from(segment.options);
    let mut options = Options::default();
    options.begin(flow, &segment);
    read(packet.get(at..end)?, &mut options.words);
    let mut change = headers.translate(flow, &segment);
    if segment.options != 0 {
        change.segment = Sum::added(change.segment, translate_options(&mut options));
    }
    write(&options.words, packet.get_mut(at..end)?);
    let first = if headers.is_v6() { 0 } else { V4_AT };
    write(headers.words.get(first..TCP_AT)?, packet.get_mut(..ip_length)?);
    write(headers.words.get(TCP_AT..)?, packet.get_mut(ip_length..at)?);
    let field = packet.get_mut(ip_length + CHECKSUM..ip_length + CHECKSUM + 2)?;
    let old = u16::from_ne_bytes([*field.first()?, *field.get(1)?]);
    let new = match checksum {
        Checksum::Complete => applied(Sum::added(change.addresses, change.segment), old),
        // As `inet_proto_csum_replace_by_diff`: it is a sum, not the complement of one.
        Checksum::Partial => !applied(change.addresses, !old),
    };
    field.copy_from_slice(&new.to_ne_bytes());
    Some(segment)
}

/// Translates options that were filled in; what the checksum changes by.
fn translate_options(options: &mut Options) -> u32 {
    if let Some(change) = options.usual() {
        return change;
    }
    let before = options.sum();
    for _ in 0..OPTIONS {
        if !options.step() {
            break;
        }
    }
    Options::change(before, options.sum())
}

/// The headers of an ICMP error, those of the packet that it quotes, and how many bytes of its TCP
/// header are there. `None`: it is nothing that is passed on.
#[must_use]
pub fn quotation(packet: &[u8]) -> Option<(Headers, Headers, u32)> {
    let outer = headers(packet)?;
    let bytes = outer.quotes(u32::try_from(packet.len()).ok()?)?;
    let mut quoted = Headers { ip_length: outer.ip_length, ..Headers::default() };
    let (from, to) = quoted_at(&outer, bytes);
    let first = if outer.is_v6() { 0 } else { V4_AT };
    read(packet.get(from..to)?, quoted.words.get_mut(first..)?);
    Some((outer, quoted, bytes))
}

/// Where the quoted headers stand in a message.
fn quoted_at(outer: &Headers, bytes: u32) -> (usize, usize) {
    let from = outer.ip_length + ICMP;
    (from as usize, (from + outer.ip_length + bytes) as usize)
}

/// Translates an ICMP error in place, for S; `flow` is the direction from T to S. `None`: it can't
/// be translated, and is what it was.
pub fn translate_error(packet: &mut [u8], flow: &Flow) -> Option<()> {
    let (mut outer, mut quoted, bytes) = quotation(packet)?;
    quoted.quoted_key(&outer)?;
    let change = quoted.translate_quoted(&mut outer, bytes, flow);
    let first = if outer.is_v6() { 0 } else { V4_AT };
    let ip_length = outer.ip_length as usize;
    let (from, to) = quoted_at(&outer, bytes);
    write(outer.words.get(first..)?, packet.get_mut(..ip_length)?);
    write(quoted.words.get(first..)?, packet.get_mut(from..to)?);
    let field = packet.get_mut(ip_length + 2..ip_length + 4)?;
    let old = u16::from_ne_bytes([*field.first()?, *field.get(1)?]);
    let new = applied(Sum::added(change.addresses, change.segment), old);
    field.copy_from_slice(&new.to_ne_bytes());
    Some(())
}

fn applied(change: u32, old: u16) -> u16 {
    Sum::of(change).applied_to(old)
}

fn read(bytes: &[u8], words: &mut [u32]) {
    for (word, four) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*four);
    }
}

fn write(words: &[u32], bytes: &mut [u8]) {
    for (four, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *four = word.to_ne_bytes();
    }
}
