//! nginx configurations to ours: `wsproxy import-nginx FILE`. Pure.
//!
//! The order of one import:
//!
//! 1. `lexer` and `parser` read nginx's syntax, includes put in, to directives;
//! 2. `known` notes each directive that is not needed or has no counterpart;
//! 3. `servers` and `listeners` find out which server gets what on which address,
//!    `routes` makes a route of each location;
//! 4. `render` writes the TOML.
//!
//! What cannot be said in our configuration does not make it more open than nginx's: a location
//! that asked for a password lets nobody in, as do those that would get the requests of a left
//! out location which refused them; one without a counterpart answers 501. Left to a note are
//! the ends of prefixes: a `deny all` in `location /a` is about `/a` and `/a/b`, not `/ab`.

mod access;
mod conditions;
mod dial;
mod drafts;
mod files;
mod forward;
mod headers;
mod http;
mod known;
mod lexer;
mod limits;
mod listeners;
mod lost;
mod notes;
mod origins;
mod parser;
mod pattern;
mod redirect;
mod render;
mod routes;
mod scope;
mod servers;
#[cfg(test)]
mod tests;
mod units;
mod upstreams;
mod variables;

use std::fmt;

pub use notes::{Note, Severity};

/// Longest text, includes counted, in bytes.
pub const TEXT_MAX: usize = 1 << 20;
/// Most blocks inside each other.
pub const DEPTH_MAX: usize = 32;
/// Most includes inside each other.
pub const INCLUDES_MAX: usize = 16;

/// What an nginx configuration became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// Our configuration.
    pub toml: String,
    /// What is different, not needed or not there, in the order of the file; those of included
    /// files behind those of the file itself.
    pub notes: Vec<Note>,
}

/// What is no nginx configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The file.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong there.
    pub message: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)
    }
}

impl std::error::Error for Broken {}

/// A file that an `include` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Included {
    /// What notes call it.
    pub file: String,
    /// What is in it.
    pub text: String,
}

/// Translates the nginx configuration `text` of the file `name`.
///
/// `files` gets the path or pattern of each `include` as it is written and returns the files that
/// it names; a pattern may name none. `None`: they can't be had, which becomes a note. The
/// configuration may be a whole `nginx.conf` or what stands inside its `http` block.
///
/// # Errors
///
/// The text, or an included one, does not have nginx's syntax, or one of [`TEXT_MAX`],
/// [`DEPTH_MAX`] and [`INCLUDES_MAX`] is passed.
pub fn import(
    files: &dyn Fn(&str) -> Option<Vec<Included>>,
    name: &str,
    text: &str,
) -> Result<Import, Broken> {
    let notes = notes::Notes::default();
    let tree = parser::parse(files, &notes, name, text)?;
    let sections = http::translate(tree, &notes);
    Ok(Import { toml: render::document(name, &sections), notes: notes.sorted(name) })
}
