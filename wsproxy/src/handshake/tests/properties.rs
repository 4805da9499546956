//! What holds for all heads, however they are split.

use proptest::prelude::*;

use super::*;

fn headers() -> impl Strategy<Value = String> {
    let line = ("[A-Za-z][A-Za-z0-9-]{0,10}", "[ -~]{0,20}");
    // No name that the handshake looks at: those have tables of their own.
    proptest::collection::vec(line, 0..6).prop_map(|lines| {
        lines.iter().map(|(name, value)| format!("X-{name}: {value}\r\n")).collect()
    })
}

proptest! {
    #[test]
    fn a_request_means_the_same_however_it_arrives(more in headers(), tail in "[ -~]{0,30}") {
        let head = request_text(&more);
        let all = format!("{head}{tail}");
        let limits = HeadLimits::default();
        let whole = parse_request(all.as_bytes(), &limits);
        let done = matches!(&whole, Ok(Progress::Done { consumed, .. }) if *consumed == head.len());
        prop_assert!(done, "not done");
        for cut in 0..head.len() {
            let part = parse_request(&all.as_bytes()[..cut], &limits);
            prop_assert_eq!(part, Ok(Progress::Partial), "cut at {}", cut);
        }
        for cut in head.len()..all.len() {
            prop_assert_eq!(&parse_request(&all.as_bytes()[..cut], &limits), &whole);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_a_refusal_stays(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let limits = HeadLimits { max_bytes: 200, max_headers: 4 };
        let mut refused = None;
        for cut in 0..=bytes.len() {
            match (parse_request(&bytes[..cut], &limits), &refused) {
                (Err(refusal), None) => refused = Some(refusal),
                (Ok(_), Some(_)) => prop_assert!(false, "refused, then not"),
                _ => {}
            }
        }
        let _ = parse_response(&bytes, &request(""), &limits);
    }

    #[test]
    fn broken_good_requests_never_panic(at in 0usize..180, byte in any::<u8>()) {
        let mut head = request_text("").into_bytes();
        let at = at.min(head.len() - 1);
        head[at] = byte;
        let _ = parse_request(&head, &HeadLimits::default());
    }

    #[test]
    fn what_is_rebuilt_reads_the_same(more in headers(), keeps in any::<bool>()) {
        let more = if keeps { format!("{more}Origin: http://a\r\n") } else { more };
        let first = request(&more);
        let head = build_request(&first.target, &first.headers);
        let Ok(Progress::Done { value: again, consumed }) =
            parse_request(&head, &HeadLimits::default()) else { panic!() };
        prop_assert_eq!(consumed, head.len());
        prop_assert_eq!(&again.target, &first.target);
        prop_assert_eq!(&again.key, &first.key);
        prop_assert_eq!(&again.host, &first.host);
        prop_assert_eq!(&again.origin, &first.origin);
        prop_assert_eq!(&again.headers[..first.headers.len()], &first.headers[..]);
    }

    #[test]
    fn a_body_ends_at_the_same_byte_however_it_is_split(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6),
        step in 1usize..50,
    ) {
        let mut body = Vec::new();
        for chunk in &chunks {
            body.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            body.extend(chunk);
            body.extend(b"\r\n");
        }
        body.extend(b"0\r\n\r\n");
        let end = body.len();
        body.extend(b"next request");
        let mut tracker = BodyTracker::new(BodyFraming::Chunked);
        let mut used = 0;
        for piece in body.chunks(step) {
            used += tracker.feed(piece).unwrap().used;
        }
        prop_assert_eq!((used, tracker.is_complete()), (end, true));
    }

    #[test]
    fn arbitrary_chunks_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = BodyTracker::new(BodyFraming::Chunked).feed(&bytes);
    }
}
