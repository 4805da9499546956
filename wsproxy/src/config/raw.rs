//! The text of a file as known keys with values of any kind, each with its
//! position. What the values mean is for [`build`](super::build).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Diagnostic, Place, Position};
use super::suggest;

/// A value of the file, and where it stands.
#[derive(Debug)]
pub(super) struct Found<'t> {
    /// The whole key, `section.key`.
    pub(super) key: &'static str,
    pub(super) place: Place,
    pub(super) value: DeValue<'t>,
    /// Where its items stand, when it is an array.
    pub(super) items: Vec<Place>,
}

/// Says once which keys there are: as fields to read, and as names to compare.
macro_rules! schema {
    ($($section:ident: $type:ident { $($key:ident),+ })+) => {
        /// What a file may hold; a key it does not hold is `None`.
        #[derive(Debug, Default)]
        pub(super) struct RawConfig<'t> {
            $(pub(super) $section: $type<'t>,)+
        }

        $(
            #[derive(Debug, Default)]
            pub(super) struct $type<'t> {
                $(pub(super) $key: Option<Found<'t>>,)+
            }
        )+

        /// Every section with its keys, in the order of the document.
        pub(super) const SCHEMA: &[(&str, &[&str])] =
            &[$((stringify!($section), &[$(stringify!($key)),+])),+];

        impl<'t> RawConfig<'t> {
            /// The whole key and the field for it.
            fn field(
                &mut self,
                section: &str,
                key: &str,
            ) -> Option<(&'static str, &mut Option<Found<'t>>)> {
                match (section, key) {
                    $($((stringify!($section), stringify!($key)) => Some((
                        concat!(stringify!($section), ".", stringify!($key)),
                        &mut self.$section.$key,
                    )),)+)+
                    _ => None,
                }
            }
        }
    };
}

schema! {
    listener: RawListener { address, backlog }
    upstream: RawUpstream { servers }
    timeouts: RawTimeouts {
        request_head, upstream_connect, upstream_answer, idle, drain, keepalive, user_timeout
    }
    limits: RawLimits { max_sessions, head_bytes, head_headers, relay_buffer }
    datapath: RawDatapath { mode, workers, settle }
    admin: RawAdmin { address }
    log: RawLog { format, level }
}

/// What [`parse`] made of a text.
#[derive(Debug, Default)]
pub(super) struct Parsed<'t> {
    pub(super) raw: RawConfig<'t>,
    pub(super) problems: Vec<Diagnostic>,
    /// Whether `raw` holds every key of the file, so that one not in it is
    /// one not in the file.
    pub(super) complete: bool,
}

/// Reads the keys of a file. What comes after a syntax error is not looked at,
/// for a parser that lost its way there would report what is not so.
pub(super) fn parse<'t>(path: &Path, text: &'t str) -> Parsed<'t> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader {
        path,
        lines: Lines::new(text),
        broken: BTreeSet::new(),
        parsed: Parsed { complete: errors.is_empty(), ..Parsed::default() },
    };
    for error in errors {
        reader.syntax_error(&error);
    }
    for (name, value) in document.into_inner() {
        reader.section(&name, value);
    }
    reader.parsed
}

struct Reader<'p, 't> {
    path: &'p Path,
    lines: Lines<'t>,
    /// The lines with syntax errors; from the first on, nothing is trusted.
    broken: BTreeSet<usize>,
    parsed: Parsed<'t>,
}

