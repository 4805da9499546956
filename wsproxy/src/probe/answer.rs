//! The answer's head and the start of its body (RFC 9112), read as strictly as
//! the gateway reads its upstream servers.

use super::shared::{MAX_HEAD_BYTES, MAX_HEADERS, decimal, is_field_byte, is_tchar};

/// What is wrong with the bytes of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadFault {
    /// The first line is no status line (RFC 9112 section 4).
    NotHttp,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    Version,
    /// A status code outside of 100 to 599 (RFC 9110 section 15).
    Status,
    /// A line ends with LF alone (RFC 9112 section 2.2).
    BareLf,
    /// A CR without a LF after it (RFC 9112 section 2.2).
    BareCr,
    /// A line that starts with white space: obs-fold (RFC 9112 section 5.2).
    Folded,
    /// A header line without a colon.
    NoColon,
    /// A header name that is no token, or white space before the colon (RFC
    /// 9112 section 5.1).
    Name,
    /// A control character in a header value (RFC 9110 section 5.5).
    ControlByte,
    /// All heads together are longer than [`MAX_HEAD_BYTES`].
    TooLarge,
    /// More lines than [`MAX_HEADERS`].
    TooManyHeaders,
}

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
    pub(super) fn read(buf: &[u8]) -> Result<Option<Self>, HeadFault> {
        let (mut interim, mut end) = (Vec::new(), 0);
        loop {
            let head = Head::read(&buf[end..], MAX_HEAD_BYTES - end)?;
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
    fn read(buf: &[u8], most: usize) -> Result<Option<Self>, HeadFault> {
        check_start(buf)?;
        let mut head =
            Self { http_1_0: false, status: 0, reason: Vec::new(), fields: Vec::new(), len: 0 };
        let cut = &buf[..buf.len().min(most)];
        for line in cut.split_inclusive(|&byte| byte == b'\n') {
            let Some(text) = line.strip_suffix(b"\n") else { break };
            let text = text.strip_suffix(b"\r").ok_or(HeadFault::BareLf)?;
            let first = head.len == 0;
            head.len += line.len();
            if text.contains(&b'\r') {
                return Err(HeadFault::BareCr);
            } else if first {
                head.status_line(text)?;
            } else if text.is_empty() {
                return Ok(Some(head));
            } else {
                head.field(text)?;
            }
        }
        if buf.len() >= most { Err(HeadFault::TooLarge) } else { Ok(None) }
    }

    fn status_line(&mut self, line: &[u8]) -> Result<(), HeadFault> {
        let mut parts = line.splitn(3, |&byte| byte == b' ');
        let mut part = || parts.next().unwrap_or_default();
        let (version, status, reason) = (part(), part(), part());
        self.http_1_0 = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ => return Err(HeadFault::Version),
        };
        let digits = std::str::from_utf8(status).ok().filter(|digits| digits.len() == 3);
        let status = digits.and_then(decimal).ok_or(HeadFault::NotHttp)?;
        let known = u16::try_from(status).ok().filter(|status| (100..=599).contains(status));
        self.status = known.ok_or(HeadFault::Status)?;
        if !reason.iter().all(|&byte| is_field_byte(byte)) {
            return Err(HeadFault::ControlByte);
        }
        self.reason = reason.to_vec();
        Ok(())
    }

    fn field(&mut self, line: &[u8]) -> Result<(), HeadFault> {
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(HeadFault::Folded);
        }
        let colon = line.iter().position(|&byte| byte == b':').ok_or(HeadFault::NoColon)?;
        let (name, value) = line.split_at(colon);
        let is_name = !name.is_empty() && name.iter().all(|&byte| is_tchar(byte));
        let name = std::str::from_utf8(name).ok().filter(|_| is_name).ok_or(HeadFault::Name)?;
        let value = value[1..].trim_ascii();
        if !value.iter().all(|&byte| is_field_byte(byte)) {
            return Err(HeadFault::ControlByte);
        }
        if self.fields.len() >= MAX_HEADERS {
            return Err(HeadFault::TooManyHeaders);
        }
        self.fields.push((name.to_owned(), value.to_vec()));
        Ok(())
    }

    /// The values of every line with this name.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let same = move |(n, _): &&(String, Vec<u8>)| n.eq_ignore_ascii_case(name);
        self.fields.iter().filter(same).map(|(_, value)| value.as_slice())
    }

    /// The value of the first line with this name.
    pub(super) fn first(&self, name: &str) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// All lines of one header as one value.
    pub(super) fn joined(&self, name: &str) -> Vec<u8> {
        self.all(name).collect::<Vec<_>>().join(&b", "[..])
    }

    /// Whether a list contains `wanted`, in any case.
    pub(super) fn lists(&self, name: &str, wanted: &str) -> bool {
        let mut elements = self.all(name).flat_map(|line| line.split(|&byte| byte == b','));
        elements.any(|element| element.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes()))
    }

    /// What `Content-Length` says, if it is one number.
    pub(super) fn content_length(&self) -> Option<u64> {
        std::str::from_utf8(self.first("content-length")?).ok().and_then(decimal)
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

/// Says as early as possible that this is no HTTP/1.
fn check_start(buf: &[u8]) -> Result<(), HeadFault> {
    let start = b"HTTP/";
    let len = buf.len().min(start.len());
    if buf[..len] == start[..len] { Ok(()) } else { Err(HeadFault::NotHttp) }
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
