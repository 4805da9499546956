//! Lines on their way to a file: a queue that never makes anybody wait, and a thread behind it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{Entry, Format, format};

/// Bytes that may wait to be written: 8 MiB.
const MOST_WAITING: usize = 8 << 20;
/// At the end, how long what waits may take.
const LAST_WORDS: Duration = Duration::from_secs(2);

#[derive(Default)]
struct Queue {
    /// Whole lines.
    lines: Vec<u8>,
    /// What came before this many bytes of `lines` belongs into the file as it is, the rest into
    /// the file that is opened then.
    reopen_at: Option<usize>,
    closing: bool,
    done: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    dropped: AtomicU64,
    said: AtomicBool,
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An access log. What is in its queue is written before it is gone, within 2 s.
pub struct AccessLog {
    format: Format,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessLog").field("format", &self.format).finish_non_exhaustive()
    }
}

impl AccessLog {
    /// Writes to the end of a file, or without one to standard output.
    ///
    /// # Errors
    /// The file can't be opened, or no thread be started.
    pub fn open(format: Format, path: Option<PathBuf>) -> io::Result<Self> {
        let output = path.as_deref().map(open).transpose()?;
        let shared = Arc::new(Shared::default());
        let writer = Writer { shared: Arc::clone(&shared), path, output, failing: false };
        let thread =
            thread::Builder::new().name("wsproxy-log".into()).spawn(move || writer.run())?;
        Ok(Self { format, shared, thread: Some(thread) })
    }

    /// Queues a line. When too much waits it is dropped and counted.
    pub fn write(&self, entry: &Entry<'_>) {
        let mut line = Vec::with_capacity(512);
        format::write(self.format, entry, &mut line);
        let mut queue = self.shared.lock();
        if queue.lines.len() + line.len() > MOST_WAITING {
            drop(queue);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            if !self.shared.said.swap(true, Ordering::Relaxed) {
                tracing::warn!("the access log is too slow: lines are dropped, and counted");
            }
            return;
        }
        let first = queue.lines.is_empty();
        queue.lines.extend_from_slice(&line);
        drop(queue);
        if first {
            self.shared.changed.notify_all();
        }
    }

    /// Lines that were dropped.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Opens the file again, after it was moved away; what was queued before goes into the old
    /// one.
    pub fn reopen(&self) {
        let mut queue = self.shared.lock();
        queue.reopen_at = Some(queue.lines.len());
        drop(queue);
        self.shared.changed.notify_all();
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.changed.notify_all();
        let queue = self.shared.lock();
        let waited = self.shared.changed.wait_timeout_while(queue, LAST_WORDS, |q| !q.done);
        let done = waited.unwrap_or_else(PoisonError::into_inner).0.done;
        // A thread that hangs in a write is left alone.
        if let Some(thread) = self.thread.take().filter(|_| done) {
            let _ = thread.join();
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

struct Writer {
    shared: Arc<Shared>,
    path: Option<PathBuf>,
    output: Option<File>,
    failing: bool,
}

impl Writer {
    fn run(mut self) {
        loop {
            let mut queue = self.shared.lock();
            while queue.lines.is_empty() && queue.reopen_at.is_none() && !queue.closing {
                queue = self.shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            let lines = std::mem::take(&mut queue.lines);
            let (reopen_at, closing) = (queue.reopen_at.take(), queue.closing);
            drop(queue);
            match reopen_at {
                Some(at) => {
                    self.write(&lines[..at]);
                    self.reopen();
                    self.write(&lines[at..]);
                }
                None => self.write(&lines),
            }
            if closing {
                let mut queue = self.shared.lock();
                if queue.lines.is_empty() {
                    queue.done = true;
                    drop(queue);
                    self.shared.changed.notify_all();
                    return;
                }
            }
        }
    }

    fn write(&mut self, lines: &[u8]) {
        let written = match &mut self.output {
            Some(file) => file.write_all(lines),
            None => io::stdout().lock().write_all(lines),
        };
        match written {
            Ok(()) => self.failing = false,
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::error!(%error, "the access log can't be written; lines are lost");
            }
            Err(_) => {}
        }
    }

    fn reopen(&mut self) {
        let Some(path) = &self.path else { return };
        match open(path) {
            Ok(file) => self.output = Some(file),
            Err(error) => tracing::error!(path = %path.display(), %error,
                "the access log can't be opened again; the old file stays in use"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::SystemTime};

    use super::*;

    fn entry(id: &str) -> Entry<'_> {
        Entry {
            time: SystemTime::UNIX_EPOCH,
            client: "192.0.2.7".parse().unwrap(),
            request_id: id,
            method: "GET",
            target: "/",
            http_version: "HTTP/1.1",
            host: "h",
            scheme: "http",
            tls_version: None,
            referer: None,
            user_agent: None,
            status: 200,
            route: "",
            upstream: None,
            bytes_to_client: 0,
            bytes_to_upstream: 0,
            duration: Duration::ZERO,
            upstream_time: None,
            session: None,
        }
    }

    fn ids(path: &Path) -> Vec<u64> {
        let text = fs::read_to_string(path).unwrap();
        let id = |line: &str| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            value["request"].as_str().unwrap().parse().unwrap()
        };
        text.lines().map(id).collect()
    }

    #[test]
    fn rotation_loses_and_doubles_no_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let log = AccessLog::open(Format::Json, Some(path.clone())).unwrap();
        let mut moved = Vec::new();
        for n in 0..2_000 {
            log.write(&entry(&n.to_string()));
            if n % 500 == 499 {
                let aside = dir.path().join(format!("access.log.{n}"));
                // The file must be there: what was queued so far may still be on its way.
                while !path.exists() {
                    thread::yield_now();
                }
                fs::rename(&path, &aside).unwrap();
                log.reopen();
                moved.push(aside);
            }
        }
        log.write(&entry("2000"));
        drop(log);
        let mut all: Vec<u64> = moved.iter().flat_map(|path| ids(path)).collect();
        all.extend(ids(&path));
        assert_eq!(all, (0..=2_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let log = AccessLog { format: Format::Json, shared: Arc::default(), thread: None };
        let long = "x".repeat(1 << 20);
        for _ in 0..20 {
            log.write(&entry(&long));
        }
        assert!(log.dropped() >= 12, "{}", log.dropped());
        assert!(log.shared.lock().lines.len() <= MOST_WAITING);
        log.shared.lock().done = true;
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_said() {
        let error = AccessLog::open(Format::Json, Some("/nowhere/access.log".into())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
