use super::*;
use crate::handshake::HeadFault;
use proptest::prelude::*;

fn read(text: &[u8]) -> Result<Option<Answer>, BadAnswer> {
    Answer::read(text)
}

fn fault_of(text: &[u8]) -> HeadFault {
    match read(text) {
        Err(BadAnswer::Head(error)) => error.fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn interim_heads_are_stepped_over() {
    let text =
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 101 S P\r\nUpgrade: a, WebSocket\r\n\
                 upgrade:b\r\n\r\nrest";
    let answer = read(text).unwrap().unwrap();
    assert_eq!(answer.interim, [103]);
    assert_eq!(&text[answer.end..], b"rest");
    assert_eq!((answer.head.status, answer.head.reason.as_slice()), (101, &b"S P"[..]));
    assert!(answer.head.lists("UPGRADE", "websocket"));
    assert!(!answer.head.lists("upgrade", "web"));
}

#[test]
fn faults() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(LIMITS.max_bytes));
    let many = format!("HTTP/1.1 200 OK\r\n{}", "X: a\r\n".repeat(LIMITS.max_headers + 1));
    let cases: &[(&[u8], HeadFault)] = &[
        (b"SSH-2.0", HeadFault::StartLine),
        (b"\x15\x03\x03", HeadFault::Tls),
        (b"HTTP/1.1 20 OK\r\n", HeadFault::StartLine),
        (b"HTTP/2 200 OK\r\n", HeadFault::StartLine),
        (b"HTTP/1.1 200 OK\n", HeadFault::BareLf),
        (b"HTTP/1.1 200 O\rK\r\n", HeadFault::BareCr),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n", HeadFault::ObsFold),
        (b"HTTP/1.1 200 OK\r\nA\r\n", HeadFault::MissingColon),
        (b"HTTP/1.1 200 OK\r\nA : b\r\n", HeadFault::SpaceBeforeColon),
        (b"HTTP/1.1 200 OK\r\n: b\r\n", HeadFault::EmptyName),
        (b"HTTP/1.1 200 OK\r\nA: b\0c\r\n", HeadFault::ControlByte),
        (long.as_bytes(), HeadFault::TooLarge),
        (many.as_bytes(), HeadFault::TooManyHeaders),
    ];
    for (text, fault) in cases {
        assert_eq!(fault_of(text), *fault, "{}", text.escape_ascii());
    }
    let status = |found| Err(BadAnswer::Status { found });
    assert_eq!(read(b"HTTP/1.1 999 X\r\n\r\n"), status(999));
    assert_eq!(read(b"HTTP/1.1 099 X\r\n\r\n"), status(99));
    let version = BadAnswer::HttpVersion { found: "HTTP/2.0".into() };
    assert_eq!(read(b"HTTP/2.0 200 OK\r\n\r\n"), Err(version));
}

#[test]
fn interim_heads_count_for_the_limit() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(1000);
    assert_eq!(fault_of(interim.as_bytes()), HeadFault::TooLarge);
}

#[test]
fn bodies() {
    let cases: &[(&str, &[u8], &[u8], bool)] = &[
        ("200", b"whatever", b"whatever", false),
        ("200 OK\r\nContent-Length: 3", b"abcd", b"abc", true),
        ("200 OK\r\nContent-Length: 9", b"abcd", b"abcd", false),
        ("204 No\r\nContent-Length: 9", b"abcd", b"", true),
        (
            "200 OK\r\nTransfer-Encoding: chunked",
            b"3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n",
            b"abcde",
            true,
        ),
        ("200 OK\r\nTransfer-Encoding: chunked", b"ff\r\nabc", b"abc", false),
        ("200 OK\r\nTransfer-Encoding: chunked", b"zz\r\nabc", b"", true),
    ];
    for (head, raw, body, complete) in cases {
        let answer = read(format!("HTTP/1.1 {head}\r\n\r\n").as_bytes()).unwrap().unwrap();
        assert_eq!(answer.head.body(raw), (body.to_vec(), *complete), "{head}");
    }
}

proptest! {
    #[test]
    fn splits_do_not_matter(cut in 0_usize..80) {
        let text = b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
        let cut = cut.min(text.len());
        let part = read(&text[..cut]).unwrap();
        prop_assert_eq!(part.is_some(), cut == text.len());
    }

    #[test]
    fn never_panics(bytes: Vec<u8>, tail: Vec<u8>) {
        let _ = read(&bytes);
        let text = [b"HTTP/1.1 200 OK\r\n".as_slice(), &bytes].concat();
        let _ = read(&text);
        let _ = dechunked(&[b"5\r\n".as_slice(), &tail].concat());
    }
}
