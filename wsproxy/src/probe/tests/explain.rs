use std::io;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use super::super::frame::FrameFault;
use super::super::link::Lost;
use super::super::target::Target;
use super::*;
use crate::handshake::{BadAnswer, HeadError, HeadFault, accept_for_key};

fn says(finding: &Finding, wanted: &str) -> bool {
    finding.summary.contains(wanted) || finding.hints.iter().any(|hint| hint.contains(wanted))
}

fn answer<'a>(status: u16, target: &'a Target) -> Refused<'a> {
    Refused {
        status,
        reason: "Reason".into(),
        http_1_0: false,
        target,
        origin_given: false,
        location: None,
        retry_after: None,
        challenge: None,
        versions: None,
        body: String::new(),
    }
}

#[test]
fn every_status_is_explained() {
    let target = Target::read("ws://a/ws").unwrap();
    for status in 200..=599 {
        let finding = refused(&answer(status, &target));
        assert_eq!(finding.outcome, Outcome::Refused);
        assert!(!finding.hints.is_empty(), "{status}");
    }
    for (status, words) in [
        (200, "plain HTTP request"),
        (400, "proxy_set_header Upgrade"),
        (401, "Authorization"),
        (403, "--origin"),
        (404, "route"),
        (426, "Upgrade"),
        (429, "limit"),
        (502, "down"),
        (503, "limit"),
        (504, "slow"),
        (505, "HTTP/1.1"),
        (299, "plain HTTP request"),
        (499, "does not take"),
        (599, "failed"),
    ] {
        assert!(says(&refused(&answer(status, &target)), words), "{status}");
    }
}

#[test]
fn the_facts_of_an_answer_count() {
    let target = Target::read("ws://a/ws").unwrap();
    let with = |status, change: fn(&mut Refused<'_>)| {
        let mut answer = answer(status, &target);
        change(&mut answer);
        refused(&answer)
    };
    assert!(!says(&with(403, |a| a.origin_given = true), "--origin"));
    assert!(says(&with(503, |a| a.retry_after = Some("7".into())), "again in 7 s"));
    assert!(says(&with(429, |a| a.retry_after = Some("Fri".into())), "again Fri ("));
    assert!(says(&with(400, |a| a.http_1_0 = true), "HTTP/1.0"));
    assert!(says(&with(401, |a| a.challenge = Some("Basic".into())), "asks for: Basic"));
    let old = with(426, |a| a.versions = Some("7, 8".into()));
    assert!(says(&old, "version 7, 8") && !says(&old, "proxy_set_header"));
    assert!(says(&with(426, |a| a.versions = Some("13".into())), "proxy_set_header"));
    let own = String::from_utf8(crate::tls::plain_http_answer(b"GET /").unwrap().into()).unwrap();
    for body in [
        own.as_str(),
        "<title>400 The plain HTTP request was sent to HTTPS port</title>",
        "Client sent an HTTP request to an HTTPS server.",
        "You're speaking plain HTTP to an SSL-enabled server port.",
        "This combination of host and port requires TLS.",
    ] {
        let mut answer = answer(400, &target);
        answer.body = body.into();
        assert_eq!(refused(&answer).hints.len(), 1);
        assert!(says(&refused(&answer), "wss://"), "{body}");
    }
}

#[test]
fn redirects_say_where_to() {
    for (from, location, words) in [
        ("ws://a/ws", "https://a/ws", "wants TLS: try wss://a/ws"),
        ("ws://a:8080/ws", "https://a/ws", "wants TLS: try wss://a/ws"),
        ("ws://a/ws", "/ws/", "slash at the end of the path is different: try ws://a/ws/"),
        ("wss://a/ws/", "https://a/ws", "slash at the end"),
        ("ws://a/x/ws?y", "other", "Try ws://a/x/other"),
        ("wss://a/ws", "//b/ws", "Try wss://b/ws"),
        ("wss://a/ws", "https://a/ws#x", "endless"),
        ("wss://a/ws", "/login?next=/ws", "log-in page"),
        ("wss://a/ws", "mailto:x y", "redirect to mailto:x y"),
    ] {
        let target = Target::read(from).unwrap();
        for status in [301, 302, 307, 308] {
            let mut answer = answer(status, &target);
            answer.location = Some(location.into());
            assert!(says(&refused(&answer), words), "{from} {location}: {:?}", refused(&answer));
            assert!(says(&refused(&answer), location));
        }
        assert!(says(&refused(&answer(301, &target)), "without a Location"));
    }
}

