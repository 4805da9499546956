//! From a request to its answer: the part that may block.

use std::sync::Arc;
use std::time::SystemTime;

use hyper::{Response, StatusCode};
use tokio::runtime::Handle;

use super::Site;
use super::answer::{self, Content};
use super::body::FileBody;
use super::conditional::Conditions;
use super::fallback::Kind;
use super::path::RelPath;
use super::root::{Miss, Node, OpenFile};
use super::validators::seconds;

/// How often a small file is opened again because it became shorter between
/// open and read.
const MAX_TRIES: u32 = 3;

/// One request, with all that its answer depends on.
pub(super) struct Job {
    pub(super) site: Arc<Site>,
    pub(super) path: RelPath,
    /// Whether the path ends with a slash.
    pub(super) slash: bool,
    /// Where a directory without one is redirected to.
    pub(super) location: String,
    pub(super) conditions: Conditions,
    pub(super) head: bool,
    pub(super) runtime: Handle,
}

/// What a request leads to.
enum Found {
    File(OpenFile, RelPath),
    /// A directory, asked for without the slash.
    Redirect,
    Status(StatusCode),
}

impl Job {
    /// Finds the file and answers. Blocks: for tokio's blocking pool.
    pub(super) fn run(self) -> Response<FileBody> {
        for _ in 0..MAX_TRIES {
            let (file, path) = match self.find() {
                Found::File(file, path) => (file, path),
                Found::Redirect => return answer::redirect(&self.location, self.head),
                Found::Status(status) => return answer::error(status, self.head),
            };
            let content = Content {
                file,
                name: path.as_str(),
                conditions: &self.conditions,
                head: self.head,
                now: seconds(SystemTime::now()),
                runtime: &self.runtime,
            };
            if let Ok(response) = answer::content(content) {
                return response;
            }
        }
        answer::error(StatusCode::INTERNAL_SERVER_ERROR, self.head)
    }

    /// Tries the fallbacks. An error that is no "not found" ends the search: a
    /// fallback would hide it.
    fn find(&self) -> Found {
        for fallback in &self.site.fallback {
            let found = match fallback.kind() {
                Kind::File => self.uri_file(None),
                Kind::Suffixed(suffix) => self.uri_file(Some(suffix)),
                Kind::Directory => self.uri_directory(),
                Kind::Path(path) => self.file(path.clone()),
                Kind::Status(status) => Ok(Found::Status(*status)),
            };
            match found {
                Ok(found) => return found,
                Err(Miss::Missing) => {}
                Err(miss) => return Found::Status(miss.status()),
            }
        }
        Found::Status(StatusCode::NOT_FOUND)
    }

    /// The file that the path names. With a slash at its end it names none.
    fn uri_file(&self, suffix: Option<&str>) -> Result<Found, Miss> {
        if self.slash {
            return Err(Miss::Missing);
        }
        let path = match suffix {
            Some(suffix) => self.path.with_suffix(suffix).ok_or(Miss::Missing)?,
            None => self.path.clone(),
        };
        self.file(path)
    }

    fn uri_directory(&self) -> Result<Found, Miss> {
        match self.site.root.node(&self.path)? {
            Node::File(_) => Err(Miss::Missing),
            Node::Directory if !self.slash => Ok(Found::Redirect),
            Node::Directory => self.index(),
        }
    }

    fn index(&self) -> Result<Found, Miss> {
        for name in &self.site.index {
            match self.file(self.path.join(name)) {
                Err(Miss::Missing) => {}
                found => return found,
            }
        }
        Ok(Found::Status(StatusCode::FORBIDDEN))
    }

    fn file(&self, path: RelPath) -> Result<Found, Miss> {
        match self.site.root.node(&path)? {
            Node::File(file) => Ok(Found::File(file, path)),
            Node::Directory => Err(Miss::Missing),
        }
    }
}
