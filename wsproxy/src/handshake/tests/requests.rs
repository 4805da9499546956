//! Requests, good and bad.

use super::*;

fn check(name: &str, head: &str, expected: Result<(), (u16, &str)>) {
    let found = match parse_request(head.as_bytes(), &HeadLimits::default()) {
        Ok(Progress::Done { consumed, .. }) => {
            assert_eq!(consumed, head.len(), "{name}");
            Ok(())
        }
        Ok(Progress::Partial) => panic!("{name}: partial"),
        Err(refusal) => {
            let text = String::from_utf8(refusal.to_bytes()).unwrap();
            assert!(text.starts_with(&format!("HTTP/1.1 {} ", refusal.status)), "{name}: {text}");
            assert!(refusal.detail.len() > 10, "{name}: {}", refusal.detail);
            Err((refusal.status, refusal.reason.label()))
        }
    };
    assert_eq!(found, expected, "{name}");
}

/// The good request with one line replaced by others.
fn with(line: &str, others: &str) -> String {
    let text = request_text("");
    let found: Vec<_> = text.split_inclusive("\r\n").filter(|l| l.starts_with(line)).collect();
    assert_eq!(found.len(), 1, "{line}");
    text.replace(found[0], others)
}

#[test]
fn good_requests() {
    check("plain", &request_text(""), Ok(()));
    check("token lists", &with("Connection", "connection: keep-alive, UPGRADE\r\n"), Ok(()));
    check("two lines", &with("Upgrade", "Upgrade: h2c\r\nupgrade: WebSocket\r\n"), Ok(()));
    check("length 0", &request_text("Content-Length: 0\r\n"), Ok(()));
    check("absolute form", &with("GET", "GET http://example.com/chat HTTP/1.1\r\n"), Ok(()));
    check("port", &with("Host", "Host: [::1]:8080\r\n"), Ok(()));
}

#[test]
fn refusals() {
    let bad = |name: &str, head: &str, status, label| check(name, head, Err((status, label)));
    bad("no upgrade", &with("Upgrade", ""), 426, "not_websocket");
    bad("other upgrade", &with("Upgrade", "Upgrade: h2c\r\n"), 426, "not_websocket");
    bad("post", &with("GET", "POST / HTTP/1.1\r\n"), 405, "method");
    bad("http/1.0", &with("GET", "GET / HTTP/1.0\r\n"), 505, "http_version");
    bad("no host", &with("Host", ""), 400, "host");
    bad("two hosts", &request_text("Host: example.com\r\n"), 400, "host");
    bad("bad host", &with("Host", "Host: a b\r\n"), 400, "host");
    bad("foreign authority", &with("GET", "GET http://evil/ HTTP/1.1\r\n"), 400, "target");
    bad("fragment", &with("GET", "GET /#x HTTP/1.1\r\n"), 400, "target");
    bad("no connection", &with("Connection", ""), 400, "connection");
    bad("no upgrade token", &with("Connection", "Connection: close\r\n"), 400, "connection");
    bad("no key", &with("Sec-WebSocket-Key", ""), 400, "key");
    bad("two keys", &request_text(&format!("Sec-WebSocket-Key: {KEY}\r\n")), 400, "key");
    bad("short key", &with("Sec-WebSocket-Key", "Sec-WebSocket-Key: YWJj\r\n"), 400, "key");
    let version =
        |v: &str| with("Sec-WebSocket-Version", &format!("Sec-WebSocket-Version: {v}\r\n"));
    bad("version 8", &version("8"), 426, "websocket_version");
    bad("no version", &with("Sec-WebSocket-Version", ""), 400, "websocket_version");
    bad("twice a protocol", &request_text("Sec-WebSocket-Protocol: a, b, a\r\n"), 400, "protocols");
    bad("bad extension", &request_text("Sec-WebSocket-Extensions: x;=\r\n"), 400, "extensions");
}

#[test]
fn shapes_of_request_smuggling() {
    let bad = |name: &str, more: &str, label| check(name, &request_text(more), Err((400, label)));
    bad("body", "Content-Length: 5\r\n", "body");
    bad("chunked", "Transfer-Encoding: chunked\r\n", "body");
    bad("both", "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", "content_length");
    bad("two lengths", "Content-Length: 0\r\nContent-Length: 5\r\n", "content_length");
    bad("a length twice", "Content-Length: 0\r\nContent-Length: 0\r\n", "content_length");
    bad("a signed length", "Content-Length: +0\r\n", "content_length");
    bad("obs-fold", "X: a\r\n b\r\n", "header_syntax");
    bad("space before colon", "X : a\r\n", "header_syntax");
    bad("empty name", ": a\r\n", "header_syntax");
    bad("NUL", "X: a\0b\r\n", "header_syntax");
    bad("bare LF", "X: a\nContent-Length: 5\r\n", "line_ending");
    bad("bare CR", "X: a\rContent-Length: 5\r\n", "line_ending");
    check("LF only", &request_text("").replace("\r\n", "\n"), Err((400, "line_ending")));
    check("TLS", "\u{16}\u{3}\u{1}\0\u{5}hello", Err((400, "tls_on_plain_port")));
}

