//! What is wrong with files, and what was made of good ones.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Something about one file, in plain words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProblem {
    /// The file as it was given; empty if it is about none in particular.
    pub path: PathBuf,
    /// What is wrong. Never holds a part of a key.
    pub message: String,
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.as_os_str().is_empty() {
            return f.write_str(&self.message);
        }
        write!(f, "{}: {}", self.path.display(), self.message)
    }
}

/// Files of which no configuration can be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
#[error("{}", joined(.problems))]
pub struct BadFiles {
    /// All that must be mended.
    pub problems: Vec<FileProblem>,
    /// All that would not have been in the way, see [`Loaded::warnings`].
    pub warnings: Vec<FileProblem>,
}

impl BadFiles {
    pub(super) fn problem(&mut self, path: &Path, message: impl Into<String>) {
        self.problems.push(FileProblem { path: path.to_path_buf(), message: message.into() });
    }

    pub(super) fn warn(&mut self, path: &Path, message: impl Into<String>) {
        self.warnings.push(FileProblem { path: path.to_path_buf(), message: message.into() });
    }
}

fn joined(problems: &[FileProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A configuration made of files.
#[derive(Debug)]
pub struct Loaded<T> {
    /// The configuration.
    pub config: Arc<T>,
    /// The own certificates, in the order they were given.
    pub certificates: Vec<CertificateFacts>,
    /// What should be looked at: certificates that are expired, expire within
    /// 14 days or are not yet valid, keys that every user can read, chains in
    /// the wrong order.
    pub warnings: Vec<FileProblem>,
}

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Its file.
    pub path: PathBuf,
    /// Its DNS names, in lower case, wildcards included.
    pub names: Vec<String>,
    /// The last second it is valid (RFC 5280 section 4.1.2.5); none if that
    /// cannot be read.
    pub expires: Option<SystemTime>,
}
