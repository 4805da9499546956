//! The head for the upstream server: rebuilt from what was understood, never
//! copied, so that nothing gets through that was not.

use std::net::IpAddr;

use super::fields::is_one_of;
use super::push_line;
use super::request::UpgradeRequest;

/// Replaced by what this gateway knows itself. `X-Forwarded-For` is a list that
/// it adds to.
const REPLACED: [&str; 3] = ["x-forwarded-for", "x-forwarded-proto", "x-real-ip"];

/// What the upstream server gets to know about the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forwarded {
    /// The client's address. An IPv4 address in an IPv6 socket is written as
    /// IPv4.
    pub client_ip: IpAddr,
    /// `"http"` or `"https"`: how the client reached this gateway.
    pub proto: &'static str,
}

/// The head for the upstream server (RFC 6455 section 4.1, RFC 9110 section
/// 7.6.1): every end-to-end header in its order, then what holds for this hop,
/// then where the client came from.
#[must_use]
pub fn build_request(req: &UpgradeRequest, fwd: &Forwarded) -> Vec<u8> {
    let mut out = format!("GET {} HTTP/1.1\r\n", req.target).into_bytes();
    let mut forwarded_for: Vec<u8> = Vec::new();
    for (name, value) in &req.headers {
        if !is_one_of(name, &REPLACED) {
            push_line(&mut out, name, value);
        } else if name.eq_ignore_ascii_case("x-forwarded-for") && !value.is_empty() {
            forwarded_for.extend_from_slice(value);
            forwarded_for.extend_from_slice(b", ");
        }
    }
    push_line(&mut out, "Connection", b"Upgrade");
    push_line(&mut out, "Upgrade", b"websocket");
    let ip = fwd.client_ip.to_canonical().to_string();
    forwarded_for.extend_from_slice(ip.as_bytes());
    push_line(&mut out, "X-Forwarded-For", &forwarded_for);
    push_line(&mut out, "X-Forwarded-Proto", fwd.proto.as_bytes());
    push_line(&mut out, "X-Real-IP", ip.as_bytes());
    out.extend_from_slice(b"\r\n");
    out
}
