//! Numbers of bytes that carry their range in their type.

use std::fmt;
use std::str::FromStr;

use super::problem::Invalid;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const EXPECTED: &str = "a size such as \"16KiB\", \"64k\", \"1MiB\" or a number of bytes";

/// A number of bytes from `MIN` to `MAX`.
///
/// Reads `16KiB`, `64k`, `1MiB`, `4096` and `4096B`; k, m, g and t are powers
/// of 1024, in either case. Displays in the largest unit that divides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Size<MIN, MAX> {
    /// A size known when this is compiled; one out of range does not compile.
    pub const fn of<const BYTES: u64>() -> Self {
        const { assert!(MIN <= BYTES && BYTES <= MAX) };
        Self(BYTES)
    }

    /// That many bytes, or why it is out of range.
    pub fn new(bytes: i128) -> Result<Self, Invalid> {
        match u64::try_from(bytes) {
            Ok(bytes) if (MIN..=MAX).contains(&bytes) => Ok(Self(bytes)),
            _ => Err(Invalid::range(bytes < i128::from(MIN), Bytes(MIN), Bytes(MAX))),
        }
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number of bytes, for lengths and indices; where a `usize` is shorter, its most.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl<const MIN: u64, const MAX: u64> FromStr for Size<MIN, MAX> {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::new(parse_bytes(text)?)
    }
}

impl<const MIN: u64, const MAX: u64> fmt::Display for Size<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Bytes(self.0).fmt(f)
    }
}

/// The written form of a number of bytes.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0;
        for (unit, name) in [(TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")] {
            if bytes != 0 && bytes.is_multiple_of(unit) {
                return write!(f, "{}{name}", bytes / unit);
            }
        }
        write!(f, "{bytes}B")
    }
}

fn parse_bytes(text: &str) -> Result<i128, Invalid> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(Invalid::new("not a size", EXPECTED));
    }
    let unit = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => KIB,
        "m" | "mib" => MIB,
        "g" | "gib" => GIB,
        "t" | "tib" => TIB,
        "kb" | "mb" | "gb" | "tb" => {
            return Err(Invalid::new("a decimal unit, which could mean 1000 or 1024", EXPECTED));
        }
        _ => return Err(Invalid::new("not a size", EXPECTED)),
    };
    // More digits than an i128 holds are above every range all the same.
    let number = number.parse().unwrap_or(i128::MAX);
    Ok(number.saturating_mul(i128::from(unit)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Any = Size<0, { u64::MAX }>;

    #[test]
    fn reads_every_written_form() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("4096B", 4096),
            ("16KiB", 16 * KIB),
            ("16kib", 16 * KIB),
            ("64k", 64 * KIB),
            ("64K", 64 * KIB),
            ("1MiB", MIB),
            ("3m", 3 * MIB),
            ("3GiB", 3 * GIB),
            ("1TiB", TIB),
            ("2t", 2 * TIB),
        ] {
            assert_eq!(text.parse::<Any>().map(Size::get), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_size() {
        for text in
            ["", "k", "KiB", "-1", "+1", "1.5k", "1 k", " 1k", "1kk", "16KB", "1TB", "1٣", "off"]
        {
            let error = text.parse::<Any>().expect_err(text);
            assert_eq!(error.expected, EXPECTED, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_out_of_range() {
        let huge = "9".repeat(80) + "GiB";
        for (text, message) in [("1023", "too small"), ("2049", "too large"), (&huge, "too large")]
        {
            let error = text.parse::<Size<1024, 2048>>().expect_err(text);
            assert_eq!(error.message, message, "{text}");
            assert_eq!(error.expected, "1KiB to 2KiB");
        }
    }

    proptest! {
        #[test]
        fn the_written_form_reads_back(bytes: u64, shift in 0u32..64) {
            let size = Any::new(i128::from(bytes.wrapping_shl(shift))).unwrap();
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = text.parse::<Any>();
        }
    }
}
