//! Places in the table of records. A place is used again only after every
//! verdict program that could still see its old sockets has finished.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

use crate::sys;

/// How long used places are collected before one grace period frees them all.
const COLLECT: Duration = Duration::from_millis(200);
/// Wait instead of a grace period where the kernel offers none (full dynticks):
/// a verdict runs for microseconds, with preemption for less than this.
const BLIND_GRACE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct State {
    free: VecDeque<u32>,
    used_up: Vec<u32>,
    taken: u32,
    stopping: bool,
}

/// All places, and who may have one.
#[derive(Debug)]
pub(crate) struct SlotPool {
    state: Mutex<State>,
    changed: Condvar,
    limit: u32,
    grace: bool,
}

/// A place set aside for one session; goes back when dropped.
#[derive(Debug)]
pub struct Reservation {
    pool: Arc<SlotPool>,
    slot: u32,
    used: bool,
}

impl SlotPool {
    /// `slots` places for at most `limit` sessions at a time. With `grace`,
    /// BPF programs look at the places.
    pub(crate) fn start(slots: u32, limit: u32, grace: bool) -> io::Result<Arc<Self>> {
        let state = State { free: (0..slots).collect(), ..State::default() };
        let pool =
            Arc::new(Self { state: Mutex::new(state), changed: Condvar::new(), limit, grace });
        if grace {
            let reaper = Arc::clone(&pool);
            thread::Builder::new().name("wsproxy-slots".into()).spawn(move || reaper.reap())?;
        }
        Ok(pool)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn reserve(pool: &Arc<Self>) -> Option<Reservation> {
        let mut state = pool.lock();
        if state.taken >= pool.limit {
            return None;
        }
        let slot = state.free.pop_front()?;
        state.taken += 1;
        drop(state);
        Some(Reservation { pool: Arc::clone(pool), slot, used: false })
    }

    /// Sets these places aside, whatever the limit is; not those that are taken.
    pub(crate) fn reserve_these(pool: &Arc<Self>, slots: &BTreeSet<u32>) -> Vec<Reservation> {
        let mut state = pool.lock();
        let mut found = Vec::new();
        state.free.retain(|slot| {
            let wanted = slots.contains(slot);
            if wanted {
                found.push(*slot);
            }
            !wanted
        });
        state.taken += found.len() as u32;
        drop(state);
        let place = |slot| Reservation { pool: Arc::clone(pool), slot, used: true };
        found.into_iter().map(place).collect()
    }

    /// Places that are reserved or in use.
    pub(crate) fn taken(&self) -> u32 {
        self.lock().taken
    }

    fn give_back(&self, slot: u32, used: bool) {
        let mut state = self.lock();
        state.taken -= 1;
        if used && self.grace {
            state.used_up.push(slot);
            drop(state);
            self.changed.notify_one();
        } else {
            state.free.push_back(slot);
        }
    }

    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
        self.changed.notify_all();
    }

    fn reap(&self) {
        loop {
            let mut state = self.lock();
            while state.used_up.is_empty() && !state.stopping {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.stopping {
                return;
            }
            drop(state);
            if self.stops_within(COLLECT) {
                return;
            }
            let waiting = std::mem::take(&mut self.lock().used_up);
            if sys::wait_for_running_programs().is_err() && self.stops_within(BLIND_GRACE) {
                return;
            }
            self.lock().free.extend(waiting);
        }
    }

    /// Waits so long; returns at once when nobody needs places any more.
    fn stops_within(&self, time: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), time, |state| !state.stopping);
        waited.unwrap_or_else(PoisonError::into_inner).0.stopping
    }
}

impl Reservation {
    /// Number of the place.
    #[must_use]
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// BPF programs may have seen this place.
    pub(crate) fn mark_used(&mut self) {
        self.used = true;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.pool.give_back(self.slot, self.used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_sessions_than_the_limit_and_places_come_back() {
        let pool = SlotPool::start(4, 2, false).unwrap();
        let first = SlotPool::reserve(&pool).unwrap();
        let second = SlotPool::reserve(&pool).unwrap();
        assert_ne!(first.slot(), second.slot());
        assert!(SlotPool::reserve(&pool).is_none());
        drop(first);
        assert!(SlotPool::reserve(&pool).is_some());
    }

    #[test]
    fn places_of_one_s_choice_are_nobody_else_s() {
        let pool = SlotPool::start(4, 3, false).unwrap();
        let places = SlotPool::reserve_these(&pool, &BTreeSet::from([1, 3, 99]));
        let slots: Vec<_> = places.iter().map(Reservation::slot).collect();
        assert_eq!((slots, pool.taken()), (vec![1, 3], 2));
        assert!(SlotPool::reserve_these(&pool, &BTreeSet::from([1])).is_empty());
        assert_eq!(SlotPool::reserve(&pool).unwrap().slot(), 0);
        drop(places);
        assert_eq!(pool.taken(), 0);
    }

    #[test]
    fn a_place_that_bpf_saw_waits_for_its_grace_period() {
        let pool = SlotPool::start(1, 1, true).unwrap();
        let mut place = SlotPool::reserve(&pool).unwrap();
        place.mark_used();
        drop(place);
        // Not at once, although nobody holds it ...
        assert!(SlotPool::reserve(&pool).is_none());
        // ... but in the end.
        let found = (0..1500).any(|_| {
            thread::sleep(Duration::from_millis(10));
            SlotPool::reserve(&pool).is_some()
        });
        assert!(found);
        pool.stop();
    }
}
