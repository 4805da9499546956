//! What two rounds of questions tell of the traffic between them.

use std::collections::HashMap;

use super::snapshot::{Session, Snapshot};

/// What moves in a second, for each direction; unknown until it was seen twice.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Rates {
    pub bytes: [Option<f64>; 2],
    pub messages: [Option<f64>; 2],
}

/// A sum of which parts may be unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sum {
    /// `None` where no part is known.
    pub known: Option<f64>,
    /// At least so much: some part is unknown.
    pub partial: bool,
}

impl Sum {
    fn add(&mut self, part: Option<f64>) {
        match part {
            Some(part) => self.known = Some(self.known.unwrap_or(0.0) + part),
            None => self.partial = true,
        }
    }
}

/// The rates of several sessions together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Totals {
    pub bytes: [Sum; 2],
    pub messages: [Sum; 2],
}

impl Totals {
    /// Of no session.
    const NOTHING: Self = {
        let nothing = Sum { known: Some(0.0), partial: false };
        Self { bytes: [nothing; 2], messages: [nothing; 2] }
    };

    /// Of more sessions than were added.
    fn at_least(&mut self) {
        self.bytes.iter_mut().chain(&mut self.messages).for_each(|sum| sum.partial = true);
    }

    fn add(&mut self, rates: &Rates) {
        for way in 0..2 {
            self.bytes[way].add(rates.bytes[way]);
            self.messages[way].add(rates.messages[way]);
        }
    }
}

/// The rates of every session, and of what they have in common.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Traffic {
    /// In the order of the snapshot's sessions.
    pub each: Vec<Rates>,
    /// What has no listed session has none, and so nothing moves.
    complete: bool,
    pub all: Totals,
    pub routes: HashMap<String, Totals>,
    /// By name: a session does not say which group it came by.
    pub servers: HashMap<String, Totals>,
}

impl Traffic {
    /// Between two snapshots; of the first there is none.
    pub(super) fn between(before: Option<&Snapshot>, now: &Snapshot) -> Self {
        let since = before.and_then(|before| Since::new(before, now));
        let rates = |session| since.as_ref().map(|since| since.rates(session)).unwrap_or_default();
        let mut traffic = Self::default();
        for session in &now.sessions {
            let rates = rates(session);
            traffic.all.add(&rates);
            traffic.routes.entry(session.route.clone()).or_default().add(&rates);
            traffic.servers.entry(session.upstream.clone()).or_default().add(&rates);
            traffic.each.push(rates);
        }
        traffic.complete = since.is_some() && now.lists_all();
        if !now.lists_all() {
            // Anything may have sessions that are not listed.
            let several = traffic.routes.values_mut().chain(traffic.servers.values_mut());
            several.chain([&mut traffic.all]).for_each(Totals::at_least);
        }
        if traffic.complete && now.sessions.is_empty() {
            traffic.all = Totals::NOTHING;
        }
        traffic
    }

    /// Of a route's or server's sessions in `of`.
    pub(super) fn of(&self, of: &HashMap<String, Totals>, name: &str) -> Totals {
        let without = if self.complete { Totals::NOTHING } else { Totals::default() };
        of.get(name).copied().unwrap_or(without)
    }
}

/// What was, to count from.
struct Since<'a> {
    seconds: f64,
    sessions: HashMap<u64, &'a Session>,
    /// Every session of then is known, so that others are new.
    all: bool,
}

impl<'a> Since<'a> {
    /// `None` where nothing can be compared: no time passed, or it is another wsproxy.
    fn new(before: &'a Snapshot, now: &Snapshot) -> Option<Self> {
        let seconds = now.at.checked_sub(before.at)?.as_secs_f64();
        let goes_on = |then: Option<u64>, now: Option<u64>| then <= now;
        let same = goes_on(before.status.uptime_s, now.status.uptime_s)
            && goes_on(before.status.started, now.status.started);
        let sessions = before.sessions.iter().map(|session| (session.id, session)).collect();
        (seconds > 0.0 && same).then(|| Self { seconds, sessions, all: before.lists_all() })
    }

    fn rates(&self, session: &Session) -> Rates {
        let before = self.sessions.get(&session.id);
        // The number is another session's: a wsproxy that was started again counts anew.
        if before.is_some_and(|before| before.client != session.client) {
            return Rates::default();
        }
        let rate = |now: Option<u64>, then: Option<u64>| {
            let then = match before {
                Some(_) => then?,
                // It began after the last round with nothing.
                None if self.all => 0,
                None => return None,
            };
            Some(now?.checked_sub(then)? as f64 / self.seconds)
        };
        let each = |now: [Option<u64>; 2], then: Option<[Option<u64>; 2]>| {
            let then = then.unwrap_or_default();
            [rate(now[0], then[0]), rate(now[1], then[1])]
        };
        Rates {
            bytes: each(session.bytes, before.map(|b| b.bytes)),
            messages: each(session.messages, before.map(|b| b.messages)),
        }
    }
}
