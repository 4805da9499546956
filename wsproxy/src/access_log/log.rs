//! An access log as others see it.

use std::{
    fmt,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{
    Entry, Format, format,
    queue::Queue,
    writer::{Failures, Writer, open, standard_output},
};

/// At the end, how long the lines that wait may take to be written.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// An access log. Dropping it writes the lines that wait, for at most 2 s.
pub struct AccessLog {
    format: Format,
    pub(super) queue: Arc<Queue>,
    failures: Arc<Failures>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog").field("format", &self.format).finish_non_exhaustive()
    }
}

impl AccessLog {
    /// Writes behind the end of a file, or without a path to standard output. A file that is not
    /// there is made, with mode 0640.
    ///
    /// # Errors
    /// The file can't be opened, standard output is closed, or no thread can be started.
    pub fn open(format: Format, path: Option<PathBuf>) -> io::Result<Self> {
        let file = Self::file(path.as_deref())?;
        Self::start(format, path, file)
    }

    /// The file that [`Self::start`] writes to, opened while it may be.
    ///
    /// # Errors
    /// The file can't be opened, or standard output is closed.
    pub fn file(path: Option<&Path>) -> io::Result<File> {
        path.map_or_else(standard_output, open)
    }

    /// Writes to a file that was opened before; `path` is where it is opened again.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(format: Format, path: Option<PathBuf>, file: File) -> io::Result<Self> {
        let (queue, failures) = (Arc::<Queue>::default(), Arc::<Failures>::default());
        let writer = Writer::new(Arc::clone(&queue), Arc::clone(&failures), path, file);
        let thread = thread::Builder::new().name("wsproxy-log".into());
        let thread = Some(thread.spawn(move || writer.run())?);
        Ok(Self { format, queue, failures, thread })
    }

    /// Queues a line, and never waits for it to be written. When
    /// [too many](super::MAX_WAITING_LINES) or [too long](super::MAX_WAITING_BYTES) ones wait, it
    /// is dropped and counted.
    pub fn write(&self, entry: &Entry<'_>) {
        let mut line = Vec::with_capacity(512);
        match self.format {
            Format::Json => format::json(entry, &mut line),
            Format::Combined => format::combined(entry, &mut line),
        }
        self.queue.push(&line);
    }

    /// Opens the file again after it was moved away: what was queued before goes into the old
    /// file, what is queued later into the new one. When that fails, the old one stays in use and
    /// the log says why. Returns at once.
    pub fn reopen(&self) {
        self.queue.reopen();
    }

    /// Lines that were dropped because too much waited.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.queue.dropped()
    }

    /// Lines that were lost because they could not be written.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.failures.lost()
    }

    /// Writes that failed; each may lose many lines.
    #[must_use]
    pub fn write_errors(&self) -> u64 {
        self.failures.errors()
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        let closed = self.queue.close(LAST_WORDS);
        match (closed, self.thread.take()) {
            (Ok(()), Some(thread)) => {
                let _ = thread.join();
            }
            // A thread that hangs in a write is left alone.
            (Err(lines), _) => {
                tracing::warn!(lines, "the access log is too slow: its last lines are lost");
            }
            (Ok(()), None) => {}
        }
    }
}
