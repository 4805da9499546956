//! The validators of a file: its entity tag and the time of its last change
//! (RFC 9110 section 8.8).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::root::OpenFile;

/// The first second that an HTTP date cannot name: year 10000.
const END_OF_DATES: u64 = 253_402_300_800;

/// What conditional requests compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Validators {
    /// The strong entity tag, with its quotes: the time of the last change in
    /// nanoseconds and the size in bytes, both in hex.
    pub(super) etag: String,
    /// The last change in whole seconds since 1970, if an HTTP date can name it.
    pub(super) modified: Option<u64>,
}

impl Validators {
    pub(super) fn of(file: &OpenFile) -> Self {
        let nanos = i128::from(file.modified) * 1_000_000_000 + i128::from(file.modified_nanos);
        let modified = u64::try_from(file.modified).ok().filter(|second| *second < END_OF_DATES);
        Self { etag: format!("\"{nanos:x}-{:x}\"", file.size), modified }
    }

    /// `Last-Modified`, never later than `now` (RFC 9110 section 8.8.2.1).
    pub(super) fn last_modified(&self, now: u64) -> Option<String> {
        self.modified.map(|second| http_date(second.min(now)))
    }
}

/// Seconds since 1970 of a time; 0 before it, and at most year 9999.
pub(super) fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs().min(END_OF_DATES - 1)
}

/// Reads an HTTP date in any of its three forms (RFC 9110 section 5.6.7).
pub(super) fn parse_date(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    httpdate::parse_http_date(text.trim_matches([' ', '\t'])).ok().map(seconds)
}

fn http_date(second: u64) -> String {
    // The formatter panics past the year 9999.
    let second = second.min(END_OF_DATES - 1);
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dates() {
        assert_eq!(http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
        let forms = [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ];
        for form in forms {
            assert_eq!(parse_date(form.as_bytes()), Some(784_111_777), "{form}");
        }
        for bad in ["", "yesterday", "784111777", "Sun, 06 Nov 1994", "\u{e4}"] {
            assert_eq!(parse_date(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn no_last_change_lies_in_the_future() {
        let validators = Validators { etag: String::new(), modified: Some(2000) };
        assert_eq!(validators.last_modified(1000), Some(http_date(1000)));
        assert_eq!(validators.last_modified(3000), Some(http_date(2000)));
    }

    proptest! {
        #[test]
        fn a_date_comes_back(second in 0..END_OF_DATES) {
            prop_assert_eq!(parse_date(http_date(second).as_bytes()), Some(second));
        }

        #[test]
        fn no_date_panics(
            text in "[ -~]{0,40}", broken in "[SMTWF][a-z]{2,8},? [0-9 :-]{0,20} GMT"
        ) {
            let _ = (parse_date(text.as_bytes()), parse_date(broken.as_bytes()));
        }
    }
}
