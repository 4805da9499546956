//! Routes of a server before it is known on which listeners and for which hosts.

use super::access;
use super::lost::Lost;
use super::notes::Notes;
use super::parser::Directive;
use super::pattern::Pattern;
use super::render::Entries;

/// A route in the making, for whichever hosts and listeners.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub pattern: Pattern,
    pub comments: Vec<String>,
    pub entries: Entries,
    pub line: usize,
}

/// What one server does.
#[derive(Debug, Default)]
pub(super) struct Drafts<'a> {
    pub main: Vec<Draft>,
    /// For a host of their own.
    pub hosts: Vec<(String, Draft)>,
    /// For listeners without TLS, in the place of all others.
    pub plain: Option<Draft>,
    pub lost: Vec<Lost<'a>>,
}

impl Draft {
    /// At a directive.
    pub(super) fn new(pattern: Pattern, directive: &Directive, entries: Entries) -> Self {
        Self { pattern, comments: vec![directive.origin()], entries, line: directive.line }
    }

    /// Lets nobody in, if it would get what a left out location refused or ran.
    pub(super) fn close_for(&mut self, lost: &[Lost<'_>], notes: &Notes) {
        let is_files = self.entries.has("files");
        if self.pattern.firm || !(is_files || self.entries.has("upstream")) {
            return;
        }
        let found = lost.iter().find(|lost| lost.falls_to(&self.pattern.path, is_files));
        if let Some(lost) = found {
            self.comments.push(nobody(&lost.note(notes)));
            self.entries.0.retain(|(key, _)| !matches!(*key, "allow" | "deny"));
            self.entries.set("deny", access::everybody());
        }
    }
}

/// The comment of a route that is closed.
pub(super) fn nobody(why: &str) -> String {
    format!("Nobody gets in until you take `deny` out: wsproxy has nothing like {why}")
}

/// The path of every request.
pub(super) fn everything() -> Pattern {
    Pattern::prefix("/")
}

/// A fixed answer.
pub(super) fn status(status: u64) -> Entries {
    let mut entries = Entries::default();
    entries.set("respond", status);
    entries
}
