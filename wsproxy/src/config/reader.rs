//! The text of a file as tables whose keys are known, each value with its position. What the
//! values mean is for [`build`](super::build).

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys;
use super::problem::{Diagnostic, Invalid, Place, Position};
use super::suggest;

/// A value, and where it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub place: Place,
    /// Its key (`route.upstream`) or flag (`--listen`).
    pub key: String,
}

impl<T> Given<T> {
    pub(super) fn flag(value: T, key: &str) -> Self {
        Self { value, place: Place::CommandLine, key: key.to_owned() }
    }

    /// Something to say about it.
    #[must_use]
    pub fn remark(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(self.place.clone(), message).with_key(self.key.clone())
    }

    /// Another value from the same place.
    pub(super) fn with<U>(&self, value: U) -> Given<U> {
        Given { value, place: self.place.clone(), key: self.key.clone() }
    }
}

/// A file being read, and what was found wrong so far.
pub(super) struct Reader<'p, 't> {
    path: &'p Path,
    lines: Lines<'t>,
    /// The lines with syntax errors; from the first on, nothing is trusted.
    broken: BTreeSet<usize>,
    problems: RefCell<Vec<Diagnostic>>,
}

/// Parses a text. What comes after a syntax error is not looked at, for a parser that lost its
/// way there would report what is not so.
pub(super) fn parse<'p, 't>(path: &'p Path, text: &'t str) -> (Reader<'p, 't>, DeTable<'t>) {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader {
        path,
        lines: Lines::new(text),
        broken: BTreeSet::new(),
        problems: RefCell::default(),
    };
    for error in errors {
        reader.syntax_error(&error);
    }
    (reader, document.into_inner())
}

impl<'p> Reader<'p, '_> {
    /// Whether every key of the file can be read, so that one that is not found is not there.
    pub(super) fn is_complete(&self) -> bool {
        self.broken.is_empty()
    }

    /// The file.
    pub(super) fn path(&self) -> &'p Path {
        self.path
    }

    pub(super) fn report(&self, problem: Diagnostic) {
        self.problems.borrow_mut().push(problem);
    }

    pub(super) fn into_problems(self) -> Vec<Diagnostic> {
        self.problems.into_inner()
    }

    fn syntax_error(&mut self, error: &toml::de::Error) {
        let start = error.span().map(|span| span.start);
        // The first error of a line is most often the cause of the others.
        if self.broken.insert(start.map_or(0, |start| self.lines.line(start))) {
            let position = start.map(|start| self.lines.position(start));
            let message = error.message().replace(char::is_control, " ");
            self.report(Diagnostic::new(
                Place::file(self.path, position),
                format!("invalid TOML: {message}"),
            ));
        }
    }

    /// The place of something in the file, unless it reaches what is not to be trusted.
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
}

/// One table of the file, with the keys that it may have.
#[derive(Clone, Copy)]
pub(super) struct Section<'r, 't> {
    reader: &'r Reader<'r, 't>,
    table: Option<&'r DeTable<'t>>,
    /// `listener.tls`; empty for the file itself.
    name: &'static str,
    /// Where it begins, when it is there.
    at: Option<Position>,
}

impl<'r, 't> Section<'r, 't> {
    /// The file itself; complains of what it may not hold.
    pub(super) fn top(reader: &'r Reader<'r, 't>, table: &'r DeTable<'t>) -> Self {
        let top = Self { reader, table: Some(table), name: "", at: None };
        top.complain_of_unknown();
        top
    }

    pub(super) fn reader(&self) -> &'r Reader<'r, 't> {
        self.reader
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Where the value of a key stands.
    pub(super) fn place_of(&self, key: &str) -> Option<Place> {
        self.reader.place(self.find(key)?)
    }

    pub(super) fn is_there(&self) -> bool {
        self.table.is_some()
    }

