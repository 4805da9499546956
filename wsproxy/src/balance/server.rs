//! One server: its counts and its states. Shared by the groups before and
//! after a reload, and by the leases.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::types::{ServerId, ServerState};

/// Weights are counted in thousandths, so that they can grow during slow start.
const FULL: u64 = 1000;
/// Slow start begins at a hundredth and not at nothing: when all servers come
/// back at once, they are usable at once, and in proportion.
const LEAST: u64 = FULL / 100;

/// The rules for passive failures, from the group's configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct FailPolicy {
    /// `None`: failures are counted, but never take a server out.
    pub(super) max_fails: Option<usize>,
    pub(super) fail_timeout: Duration,
}

/// What the operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admin {
    Enabled,
    Draining,
    Disabled,
}

/// What passive failures made of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    /// Requests pass.
    Open,
    /// No requests before `until` (nanoseconds), then one trial. With `trial`
    /// that one has been let through, and `until` is when it counts as lost.
    Closed { until: u64, trial: bool },
}

impl Gate {
    fn from_word(word: u64) -> Self {
        match word {
            0 => Self::Open,
            _ => Self::Closed { until: word >> 1, trial: word & 1 == 1 },
        }
    }

    fn word(self) -> u64 {
        match self {
            Self::Open => 0,
            Self::Closed { until, trial } => until.max(1) << 1 | u64::from(trial),
        }
    }

    fn closed(now: Duration, period: Duration, trial: bool) -> Self {
        Self::Closed { until: nanos(now.saturating_add(period)), trial }
    }
}

/// Nanoseconds, bounded to 63 bits (292 years).
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).min(u64::MAX >> 1)
}

/// The counts and states of a server.
///
/// The atomics stand each for itself and order no other memory, so they are
/// all relaxed. Whoever needs the time of several failures takes the lock.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) id: ServerId,
    pub(super) name: Arc<str>,
    live: AtomicU32,
    total: AtomicU64,
    failures: AtomicU64,
    admin: AtomicU8,
    healthy: AtomicBool,
    /// A [`Gate`] as a word. It is shut and opened under the lock of `recent`;
    /// only the claim of a trial goes without.
    gate: AtomicU64,
    /// When slow start began, in nanoseconds and 1 more; 0: never.
    ramp: AtomicU64,
    /// The times of the failures within `fail_timeout`, at most `max_fails`.
    recent: Mutex<VecDeque<Duration>>,
}

impl Server {
    pub(super) fn new(name: Arc<str>, disabled: bool) -> Self {
        let admin = if disabled { Admin::Disabled } else { Admin::Enabled };
        Self {
            id: ServerId::of(&name),
            name,
            live: AtomicU32::new(0),
            total: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            admin: AtomicU8::new(admin as u8),
            healthy: AtomicBool::new(true),
            gate: AtomicU64::new(0),
            ramp: AtomicU64::new(0),
            recent: Mutex::new(VecDeque::new()),
        }
    }

    pub(super) fn live(&self) -> u32 {
        self.live.load(Relaxed)
    }

    pub(super) fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    pub(super) fn admin(&self) -> Admin {
        match self.admin.load(Relaxed) {
            0 => Admin::Enabled,
            1 => Admin::Draining,
            _ => Admin::Disabled,
        }
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.healthy.load(Relaxed)
    }

    /// Counts a connection, unless there are `limit` already.
    pub(super) fn begin(self: &Arc<Self>, limit: u32) -> Option<Lease> {
        let more = |live: u32| if live < limit { live.checked_add(1) } else { None };
        self.live.fetch_update(Relaxed, Relaxed, more).ok()?;
        self.total.fetch_add(1, Relaxed);
        Some(Lease { server: Arc::clone(self) })
    }

    /// How long passive failures still keep it out; `None`: they do not.
    pub(super) fn out_for(&self, now: Duration, policy: FailPolicy) -> Option<Duration> {
        policy.max_fails?;
        match self.gate() {
            Gate::Open => None,
            Gate::Closed { until, .. } => {
                let left = until.saturating_sub(nanos(now));
                (left > 0).then(|| Duration::from_nanos(left))
            }
        }
    }

    /// Lets a request through: always, or once as a trial. False: somebody
    /// else was faster.
    pub(super) fn claim(&self, now: Duration, policy: FailPolicy) -> bool {
        if policy.max_fails.is_none() {
            return true;
        }
        let word = self.gate.load(Relaxed);
        match Gate::from_word(word) {
            Gate::Open => true,
            Gate::Closed { until, .. } if until > nanos(now) => false,
            Gate::Closed { .. } => {
                let trial = Gate::closed(now, policy.fail_timeout, true).word();
                self.gate.compare_exchange(word, trial, Relaxed, Relaxed).is_ok()
            }
        }
    }

