//! Bodies: no panic, and the same end however the bytes arrive.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wsproxy_fuzz::handshake::{BodyFraming, BodyTracker};

fn follow(framing: BodyFraming, pieces: [&[u8]; 2]) -> Option<(usize, bool)> {
    let mut tracker = BodyTracker::new(framing);
    let mut used = 0;
    for piece in pieces {
        let progress = tracker.feed(piece).ok()?;
        assert!(progress.used <= piece.len());
        used += progress.used;
    }
    Some((used, tracker.is_complete()))
}

fuzz_target!(|data: &[u8]| {
    let [kind, split, body @ ..] = data else { return };
    let framing = match kind % 4 {
        0 => BodyFraming::None,
        1 => BodyFraming::Length(u64::from(*kind)),
        2 => BodyFraming::UntilClose,
        _ => BodyFraming::Chunked,
    };
    let (head, tail) = body.split_at(usize::from(*split).min(body.len()));
    assert_eq!(follow(framing, [head, tail]), follow(framing, [body, b""]));
});