#[test]
fn what_is_no_http() {
    for (bytes, tls, words) in [
        (&b"\x15\x03\x01\x00\x02\x02\x46"[..], false, "use wss://"),
        (b"\x16\x03\x03", false, "use wss://"),
        (b"\0\0\x12\x04\0\0\0\0\0\0", true, "HTTP/2"),
        (b"SSH-2.0-OpenSSH", false, "SSH"),
        (b"220 mail", false, "mail"),
        (b"-ERR unknown", false, "Redis"),
        (b"<html>", false, "page"),
        (b"\x01\x02", false, "Another protocol"),
    ] {
        let finding = bad_head(&head(HeadFault::StartLine), bytes, tls);
        assert_eq!(finding.outcome, Outcome::BadAnswer);
        assert!(says(&finding, words), "{words}: {finding:?}");
    }
    let bad = |fault| bad_head(&head(fault), b"HTTP/1.1", false);
    assert!(says(&bad(HeadFault::BareLf), "LF alone instead of CR LF (line 3)"));
    assert!(!says(&bad(HeadFault::BareLf), "secret"));
    assert!(says(&bad(HeadFault::TooLarge), "16384"));
    assert!(says(&bad(HeadFault::TooManyHeaders), "100 header lines"));
    assert!(says(&bad(HeadFault::StartLine), "no start line of HTTP/1"));
    let two = bad_head(&head(HeadFault::StartLine), b"HTTP/2 200", false);
    assert!(says(&two, "neither HTTP/1.1"));
    let status = BadAnswer::Status { found: 999 };
    assert!(says(&bad_head(&status, b"HTTP/1.1 999 X", false), "its status is 999"));
}

fn head(fault: HeadFault) -> BadAnswer {
    HeadError { fault, line: 3, excerpt: "Set-Cookie: secret".into() }.into()
}

