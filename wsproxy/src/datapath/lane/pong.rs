//! Looks for answers to Pings of ours in what its receiver says.

use std::ops::Range;

use wsproxy_common::cursor::{FrameCursor, PONG_FIRST_BYTE, Rules};

use crate::datapath::control_frame::PING_PAYLOAD;

/// Most bytes that an answer takes: its head, a mask and the payload.
pub const MOST_HELD: usize = 2 + 4 + PING_PAYLOAD;

/// Where the answer is.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Nowhere.
    Not,
    /// Here, whole; which payload it has.
    At(Range<usize>, usize),
    /// It may begin here; more bytes will tell.
    MayBegin(usize),
}

/// Looks for a Pong with one of these payloads in `bytes`, which follow where `cursor` stands. A
/// Pong of another payload answers somebody else, or nobody, and is none of ours.
#[must_use]
pub fn find(
    mut cursor: FrameCursor,
    rules: Rules,
    bytes: &[u8],
    payloads: &[[u8; PING_PAYLOAD]],
) -> Found {
    if payloads.is_empty() {
        return Found::Not;
    }
    let mut at = 0;
    loop {
        at += cursor.advance_to_boundary(&bytes[at..], rules);
        if at == bytes.len() || !cursor.at_boundary() {
            return Found::Not;
        }
        match answers(&bytes[at..], payloads) {
            Some(Some((len, nth))) => return Found::At(at..at + len, nth),
            Some(None) => return Found::MayBegin(at),
            None => {}
        }
        // Over the first byte of this frame, so that the next boundary is its end.
        cursor.advance(&bytes[at..at + 1], rules);
        at += 1;
    }
}

/// Whether a frame is an answer: its length and which payload it has; `Some(None)` while it is too
/// short to tell.
fn answers(frame: &[u8], payloads: &[[u8; PING_PAYLOAD]]) -> Option<Option<(usize, usize)>> {
    if frame[0] != PONG_FIRST_BYTE {
        return None;
    }
    let Some(second) = frame.get(1) else { return Some(None) };
    if usize::from(second & 0x7F) != PING_PAYLOAD {
        return None;
    }
    let masked = second & 0x80 != 0;
    let head = if masked { 6 } else { 2 };
    let Some(body) = frame.get(head..head + PING_PAYLOAD) else { return Some(None) };
    let key = if masked { &frame[2..6] } else { &[0; 4][..] };
    let said = |payload: &[u8; PING_PAYLOAD]| {
        body.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).eq(*payload)
    };
    payloads.iter().position(said).map(|nth| Some((head + PING_PAYLOAD, nth)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer to the second one is looked for.
    const PAYLOADS: &[[u8; 8]] = &[*b"earlier.", *b"whatever"];
    const TEXT: &[u8] = b"\x81\x05hello";
    const ANSWER: &[u8] = b"\x8a\x08whatever";
    const FOREIGN: &[u8] = b"\x8a\x08whatnot!";

    fn masked(frame: &[u8]) -> Vec<u8> {
        let key = [7, 0, 255, 1];
        let body = frame[2..].iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k);
        [frame[0], frame[1] | 0x80].into_iter().chain(key).chain(body).collect()
    }

    fn found(rules: Rules, bytes: &[u8]) -> Found {
        find(FrameCursor::default(), rules, bytes, PAYLOADS)
    }

    #[test]
    fn an_answer_is_found_between_other_frames_and_nowhere_else() {
        for (rules, mask) in [(Rules::FROM_SERVER, false), (Rules::FROM_CLIENT, true)] {
            let frame = |bytes: &[u8]| if mask { masked(bytes) } else { bytes.to_vec() };
            let bytes = [frame(TEXT), frame(FOREIGN), frame(ANSWER), frame(TEXT)].concat();
            let start = frame(TEXT).len() + frame(FOREIGN).len();
            let range = start..start + frame(ANSWER).len();
            assert_eq!(found(rules, &bytes), Found::At(range.clone(), 1));
            for cut in 0..range.end {
                let expected = if cut <= start { Found::Not } else { Found::MayBegin(start) };
                // A foreign Pong looks like ours until its last byte.
                if cut > frame(TEXT).len() && cut < start {
                    assert_eq!(found(rules, &bytes[..cut]), Found::MayBegin(frame(TEXT).len()));
                } else {
                    assert_eq!(found(rules, &bytes[..cut]), expected, "cut at {cut}");
                }
            }
        }
    }

    #[test]
    fn payload_that_looks_like_an_answer_is_none() {
        let inside = [b"\x82\x0a", ANSWER].concat();
        assert_eq!(found(Rules::FROM_SERVER, &inside), Found::Not);
        let mut cursor = FrameCursor::default();
        cursor.advance(b"\x82\x0a", Rules::FROM_SERVER);
        assert_eq!(find(cursor, Rules::FROM_SERVER, ANSWER, PAYLOADS), Found::Not);
    }

    #[test]
    fn other_lengths_and_lost_streams_are_passed_over() {
        assert_eq!(found(Rules::FROM_SERVER, b"\x8a\x00\x8a\x01x"), Found::Not);
        let lost = b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff";
        assert_eq!(found(Rules::FROM_SERVER, &[lost, ANSWER].concat()), Found::Not);
    }
}
