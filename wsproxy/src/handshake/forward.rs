//! The head for the upstream server: rebuilt from what was understood, never
//! copied, so that nothing gets through that was not.

use super::push_line;

/// The head for the upstream server (RFC 6455 section 4.1, RFC 9110 section 7.6.1): the
/// end-to-end `headers` in their order, then what holds for this hop.
#[must_use]
pub fn build_request(target: &str, headers: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(b"GET ");
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in headers {
        push_line(&mut out, name, value);
    }
    push_line(&mut out, "Connection", b"Upgrade");
    push_line(&mut out, "Upgrade", b"websocket");
    out.extend_from_slice(b"\r\n");
    out
}
