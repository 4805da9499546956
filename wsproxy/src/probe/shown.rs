//! What the peer sent, as it may stand on a terminal.

use std::fmt::Write as _;

/// Headers whose values are secrets: what they say is no business of a log of a
/// terminal.
const SECRET: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "set-cookie"];

/// `bytes` as text: what could steer a terminal or deceive its reader (control
/// characters, characters of no width, changes of direction) and what is no
/// UTF-8 is escaped. Of more than `most` bytes the rest is left out.
pub(crate) fn shown(bytes: &[u8], most: usize) -> String {
    let cut = &bytes[..bytes.len().min(most)];
    let mut text = String::with_capacity(cut.len());
    for chunk in cut.utf8_chunks() {
        for c in chunk.valid().chars() {
            if deceives(c) { text.extend(c.escape_default()) } else { text.push(c) }
        }
        for byte in chunk.invalid() {
            // Writing to a string can't fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    if bytes.len() > most {
        text.push_str("...");
    }
    text
}

/// [`shown`] line by line; an empty last line is left out.
pub(super) fn shown_lines(bytes: &[u8], most: usize) -> Vec<String> {
    let cut = &bytes[..bytes.len().min(most)];
    let mut lines: Vec<_> = cut
        .split(|&byte| byte == b'\n')
        .map(|line| shown(line.strip_suffix(b"\r").unwrap_or(line), most))
        .collect();
    if lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    if bytes.len() > most {
        lines.push("...".to_owned());
    }
    lines
}

/// One header line; secrets become `...`.
pub(super) fn header_line(line: &[u8]) -> String {
    const MOST: usize = 1024;
    let colon = line.iter().position(|&byte| byte == b':');
    let name = &line[..colon.unwrap_or(0)];
    let secret = |known: &&str| name.trim_ascii().eq_ignore_ascii_case(known.as_bytes());
    if SECRET.iter().any(secret) {
        return format!("{}: ...", shown(name, MOST));
    }
    shown(line, MOST)
}

fn deceives(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{feff}' | '\u{180e}')
        || ('\u{200b}'..='\u{200f}').contains(&c)
        || ('\u{2028}'..='\u{202e}').contains(&c)
        || ('\u{2060}'..='\u{206f}').contains(&c)
        || ('\u{e0000}'..='\u{e007f}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_what_steers_a_terminal() {
        let cases: &[(&[u8], &str)] = &[
            (b"plain \"text\" {}", "plain \"text\" {}"),
            ("caf\u{e9} \u{2713}".as_bytes(), "caf\u{e9} \u{2713}"),
            (b"\x1b[2J\x07", "\\u{1b}[2J\\u{7}"),
            (b"a\tb\r\nc\0", "a\\tb\\r\\nc\\u{0}"),
            ("\u{9b}x\u{202e}y".as_bytes(), "\\u{9b}x\\u{202e}y"),
            (b"\xff\xfea", "\\xff\\xfea"),
        ];
        for (bytes, text) in cases {
            assert_eq!(shown(bytes, 100), *text);
        }
        assert_eq!(shown(b"abcdef", 3), "abc...");
    }

    #[test]
    fn secrets_stay_secret() {
        for line in ["Authorization: Basic x", "cookie:a=b", "Set-Cookie: s=1", "COOKIE : x"] {
            assert!(header_line(line.as_bytes()).ends_with(": ..."), "{line}");
        }
        assert_eq!(header_line(b"X-A: b"), "X-A: b");
        assert_eq!(header_line(b"HTTP/1.1 200 OK"), "HTTP/1.1 200 OK");
    }

    #[test]
    fn lines() {
        assert_eq!(shown_lines(b"a\r\nb\n", 100), ["a", "b"]);
        assert_eq!(shown_lines(b"a\nbcd", 3), ["a", "b", "..."]);
        assert!(shown_lines(b"", 3).is_empty());
    }

    proptest! {
        #[test]
        fn nothing_shown_is_a_control_character(bytes: Vec<u8>, most in 0_usize..64) {
            let text = shown(&bytes, most);
            prop_assert!(!text.chars().any(deceives));
        }
    }
}
