//! Byte ranges (RFC 9110 section 14) as pure functions.

/// The most ranges of one request that are served. A request with more gets the
/// whole file (RFC 9110 section 14.2 allows it, section 17.15 asks for a bound).
pub(super) const MAX_RANGES: usize = 8;

/// The ranges that a request asks for: from 1 to [`MAX_RANGES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RangeSet(Vec<RangeSpec>);

/// One range, before the size of the file is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RangeSpec {
    /// From one byte to another, or to the end. A number past the largest `u64`
    /// is the largest.
    From { first: u64, last: Option<u64> },
    /// This many bytes at the end.
    Suffix(u64),
}

/// Bytes of a file, both ends included, `first <= last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ByteRange {
    pub(super) first: u64,
    pub(super) last: u64,
}

/// What of a file is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Selection {
    Whole,
    /// 416: no range begins within the file.
    Unsatisfiable,
    /// 206: at least one range. No two overlap; they stand in the order of the
    /// request.
    Ranges(Vec<ByteRange>),
}

impl ByteRange {
    /// In bytes, at least 1.
    pub(super) fn length(self) -> u64 {
        self.last - self.first + 1
    }

    fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// `Content-Range` for a file of `size` bytes (RFC 9110 section 14.4).
    pub(super) fn content_range(self, size: u64) -> String {
        format!("bytes {}-{}/{size}", self.first, self.last)
    }
}

impl RangeSet {
    /// Reads the value of `Range`. None where it must or may be ignored: another
    /// unit than bytes, not well formed, or more than [`MAX_RANGES`] ranges (RFC
    /// 9110 section 14.2).
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let (unit, set) = text.trim_matches(WHITESPACE).split_once('=')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        // Empty elements of a list mean nothing (RFC 9110 section 5.6.1.2).
        let elements = set.split(',').map(|one| one.trim_matches(WHITESPACE));
        let mut specs = Vec::new();
        for element in elements.filter(|one| !one.is_empty()) {
            if specs.len() == MAX_RANGES {
                return None;
            }
            specs.push(RangeSpec::parse(element)?);
        }
        (!specs.is_empty()).then_some(Self(specs))
    }

    /// What these ranges are of a file of `size` bytes.
    ///
    /// The whole file is sent instead of ranges that overlap: nobody who needs a
    /// byte asks for it twice. No answer is larger than the file by more than the
    /// heads of its parts, then. It is also sent where it is empty: there is no
    /// `Content-Range` for no byte.
    pub(super) fn select(&self, size: u64) -> Selection {
        if size == 0 {
            return Selection::Whole;
        }
        let mut ranges: Vec<ByteRange> = Vec::with_capacity(self.0.len());
        for range in self.0.iter().filter_map(|spec| spec.within(size)) {
            if ranges.iter().any(|other| range.overlaps(*other)) {
                return Selection::Whole;
            }
            ranges.push(range);
        }
        if ranges.is_empty() { Selection::Unsatisfiable } else { Selection::Ranges(ranges) }
    }
}

impl RangeSpec {
    fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-')?;
        match (first, last) {
            ("", length) => Some(Self::Suffix(number(length)?)),
            (first, "") => Some(Self::From { first: number(first)?, last: None }),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                // RFC 9110 section 14.1.1: such a range makes the set invalid.
                (first <= last).then_some(Self::From { first, last: Some(last) })
            }
        }
    }

    /// The bytes of a file of `size` bytes, at least 1, if there are any.
    fn within(self, size: u64) -> Option<ByteRange> {
        let end = size.checked_sub(1)?;
        match self {
            Self::From { first, last } => {
                let last = last.map_or(end, |last| last.min(end));
                (first <= end).then_some(ByteRange { first, last })
            }
            Self::Suffix(length) => {
                (length > 0).then(|| ByteRange { first: size.saturating_sub(length), last: end })
            }
        }
    }
}

/// OWS of RFC 9110 section 5.6.3.
const WHITESPACE: [char; 2] = [' ', '\t'];

