//! What a client checks of a 101 (RFC 6455 section 4.1).

use super::answer::Head;
use super::shared::accept_for_key;

/// Why a 101 opens no tunnel. What came is as received, unescaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// 101 in HTTP/1.0, which has no upgrades (RFC 9110 section 7.8).
    Http10,
    /// It announces a body (RFC 9110 section 8.6).
    Body,
    /// No `websocket` in `Upgrade`; what it says, empty if there is none.
    Upgrade(Vec<u8>),
    /// No `upgrade` in `Connection`; what it says, empty if there is none.
    Connection(Vec<u8>),
    /// A header twice that may come once (RFC 6455 section 11.3).
    Duplicate(&'static str),
    /// No `Sec-WebSocket-Accept`.
    AcceptMissing,
    /// A `Sec-WebSocket-Accept` that answers another key.
    AcceptWrong {
        /// What came.
        found: Vec<u8>,
        /// What the key asks for.
        expected: String,
        key: String,
    },
    /// A subprotocol that was not offered.
    Protocol(Vec<u8>),
    /// An extension; none was offered.
    Extension(Vec<u8>),
}

/// Checks a 101; the selected subprotocol if it is in order.
pub(super) fn judge(head: &Head, key: &str, offered: &[String]) -> Result<Option<String>, Fault> {
    if head.http_1_0 {
        return Err(Fault::Http10);
    }
    let empty = head.first("content-length").is_none() || head.content_length() == Some(0);
    if !empty || head.first("transfer-encoding").is_some() {
        return Err(Fault::Body);
    }
    if !head.lists("upgrade", "websocket") {
        return Err(Fault::Upgrade(head.joined("upgrade")));
    }
    if !head.lists("connection", "upgrade") {
        return Err(Fault::Connection(head.joined("connection")));
    }
    check_accept(head, key)?;
    let protocol = check_protocol(head, offered)?;
    match head.first("sec-websocket-extensions") {
        Some(found) => Err(Fault::Extension(found.to_vec())),
        None => Ok(protocol),
    }
}

fn check_accept(head: &Head, key: &str) -> Result<(), Fault> {
    let found = at_most_one(head, "Sec-WebSocket-Accept")?.ok_or(Fault::AcceptMissing)?;
    let expected = accept_for_key(key);
    if found == expected.as_bytes() {
        return Ok(());
    }
    Err(Fault::AcceptWrong { found: found.to_vec(), expected, key: key.to_owned() })
}

fn check_protocol(head: &Head, offered: &[String]) -> Result<Option<String>, Fault> {
    let Some(chosen) = at_most_one(head, "Sec-WebSocket-Protocol")? else { return Ok(None) };
    let known = offered.iter().find(|name| name.as_bytes() == chosen);
    known.cloned().map(Some).ok_or_else(|| Fault::Protocol(chosen.to_vec()))
}

fn at_most_one<'a>(head: &'a Head, name: &'static str) -> Result<Option<&'a [u8]>, Fault> {
    let mut values = head.all(name);
    let first = values.next();
    if values.next().is_some() { Err(Fault::Duplicate(name)) } else { Ok(first) }
}

#[cfg(test)]
mod tests {
    use super::super::answer::Answer;
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: &str = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    const SWITCH: &str = "Upgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\n";

    fn judged(lines: &[&str]) -> Result<Option<String>, Fault> {
        let text = format!("HTTP/1.1 101 Switching Protocols\r\n{}\r\n", lines.concat());
        let answer = Answer::read(text.as_bytes()).unwrap().unwrap();
        judge(&answer.head, KEY, &["chat".to_owned(), "b".to_owned()])
    }

    #[test]
    fn good() {
        assert_eq!(judged(&[SWITCH, ACCEPT]), Ok(None));
        assert_eq!(judged(&[SWITCH, ACCEPT, "Content-Length: 0\r\n"]), Ok(None));
        let chosen = judged(&[SWITCH, ACCEPT, "Sec-WebSocket-Protocol: b\r\n"]);
        assert_eq!(chosen, Ok(Some("b".into())));
    }

    #[test]
    fn bad() {
        let connection = "Connection: upgrade\r\n";
        let cases: &[(&[&str], Fault)] = &[
            (&[connection, ACCEPT], Fault::Upgrade(vec![])),
            (&["Upgrade: h2c\r\n", connection, ACCEPT], Fault::Upgrade(b"h2c".into())),
            (&["Upgrade: websocket\r\n", ACCEPT], Fault::Connection(vec![])),
            (&[SWITCH], Fault::AcceptMissing),
            (&[SWITCH, ACCEPT, ACCEPT], Fault::Duplicate("Sec-WebSocket-Accept")),
            (&[SWITCH, ACCEPT, "Content-Length: 5\r\n"], Fault::Body),
            (&[SWITCH, ACCEPT, "Transfer-Encoding: chunked\r\n"], Fault::Body),
            (&[SWITCH, ACCEPT, "Sec-WebSocket-Protocol: x\r\n"], Fault::Protocol(b"x".into())),
            (&[SWITCH, ACCEPT, "Sec-WebSocket-Extensions: x\r\n"], Fault::Extension(b"x".into())),
        ];
        for (lines, fault) in cases {
            assert_eq!(judged(lines).as_ref(), Err(fault));
        }
        let wrong = judged(&[SWITCH, "Sec-WebSocket-Accept: x\r\n"]);
        assert!(matches!(wrong, Err(Fault::AcceptWrong { found, .. }) if found == b"x"));
    }

    #[test]
    fn no_upgrades_in_http_1_0() {
        let text = format!("HTTP/1.0 101 OK\r\n{SWITCH}{ACCEPT}\r\n");
        let answer = Answer::read(text.as_bytes()).unwrap().unwrap();
        assert_eq!(judge(&answer.head, KEY, &[]), Err(Fault::Http10));
    }
}
