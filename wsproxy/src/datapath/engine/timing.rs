//! What an engine does because it is time for it.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{CloseOrder, Engine};
use crate::datapath::{
    Ending, Entry, Farewell, SessionMeta,
    pings::nanos,
    session::{CLIENT, Cause, Errand, Look, News, Returning, UPSTREAM},
};

/// Time limits and lost notifications are looked for this often.
pub(super) const SWEEP: Duration = Duration::from_secs(1);
/// Pause before a socket is asked again whether all it sent has been acknowledged: no event tells.
const ACKNOWLEDGED: Duration = Duration::from_millis(10);
/// A session on the packet path in which something moved within so long may have more to say.
const LATELY: Duration = Duration::from_secs(1);
/// So long after it came back it is closed: more than the least retransmission timeout.
const SAYS_AGAIN: Duration = Duration::from_millis(300);
/// How long a session on the packet path that is to be closed may go on until it is quiet by
/// itself.
const BUSY: Duration = Duration::from_secs(1);
/// Pause before a session that must enter, but cannot just now, is looked at again.
const AGAIN: Duration = Duration::from_millis(10);
/// Sweeps in which all sessions of the packet path are asked once whether packets go astray: it takes
/// two system calls each.
const ASTRAY: u32 = 2;
/// Sessions that enter the kernel in one go, at most: each takes some 20 us, and others wait.
const ENTRIES: usize = 16;
/// Pause between the closes of two sessions, at most: few are done with sooner than their window.
const MOST_GAP: Duration = Duration::from_millis(100);
/// What is due within so many ns is done in one go.
const TICK: u64 = 10_000_000;
/// A session is looked at again after so many ns at the latest: what is noted for one that has
/// ended is kept until then, and no longer.
const FARTHEST: u64 = 15_000_000_000;

/// What is to be done with a session.
pub(super) enum What {
    /// To look at it: pings, and the end of an orderly close.
    Look,
    /// To close it.
    Close(Arc<CloseOrder>),
}

struct Timer {
    at: u64,
    slot: u32,
    id: u64,
    what: What,
}

impl Timer {
    fn key(&self) -> (u64, u64) {
        (self.at, self.id)
    }
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Timer {}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// What is to be done when, in ns of `CLOCK_MONOTONIC`. A session has one or two of them.
#[derive(Default)]
pub(super) struct Timers(BinaryHeap<Reverse<Timer>>);

impl Timers {
    /// Something is to be done with a session of this place and number; a look may come early.
    pub(super) fn push(&mut self, now: u64, at: u64, slot: u32, id: u64, what: What) {
        let at = match what {
            // Spread finely, on purpose.
            What::Close(_) => at,
            What::Look => {
                let at = at.min(now.saturating_add(FARTHEST));
                at.saturating_add(TICK - at % TICK)
            }
        };
        self.0.push(Reverse(Timer { at, slot, id, what }));
    }

    fn pop(&mut self, now: u64) -> Option<(u32, u64, What)> {
        if self.next()? > now {
            return None;
        }
        let Reverse(timer) = self.0.pop()?;
        Some((timer.slot, timer.id, timer.what))
    }

