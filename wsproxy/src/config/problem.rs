//! What is wrong with a configuration, and where.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

/// Line and column of a character in the file, both counted from 1; the
/// column counts characters, not bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// Where a value was given. Orders as problems are listed: the file from top
/// to bottom, then what the file as a whole lacks, then the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a file, at a position, or in the file as a whole where none applies
    /// (a missing key, an unreadable file).
    File {
        /// The file as it was named to us.
        path: PathBuf,
        /// The position inside it.
        position: Option<Position>,
    },
    /// As a flag.
    CommandLine,
}

impl Place {
    /// A place in a file.
    pub fn file(path: &Path, position: Option<Position>) -> Self {
        Self::File { path: path.to_owned(), position }
    }

    /// The line and column, when the place has them.
    pub fn position(&self) -> Option<Position> {
        match self {
            Self::File { position, .. } => *position,
            Self::CommandLine => None,
        }
    }

    fn rank(&self) -> (u8, Option<Position>) {
        match self {
            Self::File { position: Some(position), .. } => (0, Some(*position)),
            Self::File { position: None, .. } => (1, None),
            Self::CommandLine => (2, None),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, position } => {
                write!(f, "{}", path.display())?;
                match position {
                    Some(at) => write!(f, ":{}:{}", at.line, at.column),
                    None => Ok(()),
                }
            }
            Self::CommandLine => f.write_str("command line"),
        }
    }
}

/// One thing to say about the configuration: an error inside [`Problems`], a
/// warning inside [`Config::warnings`](super::Config::warnings).
///
/// Displays as one line: `file:line:col: key: message (found X, expected Y)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Where.
    pub place: Place,
    /// The key (`timeouts.idle`) or flag (`--listen`); none for a TOML syntax
    /// error and an unreadable file.
    pub key: Option<String>,
    /// What is the matter.
    pub message: String,
    /// The value found there.
    pub found: Option<String>,
    /// What would have been right.
    pub expected: Option<String>,
}

impl Diagnostic {
    /// A message about a place; the rest is added by the `with_` functions.
    pub fn new(place: Place, message: impl Into<String>) -> Self {
        Self { place, key: None, message: message.into(), found: None, expected: None }
    }

    /// Adds to what is said.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds to what is said.
    #[must_use]
    pub fn with_found(mut self, found: impl Into<String>) -> Self {
        self.found = Some(found.into());
        self
    }

    /// Adds to what is said.
    #[must_use]
    pub fn with_expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.message)?;
        match (&self.found, &self.expected) {
            (Some(found), Some(expected)) => write!(f, " (found {found}, expected {expected})"),
            (Some(found), None) => write!(f, " (found {found})"),
            (None, Some(expected)) => write!(f, " (expected {expected})"),
            (None, None) => Ok(()),
        }
    }
}

/// Every error of a configuration, never none, in the order of the file.
///
/// Displays as one line per problem, without a newline after the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Diagnostic>);

impl Problems {
    /// The problems in order, or none when the list is empty.
    pub(super) fn new(mut list: Vec<Diagnostic>) -> Option<Self> {
        list.sort_by_key(|problem| problem.place.rank());
        (!list.is_empty()).then_some(Self(list))
    }

    /// A single problem.
    #[must_use]
    pub fn single(problem: Diagnostic) -> Self {
        Self(vec![problem])
    }

    /// Problems that were found after the file itself was read, as with files that it names;
    /// `None` when there is none.
    #[must_use]
    pub fn of(list: Vec<Diagnostic>) -> Option<Self> {
        Self::new(list)
    }

    /// The problems, in the order they are displayed.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl Error for Problems {}

/// Why one value does not parse, without where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// What is the matter.
    pub message: Cow<'static, str>,
    /// What would have been right.
    pub expected: Cow<'static, str>,
}

impl Invalid {
    pub(super) fn new(
        message: impl Into<Cow<'static, str>>,
        expected: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { message: message.into(), expected: expected.into() }
    }

    /// The value is outside `min` to `max`.
    pub(super) fn range(too_small: bool, min: impl fmt::Display, max: impl fmt::Display) -> Self {
        let message = if too_small { "too small" } else { "too large" };
        Self::new(message, format!("{min} to {max}"))
    }

    /// The same, with one more word that would have been right.
    pub(super) fn or(self, word: &str) -> Self {
        Self { expected: format!("{} or \"{word}\"", self.expected).into(), ..self }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (expected {})", self.message, self.expected)
    }
}

impl Error for Invalid {}
