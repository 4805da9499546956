//! One TOML value to one typed value, or why not.

use clap::ValueEnum;
use toml::de::{DeArray, DeInteger, DeValue};

use super::addr::{ListenAddr, UpstreamAddr};
use super::count::{Count, Setting};
use super::period::Period;
use super::problem::Invalid;
use super::size::Size;

/// Turns durations, and some limits, off.
pub(super) const OFF: &str = "off";
/// Leaves a number to be chosen at start.
pub(super) const AUTO: &str = "auto";

pub(super) fn count<const MIN: u32, const MAX: u32>(
    value: &DeValue<'_>,
) -> Result<Count<MIN, MAX>, Invalid> {
    match value.as_integer() {
        Some(number) => Count::new(integer(number)),
        None => Err(Invalid::new("not a whole number", format!("{MIN} to {MAX}"))),
    }
}

pub(super) fn size<const MIN: u32, const MAX: u32>(
    value: &DeValue<'_>,
) -> Result<Size<MIN, MAX>, Invalid> {
    match value {
        DeValue::Integer(number) => Size::new(integer(number)),
        DeValue::String(text) => text.parse(),
        // What is expected is said by the parser, of any text.
        _ => "".parse(),
    }
}

pub(super) fn period<const MIN: u32, const MAX: u32, const STEP: u32>(
    value: &DeValue<'_>,
) -> Result<Period<MIN, MAX, STEP>, Invalid> {
    let text = match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => number.to_string(),
        _ => String::new(),
    };
    text.parse::<Period<MIN, MAX, STEP>>().map_err(|error| {
        if text == OFF { Invalid::new("cannot be turned off", error.expected) } else { error }
    })
}

/// The same, or `"off"`.
pub(super) fn off<T>(
    parse: impl Fn(&DeValue<'_>) -> Result<T, Invalid>,
) -> impl Fn(&DeValue<'_>) -> Result<Option<T>, Invalid> {
    move |value| match value.as_str() {
        Some(OFF) => Ok(None),
        _ => parse(value).map(Some).map_err(|error| error.or(OFF)),
    }
}

/// The same, or `"auto"`.
pub(super) fn auto<T>(
    parse: impl Fn(&DeValue<'_>) -> Result<T, Invalid>,
) -> impl Fn(&DeValue<'_>) -> Result<Setting<T>, Invalid> {
    move |value| match value.as_str() {
        Some(AUTO) => Ok(Setting::Auto),
        _ => parse(value).map(Setting::Fixed).map_err(|error| error.or(AUTO)),
    }
}

pub(super) fn choice<T: ValueEnum>(value: &DeValue<'_>) -> Result<T, Invalid> {
    let text = value.as_str().unwrap_or_default();
    T::from_str(text, false).map_err(|_| {
        let names: Vec<_> = T::value_variants()
            .iter()
            .filter_map(ValueEnum::to_possible_value)
            .map(|known| format!("\"{}\"", known.get_name()))
            .collect();
        Invalid::new("not one of its values", names.join(", "))
    })
}

pub(super) fn listen(value: &DeValue<'_>) -> Result<ListenAddr, Invalid> {
    // As above: of no text the parser says what it expects.
    value.as_str().unwrap_or_default().parse()
}

pub(super) fn server(value: &DeValue<'_>) -> Result<UpstreamAddr, Invalid> {
    match value.as_str() {
        Some(text) => text.parse(),
        None => "".parse().map_err(|error: Invalid| Invalid {
            message: "not an address of a server".into(),
            ..error
        }),
    }
}

pub(super) fn array<'v, 't>(value: &'v DeValue<'t>) -> Result<&'v DeArray<'t>, Invalid> {
    value.as_array().ok_or_else(|| Invalid::new("not a list", "a list of servers in brackets"))
}

/// Numbers of more digits than the type holds are outside every range, on the
/// side that their sign says.
fn integer(number: &DeInteger<'_>) -> i128 {
    let digits = number.as_str();
    i128::from_str_radix(digits, number.radix()).unwrap_or(if digits.starts_with('-') {
        i128::MIN
    } else {
        i128::MAX
    })
}
