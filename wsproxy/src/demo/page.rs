//! The demo page, and the responses that carry it.

/// The page: one HTML file with its style and script inside.
pub const PAGE: &str = include_str!("page.html");

/// SHA-256 of the text inside the page's `<script>`, in base64, as the
/// Content-Security-Policy wants it. A test computes it again.
const SCRIPT_SHA256: &str = "CaPhlJ3LDzenWB9OA1g/y7r30nHDRuO6L45p/rtffMQ=";

/// The same for the page's `<style>`.
const STYLE_SHA256: &str = "rVwxGKKV3cAGkZUx3sDzICVvn5k74V99JjCXm51svCU=";

const FAVICON: &str = concat!(
    r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">"#,
    r##"<rect width="32" height="32" rx="8" fill="#0b6e69"/>"##,
    r##"<path d="M7 12h15l-4-4M25 20H10l4 4" fill="none" stroke="#fff" stroke-width="3" "##,
    r#"stroke-linecap="round" stroke-linejoin="round"/></svg>"#,
);

/// What is served to a browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The bytes.
    pub body: &'static str,
    content_type: &'static str,
    policy: String,
}

impl Page {
    /// The headers of the answer that carries it.
    #[must_use]
    pub fn headers(&self) -> [(&'static str, String); 7] {
        // The two Cross-Origin lines give the page's clock 5 µs instead of 100 µs,
        // and a round trip over loopback is of that order.
        [
            ("content-type", self.content_type.to_owned()),
            ("cache-control", "no-store".to_owned()),
            ("content-security-policy", self.policy.clone()),
            ("cross-origin-opener-policy", "same-origin".to_owned()),
            ("cross-origin-embedder-policy", "require-corp".to_owned()),
            ("referrer-policy", "no-referrer".to_owned()),
            ("x-content-type-options", "nosniff".to_owned()),
        ]
    }
}

/// The page at `/` and `/index.html` and its icon at `/favicon.ico`; `None` for any other path.
#[must_use]
pub fn page(path: &str) -> Option<Page> {
    let (content_type, body, policy) = match path {
        "/" | "/index.html" => ("text/html; charset=utf-8", PAGE, page_policy()),
        "/favicon.ico" => ("image/svg+xml", FAVICON, "default-src 'none'".to_owned()),
        _ => return None,
    };
    Some(Page { body, content_type, policy })
}

fn page_policy() -> String {
    format!(
        "default-src 'none'; \
         script-src 'sha256-{SCRIPT_SHA256}'; \
         style-src 'sha256-{STYLE_SHA256}'; \
         connect-src 'self' ws:; \
         img-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use sha2::{Digest, Sha256};

    use super::*;

    fn header(page: &Page, name: &str) -> String {
        page.headers().into_iter().find(|(n, _)| *n == name).unwrap().1
    }

    #[test]
    fn pages() {
        for (path, expected) in [
            ("/", Some(("text/html; charset=utf-8", PAGE))),
            ("/index.html", Some(("text/html; charset=utf-8", PAGE))),
            ("/favicon.ico", Some(("image/svg+xml", FAVICON))),
            ("", None),
            ("/ws", None),
            ("/index.htm", None),
            ("//", None),
        ] {
            let found = page(path);
            let shown = found.as_ref().map(|page| (page.content_type, page.body));
            assert_eq!(shown, expected, "{path}");
            if let Some(page) = found {
                assert_eq!(header(&page, "cache-control"), "no-store");
                assert!(header(&page, "content-security-policy").starts_with("default-src 'none'"));
            }
        }
    }

    #[test]
    fn the_policy_allows_this_script_and_this_style_alone() {
        let response = header(&page("/").unwrap(), "content-security-policy") + ";";
        for (tag, stated) in [("script", SCRIPT_SHA256), ("style", STYLE_SHA256)] {
            let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
            assert_eq!(PAGE.matches(&format!("<{tag}")).count(), 1, "one {tag}");
            let inside = PAGE.split(&open).nth(1).unwrap().split(&close).next().unwrap();
            let found = STANDARD.encode(Sha256::digest(inside));
            assert_eq!(found, stated, "the page's {tag} changed: put this into page.rs");
            assert!(response.contains(&format!("{tag}-src 'sha256-{found}';")));
        }
        assert!(response.contains("connect-src 'self' ws:;"));
        assert!(!response.contains("-inline'") && !response.contains("-eval'"));
        // Neither is covered by a hash.
        assert!(!PAGE.contains(" style=") && !PAGE.contains(" onclick="));
    }

    #[test]
    fn the_page_has_what_its_tests_reach_for_and_nothing_from_outside() {
        for id in ["connect", "state", "rtt", "count", "path", "message", "send", "log"] {
            assert_eq!(PAGE.matches(&format!("id=\"{id}\"")).count(), 1, "{id}");
        }
        for text in [PAGE, FAVICON] {
            let text = text.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
            for reference in ["http://", "https://", "//cdn", "@import", "url("] {
                assert!(!text.contains(reference), "{reference}");
            }
        }
        for injection in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("]
        {
            assert!(!PAGE.contains(injection), "{injection}");
        }
    }
}
