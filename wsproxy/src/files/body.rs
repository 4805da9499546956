//! The body of an answer: bytes from memory and from an open file.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use rustix::buffer::spare_capacity;
use rustix::io::{pread, retry_on_intr};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// The most bytes of a file that are in memory for one answer: one read. A file
/// that is not larger is read when it is opened.
pub(super) const CHUNK: usize = 64 * 1024;

/// The body of an answer.
///
/// A file is read 64 KiB at a time on tokio's blocking pool, the next part when
/// the part before was taken: a client that does not read costs no more memory
/// than that. The length was fixed when the file was opened. A file that grows is
/// sent up to there; one that became shorter ends the body with `UnexpectedEof`,
/// so that the connection is closed and the client sees that something is
/// missing.
#[derive(Debug, Default)]
pub struct FileBody {
    pieces: VecDeque<Piece>,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
    /// What was not taken yet, in bytes.
    remaining: u64,
}

/// What is sent next; never empty.
#[derive(Debug)]
enum Piece {
    Memory(Bytes),
    Stored(Stored),
}

/// A part of a file.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) file: Arc<File>,
    /// Where it is read.
    pub(super) runtime: Handle,
    /// In bytes from the start of the file.
    pub(super) offset: u64,
    /// In bytes.
    pub(super) length: u64,
}

impl FileBody {
    /// The next bytes are these.
    pub(super) fn push(&mut self, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        if !bytes.is_empty() {
            self.remaining += bytes.len() as u64;
            self.pieces.push_back(Piece::Memory(bytes));
        }
    }

    /// The next bytes are in a file.
    pub(super) fn push_stored(&mut self, stored: Stored) {
        if stored.length > 0 {
            self.remaining += stored.length;
            self.pieces.push_back(Piece::Stored(stored));
        }
    }

    /// The bytes that are still to be sent.
    pub(super) fn remaining(&self) -> u64 {
        self.remaining
    }

    /// How many of them are still in a file.
    pub(super) fn stored(&self) -> u64 {
        let lengths = self.pieces.iter().map(|piece| match piece {
            Piece::Memory(_) => 0,
            Piece::Stored(stored) => stored.length,
        });
        lengths.sum()
    }

    /// Reads all parts of files into memory. Blocks.
    pub(super) fn load(&mut self) -> io::Result<()> {
        for piece in &mut self.pieces {
            if let Piece::Stored(Stored { file, offset, length, .. }) = piece {
                let length = usize::try_from(*length).map_err(io::Error::other)?;
                *piece = Piece::Memory(read_at(file, *offset, length)?);
            }
        }
        Ok(())
    }

    /// The next bytes, or the read that brings them.
    fn advance(&mut self) -> Option<Next> {
        match self.pieces.pop_front()? {
            Piece::Memory(bytes) => Some(Next::Bytes(bytes)),
            Piece::Stored(mut stored) => {
                let reading = stored.read();
                if stored.length > 0 {
                    self.pieces.push_front(Piece::Stored(stored));
                }
                Some(Next::Reading(reading))
            }
        }
    }

    fn end(&mut self) {
        self.pieces.clear();
        self.remaining = 0;
    }
}

enum Next {
    Bytes(Bytes),
    Reading(JoinHandle<io::Result<Bytes>>),
}

impl Stored {
    /// Begins to read the first part, and is the rest.
    fn read(&mut self) -> JoinHandle<io::Result<Bytes>> {
        let length = usize::try_from(self.length).unwrap_or(CHUNK).min(CHUNK);
        let (file, offset) = (Arc::clone(&self.file), self.offset);
        self.offset += length as u64;
        self.length -= length as u64;
        self.runtime.spawn_blocking(move || read_at(&file, offset, length))
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        let outcome = loop {
            if let Some(reading) = &mut this.reading {
                let outcome = ready!(Pin::new(reading).poll(context));
                this.reading = None;
                break outcome.unwrap_or_else(|failed| Err(io::Error::other(failed)));
            }
            match this.advance() {
                None => return Poll::Ready(None),
                Some(Next::Bytes(bytes)) => break Ok(bytes),
                Some(Next::Reading(reading)) => this.reading = Some(reading),
            }
        };
        match &outcome {
            Ok(bytes) => this.remaining = this.remaining.saturating_sub(bytes.len() as u64),
            Err(_) => this.end(),
        }
        Poll::Ready(Some(outcome.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

/// Reads exactly `length` bytes; `UnexpectedEof` where the file has no more.
fn read_at(file: &File, offset: u64, length: usize) -> io::Result<Bytes> {
    let mut buffer = Vec::with_capacity(length);
    while buffer.len() < length {
        let at = offset + buffer.len() as u64;
        if retry_on_intr(|| pread(file, spare_capacity(&mut buffer), at))? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file became shorter while it was sent",
            ));
        }
    }
    buffer.truncate(length);
    Ok(Bytes::from(buffer))
}
