//! The frame cursor case by case: every header form, every violation, every stop.

mod support;

use support::{Frame, Summary, reference, stream};
use wsproxy_common::cursor::{
    Counts, FrameCursor, MASKING_EITHER, RSV1, Rules, SIZES, WalkEnd, Wanted,
    close_code_may_travel, size_class, size_limit, violation as v,
};

const EITHER: Rules = Rules::of(MASKING_EITHER);

fn advanced(bytes: &[u8], rules: Rules) -> FrameCursor {
    let mut cursor = FrameCursor::default();
    cursor.advance(bytes, rules);
    assert_eq!(Summary::of_cursor(&cursor), reference(bytes, rules), "{bytes:02x?}");
    cursor
}

#[test]
fn every_header_form() {
    // (payload, form, masked, header bytes)
    let table = [
        (0, 0, false, 2),
        (0, 0, true, 6),
        (1, 0, false, 2),
        (125, 0, true, 6),
        (126, 1, false, 4),
        (126, 1, true, 8),
        (65_535, 1, true, 8),
        (65_536, 2, false, 10),
        (65_536, 2, true, 14),
    ];
    for (payload, form, masked, header) in table {
        let mut frame = Frame::new(0x82, &vec![0xA5; payload]).form(form);
        if masked {
            frame = frame.masked();
        }
        let bytes = frame.bytes();
        assert_eq!(bytes.len(), header + payload);
        for at in 0..=header.min(bytes.len() - 1) {
            let mut cursor = FrameCursor::default();
            cursor.advance(&bytes[..at], EITHER);
            assert_eq!(cursor.at_boundary(), at == 0);
            match cursor.wanted() {
                Wanted::Header(n) if at < 2 => assert_eq!(n as usize, 2 - at),
                Wanted::Header(n) => assert_eq!(n as usize, header - at),
                Wanted::Payload(n) => assert_eq!(n as usize, header + payload - at),
                Wanted::Nothing => panic!("lost"),
            }
            cursor.advance(&bytes[at..], EITHER);
            let counts = &cursor.counts;
            assert_eq!(
                (counts.frames, counts.messages(), counts.payload_bytes()),
                (1, 1, payload as u64),
                "{payload} bytes, form {form}, cut at {at}"
            );
            assert!(cursor.at_boundary() && cursor.violations == 0 && cursor.header == [0; 14]);
        }
    }
}