/// `1*DIGIT`; a number that is too large is the largest.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn select(value: &str, size: u64) -> Option<Selection> {
        RangeSet::parse(value.as_bytes()).map(|set| set.select(size))
    }

    #[test]
    fn selections() {
        let ranges = |list: &[(u64, u64)]| {
            let all = list.iter().map(|&(first, last)| ByteRange { first, last });
            Selection::Ranges(all.collect())
        };
        let table = [
            ("bytes=0-0", 10, ranges(&[(0, 0)])),
            ("bytes=0-", 10, ranges(&[(0, 9)])),
            ("bytes=3-5", 10, ranges(&[(3, 5)])),
            ("bytes=3-500", 10, ranges(&[(3, 9)])),
            ("bytes=9-9", 10, ranges(&[(9, 9)])),
            ("bytes=-3", 10, ranges(&[(7, 9)])),
            ("bytes=-300", 10, ranges(&[(0, 9)])),
            ("BYTES=3-5", 10, ranges(&[(3, 5)])),
            (" bytes= 3-5 \t", 10, ranges(&[(3, 5)])),
            ("bytes=0-1, 4-5", 10, ranges(&[(0, 1), (4, 5)])),
            ("bytes=,0-1 ,, 4-5,", 10, ranges(&[(0, 1), (4, 5)])),
            ("bytes=4-5,0-1", 10, ranges(&[(4, 5), (0, 1)])),
            ("bytes=0-1,2-3", 10, ranges(&[(0, 1), (2, 3)])),
            ("bytes=0-1,50-60", 10, ranges(&[(0, 1)])),
            ("bytes=0-1,-0", 10, ranges(&[(0, 1)])),
            ("bytes=0-99999999999999999999", 10, ranges(&[(0, 9)])),
            ("bytes=10-", 10, Selection::Unsatisfiable),
            ("bytes=99999999999999999999-", 10, Selection::Unsatisfiable),
            ("bytes=-0", 10, Selection::Unsatisfiable),
            ("bytes=10-11,12-", 10, Selection::Unsatisfiable),
            ("bytes=0-5,5-9", 10, Selection::Whole),
            ("bytes=0-,0-,0-,0-", 10, Selection::Whole),
            ("bytes=0-,-1", 10, Selection::Whole),
            ("bytes=0-", 0, Selection::Whole),
            ("bytes=-5", 0, Selection::Whole),
            ("bytes=0-0,1-1,2-2,3-3,4-4,5-5,6-6,8-8", 8, {
                ranges(&[(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6)])
            }),
        ];
        for (value, size, expected) in table {
            assert_eq!(select(value, size), Some(expected), "{value} of {size}");
        }
    }

    #[test]
    fn ignored_values() {
        let bad = [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=0",
            "bytes=5-3",
            "bytes=0-1,5-3",
            "bytes=0-1-2",
            "bytes=+0-1",
            "bytes=0x0-1",
            "bytes=0 -1",
            "bytes =0-1",
            "bytes=--1",
            "bytes=0-1;4-5",
            "lines=0-1",
            "bytes=0-\u{661}",
            "bytes=0-0,1-1,2-2,3-3,4-4,5-5,6-6,7-7,8-8",
        ];
        for value in bad {
            assert_eq!(select(value, 10), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn no_value_panics(value in "bytes=[0-9, -]{0,40}", size in any::<u64>()) {
            let _ = select(&value, size);
        }

        #[test]
        fn arbitrary_bytes_never_panic(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Some(set) = RangeSet::parse(&value) {
                prop_assert!((1..=MAX_RANGES).contains(&set.0.len()));
            }
        }

        #[test]
        fn ranges_lie_within_the_file_and_apart(
            value in "bytes=([0-9]{1,3}-[0-9]{0,3}|-[0-9]{1,3})(,[0-9]{1,3}-[0-9]{0,3}){0,9}",
            size in 0u64..1200,
        ) {
            if let Some(Selection::Ranges(ranges)) = select(&value, size) {
                prop_assert!((1..=MAX_RANGES).contains(&ranges.len()));
                prop_assert!(ranges.iter().all(|range| range.first <= range.last));
                prop_assert!(ranges.iter().all(|range| range.last < size));
                let mut taken = vec![false; 1200];
                for at in ranges.iter().flat_map(|range| range.first..=range.last) {
                    let at = usize::try_from(at).unwrap();
                    prop_assert!(!std::mem::replace(&mut taken[at], true), "byte {at} twice");
                }
            }
        }

        #[test]
        fn one_range_is_the_slice_it_names(
            first in 0u64..50, length in 1u64..50, size in 1u64..60
        ) {
            let value = format!("bytes={first}-{}", first + length - 1);
            let named: Vec<u64> = (first..first + length).filter(|at| *at < size).collect();
            match select(&value, size) {
                Some(Selection::Ranges(ranges)) => {
                    prop_assert_eq!(ranges.len(), 1);
                    let range: Vec<u64> = (ranges[0].first..=ranges[0].last).collect();
                    prop_assert_eq!(range, named);
                }
                other => {
                    prop_assert_eq!(other, Some(Selection::Unsatisfiable));
                    prop_assert!(named.is_empty());
                }
            }
        }
    }
}
