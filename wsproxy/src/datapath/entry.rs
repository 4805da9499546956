//! When a session enters the kernel: a decision, without clock or sockets.
//!
//! The kernel path costs nothing while a session is silent and least when its
//! messages come one at a time: nobody in user space wakes up. User space is
//! cheaper where one wake-up serves many sockets, and for bulk, which the
//! kernel's worker sends packet by packet and the relay in large pieces
//! (`docs/BENCHMARKS.md` has the figures). There is no way back: a socket that
//! leaves the map loses what is queued there.

use std::time::Duration;

/// When a session's sockets are put into the socket map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// At the hand-over.
    AtOnce,
    /// So long after it, whatever the session does.
    After(Duration),
    /// Once it has lasted so long and the kernel path is the cheaper one for it.
    WhenCheaper(Duration),
}

impl Entry {
    /// Earliest time after the hand-over; `None`: with it.
    #[must_use]
    pub fn delay(self) -> Option<Duration> {
        match self {
            Self::AtOnce => None,
            Self::After(delay) | Self::WhenCheaper(delay) => Some(delay),
        }
    }
}

/// Sockets that one wake-up serves, from which on user space is the cheaper path.
const BATCH: f32 = 4.0;
/// Share of each event of a wake-up in the average.
const NEWEST: f32 = 1.0 / 32.0;
/// Bytes of one read, on average, from which on a session moves bulk.
const BULK: u64 = 32 * 1024;
/// The same where nearly all goes one way: each read then takes many messages.
const BULK_ONE_WAY: u64 = 2 * 1024;
/// Reads of one direction for one of the other, from which on all goes one way.
const ONE_WAY: u64 = 8;
/// A session that was silent for so long will be, mostly. In ns.
const SILENT: u64 = 1_000_000_000;

/// How many sockets a wake-up of an engine serves, as the average socket sees it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Batches(f32);

impl Batches {
    /// One more wake-up, for so many sockets.
    pub fn note(&mut self, sockets: usize) {
        let sockets = sockets as f32;
        self.0 += (sockets - self.0) * (sockets * NEWEST).min(1.0);
    }

    fn are_large(self) -> bool {
        self.0 >= BATCH
    }
}

/// What a session did in user space since it was last looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Activity {
    /// Bytes moved, both ways.
    pub bytes: u64,
    /// Reads that brought some, in each direction.
    pub reads: [u64; 2],
    /// ns since the last byte.
    pub silent_ns: u64,
}

/// Whether the session should enter the kernel now.
#[must_use]
pub fn is_time(entry: Entry, batches: Batches, activity: Activity) -> bool {
    if !matches!(entry, Entry::WhenCheaper(_)) || activity.silent_ns >= SILENT {
        return true;
    }
    let [some, others] = activity.reads;
    let reads = some + others;
    let one_way = some.max(others) >= ONE_WAY * some.min(others).max(1);
    let bulk = if one_way { BULK_ONE_WAY } else { BULK };
    // A session that did nothing lately tells nothing yet.
    reads > 0 && !batches.are_large() && activity.bytes / reads < bulk
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAPER: Entry = Entry::WhenCheaper(Duration::ZERO);

    fn batches(of: usize) -> Batches {
        let mut batches = Batches::default();
        for _ in 0..200 {
            batches.note(of);
            batches.note(0);
        }
        batches
    }

    #[test]
    fn a_lone_session_with_small_messages_enters() {
        let activity = Activity { bytes: 6400, reads: [50; 2], silent_ns: 0 };
        assert!(is_time(CHEAPER, batches(1), activity));
    }

    #[test]
    fn busy_engines_keep_their_busy_sessions() {
        let activity = Activity { bytes: 6400, reads: [50; 2], silent_ns: 0 };
        assert!(!is_time(CHEAPER, batches(20), activity));
        let silent = Activity { bytes: 0, reads: [0; 2], silent_ns: SILENT };
        assert!(is_time(CHEAPER, batches(20), silent));
        assert!(is_time(Entry::After(Duration::ZERO), batches(20), activity));
    }

    #[test]
    fn bursts_count_for_all_they_serve() {
        let activity = Activity { bytes: 6400, reads: [50; 2], silent_ns: 0 };
        let mut bursts = batches(1);
        bursts.note(500);
        bursts.note(1);
        assert!(!is_time(CHEAPER, bursts, activity));
    }

    #[test]
    fn bulk_stays_in_user_space() {
        let activity = Activity { bytes: 100 << 20, reads: [500; 2], silent_ns: 0 };
        assert!(!is_time(CHEAPER, batches(1), activity));
    }

    #[test]
    fn a_stream_of_small_messages_is_bulk_and_an_exchange_of_large_ones_is_not() {
        let stream = Activity { bytes: 8 << 20, reads: [1000, 2], silent_ns: 0 };
        assert!(!is_time(CHEAPER, batches(1), stream));
        let exchange = Activity { bytes: 16 << 20, reads: [520, 500], silent_ns: 0 };
        assert!(is_time(CHEAPER, batches(1), exchange));
        let ticks = Activity { bytes: 2000, reads: [0, 20], silent_ns: 0 };
        assert!(is_time(CHEAPER, batches(1), ticks));
    }

    #[test]
    fn a_short_pause_tells_nothing() {
        let activity = Activity { bytes: 0, reads: [0; 2], silent_ns: SILENT / 2 };
        assert!(!is_time(CHEAPER, batches(1), activity));
    }
}
