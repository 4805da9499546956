//! Words and punctuation of nginx's syntax, as `ngx_conf_read_token` reads them.

use std::str::Chars;

/// A piece of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A word, its quotes and escapes resolved.
    Word(String),
    /// `;`
    End,
    /// `{`
    Open,
    /// `}`
    Close,
}

/// A place in a text: line and column in characters, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spot {
    pub line: usize,
    pub column: usize,
}

/// What is wrong, and where.
pub(super) type Wrong = (Spot, &'static str);

/// Reads a text from its beginning.
#[derive(Debug)]
pub(super) struct Lexer<'t> {
    rest: Chars<'t>,
    spot: Spot,
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self { rest: text.chars(), spot: Spot { line: 1, column: 1 } }
    }

    /// Where the next character is.
    pub(super) fn spot(&self) -> Spot {
        self.spot
    }

    /// The next token and where it begins; none at the end.
    pub(super) fn next_token(&mut self) -> Result<Option<(Token, Spot)>, Wrong> {
        self.skip_blank();
        let spot = self.spot;
        let Some(first) = self.peek() else { return Ok(None) };
        let token = match first {
            ';' | '{' | '}' => {
                self.bump();
                match first {
                    ';' => Token::End,
                    '{' => Token::Open,
                    _ => Token::Close,
                }
            }
            '"' | '\'' => Token::Word(self.quoted(first)?),
            _ => Token::Word(self.plain()),
        };
        Ok(Some((token, spot)))
    }

    /// Skips to behind the `}` that closes a block of another language, such as Lua's.
    pub(super) fn skip_block(&mut self) -> bool {
        let mut depth = 1usize;
        while let Some(c) = self.bump() {
            match c {
                '{' => depth += 1,
                '}' if depth == 1 => return true,
                '}' => depth -= 1,
                _ => {}
            }
        }
        false
    }

    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.rest.next()?;
        if c == '\n' {
            self.spot = Spot { line: self.spot.line + 1, column: 1 };
        } else {
            self.spot.column += 1;
        }
        Some(c)
    }

    fn skip_blank(&mut self) {
        while let Some(c) = self.peek() {
            if c == '#' {
                while self.peek().is_some_and(|c| c != '\n') {
                    self.bump();
                }
            } else if is_blank(c) {
                self.bump();
            } else {
                return;
            }
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String, Wrong> {
        let opened = self.spot;
        self.bump();
        let mut word = String::new();
        loop {
            match self.bump() {
                None => return Err((opened, "this quote is not closed")),
                Some('\\') => self.escape(&mut word),
                Some(c) if c == quote => break,
                Some(c) => word.push(c),
            }
        }
        match self.peek() {
            Some(c) if !is_blank(c) && !matches!(c, ';' | '{' | ')') => {
                Err((self.spot, "a space or \";\" must follow a closed quote"))
            }
            _ => Ok(word),
        }
    }

    fn plain(&mut self) -> String {
        let mut word = String::new();
        while let Some(c) = self.peek() {
            if is_blank(c) || c == ';' || c == '{' {
                break;
            }
            self.bump();
            match c {
                '\\' => self.escape(&mut word),
                // The brace of `${name}` belongs to the word.
                '$' if self.peek() == Some('{') => {
                    self.bump();
                    word.push_str("${");
                }
                _ => word.push(c),
            }
        }
        word
    }

    /// Behind a backslash. One before any other character stays: regular expressions need it.
    fn escape(&mut self, word: &mut String) {
        match self.bump() {
            Some(c @ ('"' | '\'' | '\\')) => word.push(c),
            Some('t') => word.push('\t'),
            Some('r') => word.push('\r'),
            Some('n') => word.push('\n'),
            Some(c) => {
                word.push('\\');
                word.push(c);
            }
            None => word.push('\\'),
        }
    }
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<String> {
        let mut lexer = Lexer::new(text);
        let mut all = Vec::new();
        while let Some((token, _)) = lexer.next_token().unwrap() {
            all.push(match token {
                Token::Word(word) => format!("<{word}>"),
                Token::End => ";".to_owned(),
                Token::Open => "{".to_owned(),
                Token::Close => "}".to_owned(),
            });
        }
        all
    }

    #[test]
    fn words() {
        for (text, expected) in [
            ("", ""),
            ("# only\n  # comments", ""),
            ("\u{feff}a b;", "<a> <b> ;"),
            ("a{b;}", "<a> { <b> ; }"),
            ("a \"b c\" 'd;{' ;", "<a> <b c> <d;{> ;"),
            ("'' \"\";", "<> <> ;"),
            (r#"a "q\"q" b\ c \.php$;"#, r#"<a> <q"q> <b\ c> <\.php$> ;"#),
            (r"'a\nb' a\tb;", "<a\nb> <a\tb> ;"),
            ("x${host}y; a#b c}d;", "<x${host}y> ; <a#b> <c}d> ;"),
            ("if ($a = \"b\") {}", "<if> <($a> <=> <b> <)> { }"),
        ] {
            assert_eq!(tokens(text).join(" "), expected, "{text}");
        }
    }

    #[test]
    fn mistakes_have_a_place() {
        for (text, line, column) in [("a\n b 'c", 2, 4), ("é \"b\"c;", 1, 6)] {
            let mut lexer = Lexer::new(text);
            let wrong = loop {
                match lexer.next_token() {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("{text}"),
                    Err((spot, _)) => break spot,
                }
            };
            assert_eq!(wrong, Spot { line, column }, "{text}");
        }
    }
}