#[test]
fn every_violation() {
    let text = |payload: &[u8]| Frame::new(0x81, payload).masked();
    let close = |payload: &[u8]| Frame::new(0x88, payload).masked();
    let first = |byte: u8| Frame::new(byte, b"x").masked();
    let table: Vec<(&str, Vec<Frame>, u16)> = vec![
        ("text", vec![text(b"Hello")], 0),
        ("rsv1", vec![first(0xC1)], v::RSV),
        ("rsv2", vec![first(0xA1)], v::RSV),
        ("rsv3", vec![first(0x91)], v::RSV),
        ("opcode 3", vec![first(0x83)], v::RESERVED_OPCODE),
        ("opcode 7", vec![first(0x87)], v::RESERVED_OPCODE),
        ("opcode 11", vec![first(0x8B)], v::RESERVED_OPCODE),
        ("opcode 15, fragmented", vec![first(0x0F)], v::RESERVED_OPCODE | v::CONTROL_FRAGMENTED),
        ("ping, fragmented", vec![first(0x09)], v::CONTROL_FRAGMENTED),
        ("ping of 125", vec![Frame::new(0x89, &[0; 125]).masked()], 0),
        ("ping of 126", vec![Frame::new(0x89, &[0; 126]).masked()], v::CONTROL_TOO_LONG),
        ("no mask", vec![Frame::new(0x81, b"x")], v::MASKING),
        ("125 in 16 bits", vec![text(&[0; 125]).form(1)], v::LENGTH_NOT_MINIMAL),
        ("126 in 16 bits", vec![text(&[0; 126])], 0),
        ("65535 in 64 bits", vec![text(&[0; 65_535]).form(2)], v::LENGTH_NOT_MINIMAL),
        ("65536 in 64 bits", vec![text(&[0; 65_536])], 0),
        ("top bit", vec![text(b"").claiming(1 << 63)], v::LENGTH_TOP_BIT),
        ("continuation first", vec![first(0x80)], v::CONTINUATION_WITHOUT_START),
        (
            "continuation after the end",
            vec![first(0x01), first(0x80), first(0x80)],
            v::CONTINUATION_WITHOUT_START,
        ),
        ("fragments around a ping", vec![first(0x01), first(0x89), first(0x00), first(0x80)], 0),
        ("text inside a message", vec![first(0x02), first(0x81)], v::DATA_INSIDE_MESSAGE),
        ("empty close", vec![close(b"")], 0),
        ("close of one byte", vec![close(b"x")], v::CLOSE_ONE_BYTE),
        ("close 1000", vec![close(&1000u16.to_be_bytes())], 0),
        ("close 1005 and a reason", vec![close(b"\x03\xEDbye")], v::CLOSE_CODE_INVALID),
        ("close 0", vec![close(&[0, 0])], v::CLOSE_CODE_INVALID),
    ];
    let mut seen = 0;
    for (name, frames, expected) in &table {
        // A good frame behind it shows that the lengths are still followed.
        let mut bytes = stream(frames);
        bytes.extend(text(b"after").bytes());
        let cursor = advanced(&bytes, Rules::FROM_CLIENT);
        // "after" inside an unfinished message is no concern of this table.
        let found = cursor.violations & !if frames.len() == 1 { v::DATA_INSIDE_MESSAGE } else { 0 };
        assert_eq!(found, *expected, "{name}");
        let lost = expected & v::LENGTH_TOP_BIT != 0;
        assert_eq!(cursor.counts.frames, if lost { 0 } else { frames.len() as u64 + 1 }, "{name}");
        assert_eq!(cursor.at_boundary(), !lost, "{name}");
        seen |= found;
    }
    assert_eq!(seen, v::OF_FRAMING, "a violation without a case");
    let named = v::NAMES.iter().fold(0, |all, (bit, _)| all | bit);
    assert_eq!(named, v::OF_FRAMING | v::OF_LIMITS);
}

#[test]
fn rules_of_the_direction() {
    let plain = Frame::new(0xC2, b"x").bytes();
    let masked = Frame::new(0x82, b"x").masked().bytes();
    let deflate = Rules { allowed_rsv: RSV1, ..Rules::FROM_SERVER };
    let table = [
        (&plain, Rules::FROM_SERVER, v::RSV),
        (&plain, deflate, 0),
        (&plain, Rules::FROM_CLIENT, v::RSV | v::MASKING),
        (&masked, Rules::FROM_SERVER, v::MASKING),
        (&masked, Rules::FROM_CLIENT, 0),
        (&masked, EITHER, 0),
    ];
    for (bytes, rules, expected) in table {
        assert_eq!(advanced(bytes, rules).violations, expected, "{rules:?}");
    }
}

#[test]
fn close_code_is_unmasked_and_the_first_one_stays() {
    for masked in [false, true] {
        let close = |payload: &[u8]| {
            let frame = Frame::new(0x88, payload);
            if masked { frame.masked() } else { frame }
        };
        let bytes = stream(&[close(b""), close(b"\x03\xE9going away"), close(b"\x03\xE8")]);
        for cut in 0..bytes.len() {
            let mut cursor = advanced(&bytes[..cut], EITHER);
            cursor.advance(&bytes[cut..], EITHER);
            assert_eq!((cursor.close_code, cursor.counts.closes), (1001, 3));
            assert_eq!((cursor.violations, cursor.counts.payload_bytes()), (0, 14));
            assert!(cursor.at_boundary());
        }
    }
    // Not in the 7-bit form: a violation, and its code is not looked for.
    let long = Frame::new(0x88, b"\x03\xE9going away").masked().form(2).bytes();
    let cursor = advanced(&long, EITHER);
    assert_eq!((cursor.close_code, cursor.counts.closes), (0, 1));
}

