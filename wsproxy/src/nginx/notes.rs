//! What is to be said about the import.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use super::parser::Directive;

/// How much a note matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// Translated, but not to exactly the same.
    Changed,
    /// Not needed here: nothing to do.
    Ignored,
    /// Not translated.
    Unsupported,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Changed => "changed",
            Self::Ignored => "ignored",
            Self::Unsupported => "unsupported",
        })
    }
}

/// Something about one directive.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Note {
    /// From 1.
    pub line: usize,
    /// The file.
    pub file: String,
    /// How much it matters.
    pub severity: Severity,
    /// The directive without its block, cut to a readable length.
    pub directive: String,
    /// What is different and what to do.
    pub message: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, file, severity, directive, message } = self;
        write!(f, "{file}:{line}: {severity}: {directive}: {message}")
    }
}

/// Notes as they come; each is kept once, however many routes inherit its directive.
#[derive(Debug, Default)]
pub(super) struct Notes {
    seen: RefCell<HashSet<Note>>,
    list: RefCell<Vec<Note>>,
}

impl Notes {
    pub(super) fn changed(&self, directive: &Directive, message: impl Into<String>) {
        self.add(directive, Severity::Changed, message.into());
    }

    pub(super) fn ignored(&self, directive: &Directive, message: impl Into<String>) {
        self.add(directive, Severity::Ignored, message.into());
    }

    pub(super) fn unsupported(&self, directive: &Directive, message: impl Into<String>) {
        self.add(directive, Severity::Unsupported, message.into());
    }

    fn add(&self, directive: &Directive, severity: Severity, message: String) {
        let (line, file) = (directive.line, directive.file.to_string());
        let note = Note { line, file, severity, directive: directive.shown(), message };
        if self.seen.borrow_mut().insert(note.clone()) {
            self.list.borrow_mut().push(note);
        }
    }

    /// By file and line, the file `name` first.
    pub(super) fn sorted(self, name: &str) -> Vec<Note> {
        let mut list = self.list.into_inner();
        list.sort_by(|a, b| {
            let key = |note: &Note| (note.file != name, note.line);
            key(a).0.cmp(&key(b).0).then_with(|| a.file.cmp(&b.file)).then(key(a).1.cmp(&key(b).1))
        });
        list
    }
}
