//! Answers, good and bad.

use super::*;

const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn offered() -> UpgradeRequest {
    request(
        "Sec-WebSocket-Protocol: chat, super\r\nSec-WebSocket-Extensions: permessage-deflate\r\n",
    )
}

fn parse(head: &str) -> Result<Progress<Answer>, BadAnswer> {
    parse_response(head.as_bytes(), &offered(), &HeadLimits::default())
}

fn switching(more: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n{more}\r\n"
    )
}

fn done(head: &str) -> Answer {
    match parse(head) {
        Ok(Progress::Done { value, consumed }) => {
            assert_eq!(consumed, head.len());
            value
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_valid_101_is_rebuilt() {
    let head = switching(
        "Sec-WebSocket-Protocol: super\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\
         Set-Cookie: a=b\r\nKeep-Alive: 1\r\n",
    );
    let Answer::Switched(switched) = done(&head) else { panic!() };
    assert_eq!(switched.protocol.as_deref(), Some("super"));
    let text = String::from_utf8(switched.to_bytes()).unwrap();
    assert!(text.starts_with("HTTP/1.1 101 "));
    for kept in [ACCEPT, "super", "permessage-deflate", "Set-Cookie: a=b"] {
        assert!(text.contains(kept), "{kept}: {text}");
    }
    assert!(!text.contains("Keep-Alive"));
    assert_eq!(text.matches("pgrade").count(), 2, "{text}");
}

#[test]
fn bad_101s() {
    let check = |name: &str, head: &str, label: &str| {
        let bad = parse(head).unwrap_err();
        assert_eq!(bad.label(), label, "{name}: {bad}");
        assert_eq!(bad.refusal().status, 502);
    };
    let good = switching("");
    check("wrong accept", &good.replace("s3p", "x3p"), "accept_wrong");
    let accept = format!("Sec-WebSocket-Accept: {ACCEPT}\r\n");
    check("no accept", &good.replace(&accept, ""), "accept_missing");
    check("two accepts", &switching(&accept), "duplicate");
    check("no upgrade", &good.replace("Upgrade: websocket\r\n", ""), "upgrade");
    check("no connection", &good.replace("Connection: Upgrade\r\n", ""), "connection");
    check("1.0", &good.replace("HTTP/1.1", "HTTP/1.0"), "switched_in_http10");
    check("protocol", &switching("Sec-WebSocket-Protocol: Chat\r\n"), "protocol_not_offered");
    check("extension", &switching("Sec-WebSocket-Extensions: x\r\n"), "extension_not_offered");
    check("body", &switching("Content-Length: 3\r\n"), "body_not_allowed");
    check("chunked", &switching("Transfer-Encoding: chunked\r\n"), "body_not_allowed");
    check("status", "HTTP/1.1 999 X\r\n\r\n", "status");
    check("bare LF", &good.replace("\r\n", "\n"), "bare_lf");
}

#[test]
fn interim_answers_are_stepped_over() {
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    assert!(matches!(parse(early), Ok(Progress::Partial)));
    let head = format!("{early}HTTP/1.1 100 Continue\r\n\r\n{}", switching(""));
    assert!(matches!(done(&head), Answer::Switched(_)));
    // Together they are bounded like one head.
    let flood = early.repeat(1000);
    assert_eq!(parse(&flood).unwrap_err().label(), "too_large");
}

#[test]
fn other_answers_and_their_framing() {
    let check = |head: &str, framing: BodyFraming, kept: &str| {
        let Answer::Other(other) = done(head) else { panic!("{head}") };
        assert_eq!(other.framing, framing, "{head}");
        assert_eq!(other.closes(), framing == BodyFraming::UntilClose);
        let text = String::from_utf8(other.to_bytes(true)).unwrap();
        assert!(text.contains(kept), "{text}");
        let connection =
            if other.closes() { "Connection: close" } else { "Connection: keep-alive" };
        assert!(text.contains(connection), "{text}");
        assert!(String::from_utf8(other.to_bytes(false)).unwrap().contains("Connection: close"));
    };
    let length =
        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 5\r\n\r\n";
    check(length, BodyFraming::Length(5), "WWW-Authenticate: Basic");
    check(length, BodyFraming::Length(5), "Content-Length: 5");
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    check(chunked, BodyFraming::Chunked, "Transfer-Encoding: chunked");
    check("HTTP/1.1 403 No\r\nX: y\r\n\r\n", BodyFraming::UntilClose, "X: y");
    check("HTTP/1.1 204 \r\n\r\n", BodyFraming::None, "204");
    check("HTTP/1.1 304 Same\r\nContent-Length: 9\r\n\r\n", BodyFraming::None, "Content-Length: 9");
}

#[test]
fn ambiguous_framing_is_bad() {
    let check = |more: &str, label: &str| {
        let bad = parse(&format!("HTTP/1.1 200 OK\r\n{more}\r\n")).unwrap_err();
        assert_eq!(bad.label(), label, "{more}");
    };
    check("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", "two_lengths");
    check("Content-Length: 1\r\nContent-Length: 2\r\n", "content_length");
    check("Content-Length: x\r\n", "content_length");
    check("Transfer-Encoding: gzip, chunked\r\n", "transfer_coding");
    check("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "transfer_coding");
    let bad = parse("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap_err();
    assert_eq!(bad.label(), "coding_in_http10");
}
