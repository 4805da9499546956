//! Answer heads: no panic, the same verdict however the bytes arrive, and a
//! 101 that is passed on is a 101 that is accepted.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use wsproxy_fuzz::handshake::{
    Answer, HeadLimits, Progress, UpgradeRequest, parse_request, parse_response,
};

static REQUEST: LazyLock<UpgradeRequest> = LazyLock::new(|| {
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Protocol: chat, b\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    match parse_request(head, &HeadLimits::default()) {
        Ok(Progress::Done { value, .. }) => value,
        other => panic!("{other:?}"),
    }
});

fuzz_target!(|data: &[u8]| {
    let Some((split, head)) = data.split_first() else { return };
    let limits = HeadLimits { max_bytes: 4096, max_headers: 16 };
    let cut = usize::from(*split).min(head.len());
    let part = parse_response(&head[..cut], &REQUEST, &limits);
    let whole = parse_response(head, &REQUEST, &limits);
    if !matches!(part, Ok(Progress::Partial)) {
        assert_eq!(part.is_ok(), whole.is_ok(), "more bytes changed the verdict");
    }
    match whole {
        Ok(Progress::Done { value: Answer::Switched(switched), .. }) => {
            let rebuilt = switched.to_bytes();
            let roomy = HeadLimits { max_bytes: 64 * 1024, max_headers: 64 };
            let again = parse_response(&rebuilt, &REQUEST, &roomy);
            assert!(matches!(again, Ok(Progress::Done { value: Answer::Switched(_), .. })));
        }
        Ok(Progress::Done { value: Answer::Other(other), .. }) => {
            let _ = (other.to_bytes(true), other.to_bytes(false));
        }
        Ok(Progress::Partial) => {}
        Err(bad) => {
            let _ = (bad.label(), bad.refusal().to_bytes());
        }
    }
});
