//! wsproxy.toml(5), made of the table of keys.

use std::fmt::Write as _;

use wsproxy::config::{KEYS, Key, Kind, title};

const HEAD: &str = r#".SH NAME
wsproxy.toml \- the configuration of wsproxy
.SH SYNOPSIS
.B /etc/wsproxy/wsproxy.toml
.SH DESCRIPTION
A TOML file. Every key has a default but those that are marked as required; unknown keys, and values
out of range, are errors:
.B wsproxy check
.I FILE
lists all of them.
.B systemctl reload wsproxy
takes a changed file over in one step or, where it is wrong, not at all; live sessions go on.
Keys below datapath, admin, access_log and log, and some limits, take a restart.
.PP
A
.I duration
is a text such as "250ms", "10s", "1h"; a
.I size
a number of bytes or a text such as "16KiB"; a
.I rate
a text such as "10/s"; an
.I address
"ip:port", ":port" or "unix:/path"; a
.I server
"host:port", with "wss://" or "https://" before it over TLS.
"#;

const TAIL: &str = r#".SH FILES
.TP
.I /etc/wsproxy/wsproxy.toml
read without
.B \-\-config
.TP
.I /usr/share/doc/wsproxy/example.toml
every key with its default
.SH SEE ALSO
.BR wsproxy (1),
.BR wsproxy\-check (1)
"#;

/// The whole page.
pub fn page() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!(".TH WSPROXY.TOML 5 \"\" \"wsproxy {version}\" wsproxy\n{HEAD}");
    let mut section = "";
    for key in KEYS {
        if key.section.is_empty() {
            // The file itself holds nothing but tables, which have headings below.
            continue;
        }
        if key.section != section {
            section = key.section;
            let _ = writeln!(text, ".SH \"{}\"", escaped(&title(section)));
        }
        entry(&mut text, key);
    }
    text.push_str(TAIL);
    text
}

fn entry(text: &mut String, key: &Key) {
    let _ = writeln!(text, ".TP\n\\fB{}\\fR (\\fI{}\\fR)", escaped(key.name), kind(key.kind));
    let mut sentences = vec![first_upper(&plain(key.what))];
    if !key.range.is_empty() {
        sentences.push(format!("Range: {}", plain(key.range)));
    }
    if !key.default.is_empty() {
        sentences.push(format!("Default: {}", key.default));
    }
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}.", escaped(&sentences.join(". ")));
}

fn kind(kind: Kind) -> String {
    match kind {
        Kind::Address => "address".into(),
        Kind::Server => "server".into(),
        Kind::Text => "text".into(),
        Kind::File => "path".into(),
        Kind::Duration => "duration".into(),
        Kind::Size => "size".into(),
        Kind::Integer => "integer".into(),
        Kind::Bool => "true or false".into(),
        Kind::Choice(words) => escaped(&words.join(", ")),
        Kind::Rate => "rate".into(),
        Kind::Network => "network".into(),
        Kind::Status => "status".into(),
        Kind::List(of) => format!("list: {}", self::kind(*of)),
        Kind::Pairs => "table of texts".into(),
        Kind::Table(_) => "table".into(),
        Kind::Tables(_) => "list of tables".into(),
    }
}

/// Without the marks of a Markdown document.
fn plain(text: &str) -> String {
    text.replace('`', "").replace('\n', " ")
}

fn first_upper(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(letters).collect()
}

/// As roff takes it literally; a line may not begin with a control character.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    match text.chars().next() {
        Some('.' | '\'') => format!("\\&{text}"),
        _ => text,
    }
}
