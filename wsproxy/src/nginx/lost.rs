//! Locations that are left out and kept requests away from others: those others must not answer
//! what nginx would have refused, or send as a file what nginx would have run.

use super::notes::Notes;
use super::parser::Directive;
use super::pattern::literal;

/// What makes a location one that refuses.
const REFUSALS: [&str; 5] = ["deny", "auth_basic", "auth_request", "auth_jwt", "internal"];
/// What makes one that answers with something else than a file.
const HANDLERS: [&str; 5] =
    ["proxy_pass", "fastcgi_pass", "uwsgi_pass", "scgi_pass", "content_by_lua_block"];

/// A location with a regular expression that has no route.
#[derive(Debug)]
pub(super) struct Lost<'a> {
    directive: &'a Directive,
    /// What every path begins with that it takes.
    head: String,
    refuses: bool,
    answers: bool,
}

impl<'a> Lost<'a> {
    /// Of a location that became none; none if nobody could miss it.
    pub(super) fn of(directive: &'a Directive) -> Option<Self> {
        let [modifier, regex] = directive.args.as_slice() else { return None };
        // Names with a dot in front are never served, and no application has them.
        if !modifier.starts_with('~') || regex.starts_with(r"/\.") {
            return None;
        }
        let has = |names: &[&str]| {
            directive.children().iter().any(|inner| names.contains(&inner.name.as_str()))
        };
        let code = |d: &Directive| d.arg(0).parse::<u16>().is_ok_and(|code| code >= 400);
        let returns = directive.children().iter().any(|d| d.name == "return" && code(d));
        let refuses = returns || has(&REFUSALS);
        let answers = has(&HANDLERS);
        let case = modifier == "~*";
        let head = if case { String::new() } else { head(regex) };
        (refuses || answers).then_some(Self { directive, head, refuses, answers })
    }

    /// Whether a prefix would now get what this one got.
    pub(super) fn falls_to(&self, path: &str, is_files: bool) -> bool {
        let overlaps = self.head.starts_with(path) || path.starts_with(&self.head);
        overlaps && (self.refuses || (is_files && self.answers))
    }

    /// Says that a route is closed for its sake.
    pub(super) fn note(&self, notes: &Notes) -> String {
        notes.unsupported(
            self.directive,
            "the routes that would now get its requests let nobody in (`deny`): make a [[route]] \
             for each path it is about, then take that line out",
        );
        self.directive.origin()
    }
}

/// The text that an expression begins with.
fn head(regex: &str) -> String {
    let Some(inner) = regex.strip_prefix('^') else { return String::new() };
    // An alternative may begin with something else.
    if inner.contains('|') && !inner.contains('(') {
        return String::new();
    }
    let end = inner.find(|c: char| !c.is_alphanumeric() && !matches!(c, '/' | '-' | '_'));
    let (mut head, next) = match end {
        Some(end) => (&inner[..end], inner[end..].chars().next()),
        None => (inner, None),
    };
    // A quantifier is about the character before it.
    if matches!(next, Some('?' | '*' | '{')) {
        head = head.char_indices().next_back().map_or("", |(at, _)| &head[..at]);
    }
    literal(head).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        for (regex, expected) in [
            (r"\.php$", ""),
            (r"^/admin/(a|b)", "/admin/"),
            (r"^/admin/?x", "/admin"),
            (r"^/a|^/b", ""),
            (r"^/(a|b)", "/"),
            (r"^/x\.y", "/x"),
        ] {
            assert_eq!(head(regex), expected, "{regex}");
        }
    }
}
