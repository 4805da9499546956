//! A deadline that moves often and passes seldom: moving it costs no more than an assignment.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A deadline. Its timer in the runtime stays where it was when the deadline moves on, and is set
/// anew when it fires too early; whoever waits is woken once for nothing then.
#[derive(Debug, Default)]
pub(super) struct Deadline {
    until: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Sets it to so long from now.
    pub(super) fn set(&mut self, after: Duration) {
        self.until = Some(Instant::now() + after);
    }

    /// There is none any more.
    pub(super) fn clear(&mut self) {
        self.until = None;
    }

    /// Whether `after` has passed since this was first asked, or since it was set.
    pub(super) fn poll_after(&mut self, after: Duration, cx: &mut Context<'_>) -> bool {
        if self.until.is_none() {
            self.set(after);
        }
        self.poll_passed(cx)
    }

    /// Whether it has passed; if not, the task is woken when it does.
    pub(super) fn poll_passed(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(until) = self.until else { return false };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.deadline() > until {
            timer.as_mut().reset(until);
        }
        loop {
            match timer.as_mut().poll(cx) {
                Poll::Pending => return false,
                Poll::Ready(()) if Instant::now() >= until => return true,
                Poll::Ready(()) => timer.as_mut().reset(until),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const LATE: Duration = Duration::from_secs(3600);

    async fn has_passed(deadline: &mut Deadline) -> bool {
        poll_fn(|cx| Poll::Ready(deadline.poll_passed(cx))).await
    }

    async fn passed(deadline: &mut Deadline) {
        poll_fn(|cx| if deadline.poll_passed(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    #[tokio::test]
    async fn it_passes_when_it_was_set_last() {
        let mut deadline = Deadline::default();
        deadline.set(SOON);
        assert!(!has_passed(&mut deadline).await);
        // Later than the timer that runs.
        let start = Instant::now();
        deadline.set(SOON * 5);
        passed(&mut deadline).await;
        assert!(start.elapsed() >= SOON * 5);
        // Earlier than it: else this test takes an hour.
        deadline.set(LATE);
        assert!(!has_passed(&mut deadline).await);
        deadline.set(SOON);
        passed(&mut deadline).await;
    }

    #[tokio::test]
    async fn none_never_passes() {
        let mut deadline = Deadline::default();
        deadline.set(SOON);
        assert!(!has_passed(&mut deadline).await);
        deadline.clear();
        tokio::time::sleep(SOON * 2).await;
        assert!(deadline.until.is_none());
        assert!(!has_passed(&mut deadline).await);
    }
}
