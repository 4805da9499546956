//! What a client gets instead of its tunnel.

use std::fmt;

use super::scan::{HeadError, HeadFault};
use super::{push_line, show};

/// Declares the reasons once, so that [`RefusalReason::ALL`] and the labels can
/// not drift from the enum.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident => $label:literal,)*) => {
        /// Why a session was refused: the label of a metric.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum RefusalReason {
            $($(#[$doc])* $name,)*
        }

        impl RefusalReason {
            /// Every reason, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The reason as a metric label, in snake_case.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }
        }
    };
}

reasons! {
    /// TLS on a plain-text port (400).
    TlsOnPlainPort => "tls_on_plain_port",
    /// No request line of HTTP/1 (400, RFC 9112 section 3).
    RequestLine => "request_line",
    /// Bare LF or bare CR (400, RFC 9112 section 2.2).
    LineEnding => "line_ending",
    /// A header line against the grammar (400, RFC 9112 section 5).
    HeaderSyntax => "header_syntax",
    /// The head is too long (431, RFC 6585 section 5).
    HeadTooLarge => "head_too_large",
    /// Too many header lines (431, RFC 6585 section 5).
    TooManyHeaders => "too_many_headers",
    /// Not HTTP/1.1 (505, RFC 9110 section 15.6.6).
    HttpVersion => "http_version",
    /// A request for something else than a WebSocket (426, RFC 9110 section
    /// 15.5.22).
    NotWebSocket => "not_websocket",
    /// An upgrade with another method than GET (405, RFC 6455 section 4.2.1).
    Method => "method",
    /// `Host` missing, duplicate or malformed (400, RFC 9112 section 3.2).
    Host => "host",
    /// A request target that is not acceptable (400, RFC 9112 section 3.2).
    Target => "target",
    /// `Connection` malformed or without `upgrade` (400, RFC 6455 section 4.2.1).
    Connection => "connection",
    /// `Sec-WebSocket-Key` missing, duplicate or malformed (400, RFC 6455
    /// section 4.2.1).
    Key => "key",
    /// `Sec-WebSocket-Version` missing or duplicate (400), or not 13 (426, RFC
    /// 6455 section 4.4).
    WebSocketVersion => "websocket_version",
    /// An upgrade request with a body (400).
    Body => "body",
    /// `Content-Length` malformed, duplicate, or beside `Transfer-Encoding`
    /// (400, RFC 9112 section 6.3).
    ContentLength => "content_length",
    /// A `Transfer-Encoding` that is not served (400, RFC 9112 section 6.1).
    TransferEncoding => "transfer_encoding",
    /// `Sec-WebSocket-Protocol` malformed or with duplicates (400, RFC 6455
    /// section 4.1).
    Protocols => "protocols",
    /// `Sec-WebSocket-Extensions` malformed (400, RFC 6455 section 9.1).
    Extensions => "extensions",
    /// `Origin` duplicate or not ASCII (400, RFC 6454 section 7).
    Origin => "origin",
    /// An `Origin` that the route does not let in (403, RFC 6455 section 10.2).
    OriginRefused => "origin_refused",
    /// An address that the route does not let in (403).
    AddressRefused => "address_refused",
    /// Handshakes are not served on this route (403).
    WebSocketRefused => "websocket_refused",
    /// None of the offered subprotocols is served (400).
    SubprotocolRefused => "subprotocol_refused",
    /// No route takes the request (404).
    NoRoute => "no_route",
    /// The body is longer than the route takes (413).
    BodyTooLarge => "body_too_large",
    /// The client has as many sessions as it may have (429).
    ClientSessions => "client_sessions",
    /// The client's handshakes come too fast (429).
    ClientRate => "client_rate",
    /// All clients' handshakes come too fast (503).
    Rate => "rate",
    /// The route or the listener has as many sessions as it may have (503).
    RouteSessions => "route_sessions",
    /// No server of the group is usable (503).
    NoServer => "no_server",
    /// Every server is busy and the queue is full (503).
    Busy => "busy",
    /// The head did not arrive in time (408, RFC 9110 section 15.5.9).
    Timeout => "timeout",
    /// The client closed its connection before it was answered (499: no answer of RFC 9110, but
    /// what proxies log for it).
    ClientLeft => "client_left",
    /// No room for another session (503, RFC 9110 section 15.6.4).
    SessionLimit => "session_limit",
    /// wsproxy is about to stop (503, RFC 9110 section 15.6.4).
    Draining => "draining",
    /// The upstream server is out of reach or answered nonsense (502, RFC 9110
    /// section 15.6.3).
    BadGateway => "bad_gateway",
    /// The upstream server did not answer in time (504, RFC 9110 section 15.6.5).
    GatewayTimeout => "gateway_timeout",
}

/// An answer of this gateway itself, which always closes the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status code.
    pub status: u16,
    /// Why, for a metric.
    pub reason: RefusalReason,
    /// Why, for the reader of the body and of the log: one or two sentences.
    /// What came from a peer is escaped and cut in it.
    pub detail: String,
    /// Headers beside those that every refusal has.
    pub extra: Vec<(&'static str, String)>,
    /// Leave the body out: an answer to HEAD has none (RFC 9110 section 9.3.2).
    pub bodiless: bool,
}

impl Refusal {
    pub(super) fn new(status: u16, reason: RefusalReason, detail: impl Into<String>) -> Self {
        Self { status, reason, detail: detail.into(), extra: Vec::new(), bodiless: false }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.extra.push((name, value.into()));
        self
    }

