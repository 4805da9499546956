//! Static files over HTTP: what a route with `files = "/var/www/html"` answers.
//!
//! The order of one answer:
//!
//! 1. `path` decodes the request's path, or refuses it;
//! 2. `lookup` tries the fallbacks one after the other on the blocking pool.
//!    `root` opens each of them below the root directory and nowhere else;
//! 3. `conditional` and `range` say, as pure functions, which part of the file
//!    is asked for (RFC 9110 sections 13 and 14);
//! 4. `answer` writes the head, and a [`FileBody`] reads the file while the
//!    client takes it.
//!
//! Rules that are a choice of this gateway:
//!
//! - No listings: a directory without an index file is 403.
//! - A name that begins with a dot is 404, except `.well-known` (RFC 8615).
//!   What the configuration names itself (an index, a fallback path) may begin
//!   with a dot.
//! - A path that is refused never gets to the fallbacks.
//! - Symlinks are followed as long as they stay below the root. On a kernel
//!   without `openat2` (before 5.6, or hidden by a seccomp filter) none is.
//! - What is neither a regular file nor a directory does not exist.

mod answer;
mod body;
mod conditional;
mod fallback;
mod lookup;
mod media_type;
mod multipart;
mod path;
mod range;
mod root;
#[cfg(test)]
mod tests;
mod validators;

pub use body::FileBody;
pub use fallback::Fallback;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use hyper::header::HeaderMap;
use hyper::{Method, Response, StatusCode};
use tokio::runtime::Handle;

use conditional::Conditions;
use lookup::Job;
use path::RelPath;
use root::Root;

/// The most index names, and the most fallbacks, of one configuration.
const MAX_NAMES: usize = 16;

/// Which files are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesConfig {
    /// The directory whose files are served. It may be a symlink.
    pub root: PathBuf,
    /// The names that stand for a directory, tried in this order. At most 16,
    /// none with a `/`.
    pub index: Vec<String>,
    /// What is tried for a request, in this order; at most 16. A status may only
    /// be the last. Empty is the same as `$uri`, `$uri/`, `=404`.
    pub fallback: Vec<Fallback>,
}

impl FilesConfig {
    /// `index.html` stands for a directory, and there is no fallback.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), index: vec!["index.html".to_owned()], fallback: Vec::new() }
    }
}

/// What a request asks for.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The path below the root, percent-encoded as it was received, without the
    /// query. One leading `/` may be there or not. A route that takes its prefix
    /// away hands in what is left, which may be nothing.
    pub path: &'a str,
    /// The whole path of the request, percent-encoded as it was received: what a
    /// redirect to the form with a slash adds the slash to.
    pub original_path: &'a str,
    /// The query without its `?`, which such a redirect keeps.
    pub query: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// The target of a request whose whole path is looked up below the root.
    #[must_use]
    pub fn of(uri: &'a hyper::Uri) -> Self {
        Self { path: uri.path(), original_path: uri.path(), query: uri.query() }
    }

    fn ends_with_slash(&self) -> bool {
        // A route with the path "/a/" may leave nothing of "/a/".
        let tail = if self.path.is_empty() { self.original_path } else { self.path };
        tail.ends_with('/')
    }
}

/// Serves the files below one directory. A clone shares the directory.
#[derive(Debug, Clone)]
pub struct Files {
    site: Arc<Site>,
}

/// The checked configuration, with the root directory open.
#[derive(Debug)]
struct Site {
    root: Root,
    index: Vec<RelPath>,
    fallback: Vec<Fallback>,
}

impl Files {
    /// Opens the root directory.
    ///
    /// The directory is held open, not its name: when another directory takes
    /// the name (a rename, a symlink that is changed), the files of the first one
    /// are still served until a new `Files` is opened. A file below it that is
    /// replaced is seen by the next request.
    ///
    /// # Errors
    ///
    /// The root cannot be opened or is no directory. `InvalidInput` where an
    /// index is no single file name, a status is not the last fallback, or there
    /// are more than 16 of either.
    pub fn open(config: FilesConfig) -> io::Result<Self> {
        let root = Root::open(&config.root)?;
        Self::with_root(root, config)
    }

    fn with_root(root: Root, config: FilesConfig) -> io::Result<Self> {
        let index = index_names(&config.index).map_err(invalid)?;
        let fallback = fallback::chain(config.fallback).map_err(invalid)?;
        Ok(Self { site: Arc::new(Site { root, index, fallback }) })
    }

    /// Answers one request. Everything that goes wrong is an answer too:
    ///
    /// - 200, 206 (one range, or up to 8 as `multipart/byteranges`), 304;
    /// - 301 to the form with a slash for a directory, with a relative
    ///   `Location` (RFC 9110 section 10.2.2);
    /// - 400: a path with NUL, a dot segment, a broken percent-encoding, or one
    ///   that does not decode to UTF-8;
    /// - 403: no permission, or a directory without an index file;
    /// - 404: no such file, a hidden name, or an encoded slash (`%2f` separates
    ///   no segments, and no file name contains it), or an empty segment;
    /// - 405 with `Allow` for anything but GET and HEAD;
    /// - 412 and 416 for conditions and ranges that do not hold;
    /// - 500 and 503: the system refused to open or read the file, 503 where it
    ///   may work again soon (no descriptor free).
    ///
    /// The file system is only touched on tokio's blocking pool. A file of up to
    /// 64 KiB is opened and read in one call there; of a larger one the
    /// [`FileBody`] reads 64 KiB at a time. Outside of a tokio runtime the answer
    /// is 500.
    pub async fn respond(
        &self,
        method: &Method,
        target: Target<'_>,
        headers: &HeaderMap,
    ) -> Response<FileBody> {
        let head = method == Method::HEAD;
        if !head && method != Method::GET {
            return answer::method_not_allowed();
        }
        let path = match RelPath::from_request(target.path) {
            Ok(path) => path,
            Err(refusal) => return answer::error(refusal.status(), head),
        };
        let Ok(runtime) = Handle::try_current() else {
            return answer::error(StatusCode::INTERNAL_SERVER_ERROR, head);
        };
        let job = Job {
            site: Arc::clone(&self.site),
            path,
            slash: target.ends_with_slash(),
            location: answer::slash_location(target.original_path, target.query),
            conditions: Conditions::from_headers(headers),
            head,
            runtime: runtime.clone(),
        };
        let answered = runtime.spawn_blocking(move || job.run()).await;
        answered.unwrap_or_else(|_| answer::error(StatusCode::INTERNAL_SERVER_ERROR, head))
    }
}

/// The index names as paths of one segment.
fn index_names(names: &[String]) -> Result<Vec<RelPath>, String> {
    if names.len() > MAX_NAMES {
        return Err(format!("more than {MAX_NAMES} index names"));
    }
    let one = |name: &String| {
        if name.contains('/') {
            return Err(format!("index {name:?}: it must be a file name without \"/\""));
        }
        RelPath::from_config(name).map_err(|why| format!("index {name:?}: {why}"))
    };
    names.iter().map(one).collect()
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}
