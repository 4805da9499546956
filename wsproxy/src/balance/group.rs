//! A group of servers.

use std::collections::HashSet;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::pick::{self, Fitness, Member, Rules, Tier, Turns};
use super::server::{Admin, FailPolicy, Lease, Server};
use super::types::{
    Choice, GroupConfig, GroupError, MAX_FAILS, MAX_SERVERS, MAX_WEIGHT, Method, Request,
    ServerConfig, ServerId, ServerStatus,
};

/// The servers of an upstream, their states, and whose turn it is.
///
/// All methods take `&self` and may be called from any thread. The states are
/// atomics; round robin holds a lock for one pass over the servers.
#[derive(Debug)]
pub struct Group {
    method: Method,
    rules: Rules,
    /// The primary ones, then the backups; each in the configured order.
    members: Vec<Member>,
    /// How many of them are primary.
    primaries: usize,
    /// Where each server is in `members`, sorted by number.
    places: Vec<(ServerId, usize)>,
    turns: Turns,
    random: AtomicU64,
}

impl Group {
    /// A group of servers that are all up. `seed` is where [`Method::Random`]
    /// starts: any number that is another one in every process.
    ///
    /// # Errors
    ///
    /// When the configuration is out of bounds.
    pub fn new(mut config: GroupConfig, seed: u64) -> Result<Self, GroupError> {
        check(&config)?;
        let member = |server: ServerConfig| {
            let state = Server::new(Arc::clone(&server.name), server.disabled);
            (Arc::new(state), server)
        };
        let servers = mem::take(&mut config.servers).into_iter().map(member).collect();
        Ok(Self::build(&config, servers, seed))
    }

    /// The group after a reload, or after its names were resolved again: the
    /// servers of `old` whose names stay keep their counts and states, the
    /// others of `config` join with slow start. The leases of servers that are
    /// gone stay valid. A changed `disabled` enables or disables the server,
    /// an unchanged one leaves the operator's wish alone.
    ///
    /// The servers that stay are shared with `old`, which may still finish the
    /// requests it has begun.
    ///
    /// # Errors
    ///
    /// When the configuration is out of bounds; `old` is unchanged then.
    pub fn rebuilt(mut config: GroupConfig, old: &Self, now: Duration) -> Result<Self, GroupError> {
        check(&config)?;
        let servers = mem::take(&mut config.servers);
        let servers = servers.into_iter().map(|server| old.kept(server, now)).collect();
        let group = Self::build(&config, servers, old.random.load(Relaxed));
        group.inherit_turns(old);
        Ok(group)
    }

    fn kept(&self, config: ServerConfig, now: Duration) -> (Arc<Server>, ServerConfig) {
        let known = self.member(ServerId::of(&config.name));
        let server = if let Some(member) = known {
            if member.disabled != config.disabled {
                let admin = if config.disabled { Admin::Disabled } else { Admin::Enabled };
                member.server.set_admin(admin, now);
            }
            Arc::clone(&member.server)
        } else {
            let server = Server::new(Arc::clone(&config.name), config.disabled);
            server.start_slowly(now);
            Arc::new(server)
        };
        (server, config)
    }

    fn build(config: &GroupConfig, servers: Vec<(Arc<Server>, ServerConfig)>, seed: u64) -> Self {
        let mut members: Vec<Member> = servers
            .into_iter()
            .map(|(server, config)| Member {
                server,
                weight: config.weight,
                backup: config.backup,
                max_connections: config.max_connections,
                disabled: config.disabled,
            })
            .collect();
        members.sort_by_key(|member| member.backup);
        let mut places: Vec<_> =
            members.iter().enumerate().map(|(place, member)| (member.server.id, place)).collect();
        places.sort_unstable();
        Self {
            method: config.method,
            rules: rules(config, members.len()),
            primaries: members.iter().filter(|member| !member.backup).count(),
            turns: Mutex::new(vec![0; members.len()]),
            members,
            places,
            random: AtomicU64::new(seed),
        }
    }

    /// Goes on where `old` was: a group that is rebuilt every few seconds would
    /// else give its first server too much.
    fn inherit_turns(&self, old: &Self) {
        let before = old.turns.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody needs to be further ahead than one round of the new group.
        let most = self.members.iter().map(|member| i64::from(member.weight) * 1000).sum::<i64>();
        for (turn, member) in turns.iter_mut().zip(&self.members) {
            let place = old.place(member.server.id);
            let before = place.and_then(|place| before.get(place)).copied().unwrap_or(0);
            *turn = before.clamp(-most, most);
        }
    }

