use super::*;
use proptest::prelude::*;

/// A server's frame in the shortest form.
fn server_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = encode(Opcode::Text, payload, [0; 4]);
    frame[0] = first;
    frame[1] &= 0x7f;
    let mask_at = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    frame.drain(mask_at..mask_at + 4);
    frame
}

fn all(bytes: &[u8], step: usize) -> Result<Vec<Frame>, FrameFault> {
    let (mut decoder, mut input, mut frames) = (Decoder::default(), Vec::new(), Vec::new());
    for part in bytes.chunks(step) {
        input.extend_from_slice(part);
        while let Some(frame) = decoder.next(&mut input)? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

#[test]
fn the_masked_hello_of_the_rfc() {
    // RFC 6455 section 5.7.
    let frame = encode(Opcode::Text, b"Hello", [0x37, 0xfa, 0x21, 0x3d]);
    assert_eq!(frame, b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
}

#[test]
fn lengths_take_the_shortest_form() {
    for (len, start) in [(125, &[0xfd_u8][..]), (126, &[0xfe, 0, 126]), (65535, &[0xfe, 255, 255])]
    {
        assert!(encode(Opcode::Binary, &vec![0; len], [0; 4])[1..].starts_with(start), "{len}");
    }
    let long = encode(Opcode::Binary, &vec![0; 65536], [0; 4]);
    assert!(long[1..].starts_with(&[0xff, 0, 0, 0, 0, 0, 1, 0, 0]));
}

#[test]
fn faults() {
    let cases: &[(&[u8], FrameFault)] = &[
        (b"\x81\x85", FrameFault::Masked),
        (b"\xc1", FrameFault::Reserved),
        (b"\x83", FrameFault::Opcode(3)),
        (b"\x8f", FrameFault::Opcode(15)),
        (b"\x09\x00", FrameFault::Control),
        (b"\x89\x7e", FrameFault::Control),
        (b"\x81\x7e\x00\x7d", FrameFault::Length),
        (b"\x81\x7f\x00\x00\x00\x00\x00\x00\xff\xff", FrameFault::Length),
        (b"\x81\x7f\xff\x00\x00\x00\x00\x00\x00\x00", FrameFault::Length),
    ];
    for (bytes, fault) in cases {
        assert_eq!(all(bytes, 1), Err(*fault), "{}", bytes.escape_ascii());
    }
}

#[test]
fn a_long_frame_is_cut() {
    let bytes = [server_frame(0x82, &vec![7; 100_000]), server_frame(0x8a, b"x")].concat();
    let frames = all(&bytes, 1000).unwrap();
    assert_eq!((frames[0].len, frames[0].payload.len()), (100_000, KEPT_BYTES));
    assert_eq!((frames[1].opcode, frames[1].payload.as_slice()), (Opcode::Pong, &b"x"[..]));
}

#[test]
fn fragments_become_messages() {
    let frame = |first, payload: &[u8]| all(&server_frame(first, payload), 99).unwrap().remove(0);
    let mut joiner = Joiner::default();
    assert_eq!(joiner.push(frame(0x01, b"ab")), Ok(None));
    assert_eq!(joiner.push(frame(0x00, b"")), Ok(None));
    let message = Message { text: true, frames: 3, len: 3, payload: b"abc".to_vec() };
    assert_eq!(joiner.push(frame(0x80, b"c")), Ok(Some(message)));
    assert_eq!(joiner.push(frame(0x80, b"c")), Err(FrameFault::Order));
    assert_eq!(joiner.push(frame(0x02, b"c")), Ok(None));
    assert_eq!(joiner.push(frame(0x82, b"c")), Err(FrameFault::Order));
}

#[test]
fn close_frames() {
    assert_eq!(read_close(b""), Ok((None, &b""[..])));
    assert_eq!(read_close(&close_payload(1000)), Ok((Some(1000), &b""[..])));
    assert_eq!(read_close(b"\x0f\xa0bye"), Ok((Some(4000), &b"bye"[..])));
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        assert_eq!(read_close(&close_payload(code)), Err(FrameFault::Close), "{code}");
    }
    assert_eq!(read_close(b"x"), Err(FrameFault::Close));
}

proptest! {
    #[test]
    fn splits_do_not_matter(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..4),
        step in 1_usize..50,
    ) {
        let bytes: Vec<u8> = payloads.iter().flat_map(|p| server_frame(0x82, p)).collect();
        let frames = all(&bytes, step).unwrap();
        let found: Vec<_> = frames.into_iter().map(|frame| frame.payload).collect();
        prop_assert_eq!(found, payloads);
    }

    #[test]
    fn masks_undo_themselves(payload: Vec<u8>, mask: [u8; 4]) {
        let masked = encode(Opcode::Binary, &payload, mask);
        let tail = &masked[masked.len() - payload.len()..];
        let plain: Vec<u8> = tail.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b).collect();
        prop_assert_eq!(plain, payload);
    }

    #[test]
    fn never_panics(bytes: Vec<u8>) {
        let _ = all(&bytes, 3);
    }
}
