//! The demo page, and the responses that carry it.

/// The page: one HTML file with its style and script inside.
pub const PAGE: &str = include_str!("page.html");

/// SHA-256 of the text inside the page's `<script>`, in base64, as the
/// Content-Security-Policy wants it. A test computes it again.
const SCRIPT_SHA256: &str = "CaPhlJ3LDzenWB9OA1g/y7r30nHDRuO6L45p/rtffMQ=";

/// The same for the page's `<style>`.
const STYLE_SHA256: &str = "M/4Kzp9F81ooXc//AY0jGqLbUQiQkRiXn6xf0q8yoXU=";

const FAVICON: &str = concat!(
    r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">"#,
    r##"<rect width="32" height="32" rx="8" fill="#0b6e69"/>"##,
    r##"<path d="M7 12h15l-4-4M25 20H10l4 4" fill="none" stroke="#fff" stroke-width="3" "##,
    r#"stroke-linecap="round" stroke-linejoin="round"/></svg>"#,
);

/// The whole HTTP/1.1 response for the page at `/` and `/index.html` and for
/// its icon at `/favicon.ico`; `None` for any other path. A query is ignored.
///
/// With `head_only` it is the response to a HEAD: the same head, no body. The
/// caller closes the connection after it, as the head says.
pub fn page_response(path: &str, head_only: bool) -> Option<Vec<u8>> {
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let (content_type, body, policy) = match path {
        "/" | "/index.html" => ("text/html; charset=utf-8", PAGE, page_policy()),
        "/favicon.ico" => ("image/svg+xml", FAVICON, "default-src 'none'".to_owned()),
        _ => return None,
    };
    let length = body.len();
    // The two Cross-Origin lines give the page's clock 5 µs instead of 100 µs,
    // and a round trip over loopback is of that order.
    let mut response = format!(
        "HTTP/1.1 200 OK\r\n\
         Content-Type: {content_type}\r\n\
         Content-Length: {length}\r\n\
         Cache-Control: no-store\r\n\
         Content-Security-Policy: {policy}\r\n\
         Cross-Origin-Opener-Policy: same-origin\r\n\
         Cross-Origin-Embedder-Policy: require-corp\r\n\
         Referrer-Policy: no-referrer\r\n\
         X-Content-Type-Options: nosniff\r\n\
         Connection: close\r\n\r\n"
    );
    if !head_only {
        response.push_str(body);
    }
    Some(response.into_bytes())
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

    #[test]
    fn page_responses() {
        let table = [
            ("/", Some(("text/html; charset=utf-8", PAGE))),
            ("/index.html", Some(("text/html; charset=utf-8", PAGE))),
            ("/?from=here", Some(("text/html; charset=utf-8", PAGE))),
            ("/favicon.ico", Some(("image/svg+xml", FAVICON))),
            ("", None),
            ("/ws", None),
            ("/index.htm", None),
            ("//", None),
        ];
        for (path, expected) in table {
            let Some((content_type, body)) = expected else {
                assert_eq!(page_response(path, false), None, "{path}");
                assert_eq!(page_response(path, true), None, "{path}");
                continue;
            };
            let full = String::from_utf8(page_response(path, false).unwrap()).unwrap();
            let head = String::from_utf8(page_response(path, true).unwrap()).unwrap();
            assert_eq!(full, format!("{head}{body}"), "{path}");
            assert!(head.ends_with("\r\n\r\n"));
            let lines: Vec<&str> = head.trim_end().split("\r\n").collect();
            assert_eq!(lines[0], "HTTP/1.1 200 OK");
            for line in [
                &format!("Content-Type: {content_type}"),
                &format!("Content-Length: {}", body.len()),
                "Cache-Control: no-store",
                "Connection: close",
            ] {
                assert!(lines.contains(&line), "{path}: {line}");
            }
            assert!(head.contains("\r\nContent-Security-Policy: default-src 'none'"));
        }
    }

    #[test]
    fn the_policy_allows_this_script_and_this_style_alone() {
        let response = String::from_utf8(page_response("/", true).unwrap()).unwrap();
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
