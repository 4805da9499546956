//! Directives of a configuration, with what `include` brings in its place.

use std::rc::Rc;

use super::lexer::{Lexer, Spot, Token};
use super::notes::Notes;
use super::{Broken, DEPTH_MAX, INCLUDES_MAX, Included, TEXT_MAX};

/// Most characters of a directive in a note or comment.
const SHOWN_MAX: usize = 80;

/// A directive with its block, if it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directive {
    pub name: String,
    pub args: Vec<String>,
    pub block: Option<Vec<Directive>>,
    pub file: Rc<str>,
    pub line: usize,
}

impl Directive {
    /// The argument, or nothing.
    pub(super) fn arg(&self, at: usize) -> &str {
        self.args.get(at).map_or("", String::as_str)
    }

    /// What stands in the braces.
    pub(super) fn children(&self) -> &[Directive] {
        self.block.as_deref().unwrap_or_default()
    }

    /// As it is written, on one line and not too long.
    pub(super) fn shown(&self) -> String {
        let mut words = vec![quoted(&self.name)];
        words.extend(self.args.iter().map(|arg| quoted(arg)));
        let text = words.join(" ");
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        match text.char_indices().nth(SHOWN_MAX) {
            Some((cut, _)) => format!("{}...", &text[..cut]),
            None => text,
        }
    }

    /// Where it is, for a comment.
    pub(super) fn origin(&self) -> String {
        let file: String = self.file.chars().filter(|c| !c.is_control()).collect();
        format!("{file}:{}: {}", self.line, self.shown())
    }
}

fn quoted(word: &str) -> String {
    if word.is_empty() || word.contains([' ', ';', '\t']) {
        return format!("\"{word}\"");
    }
    word.to_owned()
}

/// The directives of a text and of what it includes.
pub(super) fn parse(
    files: &dyn Fn(&str) -> Option<Vec<Included>>,
    notes: &Notes,
    name: &str,
    text: &str,
) -> Result<Vec<Directive>, Broken> {
    Parser { files, notes, bytes: 0 }.text(name, text, 0, 0)
}

struct Parser<'f> {
    files: &'f dyn Fn(&str) -> Option<Vec<Included>>,
    notes: &'f Notes,
    /// Read so far.
    bytes: usize,
}

/// Where in which text the parser is.
struct Reading<'t> {
    lexer: Lexer<'t>,
    file: Rc<str>,
    /// How many includes deep.
    includes: usize,
}

impl Reading<'_> {
    fn broken(&self, spot: Spot, message: impl Into<String>) -> Broken {
        let Spot { line, column } = spot;
        Broken { file: self.file.to_string(), line, column, message: message.into() }
    }
}

impl Parser<'_> {
    fn text(
        &mut self,
        name: &str,
        text: &str,
        depth: usize,
        includes: usize,
    ) -> Result<Vec<Directive>, Broken> {
        let mut reading = Reading { lexer: Lexer::new(text), file: name.into(), includes };
        self.bytes = self.bytes.saturating_add(text.len());
        if self.bytes > TEXT_MAX {
            let message = format!("more than {} MiB with what is included", TEXT_MAX >> 20);
            return Err(reading.broken(reading.lexer.spot(), message));
        }
        self.block(&mut reading, depth, None)
    }

    /// To the `}` of the block that was opened at a place, or to the end of the text.
    fn block(
        &mut self,
        reading: &mut Reading<'_>,
        depth: usize,
        opened: Option<Spot>,
    ) -> Result<Vec<Directive>, Broken> {
        let mut list = Vec::new();
        let mut words: Vec<String> = Vec::new();
        let mut start = reading.lexer.spot();
        loop {
            let next = reading.lexer.next_token();
            let next = next.map_err(|(spot, message)| reading.broken(spot, message))?;
            let Some((token, spot)) = next else {
                return match opened {
                    _ if !words.is_empty() => Err(reading.broken(
                        start,
                        "the text ends in this directive: \";\" or \"{\" is missing",
                    )),
                    Some(opened) => Err(reading.broken(opened, "this \"{\" is not closed")),
                    None => Ok(list),
                };
            };
            match token {
                Token::Word(word) => {
                    if words.is_empty() {
                        start = spot;
                    }
                    words.push(word);
                    continue;
                }
                Token::End | Token::Open if words.is_empty() => {
                    let found = if token == Token::End { ";" } else { "{" };
                    return Err(
                        reading.broken(spot, format!("no directive before this \"{found}\""))
                    );
                }
                Token::Close if !words.is_empty() => {
                    return Err(reading.broken(start, "this directive does not end with \";\""));
                }
                Token::Close if opened.is_none() => {
                    return Err(reading.broken(spot, "this \"}\" closes nothing"));
                }
                Token::Close => return Ok(list),
                Token::End => {
                    let directive = made(reading, &mut words, start, None);
                    if directive.name == "include" {
                        list.extend(self.include(reading, &directive, depth, start)?);
                    } else {
                        list.push(directive);
                    }
                }
                Token::Open => {
                    let children = self.children(reading, &words[0], depth, spot)?;
                    list.push(made(reading, &mut words, start, Some(children)));
                }
            }
        }
    }

    fn children(
        &mut self,
        reading: &mut Reading<'_>,
        name: &str,
        depth: usize,
        opened: Spot,
    ) -> Result<Vec<Directive>, Broken> {
        if depth >= DEPTH_MAX {
            let message = format!("more than {DEPTH_MAX} blocks inside each other");
            return Err(reading.broken(opened, message));
        }
        if name.ends_with("_by_lua_block") {
            return match reading.lexer.skip_block() {
                true => Ok(Vec::new()),
                false => Err(reading.broken(opened, "this \"{\" is not closed")),
            };
        }
        self.block(reading, depth + 1, Some(opened))
    }

    fn include(
        &mut self,
        reading: &Reading<'_>,
        directive: &Directive,
        depth: usize,
        start: Spot,
    ) -> Result<Vec<Directive>, Broken> {
        let [pattern] = directive.args.as_slice() else {
            return Err(reading.broken(start, "include takes one path"));
        };
        let file = pattern.rsplit('/').next().unwrap_or(pattern);
        if matches!(file, "mime.types" | "fastcgi_params" | "uwsgi_params" | "fastcgi.conf") {
            self.notes.ignored(directive, "not needed");
            return Ok(Vec::new());
        }
        if reading.includes >= INCLUDES_MAX {
            let message = format!("more than {INCLUDES_MAX} includes inside each other");
            return Err(reading.broken(start, message));
        }
        let Some(files) = (self.files)(pattern) else {
            let message = "can't be read: what it includes is missing here";
            self.notes.unsupported(directive, message);
            return Ok(Vec::new());
        };
        let mut list = Vec::new();
        for Included { file, text } in files {
            list.extend(self.text(&file, &text, depth, reading.includes + 1)?);
        }
        Ok(list)
    }
}

fn made(
    reading: &Reading<'_>,
    words: &mut Vec<String>,
    start: Spot,
    block: Option<Vec<Directive>>,
) -> Directive {
    let mut words = std::mem::take(words).into_iter();
    let name = words.next().unwrap_or_default();
    let file = Rc::clone(&reading.file);
    Directive { name, args: words.collect(), block, file, line: start.line }
}
