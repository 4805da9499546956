//! The header lines of a head and the rules that requests and answers share:
//! lists, tokens, lengths, and which headers end at this hop.

use super::scan::is_tchar;

/// Ends at this hop whatever `Connection` says (RFC 9110 section 7.6.1, and RFC
/// 2616 section 13.5.1 for the peers that still follow it). The length is among
/// them because this gateway states the framing of what it sends itself.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Must not be removed by naming it in `Connection`: RFC 9110 section 7.6.1
/// forbids connection options for what is meant for all recipients, and taking
/// such a header away behind the back of the one who wrote it is an attack.
const PROTECTED: [&str; 8] = [
    "authorization",
    "cookie",
    "forwarded",
    "host",
    "origin",
    "set-cookie",
    "www-authenticate",
    "x-real-ip",
];
const PROTECTED_PREFIXES: [&str; 2] = ["sec-websocket-", "x-forwarded-"];

/// A header that may come once came more often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Duplicate;

/// A `Content-Length` that is no number, or numbers that differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadLength<'a>(pub(crate) &'a [u8]);

/// What `Content-Length` says, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Length {
    pub(crate) value: u64,
    /// On how many lines and in how many list elements together.
    pub(crate) times: usize,
}

/// The header lines of one head in their order.
pub(crate) struct Fields<'a>(Vec<(&'a str, &'a [u8])>);

impl<'a> Fields<'a> {
    pub(crate) fn new(lines: Vec<(&'a str, &'a [u8])>) -> Self {
        Self(lines)
    }

    /// All of them.
    pub(crate) fn lines(&self) -> &[(&'a str, &'a [u8])] {
        &self.0
    }

    /// The values of every line with this name.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|&(_, value)| value)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// The value of a header that may come once.
    pub(super) fn at_most_one(&self, name: &str) -> Result<Option<&'a [u8]>, Duplicate> {
        let mut values = self.all(name);
        let first = values.next();
        if values.next().is_some() { Err(Duplicate) } else { Ok(first) }
    }

    /// The elements of a comma separated list over all of its lines, without
    /// the empty ones (RFC 9110 section 5.6.1.2).
    pub(super) fn elements(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.all(name).flat_map(elements)
    }

    /// Whether a list contains `wanted`, in any case.
    pub(crate) fn lists(&self, name: &str, wanted: &str) -> bool {
        self.elements(name).any(|element| element.eq_ignore_ascii_case(wanted.as_bytes()))
    }

    /// The elements of a list of tokens, or the element that is none.
    pub(super) fn tokens(&self, name: &str) -> Result<Vec<&'a str>, &'a [u8]> {
        self.elements(name).map(|element| token(element).ok_or(element)).collect()
    }

    /// All lines of one header as one value, for messages and for headers that
    /// are lists.
    pub(crate) fn joined(&self, name: &str) -> Vec<u8> {
        let values: Vec<&[u8]> = self.all(name).collect();
        values.join(&b", "[..])
    }

    /// What `Content-Length` says (RFC 9110 section 8.6). Equal numbers are one
    /// number that is counted; whether that is acceptable the caller decides.
    pub(crate) fn content_length(&self) -> Result<Option<Length>, BadLength<'a>> {
        let mut length: Option<Length> = None;
        for line in self.all("content-length") {
            for element in line.split(|&b| b == b',') {
                let value = decimal(element.trim_ascii()).ok_or(BadLength(line))?;
                let times = match length {
                    Some(before) if before.value != value => return Err(BadLength(line)),
                    Some(before) => before.times + 1,
                    None => 1,
                };
                length = Some(Length { value, times });
            }
        }
        Ok(length)
    }

    /// The headers that are meant for the other end, in their order, with the
    /// names as they were written. `options` are the tokens of `Connection`.
    pub(super) fn end_to_end(&self, options: &[&str]) -> Vec<(String, Vec<u8>)> {
        let ends_here = |name: &str| {
            let named = || options.iter().any(|option| option.eq_ignore_ascii_case(name));
            is_one_of(name, &HOP_BY_HOP) || (!is_protected(name) && named())
        };
        let kept = self.0.iter().filter(|(name, _)| !ends_here(name));
        kept.map(|&(name, value)| (name.to_owned(), value.to_vec())).collect()
    }
}

/// Whether `name` is one of `names`, in any case.
pub(super) fn is_one_of(name: &str, names: &[&str]) -> bool {
    names.iter().any(|n| n.eq_ignore_ascii_case(name))
}

/// Whether a header is meant for every recipient, so that `Connection` can't take it away.
#[must_use]
pub fn is_for_all_recipients(name: &str) -> bool {
    is_protected(name)
}

fn is_protected(name: &str) -> bool {
    let starts = |prefix: &&str| {
        name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    is_one_of(name, &PROTECTED) || PROTECTED_PREFIXES.iter().any(starts)
}

fn elements(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// `bytes` if they are a token (RFC 9110 section 5.6.2).
pub(crate) fn token(bytes: &[u8]) -> Option<&str> {
    let is_token = !bytes.is_empty() && bytes.iter().all(|&b| is_tchar(b));
    if is_token { std::str::from_utf8(bytes).ok() } else { None }
}

/// `1*DIGIT`. `u64::from_str` would take a plus sign as well.
pub(crate) fn decimal(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return None;
    }
    bytes.iter().try_fold(0_u64, |value, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}
