//! The table of keys as a document, a commented example and a JSON schema.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::keys::{KEYS, Key, Kind};

/// Sections in the order of the document; the file itself has no table.
fn sections() -> Vec<&'static str> {
    let mut sections = Vec::new();
    for key in KEYS {
        if !key.section.is_empty() && !sections.contains(&key.section) {
            sections.push(key.section);
        }
    }
    sections
}

/// A section as a file begins it.
#[must_use]
pub fn title(section: &str) -> String {
    match section {
        "listener" | "upstream" | "route" => format!("[[{section}]]"),
        "upstream.servers" | "listener.tls.certificates" => format!("{section} = [{{ }}]"),
        _ => format!("[{section}]"),
    }
}

fn keys_of(section: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.section == section)
}

/// The tables of `CONFIGURATION.md`.
#[must_use]
pub fn reference() -> String {
    let mut text = String::new();
    for section in sections() {
        let title = title(section);
        let _ = writeln!(text, "### `{title}`\n\n| key | type | default | range | what it does |");
        text.push_str("|---|---|---|---|---|\n");
        for key in keys_of(section) {
            let default = match key.default {
                "" => "none".to_owned(),
                default => format!("`{default}`"),
            };
            let whole = key.whole();
            let (kind, range) = (kind_name(key.kind), key.range);
            let _ = writeln!(text, "| `{whole}` | {kind} | {default} | {range} | {} |", key.what);
        }
        text.push('\n');
    }
    text
}

fn kind_name(kind: Kind) -> String {
    match kind {
        Kind::Address => "address".into(),
        Kind::Server => "server".into(),
        Kind::Text => "text".into(),
        Kind::File => "path".into(),
        Kind::Duration => "duration".into(),
        Kind::Size => "size".into(),
        Kind::Integer => "integer".into(),
        Kind::Bool => "`true`, `false`".into(),
        Kind::Choice(words) => {
            let words: Vec<_> = words.iter().map(|word| format!("`\"{word}\"`")).collect();
            words.join(", ")
        }
        Kind::Rate => "rate".into(),
        Kind::Network => "network".into(),
        Kind::Status => "status".into(),
        Kind::List(of) => format!("list of {}", plural(*of)),
        Kind::Pairs => "table of texts".into(),
        Kind::Table(_) => "table".into(),
        Kind::Tables(_) => "list of tables".into(),
    }
}

fn plural(kind: Kind) -> &'static str {
    match kind {
        Kind::Network => "networks",
        Kind::Server => "servers",
        _ => "texts",
    }
}

/// A file with every key: those with a default have it, the others are commented out.
#[must_use]
pub fn example() -> String {
    let mut text = String::from(
        "# wsproxy: every key with its default. Lines that begin with \"#\" and a key are\n\
         # optional things without a default. `wsproxy check FILE` checks a file.\n",
    );
    for section in ["listener", "upstream", "route"] {
        let _ = writeln!(text, "\n[[{section}]]");
        example_keys(&mut text, section, false);
        for inner in sections().into_iter().filter(|s| s.starts_with(&format!("{section}."))) {
            if matches!(inner, "upstream.servers" | "listener.tls.certificates") {
                continue;
            }
            // TLS is not on unless its section is there; a route's pings are those of `[ping]`.
            let off = matches!(inner, "listener.tls" | "route.ping");
            let mark = if off { "# " } else { "" };
            let _ = writeln!(text, "\n{mark}[{inner}]");
            example_keys(&mut text, inner, off);
        }
    }
    for section in sections() {
        if ["listener", "upstream", "route"].iter().any(|s| section.starts_with(s)) {
            continue;
        }
        let _ = writeln!(text, "\n[{section}]");
        example_keys(&mut text, section, false);
    }
    text
}

fn example_keys(text: &mut String, section: &str, off: bool) {
    for key in keys_of(section) {
        let value = match (key.kind, key.default) {
            (Kind::Tables("listener.tls.certificates"), _) => {
                "[{ certificate = \"/etc/ssl/example.com.pem\", key = \"/etc/ssl/example.com.key\" }]"
            }
            (Kind::Table(_) | Kind::Tables(_), _) => continue,
            (_, "") => key.example,
            (_, default) => default,
        };
        let required =
            matches!((section, key.name), ("listener", "address") | ("upstream", "servers"));
        let chosen = (section, key.name) == ("route", "upstream");
        let comment = key.what.replace('`', "").replace('\n', " ");
        for line in wrap(&comment, 94) {
            let _ = writeln!(text, "# {line}");
        }
        let out = off || (key.default.is_empty() && !required && !chosen) || only_elsewhere(key);
        let _ = writeln!(text, "{}{} = {value}", if out { "# " } else { "" }, key.name);
    }
}

/// Keys with a default that belong to another action than the example's.
fn only_elsewhere(key: &Key) -> bool {
    key.section == "route" && matches!(key.name, "index" | "status")
        || (key.section, key.name) == ("upstream", "hash_key")
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let full = lines.last().is_some_and(|l| !l.is_empty() && l.len() + word.len() >= width);
        if full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// A JSON schema of the file (draft 2020-12), for editors.
#[must_use]
pub fn schema() -> Value {
    let mut schema = object("");
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("wsproxy configuration");
    schema
}

fn object(section: &str) -> Value {
    let mut properties = Map::new();
    for key in keys_of(section) {
        let mut property = value_schema(key.kind);
        // Words such as "off" and "auto" stand beside numbers.
        if matches!(key.kind, Kind::Integer)
            && (key.range.contains("\"off\"") || key.range.contains("\"auto\""))
        {
            let word = if key.range.contains("\"auto\"") { "auto" } else { "off" };
            property = json!({ "anyOf": [{ "type": "integer" }, { "const": word }] });
        }
        property["description"] = json!(key.what);
        properties.insert(key.name.to_owned(), property);
    }
    json!({ "type": "object", "additionalProperties": false, "properties": properties })
}

fn value_schema(kind: Kind) -> Value {
    match kind {
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Integer | Kind::Status => json!({ "type": "integer" }),
        Kind::Size => json!({ "type": ["integer", "string"] }),
        Kind::Choice(words) => json!({ "enum": words }),
        Kind::Server => json!({ "type": "string" }),
        Kind::List(Kind::Server) => {
            let server = object("upstream.servers");
            json!({ "type": "array", "items": { "anyOf": [{ "type": "string" }, server] } })
        }
        Kind::List(of) => json!({ "type": "array", "items": value_schema(*of) }),
        Kind::Pairs => {
            json!({ "type": "object", "additionalProperties": { "type": "string" } })
        }
        Kind::Table(name) => object(name),
        Kind::Tables(name) => {
            let table = object(name);
            json!({ "anyOf": [table, { "type": "array", "items": table }] })
        }
        Kind::Address | Kind::Text | Kind::File | Kind::Duration | Kind::Rate | Kind::Network => {
            json!({ "type": "string" })
        }
    }
}
