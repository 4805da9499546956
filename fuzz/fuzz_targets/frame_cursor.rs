//! Any bytes, any split: no panic, and the same cursor whichever way they were fed.
//!
//! Input: one byte of rules (RSV mask, masking), one byte that seeds the split, then the stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wsproxy_common::cursor::{FrameCursor, Rules, WalkEnd, Wanted};

fuzz_target!(|data: &[u8]| {
    let [rules, split, bytes @ ..] = data else {
        return;
    };
    let rules = Rules { allowed_rsv: rules & 0x70, ..Rules::of(rules & 3) };

    let mut whole = FrameCursor::default();
    whole.advance(bytes, rules);

    let mut chunked = FrameCursor::default();
    let mut walked = FrameCursor::default();
    let mut rest = bytes;
    let mut size = usize::from(*split);
    while !rest.is_empty() {
        size = (size * 5 + 1) & 0x3F;
        let (chunk, later) = rest.split_at(size.clamp(1, rest.len()));
        let before = chunked;
        chunked.advance(chunk, rules);
        assert!(only_grows(&before, &chunked));
        walk(&mut walked, chunk, rules);
        assert_eq!(walked, chunked);
        rest = later;
    }
    assert_eq!(chunked, whole);

    // Enforced, the same rules name a place in front of the first frame that breaks one.
    let strict = Rules { enforced: u16::MAX, max_frame: 100, max_message: 200, ..rules };
    let mut judged = FrameCursor::default();
    match judged.advance_to_forbidden(bytes, strict) {
        None => assert_eq!(judged.violations, 0),
        Some(at) => {
            let mut good = FrameCursor::default();
            good.advance(&bytes[..at], strict);
            assert!(good.at_boundary() && good.violations == 0);
        }
    }

    match whole.wanted() {
        Wanted::Header(more) => assert!((1..=12).contains(&more)),
        Wanted::Payload(more) => assert!(more > 0 && !whole.at_boundary()),
        Wanted::Nothing => assert!(whole.is_lost() && !whole.at_boundary()),
    }
    // Every byte is payload or header, and a header takes 2 to 14 bytes.
    if !whole.is_lost() {
        let headers =
            bytes.len() as u64 - whole.counts.payload_bytes() - u64::from(whole.header_have);
        assert!((whole.counts.frames * 2..=whole.counts.frames * 14).contains(&headers));
    }
});

fn only_grows(before: &FrameCursor, after: &FrameCursor) -> bool {
    let (new, old) = (&after.counts, &before.counts);
    new.frames >= old.frames
        && new.messages() >= old.messages()
        && new.messages() <= new.frames
        && new.sizes.iter().sum::<u64>() == new.messages()
        && new.payload_bytes() >= old.payload_bytes()
        && after.violations & before.violations == before.violations
        && (before.close_code == 0 || after.close_code == before.close_code)
        && after.in_message < 3
        && after.header_have < 14
}

fn walk(cursor: &mut FrameCursor, chunk: &[u8], rules: Rules) {
    let mut rest = chunk;
    loop {
        let outcome = cursor.walk(&mut &*rest, rest.len() as u32, 2, rules);
        rest = &rest[outcome.consumed as usize..];
        match outcome.end {
            WalkEnd::BoundReached => assert!(outcome.consumed > 0),
            WalkEnd::Done => return assert!(rest.is_empty()),
            WalkEnd::Lost => return,
            WalkEnd::LoadFailed | WalkEnd::Forbidden => {
                panic!("a slice holds all, nothing is enforced")
            }
        }
    }
}
