//! Origins in nginx's regular expressions.

/// The origins of a simple expression such as `^https://(www\.)?example\.com$`; none if it is
/// not one of those, or would have to become wider than it is.
pub(super) fn of_regex(regex: &str) -> Option<Vec<String>> {
    let inner = regex.strip_prefix('^')?.strip_suffix('$')?;
    let (schemes, rest): (&[&str], _) = if let Some(rest) = inner.strip_prefix("https?") {
        (&["http", "https"], rest)
    } else if let Some(rest) = inner.strip_prefix("https") {
        (&["https"], rest)
    } else {
        (&["http"], inner.strip_prefix("http")?)
    };
    let rest = rest.strip_prefix("://").or_else(|| rest.strip_prefix(r":\/\/"))?;
    let hosts = hosts(rest)?;
    let pairs = schemes.iter().flat_map(|s| hosts.iter().map(move |h| format!("{s}://{h}")));
    Some(pairs.collect())
}

fn hosts(regex: &str) -> Option<Vec<String>> {
    // Any subdomain, or that and the name itself.
    for any in [r".+\.", r".*\.", r"[^/]+\.", r"[^.]+\.", r"[a-z0-9-]+\.", r"\w+\."] {
        if let Some(rest) = regex.strip_prefix(any) {
            // `.*` and `.+` also take what is no name, and the same as `*.` otherwise.
            return Some(vec![format!("*.{}", literal(rest)?)]);
        }
        let optional = format!("({any})?");
        if let Some(rest) = regex.strip_prefix(optional.as_str()) {
            let host = literal(rest)?;
            return Some(vec![host.clone(), format!("*.{host}")]);
        }
    }
    if let Some(inner) = regex.strip_prefix('(') {
        let (group, rest) = inner.split_once(')')?;
        let group = group.strip_prefix("?:").unwrap_or(group);
        if let Some(rest) = rest.strip_prefix('?') {
            let host = literal(rest)?;
            return Some(vec![host.clone(), format!("{}{host}", literal(group)?)]);
        }
        let tail = literal(rest)?;
        let names = group.split('|');
        return names.map(|name| Some(format!("{}{tail}", literal(name)?))).collect();
    }
    Some(vec![literal(regex)?])
}

/// A text without anything that means more than itself. A bare dot is taken for one.
fn literal(regex: &str) -> Option<String> {
    let mut out = String::new();
    let mut chars = regex.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                c @ ('.' | '-' | ':' | '/') => out.push(c),
                _ => return None,
            },
            c if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '_') => out.push(c),
            _ => return None,
        }
    }
    Some(out.to_ascii_lowercase())
}

/// Whether our configuration takes it as an origin.
pub(super) fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else { return false };
    let bare = host.strip_prefix("*.").unwrap_or(host);
    let is_scheme = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
    !scheme.is_empty()
        && scheme.bytes().all(is_scheme)
        && super::units::authority(bare, 80).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simple_expressions_become_origins() {
        for (regex, origins) in [
            (r"^https://example\.com$", "https://example.com"),
            (r"^https?://example.com:8443$", "http://example.com:8443 https://example.com:8443"),
            (r"^https://.+\.example\.com$", "https://*.example.com"),
            (r"^https://(.+\.)?example\.com$", "https://example.com https://*.example.com"),
            (r"^https://(www\.)?example\.com$", "https://example.com https://www.example.com"),
            (r"^https://(a|b)\.example\.com$", "https://a.example.com https://b.example.com"),
            (r"^http:\/\/localhost$", "http://localhost"),
        ] {
            assert_eq!(of_regex(regex).unwrap().join(" "), origins, "{regex}");
        }
    }

    #[test]
    fn others_do_not() {
        for regex in [
            "",
            r"https://example\.com",
            r"^https://example\.com",
            r"^https?://localhost(:\d+)?$",
            r"^https://example\.(com|org)$",
            r"^ftp://a$",
            r"^https://[ab]\.example\.com$",
        ] {
            assert_eq!(of_regex(regex), None, "{regex}");
        }
    }
}
