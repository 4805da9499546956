//! What can be told of a request that was refused for its head: something for a log line.

use super::scan::is_tchar;

/// The most bytes of a method that are shown; none of RFC 9110 is longer than 7.
const METHOD_BYTES: usize = 32;
/// The most bytes of a target that are shown.
const TARGET_BYTES: usize = 256;
/// What stands for what is not known.
const UNKNOWN: &str = "-";

/// The parts of a request line (RFC 9112 section 3) as far as they came, bounded; `-` for those
/// that did not. Nothing of it has been checked: whoever writes it must escape it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glimpse {
    /// A token, if it was followed by a space.
    pub method: String,
    /// What stood behind it, whatever it was; cut where it is long.
    pub target: String,
    /// The version, if it has the form of one.
    pub version: String,
}

impl Glimpse {
    /// Of the request that begins with `head`.
    #[must_use]
    pub fn of(head: &[u8]) -> Self {
        // RFC 9112 section 2.2: one empty line may stand before it.
        let head = head.strip_prefix(b"\r\n").unwrap_or(head);
        let line = head.split(|&b| b == b'\r' || b == b'\n').next().unwrap_or_default();
        let mut parts = line.splitn(3, |&b| b == b' ');
        let method = parts.next().unwrap_or_default();
        let target = parts.next();
        let version = parts.next().filter(|version| is_version(version));
        let is_method = (1..=METHOD_BYTES).contains(&method.len())
            && method.iter().all(|&byte| is_tchar(byte))
            && target.is_some();
        let known = |part: Option<&[u8]>| {
            let part = part.filter(|part| is_method && !part.is_empty());
            part.map_or_else(|| UNKNOWN.to_owned(), cut)
        };
        Self { method: known(Some(method)), target: known(target), version: known(version) }
    }
}

fn is_version(text: &[u8]) -> bool {
    matches!(text, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

fn cut(part: &[u8]) -> String {
    let text = String::from_utf8_lossy(&part[..part.len().min(TARGET_BYTES)]);
    let tail = if part.len() > TARGET_BYTES { "..." } else { "" };
    format!("{text}{tail}")
}
