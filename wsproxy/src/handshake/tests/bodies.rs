//! Bodies of ordinary answers.

use super::*;

/// Feeds in pieces of `step` bytes; how many bytes belong to the body, and whether it is complete.
fn feed(framing: BodyFraming, bytes: &[u8], step: usize) -> Result<(usize, bool), BadBody> {
    let mut tracker = BodyTracker::new(framing);
    let mut used = 0;
    for piece in bytes.chunks(step) {
        let progress = tracker.feed(piece)?;
        used += progress.used;
        if progress.complete {
            return Ok((used, true));
        }
        assert_eq!(progress.used, piece.len());
    }
    Ok((used, tracker.is_complete()))
}

fn check(framing: BodyFraming, bytes: &[u8], expected: Result<(usize, bool), BadBody>) {
    for step in [1, 2, 3, 7, bytes.len().max(1)] {
        let shown = bytes.escape_ascii();
        assert_eq!(feed(framing, bytes, step), expected, "{shown} by {step}");
    }
}

#[test]
fn plain_bodies() {
    check(BodyFraming::None, b"next", Ok((0, true)));
    check(BodyFraming::Length(0), b"next", Ok((0, true)));
    check(BodyFraming::Length(3), b"abcnext", Ok((3, true)));
    check(BodyFraming::Length(9), b"abc", Ok((3, false)));
    check(BodyFraming::UntilClose, b"abc", Ok((3, false)));
}

#[test]
fn chunks() {
    let ok = |bytes: &[u8], used| check(BodyFraming::Chunked, bytes, Ok((used, true)));
    ok(b"0\r\n\r\nnext", 5);
    ok(b"3\r\nabc\r\n0\r\n\r\nnext", 13);
    ok(b"A;x=\"y\"\r\n0123456789\r\n000\r\nT: v\r\n\r\n", 34);
    check(BodyFraming::Chunked, b"5\r\nabc", Ok((6, false)));
}

#[test]
fn broken_chunks() {
    let bad = |bytes: &[u8], error| check(BodyFraming::Chunked, bytes, Err(error));
    bad(b"\r\n", BadBody::ChunkSize);
    bad(b"x\r\n", BadBody::ChunkSize);
    bad(b"-1\r\n", BadBody::ChunkSize);
    bad(b"0x3\r\nabc\r\n", BadBody::ChunkSize);
    bad(b"11111111111111111\r\n", BadBody::ChunkSize);
    bad(b"3\r\nabcd\r\n", BadBody::ChunkEnd);
    bad(b"3\r\nabc\n0\r\n\r\n", BadBody::ChunkEnd);
    bad(b"3\nabc", BadBody::ChunkSize);
    bad(b"3;a\nabc", BadBody::LineByte);
    bad(b"3\rabc", BadBody::LineByte);
    bad(b"0\r\nT: v\n\r\n", BadBody::LineByte);
    bad(&[b"3;", &[b'a'; MAX_LINE_BYTES][..]].concat(), BadBody::LineTooLong);
    let trailer = [&[b'a'; 1000][..], b"\r\n"].concat();
    bad(&[b"0\r\n", &trailer.repeat(20)[..]].concat(), BadBody::TrailersTooLong);
}
