//! Groups of upstream servers at run time: who is next, who is well, and connections to them.

mod connect;
mod health;
mod names;
mod pool;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::{sync::Notify, task::JoinHandle, time::timeout};

pub(super) use connect::{Target, Via, was_asked};
pub(super) use pool::{Pool, Sender, asleep};

use crate::{
    balance::{self, Choice, Group, GroupConfig, Lease, Method, ServerId, ServerStatus},
    config::{self, Balance, Problems},
    datapath::Datapath,
    tls::SystemRoots,
};

/// Idle connections are looked at this often.
const SWEEP: Duration = Duration::from_secs(1);

/// Which group and server a request may go to, and by what it is told from others.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wish<'a> {
    /// For consistent hashing.
    pub(super) key: Option<u64>,
    /// The sticky cookie.
    pub(super) sticky: Option<&'a str>,
    /// Servers that failed this request.
    pub(super) tried: &'a [ServerId],
}

/// Why no server takes a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoServer {
    /// All are at their limit, and so is the queue, or it took too long.
    Busy,
    /// None is usable; seconds until that may change.
    Nobody(Option<Duration>),
}

/// One group. Cheap to share; tasks of its own end with it.
pub(super) struct UpstreamGroup {
    pub(super) config: config::Upstream,
    state: ArcSwap<State>,
    line: Arc<Line>,
    pub(super) pool: Pool,
    tls: Option<Arc<rustls::ClientConfig>>,
    /// What time is counted from.
    epoch: Instant,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// The servers as they were last found.
struct State {
    group: Group,
    targets: HashMap<ServerId, Arc<Target>>,
}

/// Requests that wait for a server of a group.
#[derive(Debug, Default)]
struct Line {
    group: Box<str>,
    waiting: AtomicU32,
    freed: Notify,
}

/// A place at a server, for as long as a session or a request lasts.
pub(super) struct Held {
    /// Dropped before the next one in line is called.
    lease: Option<Lease>,
    line: Arc<Line>,
    /// The server.
    pub(super) target: Arc<Target>,
}

impl Held {
    /// The server's group.
    pub(super) fn group(&self) -> &str {
        &self.line.group
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.lease.take());
        self.line.freed.notify_one();
    }
}

