//! Moments in the calendar, in UTC.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

/// 0000-01-01T00:00:00.000Z in milliseconds since 1970: years have 4 digits (RFC 3339, 5.6).
const FIRST: i64 = -62_167_219_200_000;
/// 9999-12-31T23:59:59.999Z in milliseconds since 1970.
const LAST: i64 = 253_402_300_799_999;
const DAY: i64 = 86_400_000;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A moment of the years 0 to 9999; what lies outside is the first or the last of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Civil {
    year: i64,
    month: i64,
    day: i64,
    /// Milliseconds since midnight.
    of_day: i64,
}

impl Civil {
    pub(super) fn of(time: SystemTime) -> Self {
        let millis = millis_since_1970(time);
        let (year, month, day) = date(millis.div_euclid(DAY));
        Self { year, month, day, of_day: millis.rem_euclid(DAY) }
    }

    fn clock(self) -> (i64, i64, i64) {
        (self.of_day / 3_600_000, self.of_day / 60_000 % 60, self.of_day / 1_000 % 60)
    }

    /// `2026-10-10T13:55:36.123Z` (RFC 3339, section 5.6).
    pub(super) fn rfc3339(self) -> impl fmt::Display {
        let Self { year, month, day, of_day } = self;
        let (hour, minute, second) = self.clock();
        Shown(move |f: &mut fmt::Formatter<'_>| {
            write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
            write!(f, ".{:03}Z", of_day % 1_000)
        })
    }

    /// `10/Oct/2026:13:55:36 +0000`.
    pub(super) fn common(self) -> impl fmt::Display {
        let Self { year, month, day, .. } = self;
        let (hour, minute, second) = self.clock();
        let index = usize::try_from(month - 1).unwrap_or(0);
        let month = MONTHS.get(index).copied().unwrap_or("Jan");
        Shown(move |f: &mut fmt::Formatter<'_>| {
            write!(f, "{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000")
        })
    }
}

struct Shown<F>(F);

impl<F: Fn(&mut fmt::Formatter<'_>) -> fmt::Result> fmt::Display for Shown<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.0)(f)
    }
}

fn millis_since_1970(time: SystemTime) -> i64 {
    let millis = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(LAST),
        // A part of a millisecond counts as a whole one: towards the past, as after 1970.
        Err(before) => i64::try_from(before.duration().as_nanos().div_ceil(1_000_000))
            .map_or(FIRST, |millis| -millis),
    };
    millis.clamp(FIRST, LAST)
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar.
const fn date(days: i64) -> (i64, i64, i64) {
    // In eras of 400 years that begin in March, so that a leap day comes last.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, of_year - (153 * from_march + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn after(millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(millis)
    }

    #[test]
    fn moments_have_a_date_and_a_time() {
        for (time, rfc3339, common) in [
            (after(0), "1970-01-01T00:00:00.000Z", "01/Jan/1970:00:00:00 +0000"),
            (after(951_782_400_000), "2000-02-29T00:00:00.000Z", "29/Feb/2000:00:00:00 +0000"),
            (after(1_709_251_199_999), "2024-02-29T23:59:59.999Z", "29/Feb/2024:23:59:59 +0000"),
            (after(1_709_251_200_000), "2024-03-01T00:00:00.000Z", "01/Mar/2024:00:00:00 +0000"),
            (after(1_791_640_536_007), "2026-10-10T13:55:36.007Z", "10/Oct/2026:13:55:36 +0000"),
            (after(4_107_542_400_000), "2100-03-01T00:00:00.000Z", "01/Mar/2100:00:00:00 +0000"),
            (
                UNIX_EPOCH - Duration::from_nanos(1),
                "1969-12-31T23:59:59.999Z",
                "31/Dec/1969:23:59:59 +0000",
            ),
            (
                UNIX_EPOCH + Duration::from_secs(1 << 60),
                "9999-12-31T23:59:59.999Z",
                "31/Dec/9999:23:59:59 +0000",
            ),
            (
                UNIX_EPOCH - Duration::from_secs(1 << 60),
                "0000-01-01T00:00:00.000Z",
                "01/Jan/0000:00:00:00 +0000",
            ),
        ] {
            let civil = Civil::of(time);
            assert_eq!(civil.rfc3339().to_string(), rfc3339);
            assert_eq!(civil.common().to_string(), common);
        }
    }

    #[test]
    fn days_follow_each_other() {
        let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let (mut year, mut month, mut day) = (0, 1, 1);
        for days in FIRST / DAY..=LAST / DAY {
            assert_eq!(date(days), (year, month, day));
            day += 1;
            let length = match month {
                2 => 28 + i64::from(leap(year)),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            if day > length {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
        assert_eq!((year, month, day), (10_000, 1, 1));
    }
}
