//! The answers: heads, and what their bodies are made of.

use std::io;
use std::sync::Arc;

use hyper::header::{
    ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName,
    HeaderValue, LAST_MODIFIED, LOCATION, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};
use tokio::runtime::Handle;

use super::body::{CHUNK, FileBody, Stored};
use super::conditional::{Conditions, Verdict};
use super::media_type;
use super::multipart::Multipart;
use super::range::{ByteRange, Selection};
use super::root::OpenFile;
use super::validators::Validators;

/// A file that was found, and how it was asked for.
pub(super) struct Content<'a> {
    pub(super) file: OpenFile,
    /// Its path, for the media type.
    pub(super) name: &'a str,
    pub(super) conditions: &'a Conditions,
    pub(super) head: bool,
    /// In seconds since 1970.
    pub(super) now: u64,
    /// Where the rest of a large file is read.
    pub(super) runtime: &'a Handle,
}

/// Answers with a file, or what the conditions make of it. Reads at most
/// [`CHUNK`] bytes of it; fails where that cannot be read.
pub(super) fn content(content: Content<'_>) -> io::Result<Response<FileBody>> {
    let Content { file, name, conditions, head, now, runtime } = content;
    let validators = Validators::of(&file);
    match conditions.verdict(&validators) {
        Verdict::Failed => return Ok(error(StatusCode::PRECONDITION_FAILED, head)),
        Verdict::NotModified => return Ok(not_modified(&validators, now)),
        Verdict::Proceed => {}
    }
    // RFC 9110 section 14.2: ranges are defined for GET alone.
    let selection = match head {
        true => Selection::Whole,
        false => conditions.selection(&validators, file.size, now),
    };
    let source = Source { file: Arc::new(file.file), size: file.size, runtime };
    let media_type = media_type::of_name(name);
    let mut response = match selection {
        Selection::Unsatisfiable => return Ok(unsatisfiable(source.size)),
        Selection::Whole => whole(&source, media_type),
        Selection::Ranges(ranges) => match ranges.as_slice() {
            [range] => one_range(&source, media_type, *range),
            ranges => several_ranges(&source, &media_type, ranges),
        },
    };
    set_validators(&mut response, &validators, now);
    set(&mut response, ACCEPT_RANGES, "bytes");
    finish(response, head)
}

/// An error, with its status as a short text.
pub(super) fn error(status: StatusCode, head: bool) -> Response<FileBody> {
    let mut body = FileBody::default();
    body.push(format!("{} {}\n", status.as_u16(), status.canonical_reason().unwrap_or("Error")));
    let mut response = with_body(status, "text/plain; charset=utf-8", body);
    if head {
        *response.body_mut() = FileBody::default();
    }
    response
}

/// 405: files are only read.
pub(super) fn method_not_allowed() -> Response<FileBody> {
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, false);
    set(&mut response, ALLOW, "GET, HEAD");
    response
}

/// 301 to a location that [`slash_location`] made.
pub(super) fn redirect(location: &str, head: bool) -> Response<FileBody> {
    let mut response = error(StatusCode::MOVED_PERMANENTLY, head);
    set(&mut response, LOCATION, location);
    response
}

/// The same path with a slash at its end, as a relative reference (RFC 3986
/// section 4.2) that begins with one slash.
///
/// A second one would make it a reference to another host, and browsers read a
/// backslash as a slash and leave control characters out: these are encoded.
pub(super) fn slash_location(path: &str, query: Option<&str>) -> String {
    let mut location = String::with_capacity(path.len() + 2);
    location.push('/');
    push_encoded(&mut location, path.trim_start_matches('/'));
    if !location.ends_with('/') {
        location.push('/');
    }
    if let Some(query) = query {
        location.push('?');
        push_encoded(&mut location, query);
    }
    location
}

fn push_encoded(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'"' | b'<' | b'>') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// Where the bytes of an answer come from.
struct Source<'a> {
    file: Arc<std::fs::File>,
    size: u64,
    runtime: &'a Handle,
}

