//! Files served from a directory on disk.

mod bodies;
mod escapes;
mod parts;
mod serving;
mod wire;

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::header::{HeaderName, HeaderValue};
use tempfile::TempDir;

use super::root::Resolver;
use super::*;

const BOTH: [Resolver; 2] = [Resolver::Kernel, Resolver::Walk];

/// A directory to serve, with a secret beside it.
struct Place {
    /// Removes the directory.
    _holder: TempDir,
    root: PathBuf,
}

impl Place {
    fn new() -> Self {
        let holder = tempfile::tempdir().unwrap();
        let root = holder.path().join("root");
        fs::create_dir(&root).unwrap();
        fs::write(holder.path().join("secret"), "SECRET").unwrap();
        Self { root, _holder: holder }
    }

    fn outside(&self) -> &Path {
        self.root.parent().unwrap()
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    fn config(&self) -> FilesConfig {
        FilesConfig::new(&self.root)
    }

    fn files(&self) -> Files {
        Files::open(self.config()).unwrap()
    }

    fn files_with(&self, resolver: Resolver) -> Files {
        let root = Root::open_with(&self.root, resolver).unwrap();
        Files::with_root(root, self.config()).unwrap()
    }

    fn files_falling_back(&self, fallback: &[&str]) -> Files {
        let fallback = fallback.iter().map(|text| Fallback::parse(text).unwrap()).collect();
        Files::open(FilesConfig { fallback, ..self.config() }).unwrap()
    }
}

/// An answer that was read to its end.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).max_blocking_threads(2).enable_all();
    builder.build().unwrap().block_on(future)
}

fn header_map(lines: &[(&str, &str)]) -> HeaderMap {
    let lines = lines.iter().map(|(name, value)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
    });
    lines.collect()
}

fn whole_path(path: &str) -> Target<'_> {
    let (path, query) =
        path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    Target { path, original_path: path, query }
}

async fn respond(
    files: &Files,
    method: &str,
    path: &str,
    lines: &[(&str, &str)],
) -> Response<FileBody> {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    files.respond(&method, whole_path(path), &header_map(lines)).await
}

async fn collect(response: Response<FileBody>) -> Answer {
    let (head, body) = response.into_parts();
    let announced = hyper::body::Body::size_hint(&body).exact().unwrap();
    let body = body.collect().await.unwrap().to_bytes();
    assert_eq!(announced, body.len() as u64, "the size hint");
    Answer { status: head.status.as_u16(), headers: head.headers, body }
}

fn ask(files: &Files, method: &str, path: &str, lines: &[(&str, &str)]) -> Answer {
    run(async { collect(respond(files, method, path, lines).await).await })
}

fn get(files: &Files, path: &str) -> Answer {
    ask(files, "GET", path, &[])
}

/// Bytes of which no two parts are the same.
fn pattern(length: usize) -> Vec<u8> {
    (0u32..).flat_map(u32::to_le_bytes).take(length).collect()
}
