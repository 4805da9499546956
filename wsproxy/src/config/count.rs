//! Whole numbers that carry their range in their type.

use std::fmt;

use super::problem::Invalid;

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Count<const MIN: u32, const MAX: u32>(u32);

impl<const MIN: u32, const MAX: u32> Count<MIN, MAX> {
    /// A number known when this is compiled; one out of range does not compile.
    pub const fn of<const VALUE: u32>() -> Self {
        const { assert!(MIN <= VALUE && VALUE <= MAX) };
        Self(VALUE)
    }

    /// The number, or why it is out of range.
    pub fn new(value: i128) -> Result<Self, Invalid> {
        match u32::try_from(value) {
            Ok(value) if (MIN..=MAX).contains(&value) => Ok(Self(value)),
            _ => Err(Invalid::range(value < i128::from(MIN), MIN, MAX)),
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The number, for lengths and indices.
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }
}

impl<const MIN: u32, const MAX: u32> fmt::Display for Count<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A value, or `"auto"`: chosen at start from what the machine offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Setting<T> {
    /// Chosen at start.
    Auto,
    /// As configured.
    Fixed(T),
}

impl<T> Setting<T> {
    /// The configured value, or what `auto` chooses.
    pub fn unwrap_or_else(self, auto: impl FnOnce() -> T) -> T {
        match self {
            Self::Auto => auto(),
            Self::Fixed(value) => value,
        }
    }
}

impl<T: fmt::Display> fmt::Display for Setting<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Fixed(value) => value.fmt(f),
        }
    }
}