    /// Counts a failure. True: it took the server out.
    pub(super) fn failed(&self, now: Duration, policy: FailPolicy) -> bool {
        self.failures.fetch_add(1, Relaxed);
        let Some(max_fails) = policy.max_fails else { return false };
        let mut recent = self.recent();
        match self.gate() {
            Gate::Closed { trial: true, .. } => {
                self.shut(now, policy);
                false
            }
            // A request from before the server was taken out.
            Gate::Closed { trial: false, .. } => false,
            Gate::Open => {
                recent.push_back(now);
                recent.retain(|time| now.saturating_sub(*time) <= policy.fail_timeout);
                let out = recent.len() >= max_fails;
                if out {
                    recent.clear();
                    self.shut(now, policy);
                }
                out
            }
        }
    }

    fn shut(&self, now: Duration, policy: FailPolicy) {
        self.gate.store(Gate::closed(now, policy.fail_timeout, false).word(), Relaxed);
    }

    /// A request went well. True: it was the trial, the server is back.
    pub(super) fn succeeded(&self, now: Duration, policy: FailPolicy) -> bool {
        // The usual case, without the lock.
        if self.gate() == Gate::Open {
            return false;
        }
        let mut recent = self.recent();
        let trial = matches!(self.gate(), Gate::Closed { trial: true, .. });
        if !trial && policy.max_fails.is_some() {
            return false;
        }
        self.forgive(&mut recent);
        self.start_slowly(now);
        trial
    }

    /// The verdict of the health checks. True: it is a new one.
    pub(super) fn set_health(&self, up: bool, now: Duration) -> bool {
        let changed = self.healthy.swap(up, Relaxed) != up;
        if changed && up {
            self.come_back(now);
        }
        changed
    }

    /// The operator's wish. Enabling also forgets the failures so far.
    pub(super) fn set_admin(&self, admin: Admin, now: Duration) {
        let before = self.admin();
        let barred = self.gate() != Gate::Open;
        self.admin.store(admin as u8, Relaxed);
        if admin == Admin::Enabled && (before != Admin::Enabled || barred) {
            self.come_back(now);
        }
    }

    fn come_back(&self, now: Duration) {
        self.forgive(&mut self.recent());
        self.start_slowly(now);
    }

    fn forgive(&self, recent: &mut VecDeque<Duration>) {
        recent.clear();
        self.gate.store(Gate::Open.word(), Relaxed);
    }

    pub(super) fn start_slowly(&self, now: Duration) {
        self.ramp.store(nanos(now) + 1, Relaxed);
    }

    /// The thousandths of its weight that count by now.
    pub(super) fn share(&self, now: Duration, slow_start: Option<Duration>) -> u64 {
        let Some(period) = slow_start else { return FULL };
        let Some(began) = self.ramp.load(Relaxed).checked_sub(1) else { return FULL };
        let (gone, period) = (nanos(now).saturating_sub(began), nanos(period));
        if gone >= period {
            return FULL;
        }
        let share = u128::from(gone) * u128::from(FULL) / u128::from(period);
        u64::try_from(share).unwrap_or(FULL).clamp(LEAST, FULL)
    }

    pub(super) fn state(
        &self,
        now: Duration,
        policy: FailPolicy,
        slow_start: Option<Duration>,
    ) -> ServerState {
        match (self.admin(), self.gate()) {
            (Admin::Disabled, _) => ServerState::Disabled,
            (Admin::Draining, _) => ServerState::Draining,
            _ if !self.is_healthy() => ServerState::Unhealthy,
            (_, Gate::Closed { until, trial }) if policy.max_fails.is_some() => {
                let waits = !trial && until > nanos(now);
                if waits { ServerState::Failed } else { ServerState::Trial }
            }
            _ if self.share(now, slow_start) < FULL => ServerState::SlowStart,
            _ => ServerState::Up,
        }
    }

    fn gate(&self) -> Gate {
        Gate::from_word(self.gate.load(Relaxed))
    }

    fn recent(&self) -> MutexGuard<'_, VecDeque<Duration>> {
        // A list of times is never half written.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A live connection to a server: counted until it is dropped, even when the
/// server or its group is gone by then.
#[derive(Debug)]
#[must_use = "the connection counts only while the lease lives"]
pub struct Lease {
    server: Arc<Server>,
}

impl Lease {
    /// The server.
    #[must_use]
    pub fn id(&self) -> ServerId {
        self.server.id
    }

    /// The name of the server.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.server.name
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.server.live.fetch_sub(1, Relaxed);
    }
}