impl Source<'_> {
    fn part(&self, offset: u64, length: u64) -> Stored {
        Stored { file: Arc::clone(&self.file), runtime: self.runtime.clone(), offset, length }
    }
}

fn whole(source: &Source<'_>, media_type: String) -> Response<FileBody> {
    let mut body = FileBody::default();
    body.push_stored(source.part(0, source.size));
    with_body(StatusCode::OK, &media_type, body)
}

fn one_range(source: &Source<'_>, media_type: String, range: ByteRange) -> Response<FileBody> {
    let mut body = FileBody::default();
    body.push_stored(source.part(range.first, range.length()));
    let mut response = with_body(StatusCode::PARTIAL_CONTENT, &media_type, body);
    set(&mut response, CONTENT_RANGE, &range.content_range(source.size));
    response
}

fn several_ranges(
    source: &Source<'_>,
    media_type: &str,
    ranges: &[ByteRange],
) -> Response<FileBody> {
    let multipart = Multipart::new(media_type, source.size);
    let mut body = FileBody::default();
    for (number, range) in ranges.iter().enumerate() {
        body.push(multipart.head(*range, number == 0));
        body.push_stored(source.part(range.first, range.length()));
    }
    body.push(multipart.tail());
    with_body(StatusCode::PARTIAL_CONTENT, &multipart.content_type(), body)
}

/// 304 has no content, and so no `Content-Length` either (RFC 9110 section
/// 15.4.5; its value would be that of the 200).
fn not_modified(validators: &Validators, now: u64) -> Response<FileBody> {
    let mut response = Response::new(FileBody::default());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    set_validators(&mut response, validators, now);
    response
}

fn unsatisfiable(size: u64) -> Response<FileBody> {
    let mut response = error(StatusCode::RANGE_NOT_SATISFIABLE, false);
    set(&mut response, CONTENT_RANGE, &format!("bytes */{size}"));
    set(&mut response, ACCEPT_RANGES, "bytes");
    response
}

fn with_body(status: StatusCode, media_type: &str, body: FileBody) -> Response<FileBody> {
    let length = body.remaining();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    set(&mut response, CONTENT_TYPE, media_type);
    set(&mut response, X_CONTENT_TYPE_OPTIONS, "nosniff");
    response
}

/// Takes the body off for HEAD, and reads a small one at once.
fn finish(mut response: Response<FileBody>, head: bool) -> io::Result<Response<FileBody>> {
    let body = response.body_mut();
    if head {
        *body = FileBody::default();
    } else if body.stored() <= CHUNK as u64 {
        body.load()?;
    }
    Ok(response)
}

fn set_validators(response: &mut Response<FileBody>, validators: &Validators, now: u64) {
    set(response, ETAG, &validators.etag);
    if let Some(date) = validators.last_modified(now) {
        set(response, LAST_MODIFIED, &date);
    }
}

/// All values are visible ASCII: none is ever left out.
fn set(response: &mut Response<FileBody>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn locations() {
        let table = [
            ("/a", None, "/a/"),
            ("/a/b", Some("x=1&y=2"), "/a/b/?x=1&y=2"),
            ("/a", Some(""), "/a/?"),
            ("/a%20b", Some("q=%2f"), "/a%20b/?q=%2f"),
            ("/", None, "/"),
            ("", None, "/"),
            ("//evil.example", None, "/evil.example/"),
            ("/\\evil.example", None, "/%5Cevil.example/"),
            ("/ä", Some("\r\nX: y"), "/%C3%A4/?%0D%0AX:%20y"),
        ];
        for (path, query, location) in table {
            assert_eq!(slash_location(path, query), location, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_location_leaves_the_host(path in any::<String>(), query in any::<Option<String>>()) {
            let location = slash_location(&path, query.as_deref());
            prop_assert!(location.starts_with('/'));
            prop_assert!(!location[1..].starts_with(['/', '\\']));
            prop_assert!(location.bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }
}