    /// Where the request goes. The server of a sticky cookie comes first, if
    /// it is usable and not full; then the method decides among the primary
    /// servers, and among the backups only when no primary one is usable for
    /// this request (a full one is). The work is in proportion to the number
    /// of servers, times that of `request.tried`.
    ///
    /// Report how it went with [`failed`](Self::failed) or
    /// [`succeeded`](Self::succeeded): the request may be the one that decides
    /// if the server is back. Without a report the next such trial is
    /// `fail_timeout` later.
    pub fn choose(&self, request: &Request<'_>) -> Choice<ServerId> {
        self.choose_and(request, |member| {
            let claimed = member.server.claim(request.now, self.rules.policy);
            claimed.then_some(member.server.id)
        })
    }

    /// [`choose`](Self::choose) and [`begin`](Self::begin) in one, so that no
    /// other thread takes the last free connection in between.
    pub fn acquire(&self, request: &Request<'_>) -> Choice<Lease> {
        self.choose_and(request, |member| {
            let lease = member.server.begin(member.limit())?;
            member.server.claim(request.now, self.rules.policy).then_some(lease)
        })
    }

    fn choose_and<T>(
        &self,
        request: &Request<'_>,
        take: impl Fn(&Member) -> Option<T>,
    ) -> Choice<T> {
        // Only what other threads do in between makes it ask again.
        for _ in 0..=self.members.len() {
            match self.pick(request) {
                Some(Choice::Server(place)) => {
                    if let Some(taken) = self.members.get(place).and_then(&take) {
                        return Choice::Server(taken);
                    }
                }
                Some(Choice::Full) => return Choice::Full,
                Some(Choice::Nobody { retry_after }) => return Choice::Nobody { retry_after },
                None => {}
            }
        }
        Choice::Full
    }

    /// The place of the server for a request. `None`: the servers changed
    /// meanwhile, ask again.
    fn pick(&self, request: &Request<'_>) -> Option<Choice<usize>> {
        if let Some(place) = self.sticky(request) {
            return Some(Choice::Server(place));
        }
        let (primaries, backups) = self.members.split_at(self.primaries);
        for (members, first) in [(primaries, 0), (backups, self.primaries)] {
            let tier = Tier { members, first, request, rules: self.rules };
            let picked = match (self.method, request.key) {
                (Method::Hash, Some(key)) => pick::rendezvous(tier, key),
                (Method::RoundRobin | Method::Hash, _) => pick::round_robin(tier, &self.turns),
                (Method::LeastConnections, _) => pick::least_connections(tier, &self.turns),
                (Method::Random, _) => pick::best_of_two(tier, &self.random),
            };
            if let Some(place) = picked {
                return Some(Choice::Server(place));
            }
            match tier.best() {
                Fitness::Ready => return None,
                Fitness::Full => return Some(Choice::Full),
                Fitness::Unusable => {}
            }
        }
        Some(Choice::Nobody { retry_after: self.retry_after(request.now) })
    }

    fn sticky(&self, request: &Request<'_>) -> Option<usize> {
        let place = self.place(ServerId::from_token(request.sticky?)?)?;
        let member = self.members.get(place)?;
        let fitness = pick::fitness(member, request, self.rules, true);
        (fitness == Fitness::Ready).then_some(place)
    }

    fn retry_after(&self, now: Duration) -> Option<Duration> {
        self.members
            .iter()
            .map(|member| &member.server)
            .filter(|server| server.admin() == Admin::Enabled && server.is_healthy())
            .map(|server| server.out_for(now, self.rules.policy).unwrap_or_default())
            .min()
    }

    /// Counts a connection to the server until the lease is dropped. `None`:
    /// the server is gone or at `max_connections`, choose again.
    pub fn begin(&self, id: ServerId) -> Option<Lease> {
        let member = self.member(id)?;
        member.server.begin(member.limit())
    }

    /// Counts a connection that there is already, whatever `max_connections` and the server's
    /// state are. `None`: the server is gone.
    pub fn begin_again(&self, id: ServerId) -> Option<Lease> {
        self.member(id)?.server.begin(u32::MAX)
    }

