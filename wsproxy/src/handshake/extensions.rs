//! The grammar of `Sec-WebSocket-Extensions` (RFC 6455 section 9.1).

use super::fields::token;
use super::scan::is_tchar;

/// The names in one `Sec-WebSocket-Extensions` value in their order, or `None`
/// if it breaks the grammar. Parameters are checked and left alone: they are
/// the business of the two ends.
pub(super) fn extension_names(value: &[u8]) -> Option<Vec<String>> {
    let mut rest = Cursor(value);
    let mut names = Vec::new();
    loop {
        match rest.peek() {
            None => return Some(names),
            // An empty element of a list (RFC 9110 section 5.6.1.2).
            Some(b',') => rest.skip(),
            Some(_) => {
                names.push(rest.token()?.to_owned());
                while rest.take(b';') {
                    rest.parameter()?;
                }
                if !matches!(rest.peek(), None | Some(b',')) {
                    return None;
                }
            }
        }
    }
}

/// What is left of the value. Every look at it steps over white space first:
/// RFC 6455 uses the implied white space of RFC 2616 section 2.1.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn peek(&mut self) -> Option<u8> {
        while let [b' ' | b'\t', rest @ ..] = self.0 {
            self.0 = rest;
        }
        self.0.first().copied()
    }

    fn skip(&mut self) {
        self.0 = self.0.get(1..).unwrap_or_default();
    }

    fn take(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.skip();
        }
        found
    }

    fn token(&mut self) -> Option<&'a str> {
        self.peek();
        let len = self.0.iter().take_while(|&&b| is_tchar(b)).count();
        let (name, rest) = self.0.split_at(len);
        self.0 = rest;
        token(name)
    }

    fn parameter(&mut self) -> Option<()> {
        self.token()?;
        if self.take(b'=') {
            if self.take(b'"') {
                self.quoted()?;
            } else {
                self.token()?;
            }
        }
        Some(())
    }

    /// The rest of a quoted string, whose value must be a token too.
    fn quoted(&mut self) -> Option<()> {
        let mut len = 0;
        loop {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let byte = match byte {
                b'"' => return (len > 0).then_some(()),
                b'\\' => {
                    let (&escaped, rest) = self.0.split_first()?;
                    self.0 = rest;
                    escaped
                }
                plain => plain,
            };
            if !is_tchar(byte) {
                return None;
            }
            len += 1;
        }
    }
}
