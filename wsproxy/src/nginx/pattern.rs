//! Which paths a location takes.

use super::notes::Notes;
use super::parser::Directive;
use super::units::url_path;

/// The path of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    /// As in a URL.
    pub path: String,
    /// This path alone.
    pub exact: bool,
    /// No expression of nginx's comes before it.
    pub firm: bool,
}

impl Pattern {
    pub(super) fn prefix(path: impl Into<String>) -> Self {
        Self { path: path.into(), exact: false, firm: false }
    }

    pub(super) fn exact(path: impl Into<String>) -> Self {
        Self { path: path.into(), exact: true, firm: true }
    }
}

/// What a location looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Path(Pattern),
    /// `@name`
    Named,
    /// No request of ours comes here.
    Nothing,
}

/// The paths of a location, with notes about what differs.
pub(super) fn of_location(directive: &Directive, notes: &Notes) -> Kind {
    let (modifier, text) = match directive.args.as_slice() {
        [one] => glued(one),
        [modifier, text] => (modifier.as_str(), text.as_str()),
        _ => ("?", ""),
    };
    match modifier {
        "" if text.starts_with('@') => Kind::Named,
        "" | "^~" => prefix(directive, text, modifier == "^~", notes),
        "=" => match url_path(text) {
            Some(path) => Kind::Path(Pattern::exact(path)),
            None => nothing(directive, notes),
        },
        "~" | "~*" => regex(directive, modifier, text, notes),
        _ => {
            notes.unsupported(directive, "not a location");
            Kind::Nothing
        }
    }
}

/// The modifier may stand right before the path.
fn glued(text: &str) -> (&str, &str) {
    for modifier in ["^~", "~*", "~", "="] {
        if let Some(rest) = text.strip_prefix(modifier) {
            return (modifier, rest);
        }
    }
    ("", text)
}

fn nothing(directive: &Directive, notes: &Notes) -> Kind {
    notes.ignored(directive, "left out: no request has such a path");
    Kind::Nothing
}

fn prefix(directive: &Directive, text: &str, firm: bool, notes: &Notes) -> Kind {
    let Some(path) = url_path(text) else { return nothing(directive, notes) };
    if !path.ends_with('/') {
        notes.changed(
            directive,
            format!(
                "takes whole segments: {path} and {path}/x, and no longer {path}x; \
                 add a [[route]] if that was meant"
            ),
        );
    }
    Kind::Path(Pattern { firm, ..Pattern::prefix(path) })
}

fn regex(directive: &Directive, modifier: &str, text: &str, notes: &Notes) -> Kind {
    let Some((pattern, widened)) = simple(text) else {
        notes.unsupported(
            directive,
            "left out: paths are prefixes or exact, there are no regular expressions; \
             make a [[route]] for each path it is about",
        );
        return Kind::Nothing;
    };
    let Pattern { path, exact, .. } = &pattern;
    let kind = if *exact { "exact path" } else { "prefix" };
    let case = if modifier == "~*" { ", in this case of letters" } else { "" };
    let tail = if widened { ", by whole segments" } else { "" };
    notes.changed(
        directive,
        format!("became the {kind} {path}{case}{tail}; a longer path now wins over it"),
    );
    Kind::Path(pattern)
}

/// The path of an expression that is a prefix or a path in truth, and whether its end differs.
pub(super) fn simple(regex: &str) -> Option<(Pattern, bool)> {
    let inner = regex.strip_prefix('^')?;
    const TAILS: [(&str, bool, bool); 9] = [
        ("(?:/|$)", false, false),
        ("(/|$)", false, false),
        ("(/.*)?$", false, false),
        ("(.*)$", false, true),
        (".*$", false, true),
        ("(.*)", false, true),
        (".*", false, true),
        ("$", true, false),
        ("", false, true),
    ];
    for (tail, exact, widened) in TAILS {
        let Some(head) = inner.strip_suffix(tail) else { continue };
        let Some(path) = literal(head).and_then(|path| url_path(&path)) else { continue };
        let widened = widened && !path.ends_with('/');
        return Some((Pattern { path, exact, firm: true }, widened));
    }
    None
}

/// A text without anything that means more than itself.
pub(super) fn literal(regex: &str) -> Option<String> {
    let mut out = String::new();
    let mut chars = regex.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                c @ ('.' | '-' | '/' | '_') => out.push(c),
                _ => return None,
            },
            c if c.is_alphanumeric() || matches!(c, '/' | '-' | '_' | '~') => out.push(c),
            _ => return None,
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simple_expressions_are_paths() {
        for (regex, path, exact) in [
            ("^/ws", "/ws", false),
            ("^/ws/", "/ws/", false),
            ("^/ws(/|$)", "/ws", false),
            ("^/ws/(.*)$", "/ws/", false),
            ("^/ws/.*", "/ws/", false),
            (r"^/socket\.io/", "/socket.io/", false),
            ("^/ws$", "/ws", true),
        ] {
            let (pattern, _) = simple(regex).unwrap();
            assert_eq!((pattern.path.as_str(), pattern.exact), (path, exact), "{regex}");
        }
        for regex in ["", "/ws", r"\.php$", "^/(a|b)", "^/a.c", "^/a+", "^ws", "^", "^/[ab]"] {
            assert_eq!(simple(regex), None, "{regex}");
        }
    }
}