    /// Where this table is, for what is said of it as a whole.
    pub(super) fn place(&self) -> Place {
        Place::file(self.reader.path, self.at)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    fn whole(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    fn find(&self, key: &str) -> Option<&'r Spanned<DeValue<'t>>> {
        // Names in quotes are no borrowed text.
        self.table?.get(key)
    }

    /// The value of a key, if it is there and right.
    pub(super) fn get<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, Invalid>,
    ) -> Option<Given<T>> {
        debug_assert!(keys::find(self.name, key).is_some(), "{} is not declared", self.whole(key));
        let found = self.find(key)?;
        self.read(key, found, parse)
    }

    fn read<T>(
        &self,
        key: &str,
        found: &Spanned<DeValue<'_>>,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, Invalid>,
    ) -> Option<Given<T>> {
        let place = self.reader.place(found)?;
        match parse(found.get_ref()) {
            Ok(value) => Some(Given { value, place, key: self.whole(key) }),
            Err(invalid) => {
                self.invalid(place, key, found.get_ref(), invalid);
                None
            }
        }
    }

    fn invalid(&self, place: Place, key: &str, value: &DeValue<'_>, invalid: Invalid) {
        self.reader.report(
            Diagnostic::new(place, invalid.message)
                .with_key(self.whole(key))
                .with_found(describe(value))
                .with_expected(invalid.expected),
        );
    }

    /// The value of a key, or its default.
    pub(super) fn value<T>(
        &self,
        key: &'static str,
        default: T,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, Invalid>,
    ) -> T {
        self.get(key, parse).map_or(default, |given| given.value)
    }

    /// The items of a list that are right; each wrong one is reported.
    pub(super) fn list<T>(
        &self,
        key: &'static str,
        (least, most): (usize, usize),
        of: &'static str,
        parse: impl Fn(&DeValue<'_>) -> Result<T, Invalid>,
    ) -> Option<Vec<Given<T>>> {
        let items = self.items(key, (least, most), of)?;
        Some(items.iter().filter_map(|item| self.read(key, item, &parse)).collect())
    }

    /// The items of a list, of any type; `None` when it is not there or no list of right length.
    pub(super) fn items(
        &self,
        key: &'static str,
        (least, most): (usize, usize),
        of: &'static str,
    ) -> Option<&'r [Spanned<DeValue<'t>>]> {
        debug_assert!(keys::find(self.name, key).is_some(), "{} is not declared", self.whole(key));
        let found = self.find(key)?;
        let place = self.reader.place(found)?;
        let DeValue::Array(items) = found.get_ref() else {
            let invalid = Invalid::new("not a list", format!("a list of {of} in brackets"));
            self.invalid(place, key, found.get_ref(), invalid);
            return None;
        };
        if !(least..=most).contains(&items.len()) {
            let message = if items.is_empty() {
                format!("no {} in the list", of.trim_end_matches('s'))
            } else {
                format!("too many {of}")
            };
            self.reader.report(
                Diagnostic::new(place, message)
                    .with_key(self.whole(key))
                    .with_found(items.len().to_string())
                    .with_expected(format!("{least} to {most} {of}")),
            );
            return None;
        }
        Some(items)
    }

    /// One item of [`Self::items`]: a value, or a table with keys of its own.
    pub(super) fn item<T>(
        &self,
        key: &'static str,
        name: &'static str,
        item: &'r Spanned<DeValue<'t>>,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, Invalid>,
    ) -> Option<Item<'r, 't, T>> {
        match item.get_ref() {
            DeValue::Table(table) => {
                self.reader.place(item)?;
                Some(Item::Table(self.section(name, table, item)))
            }
            _ => self.read(key, item, parse).map(Item::Value),
        }
    }

    /// Names and texts of a table without keys of its own.
    pub(super) fn pairs(&self, key: &'static str) -> Vec<(Given<String>, Given<String>)> {
        debug_assert!(keys::find(self.name, key).is_some(), "{} is not declared", self.whole(key));
        let Some(found) = self.find(key) else { return Vec::new() };
        let Some(place) = self.reader.place(found) else { return Vec::new() };
        let DeValue::Table(table) = found.get_ref() else {
            let expected = "names and values in braces, such as { \"X-Name\" = \"value\" }";
            self.invalid(place, key, found.get_ref(), Invalid::new("not a table", expected));
            return Vec::new();
        };
        let pair = |(name, value): (&Spanned<std::borrow::Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
            let place = self.reader.place(name)?;
            let value = self.read(key, value, super::value::text)?;
            Some((Given { value: name.get_ref().to_string(), place, key: self.whole(key) }, value))
        };
        table.iter().filter_map(pair).collect()
    }

    /// A table inside this one; empty when it is not there.
    pub(super) fn table(&self, key: &str, name: &'static str) -> Self {
        let absent = Self { reader: self.reader, table: None, name, at: self.at };
        let Some(found) = self.find(key) else { return absent };
        match found.get_ref() {
            DeValue::Table(table) => self.section(name, table, found),
            other => {
                if let Some(place) = self.key_place(key) {
                    self.not_a_section(place, key, other, format!("one section [{name}]"));
                }
                absent
            }
        }
    }

    /// The tables of a list of tables; a single table is a list of one.
    pub(super) fn tables(&self, key: &str, name: &'static str, most: usize) -> Vec<Self> {
        let Some(found) = self.find(key) else { return Vec::new() };
        let expected = || format!("a section [{name}], or several [[{name}]]");
        match found.get_ref() {
            DeValue::Table(table) => vec![self.section(name, table, found)],
            DeValue::Array(items) => {
                if items.len() > most
                    && let Some(place) = self.key_place(key)
                {
                    self.reader.report(
                        Diagnostic::new(place, "too many of them")
                            .with_key(key)
                            .with_found(items.len().to_string())
                            .with_expected(format!("at most {most}")),
                    );
                }
                let section = |item: &'r Spanned<DeValue<'t>>| match item.get_ref() {
                    DeValue::Table(table) => Some(self.section(name, table, item)),
                    other => {
                        let place = self.reader.place(item)?;
                        self.not_a_section(place, key, other, expected());
                        None
                    }
                };
                items.iter().take(most).filter_map(section).collect()
            }
            other => {
                if let Some(place) = self.key_place(key) {
                    self.not_a_section(place, key, other, expected());
                }
                Vec::new()
            }
        }
    }

    fn key_place(&self, key: &str) -> Option<Place> {
        let (name, _) = self.table?.get_key_value(key)?;
        self.reader.place(name)
    }

    fn not_a_section(&self, place: Place, key: &str, found: &DeValue<'_>, expected: String) {
        self.reader.report(
            Diagnostic::new(place, "not a section")
                .with_key(self.whole(key))
                .with_found(describe(found))
                .with_expected(expected),
        );
    }

    fn section<T>(&self, name: &'static str, table: &'r DeTable<'t>, at: &Spanned<T>) -> Self {
        let at = self.reader.place(at).and_then(|place| place.position());
        let section = Self { reader: self.reader, table: Some(table), name, at };
        section.complain_of_unknown();
        section
    }

    fn complain_of_unknown(&self) {
        let Some(table) = self.table else { return };
        for (key, value) in table {
            let name: &str = key.get_ref();
            if keys::knows(self.name, name) {
                continue;
            }
            let Some(place) = self.reader.place(key) else { continue };
            let near = suggest::nearest(name, keys::names_in(self.name));
            let meant = near.map(|meant| self.whole(meant)).or_else(|| elsewhere(name));
            let top_table = self.name.is_empty() && matches!(value.get_ref(), DeValue::Table(_));
            let kind = if top_table { "unknown section" } else { "unknown key" };
            let message = match meant {
                Some(meant) => format!("{kind}, did you mean {meant}?"),
                None => kind.to_owned(),
            };
            let whole = shorten(&self.whole(name));
            self.reader.report(Diagnostic::new(place, message).with_key(whole));
        }
    }
}

/// One item of a list whose items may be tables.
pub(super) enum Item<'r, 't, T> {
    /// A plain value.
    Value(Given<T>),
    /// A table with keys of its own.
    Table(Section<'r, 't>),
}

/// The whole key of the nearest name, in whichever section it is.
fn elsewhere(name: &str) -> Option<String> {
    let meant = suggest::nearest(name, keys::KEYS.iter().map(|key| key.name))?;
    let mut keys = keys::KEYS.iter().filter(|key| key.name == meant);
    let first = keys.clone().next()?;
    // What routes may set for themselves holds for everything in another section; a table of
    // keys with the name of a key is hardly what was meant.
    let likely =
        |key: &&keys::Key| key.section != "route" && !matches!(key.kind, keys::Kind::Table(_));
    Some(keys.find(likely).unwrap_or(first).whole())
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

pub(super) fn shorten(text: &str) -> String {
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
