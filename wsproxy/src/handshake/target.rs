//! The request target and the host (RFC 9112 section 3.2, RFC 3986 section 3.2).

use std::net::Ipv6Addr;

/// Why a request target is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TargetFault {
    /// Neither origin-form nor absolute-form with the scheme http or ws.
    Form,
    /// Contains a `#`: a fragment is never sent (RFC 9112 section 3.2, RFC 6455
    /// section 3).
    Fragment,
    /// absolute-form with an authority that is not what `Host` says.
    Authority,
    /// A segment `.` or `..`, also percent-encoded or with parameters (`..;x=y`): what we route by
    /// and what the upstream serves would be two different paths. Servlet containers take the
    /// parameters (RFC 3986 section 3.3) away before they look for such segments.
    DotSegment,
    /// A backslash in the path, also percent-encoded: no URI has one (RFC 3986 appendix A), and
    /// servers that take it for a slash serve another path than we route by.
    Backslash,
}

impl TargetFault {
    pub(super) fn explain(self) -> &'static str {
        match self {
            Self::Form => "it must be a path that starts with \"/\", or an http: or ws: URL",
            Self::Fragment => "it must not contain a fragment (\"#\")",
            Self::Authority => "its host is not the one in the Host header",
            Self::DotSegment => "its path must not contain \".\" or \"..\" segments",
            Self::Backslash => "its path must not contain a backslash",
        }
    }
}

/// The origin form of a request target.
pub(super) fn origin_form(target: &str, host: &str) -> Result<String, TargetFault> {
    if target.contains('#') {
        return Err(TargetFault::Fragment);
    }
    if target.starts_with('/') {
        return without_dots(target.to_owned());
    }
    let (scheme, rest) = target.split_once("://").ok_or(TargetFault::Form)?;
    if !["http", "ws"].iter().any(|known| known.eq_ignore_ascii_case(scheme)) {
        return Err(TargetFault::Form);
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    // RFC 9112 section 3.2.2 would have the authority replace Host. Where the
    // two differ somebody in between may have routed by the other one.
    if !authority.eq_ignore_ascii_case(host) {
        return Err(TargetFault::Authority);
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    without_dots(format!("{slash}{path}"))
}

fn without_dots(target: String) -> Result<String, TargetFault> {
    let path = target.split('?').next().unwrap_or_default();
    let fault = if path.contains('%') {
        path_fault(&percent_decoded(path))
    } else {
        path_fault(path.as_bytes())
    };
    fault.map_or(Ok(target), Err)
}

/// What is wrong with a path whose codes stand for themselves no more.
fn path_fault(path: &[u8]) -> Option<TargetFault> {
    if path.contains(&b'\\') {
        return Some(TargetFault::Backslash);
    }
    let names = path.split(|&b| b == b'/').map(|segment| {
        let end = segment.iter().position(|&b| b == b';').unwrap_or(segment.len());
        &segment[..end]
    });
    let is_dots = |name: &[u8]| name == b"." || name == b"..";
    // Most paths have no dot at all.
    let has_dots = path.contains(&b'.') && names.into_iter().any(is_dots);
    has_dots.then_some(TargetFault::DotSegment)
}

/// The bytes that a path stands for; a `%` that begins no code stands for itself.
#[must_use]
pub fn percent_decoded(path: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = match (byte, after) {
            (b'%', [high, low, ..]) => digit(*high).zip(digit(*low)),
            _ => None,
        };
        match code {
            Some((high, low)) => {
                decoded.push(high << 4 | low);
                rest = &after[2..];
            }
            None => {
                decoded.push(byte);
                rest = after;
            }
        }
    }
    decoded
}

/// A `Host` value if it is well formed: `uri-host [ ":" port ]` (RFC 9110
/// section 7.2).
pub(super) fn host(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']')?;
            address.parse::<Ipv6Addr>().ok()?;
            (address, after)
        }
        None => {
            let (name, after) = text.split_at(text.find(':').unwrap_or(text.len()));
            if !is_reg_name(name.as_bytes()) {
                return None;
            }
            (name, after)
        }
    };
    // RFC 9110 section 4.2.1: an http URI with an empty host is invalid.
    (!name.is_empty() && is_port(port)).then_some(text)
}

/// `*( unreserved / pct-encoded / sub-delims )` of RFC 3986 section 3.2.2,
/// without the comma, which would look like two joined Host lines.
pub(crate) fn is_reg_name(name: &[u8]) -> bool {
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
    true
}

/// Nothing, or a colon and a port number; RFC 3986 section 3.2.3 allows the
/// number to be missing.
fn is_port(text: &str) -> bool {
    let Some(digits) = text.strip_prefix(':') else {
        return text.is_empty();
    };
    let all_digits = digits.bytes().all(|b| b.is_ascii_digit());
    digits.is_empty() || (all_digits && digits.parse::<u16>().is_ok())
}
