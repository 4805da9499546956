//! Idle HTTP connections to servers.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use hyper::client::conn::http1::SendRequest;

use crate::{balance::ServerId, gateway::body::RequestBody};

/// A connection idle for longer is not used again: servers close theirs after 60 s and more.
const IDLE: Duration = Duration::from_secs(50);

/// A connection that takes a request.
pub(crate) type Sender = SendRequest<RequestBody>;

struct Idle {
    sender: Sender,
    since: Instant,
}

/// Idle connections by server, at most so many each.
pub(crate) struct Pool {
    most: usize,
    idle: Mutex<HashMap<ServerId, Vec<Idle>>>,
}

impl Pool {
    pub(super) fn new(most: u32) -> Self {
        Self { most: most as usize, idle: Mutex::default() }
    }

    /// A connection to this server that is good for another request: the one that was used last.
    pub(crate) fn take(&self, id: ServerId) -> Option<Sender> {
        let mut all = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = all.get_mut(&id)?;
        let fresh = |entry: &Idle| entry.since.elapsed() < IDLE && entry.sender.is_ready();
        let taken = std::iter::from_fn(|| idle.pop()).find(fresh);
        if idle.is_empty() {
            all.remove(&id);
        }
        taken.map(|entry| entry.sender)
    }

    /// Keeps a connection for later, unless there are enough.
    pub(crate) fn put(&self, id: ServerId, sender: Sender) {
        if self.most == 0 || sender.is_closed() {
            return;
        }
        let mut all = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = all.entry(id).or_default();
        idle.retain(|entry| entry.since.elapsed() < IDLE && !entry.sender.is_closed());
        if idle.len() < self.most {
            idle.push(Idle { sender, since: Instant::now() });
        }
    }
}
