//! What the service manager is told: `sd_notify(3)`, and its watchdog (`systemd.service(5)`,
//! `WatchdogSec=`). Where there is no service manager, none of this does anything.

use std::time::Duration;

use sd_notify::NotifyState::{self, ExtendTimeoutUsec, Ready, Reloading, Stopping, Watchdog};
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use crate::gateway::Heart;

/// What the end of a process takes besides its sessions.
const END: Duration = Duration::from_secs(5);

fn tell(states: &[NotifyState<'_>]) {
    // Nobody listens, or not any more: nothing depends on it.
    let _ = sd_notify::notify(states);
}

/// Connections are accepted, by the configuration that was read last.
pub fn ready() {
    tell(&[Ready]);
}

/// The configuration is read again. The time is what a unit of `Type=notify-reload` is asked for:
/// it tells this reload from an earlier one.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[Reloading, now]),
        Err(_) => tell(&[Reloading]),
    }
}

/// The process ends when its sessions have, after `longest` at the latest: `TimeoutStopSec=` need
/// not know what the configuration grants them.
pub fn stopping(longest: Duration) {
    let longest = u32::try_from(longest.saturating_add(END).as_micros()).unwrap_or(u32::MAX);
    tell(&[Stopping, ExtendTimeoutUsec(longest)]);
}

/// Tells the watchdog that all is well, twice in its time and only while every thread that serves
/// gets to its work. `None`: it does not watch this process.
pub fn watch(heart: Heart) -> Option<JoinHandle<()>> {
    let limit = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero())?;
    Some(tokio::spawn(keep(limit, heart, || tell(&[Watchdog]))))
}

/// A thread has a quarter of `limit` to answer: what is told is never older than the rest.
async fn keep(limit: Duration, mut heart: Heart, mut all_is_well: impl FnMut()) {
    let mut ticks = interval(limit / 2);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let silent = heart.beat(limit / 4).await;
        if silent.is_empty() {
            all_is_well();
        } else {
            let threads = silent.join(", ");
            tracing::error!(threads, "no progress: the watchdog is not told that all is well");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc,
    };
    use tokio::{sync::oneshot, time::sleep};

    const LIMIT: Duration = Duration::from_millis(40);

    /// Keeps a heart of one thread, which is asked like this; how often all was well.
    fn keep_one(ask: impl Fn(oneshot::Sender<()>) + Send + Sync + 'static) -> Arc<AtomicU32> {
        let told = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&told);
        tokio::spawn(keep(LIMIT, Heart::of("thread", ask), move || {
            count.fetch_add(1, Ordering::Relaxed);
        }));
        told
    }

    async fn is_told(told: &AtomicU32, times: u32) {
        let wait = async {
            while told.load(Ordering::Relaxed) < times {
                sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap();
    }

    #[tokio::test]
    async fn tells_again_and_again_while_the_thread_answers() {
        let told = keep_one(|answer| answer.send(()).unwrap());
        is_told(&told, 5).await;
    }

    #[tokio::test]
    async fn tells_nothing_while_the_thread_is_silent() {
        let (held, asked) = mpsc::channel();
        let told = keep_one(move |answer| held.send(answer).unwrap());
        sleep(LIMIT * 5).await;
        assert_eq!(told.load(Ordering::Relaxed), 0);
        // Asked once, however long it takes; when it answers, all is well again.
        let answer = asked.recv().unwrap();
        assert!(asked.try_recv().is_err());
        answer.send(()).unwrap();
        is_told(&told, 1).await;
    }
}
