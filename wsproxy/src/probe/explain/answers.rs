//! Answers that are none, and answers of 101 that are wrong.

use super::super::answer::LIMITS;
use super::super::outcome::{Finding, Outcome};
use super::found;
use crate::handshake::{BadAnswer, HeadFault, HeadLimits, accept_for_key};

const OTHER_VERSION: &str = "its version is neither HTTP/1.1 nor HTTP/1.0";
const PLAIN_TO_TLS: &str = "It is a TLS port that was spoken to in plain: use wss://.";
/// What a client with the key of the example in RFC 6455 section 1.3 gets.
const EXAMPLE_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The connection ended, or broke (`reset`), after `received` bytes of a head.
pub(in super::super) fn ended(received: usize, tls: bool, reset: bool) -> Finding {
    let how = if reset { "reset" } else { "closed" };
    if received > 0 {
        let summary = format!("the server {how} the connection in the middle of its answer");
        let hint = "The server, or something on the way, broke off: search its log.";
        return found(Outcome::BadAnswer, summary, &[hint]);
    }
    let summary = format!("the server {how} the connection without an answer");
    let mut hints = vec![
        "It may have crashed on the request, or refuse this client: by its address, or by the PROXY protocol that it expects.",
    ];
    if !tls {
        hints.push("Or the port wants TLS: try wss://.");
    }
    found(Outcome::BadAnswer, summary, &hints)
}

/// What other protocols say first.
const GREETINGS: &[(&[u8], &str)] = &[
    (b"SSH-", "It is an SSH server."),
    (b"220 ", "It greets as a mail or FTP server does."),
    (b"220-", "It greets as a mail or FTP server does."),
    (b"* OK", "It greets as an IMAP server does."),
    (b"+OK", "It greets as a POP3 server does."),
    (b"-ERR", "It answers as a Redis server does."),
    (b"RFB ", "It is a VNC server."),
    (b"AMQP", "It is an AMQP server."),
    (b"<", "It sends a bare page without a head, as HTTP/0.9 did."),
];

/// A head that is no HTTP/1, or breaks its rules. `bytes` are what came, from
/// the start of the connection on.
pub(in super::super) fn bad_head(fault: &BadAnswer, bytes: &[u8], tls: bool) -> Finding {
    let HeadLimits { max_bytes, max_headers } = LIMITS;
    let why = match fault {
        BadAnswer::Head(error) => match error.fault {
            HeadFault::Tls | HeadFault::StartLine if !bytes.starts_with(b"HTTP/") => {
                return not_http(bytes, tls);
            }
            HeadFault::StartLine if !bytes.starts_with(b"HTTP/1.") => OTHER_VERSION.to_owned(),
            HeadFault::TooLarge => format!("its head is longer than {max_bytes} bytes"),
            HeadFault::TooManyHeaders => format!("it has more than {max_headers} header lines"),
            // Without the line itself, which may hold a secret.
            fault => format!("{} (line {})", fault.explain(), error.line),
        },
        BadAnswer::HttpVersion { .. } => OTHER_VERSION.to_owned(),
        other => other.to_string(),
    };
    let hint = "Some clients let it pass, strict ones and gateways do not: repair the server.";
    found(Outcome::BadAnswer, format!("the answer breaks the rules of HTTP: {why}"), &[hint])
}

fn not_http(bytes: &[u8], tls: bool) -> Finding {
    let summary = "the answer is no HTTP";
    let hint = match bytes {
        // Alert and handshake records (RFC 8446 section 5.1).
        [0x15 | 0x16, 0x03, ..] if !tls => {
            return found(Outcome::BadAnswer, "the answer is TLS", &[PLAIN_TO_TLS]);
        }
        // A frame of SETTINGS with stream 0 (RFC 9113 section 6.5).
        [0, _, _, 4, _, 0, 0, 0, 0, ..] => {
            "It speaks HTTP/2 only: allow HTTP/1.1, which WebSocket needs."
        }
        _ => {
            let known = GREETINGS.iter().find(|(start, _)| bytes.starts_with(start));
            known.map_or("Another protocol is spoken on this port.", |(_, words)| words)
        }
    };
    found(Outcome::BadAnswer, summary, &[hint, "Check host and port."])
}

/// Why a 101 opens no tunnel; `key` is that of the request. What came is escaped in `fault`.
pub(in super::super) fn fault(fault: &BadAnswer, key: &str) -> Finding {
    let bad = |summary: String, hints: &[&str]| found(Outcome::BadAnswer, summary, hints);
    match fault {
        BadAnswer::SwitchedInHttp10 => bad(
            "the answer is a 101 in HTTP/1.0, which has no upgrades".to_owned(),
            &["A proxy on the way speaks HTTP/1.0 (in nginx: proxy_http_version 1.1)."],
        ),
        BadAnswer::BodyNotAllowed { .. } => bad(
            "the answer is a 101 that announces a body".to_owned(),
            &[
                "A 101 ends with its head: the server must send neither a Content-Length nor a Transfer-Encoding.",
            ],
        ),
        BadAnswer::Upgrade { found } => bad(
            missing("Upgrade", "websocket", found),
            &["A proxy on the way may have removed or changed the header of the answer."],
        ),
        BadAnswer::Connection { found } => bad(
            missing("Connection", "Upgrade", found),
            &["A proxy on the way may have replaced the header of the answer."],
        ),
        BadAnswer::Duplicate { name } => bad(
            format!("the answer is a 101 with {name} more than once"),
            &["Two parties on the way both add it: only the WebSocket server must."],
        ),
        BadAnswer::AcceptMissing => bad(
            "the answer is a 101 without Sec-WebSocket-Accept".to_owned(),
            &["Who answered is no WebSocket server, or a proxy on the way removed the header."],
        ),
        BadAnswer::AcceptWrong { found, expected } => bad(
            format!("Sec-WebSocket-Accept is \"{found}\" instead of \"{expected}\""),
            &[wrong_accept(found, key)],
        ),
        BadAnswer::ProtocolNotOffered { found } => bad(
            format!("the server selected subprotocol \"{found}\", which was not offered"),
            &["Clients end the session here. Offer it with --subprotocol, or correct the server."],
        ),
        BadAnswer::ExtensionNotOffered { found } | BadAnswer::Extensions { found } => bad(
            format!("the server selected extension \"{found}\"; none was offered"),
            &["The server, or something on the way, decides this without looking at the request."],
        ),
        other => bad(
            format!("the answer is a 101 that breaks the rules: {other}"),
            &["Clients end the session here: repair the server."],
        ),
    }
}

fn missing(name: &str, wanted: &str, found: &str) -> String {
    if found.is_empty() {
        format!("the answer is a 101 without {name}")
    } else {
        format!("the answer is a 101 with {name} \"{found}\" instead of \"{wanted}\"")
    }
}

fn wrong_accept(found: &str, key: &str) -> &'static str {
    if found == accept_for_key("") {
        "It answers an empty key: Sec-WebSocket-Key got lost on the way to the server."
    } else if found == key {
        "The server sends the key back as it is, instead of its hash (RFC 6455 section 4.2.2)."
    } else if found == EXAMPLE_ACCEPT {
        "It is the example of RFC 6455 section 1.3: the server's answer is fixed."
    } else {
        "It answers another key: the answer is fixed or comes from a cache, or the key was changed on the way."
    }
}
