//! Request heads: no panic, the same verdict however the bytes arrive, and what
//! is accepted can be rebuilt into something that is accepted.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wsproxy::handshake::{Forwarded, HeadLimits, Progress, build_request, parse_request};

fuzz_target!(|data: &[u8]| {
    let Some((split, head)) = data.split_first() else { return };
    let limits = HeadLimits { max_bytes: 4096, max_headers: 16 };
    let cut = usize::from(*split).min(head.len());
    let part = parse_request(&head[..cut], &limits);
    let whole = parse_request(head, &limits);
    if !matches!(part, Ok(Progress::Partial)) {
        assert_eq!(part.is_ok(), whole.is_ok(), "more bytes changed the verdict");
    }
    if let (
        Ok(Progress::Done { value: a, consumed: n }),
        Ok(Progress::Done { value: b, consumed: m }),
    ) = (&part, &whole)
    {
        assert_eq!((a, n), (b, m));
    }
    if let Ok(Progress::Done { value, .. }) = whole {
        let forwarded = Forwarded { client_ip: [192, 0, 2, 1].into(), proto: "http" };
        let rebuilt = build_request(&value, &forwarded);
        let roomy = HeadLimits { max_bytes: 64 * 1024, max_headers: 64 };
        match parse_request(&rebuilt, &roomy) {
            Ok(Progress::Done { value: again, consumed }) => {
                assert_eq!(consumed, rebuilt.len());
                assert_eq!(
                    (again.target, again.host, again.key),
                    (value.target, value.host, value.key)
                );
            }
            other => panic!("what was rebuilt is not accepted: {other:?}"),
        }
    }
});