#[test]
fn wrong_answers_of_101() {
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    let told = |bad: BadAnswer| fault(&bad, key);
    let wrong =
        |found: &str| told(BadAnswer::AcceptWrong { found: found.into(), expected: "e".into() });
    let empty = String::new;
    let x = || "x".to_owned();
    for (finding, words) in [
        (wrong(&accept_for_key("")), "empty key"),
        (wrong(key), "as it is"),
        (wrong("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "example of RFC 6455"),
        (wrong("x"), "cache"),
        (wrong("x"), "\"x\" instead of \"e\""),
        (told(BadAnswer::AcceptMissing), "without Sec-WebSocket-Accept"),
        (told(BadAnswer::SwitchedInHttp10), "HTTP/1.0"),
        (told(BadAnswer::Upgrade { found: empty() }), "101 without Upgrade"),
        (told(BadAnswer::Connection { found: x() }), "Connection \"x\" instead of"),
        (told(BadAnswer::ProtocolNotOffered { found: x() }), "\"x\", which was not offered"),
        (told(BadAnswer::ExtensionNotOffered { found: x() }), "\"x\"; none was offered"),
        (told(BadAnswer::Extensions { found: x() }), "\"x\"; none was offered"),
        (told(BadAnswer::Duplicate { name: "X-Y" }), "X-Y more than once"),
        (told(BadAnswer::BodyNotAllowed { status: 101, name: "X" }), "body"),
        (told(BadAnswer::ContentLength { found: x() }), "Content-Length is \"x\""),
    ] {
        assert_eq!(finding.outcome, Outcome::BadAnswer);
        assert!(says(&finding, words), "{words}: {finding:?}");
    }
}

#[test]
fn lost_connections() {
    let reset = || Lost::Io(io::ErrorKind::ConnectionReset.into());
    let alert = Error::AlertReceived(AlertDescription::CertificateRequired);
    for (finding, outcome, words) in [
        (lost(&Lost::Ended, 0, false), Outcome::BadAnswer, "try wss://"),
        (lost(&Lost::Ended, 0, true), Outcome::BadAnswer, "closed the connection without"),
        (lost(&Lost::Ended, 5, true), Outcome::BadAnswer, "in the middle"),
        (lost(&reset(), 0, true), Outcome::BadAnswer, "reset the connection without"),
        (lost(&Lost::Timeout, 0, true), Outcome::Timeout, "no answer in time"),
        (lost(&Lost::Timeout, 9, true), Outcome::Timeout, "did not end"),
        (lost(&Lost::Io(io::Error::other(alert)), 0, true), Outcome::Tls, "client certificate"),
    ] {
        assert_eq!(finding.outcome, outcome);
        assert!(says(&finding, words), "{words}: {finding:?}");
    }
    assert!(!says(&lost(&Lost::Ended, 0, true), "wss://"));
    assert!(says(&timeout(Phase::Resolve), "DNS"));
    assert!(says(&timeout(Phase::Tls), "ws://"));
}

#[test]
fn names_and_connections() {
    for (error, words) in [
        ("failed: Name or service not known", "spelling"),
        ("failed: Temporary failure in name resolution", "did not answer"),
        ("failed: No address associated with hostname", "no A or AAAA"),
        ("", "spelling"),
    ] {
        assert!(resolve(error)[0].contains(words), "{error}");
    }
    for (kind, outcome, words) in [
        (io::ErrorKind::ConnectionRefused, Outcome::Connect, "Nothing listens"),
        (io::ErrorKind::NetworkUnreachable, Outcome::Connect, "no way"),
        (io::ErrorKind::TimedOut, Outcome::Timeout, "firewall"),
    ] {
        let finding = connect(Some(&kind.into()));
        assert_eq!(finding.outcome, outcome);
        assert!(says(&finding, words), "{finding:?}");
    }
}

#[test]
fn certificates_and_alerts() {
    let system = Trusted { file: false, none: false };
    for (error, trusted, words) in [
        (CertificateError::Expired, system, "expired"),
        (CertificateError::NotValidYet, system, "clock"),
        (CertificateError::NotValidForName, system, "not for a.example"),
        (CertificateError::UnknownIssuer, system, "use --ca"),
        (CertificateError::UnknownIssuer, Trusted { file: true, none: false }, "file of --ca"),
        (CertificateError::UnknownIssuer, Trusted { file: false, none: true }, "ca-certificates"),
        (CertificateError::InvalidPurpose, system, "serverAuth"),
        (CertificateError::BadEncoding, system, "v1"),
    ] {
        let finding = certificate(&error, "a.example", &trusted);
        assert_eq!(finding.outcome, Outcome::Tls);
        assert!(says(&finding, words) && says(&finding, "--insecure"), "{finding:?}");
    }
    let alert = |alert| tls_error(&Error::AlertReceived(alert));
    assert!(says(&alert(AlertDescription::UnrecognisedName), "SNI"));
    assert!(says(&alert(AlertDescription::ProtocolVersion), "TLS 1.2"));
    assert!(says(&alert(AlertDescription::NoApplicationProtocol), "ALPN"));
    let plain = Error::InvalidMessage(InvalidMessage::InvalidContentType);
    assert!(says(&tls(&io::Error::other(plain)), "use ws://"));
    assert!(says(&tls(&io::ErrorKind::UnexpectedEof.into()), "closed the connection"));
}

#[test]
fn frames_and_close_codes() {
    for (code, words) in [
        (1000, "normal"),
        (1008, "policy"),
        (1011, "internal"),
        (3500, "library"),
        (4001, "application"),
        (2000, "must not"),
    ] {
        assert!(close_code(code).contains(words), "{code}");
    }
    assert!(closed(Some(1008)).contains("log-in"));
    assert!(closed(None).contains("application"));
    assert!(frame_fault(FrameFault::Masked).contains("only clients mask"));
    assert!(frame_fault(FrameFault::Opcode(3)).contains("opcode 3"));
}
