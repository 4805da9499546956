//! The opening handshake of WebSocket (RFC 6455 section 4) as pure functions:
//! bytes in, decisions out.
//!
//! Nothing here reads a socket, a clock or a file descriptor. The caller hands
//! in everything it has received so far, and asks again with a longer buffer
//! while the answer is [`Progress::Partial`].
//!
//! The order of a session:
//!
//! 1. [`parse_incoming`] reads the client's head, or says with a [`Refusal`]
//!    what to answer instead;
//! 2. [`build_request`] renders the head for the upstream server;
//! 3. [`parse_response`] reads the upstream's head: [`Answer::Switched`] opens
//!    the tunnel, [`Answer::Other`] is an ordinary answer whose body a
//!    [`BodyTracker`] delimits, and a [`BadAnswer`] becomes a 502.
//!
//! The parser is stricter than RFC 9112 obliges it to be: whatever two
//! implementations are known to read differently (bare LF, obs-fold, two
//! lengths, ...) is refused instead of repaired. A gateway that repairs is one
//! half of a request smuggling attack.

mod answer;
mod bad_answer;
mod body;
mod extensions;
mod fields;
mod forward;
mod glimpse;
mod head;
mod refusal;
mod request;
mod response;
mod scan;
mod target;
#[cfg(test)]
mod tests;

pub use answer::{Answer, OtherAnswer, Switched};
pub use bad_answer::BadAnswer;
pub use body::{
    BadBody, BodyFraming, BodyProgress, BodyTracker, MAX_LINE_BYTES, MAX_TRAILER_BYTES,
};
pub use fields::is_for_all_recipients;
pub use forward::build_request;
pub use glimpse::Glimpse;
pub use refusal::{Refusal, RefusalReason};
pub use request::{
    Incoming, PlainRequest, UpgradeRequest, check_request, parse_incoming, parse_request,
};
pub use response::parse_response;
pub use scan::{HeadError, HeadFault};
pub use target::percent_decoded;
// What `wsproxy probe` judges answers and its own request by.
pub(crate) use fields::{Fields, decimal, token};
pub(crate) use head::Head;
pub(crate) use response::{StatusLine, switched};
pub(crate) use scan::{Kind, is_field_byte};
pub(crate) use target::is_reg_name;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

/// The GUID of RFC 6455 section 1.3 that a server appends to the client's key.
const ACCEPT_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a parser has to say about a head that is not wrong so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress<T> {
    /// The head is not complete: ask again with a longer buffer that starts at
    /// the same byte.
    Partial,
    /// The head is complete.
    Done {
        /// What the head says.
        value: T,
        /// The length of the head in bytes. What follows in the buffer is no
        /// part of it: tunnel data, or a body.
        consumed: usize,
    },
}

/// How large a head may be (RFC 6585 section 5 lets a server bound it).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// The most bytes of a head, its final empty line included. For an answer
    /// it bounds the interim (1xx) heads and the final one together, so that it
    /// also bounds the caller's buffer.
    pub max_bytes: usize,
    /// The most header lines of one head.
    pub max_headers: usize,
}

impl HeadLimits {
    /// Where nothing else is configured.
    pub const DEFAULT: Self = Self { max_bytes: 16 * 1024, max_headers: 100 };
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Whether `text` may stand in `Host`: a name or an address, and a port at most (RFC 9110
/// section 7.2).
#[must_use]
pub fn is_host(text: &str) -> bool {
    target::host(text.as_bytes()).is_some()
}

/// The `Sec-WebSocket-Accept` that answers a `Sec-WebSocket-Key`: SHA-1 of the
/// key and the GUID, in base64 (RFC 6455 section 4.2.2, step 5.4).
#[must_use]
pub fn accept_for_key(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(ACCEPT_GUID.as_bytes());
    STANDARD.encode(hash.finalize())
}

/// Received bytes as they may be shown in a log line or a refusal: printable
/// ASCII, everything else escaped, cut to a readable length.
fn show(bytes: &[u8]) -> String {
    const MOST: usize = 80;
    let cut = &bytes[..bytes.len().min(MOST)];
    let tail = if bytes.len() > MOST { "..." } else { "" };
    format!("{}{tail}", cut.escape_ascii())
}

/// Adds one header line to a head under construction.
fn push_line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
