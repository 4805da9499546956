//! Conditional requests (RFC 9110 section 13) as pure functions.

use hyper::header::{
    HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, RANGE,
};

use super::range::{RangeSet, Selection};
use super::validators::{Validators, parse_date};

/// The conditions of a GET or HEAD request, and the ranges it asks for.
#[derive(Debug, Clone, Default)]
pub(super) struct Conditions {
    /// The lines of `If-Match`.
    matches: Vec<HeaderValue>,
    /// The lines of `If-None-Match`.
    none_match: Vec<HeaderValue>,
    /// `If-Unmodified-Since`, in seconds since 1970.
    unmodified_since: Option<u64>,
    /// `If-Modified-Since`, in seconds since 1970.
    modified_since: Option<u64>,
    if_range: IfRange,
    ranges: Option<RangeSet>,
}

/// What `If-Range` says (RFC 9110 section 13.1.5).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum IfRange {
    #[default]
    Absent,
    Tag(HeaderValue),
    Date(u64),
    /// Holds for no file.
    Unknown,
}

/// What the conditions say of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Proceed,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

impl Conditions {
    pub(super) fn from_headers(headers: &HeaderMap) -> Self {
        Self {
            matches: lines(headers, IF_MATCH),
            none_match: lines(headers, IF_NONE_MATCH),
            unmodified_since: date(headers, IF_UNMODIFIED_SINCE),
            modified_since: date(headers, IF_MODIFIED_SINCE),
            if_range: IfRange::from_headers(headers),
            ranges: single(headers, RANGE).and_then(|value| RangeSet::parse(value.as_bytes())),
        }
    }

    /// Weighs the preconditions in the order of RFC 9110 section 13.2.2, for GET
    /// and HEAD.
    pub(super) fn verdict(&self, file: &Validators) -> Verdict {
        let failed = if self.matches.is_empty() {
            self.unmodified_since.is_some_and(|date| file.modified > Some(date))
        } else {
            !any_tag(&self.matches, &file.etag, Comparison::Strong)
        };
        if failed {
            return Verdict::Failed;
        }
        let unchanged = if self.none_match.is_empty() {
            self.modified_since.is_some_and(|date| file.modified.is_some_and(|at| at <= date))
        } else {
            any_tag(&self.none_match, &file.etag, Comparison::Weak)
        };
        if unchanged { Verdict::NotModified } else { Verdict::Proceed }
    }

    /// What of a file of `size` bytes a GET asks for. `now` is in seconds since
    /// 1970. A HEAD has no ranges (RFC 9110 section 14.2).
    pub(super) fn selection(&self, file: &Validators, size: u64, now: u64) -> Selection {
        match &self.ranges {
            Some(ranges) if self.if_range.holds(file, now) => ranges.select(size),
            _ => Selection::Whole,
        }
    }
}

impl IfRange {
    fn from_headers(headers: &HeaderMap) -> Self {
        if !headers.contains_key(IF_RANGE) {
            return Self::Absent;
        }
        let Some(value) = single(headers, IF_RANGE) else { return Self::Unknown };
        match value.as_bytes() {
            [b'"', ..] | [b'W', b'/', ..] => Self::Tag(value.clone()),
            text => parse_date(text).map_or(Self::Unknown, Self::Date),
        }
    }

    fn holds(&self, file: &Validators, now: u64) -> bool {
        match self {
            Self::Absent => true,
            Self::Unknown => false,
            Self::Tag(tag) => {
                tags(tag.as_bytes()).eq([Tag { weak: false, text: file.etag.as_bytes() }])
            }
            // Within the second of a change there may be another one, which the
            // date would not show (RFC 9110 section 8.8.2.2).
            Self::Date(date) => file.modified == Some(*date) && *date < now,
        }
    }
}

/// How entity tags are compared (RFC 9110 section 8.8.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// One entity tag; the text has its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tag<'a> {
    weak: bool,
    text: &'a [u8],
}

/// Whether a list holds for a file with the strong tag `etag`. A `*` that stands
/// alone holds for every file.
fn any_tag(values: &[HeaderValue], etag: &str, comparison: Comparison) -> bool {
    if let [value] = values
        && value.as_bytes().trim_ascii() == b"*"
    {
        return true;
    }
    let mut all = values.iter().flat_map(|value| tags(value.as_bytes()));
    all.any(|tag| tag.text == etag.as_bytes() && (comparison == Comparison::Weak || !tag.weak))
}

/// The entity tags of one header line, up to the first thing that is none.
fn tags(line: &[u8]) -> impl Iterator<Item = Tag<'_>> {
    let mut rest = line;
    std::iter::from_fn(move || {
        let start = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','))?;
        let (weak, quoted) = match &rest[start..] {
            [b'W', b'/', quoted @ ..] => (true, quoted),
            quoted => (false, quoted),
        };
        let inner = quoted.strip_prefix(b"\"")?;
        let end = inner.iter().position(|byte| *byte == b'"')? + 2;
        let (text, after) = quoted.split_at_checked(end)?;
        rest = after;
        Some(Tag { weak, text })
    })
}

fn lines(headers: &HeaderMap, name: HeaderName) -> Vec<HeaderValue> {
    headers.get_all(name).iter().cloned().collect()
}

/// The value of a header that may stand only once; none where it does not.
fn single(headers: &HeaderMap, name: HeaderName) -> Option<&HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn date(headers: &HeaderMap, name: HeaderName) -> Option<u64> {
    single(headers, name).and_then(|value| parse_date(value.as_bytes()))
}

#[cfg(test)]
#[path = "conditional_tests.rs"]
mod tests;
