//! Paths below the root: decoded once, and without anything that could lead
//! out of it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use hyper::StatusCode;

/// The longest decoded path in bytes: what the kernel takes (PATH_MAX without
/// its NUL).
const MAX_PATH: usize = 4095;

/// The only name with a leading dot that is served (RFC 8615).
const WELL_KNOWN: &str = ".well-known";

/// Why the path of a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// NUL, a dot segment, a broken percent-encoding, or not UTF-8.
    Malformed,
    /// No file has such a name, or it is a hidden one.
    NotServed,
}

impl Refusal {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::NotServed => StatusCode::NOT_FOUND,
        }
    }
}

/// A path relative to the root: segments joined by `/`, none of them empty, `.`
/// or `..`, none with NUL or `/`. Without segments it is the root itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RelPath(String);

impl RelPath {
    /// Reads the percent-encoded path of a request. One leading slash and one
    /// trailing slash mean nothing here.
    ///
    /// Each segment is decoded on its own, after the path was split: `%2f` is
    /// part of a name and no separator (RFC 3986 section 2.2). What comes out is
    /// not decoded again.
    pub(super) fn from_request(encoded: &str) -> Result<Self, Refusal> {
        let inner = encoded.strip_prefix('/').unwrap_or(encoded);
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        // "//" is no other way to write "/".
        let empty = inner.is_empty() && encoded.len() > 1;
        let mut served = !empty;
        let mut path = String::with_capacity(inner.len());
        for segment in inner.split('/').filter(|_| !inner.is_empty()) {
            let name = decode(segment).ok_or(Refusal::Malformed)?;
            if is_dots(&name) || name.contains('\0') {
                return Err(Refusal::Malformed);
            }
            served &= is_served(&name);
            push(&mut path, &name);
        }
        if served && path.len() <= MAX_PATH { Ok(Self(path)) } else { Err(Refusal::NotServed) }
    }

    /// Reads a path of the configuration, which is not percent-encoded. One
    /// leading slash means nothing here.
    pub(super) fn from_config(text: &str) -> Result<Self, &'static str> {
        let inner = text.strip_prefix('/').unwrap_or(text);
        if inner.split('/').any(str::is_empty) {
            return Err("it must name a file, with single slashes");
        }
        if inner.split('/').any(is_dots) {
            return Err("it must not contain the segments \".\" or \"..\"");
        }
        if inner.contains('\0') {
            return Err("it must not contain NUL");
        }
        if inner.len() > MAX_PATH {
            return Err("it must not be longer than 4095 bytes");
        }
        Ok(Self(inner.to_owned()))
    }

    /// The path with `name` below it.
    pub(super) fn join(&self, name: &Self) -> Self {
        let mut path = self.0.clone();
        push(&mut path, &name.0);
        Self(path)
    }

    /// The path with `suffix` at the end of its last name; the root has no name.
    /// `suffix` must not contain `/` or NUL.
    pub(super) fn with_suffix(&self, suffix: &str) -> Option<Self> {
        let fits = !self.is_root() && !suffix.contains(['/', '\0']);
        fits.then(|| Self(format!("{}{suffix}", self.0)))
    }

    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|segment| !segment.is_empty())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The path for a system call, relative to the root's descriptor.
    pub(super) fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(if self.is_root() { b"." } else { self.0.as_bytes() }))
    }
}

fn push(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('/');
    }
    path.push_str(name);
}

fn is_dots(name: &str) -> bool {
    matches!(name, "." | "..")
}

/// Whether a file of that name may be asked for.
fn is_served(name: &str) -> bool {
    let hidden = name.starts_with('.') && name != WELL_KNOWN;
    !name.is_empty() && !name.contains('/') && !hidden
}