/// Leaves the line when dropped.
struct InLine<'a>(&'a Line);

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl UpstreamGroup {
    /// Sets a group up; names that are not known yet have no servers. `old` is the group of that
    /// name before a reload.
    fn new(
        config: config::Upstream,
        epoch: Instant,
        seed: u64,
        system: &SystemRoots,
        old: Option<&Self>,
    ) -> Result<Self, Problems> {
        let tls = names::needs_tls(&config).then(|| connect::tls_config(&config, system));
        let tls = tls.transpose()?;
        let found = match old.filter(|old| names::same_names(&old.config, &config)) {
            // What the names stood for a moment ago is better than nothing.
            Some(old) => old.found_again(&config),
            None => names::literal(&config),
        };
        let group_config = balance_config(&config, &found);
        let now = epoch.elapsed();
        let group = match old {
            Some(old) => Group::rebuilt(group_config, &old.state.load().group, now),
            None => Group::new(group_config, seed),
        };
        let group = group.map_err(|error| connect::problem(&config, &error.to_string()))?;
        let targets = names::targets(&found);
        let line = Arc::new(Line { group: config.name.as_str().into(), ..Line::default() });
        Ok(Self {
            pool: Pool::new(config.keepalive),
            config,
            state: ArcSwap::from_pointee(State { group, targets }),
            line,
            tls,
            epoch,
            tasks: Mutex::default(),
        })
    }

    fn found_again(&self, config: &config::Upstream) -> Vec<names::Found> {
        let state = self.state.load();
        let known = state.targets.values().map(Arc::clone);
        names::again(config, &known.collect::<Vec<_>>())
    }

    /// Takes a place at a server, waiting for one as long as the configuration lets us.
    pub(super) async fn acquire(&self, wish: Wish<'_>) -> Result<Held, NoServer> {
        match self.try_acquire(wish) {
            Err(NoServer::Busy) => {}
            other => return other,
        }
        let enter = |waiting| (waiting < self.config.queue).then_some(waiting + 1);
        let entered = self.line.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enter);
        if entered.is_err() {
            return Err(NoServer::Busy);
        }
        let _in_line = InLine(&self.line);
        let wait = async {
            loop {
                // In line before asking: a place may come free in between.
                let mut freed = std::pin::pin!(self.line.freed.notified());
                freed.as_mut().enable();
                match self.try_acquire(wish) {
                    Err(NoServer::Busy) => freed.await,
                    other => return other,
                }
            }
        };
        timeout(self.config.queue_timeout.get(), wait).await.unwrap_or(Err(NoServer::Busy))
    }

    fn try_acquire(&self, wish: Wish<'_>) -> Result<Held, NoServer> {
        let state = self.state.load();
        let request = balance::Request {
            key: wish.key,
            sticky: wish.sticky,
            now: self.epoch.elapsed(),
            tried: wish.tried,
        };
        match state.group.acquire(&request) {
            Choice::Server(lease) => {
                let target = state.targets.get(&lease.id()).map(Arc::clone);
                let target = target.ok_or(NoServer::Nobody(None))?;
                let line = Arc::clone(&self.line);
                Ok(Held { lease: Some(lease), line, target })
            }
            Choice::Full => Err(NoServer::Busy),
            Choice::Nobody { retry_after } => Err(NoServer::Nobody(retry_after)),
        }
    }

    /// A place at the server of this name for a session that has a connection to it already,
    /// whatever its limit and state are. `None`: the group has no such server.
    pub(super) fn hold_again(&self, server: &str) -> Option<Held> {
        let state = self.state.load();
        let id = ServerId::of(server);
        let target = state.targets.get(&id).map(Arc::clone)?;
        let lease = state.group.begin_again(id)?;
        Some(Held { lease: Some(lease), line: Arc::clone(&self.line), target })
    }

    /// Connects to a server that a place was taken at.
    pub(super) async fn connect(
        &self,
        target: &Target,
        via: &Via<'_>,
    ) -> std::io::Result<super::stream::Stream> {
        connect::connect(target, &self.config, self.tls.as_ref(), via).await
    }

    /// Whether connections may serve one client after the other.
    pub(super) fn may_pool(&self) -> bool {
        !self.config.transparent && self.config.proxy_protocol.is_none()
    }

    /// A request failed before a byte of it counted.
    pub(super) fn failed(&self, id: ServerId) {
        if self.state.load().group.failed(id, self.epoch.elapsed()) {
            let name = self.state.load().group.name(id).cloned();
            tracing::warn!(upstream = %self.config.name, server = name.as_deref(),
                "too many failures: the server gets nothing for upstream.fail_timeout");
        }
    }

    /// A request was answered.
    pub(super) fn succeeded(&self, id: ServerId) {
        if self.state.load().group.succeeded(id, self.epoch.elapsed()) {
            let name = self.state.load().group.name(id).cloned();
            tracing::info!(upstream = %self.config.name, server = name.as_deref(),
                "the server is back");
        }
    }

    /// How the servers are.
    pub(super) fn status(&self) -> Vec<ServerStatus> {
        self.state.load().group.status(self.epoch.elapsed())
    }

    /// Requests that wait for a server.
    pub(super) fn waiting(&self) -> u32 {
        self.line.waiting.load(Ordering::Relaxed)
    }

    /// What an operator wants of the servers that `server` means: one of that name, or all
    /// addresses of a name in the configuration. Returns how many there are.
    pub(super) fn order(&self, server: &str, order: Order) -> usize {
        let state = self.state.load();
        let meant = |target: &&Arc<Target>| {
            let rest = target.name.strip_prefix(server);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        };
        let carried_out = |target: &Arc<Target>| match order {
            Order::Enable => state.group.enable(target.id, self.epoch.elapsed()),
            Order::Drain => state.group.drain(target.id),
            Order::Disable => state.group.disable(target.id),
        };
        state.targets.values().filter(meant).filter(|target| carried_out(target)).count()
    }

    /// Other addresses for the group's names.
    fn replace(&self, found: &[names::Found]) {
        let config = balance_config(&self.config, found);
        let now = self.epoch.elapsed();
        match Group::rebuilt(config, &self.state.load().group, now) {
            Ok(group) => {
                let targets = names::targets(found);
                self.state.store(Arc::new(State { group, targets }));
            }
            Err(error) => tracing::warn!(upstream = %self.config.name, %error,
                "the addresses of this group's names can't be used; the old ones stay"),
        }
    }

    /// Begins to look after the servers: names, health.
    fn look_after(self: &Arc<Self>, datapath: &Arc<Datapath>) {
        let mut tasks = Vec::new();
        if names::has_names(&self.config) {
            tasks.push(tokio::spawn(names::follow(Arc::downgrade(self))));
        }
        if self.config.keepalive > 0 {
            tasks.push(tokio::spawn(sweep(Arc::downgrade(self))));
        }
        if let Some(health) = self.config.health.clone() {
            let datapath = Arc::downgrade(datapath);
            tasks.push(tokio::spawn(health::follow(Arc::downgrade(self), health, datapath)));
        }
        *self.tasks.lock().unwrap_or_else(PoisonError::into_inner) = tasks;
    }
}

