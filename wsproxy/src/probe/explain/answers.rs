//! Answers that are none, and answers of 101 that are wrong.

use super::super::answer::HeadFault;
use super::super::judge::Fault;
use super::super::outcome::{Finding, Outcome};
use super::super::shared::{MAX_HEAD_BYTES, MAX_HEADERS, accept_for_key};
use super::super::shown::shown;
use super::found;

const PLAIN_TO_TLS: &str = "It is a TLS port that was spoken to in plain: use wss://.";
/// What a client with the key of the example in RFC 6455 section 1.3 gets.
const EXAMPLE_ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// The most bytes shown of one value.
const MAX_VALUE_BYTES: usize = 128;

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
pub(in super::super) fn bad_head(fault: HeadFault, bytes: &[u8], tls: bool) -> Finding {
    if fault == HeadFault::NotHttp {
        return not_http(bytes, tls);
    }
    let why = match fault {
        HeadFault::NotHttp => "its first line is no status line".to_owned(),
        HeadFault::Version => "its version is neither HTTP/1.1 nor HTTP/1.0".to_owned(),
        HeadFault::Status => "its status code is not from 100 to 599".to_owned(),
        HeadFault::BareLf => "a line ends with LF alone instead of CR LF".to_owned(),
        HeadFault::BareCr => "a CR is not followed by LF".to_owned(),
        HeadFault::Folded => "a header line starts with white space".to_owned(),
        HeadFault::NoColon => "a header line has no colon".to_owned(),
        HeadFault::Name => {
            "a header name contains a character that is not allowed there".to_owned()
        }
        HeadFault::ControlByte => "a header value contains a control character".to_owned(),
        HeadFault::TooLarge => format!("its head is longer than {MAX_HEAD_BYTES} bytes"),
        HeadFault::TooManyHeaders => format!("it has more than {MAX_HEADERS} header lines"),
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

/// Why a 101 opens no tunnel.
pub(in super::super) fn fault(fault: &Fault) -> Finding {
    let bad = |summary: String, hints: &[&str]| found(Outcome::BadAnswer, summary, hints);
    let value = |bytes: &[u8]| shown(bytes, MAX_VALUE_BYTES);
    match fault {
        Fault::Http10 => bad(
            "the answer is a 101 in HTTP/1.0, which has no upgrades".to_owned(),
            &["A proxy on the way speaks HTTP/1.0 (in nginx: proxy_http_version 1.1)."],
        ),
        Fault::Body => bad(
            "the answer is a 101 that announces a body".to_owned(),
            &[
                "A 101 ends with its head: the server must send neither a Content-Length nor a Transfer-Encoding.",
            ],
        ),
        Fault::Upgrade(found) => bad(
            missing("Upgrade", "websocket", &value(found)),
            &["A proxy on the way may have removed the header from the answer."],
        ),
        Fault::Connection(found) => bad(
            missing("Connection", "Upgrade", &value(found)),
            &["A proxy on the way may have replaced the header of the answer."],
        ),
        Fault::Duplicate(name) => bad(
            format!("the answer is a 101 with {name} more than once"),
            &["Two parties on the way both add it: only the WebSocket server must."],
        ),
        Fault::AcceptMissing => bad(
            "the answer is a 101 without Sec-WebSocket-Accept".to_owned(),
            &["Who answered is no WebSocket server, or a proxy on the way removed the header."],
        ),
        Fault::AcceptWrong { found, expected, key } => {
            let found_text = value(found);
            let summary =
                format!("Sec-WebSocket-Accept is \"{found_text}\" instead of \"{expected}\"");
            bad(summary, &[wrong_accept(found, key)])
        }
        Fault::Protocol(found) => bad(
            format!("the server selected subprotocol \"{}\", which was not offered", value(found)),
            &["Clients end the session here. Offer it with --subprotocol, or correct the server."],
        ),
        Fault::Extension(found) => bad(
            format!("the server selected extension \"{}\"; none was offered", value(found)),
            &["The server, or something on the way, decides this without looking at the request."],
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

fn wrong_accept(found: &[u8], key: &str) -> &'static str {
    if found == accept_for_key("").as_bytes() {
        "It answers an empty key: Sec-WebSocket-Key got lost on the way to the server."
    } else if found == key.as_bytes() {
        "The server sends the key back as it is, instead of its hash (RFC 6455 section 4.2.2)."
    } else if found == EXAMPLE_ACCEPT {
        "It is the example of RFC 6455 section 1.3: the server's answer is fixed."
    } else {
        "It answers another key: the answer is fixed or comes from a cache, or the key was changed on the way."
    }
}
