//! Lines that wait to be written. Who adds one never waits for who writes them.

use std::{
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{MAX_WAITING_BYTES, MAX_WAITING_LINES};

/// A buffer that grew larger than this in a burst is given back: 1 MiB.
const KEPT: usize = 1 << 20;

#[derive(Default)]
struct State {
    /// Whole lines.
    lines: Vec<u8>,
    count: usize,
    /// What comes before this many bytes of `lines` belongs into the file as it is, the rest into
    /// the file that is opened then.
    reopen_at: Option<usize>,
    /// The writer has nothing to do and has to be told.
    idle: bool,
    /// No more lines come.
    closing: bool,
    /// The writer is gone.
    ended: bool,
}

/// Lines on their way from many threads to one.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    work: Condvar,
    end: Condvar,
    /// The writer took too long at the end: nobody waits for it any more.
    abandoned: AtomicBool,
    dropped: AtomicU64,
}

/// What the writer does next with the lines it was handed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Work {
    /// Behind this many bytes the file is opened again.
    pub(super) reopen_at: Option<usize>,
}

impl Queue {
    // No code that holds the lock leaves a state behind that could not be used.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        if idle {
            self.work.notify_one();
        }
    }

    /// Adds a line, or where there is no room counts it as dropped.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        let full = state.count >= MAX_WAITING_LINES
            || line.len() > MAX_WAITING_BYTES.saturating_sub(state.lines.len());
        if full {
            drop(state);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.lines.extend_from_slice(line);
        state.count += 1;
        self.wake(state);
    }

    /// Lines that there was no room for.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Lines that wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.lock().count
    }

    /// The file is to be opened again behind the lines that wait now.
    pub(super) fn reopen(&self) {
        let mut state = self.lock();
        // Of several, the last counts: what was queued before any of them may go into the old
        // file, and nothing behind the last may.
        state.reopen_at = Some(state.lines.len());
        self.wake(state);
    }

    /// Waits for lines and puts them into `batch`, whose room it takes; None at the end.
    pub(super) fn next(&self, batch: &mut Vec<u8>) -> Option<Work> {
        batch.clear();
        batch.shrink_to(KEPT);
        let mut state = self.lock();
        while state.lines.is_empty() && state.reopen_at.is_none() && !state.closing {
            state.idle = true;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.lines.is_empty() && state.reopen_at.is_none() {
            return None;
        }
        std::mem::swap(&mut state.lines, batch);
        state.count = 0;
        Some(Work { reopen_at: state.reopen_at.take() })
    }

    /// The writer is gone.
    pub(super) fn ended(&self) {
        self.lock().ended = true;
        self.end.notify_all();
    }

    /// Whether nobody waits for the writer any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// Tells the writer to write what waits and end, and waits for it; or how many lines waited
    /// still when it took too long.
    pub(super) fn close(&self, patience: Duration) -> Result<(), usize> {
        let mut state = self.lock();
        state.closing = true;
        self.wake(state);
        let waited = self.end.wait_timeout_while(self.lock(), patience, |state| !state.ended);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        if state.ended {
            return Ok(());
        }
        self.abandoned.store(true, Ordering::Relaxed);
        state.lines = Vec::new();
        state.reopen_at = None;
        Err(std::mem::take(&mut state.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_holds_so_many_lines() {
        let queue = Queue::default();
        for _ in 0..MAX_WAITING_LINES + 5 {
            queue.push(b"a\n");
        }
        assert_eq!(queue.dropped(), 5);
        let mut batch = Vec::new();
        assert_eq!(queue.next(&mut batch), Some(Work { reopen_at: None }));
        assert_eq!(batch.len(), 2 * MAX_WAITING_LINES);
        queue.push(b"b\n");
        assert_eq!((queue.next(&mut batch).is_some(), &*batch), (true, &b"b\n"[..]));
        assert_eq!(queue.dropped(), 5);
    }

    #[test]
    fn the_queue_holds_so_many_bytes() {
        let queue = Queue::default();
        queue.push(&vec![b'a'; MAX_WAITING_BYTES + 1]);
        assert_eq!(queue.dropped(), 1);
        queue.push(&vec![b'a'; MAX_WAITING_BYTES - 1]);
        queue.push(b"ab");
        queue.push(b"c");
        queue.push(b"d");
        assert_eq!(queue.dropped(), 3);
        let mut batch = Vec::new();
        queue.next(&mut batch);
        assert_eq!(batch.len(), MAX_WAITING_BYTES);
        assert_eq!(batch.last(), Some(&b'c'));
        // A burst's buffers are not kept.
        queue.push(b"e");
        queue.next(&mut batch);
        queue.push(b"f");
        queue.next(&mut batch);
        assert!(batch.capacity() <= KEPT, "{}", batch.capacity());
    }

    #[test]
    fn reopening_has_its_place_among_the_lines() {
        let queue = Queue::default();
        let mut batch = Vec::new();
        queue.reopen();
        assert_eq!(queue.next(&mut batch), Some(Work { reopen_at: Some(0) }));
        queue.push(b"a\n");
        queue.reopen();
        queue.push(b"b\n");
        queue.reopen();
        queue.push(b"c\n");
        assert_eq!(queue.next(&mut batch), Some(Work { reopen_at: Some(4) }));
        assert_eq!(batch, b"a\nb\nc\n");
    }

    #[test]
    fn a_writer_that_takes_too_long_is_left_alone() {
        let queue = Queue::default();
        queue.push(b"a\n");
        queue.push(b"b\n");
        assert_eq!(queue.close(Duration::from_millis(1)), Err(2));
        assert!(queue.is_abandoned());
        assert_eq!(queue.next(&mut Vec::new()), None);
        queue.ended();
        assert_eq!(queue.close(Duration::from_secs(60)), Ok(()));
    }
}