impl Drop for UpstreamGroup {
    fn drop(&mut self) {
        let tasks = self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Idle connections that a server has closed, or that are too old, are closed in their turn.
async fn sweep(group: Weak<UpstreamGroup>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(group) = group.upgrade() else { return };
        group.pool.sweep();
    }
}

/// What an operator wants of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Enable,
    Drain,
    Disable,
}

fn balance_config(config: &config::Upstream, found: &[names::Found]) -> GroupConfig {
    GroupConfig {
        method: match config.balance {
            Balance::RoundRobin => Method::RoundRobin,
            Balance::LeastConnections => Method::LeastConnections,
            Balance::Random => Method::Random,
            Balance::IpHash | Balance::Hash(_) => Method::Hash,
        },
        servers: found.iter().map(|found| found.server.clone()).collect(),
        max_fails: config.max_fails,
        fail_timeout: config.fail_timeout.get(),
        slow_start: config.slow_start.map(|period| period.get()),
    }
}

/// All groups by name.
#[derive(Default)]
pub(super) struct Upstreams(HashMap<String, Arc<UpstreamGroup>>);

impl Upstreams {
    /// Sets the groups up, and those of `old` that are still there on top of what they know.
    pub(super) fn new(
        configs: &[config::Upstream],
        epoch: Instant,
        seed: u64,
        system: &SystemRoots,
        old: Option<&Self>,
    ) -> Result<Self, Problems> {
        let mut groups = HashMap::new();
        for config in configs {
            let before = old.and_then(|old| old.0.get(&config.name));
            let before = before.map(Arc::as_ref);
            let group = UpstreamGroup::new(config.clone(), epoch, seed, system, before)?;
            groups.insert(config.name.clone(), Arc::new(group));
        }
        Ok(Self(groups))
    }

    /// Looks names up for the first time.
    pub(super) async fn look_up(&self, patience: Duration) {
        let first = self.0.values().filter(|group| names::has_names(&group.config));
        let first: Vec<_> = first.map(names::look_up).collect();
        // Names that take longer get their servers when they are found.
        let _late = timeout(patience, futures_util::future::join_all(first)).await;
    }

    /// Begins to look after all.
    pub(super) fn look_after(&self, datapath: &Arc<Datapath>) {
        for group in self.0.values() {
            group.look_after(datapath);
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Arc<UpstreamGroup>> {
        self.0.get(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<UpstreamGroup>> {
        self.0.values()
    }
}
