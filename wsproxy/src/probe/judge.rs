//! What a client checks of a 101 (RFC 6455 section 4.1): what the gateway checks of its upstream
//! servers.

use super::answer::Head;
use crate::handshake::{self, BadAnswer, UpgradeRequest};

/// Checks a 101; the selected subprotocol if it is in order.
pub(super) fn judge(head: &Head, asked: &UpgradeRequest) -> Result<Option<String>, BadAnswer> {
    handshake::switched(&head.line(), &head.fields(), asked).map(|switched| switched.protocol)
}

#[cfg(test)]
mod tests {
    use super::super::answer::Answer;
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: &str = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    const SWITCH: &str = "Upgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\n";

    fn judged(line: &str, lines: &[&str]) -> Result<Option<String>, BadAnswer> {
        let text = format!("{line}\r\n{}\r\n", lines.concat());
        let answer = Answer::read(text.as_bytes()).unwrap().unwrap();
        let protocols = vec!["chat".to_owned(), "b".to_owned()];
        let asked = handshake::check_request("/", "a", KEY);
        judge(&answer.head, &UpgradeRequest { protocols, ..asked })
    }

    #[test]
    fn by_the_rules_of_the_gateway() {
        let line = "HTTP/1.1 101 Switching Protocols";
        assert_eq!(judged(line, &[SWITCH, ACCEPT]), Ok(None));
        assert_eq!(judged(line, &[SWITCH, ACCEPT, "Content-Length: 0\r\n"]), Ok(None));
        let chosen = judged(line, &[SWITCH, ACCEPT, "Sec-WebSocket-Protocol: b\r\n"]);
        assert_eq!(chosen, Ok(Some("b".into())));
        let twice = BadAnswer::Duplicate { name: "Sec-WebSocket-Accept" };
        assert_eq!(judged(line, &[SWITCH, ACCEPT, ACCEPT]), Err(twice));
        let both = judged(line, &[SWITCH, "Upgrade: h2c\r\n", ACCEPT]);
        assert_eq!(both, Err(BadAnswer::Upgrade { found: "WebSocket, h2c".into() }));
        // No extension is offered, so none may be selected.
        let found = "x".to_owned();
        let extended = judged(line, &[SWITCH, ACCEPT, "Sec-WebSocket-Extensions: x\r\n"]);
        assert_eq!(extended, Err(BadAnswer::ExtensionNotOffered { found }));
        let old = judged("HTTP/1.0 101 OK", &[SWITCH, ACCEPT]);
        assert_eq!(old, Err(BadAnswer::SwitchedInHttp10));
    }
}
