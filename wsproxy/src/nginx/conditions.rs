//! `if`: checks of the Origin, of the host, of the scheme. Others are not translated.

use std::collections::HashMap;

use super::access::Access;
use super::notes::Notes;
use super::origins;
use super::parser::Directive;
use super::variables::{Part, parts};

/// `map` blocks by the variable they make, without its dollar.
pub(super) type Maps<'a> = HashMap<&'a str, &'a Directive>;

/// What `if` blocks ask of the requests of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Checks {
    /// The only ones, if there is a list.
    pub origins: Option<Vec<String>>,
    pub websocket_only: bool,
}

/// `variable op value`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    variable: String,
    op: Op,
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    /// Neither empty nor "0".
    True,
    Equal,
    Unequal,
    Like,
    Unlike,
}

/// An `if` of a server that sends some requests elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Split {
    /// Those for a host.
    Host(String),
    /// Those that came without TLS.
    Plain,
}

/// Whether an `if` of a server sends a host, or what came without TLS, elsewhere.
pub(super) fn split(directive: &Directive) -> Option<Split> {
    let condition = condition(directive)?;
    match (condition.variable.as_str(), condition.op, condition.value.as_str()) {
        ("host" | "http_host", Op::Equal, host) if super::units::is_host_name(host) => {
            Some(Split::Host(host.to_ascii_lowercase()))
        }
        ("scheme", Op::Equal, "http") | ("scheme", Op::Unequal, "https") => Some(Split::Plain),
        ("https", Op::Equal, "") | ("https", Op::Unequal, "on") => Some(Split::Plain),
        _ => None,
    }
}

/// Adds what an `if` asks, or closes the route if it kept somebody out in a way that we cannot.
pub(super) fn add(
    directive: &Directive,
    maps: &Maps<'_>,
    checks: &mut Checks,
    access: &mut Access,
    notes: &Notes,
) {
    let condition = condition(directive);
    let refuses = refuses(directive);
    if refuses && let Some(condition) = &condition {
        if let Some(found) = allowed_origins(condition, maps) {
            let both = match checks.origins.take() {
                Some(before) => before.into_iter().filter(|o| found.contains(o)).collect(),
                None => found,
            };
            if both.is_empty() {
                // No origin is an empty list, which a route may not have.
                access.close(directive);
            } else {
                checks.origins = Some(both);
            }
            let message = "became `origins`, which is looked at in handshakes only";
            notes.changed(directive, message);
            return;
        }
        if is_plain(condition) {
            checks.websocket_only = true;
            return;
        }
    }
    let matters = condition.as_ref().is_none_or(|condition| keeps_out(condition, maps));
    if refuses && matters {
        access.close(directive);
        notes.unsupported(
            directive,
            "wsproxy cannot check this: nobody gets in (`deny`) until the application does and \
             you take that line out",
        );
    } else {
        notes.unsupported(
            directive,
            "left out: there are no conditions; make a [[route]] per host, path or listener",
        );
    }
}

/// The `return` of a block that does nothing else.
pub(super) fn only_return(directive: &Directive) -> Option<&Directive> {
    match directive.children() {
        [only] if matches!(only.name.as_str(), "return" | "rewrite") => Some(only),
        _ => None,
    }
}

fn refuses(directive: &Directive) -> bool {
    let code = |d: &Directive| d.arg(0).parse::<u16>().is_ok_and(|code| code >= 400);
    directive.children().iter().any(|d| (d.name == "return" && code(d)) || d.name == "deny")
}

fn condition(directive: &Directive) -> Option<Condition> {
    let mut words: Vec<&str> = directive.args.iter().map(String::as_str).collect();
    let first = words.first_mut()?;
    *first = first.strip_prefix('(')?;
    if first.is_empty() {
        words.remove(0);
    }
    match words.last_mut()? {
        last if *last == ")" => {
            words.pop();
        }
        last => *last = last.strip_suffix(')')?,
    }
    let (variable, rest) = words.split_first()?;
    let Ok([Part::Variable(variable)]) = <[Part; 1]>::try_from(parts(variable)) else {
        return None;
    };
    let (op, value) = match rest {
        [] => (Op::True, ""),
        ["=", value] => (Op::Equal, *value),
        ["!=", value] => (Op::Unequal, *value),
        ["~" | "~*", value] => (Op::Like, *value),
        ["!~" | "!~*", value] => (Op::Unlike, *value),
        _ => return None,
    };
    Some(Condition { variable, op, value: value.to_owned() })
}

/// Whether it is about requests that are no handshake.
fn is_plain(condition: &Condition) -> bool {
    let value = condition.value.trim_matches(['^', '$']).to_ascii_lowercase();
    condition.variable == "http_upgrade"
        && match condition.op {
            Op::Unequal | Op::Unlike => value == "websocket",
            Op::Equal => value.is_empty(),
            _ => false,
        }
}

/// Whether a refusal by this may protect something, rather than keep out robots and mistakes.
fn keeps_out(condition: &Condition, maps: &Maps<'_>) -> bool {
    let source = maps.get(condition.variable.as_str()).map_or("", |map| map.arg(0));
    let name = source.strip_prefix('$').unwrap_or(&condition.variable);
    !matches!(
        name,
        "request_method" | "http_user_agent" | "http_referer" | "invalid_referer" | "http_upgrade"
    )
}

/// The origins that a refusal leaves, if it is about the Origin in a way that we can say.
fn allowed_origins(condition: &Condition, maps: &Maps<'_>) -> Option<Vec<String>> {
    if condition.variable == "http_origin" {
        return match condition.op {
            Op::Unequal => origin(&condition.value),
            Op::Unlike => origins::of_regex(&condition.value),
            _ => None,
        };
    }
    let map = maps.get(condition.variable.as_str()).filter(|map| map.arg(0) == "$http_origin")?;
    let refused = |outcome: &str| match condition.op {
        Op::True => !matches!(outcome, "" | "0"),
        Op::Equal => outcome == condition.value,
        Op::Unequal => outcome != condition.value,
        // Outcomes are words: expressions over them are not worth the trouble.
        Op::Like | Op::Unlike => true,
    };
    if matches!(condition.op, Op::Like | Op::Unlike) {
        return None;
    }
    let entries = map.children();
    let default = entries.iter().find(|entry| entry.name == "default");
    if !refused(default.map_or("", |entry| entry.arg(0))) {
        return None;
    }
    let mut list: Vec<String> = Vec::new();
    for entry in entries.iter().filter(|e| !matches!(e.name.as_str(), "default" | "volatile")) {
        if entry.arg(0).contains('$') {
            return None;
        }
        let regex = entry.name.strip_prefix("~*").or_else(|| entry.name.strip_prefix('~'));
        let found = match regex {
            Some(regex) => origins::of_regex(regex),
            None => origin(&entry.name),
        };
        match (refused(entry.arg(0)), found) {
            (false, Some(found)) => list.extend(found),
            // What the default refuses is refused anyway, unless an expression lets it in.
            (true, _) if regex.is_none() && !has_expressions(entries) => {}
            _ => return None,
        }
    }
    list.dedup();
    Some(list)
}

/// Whether the map has expressions, which might take a refused name too.
fn has_expressions(entries: &[Directive]) -> bool {
    entries.iter().any(|entry| entry.name.starts_with('~'))
}

/// One origin as our configuration has it; nothing at all is a missing one.
fn origin(text: &str) -> Option<Vec<String>> {
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        "" => Some(vec!["missing".to_owned()]),
        "null" => Some(vec!["null".to_owned()]),
        _ => (origins::is_origin(&lower) && !lower.contains('*')).then(|| vec![lower]),
    }
}
