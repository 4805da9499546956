//! Lengths of time that carry their range in their type.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::problem::Invalid;

/// Units from long to short, in milliseconds: the order they are written in.
const UNITS: [(&str, u32); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const EXPECTED: &str = "a duration such as \"250ms\", \"10s\", \"5m\" or \"2h30m\"";

/// A length of time from `MIN` to `MAX` milliseconds, a multiple of `STEP`.
///
/// Reads and displays `250ms`, `10s`, `5m`, `1h`, `30d` and sums such as
/// `2h30m`, whose units go from long to short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period<const MIN: u32, const MAX: u32, const STEP: u32 = 1>(u32);

impl<const MIN: u32, const MAX: u32, const STEP: u32> Period<MIN, MAX, STEP> {
    /// A length known when this is compiled; one out of range does not compile.
    pub const fn of<const MILLIS: u32>() -> Self {
        const { assert!(MIN <= MILLIS && MILLIS <= MAX && MILLIS.is_multiple_of(STEP)) };
        Self(MILLIS)
    }

    /// That many milliseconds, or why they will not do.
    pub fn new(millis: u64) -> Result<Self, Invalid> {
        match u32::try_from(millis) {
            Ok(millis) if (MIN..=MAX).contains(&millis) => {
                if millis.is_multiple_of(STEP) {
                    Ok(Self(millis))
                } else {
                    Err(Invalid::new("too fine", format!("a multiple of {}", Millis(STEP))))
                }
            }
            _ => Err(Invalid::range(millis < u64::from(MIN), Millis(MIN), Millis(MAX))),
        }
    }

    /// The length of time.
    pub const fn get(self) -> Duration {
        Duration::from_millis(self.0 as u64)
    }

    /// The length of time in milliseconds.
    pub const fn as_millis(self) -> u32 {
        self.0
    }
}

impl<const MIN: u32, const MAX: u32, const STEP: u32> FromStr for Period<MIN, MAX, STEP> {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::new(parse_millis(text)?)
    }
}

impl<const MIN: u32, const MAX: u32, const STEP: u32> fmt::Display for Period<MIN, MAX, STEP> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Millis(self.0).fmt(f)
    }
}

/// The written form of a number of milliseconds.
struct Millis(u32);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        if rest == 0 {
            return f.write_str("0s");
        }
        for (name, unit) in UNITS {
            if rest >= unit {
                write!(f, "{}{name}", rest / unit)?;
                rest %= unit;
            }
        }
        Ok(())
    }
}

/// Saturates: what is too long for a `u64` is above every range all the same.
fn parse_millis(text: &str) -> Result<u64, Invalid> {
    let malformed = |message: &'static str| Err(Invalid::new(message, EXPECTED));
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut total = 0u64;
    loop {
        let (number, tail) = split_while(rest, u8::is_ascii_digit);
        let (name, tail) = split_while(tail, u8::is_ascii_alphabetic);
        if number.is_empty() {
            return malformed("not a duration");
        }
        if name.is_empty() {
            return malformed("a number without its unit");
        }
        // Each search goes on after the unit found last, so that units can
        // only get shorter.
        let Some((_, unit)) = units.find(|(known, _)| *known == name) else {
            return malformed(if UNITS.iter().any(|(known, _)| *known == name) {
                "units must go from long to short, each once"
            } else {
                "not a unit of time: d, h, m, s and ms are"
            });
        };
        let number = number.parse().unwrap_or(u64::MAX);
        total = total.saturating_add(number.saturating_mul(u64::from(*unit)));
        if tail.is_empty() {
            return Ok(total);
        }
        rest = tail;
    }
}

fn split_while(text: &str, keep: impl Fn(&u8) -> bool) -> (&str, &str) {
    // `keep` accepts ASCII alone, so the split is between characters.
    text.split_at(text.bytes().take_while(|byte| keep(byte)).count())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Any = Period<0, { u32::MAX }>;

    #[test]
    fn reads_every_written_form() {
        for (text, millis) in [
            ("0s", 0),
            ("250ms", 250),
            ("10s", 10_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("30d", 2_592_000_000),
            ("2h30m", 9_000_000),
            ("1d1h1m1s1ms", 90_061_001),
            ("90m", 5_400_000),
            ("1s5ms", 1_005),
        ] {
            assert_eq!(text.parse::<Any>().map(Period::as_millis), Ok(millis), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for text in [
            "", "10", "s", "-1s", "+1s", "1.5s", "1 s", " 1s", "1s ", "10S", "1w", "30m2h", "1s1s",
            "2h30", "off", "1٣s", "ms1",
        ] {
            let error = text.parse::<Any>().expect_err(text);
            assert_eq!(error.expected, EXPECTED, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_out_of_range() {
        let huge = "9".repeat(80) + "d";
        for (text, message, expected) in [
            ("999ms", "too small", "1s to 1m"),
            ("0s", "too small", "1s to 1m"),
            ("60001ms", "too large", "1s to 1m"),
            (&huge, "too large", "1s to 1m"),
            ("1500ms", "too fine", "a multiple of 1s"),
        ] {
            let error = text.parse::<Period<1_000, 60_000, 1_000>>().expect_err(text);
            assert_eq!((&*error.message, &*error.expected), (message, expected), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_written_form_reads_back(millis: u32) {
            let period = Any::new(u64::from(millis)).unwrap();
            prop_assert_eq!(period.to_string().parse(), Ok(period));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = text.parse::<Any>();
        }
    }
}