    /// When the next thing is to be done.
    pub(super) fn next(&self) -> Option<u64> {
        self.0.peek().map(|Reverse(timer)| timer.at)
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Engine {
    /// Closes a session in order; what each side is told.
    pub(super) fn close(
        &mut self,
        slot: u32,
        why: Ending,
        farewells: [&Farewell; 2],
        deadline: Instant,
        now: u64,
    ) {
        let at = self.place_of(slot);
        if let Some(session) = self.sessions.get_mut(at).and_then(Option::as_deref_mut) {
            if session.is_translated() {
                let errand = Errand::Close(why, farewells.map(Clone::clone));
                return self.call_back(slot, errand, deadline);
            }
            session.close(&self.shared, why, farewells, deadline, &mut self.numbers);
            self.look_at_deadline(slot, now);
            self.run_lanes(slot, [true; 2], now, false);
        }
    }

    /// A session on the packet path is to come back.
    pub(super) fn call_back(&mut self, slot: u32, errand: Errand, deadline: Instant) {
        let shared = Arc::clone(&self.shared);
        let Some(session) = self.session(slot) else { return };
        let id = session.id();
        if session.is_half_closed(&shared) {
            if let Errand::Close(why, _) = errand {
                session.ends_as(why, deadline);
                self.end(slot, Cause::Late);
            }
            return;
        }
        if let Some(before) = self.returning.iter_mut().find(|returning| returning.id == id) {
            // To be closed is more than anything else.
            if matches!(errand, Errand::Close(..)) && !matches!(before.errand, Errand::Close(..)) {
                before.errand = errand;
            }
            return;
        }
        // What is lost would be waited for in vain.
        let patience = if matches!(errand, Errand::Stay) { Duration::ZERO } else { BUSY };
        let insist = (Instant::now() + patience).min(deadline);
        self.returning.push(Returning { slot, id, errand, deadline, insist, sent: [None; 2] });
    }

    /// Frozen sockets keep what they had under way until it is acknowledged.
    pub(super) fn clear_some(&mut self) {
        let shared = Arc::clone(&self.shared);
        for (slot, id) in std::mem::take(&mut self.clearing) {
            let session = self.session(slot).filter(|session| session.id() == id);
            if session.is_some_and(|session| session.clear(&shared)) {
                self.clearing.push((slot, id));
            }
        }
    }

    /// Sees to those sessions that have come back; what is not quiet by its deadline is reset.
    pub(super) fn look_at_returning(&mut self, clock: Instant, now: u64) {
        for mut returning in std::mem::take(&mut self.returning) {
            let shared = Arc::clone(&self.shared);
            let (slot, deadline) = (returning.slot, returning.deadline);
            let session = self.session(slot).filter(|session| session.id() == returning.id);
            let Some(session) = session else { continue };
            // What is sent on without a pause is cut off in the end, as by any close.
            if clock >= returning.insist {
                session.settle(&shared);
            }
            let sent = session.sent(&shared);
            let before = std::mem::replace(&mut returning.sent, sent);
            let back = if before == sent { session.come_back(&shared) } else { Ok(false) };
            match back {
                Ok(true) => self.run_errand(slot, returning.errand, deadline, now),
                Ok(false) if clock < deadline => self.returning.push(returning),
                Ok(false) => {
                    let why = match returning.errand {
                        Errand::Close(why, _) => why,
                        // What it was sent it has not acknowledged.
                        Errand::Look | Errand::Ping | Errand::Stay => Ending::DeadPeer,
                    };
                    session.ends_as(why, deadline);
                    self.end(slot, Cause::Late);
                }
                Err(error) => self.end(slot, Cause::Failed(error)),
            }
        }
    }

    fn run_errand(&mut self, slot: u32, errand: Errand, deadline: Instant, now: u64) {
        let shared = Arc::clone(&self.shared);
        let at = self.place_of(slot);
        let Some(session) = self.sessions.get_mut(at).and_then(Option::as_deref_mut) else {
            return;
        };
        match errand {
            Errand::Close(why, [client, upstream]) => {
                if session.idle_ns(&shared, now) >= nanos(LATELY) && !session.was_held_back() {
                    return self.close(slot, why, [&client, &upstream], deadline, now);
                }
                // What a side has said and was not let in it says again, and what the other side's
                // window held back it says now: that is waited for.
                let order = Arc::new(CloseOrder { why, farewell: client });
                let (id, at) = (session.id(), now + nanos(SAYS_AGAIN));
                self.timers.push(now, at, slot, id, What::Close(order));
            }
            Errand::Look => {
                let id = session.id();
                session.may_go_again();
                self.look(slot, id, now);
            }
            Errand::Ping => {
                session.may_go_again();
                session.ping_now(&shared, now, &mut self.numbers);
            }
            Errand::Stay => session.stay(&shared),
        }
        self.run_lanes(slot, [true; 2], now, false);
    }

    /// What is left of sessions goes when nothing of them can come any more.
    pub(super) fn look_at_remains(&mut self, clock: Instant) {
        while self.remains.front().is_some_and(|(due, _)| *due <= clock) {
            if let Some((_, remains)) = self.remains.pop_front() {
                remains.bury(&self.shared);
            }
        }
    }

    /// The packets of a session have told something.
    pub(super) fn hear_packets(&mut self, slot: u32, from: Option<usize>, now: u64) {
        let shared = Arc::clone(&self.shared);
        let Some(session) = self.session(slot) else { return };
        match session.news(from, &shared, now) {
            News::Runs => {}
            News::ComeBack => {
                self.call_back(slot, Errand::Stay, Instant::now() + shared.options.drain);
                self.look_at_returning(Instant::now(), now);
            }
            News::Over(cause) => self.end(slot, cause),
        }
    }

    /// A side ended without a Close, and the other one was told so.
    pub(super) fn gone(&mut self, slot: u32, side: usize, now: u64) {
        let shared = Arc::clone(&self.shared);
        let Some(session) = self.session(slot) else { return };
        session.close_after(side, &shared, Instant::now() + shared.options.drain);
        self.look_at_deadline(slot, now);
        self.run_lanes(slot, [true; 2], now, false);
    }

    /// Sees to it that a closing session is looked at when its time is over.
    fn look_at_deadline(&mut self, slot: u32, now: u64) {
        if let Some(session) = self.session(slot)
            && let Some(deadline) = session.deadline()
        {
            let id = session.id();
            let left = deadline.saturating_duration_since(Instant::now());
            self.timers.push(now, now + nanos(left), slot, id, What::Look);
        }
    }

    /// Has these sessions closed, one by one over `window`.
    pub(super) fn close_spread(
        &mut self,
        which: impl Fn(&SessionMeta) -> bool,
        order: &Arc<CloseOrder>,
        window: Duration,
        now: u64,
    ) {
        let all = self.sessions.iter().flatten();
        let chosen = all.filter(|session| which(session.meta()));
        let chosen: Vec<_> = chosen.map(|session| (session.slot(), session.id())).collect();
        let engines = self.mailboxes.len() as u64;
        let most = nanos(MOST_GAP) * engines;
        let gap = (nanos(window) / chosen.len().max(1) as u64).min(most);
        // The engines take turns.
        let first = now + gap * self.at as u64 / engines;
        for (nth, (slot, id)) in chosen.into_iter().enumerate() {
            let what = What::Close(Arc::clone(order));
            self.timers.push(now, first + gap * nth as u64, slot, id, what);
        }
    }

    /// Pings both sides of these sessions.
    pub(super) fn ping(&mut self, which: impl Fn(&SessionMeta) -> bool, now: u64) {
        let all = self.sessions.iter().flatten().filter(|session| which(session.meta()));
        let chosen: Vec<_> = all.map(|session| session.slot()).collect();
        for slot in chosen {
            let at = self.place_of(slot);
            if self.session(slot).is_some_and(|session| session.is_translated()) {
                let deadline = Instant::now() + self.shared.options.drain;
                self.call_back(slot, Errand::Ping, deadline);
                continue;
            }
            if let Some(session) = self.sessions.get_mut(at).and_then(Option::as_deref_mut)
                && session.ping_now(&self.shared, now, &mut self.numbers)
            {
                self.run_lanes(slot, [true; 2], now, false);
            }
        }
    }

    /// Does what is due.
    pub(super) fn look_at_timers(&mut self, now: u64) {
        while let Some((slot, id, what)) = self.timers.pop(now) {
            if self.session(slot).is_none_or(|session| session.id() != id) {
                continue;
            }
            match what {
                What::Close(order) => {
                    let deadline = Instant::now() + self.shared.options.drain;
                    let deadline = self.draining.as_ref().map_or(deadline, |d| d.1.min(deadline));
                    self.close(slot, order.why, [&order.farewell; 2], deadline, now);
                }
                What::Look => self.look(slot, id, now),
            }
        }
    }

    fn look(&mut self, slot: u32, id: u64, now: u64) {
        let at = self.place_of(slot);
        let Some(session) = self.sessions.get_mut(at).and_then(Option::as_deref_mut) else {
            return;
        };
        if let Some(deadline) = session.deadline() {
            if Instant::now() >= deadline {
                self.end(slot, Cause::Late);
            } else {
                self.look_at_deadline(slot, now);
            }
            return;
        }
        match session.look(&self.shared, now, &mut self.numbers) {
            Ok(Look::Done) => {}
            Ok(Look::ComeBack) => {
                self.call_back(slot, Errand::Look, Instant::now() + self.shared.options.drain);
            }
            Ok(Look::At(at)) => self.timers.push(now, at, slot, id, What::Look),
            Ok(Look::Run(at)) => {
                self.timers.push(now, at, slot, id, What::Look);
                self.run_lanes(slot, [true; 2], now, false);
            }
            Err(dead) => {
                let deadline = Instant::now() + self.shared.options.drain;
                let told = session.bury(dead, &self.shared, &mut self.numbers);
                session.close_lost(Ending::DeadPeer, None, deadline);
                if told {
                    self.look_at_deadline(slot, now);
                    self.run_lanes(slot, [true; 2], now, false);
                } else {
                    let error = io::ErrorKind::TimedOut.into();
                    self.end(slot, Cause::Broke { side: dead, error });
                }
            }
        }
    }

    pub(super) fn broke(&mut self, slot: u32, side: usize, error: io::Error, now: u64) {
        let deadline = Instant::now() + self.shared.options.drain;
        let shared = Arc::clone(&self.shared);
        let Some(session) = self.session(slot) else { return };
        match session.break_off(side, &shared, error, deadline) {
            Some(cause) => self.end(slot, cause),
            None => {
                if session.says_last_words() {
                    let again = (Instant::now() + ACKNOWLEDGED, slot, session.id());
                    self.last_words.push_back(again);
                }
                self.look_at_deadline(slot, now);
                self.run_lanes(slot, [true; 2], now, false);
            }
        }
    }

    /// Newcomers that have lasted long enough; those that had better wait are looked at again by
    /// the sweep.
    pub(super) fn look_at_newcomers(&mut self, clock: Instant, now: u64) {
        while let Some((due, slot, id)) = self.newcomers.front().copied() {
            if due > clock {
                return;
            }
            self.newcomers.pop_front();
            self.consider(slot, id, now);
        }
    }

    fn consider(&mut self, slot: u32, id: u64, now: u64) {
        let at = self.place_of(slot);
        let session = self.sessions.get_mut(at).and_then(Option::as_deref_mut);
        if let Some(session) = session
            && session.id() == id
        {
            if session.is_time_to_enter(&self.shared, self.batches, now) {
                self.entering.push_back((slot, id));
            } else if matches!(self.shared.options.entry, Entry::After(_)) && session.is_outside() {
                self.newcomers.push_back((Instant::now() + AGAIN, slot, id));
            }
        }
    }

    pub(super) fn enter_some(&mut self, now: u64) {
        for _ in 0..ENTRIES {
            let Some((slot, id)) = self.entering.pop_front() else { return };
            let at = self.place_of(slot);
            let session = self.sessions.get_mut(at).and_then(Option::as_deref_mut);
            if let Some(session) = session
                && session.id() == id
                && session.is_outside()
            {
                session.enter(&self.shared);
                self.run_lanes(slot, [true; 2], now, false);
            }
        }
    }

    /// Asks the sessions that one side has broken off whether the other one has got everything.
    pub(super) fn look_at_last_words(&mut self, clock: Instant, now: u64) {
        while let Some(&(due, slot, id)) = self.last_words.front()
            && due <= clock
        {
            self.last_words.pop_front();
            let waits = |engine: &mut Self| engine.session(slot).is_some_and(|s| s.id() == id);
            if waits(self) {
                self.run_lanes(slot, [true; 2], now, false);
                if waits(self) {
                    self.last_words.push_back((clock + ACKNOWLEDGED, slot, id));
                }
            }
        }
    }

    /// Packets of a session came in through another device than before.
    fn look_everywhere(&self) {
        let (Some(kernel), Some(paths)) = (&self.shared.kernel, &self.shared.paths) else { return };
        let result = paths.attach_everywhere(kernel);
        tracing::info!(
            error = result.err().map(tracing::field::display),
            "packets of a session came in through another device: the packet path looks at all"
        );
    }

    /// Whether routes, addresses or devices have changed since this engine looked last.
    fn look_at_changes(&mut self) -> bool {
        let (Some(kernel), Some(paths)) = (&self.shared.kernel, &self.shared.paths) else {
            return false;
        };
        let changes = paths.changes(kernel);
        std::mem::replace(&mut self.changes, changes) != changes
    }

    /// Time limits, and directions that BPF gave back when its ring buffer was full.
    pub(super) fn sweep(&mut self, now: u64) {
        let shared = Arc::clone(&self.shared);
        let (clock, batches) = (Instant::now(), self.batches);
        self.next_sweep = clock + SWEEP;
        let moved = self.look_at_changes();
        let mut astray = 0;
        self.sweeps = self.sweeps.wrapping_add(1);
        let turn = self.sweeps % ASTRAY;
        for slot in self.slots() {
            // A notification may have been lost.
            self.hear_packets(slot, None, now);
            let Some(session) = self.session(slot) else { continue };
            if moved {
                session.look_at_ways(&shared);
            }
            if slot % ASTRAY == turn {
                astray += session.astray();
            }
            if session.deadline().is_some() {
                continue;
            }
            if let Some(why) = session.is_due(&shared, clock, now) {
                self.close(slot, why, [&shared.farewell(); 2], clock + shared.options.drain, now);
                continue;
            }
            if session.is_time_to_enter(&shared, batches, now) {
                let entering = (slot, session.id());
                self.entering.push_back(entering);
                continue;
            }
            let forgotten = session.forgotten(&shared);
            if forgotten.contains(&true) {
                shared.healed.fetch_add(1, Ordering::Relaxed);
                for side in [CLIENT, UPSTREAM] {
                    if forgotten[side] {
                        session.given_back(side, &shared, now);
                    }
                }
                self.run_lanes(slot, forgotten, now, false);
            }
        }
        if astray > 0 {
            shared.astray.fetch_add(astray, Ordering::Relaxed);
            self.look_everywhere();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_far_away_is_looked_at_before() {
        let mut timers = Timers::default();
        let (now, day) = (1_000_000_007, 86_400_000_000_000);
        timers.push(now, now + day, 1, 1, What::Look);
        timers.push(now, now + 25_000_000, 2, 2, What::Look);
        assert!(timers.pop(now + 24_000_000).is_none(), "early");
        assert!(matches!(timers.pop(now + 40_000_000), Some((2, 2, What::Look))));
        assert!(timers.pop(now + FARTHEST - 1).is_none());
        assert!(matches!(timers.pop(now + FARTHEST + TICK), Some((1, 1, What::Look))));
        assert!(timers.next().is_none());
    }
}
