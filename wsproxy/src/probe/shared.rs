//! Copies of the few lines that `crate::handshake` has as well.

use std::net::Ipv6Addr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

/// The GUID of RFC 6455 section 1.3 that a server appends to the client's key.
const ACCEPT_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The most bytes of all heads of an answer together (`HeadLimits::max_bytes`).
pub(super) const MAX_HEAD_BYTES: usize = 16 * 1024;
/// The most header lines of one head (`HeadLimits::max_headers`).
pub(super) const MAX_HEADERS: usize = 100;

/// The `Sec-WebSocket-Accept` that answers a `Sec-WebSocket-Key` (RFC 6455
/// section 4.2.2, step 5.4).
pub(super) fn accept_for_key(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(ACCEPT_GUID.as_bytes());
    STANDARD.encode(hash.finalize())
}

/// A character of a token (RFC 9110 section 5.6.2).
pub(super) fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether `text` is a token (RFC 9110 section 5.6.2).
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_tchar)
}

/// A byte of a header value (RFC 9110 section 5.5): visible, white space, or
/// obs-text.
pub(super) fn is_field_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// `1*DIGIT`. `u64::from_str` would take a plus sign as well.
pub(super) fn decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// Whether `text` may stand in `Host`: a name or an address, and a port at most
/// (RFC 9110 section 7.2).
pub(super) fn is_host(text: &str) -> bool {
    let (name, port, bracketed) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, after)) => (address, after, true),
            None => return false,
        },
        None => {
            let (name, after) = text.split_at(text.find(':').unwrap_or(text.len()));
            (name, after, false)
        }
    };
    let port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
    let name =
        if bracketed { name.parse::<Ipv6Addr>().is_ok() } else { is_reg_name(name.as_bytes()) };
    name && port
}

fn is_port(digits: &str) -> bool {
    digits.is_empty() || decimal(digits).is_some_and(|port| port <= u64::from(u16::MAX))
}

/// `1*( unreserved / pct-encoded / sub-delims )` of RFC 3986 section 3.2.2,
/// without the comma, which would look like two joined Host lines.
pub(super) fn is_reg_name(name: &[u8]) -> bool {
    let mut rest = name;
    while let Some((&byte, after)) = rest.split_first() {
        rest = match (byte, after) {
            (b'%', [high, low, tail @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                tail
            }
            _ if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=".contains(&byte) => after,
            _ => return false,
        };
    }
    !name.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_of_the_rfc() {
        // RFC 6455 section 1.3.
        assert_eq!(accept_for_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn hosts() {
        for good in ["a", "a.b:80", "127.0.0.1", "[::1]", "[::1]:443", "a:", "a%20b"] {
            assert!(is_host(good), "{good}");
        }
        for bad in ["", ":80", "a b", "a:x", "a:70000", "[::1", "[a]", "[::1]x", "a,b", "a%2", "é"]
        {
            assert!(!is_host(bad), "{bad}");
        }
    }
}