    /// 400 because of one header, whose lines together say `value`.
    pub(super) fn header(reason: RefusalReason, name: &str, value: &[u8], why: &str) -> Self {
        Self::new(400, reason, format!("Bad header {name}: \"{}\". {why}.", show(value)))
    }

    /// 408: the head did not arrive in time (RFC 9110 section 15.5.9).
    #[must_use]
    pub fn timeout() -> Self {
        let detail = "The request head did not arrive in time.";
        Self::new(408, RefusalReason::Timeout, detail)
    }

    /// 499: the client closed its connection, or its side of it, before it was answered (RFC 9112
    /// section 9.6). Who still listens is told.
    #[must_use]
    pub fn client_left() -> Self {
        let detail = "The client closed its side of the connection before the answer was there.";
        Self::new(499, RefusalReason::ClientLeft, detail)
    }

    /// 503: no room for another session; `Retry-After` says when to come back
    /// (RFC 9110 sections 15.6.4 and 10.2.3).
    #[must_use]
    pub fn session_limit(retry_after_seconds: u32) -> Self {
        let detail = "This gateway has reached its limit of sessions. Try again later.";
        Self::new(503, RefusalReason::SessionLimit, detail)
            .with("Retry-After", retry_after_seconds.to_string())
    }

    /// 426: a plain request where only handshakes are served (RFC 9110 section 15.5.22).
    #[must_use]
    pub fn not_websocket(method: &str) -> Self {
        let what = show(method.as_bytes());
        let detail = format!(
            "This address serves WebSocket connections only, and the {what} request has no \
             \"Upgrade: websocket\" header. Connect with a WebSocket client."
        );
        let mut refusal = Self::new(426, RefusalReason::NotWebSocket, detail);
        refusal.bodiless = method == "HEAD";
        refusal.with("Upgrade", "websocket")
    }

    /// An answer of a rule of the configuration; with `retry_after` in seconds.
    #[must_use]
    pub fn by_rule(
        status: u16,
        reason: RefusalReason,
        detail: &'static str,
        retry_after: Option<u64>,
    ) -> Self {
        let refusal = Self::new(status, reason, detail);
        match retry_after {
            Some(seconds) => refusal.with("Retry-After", seconds.max(1).to_string()),
            None => refusal,
        }
    }

    /// The request's id, by which the log can be searched.
    #[must_use]
    pub fn with_id(mut self, id: &str) -> Self {
        self.detail = format!("{} (request {id})", self.detail);
        self.with("X-Request-ID", id)
    }

    /// 400: the body is not what the head announced.
    pub(crate) fn bad_body(why: &str) -> Self {
        Self::new(400, RefusalReason::Body, format!("Cannot read this request's body: {why}."))
    }

    /// 502: the upstream server is out of reach or answered nonsense (RFC 9110
    /// section 15.6.3). The client gets to read `detail`.
    #[must_use]
    pub fn bad_gateway(detail: impl Into<String>) -> Self {
        Self::new(502, RefusalReason::BadGateway, detail)
    }

    /// 504: the upstream server did not answer in time (RFC 9110 section 15.6.5).
    #[must_use]
    pub fn gateway_timeout() -> Self {
        let detail = "The upstream server did not answer in time.";
        Self::new(504, RefusalReason::GatewayTimeout, detail)
    }

    /// The whole answer as it goes over the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let body = format!("{}\n", self.detail);
        let mut out = format!("HTTP/1.1 {} {}\r\n", self.status, phrase(self.status)).into_bytes();
        push_line(&mut out, "Content-Type", b"text/plain; charset=utf-8");
        push_line(&mut out, "Content-Length", body.len().to_string().as_bytes());
        // RFC 9110 section 7.8: who sends Upgrade names it in Connection.
        let upgrades = self.extra.iter().any(|(name, _)| *name == "Upgrade");
        let connection: &[u8] = if upgrades { b"Upgrade, close" } else { b"close" };
        push_line(&mut out, "Connection", connection);
        for (name, value) in &self.extra {
            push_line(&mut out, name, value.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        if !self.bodiless {
            out.extend_from_slice(body.as_bytes());
        }
        out
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status, phrase(self.status), self.detail)
    }
}

impl std::error::Error for Refusal {}

impl From<HeadError> for Refusal {
    fn from(error: HeadError) -> Self {
        let (status, reason) = match error.fault {
            HeadFault::Tls => (400, RefusalReason::TlsOnPlainPort),
            HeadFault::StartLine => (400, RefusalReason::RequestLine),
            HeadFault::TargetByte => (400, RefusalReason::Target),
            HeadFault::BareLf | HeadFault::BareCr => (400, RefusalReason::LineEnding),
            HeadFault::ControlByte
            | HeadFault::ObsFold
            | HeadFault::SpaceBeforeColon
            | HeadFault::EmptyName
            | HeadFault::NameByte
            | HeadFault::MissingColon => (400, RefusalReason::HeaderSyntax),
            HeadFault::TooLarge => (431, RefusalReason::HeadTooLarge),
            HeadFault::TooManyHeaders => (431, RefusalReason::TooManyHeaders),
        };
        Self::new(status, reason, format!("Cannot read this request: {error}."))
    }
}

/// The reason phrase of a status that this gateway sends.
pub(super) fn phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        499 => "Client Closed Request",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}
