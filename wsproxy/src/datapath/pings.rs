//! When a side is pinged, and when it is dead: decisions, without clock or sockets. All times are
//! ns of `CLOCK_MONOTONIC`.

use std::time::Duration;

use super::frames::PingPlan;

/// Part of the interval by which a Ping may come early, so that sessions that fell silent at the
/// same moment are not pinged at the same moment: a fifth.
const EARLY: u64 = 5;

/// Pings of one side.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pings {
    /// When the last one was sent, by the coarse clock that stamps bytes; 0: never.
    sent_ns: u64,
    /// The same by the precise one.
    exact_ns: u64,
    /// When one was last answered; 0: never.
    answered_ns: u64,
    /// Round trip of the last answer in us; 0: none yet.
    rtt_us: u32,
    /// One waits for the end of a frame.
    waiting: bool,
    /// The last one has not been answered.
    open: bool,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing before then.
    At(u64),
    /// Ping.
    Ping,
    /// The side is dead.
    Dead,
}

impl Pings {
    /// What to do at `now`, when the last byte of the side came at `heard` (or the session began
    /// then); `draw` is any number.
    #[must_use]
    pub fn step(&self, plan: &PingPlan, heard: u64, now: u64, draw: u64) -> Step {
        let (interval, timeout) = (nanos(plan.interval), nanos(plan.timeout));
        if self.waiting {
            return Step::At(now + interval.min(timeout));
        }
        let heard = heard.max(self.answered_ns);
        // A byte in the same tick came after it: before it there was a long silence.
        if self.open && heard < self.sent_ns {
            let end = self.sent_ns + timeout;
            return if now >= end { Step::Dead } else { Step::At(end) };
        }
        let earliest = interval - interval / EARLY;
        if now.saturating_sub(heard) >= earliest {
            return Step::Ping;
        }
        // Drawn anew each time: phases drift apart.
        Step::At(heard + earliest + draw % (interval / EARLY).max(1))
    }

    /// A Ping is on its way to the side, or waits for its place.
    pub fn queued(&mut self) {
        self.waiting = true;
    }

    /// It waits.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// It was sent at `now`, and `exact` by the precise clock.
    pub fn sent(&mut self, now: u64, exact: u64) {
        (self.waiting, self.open) = (false, true);
        (self.sent_ns, self.exact_ns) = (now, exact);
    }

    /// It will not be sent: the side has said its Close.
    pub fn given_up(&mut self) {
        (self.waiting, self.open) = (false, false);
    }

    /// The answer came, by both clocks; its round trip in ns.
    pub fn answered(&mut self, now: u64, exact: u64) -> u64 {
        let trip = exact.saturating_sub(self.exact_ns);
        self.rtt_us = u32::try_from(trip / 1000).unwrap_or(u32::MAX).max(1);
        self.answered_ns = now;
        self.open = false;
        trip
    }

    /// Round trip of the last answer, in us.
    #[must_use]
    pub fn rtt_us(&self) -> Option<u32> {
        (self.rtt_us > 0).then_some(self.rtt_us)
    }
}

/// A period in ns, so short that two of them and a time can be added.
pub(super) fn nanos(period: Duration) -> u64 {
    u64::try_from(period.as_nanos()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;
    const PLAN: PingPlan = PingPlan {
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(3),
        upstream: false,
    };

    #[test]
    fn a_silent_side_is_pinged_once_and_dead_when_it_stays_silent() {
        let mut pings = Pings::default();
        assert!(
            matches!(pings.step(&PLAN, 0, S, 7), Step::At(at) if (8 * S..10 * S).contains(&at))
        );
        assert_eq!(pings.step(&PLAN, 0, 9 * S, 7), Step::Ping);
        pings.queued();
        assert!(
            matches!(pings.step(&PLAN, 0, 30 * S, 7), Step::At(_)),
            "it waits for a frame's end"
        );
        pings.sent(9 * S, 9 * S);
        assert_eq!(pings.step(&PLAN, 0, 10 * S, 7), Step::At(12 * S));
        assert_eq!(pings.step(&PLAN, 0, 12 * S, 7), Step::Dead);
    }

    #[test]
    fn an_answer_begins_the_next_interval() {
        let mut pings = Pings::default();
        pings.sent(9 * S, 9 * S);
        assert_eq!(pings.answered(9 * S, 9 * S + 250_000), 250_000);
        assert_eq!(pings.rtt_us(), Some(250));
        assert!(matches!(pings.step(&PLAN, 0, 12 * S, 0), Step::At(at) if at >= 17 * S));
        assert_eq!(pings.step(&PLAN, 0, 18 * S, 0), Step::Ping);
    }

    #[test]
    fn whoever_talks_is_not_pinged_and_not_dead() {
        let mut pings = Pings::default();
        assert!(matches!(pings.step(&PLAN, 99 * S, 100 * S, 0), Step::At(_)));
        pings.sent(9 * S, 9 * S);
        // No answer, but bytes.
        assert!(matches!(pings.step(&PLAN, 11 * S, 12 * S, 0), Step::At(_)));
        assert_eq!(pings.step(&PLAN, 11 * S, 21 * S, 0), Step::Ping);
    }

    #[test]
    fn pings_of_many_are_spread() {
        let pings = Pings::default();
        let due = |draw| match pings.step(&PLAN, 0, 0, draw) {
            Step::At(at) => at,
            other => panic!("{other:?}"),
        };
        let mut numbers = crate::datapath::frames::Numbers::seeded();
        let all: Vec<_> = (0..1000).map(|_| due(numbers.draw())).collect();
        assert!(all.iter().all(|at| (8 * S..10 * S).contains(at)));
        for tenth in 0..10 {
            let from = 8 * S + tenth * S / 5;
            let count = all.iter().filter(|at| (from..from + S / 5).contains(at)).count();
            assert!((40..180).contains(&count), "{count} of 1000 in a tenth");
        }
    }
}
