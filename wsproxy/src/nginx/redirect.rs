//! `return` and `rewrite`.

use super::notes::Notes;
use super::parser::Directive;
use super::pattern::{literal, simple};
use super::render::Entries;
use super::units::url_path;
use super::variables::Variables;

/// Longest text of a fixed answer, in bytes.
const BODY_MAX: usize = 64 << 10;

/// What a `rewrite` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rewrite {
    /// Every request is sent elsewhere.
    All(Entries),
    /// The requests of one path are.
    Path(String, Entries),
    /// Towards the upstream, the second stands in the place of the first.
    Replace(String, String),
    /// Something that we have not; a note says so.
    Other,
}

/// `return code;`, `return code text;`, `return code url;`, `return url;`
pub(super) fn of_return(
    directive: &Directive,
    variables: &Variables<'_>,
    notes: &Notes,
) -> Entries {
    let (code, text) = match directive.args.as_slice() {
        [one] => match one.parse::<u16>() {
            Ok(code) => (code, None),
            Err(_) => (302, Some(one.as_str())),
        },
        [code, text, ..] => (code.parse().unwrap_or(0), Some(text.as_str())),
        [] => (0, None),
    };
    if let (301 | 302 | 303 | 307 | 308, Some(url)) = (code, text) {
        return redirect(directive, url, code, variables, notes);
    }
    let mut entries = Entries::default();
    let status = match code {
        444 => {
            notes.changed(directive, "answers 403: a connection is not closed without an answer");
            403
        }
        200..=599 => code,
        _ => {
            notes.unsupported(directive, "not a status from 200 to 599: answers 501");
            501
        }
    };
    entries.set("respond", u64::from(status));
    if let Some(text) = text.filter(|_| code != 444) {
        if text.contains('$') || text.len() > BODY_MAX {
            let message = "its text is left out: it is a fixed one of at most 64 KiB";
            notes.unsupported(directive, message);
        } else {
            entries.set("body", text);
        }
    }
    entries
}

fn redirect(
    directive: &Directive,
    url: &str,
    status: u16,
    variables: &Variables<'_>,
    notes: &Notes,
) -> Entries {
    let mut entries = Entries::default();
    match variables.translated(url) {
        Ok(to) if !to.is_empty() => {
            entries.set("redirect", to);
            entries.set("status", u64::from(status));
        }
        other => {
            let what = other.err().unwrap_or_else(|| "an empty address".to_owned());
            let message = format!("{what} is not known here: answers 501; see route.redirect");
            notes.unsupported(directive, message);
            entries.set("respond", 501u64);
        }
    }
    entries
}

/// `rewrite regex replacement [flag];`
pub(super) fn of_rewrite(
    directive: &Directive,
    variables: &Variables<'_>,
    notes: &Notes,
) -> Rewrite {
    let [regex, to, flag @ ..] = directive.args.as_slice() else { return other(directive, notes) };
    let flag = flag.first().map_or("", String::as_str);
    let away = ["http://", "https://", "$scheme://"].iter().any(|s| to.starts_with(s));
    let status = match flag {
        "permanent" => 301,
        "redirect" => 302,
        _ if away => 302,
        _ => {
            return match replacement(regex, to) {
                Some((from, to)) => Rewrite::Replace(from, to),
                None => other(directive, notes),
            };
        }
    };
    if let Some(url) = whole(regex, to) {
        if !url.contains("$request_uri") && !to.ends_with('?') {
            notes.changed(directive, "the query is not carried along");
        }
        return Rewrite::All(redirect(directive, &url, status, variables, notes));
    }
    match simple(regex) {
        Some((pattern, _)) if pattern.exact && !to.contains("$1") => {
            if !to.ends_with('?') {
                notes.changed(directive, "the query is not carried along");
            }
            let url = to.strip_suffix('?').unwrap_or(to);
            let entries = redirect(directive, url, status, variables, notes);
            Rewrite::Path(pattern.path, entries)
        }
        _ => other(directive, notes),
    }
}

fn other(directive: &Directive, notes: &Notes) -> Rewrite {
    notes.unsupported(
        directive,
        "left out: there are no regular expressions; see route.rewrite and route.redirect",
    );
    Rewrite::Other
}

/// The address for an expression that takes every path.
fn whole(regex: &str, to: &str) -> Option<String> {
    let (bare, dropped) = match to.strip_suffix('?') {
        Some(bare) => (bare, true),
        None => (to, false),
    };
    let head = match regex {
        "^" | "^/" | ".*" | "^.*" | "^.*$" | "^/.*$" | "^/.*" => {
            return (!bare.contains("$1")).then(|| bare.to_owned());
        }
        "(.*)" | "^(.*)" | "^(.*)$" | "^(/.*)$" | "^(/.*)" => bare.strip_suffix("$1")?,
        "^/(.*)" | "^/(.*)$" => bare.strip_suffix("/$1")?,
        _ => return None,
    };
    // nginx puts the query behind the path, unless the replacement ends with `?`.
    let tail = if dropped { "$uri" } else { "$request_uri" };
    (!head.contains("$1")).then(|| format!("{head}{tail}"))
}

/// The prefix that an expression takes away and what it puts there.
fn replacement(regex: &str, to: &str) -> Option<(String, String)> {
    let inner = regex.strip_prefix('^').unwrap_or(regex);
    let inner = inner.strip_suffix('$').unwrap_or(inner);
    let (head, slash_stays) = if let Some(head) = inner.strip_suffix("/?(.*)") {
        (head, false)
    } else if let Some(head) = inner.strip_suffix("/(.*)").or(inner.strip_suffix("/(.+)")) {
        (head, false)
    } else if let Some(head) = inner.strip_suffix("(/.*)") {
        (head, true)
    } else {
        (inner.strip_suffix("(.*)")?, true)
    };
    let from = url_path(&literal(head)?)?;
    let before = to.strip_suffix("$1")?;
    let fits = if slash_stays { !before.ends_with('/') } else { before.ends_with('/') };
    let with = if before.is_empty() { "/" } else { before };
    (fits && !before.contains(['$', '?'])).then(|| Some((from, url_path(with)?)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_addresses() {
        for (regex, to, url) in [
            ("^(.*)$", "https://a$1", Some("https://a$request_uri")),
            ("^/(.*)$", "https://a/$1", Some("https://a$request_uri")),
            ("^/(.*)$", "https://a/$1?", Some("https://a$uri")),
            ("^", "https://$host$request_uri?", Some("https://$host$request_uri")),
            ("^/a", "https://a", None),
            ("^(.*)$", "https://a$1/x", None),
        ] {
            assert_eq!(whole(regex, to).as_deref(), url, "{regex} {to}");
        }
    }

    #[test]
    fn prefixes() {
        for (regex, to, expected) in [
            ("^/ws/(.*)$", "/$1", Some(("/ws", "/"))),
            ("^/ws/(.*)", "/v2/$1", Some(("/ws", "/v2/"))),
            ("^/ws(/.*)$", "$1", Some(("/ws", "/"))),
            ("^/ws(/.*)$", "/v2$1", Some(("/ws", "/v2"))),
            ("/ws/?(.*)", "/$1", Some(("/ws", "/"))),
            ("^/ws(.*)$", "$1", Some(("/ws", "/"))),
            ("^/ws/(.*)$", "/a/$1/b", None),
            ("^/(a|b)/(.*)$", "/$2", None),
            ("^/ws$", "/x", None),
        ] {
            let expected = expected.map(|(from, to)| (from.to_owned(), to.to_owned()));
            assert_eq!(replacement(regex, to), expected, "{regex} {to}");
        }
    }
}