#[test]
fn limits() {
    let long = request_text(&format!("X: {}\r\n", "a".repeat(20_000)));
    check("long", &long, Err((431, "head_too_large")));
    let many = request_text(&"X: a\r\n".repeat(101));
    check("many", &many, Err((431, "too_many_headers")));
    // Refused as soon as it is too long, not when it is complete.
    let endless = &long.as_bytes()[..17_000];
    assert!(parse_request(endless, &HeadLimits::default()).is_err());
}

#[test]
fn the_version_that_is_spoken_is_said() {
    let head = with("Sec-WebSocket-Version", "Sec-WebSocket-Version: 8\r\n");
    let refusal = parse_request(head.as_bytes(), &HeadLimits::default()).unwrap_err();
    let text = String::from_utf8(refusal.to_bytes()).unwrap();
    assert!(text.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{text}");
}

#[test]
fn the_request_is_rebuilt() {
    let request = request(
        "Origin: http://a\r\nTE: trailers\r\nKeep-Alive: 5\r\nProxy-Authorization: x\r\n\
         Content-Length: 0\r\nCookie: a=b\r\n",
    );
    let text = String::from_utf8(build_request(&request.target, &request.headers)).unwrap();
    assert!(text.starts_with("GET /chat?x=1 HTTP/1.1\r\nHost: example.com\r\n"), "{text}");
    let has = |line: &str| assert!(text.contains(&format!("\r\n{line}\r\n")), "{line}: {text}");
    has("Origin: http://a");
    has("Cookie: a=b");
    has(&format!("Sec-WebSocket-Key: {KEY}"));
    for gone in ["TE:", "Keep-Alive", "Proxy-Authorization", "Content-Length"] {
        assert!(!text.contains(gone), "{gone}: {text}");
    }
    assert_eq!(text.matches("Upgrade: websocket\r\n").count(), 1);
    assert!(text.ends_with("\r\n\r\n"));
}

fn incoming(head: &str) -> Result<Incoming, (u16, &'static str)> {
    match parse_incoming(head.as_bytes(), &HeadLimits::default()) {
        Ok(Progress::Done { value, consumed }) => {
            assert_eq!(consumed, head.len(), "{head}");
            Ok(value)
        }
        Ok(Progress::Partial) => panic!("{head}: partial"),
        Err(refusal) => Err((refusal.status, refusal.reason.label())),
    }
}

#[test]
fn plain_requests() {
    use BodyFraming::{Chunked, Length, None};
    for (line, more, framing) in [
        ("GET / HTTP/1.1", "", None),
        ("GET /a.b/..c/x%2e HTTP/1.1", "", None),
        ("HEAD / HTTP/1.0", "", None),
        ("OPTIONS * HTTP/1.1", "", None),
        ("POST / HTTP/1.1", "Content-Length: 3\r\n", Length(3)),
        ("POST / HTTP/1.1", "Content-Length: 0\r\n", None),
        ("PUT / HTTP/1.1", "Transfer-Encoding: Chunked\r\n", Chunked),
        ("GET / HTTP/1.1", "Upgrade: h2c\r\nConnection: Upgrade\r\n", None),
    ] {
        let method = line.split(' ').next().unwrap().to_owned();
        let head = format!("{line}\r\nHost: a\r\n{more}\r\n");
        let expected = Incoming::Plain(PlainRequest { method, framing });
        assert_eq!(incoming(&head), Ok(expected), "{head}");
    }
}

#[test]
fn plain_requests_with_two_readings_are_refused() {
    for (line, more, refused) in [
        (
            "POST / HTTP/1.1",
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            (400, "content_length"),
        ),
        ("POST / HTTP/1.1", "Content-Length: 3\r\nContent-Length: 3\r\n", (400, "content_length")),
        ("POST / HTTP/1.1", "Content-Length: 3, 3\r\n", (400, "content_length")),
        ("POST / HTTP/1.1", "Content-Length: +3\r\n", (400, "content_length")),
        ("POST / HTTP/1.1", "Transfer-Encoding: gzip, chunked\r\n", (400, "transfer_encoding")),
        (
            "POST / HTTP/1.1",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            (400, "transfer_encoding"),
        ),
        ("POST / HTTP/1.1", "Transfer-Encoding: xchunked\r\n", (400, "transfer_encoding")),
        ("POST / HTTP/1.0", "Transfer-Encoding: chunked\r\n", (400, "transfer_encoding")),
        ("GET / HTTP/1.1", "Host: b\r\n", (400, "host")),
        ("GET / HTTP/2.0", "", (505, "http_version")),
        ("GET * HTTP/1.1", "", (400, "target")),
        ("CONNECT a:1 HTTP/1.1", "", (405, "method")),
        ("TRACE / HTTP/1.1", "", (405, "method")),
        ("GET / HTTP/1.1", "Connection: a b\r\n", (400, "connection")),
        ("GET /a/../b HTTP/1.1", "", (400, "target")),
        ("GET /a/./b HTTP/1.1", "", (400, "target")),
        ("GET /.. HTTP/1.1", "", (400, "target")),
        ("GET /%2e%2E/b HTTP/1.1", "", (400, "target")),
        ("GET /%2e%2e%2fb HTTP/1.1", "", (400, "target")),
        ("GET /a/..%5cb HTTP/1.1", "", (400, "target")),
        ("GET http://b/ HTTP/1.1", "", (400, "target")),
    ] {
        let head = format!("{line}\r\nHost: a\r\n{more}\r\n");
        assert_eq!(incoming(&head), Err(refused), "{head}");
    }
    // In a query dots are dots.
    assert!(incoming("GET /?a=/../b HTTP/1.1\r\nHost: a\r\n\r\n").is_ok());
}

#[test]
fn connection_removes_what_it_may_and_nothing_else() {
    let text = request_text("X-Hop: 1\r\nCookie: a=b\r\nAuthorization: x\r\n").replace(
        "Connection: Upgrade",
        "Connection: Upgrade, X-Hop, Host, Cookie, Authorization, Sec-WebSocket-Key",
    );
    let parsed = parse_request(text.as_bytes(), &HeadLimits::default());
    let Ok(Progress::Done { value, .. }) = parsed else { panic!("{parsed:?}") };
    let names: Vec<_> = value.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert!(!names.contains(&"X-Hop"));
    for kept in ["Host", "Cookie", "Authorization", "Sec-WebSocket-Key"] {
        assert!(names.contains(&kept), "{kept}: {names:?}");
    }
}

#[test]
fn paths_that_servers_read_in_two_ways() {
    for (target, fault) in [
        ("/", None),
        ("/a.b/..c/...", None),
        ("/a;../b;.;x=..", None),
        ("/a?/../..;\\", None),
        ("/%2e%2e%2e/%", None),
        ("/%255c", None),
        ("/..", Some("segments")),
        ("/./a", Some("segments")),
        ("/a/%2E%2e/b", Some("segments")),
        ("/a%2f..", Some("segments")),
        ("/..;", Some("segments")),
        ("/a/..;x=y;z/b", Some("segments")),
        ("/.;/a", Some("segments")),
        ("/%2e.;/a", Some("segments")),
        ("/..%3B/a", Some("segments")),
        ("/\\a", Some("backslash")),
        ("/a/\\..\\b", Some("backslash")),
        ("/a%5cb", Some("backslash")),
        ("/a%5C", Some("backslash")),
    ] {
        for head in [
            format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"),
            format!("GET http://a{target} HTTP/1.1\r\nHost: a\r\n\r\n"),
            with("GET", &format!("GET {target} HTTP/1.1\r\n")),
        ] {
            let found = parse_incoming(head.as_bytes(), &HeadLimits::default());
            match (found, fault) {
                (Ok(Progress::Done { .. }), None) => {}
                (Err(refusal), Some(fault)) => {
                    assert_eq!((refusal.status, refusal.reason.label()), (400, "target"));
                    assert!(refusal.detail.contains(fault), "{target}: {}", refusal.detail);
                }
                (found, _) => panic!("{target}: {found:?}"),
            }
        }
    }
}

#[test]
fn what_is_told_of_a_bad_head() {
    let long = format!("GET /{} HTTP/1.1", "x".repeat(1000));
    let shown = format!("/{}...", "x".repeat(255));
    for (head, method, target, version) in [
        ("GET /a?b HTTP/1.1\r\nHost", "GET", "/a?b", "HTTP/1.1"),
        ("\r\nGET /a HTTP/1.0\n", "GET", "/a", "HTTP/1.0"),
        ("GET /a\\b HTTP/9.9", "GET", "/a\\b", "HTTP/9.9"),
        ("GET /a b c\r\n", "GET", "/a", "-"),
        ("GET /par", "GET", "/par", "-"),
        ("GET ", "GET", "-", "-"),
        ("GET", "-", "-", "-"),
        ("", "-", "-", "-"),
        (" /a HTTP/1.1", "-", "-", "-"),
        ("G(T /a HTTP/1.1", "-", "-", "-"),
        ("\u{16}\u{3}\u{1} \0 x", "-", "-", "-"),
        (&long, "GET", &shown, "HTTP/1.1"),
        (&long[4..], "-", "-", "-"),
    ] {
        let Glimpse { method: m, target: t, version: v } = Glimpse::of(head.as_bytes());
        assert_eq!((&*m, &*t, &*v), (method, target, version), "{head:?}");
    }
    assert_eq!(Glimpse::of(b"GET /\xff HTTP/1.1").target, "/\u{fffd}");
}
