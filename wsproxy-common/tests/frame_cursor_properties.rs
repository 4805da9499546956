//! The frame cursor against the reference: random streams, random splits, every way of feeding.

mod support;

use proptest::prelude::*;
use proptest::sample::Index;
use support::{Frame, Summary, reference, stream};
use tungstenite::Bytes;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::Frame as WireFrame;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use wsproxy_common::cursor::{Counts, FrameCursor, Rules, WalkEnd, size_class};

/// Feeds `bytes` in every way there is, cut at `cuts`; all must end in the reference's summary.
fn check(bytes: &[u8], cuts: &[usize], rules: Rules) -> FrameCursor {
    let mut whole = FrameCursor::default();
    whole.advance(bytes, rules);
    assert_eq!(Summary::of_cursor(&whole), reference(bytes, rules));

    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    let mut chunked = FrameCursor::default();
    let mut walked = FrameCursor::default();
    for (nth, pair) in cuts.windows(2).enumerate() {
        let chunk = &bytes[pair[0]..pair[1]];
        chunked.advance(chunk, rules);
        walk_chunk(&mut walked, chunk, 1 + nth as u32 % 3, rules);
        let here = reference(&bytes[..pair[1]], rules);
        assert_eq!(Summary::of_cursor(&chunked), here, "after {} bytes", pair[1]);
        assert_eq!(chunked.at_boundary(), here.between_frames);
        assert_eq!(walked, chunked);
    }
    assert_eq!(chunked, whole);

    let mut by_frame = FrameCursor::default();
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        by_frame.advance(std::slice::from_ref(first), rules);
        let used = by_frame.advance_to_boundary(after, rules);
        assert!(used == after.len() || by_frame.at_boundary());
        rest = &after[used..];
    }
    assert_eq!(by_frame, whole);
    whole
}

