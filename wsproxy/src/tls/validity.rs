//! The validity of a certificate (RFC 5280 section 4.1.2.5). webpki only says
//! whether it holds now.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: i64 = 86_400;
const HOUR: i64 = 3_600;
/// How long before its end a certificate is warned of, in seconds.
const SOON: i64 = 14 * DAY;

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0]`, the explicit tag of the version.
const VERSION: u8 = 0xa0;

/// The first and the last second, counted from 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: i64,
    pub(super) not_after: i64,
}

impl Validity {
    /// Of a certificate in DER; none if it cannot be read.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let (certificate, _) = expect(certificate, SEQUENCE)?;
        let (tbs, _) = expect(certificate, SEQUENCE)?;
        let rest = match element(tbs)? {
            (VERSION, _, rest) => rest,
            _ => tbs,
        };
        let (_serial, rest) = expect(rest, INTEGER)?;
        let (_algorithm, rest) = expect(rest, SEQUENCE)?;
        let (_issuer, rest) = expect(rest, SEQUENCE)?;
        let (validity, _) = expect(rest, SEQUENCE)?;
        let (tag, from, rest) = element(validity)?;
        let not_before = seconds(tag, from)?;
        let (tag, to, _) = element(rest)?;
        Some(Self { not_before, not_after: seconds(tag, to)? })
    }

    /// What is to be warned of at `now`, seconds since 1970.
    pub(super) fn warning(self, now: i64) -> Option<String> {
        if now > self.not_after {
            Some(format!("expired {} ago", span(now - self.not_after)))
        } else if now < self.not_before {
            Some(format!("is not yet valid, only in {}", span(self.not_before - now)))
        } else if self.not_after - now < SOON {
            Some(format!("expires in {}", span(self.not_after - now)))
        } else {
            None
        }
    }

    pub(super) fn expires(self) -> Option<SystemTime> {
        let after = Duration::from_secs(self.not_after.unsigned_abs());
        if self.not_after < 0 {
            UNIX_EPOCH.checked_sub(after)
        } else {
            UNIX_EPOCH.checked_add(after)
        }
    }
}

fn span(seconds: i64) -> String {
    let (count, unit) = match seconds {
        DAY.. => (seconds / DAY, "day"),
        HOUR.. => (seconds / HOUR, "hour"),
        _ => (seconds / 60, "minute"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// Tag, content and what follows of the first element (X.690 section 8.1), for
/// tags of one byte and lengths of up to four.
fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, &digit| length << 8 | usize::from(digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

fn expect(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(input)?;
    (found == tag).then_some((content, rest))
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` (RFC 5280 sections 4.1.2.5.1 and
/// 4.1.2.5.2) as seconds since 1970.
fn seconds(tag: u8, text: &[u8]) -> Option<i64> {
    let digits = text.strip_suffix(b"Z")?;
    let (year, rest) = match tag {
        UTC_TIME if digits.len() == 12 => {
            let year = number(digits.get(..2)?)?;
            (if year >= 50 { 1900 + year } else { 2000 + year }, digits.get(2..)?)
        }
        GENERALIZED_TIME if digits.len() == 14 => (number(digits.get(..4)?)?, digits.get(4..)?),
        _ => return None,
    };
    let mut parts = [0; 5];
    for (part, pair) in parts.iter_mut().zip(rest.chunks_exact(2)) {
        *part = number(pair)?;
    }
    let [month, day, hour, minute, second] = parts;
    let valid = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    valid.then(|| days(year, month, day) * DAY + hour * HOUR + minute * 60 + second)
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, digit| {
        digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0'))
    })
}

/// Days from 1970-01-01 in the Gregorian calendar. The year is counted from
/// March, so that the leap day is its last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        let table: &[(u8, &str, Option<i64>)] = &[
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "691231235959Z", Some(-1)),
            (UTC_TIME, "500101000000Z", Some(-631_152_000)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (UTC_TIME, "240229120000Z", Some(1_709_208_000)),
            (GENERALIZED_TIME, "20000301000000Z", Some(951_868_800)),
            (GENERALIZED_TIME, "21000301000000Z", Some(4_107_542_400)),
            (GENERALIZED_TIME, "99991231235959Z", Some(253_402_300_799)),
            (GENERALIZED_TIME, "00000101000000Z", Some(-62_167_219_200)),
            (UTC_TIME, "20000301000000Z", None),
            (GENERALIZED_TIME, "700101000000Z", None),
            (UTC_TIME, "701301000000Z", None),
            (UTC_TIME, "700100000000Z", None),
            (UTC_TIME, "700101240000Z", None),
            (UTC_TIME, "7001010000+0Z", None),
            (UTC_TIME, "700101000000", None),
            (INTEGER, "700101000000Z", None),
        ];
        for (tag, text, expected) in table {
            assert_eq!(seconds(*tag, text.as_bytes()), *expected, "{tag:#x} {text}");
        }
    }

    #[test]
    fn warnings_say_how_long() {
        let validity = Validity { not_before: 1_000 * DAY, not_after: 2_000 * DAY };
        let table: &[(i64, Option<&str>)] = &[
            (1_000 * DAY, None),
            (1_000 * DAY - 1, Some("is not yet valid, only in 0 minutes")),
            (998 * DAY, Some("is not yet valid, only in 2 days")),
            (2_000 * DAY - SOON, None),
            (2_000 * DAY - SOON + 1, Some("expires in 13 days")),
            (2_000 * DAY - HOUR, Some("expires in 1 hour")),
            (2_000 * DAY, Some("expires in 0 minutes")),
            (2_000 * DAY + 61, Some("expired 1 minute ago")),
            (2_003 * DAY, Some("expired 3 days ago")),
        ];
        for (now, expected) in table {
            assert_eq!(validity.warning(*now).as_deref(), *expected, "{now}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            let _ = Validity::of(&bytes);
        }
    }
}
