//! Which pages may open a WebSocket (RFC 6455 section 10.2).

use crate::config::Origin;

/// Whether a request with this `Origin` is let in.
#[must_use]
pub fn lets_in(allowed: &[Origin], origin: Option<&str>) -> bool {
    let Some(origin) = origin else { return allowed.contains(&Origin::Missing) };
    let origin = origin.to_ascii_lowercase();
    allowed.iter().any(|rule| match rule {
        Origin::Exact(text) => *text == origin,
        Origin::Below { scheme, suffix } => origin
            .strip_prefix(scheme.as_str())
            .and_then(|host| host.strip_suffix(suffix.as_str()))
            .is_some_and(is_subdomain),
        Origin::Null => origin == "null",
        Origin::Missing => false,
    })
}

/// What may stand before the suffix: labels, and nothing that could end the host.
fn is_subdomain(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('.')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        let below =
            |suffix: &str| Origin::Below { scheme: "https://".into(), suffix: suffix.into() };
        let allowed = [Origin::Exact("https://a.example".into()), below(".b.example")];
        for (origin, admitted) in [
            (Some("https://a.example"), true),
            (Some("HTTPS://A.example"), true),
            (Some("http://a.example"), false),
            (Some("https://a.example:8443"), false),
            (Some("https://x.b.example"), true),
            (Some("https://x.y.b.example"), true),
            (Some("https://b.example"), false),
            (Some("https://..b.example"), false),
            (Some("https://.b.example"), false),
            (Some("https://evil/x.b.example"), false),
            (Some("https://evil#.b.example"), false),
            (Some("https://user@x.b.example"), false),
            (Some("https://xb.example"), false),
            (Some("null"), false),
            (None, false),
        ] {
            assert_eq!(lets_in(&allowed, origin), admitted, "{origin:?}");
        }
        assert!(lets_in(&[Origin::Null], Some("null")));
        assert!(lets_in(&[Origin::Missing], None));
        assert!(!lets_in(&[Origin::Missing], Some("null")));
    }
}
