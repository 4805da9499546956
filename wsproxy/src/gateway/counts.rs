//! How many sessions and how many handshakes a client, a route, a listener has.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use crate::{config::Rate, forwarding::ClientKey};

/// Parts of a table, so that threads seldom wait for each other.
const SHARDS: usize = 16;
/// Clients of one part of a table of rates; more share one entry.
const CLIENTS_PER_SHARD: usize = 16 * 1024;

/// Live sessions of something that has a name.
#[derive(Debug, Default)]
pub(super) struct Count {
    name: Box<str>,
    live: AtomicU32,
}

/// One of them; ends when dropped.
#[derive(Debug)]
pub(super) struct Counted(Arc<Count>);

impl Count {
    /// None so far.
    pub(super) fn of(name: &str) -> Arc<Self> {
        Arc::new(Self { name: name.into(), live: AtomicU32::new(0) })
    }

    /// One more, unless there are `most` already.
    pub(super) fn enter(self: &Arc<Self>, most: Option<u32>) -> Option<Counted> {
        let most = most.unwrap_or(u32::MAX);
        let more = |live| if live < most { Some(live + 1) } else { None };
        let entered = self.live.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        entered.is_ok().then(|| Counted(Arc::clone(self)))
    }

    pub(super) fn live(&self) -> u32 {
        self.live.load(Ordering::Relaxed)
    }
}

impl Counted {
    /// Of what this is a session.
    pub(super) fn name(&self) -> &str {
        &self.0.name
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A map in parts.
#[derive(Debug)]
struct Sharded<V> {
    hasher: RandomState,
    shards: [Mutex<HashMap<ClientKey, V>>; SHARDS],
}

impl<V> Default for Sharded<V> {
    fn default() -> Self {
        Self { hasher: RandomState::new(), shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl<V> Sharded<V> {
    fn shard(&self, key: ClientKey) -> std::sync::MutexGuard<'_, HashMap<ClientKey, V>> {
        let at = self.hasher.hash_one(key) as usize % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Live sessions by client. Only clients that have one are in it.
#[derive(Debug, Default)]
pub(super) struct PerClient(Sharded<u32>);

/// A session of a client; ends when dropped.
#[derive(Debug)]
pub(super) struct ClientSession {
    table: Arc<PerClient>,
    key: ClientKey,
}

impl PerClient {
    /// One more session of this client, unless it has `most` already.
    pub(super) fn enter(self: &Arc<Self>, key: ClientKey, most: u32) -> Option<ClientSession> {
        let mut shard = self.0.shard(key);
        let live = shard.entry(key).or_insert(0);
        if *live >= most {
            return None;
        }
        *live += 1;
        Some(ClientSession { table: Arc::clone(self), key })
    }
}

impl Drop for ClientSession {
    fn drop(&mut self) {
        let mut shard = self.table.0.shard(self.key);
        if let Some(live) = shard.get_mut(&self.key) {
            *live -= 1;
            if *live == 0 {
                shard.remove(&self.key);
            }
        }
    }
}

/// When the next event would be due if events kept their rate exactly ("generic cell rate
/// algorithm"): a token bucket in one number.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Bucket {
    /// Seconds since the start.
    due: f64,
}

impl Bucket {
    /// One event at `now`; how long to wait where it comes too early.
    fn take(&mut self, now: f64, rate: Rate, burst: u32) -> Result<(), Duration> {
        let interval = 1.0 / rate.per_second();
        let allowance = interval * f64::from(burst.saturating_sub(1));
        let due = self.due.max(now);
        if due - now > allowance + interval * 1e-9 {
            return Err(Duration::from_secs_f64((due - now - allowance).max(0.0)));
        }
        self.due = due + interval;
        Ok(())
    }
}

/// How fast handshakes may come.
#[derive(Debug)]
pub(super) struct Limiter {
    rate: Rate,
    burst: u32,
    all: Mutex<Bucket>,
    clients: Sharded<Bucket>,
}

impl Limiter {
    pub(super) fn new(rate: Rate, burst: u32) -> Self {
        Self { rate, burst, all: Mutex::default(), clients: Sharded::default() }
    }

    /// One handshake of anybody.
    pub(super) fn take(&self, now: Duration) -> Result<(), Duration> {
        let mut bucket = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.take(now.as_secs_f64(), self.rate, self.burst)
    }

    /// One handshake of this client. Where there is no room for further clients, those share
    /// what one of them may.
    pub(super) fn take_for(&self, key: ClientKey, now: Duration) -> Result<(), Duration> {
        let seconds = now.as_secs_f64();
        let mut shard = self.clients.shard(key);
        if shard.len() >= CLIENTS_PER_SHARD && !shard.contains_key(&key) {
            // A bucket that is full again is as good as none.
            shard.retain(|_, bucket| bucket.due > seconds);
            if shard.len() >= CLIENTS_PER_SHARD {
                drop(shard);
                return self.take(now);
            }
        }
        shard.entry(key).or_default().take(seconds, self.rate, self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> ClientKey {
        ClientKey::new(text.parse().unwrap(), 64)
    }

    #[test]
    fn counts_end_with_what_they_count() {
        let count = Arc::new(Count::default());
        let (one, two) = (count.enter(Some(2)).unwrap(), count.enter(Some(2)).unwrap());
        assert!(count.enter(Some(2)).is_none());
        drop(one);
        assert_eq!(count.live(), 1);
        assert!(count.enter(Some(2)).is_some());
        drop(two);
        assert_eq!(count.live(), 0);
    }

    #[test]
    fn clients_have_their_own_count() {
        let table = Arc::new(PerClient::default());
        let first = table.enter(key("1.1.1.1"), 1).unwrap();
        assert!(table.enter(key("1.1.1.1"), 1).is_none());
        assert!(table.enter(key("1.1.1.2"), 1).is_some());
        drop(first);
        assert!(table.enter(key("1.1.1.1"), 1).is_some());
        assert!(table.0.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let limiter = Limiter::new("2/s".parse().unwrap(), 3);
        let at = Duration::from_millis;
        let client = key("1.1.1.1");
        for _ in 0..3 {
            limiter.take_for(client, at(0)).unwrap();
        }
        let wait = limiter.take_for(client, at(0)).unwrap_err();
        assert_eq!(wait.as_millis(), 500);
        assert!(limiter.take_for(client, at(499)).is_err());
        limiter.take_for(client, at(500)).unwrap();
        assert!(limiter.take_for(client, at(500)).is_err());
        limiter.take_for(key("1.1.1.2"), at(0)).unwrap();
        // After a long pause the burst is there again, and no more.
        for _ in 0..3 {
            limiter.take_for(client, at(60_000)).unwrap();
        }
        assert!(limiter.take_for(client, at(60_000)).is_err());
    }

    #[test]
    fn the_table_of_clients_is_bounded() {
        let limiter = Limiter::new("1/h".parse().unwrap(), 1);
        let mut refused = 0;
        for n in 0..(SHARDS * CLIENTS_PER_SHARD + 20_000) as u32 {
            let address = std::net::Ipv4Addr::from(n);
            refused += usize::from(
                limiter.take_for(ClientKey::new(address.into(), 64), Duration::ZERO).is_err(),
            );
        }
        assert!(refused > 10_000, "{refused}");
        let held: usize = limiter.clients.shards.iter().map(|s| s.lock().unwrap().len()).sum();
        assert!(held <= SHARDS * CLIENTS_PER_SHARD);
        // They are forgotten when their time is over.
        limiter.take_for(key("200.0.0.1"), Duration::from_secs(7200)).unwrap();
    }
}
