//! TOML text.

use std::fmt::Write as _;

/// Longest line of a list or table on one line, in characters.
const LINE_MAX: usize = 96;

/// A value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Integer(u64),
    Bool(bool),
    List(Vec<Value>),
    Table(Vec<(String, Value)>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Integer(number)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<Vec<String>> for Value {
    fn from(list: Vec<String>) -> Self {
        Self::List(list.into_iter().map(Value::Text).collect())
    }
}

impl From<Vec<(String, String)>> for Value {
    fn from(pairs: Vec<(String, String)>) -> Self {
        Self::Table(pairs.into_iter().map(|(key, value)| (key, Value::Text(value))).collect())
    }
}

/// Keys with their values, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entries(pub Vec<(&'static str, Value)>);

impl Entries {
    pub(super) fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.0.push((key, value.into()));
    }

    /// A list or table, unless it is empty.
    pub(super) fn set_some(&mut self, key: &'static str, value: impl Into<Value>) {
        let value = value.into();
        let empty = match &value {
            Value::List(list) => list.is_empty(),
            Value::Table(pairs) => pairs.is_empty(),
            _ => false,
        };
        if !empty {
            self.0.push((key, value));
        }
    }

    /// Whether the key is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(known, _)| *known == key)
    }

    /// The value, if there is one.
    pub(super) fn set_if<V: Into<Value>>(&mut self, key: &'static str, value: Option<V>) {
        if let Some(value) = value {
            self.set(key, value);
        }
    }
}

/// A table of the document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Section {
    /// With its brackets.
    pub header: &'static str,
    /// Lines above it.
    pub comments: Vec<String>,
    pub entries: Entries,
}

impl Section {
    pub(super) fn new(header: &'static str) -> Self {
        Self { header, ..Self::default() }
    }
}

/// The whole document.
pub(super) fn document(name: &str, sections: &[Section]) -> String {
    let mut out = String::new();
    comment(&mut out, &format!("Made of {name} by wsproxy import-nginx."));
    for section in sections {
        // A table inside the one before it follows it closely.
        if !section.header.trim_matches(['[', ']']).contains('.') {
            out.push('\n');
        }
        for line in &section.comments {
            comment(&mut out, line);
        }
        out.push_str(section.header);
        out.push('\n');
        for (key, value) in &section.entries.0 {
            entry(&mut out, key, value);
        }
    }
    out
}

fn comment(out: &mut String, line: &str) {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    out.push_str("# ");
    out.extend(line.chars().map(clean));
    out.push('\n');
}

fn entry(out: &mut String, key: &str, value: &Value) {
    let line = format!("{key} = {}", inline(value));
    if let Value::List(items) = value
        && line.chars().count() > LINE_MAX
    {
        let _ = writeln!(out, "{key} = [");
        for item in items {
            let _ = writeln!(out, "    {},", inline(item));
        }
        out.push_str("]\n");
        return;
    }
    out.push_str(&line);
    out.push('\n');
}

fn inline(value: &Value) -> String {
    match value {
        Value::Text(text) => quoted(text),
        Value::Integer(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::List(items) => {
            format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", "))
        }
        Value::Table(pairs) => {
            let pair =
                |(key, value): &(String, Value)| format!("{} = {}", bare(key), inline(value));
            format!("{{ {} }}", pairs.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
    }
}

/// A key, in quotes where it needs them.
fn bare(key: &str) -> String {
    let is_bare = |b: u8| b.is_ascii_lowercase() || b == b'_';
    if !key.is_empty() && key.bytes().all(is_bare) { key.to_owned() } else { quoted(key) }
}

/// A basic string (TOML 1.0, "String").
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_reads_back(text in any::<String>(), key in any::<String>(), line in any::<String>()) {
            let mut section = Section::new("[a]");
            section.comments.push(line);
            section.entries.set("text", text.as_str());
            section.entries.set("list", vec![text.clone(); 3]);
            section.entries.set("pairs", vec![(key.clone(), text.clone())]);
            let table: toml::Table = document("x\n[y]", &[section]).parse().unwrap();
            prop_assert_eq!(table["a"]["text"].as_str(), Some(text.as_str()));
            prop_assert_eq!(table["a"]["list"][2].as_str(), Some(text.as_str()));
            prop_assert_eq!(table["a"]["pairs"][key.as_str()].as_str(), Some(text.as_str()));
        }
    }
}
