//! Whether the threads that serve still get to their work.

use std::{fmt, time::Duration};

use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
    time::{Instant, timeout_at},
};

use crate::datapath::Pulse;

type Ask = Box<dyn Fn(oneshot::Sender<()>) + Send + Sync>;

/// Asks each thread for a sign of life, which it gives between two things that it does. One that
/// hangs, spins, has panicked or has ended gives none.
pub struct Heart {
    threads: Vec<Thread>,
    stopped: Option<watch::Receiver<bool>>,
}

struct Thread {
    name: String,
    ask: Ask,
    /// The answer to come: a thread is asked again only when it has given it.
    awaited: Option<oneshot::Receiver<()>>,
}

impl fmt::Debug for Heart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.threads.iter().map(|thread| &thread.name)).finish()
    }
}

impl Heart {
    /// That of these workers and engines, until the gateway stops.
    pub(super) fn new(
        workers: &[Handle],
        engines: Vec<Pulse>,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        let workers = workers.iter().cloned().enumerate().map(|(at, worker)| {
            let ask = move |answer: oneshot::Sender<()>| {
                // Who asked may have lost patience.
                worker.spawn(async move { answer.send(()).unwrap_or_default() });
            };
            Thread::new(format!("worker {at}"), ask)
        });
        let engines = engines.into_iter().enumerate().map(|(at, engine)| {
            let ask = move |answer: oneshot::Sender<()>| {
                engine.ask(Box::new(move || answer.send(()).unwrap_or_default()));
            };
            Thread::new(format!("engine {at}"), ask)
        });
        Self { threads: workers.chain(engines).collect(), stopped: Some(stopped) }
    }

    /// That of one thread, which is asked like this.
    #[cfg(test)]
    pub(crate) fn of(
        name: &str,
        ask: impl Fn(oneshot::Sender<()>) + Send + Sync + 'static,
    ) -> Self {
        Self { threads: vec![Thread::new(name.into(), ask)], stopped: None }
    }

    /// The threads that do not answer within `patience`. None of them is asked for more when the
    /// gateway stops: they end then.
    pub async fn beat(&mut self, patience: Duration) -> Vec<String> {
        // Without a sender the gateway is gone.
        if self.stopped.as_ref().is_some_and(|stopped| stopped.has_changed().unwrap_or(true)) {
            return Vec::new();
        }
        let end = Instant::now() + patience;
        for thread in &mut self.threads {
            thread.ask_once();
        }
        let mut silent = Vec::new();
        for thread in &mut self.threads {
            if !thread.answers(end).await {
                silent.push(thread.name.clone());
            }
        }
        silent
    }
}

impl Thread {
    fn new(name: String, ask: impl Fn(oneshot::Sender<()>) + Send + Sync + 'static) -> Self {
        Self { name, ask: Box::new(ask), awaited: None }
    }

    fn ask_once(&mut self) {
        if self.awaited.is_none() {
            let (sender, receiver) = oneshot::channel();
            (self.ask)(sender);
            self.awaited = Some(receiver);
        }
    }

    async fn answers(&mut self, end: Instant) -> bool {
        let Some(awaited) = &mut self.awaited else { return false };
        let Ok(answer) = timeout_at(end, awaited).await else { return false };
        self.awaited = None;
        // An error: the thread is gone, and the question with it.
        answer.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::workers::Workers;

    const SOON: Duration = Duration::from_millis(50);
    const LATE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_worker_that_hangs_is_named_until_it_goes_on() {
        let workers = Workers::start(2).unwrap();
        let (_stop, stopped) = watch::channel(false);
        let mut heart = Heart::new(workers.handles(), Vec::new(), stopped);
        assert_eq!(heart.beat(LATE).await, Vec::<String>::new());
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let (begun, begins) = oneshot::channel();
        let hangs = workers.spawn_on(1, async move {
            begun.send(()).unwrap();
            wait.recv().unwrap();
        });
        begins.await.unwrap();
        assert_eq!(heart.beat(SOON).await, ["worker 1"]);
        go_on.send(()).unwrap();
        assert_eq!(heart.beat(LATE).await, Vec::<String>::new());
        hangs.await.unwrap();
    }

    #[tokio::test]
    async fn a_worker_that_has_ended_is_missed_unless_the_gateway_stops() {
        let workers = Workers::start(1).unwrap();
        let (stop, stopped) = watch::channel(false);
        let mut heart = Heart::new(workers.handles(), Vec::new(), stopped);
        tokio::task::spawn_blocking(move || drop(workers)).await.unwrap();
        assert_eq!(heart.beat(LATE).await, ["worker 0"]);
        stop.send(true).unwrap();
        assert_eq!(heart.beat(LATE).await, Vec::<String>::new());
    }
}
