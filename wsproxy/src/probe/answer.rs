//! The answer's head and the start of its body (RFC 9112), read as strictly as
//! the gateway reads its upstream servers.

use crate::handshake::{self, BadAnswer, Fields, HeadLimits, Kind, StatusLine};

/// How large all heads of an answer together may be: what the gateway takes by default.
pub(super) const LIMITS: HeadLimits = HeadLimits::DEFAULT;

/// A complete head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) http_1_0: bool,
    pub(super) status: u16,
    pub(super) reason: Vec<u8>,
    fields: Vec<(String, Vec<u8>)>,
    /// In bytes, the final empty line included.
    len: usize,
}

/// The final head and the interim ones (1xx other than 101, RFC 9110 section
/// 15.2) before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) head: Head,
    pub(super) interim: Vec<u16>,
    /// The first byte behind the final head.
    pub(super) end: usize,
}

impl Answer {
    /// Reads the start of `buf`; `None` while the head is not complete.
    pub(super) fn read(buf: &[u8]) -> Result<Option<Self>, BadAnswer> {
        let (mut interim, mut end) = (Vec::new(), 0);
        loop {
            let head = Head::read(&buf[end..], LIMITS.max_bytes.saturating_sub(end))?;
            let Some(head) = head else { return Ok(None) };
            end += head.len;
            if head.status == 101 || head.status >= 200 {
                return Ok(Some(Self { head, interim, end }));
            }
            interim.push(head.status);
        }
    }
}

impl Head {
    fn read(buf: &[u8], most: usize) -> Result<Option<Self>, BadAnswer> {
        let limits = HeadLimits { max_bytes: most, ..LIMITS };
        let head = handshake::Head::read(buf, Kind::Response, &limits)?;
        let Some(head) = head else { return Ok(None) };
        let line = StatusLine::cut(head.line)?;
        let own = |&(name, value): &(&str, &[u8])| (name.to_owned(), value.to_vec());
        Ok(Some(Self {
            http_1_0: line.http_1_0,
            status: line.status,
            reason: line.reason.to_vec(),
            fields: head.fields.lines().iter().map(own).collect(),
            len: head.consumed,
        }))
    }

    pub(super) fn line(&self) -> StatusLine<'_> {
        StatusLine { http_1_0: self.http_1_0, status: self.status, reason: &self.reason }
    }

    pub(super) fn fields(&self) -> Fields<'_> {
        Fields::new(self.fields.iter().map(|(n, value)| (n.as_str(), value.as_slice())).collect())
    }

    /// The value of the first line with this name.
    pub(super) fn first(&self, name: &str) -> Option<&[u8]> {
        self.fields().all(name).next()
    }

    /// Whether a list contains `wanted`, in any case.
    pub(super) fn lists(&self, name: &str, wanted: &str) -> bool {
        self.fields().lists(name, wanted)
    }

    /// What `Content-Length` says, if it is one number.
    pub(super) fn content_length(&self) -> Option<u64> {
        self.fields().content_length().ok().flatten().map(|length| length.value)
    }

    /// The body in `raw` without its framing, and whether it is complete.
    pub(super) fn body(&self, raw: &[u8]) -> (Vec<u8>, bool) {
        if matches!(self.status, 204 | 304) {
            (Vec::new(), true)
        } else if self.lists("transfer-encoding", "chunked") {
            dechunked(raw)
        } else {
            let length = self.content_length().and_then(|length| usize::try_from(length).ok());
            match length {
                Some(length) => (raw[..raw.len().min(length)].to_vec(), raw.len() >= length),
                None => (raw.to_vec(), false),
            }
        }
    }
}

/// The chunks in `raw` (RFC 9112 section 7.1) as far as they can be read.
fn dechunked(raw: &[u8]) -> (Vec<u8>, bool) {
    let (mut body, mut rest) = (Vec::new(), raw);
    while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
        let line = rest[..end].split(|&byte| byte == b';').next().unwrap_or_default();
        let digits = std::str::from_utf8(line.trim_ascii()).unwrap_or_default();
        rest = &rest[end + 1..];
        let Ok(len) = usize::from_str_radix(digits, 16) else { return (body, true) };
        if len == 0 {
            return (body, true);
        }
        let (chunk, after) = rest.split_at(rest.len().min(len));
        body.extend_from_slice(chunk);
        rest = after.strip_prefix(b"\r\n").unwrap_or(after);
    }
    (body, false)
}

#[cfg(test)]
#[path = "tests/answer.rs"]
mod tests;
