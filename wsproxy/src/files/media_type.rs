//! The media type of a file, by the extension of its name.

/// Types without `text/` that are text in UTF-8 all the same.
const UTF8: [&str; 2] = ["application/json", "application/manifest+json"];

/// The `Content-Type` of a file of that name.
///
/// Text is taken to be UTF-8. XML is not: it names its encoding itself, and a
/// `charset` would overrule it (RFC 7303 section 3.2).
pub(super) fn of_name(path: &str) -> String {
    let media_type = match mime_guess::from_path(path).first_raw() {
        // The name that RFC 9239 section 6 made obsolete.
        Some("application/javascript") => "text/javascript",
        Some(known) => known,
        None => "application/octet-stream",
    };
    let text = media_type.starts_with("text/") && media_type != "text/xml";
    let charset = if text || UTF8.contains(&media_type) { "; charset=utf-8" } else { "" };
    format!("{media_type}{charset}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        let table = [
            ("a.html", "text/html; charset=utf-8"),
            ("a/b.HTM", "text/html; charset=utf-8"),
            ("a.css", "text/css; charset=utf-8"),
            ("a.js", "text/javascript; charset=utf-8"),
            ("a.mjs", "text/javascript; charset=utf-8"),
            ("a.min.js", "text/javascript; charset=utf-8"),
            ("a.json", "application/json; charset=utf-8"),
            ("a.webmanifest", "application/manifest+json; charset=utf-8"),
            ("a.txt", "text/plain; charset=utf-8"),
            ("a.md", "text/markdown; charset=utf-8"),
            ("a.xml", "text/xml"),
            ("a.svg", "image/svg+xml"),
            ("a.png", "image/png"),
            ("a.woff2", "font/woff2"),
            ("a.wasm", "application/wasm"),
            ("a.mp4", "video/mp4"),
            ("a.pdf", "application/pdf"),
            ("a.unheard-of", "application/octet-stream"),
            ("LICENSE", "application/octet-stream"),
            ("a.d/LICENSE", "application/octet-stream"),
            ("", "application/octet-stream"),
        ];
        for (name, media_type) in table {
            assert_eq!(of_name(name), media_type, "{name}");
        }
    }
}