    /// The server failed a request: no connection, no answer, or a wrong one.
    /// True: this takes it out for `fail_timeout`. The only server of a group
    /// is never taken out.
    pub fn failed(&self, id: ServerId, now: Duration) -> bool {
        self.member(id).is_some_and(|member| member.server.failed(now, self.rules.policy))
    }

    /// The server answered a request as it should. True: this was its trial,
    /// it is back. While it is out, requests from before do not count.
    pub fn succeeded(&self, id: ServerId, now: Duration) -> bool {
        self.member(id).is_some_and(|member| member.server.succeeded(now, self.rules.policy))
    }

    /// What the health checks found. A server that comes up again starts
    /// afresh: slowly, and without its failures. True: this is news.
    pub fn set_health(&self, id: ServerId, up: bool, now: Duration) -> bool {
        self.member(id).is_some_and(|member| member.server.set_health(up, now))
    }

    /// Ends [`drain`](Self::drain) or [`disable`](Self::disable), and forgets
    /// the failures so far. False: there is no such server.
    pub fn enable(&self, id: ServerId, now: Duration) -> bool {
        self.set_admin(id, Admin::Enabled, now)
    }

    /// From now on the server gets only the requests of its sticky clients.
    /// False: there is no such server.
    pub fn drain(&self, id: ServerId) -> bool {
        self.set_admin(id, Admin::Draining, Duration::ZERO)
    }

    /// From now on the server gets no requests. Its connections go on. False:
    /// there is no such server.
    pub fn disable(&self, id: ServerId) -> bool {
        self.set_admin(id, Admin::Disabled, Duration::ZERO)
    }

    fn set_admin(&self, id: ServerId, admin: Admin, now: Duration) -> bool {
        let member = self.member(id);
        if let Some(member) = member {
            member.server.set_admin(admin, now);
        }
        member.is_some()
    }

    /// The name of the server.
    #[must_use]
    pub fn name(&self, id: ServerId) -> Option<&Arc<str>> {
        self.member(id).map(|member| &member.server.name)
    }

    /// The value of the sticky cookie for the server: the same in all gateways
    /// and after restarts. It is a plain hash of the server's name, and a
    /// client may make one up: it opens nothing that balancing would not.
    #[must_use]
    pub fn token(&self, id: ServerId) -> Option<String> {
        self.member(id).map(|_| id.to_string())
    }

    /// All servers: the primary ones, then the backups.
    #[must_use]
    pub fn status(&self, now: Duration) -> Vec<ServerStatus> {
        let status = |member: &Member| {
            let server = &member.server;
            ServerStatus {
                id: server.id,
                name: Arc::clone(&server.name),
                weight: member.weight,
                backup: member.backup,
                max_connections: member.max_connections,
                live: server.live(),
                total: server.total(),
                failures: server.failures(),
                state: server.state(now, self.rules.policy, self.rules.slow_start),
            }
        };
        self.members.iter().map(status).collect()
    }

    fn place(&self, id: ServerId) -> Option<usize> {
        let found = self.places.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.places.get(found).map(|(_, place)| *place)
    }

    fn member(&self, id: ServerId) -> Option<&Member> {
        self.members.get(self.place(id)?)
    }
}

fn rules(config: &GroupConfig, servers: usize) -> Rules {
    // As nginx: to take out the only server helps nobody.
    let max_fails = usize::try_from(config.max_fails).ok();
    let max_fails = max_fails.filter(|fails| *fails > 0 && servers > 1);
    let policy = FailPolicy { max_fails, fail_timeout: config.fail_timeout };
    Rules { policy, slow_start: config.slow_start }
}

fn check(config: &GroupConfig) -> Result<(), GroupError> {
    let count = config.servers.len();
    if count > MAX_SERVERS {
        return Err(GroupError::TooManyServers { count });
    }
    if config.max_fails > MAX_FAILS {
        return Err(GroupError::MaxFails { max_fails: config.max_fails });
    }
    let mut names = HashSet::with_capacity(count);
    for ServerConfig { name, weight, max_connections, .. } in &config.servers {
        if !(1..=MAX_WEIGHT).contains(weight) {
            return Err(GroupError::Weight { name: Arc::clone(name), weight: *weight });
        }
        if *max_connections == Some(0) {
            return Err(GroupError::MaxConnections { name: Arc::clone(name) });
        }
        // By number: that two names share one is as good as impossible, but
        // then they must not pass either.
        if !names.insert(ServerId::of(name)) {
            return Err(GroupError::Duplicate { name: Arc::clone(name) });
        }
    }
    Ok(())
}
