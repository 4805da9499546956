//! Threads that serve connections, each with a reactor of its own.
//!
//! A connection stays on the thread that accepted it, and so do those that it asks servers
//! through: nothing of a request moves from CPU to CPU. One pool of threads that take work from
//! each other costs 3 to 4 us more for each plain request (two CPUs, measured).

use std::{
    cell::Cell,
    io,
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    runtime::{Builder, Handle},
    sync::watch,
    task,
};

/// Most that there may be, `datapath.workers`.
pub(super) const MOST_WORKERS: usize = 64;
/// What blocks, files for example, may still take so long when a worker ends.
const END: Duration = Duration::from_millis(100);

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

/// Which worker this thread is; 0 for others.
pub(super) fn current() -> usize {
    NUMBER.get()
}

/// The threads; they end when this is dropped.
pub(super) struct Workers {
    handles: Vec<Handle>,
    threads: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

impl Workers {
    /// Starts so many.
    ///
    /// # Errors
    /// No thread or no epoll could be had.
    pub(super) fn start(count: usize) -> io::Result<Self> {
        let (stop, _) = watch::channel(false);
        let mut workers = Self { handles: Vec::new(), threads: Vec::new(), stop };
        for number in 0..count {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            workers.handles.push(runtime.handle().clone());
            let mut stopped = workers.stop.subscribe();
            let thread = thread::Builder::new().name(format!("wsproxy-http{number}"));
            let thread = thread.spawn(move || {
                NUMBER.set(number);
                // The sender is gone only after it has said so.
                let _said = runtime.block_on(stopped.wait_for(|stopped| *stopped));
                runtime.shutdown_timeout(END);
            })?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.handles.len()
    }

    /// How work is given to each of them.
    pub(super) fn handles(&self) -> &[Handle] {
        &self.handles
    }

    /// Runs `future` on one of them.
    pub(super) fn spawn_on<F>(&self, worker: usize, future: F) -> task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.handles[worker % self.handles.len()].spawn(future)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for thread in self.threads.drain(..) {
            // Its panic, if there was one, has been reported by the thread itself.
            let _ended = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_stays_where_it_was_given() {
        let workers = Workers::start(3).unwrap();
        for worker in 0..workers.count() {
            let (first, then) = workers
                .spawn_on(worker, async {
                    let first = current();
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    (first, tokio::spawn(async { current() }).await.unwrap())
                })
                .await
                .unwrap();
            assert_eq!((first, then), (worker, worker));
        }
    }

    #[tokio::test]
    async fn their_end_ends_what_they_do() {
        let workers = Workers::start(1).unwrap();
        let endless = workers.spawn_on(0, std::future::pending::<()>());
        task::spawn_blocking(move || drop(workers)).await.unwrap();
        assert!(endless.await.unwrap_err().is_cancelled());
    }
}