#[test]
fn close_codes_that_may_travel() {
    let table = [
        (0..=999, false),
        (1000..=1003, true),
        (1004..=1006, false),
        (1007..=1014, true),
        (1015..=2999, false),
        (3000..=4999, true),
        (5000..=u16::MAX, false),
    ];
    for (codes, expected) in table {
        for code in codes {
            assert_eq!(close_code_may_travel(code), expected, "{code}");
        }
    }
}

#[test]
fn a_frame_larger_than_memory() {
    let length = i64::MAX as u64;
    let mut cursor = advanced(&Frame::new(0x82, b"").claiming(length).bytes(), EITHER);
    assert_eq!(cursor.wanted(), Wanted::Payload(length));
    assert_eq!(cursor.skip_payload(length - 1), length - 1);
    assert!(!cursor.at_boundary());
    assert_eq!(cursor.skip_payload(u64::MAX), 1);
    assert!(cursor.at_boundary());
    assert_eq!(cursor.skip_payload(1), 0);
    assert_eq!(cursor.counts.payload_bytes(), length);
}

#[test]
fn lost_takes_nothing_more() {
    let bytes = Frame::new(0x82, b"").claiming(u64::MAX).bytes();
    let mut cursor = advanced(&bytes, EITHER);
    let before = cursor;
    assert_eq!(cursor.wanted(), Wanted::Nothing);
    cursor.advance(&bytes, EITHER);
    assert_eq!(cursor.take_header([0x81; 14], 14, EITHER), 0);
    assert_eq!(cursor.advance_to_boundary(b"abc", EITHER), 3);
    let outcome = cursor.walk(&mut &bytes[..], bytes.len() as u32, 9, EITHER);
    assert_eq!((outcome.consumed, outcome.end), (0, WalkEnd::Lost));
    assert_eq!(cursor, before);
}

#[test]
fn walks_stop_where_they_are_told() {
    let bytes = stream(&[Frame::new(0x81, b"one"), Frame::new(0x81, b"two").masked()]);
    let len = bytes.len() as u32;
    // (bytes in the source, bytes promised, headers, consumed, end)
    let table = [
        (len, len, 2, len, WalkEnd::Done),
        (len, len, 9, len, WalkEnd::Done),
        (len, len, 1, 5, WalkEnd::BoundReached),
        (len, len, 0, 0, WalkEnd::BoundReached),
        (len, len - 4, 9, len - 4, WalkEnd::Done),
        (8, len, 9, 0, WalkEnd::LoadFailed),
        (len, 0, 0, 0, WalkEnd::Done),
    ];
    for (there, promised, headers, consumed, end) in table {
        let mut cursor = FrameCursor::default();
        let mut source = &bytes[..there as usize];
        let outcome = cursor.walk(&mut source, promised, headers, EITHER);
        assert_eq!(
            (outcome.consumed, outcome.end),
            (consumed, end),
            "{there} {promised} {headers}"
        );
        cursor.advance(&bytes[outcome.consumed as usize..], EITHER);
        assert_eq!((cursor.counts.frames, cursor.counts.payload_bytes()), (2, 6));
    }
}

#[test]
fn up_to_the_boundary_and_no_further() {
    let bytes = stream(&[Frame::new(0x81, b"one"), Frame::new(0x81, b"two")]);
    for cut in 0..=bytes.len() {
        let mut cursor = advanced(&bytes[..cut], EITHER);
        let expected = match cut {
            0 | 5 | 10 => 0,
            1..5 => 5 - cut,
            _ => 10 - cut,
        };
        assert_eq!(cursor.advance_to_boundary(&bytes[cut..], EITHER), expected);
        assert!(cursor.at_boundary());
    }
}

