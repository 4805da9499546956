//! Answers of an upstream server that may reach the client.

use super::body::BodyFraming;
use super::push_line;

/// A valid answer of the upstream server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// 101: the tunnel is open.
    Switched(Switched),
    /// Any other final answer, for the client as it is.
    Other(OtherAnswer),
}

impl Answer {
    /// The status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Switched(_) => 101,
            Self::Other(other) => other.status,
        }
    }
}

/// A complete and valid 101 (RFC 6455 section 4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switched {
    /// The subprotocol, one that the client offered.
    pub protocol: Option<String>,
    /// Names of the extensions, as they came; the client offered them.
    pub extensions: Vec<String>,
    /// Every end-to-end header, `Sec-WebSocket-*` and `Set-Cookie` included, in
    /// the order and with the names as they came.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Switched {
    /// The head for the client: rebuilt, with what holds for this hop.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = b"HTTP/1.1 101 Switching Protocols\r\n".to_vec();
        push_line(&mut out, "Upgrade", b"websocket");
        push_line(&mut out, "Connection", b"Upgrade");
        for (name, value) in &self.headers {
            push_line(&mut out, name, value);
        }
        out.extend_from_slice(b"\r\n");
        out
    }
}

/// An answer other than 101.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherAnswer {
    /// The status code, 200 to 599.
    pub status: u16,
    /// The reason phrase, as it came.
    pub reason: Vec<u8>,
    /// Every end-to-end header, in the order and with the names as they came.
    pub headers: Vec<(String, Vec<u8>)>,
    /// How the body is delimited (RFC 9112 section 6.3).
    pub framing: BodyFraming,
    /// `Content-Length` of an answer without a body (304), to be passed on.
    pub(super) announced: Option<u64>,
    /// `Upgrade` of a 426.
    pub(super) upgrade: Option<Vec<u8>>,
}

impl OtherAnswer {
    /// Whether the end of the body is the end of the connection, so that the
    /// client's must end too.
    #[must_use]
    pub fn closes(&self) -> bool {
        self.framing == BodyFraming::UntilClose
    }

    /// The head for the client. `keep_alive`: the client's connection may go on
    /// after the body, where its framing lets it.
    #[must_use]
    pub fn to_bytes(&self, keep_alive: bool) -> Vec<u8> {
        let mut out = format!("HTTP/1.1 {} ", self.status).into_bytes();
        out.extend_from_slice(&self.reason);
        out.extend_from_slice(b"\r\n");
        for (name, value) in &self.headers {
            push_line(&mut out, name, value);
        }
        match (self.framing, self.announced) {
            (BodyFraming::Length(n), _) | (BodyFraming::None, Some(n)) => {
                push_line(&mut out, "Content-Length", n.to_string().as_bytes());
            }
            (BodyFraming::Chunked, _) => push_line(&mut out, "Transfer-Encoding", b"chunked"),
            (BodyFraming::None | BodyFraming::UntilClose, _) => {}
        }
        let keep_alive = keep_alive && !self.closes();
        if let Some(upgrade) = &self.upgrade {
            push_line(&mut out, "Upgrade", upgrade);
        }
        let options: &[u8] = match (keep_alive, self.upgrade.is_some()) {
            (true, false) => b"keep-alive",
            (false, false) => b"close",
            (true, true) => b"Upgrade",
            (false, true) => b"Upgrade, close",
        };
        push_line(&mut out, "Connection", options);
        out.extend_from_slice(b"\r\n");
        out
    }
}
