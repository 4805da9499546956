//! Several ranges as one body (RFC 9110 section 14.6).

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use super::range::ByteRange;

/// What stands between the parts of a `multipart/byteranges` body.
#[derive(Debug)]
pub(super) struct Multipart<'a> {
    boundary: String,
    media_type: &'a str,
    size: u64,
}

impl<'a> Multipart<'a> {
    /// For parts of a file of that media type, `size` bytes long.
    pub(super) fn new(media_type: &'a str, size: u64) -> Self {
        Self { boundary: boundary(), media_type, size }
    }

    /// The media type of the whole body.
    pub(super) fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// What stands before a part.
    pub(super) fn head(&self, range: ByteRange, first: bool) -> String {
        format!(
            "{}--{}\r\nContent-Type: {}\r\nContent-Range: {}\r\n\r\n",
            if first { "" } else { "\r\n" },
            self.boundary,
            self.media_type,
            range.content_range(self.size),
        )
    }

    /// What stands after the last part.
    pub(super) fn tail(&self) -> String {
        format!("\r\n--{}--\r\n", self.boundary)
    }
}

/// 128 bits that nobody can put into a file beforehand: each `RandomState` hashes
/// with keys that the system's random source gave.
fn boundary() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let half = || RandomState::new().hash_one(number);
    format!("{:016x}{:016x}", half(), half())
}
