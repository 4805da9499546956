//! The thread that writes lines, and what it writes to.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::{fd::AsFd as _, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use super::queue::Queue;

/// Before standard output that takes nothing now, and does not wait, is tried again.
const AGAIN: Duration = Duration::from_millis(5);

/// What went wrong with writing.
#[derive(Debug, Default)]
pub(super) struct Failures {
    errors: AtomicU64,
    lost: AtomicU64,
}

impl Failures {
    /// Writes that failed.
    pub(super) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Lines that were lost by it.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn count(&self, lost: u64) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        self.lost.fetch_add(lost, Ordering::Relaxed);
    }
}

/// Opens a file to write behind its end, and makes it where there is none.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// Standard output, past the buffer and the lock that other threads would wait for.
pub(super) fn standard_output() -> io::Result<File> {
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}

/// Where lines go.
struct Output<W> {
    to: W,
    /// The rest of a line that could be written in part only: it comes before all others, for
    /// otherwise the next line would go on where it ends.
    torn: Vec<u8>,
}

impl<W: Write> Output<W> {
    const fn new(to: W) -> Self {
        Self { to, torn: Vec::new() }
    }

    /// Writes whole lines; or why not, and how many of them are lost.
    fn write(&mut self, lines: &[u8], give_up: impl Fn() -> bool) -> Result<(), (io::Error, u64)> {
        let (written, error) = write_most(&mut self.to, &self.torn, &give_up);
        self.torn.drain(..written);
        if let Some(error) = error {
            return Err((error, count(lines)));
        }
        let (written, error) = write_most(&mut self.to, lines, &give_up);
        let Some(error) = error else { return Ok(()) };
        let (done, mut rest) = lines.split_at(written);
        if done.last().is_some_and(|&byte| byte != b'\n') {
            let end = rest.iter().position(|&byte| byte == b'\n').map_or(rest.len(), |at| at + 1);
            let (torn, whole) = rest.split_at(end);
            self.torn.extend_from_slice(torn);
            rest = whole;
        }
        Err((error, count(rest)))
    }
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().map(|&byte| u64::from(byte == b'\n')).sum()
}

/// How many bytes were written, and why not all.
fn write_most(
    to: &mut impl Write,
    bytes: &[u8],
    give_up: impl Fn() -> bool,
) -> (usize, Option<io::Error>) {
    let mut written = 0;
    while written < bytes.len() {
        match to.write(&bytes[written..]) {
            Ok(0) => return (written, Some(ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Standard output may have been made so by another process that shares it.
            Err(error) if error.kind() == ErrorKind::WouldBlock && !give_up() => {
                thread::sleep(AGAIN);
            }
            Err(error) => return (written, Some(error)),
        }
    }
    (written, None)
}

/// The one that writes what is queued.
pub(super) struct Writer {
    queue: Arc<Queue>,
    failures: Arc<Failures>,
    /// None for standard output, which is never opened again.
    path: Option<PathBuf>,
    output: Output<File>,
    /// Failures of this file that were reported; there are only so many kinds.
    reported: Vec<(ErrorKind, Option<i32>)>,
    said_dropped: bool,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.ended();
    }
}

impl Writer {
    pub(super) const fn new(
        queue: Arc<Queue>,
        failures: Arc<Failures>,
        path: Option<PathBuf>,
        file: File,
    ) -> Self {
        let output = Output::new(file);
        Self { queue, failures, path, output, reported: Vec::new(), said_dropped: false }
    }

    /// Writes until the queue ends.
    pub(super) fn run(mut self) {
        let mut batch = Vec::new();
        while let Some(work) = self.queue.next(&mut batch) {
            let (before, after) = batch.split_at(work.reopen_at.unwrap_or(batch.len()));
            self.write(before);
            if work.reopen_at.is_some() {
                self.reopen();
            }
            self.write(after);
            self.say_dropped();
        }
        self.say_dropped();
    }

    fn write(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        let Err((error, lost)) = self.output.write(lines, || self.queue.is_abandoned()) else {
            return;
        };
        self.failures.count(lost);
        let kind = (error.kind(), error.raw_os_error());
        if !self.reported.contains(&kind) {
            self.reported.push(kind);
            tracing::error!(path = %self.place(), %error,
                "the access log can't be written: lines are lost, and counted");
        }
    }

    fn reopen(&mut self) {
        let Some(path) = &self.path else { return };
        match open(path) {
            Ok(file) => {
                let old = std::mem::replace(&mut self.output, Output::new(file));
                if !old.torn.is_empty() {
                    self.failures.lost.fetch_add(1, Ordering::Relaxed);
                }
                self.reported.clear();
            }
            Err(error) => tracing::error!(path = %self.place(), %error,
                "the access log can't be opened again: the old file stays in use"),
        }
    }

    // Said by this thread, once: the ones that queue lines must not wait for a log either.
    fn say_dropped(&mut self) {
        let dropped = self.queue.dropped();
        if dropped > 0 && !self.said_dropped {
            self.said_dropped = true;
            tracing::warn!(path = %self.place(), dropped,
                "the access log is slower than its lines come: lines are dropped, and counted");
        }
    }

    fn place(&self) -> std::path::Display<'_> {
        self.path.as_deref().unwrap_or(Path::new("standard output")).display()
    }
}

#[cfg(test)]
#[path = "tests/writing.rs"]
mod tests;