/// Percent-decodes one segment (RFC 3986 section 2.1); none where a `%` does not
/// begin a triplet, or where the result is not UTF-8.
fn decode(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let (byte, tail) = match (first, after) {
            (b'%', [high, low, tail @ ..]) => (hex(*high)? << 4 | hex(*low)?, tail),
            (b'%', _) => return None,
            _ => (first, after),
        };
        bytes.push(byte);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn request_paths() {
        let good = [
            ("", ""),
            ("/", ""),
            ("/a", "a"),
            ("a", "a"),
            ("/a/", "a"),
            ("/a/b.txt", "a/b.txt"),
            ("/a%20b", "a b"),
            ("/%61", "a"),
            ("/%C3%a4", "ä"),
            ("/ä", "ä"),
            ("/%252e%252e/x", "%2e%2e/x"),
            ("/a+b;c=d", "a+b;c=d"),
            ("/a\\b", "a\\b"),
            ("/a..", "a.."),
            ("/.well-known/acme-challenge/x", ".well-known/acme-challenge/x"),
        ];
        for (encoded, path) in good {
            assert_eq!(RelPath::from_request(encoded), Ok(RelPath(path.to_owned())), "{encoded}");
        }
    }

    #[test]
    fn refused_request_paths() {
        use Refusal::{Malformed, NotServed};
        let long = format!("/{}", "a/".repeat(2500));
        let bad = [
            ("/..", Malformed),
            ("/.", Malformed),
            ("/a/../b", Malformed),
            ("/a/./b", Malformed),
            ("/%2e%2e/b", Malformed),
            ("/.%2E/b", Malformed),
            ("/%2e", Malformed),
            ("/a%00", Malformed),
            ("/a\0", Malformed),
            ("/%", Malformed),
            ("/%2", Malformed),
            ("/%2g", Malformed),
            ("/%+1", Malformed),
            ("/%ff", Malformed),
            ("/%c0%ae%c0%ae/x", Malformed),
            // What is malformed is so wherever it stands.
            ("/.git/%zz", Malformed),
            ("/a%2fb", NotServed),
            ("/..%2f..%2fetc", NotServed),
            ("/%2F", NotServed),
            ("/a//b", NotServed),
            ("//", NotServed),
            ("//a", NotServed),
            ("/a//", NotServed),
            ("/.git/config", NotServed),
            ("/%2egit/config", NotServed),
            ("/a/.htaccess", NotServed),
            ("/.well-known/.x", NotServed),
            ("/.well-knownx", NotServed),
            ("/...", NotServed),
            (long.as_str(), NotServed),
        ];
        for (encoded, refusal) in bad {
            assert_eq!(RelPath::from_request(encoded), Err(refusal), "{encoded}");
        }
    }

    #[test]
    fn configured_paths() {
        for (text, path) in [("/index.html", "index.html"), ("a/.b", "a/.b"), ("/%2e", "%2e")] {
            assert_eq!(RelPath::from_config(text), Ok(RelPath(path.to_owned())), "{text}");
        }
        for text in ["", "/", "//a", "a/", "a//b", ".", "..", "/a/../b", "a\0"] {
            assert!(RelPath::from_config(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_segment_leads_anywhere_else(
            encoded in "(/|\\.|%2e|%2E|%2f|%5c|%00|%|a|b|\\\\|%25|ä|[ -~]){0,12}"
        ) {
            if let Ok(path) = RelPath::from_request(&encoded) {
                prop_assert!(!path.0.starts_with('/') && !path.0.ends_with('/'));
                prop_assert!(!path.0.contains('\0') && !path.0.contains("//"));
                for name in path.0.split('/').filter(|_| !path.is_root()) {
                    prop_assert!(!matches!(name, "" | "." | ".."), "{encoded:?}");
                    prop_assert!(!name.starts_with('.') || name == WELL_KNOWN);
                }
            }
        }

        #[test]
        fn an_encoded_name_comes_back(name in "[^./\0][^/\0]{0,20}") {
            let encoded: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
            prop_assert_eq!(RelPath::from_request(&encoded), Ok(RelPath(name)));
        }
    }
}