/// Walks all of `chunk`, a few headers at a time.
fn walk_chunk(cursor: &mut FrameCursor, chunk: &[u8], headers: u32, rules: Rules) {
    let mut rest = chunk;
    loop {
        let outcome = cursor.walk(&mut &*rest, rest.len() as u32, headers, rules);
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

fn any_rules() -> impl Strategy<Value = Rules> {
    let limit = || prop_oneof![Just(0), 1u64..300];
    (0u8..8, 0u8..3, limit(), limit()).prop_map(|(rsv, masked, max_frame, max_message)| Rules {
        allowed_rsv: rsv << 4,
        max_frame,
        max_message,
        ..Rules::of(masked)
    })
}

fn any_length() -> impl Strategy<Value = usize> {
    prop_oneof![
        8 => 0usize..20,
        4 => 100usize..140,
        1 => 65_530usize..65_545,
    ]
}

/// Frames that a client may send: messages, perhaps in fragments, control frames between them.
fn valid_frames() -> impl Strategy<Value = Vec<Frame>> {
    let control = || {
        prop_oneof![
            (any::<bool>(), 0usize..126)
                .prop_map(|(ping, n)| Frame::new(if ping { 0x89 } else { 0x8A }, &vec![7; n])),
            (3000u16..5000, 0usize..124).prop_map(|(code, n)| Frame::new(
                0x88,
                &[&code.to_be_bytes(), &vec![b'r'; n][..]].concat()
            )),
        ]
    };
    let fragment = (any_length(), proptest::option::weighted(0.3, control()));
    let message = (any::<bool>(), proptest::collection::vec(fragment, 1..4));
    let framed = message.prop_map(|(text, fragments)| {
        let last = fragments.len() - 1;
        let mut frames = vec![];
        for (nth, (length, control)) in fragments.into_iter().enumerate() {
            let opcode = if nth > 0 { 0 } else { 2 - u8::from(text) };
            let fin = if nth == last { 0x80 } else { 0 };
            frames.push(Frame::new(fin | opcode, &vec![0x5A; length]));
            frames.extend(control);
        }
        frames
    });
    (proptest::collection::vec(framed, 0..8), any::<[u8; 4]>()).prop_map(|(messages, key)| {
        let mut frames = messages.concat();
        for frame in &mut frames {
            frame.mask = Some(key);
        }
        frames
    })
}

/// A frame that may be wrong in any way, or claim a length it has not.
fn any_frame() -> impl Strategy<Value = Frame> {
    let payload = any_length().prop_flat_map(|n| {
        proptest::collection::vec(any::<u8>(), n.min(40)).prop_map(move |mut p| {
            p.resize(n, 0x11);
            p
        })
    });
    let claimed = prop_oneof![
        30 => Just(None),
        1 => (0u64..200).prop_map(Some),
        1 => any::<u64>().prop_map(Some),
    ];
    let close = any::<u16>().prop_map(|code| (0x88, code.to_be_bytes().to_vec()));
    prop_oneof![
        4 => (any::<u8>(), payload),
        1 => close,
    ]
    .prop_flat_map(move |(first_byte, payload)| {
        (any::<Option<[u8; 4]>>(), 0u8..3, claimed.clone()).prop_map(
            move |(mask, form, claimed)| Frame {
                first_byte,
                mask,
                form: if form == 2 { 2 } else { 0 },
                payload: payload.clone(),
                claimed,
            },
        )
    })
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(any::<Index>(), 0..12)
        .prop_map(|cuts| cuts.iter().map(|cut| cut.index(1 << 20)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    #[test]
    fn valid_streams(frames in valid_frames(), cuts in cuts()) {
        let cursor = check(&stream(&frames), &cuts, Rules::FROM_CLIENT);
        prop_assert_eq!(cursor.violations, 0);
        prop_assert!(cursor.at_boundary());
        prop_assert_eq!(cursor.counts.frames, frames.len() as u64);
        let payload: usize = frames.iter().map(|frame| frame.payload.len()).sum();
        prop_assert_eq!(cursor.counts.payload_bytes(), payload as u64);
        let is_end = |frame: &&Frame| matches!(frame.first_byte, 0x80..=0x82);
        prop_assert_eq!(cursor.counts.messages(), frames.iter().filter(is_end).count() as u64);
    }

    #[test]
    fn broken_streams(
        frames in proptest::collection::vec(any_frame(), 0..10),
        cuts in cuts(),
        end in any::<Index>(),
        rules in any_rules(),
    ) {
        let bytes = stream(&frames);
        check(&bytes, &cuts, rules);
        check(&bytes[..end.index(bytes.len() + 1)], &cuts, rules);
    }

    #[test]
    fn arbitrary_bytes(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        cuts in cuts(),
        rules in any_rules(),
    ) {
        check(&bytes, &cuts, rules);
    }

    #[test]
    fn every_byte_on_its_own(
        frames in proptest::collection::vec(any_frame(), 0..3),
        rules in any_rules(),
    ) {
        let mut bytes = stream(&frames);
        bytes.truncate(600);
        let every: Vec<usize> = (0..bytes.len()).collect();
        check(&bytes, &every, rules);
    }

    #[test]
    fn frames_of_tungstenite(
        sizes in proptest::collection::vec((any_length(), 0u8..5), 0..12),
        key in any::<Option<[u8; 4]>>(),
        code in prop_oneof![1000u16..1004, 1007u16..1015, 3000u16..5000],
        cuts in cuts(),
    ) {
        let (mut bytes, mut counts) = (vec![], Counts::default());
        let mut write = |mut frame: WireFrame| {
            counts.frames += 1;
            let passed = frame.payload().len() as u64;
            match frame.header().opcode {
                OpCode::Control(_) => counts.other_bytes += passed,
                OpCode::Data(Data::Text) => counts.text_bytes += passed,
                _ => counts.binary_bytes += passed,
            }
            frame.header_mut().mask = key;
            frame.format(&mut bytes).unwrap();
        };
        for (size, kind) in sizes {
            let payload = Bytes::from(vec![0x33; size]);
            let small = payload.slice(..size.min(125));
            match kind {
                0 => {
                    write(WireFrame::ping(small));
                    counts.pings += 1;
                }
                1 => {
                    write(WireFrame::pong(small));
                    counts.pongs += 1;
                }
                2 => {
                    write(WireFrame::message(payload, OpCode::Data(Data::Text), true));
                    counts.text_messages += 1;
                    counts.sizes[size_class(size as u64)] += 1;
                }
                _ => {
                    write(WireFrame::message(payload.clone(), OpCode::Data(Data::Binary), false));
                    write(WireFrame::message(payload.clone(), OpCode::Data(Data::Continue), false));
                    write(WireFrame::message(payload, OpCode::Data(Data::Continue), true));
                    counts.binary_messages += 1;
                    counts.sizes[size_class(3 * size as u64)] += 1;
                }
            }
        }
        let reason = "done".into();
        write(WireFrame::close(Some(CloseFrame { code: CloseCode::from(code), reason })));
        counts.closes = 1;
        let rules = if key.is_some() { Rules::FROM_CLIENT } else { Rules::FROM_SERVER };
        let found = check(&bytes, &cuts, rules);
        prop_assert_eq!(found.counts, counts);
        prop_assert_eq!((found.close_code, found.violations), (code, 0));
        prop_assert!(found.at_boundary());
    }
}

/// The fuzz corpus, read as the fuzz target reads it: two bytes of rules and split, then a stream.
#[test]
fn the_fuzz_corpus() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/frame_cursor");
    let mut files = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let data = std::fs::read(entry.unwrap().path()).unwrap();
        let [rules, split, bytes @ ..] = &data[..] else {
            continue;
        };
        let rules = Rules { allowed_rsv: rules & 0x70, ..Rules::of(rules & 3) };
        let step = usize::from(*split).max(1);
        let cuts: Vec<usize> = (0..bytes.len()).step_by(step).collect();
        check(bytes, &cuts, rules);
        files += 1;
    }
    assert!(files >= 10, "the corpus is gone");
}
