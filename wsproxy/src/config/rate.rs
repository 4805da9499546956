//! How often something may happen.

use std::fmt;
use std::str::FromStr;

use super::problem::Invalid;

const EXPECTED: &str = "a rate such as \"10/s\", \"300/m\" or \"1000/h\"";
/// Most events a second.
const MOST: u32 = 1_000_000;

/// Events in a second, minute or hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    events: u32,
    /// `s`, `m` or `h`.
    unit: char,
}

impl Rate {
    /// Events a second.
    #[must_use]
    pub fn per_second(self) -> f64 {
        let seconds = match self.unit {
            's' => 1.0,
            'm' => 60.0,
            _ => 3600.0,
        };
        f64::from(self.events) / seconds
    }
}

impl FromStr for Rate {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let malformed = || Invalid::new("not a rate", EXPECTED);
        let (events, unit) = text.split_once('/').ok_or_else(malformed)?;
        let unit = match unit {
            "s" => 's',
            "m" => 'm',
            "h" => 'h',
            _ => return Err(malformed()),
        };
        if !events.bytes().all(|b| b.is_ascii_digit()) || events.is_empty() {
            return Err(malformed());
        }
        match events.parse() {
            Ok(events @ 1..=MOST) => Ok(Self { events, unit }),
            Ok(0) => Err(Invalid::range(true, format!("1/{unit}"), format!("{MOST}/{unit}"))),
            _ => Err(Invalid::range(false, format!("1/{unit}"), format!("{MOST}/{unit}"))),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.events, self.unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_shows() {
        for (text, per_second) in [("10/s", 10.0), ("30/m", 0.5), ("3600/h", 1.0)] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(rate.per_second(), per_second);
            assert_eq!(rate.to_string(), text);
        }
        for text in ["", "10", "10/", "/s", "0/s", "1000001/s", "10/d", "-1/s", "+1/s", "1.5/s"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