#[test]
fn a_cursor_of_nonsense_goes_on_without_panic() {
    for byte in 0..=u8::MAX {
        let mut cursor = FrameCursor {
            payload_left: u64::from(byte & 1) * u64::MAX,
            message_bytes: u64::MAX,
            payload_kind: byte,
            counts: Counts { frames: u64::MAX, binary_bytes: u64::MAX, ..Counts::default() },
            header: [byte; 14],
            header_have: byte,
            in_message: byte,
            ..FrameCursor::default()
        };
        let _ = (cursor.wanted(), cursor.header_needed(), cursor.at_boundary());
        cursor.advance(&[0x89, 0x00, 0x89, 0x00, byte, byte], EITHER);
        cursor.walk(&mut &[byte; 40][..], 40, 40, EITHER);
    }
}

#[test]
fn sizes_have_their_classes() {
    assert_eq!((size_class(0), size_class(4), size_class(5)), (0, 0, 1));
    assert_eq!((size_class(1 << 30), size_class((1 << 30) + 1)), (14, 15));
    assert_eq!(size_class(u64::MAX), 15);
    for class in 0..SIZES {
        let Some(limit) = size_limit(class) else {
            assert_eq!(class, SIZES - 1);
            continue;
        };
        assert_eq!((size_class(limit), size_class(limit + 1)), (class, class + 1));
    }
}

#[test]
fn limits_count_whole_messages() {
    let rules = Rules { max_frame: 5, max_message: 7, ..EITHER };
    let fragments = |last: &[u8]| [Frame::new(0x01, b"12345"), Frame::new(0x80, last)];
    let judged = |frames: &[Frame]| advanced(&stream(frames), rules).violations;
    assert_eq!(judged(&fragments(b"67")), 0);
    assert_eq!(judged(&fragments(b"678")), v::MESSAGE_TOO_LONG);
    assert_eq!(judged(&[Frame::new(0x82, b"123456")]), v::FRAME_TOO_LONG);
    // One message after the other: each has the whole limit.
    assert_eq!(judged(&[fragments(b"67"), fragments(b"67")].concat()), 0);
    // Control frames belong to no message.
    let [first, last] = fragments(b"67");
    assert_eq!(judged(&[first, Frame::new(0x89, b"12345"), last]), 0);
}

#[test]
fn the_forbidden_frame_is_found_before_its_first_byte() {
    let good = Frame::new(0x81, b"good").masked();
    let bad = Frame::new(0x83, b"bad").masked();
    let bytes = stream(&[good.clone(), good.clone(), bad, good]);
    let place = 20;
    for enforced in [v::OF_FRAMING, v::OF_LIMITS] {
        let rules = Rules { enforced, ..Rules::FROM_CLIENT };
        let expected = (enforced == v::OF_FRAMING).then_some(place);
        assert_eq!(FrameCursor::default().advance_to_forbidden(&bytes, rules), expected);
        let walked = FrameCursor::default().walk(&mut &bytes[..], bytes.len() as u32, 99, rules);
        let end = if expected.is_some() { WalkEnd::Forbidden } else { WalkEnd::Done };
        assert_eq!(walked.end, end);
    }
    let rules = Rules { enforced: v::OF_FRAMING, ..Rules::FROM_CLIENT };
    for cut in 0..bytes.len() {
        let mut cursor = FrameCursor::default();
        match cursor.advance_to_forbidden(&bytes[..cut], rules) {
            // Its opcode is judged with its length.
            Some(at) => assert!(at == place && cut >= place + 2, "cut at {cut}"),
            None => {
                let rest = cursor.advance_to_forbidden(&bytes[cut..], rules);
                assert_eq!(rest, Some(place.saturating_sub(cut)), "cut at {cut}");
            }
        }
    }
}