impl<'t> Reader<'_, 't> {
    fn syntax_error(&mut self, error: &toml::de::Error) {
        let start = error.span().map(|span| span.start);
        // The first error of a line is most often the cause of the others.
        if self.broken.insert(start.map_or(0, |start| self.lines.line(start))) {
            let position = start.map(|start| self.lines.position(start));
            let message = error.message().replace(char::is_control, " ");
            self.parsed.problems.push(Diagnostic::new(
                Place::file(self.path, position),
                format!("invalid TOML: {message}"),
            ));
        }
    }

    /// The place of something in the file, unless it reaches what is not to be
    /// trusted.
    fn place<T>(&self, spanned: &Spanned<T>) -> Option<Place> {
        let span = spanned.span();
        if let Some(line) = self.broken.first()
            && self.lines.line(span.end) >= *line
        {
            return None;
        }
        let position = self.lines.position(span.start);
        Some(Place::file(self.path, Some(position)))
    }

    fn section(&mut self, name: &Spanned<Cow<'_, str>>, value: Spanned<DeValue<'t>>) {
        let Some(place) = self.place(name) else {
            return;
        };
        let section: &str = name.get_ref();
        if !SCHEMA.iter().any(|(known, _)| *known == section) {
            let known = SCHEMA.iter().map(|(known, _)| *known);
            let meant =
                suggest::nearest(section, known).map(str::to_owned).or_else(|| elsewhere(section));
            let kind = match value.get_ref() {
                DeValue::Table(_) => "unknown section",
                _ => "unknown key",
            };
            let problem = unknown(place, kind, section, meant);
            self.parsed.problems.push(problem);
            return;
        }
        match value.into_inner() {
            DeValue::Table(table) => {
                for (key, value) in table {
                    self.key(section, &key, value);
                }
            }
            other => self.parsed.problems.push(
                Diagnostic::new(place, "not a section")
                    .with_key(section)
                    .with_found(describe(&other))
                    .with_expected(format!("one section [{section}]")),
            ),
        }
    }

    fn key(&mut self, section: &str, key: &Spanned<Cow<'_, str>>, value: Spanned<DeValue<'t>>) {
        let Some(key_place) = self.place(key) else {
            return;
        };
        let name: &str = key.get_ref();
        let value_place = self.place(&value);
        let items = match value.get_ref() {
            DeValue::Array(items) => items.iter().filter_map(|item| self.place(item)).collect(),
            _ => Vec::new(),
        };
        match (self.parsed.raw.field(section, name), value_place) {
            (Some((key, field)), Some(place)) => {
                *field = Some(Found { key, place, value: value.into_inner(), items });
            }
            (Some(_), None) => {}
            (None, _) => {
                let known = SCHEMA
                    .iter()
                    .filter(|(known, _)| *known == section)
                    .flat_map(|(_, keys)| keys.iter().copied());
                let meant = suggest::nearest(name, known)
                    .map(|meant| format!("{section}.{meant}"))
                    .or_else(|| elsewhere(name));
                let whole = format!("{section}.{name}");
                let problem = unknown(key_place, "unknown key", &whole, meant);
                self.parsed.problems.push(problem);
            }
        }
    }
}

/// The whole key of the nearest name, in whichever section it is.
fn elsewhere(name: &str) -> Option<String> {
    let meant = suggest::nearest(name, SCHEMA.iter().flat_map(|(_, keys)| keys.iter().copied()))?;
    let (section, _) = SCHEMA.iter().find(|(_, keys)| keys.contains(&meant))?;
    Some(format!("{section}.{meant}"))
}

fn unknown(place: Place, kind: &str, key: &str, meant: Option<String>) -> Diagnostic {
    let message = match meant {
        Some(meant) => format!("{kind}, did you mean {meant}?"),
        None => kind.to_owned(),
    };
    Diagnostic::new(place, message).with_key(shorten(key))
}

/// A value as a message shows it: on one line, not too long.
pub(super) fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quote(text),
        DeValue::Integer(number) => shorten(&number.to_string()),
        DeValue::Float(number) => shorten(&number.to_string()),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(_) => "a date or time".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// Text in quotes, as a message shows it.
pub(super) fn quote(text: &str) -> String {
    format!("\"{}\"", shorten(text))
}

fn shorten(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut shown: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

/// Where the lines of a text begin.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn new(text: &'t str) -> Self {
        let breaks = text.match_indices('\n').map(|(index, _)| index + 1);
        Self { text, starts: std::iter::once(0).chain(breaks).collect() }
    }

    /// The line of a byte, from 1.
    fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    /// The position of the character at, or around, a byte.
    fn position(&self, offset: usize) -> Position {
        let line = self.line(offset);
        let start = self.starts[line - 1];
        let before = self.text[start..]
            .char_indices()
            .take_while(|(index, c)| start + index + c.len_utf8() <= offset)
            // No editor counts the byte order mark that a file may begin with.
            .filter(|(index, c)| start + index > 0 || *c != '\u{feff}')
            .count();
        Position { line, column: before + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters() {
        let lines = Lines::new("ab\nü=1\r\n\nx");
        for (offset, line, column) in [
            (0, 1, 1),
            (1, 1, 2),
            (2, 1, 3),
            (3, 2, 1),
            (4, 2, 1),
            (5, 2, 2),
            (9, 3, 1),
            (10, 4, 1),
            (11, 4, 2),
            (99, 4, 2),
        ] {
            assert_eq!(lines.position(offset), Position { line, column }, "{offset}");
        }
    }

    #[test]
    fn shows_values_on_one_short_line() {
        assert_eq!(quote("a\n\u{1b}[2J\""), "\"a\\n\\u{1b}[2J\\\"\"");
        assert_eq!(shorten(&"é".repeat(60)), "é".repeat(60));
        assert_eq!(shorten(&"é".repeat(61)).chars().collect::<Vec<_>>().len(), 61);
    }
}
