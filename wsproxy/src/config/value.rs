//! One TOML value to one typed value, or why not.

use std::path::PathBuf;
use std::str::FromStr;

use clap::ValueEnum;
use toml::de::{DeInteger, DeValue};

use super::Wait;
use super::addr::ServerAddr;
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

pub(super) fn size<const MIN: u64, const MAX: u64>(
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

/// A wait whose range, and step, in milliseconds are narrower than that of others.
pub(super) fn wait<const MIN: u32, const MAX: u32, const STEP: u32>(
    value: &DeValue<'_>,
) -> Result<Wait, Invalid> {
    let within: Period<MIN, MAX, STEP> = period(value)?;
    Wait::new(within.as_millis().into())
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

/// Text that the type reads; of no text its parser says what it expects.
pub(super) fn parsed<T: FromStr<Err = Invalid>>(value: &DeValue<'_>) -> Result<T, Invalid> {
    value.as_str().unwrap_or_default().parse()
}

pub(super) fn server(value: &DeValue<'_>) -> Result<ServerAddr, Invalid> {
    match value.as_str() {
        Some(text) => text.parse(),
        None => "".parse().map_err(|error: Invalid| Invalid {
            message: "not an address of a server".into(),
            ..error
        }),
    }
}

/// Text on one line, not empty.
pub(super) fn text(value: &DeValue<'_>) -> Result<String, Invalid> {
    match one_line(value)? {
        text if text.is_empty() => Err(Invalid::new("empty", "text")),
        text => Ok(text),
    }
}

/// The same, or nothing.
pub(super) fn one_line(value: &DeValue<'_>) -> Result<String, Invalid> {
    match value.as_str() {
        Some(text) if !text.chars().any(char::is_control) => Ok(text.to_owned()),
        Some(_) => Err(Invalid::new("a control character in it", "text on one line")),
        None => Err(Invalid::new("not a text", "text in quotes")),
    }
}

/// Any text, over several lines too.
pub(super) fn body(value: &DeValue<'_>) -> Result<String, Invalid> {
    const MOST: usize = 64 << 10;
    match value.as_str() {
        Some(text) if text.len() <= MOST => Ok(text.to_owned()),
        Some(_) => Err(Invalid::new("too long", "at most 64KiB")),
        None => Err(Invalid::new("not a text", "text in quotes")),
    }
}

/// An absolute path.
pub(super) fn path(value: &DeValue<'_>) -> Result<PathBuf, Invalid> {
    let expected = "an absolute path such as \"/etc/wsproxy/example.pem\"";
    match value.as_str() {
        Some(text) if text.starts_with('/') && !text.contains('\0') => Ok(text.into()),
        Some(_) => Err(Invalid::new("not an absolute path", expected)),
        None => Err(Invalid::new("not a path", expected)),
    }
}

/// A path of a URL.
pub(super) fn url_path(value: &DeValue<'_>) -> Result<String, Invalid> {
    let expected = "a path such as \"/ws\", without \"?\", \"#\" and dot segments";
    let text = value.as_str().unwrap_or_default();
    let dots = text.split('/').any(|segment| segment == "." || segment == "..");
    let visible = text.bytes().all(|b| b.is_ascii_graphic());
    if !text.starts_with('/') || text.contains(['?', '#']) || dots || !visible {
        return Err(Invalid::new("not a path", expected));
    }
    Ok(text.to_owned())
}

pub(super) fn flag(value: &DeValue<'_>) -> Result<bool, Invalid> {
    value.as_bool().ok_or_else(|| Invalid::new("neither true nor false", "true or false"))
}

/// One of these words, and what it stands for.
pub(super) fn word<T: Copy>(
    choices: &'static [(&'static str, T)],
) -> impl Fn(&DeValue<'_>) -> Result<T, Invalid> {
    move |value| {
        let text = value.as_str().unwrap_or_default();
        let found = choices.iter().find(|(word, _)| *word == text);
        found.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            Invalid::new("not one of its values", names.join(", "))
        })
    }
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
