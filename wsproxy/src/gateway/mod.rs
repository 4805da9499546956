//! The gateway: listeners, handshakes, datapath and admin address put together
//! from a [`Config`], until it is told to stop; another configuration may take the place of the
//! first one at any time.

mod accept;
mod access;
mod adoption;
mod arrival;
mod body;
mod connection;
mod control;
mod counts;
mod fixed;
mod forward;
mod guard;
mod heart;
mod listen;
mod observer;
mod opened;
mod plain;
mod segments;
mod setup;
mod stream;
mod supervision;
mod timer;
mod upgrade;
mod upstreams;
mod workers;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::{Mutex, mpsc, watch},
    task::JoinHandle,
};

use crate::{
    access_log::AccessLog,
    admin,
    config::{Config, ListenOn, Problems},
    datapath::{Datapath, Path, StartError},
    demo,
    forwarding::{Connection, request_id},
    metrics::{LiveCounts, Metrics},
    privileges::Privileges,
};
use accept::{CannotListen, Listeners};
use observer::Reporter;
use setup::{ListenerSetup, Setup};
use workers::Workers;

pub use control::{Control, NoSuch, OperatorOrder};
pub use heart::Heart;
pub use opened::{Opened, open};
pub use setup::try_files;

/// Bytes of one read during a handshake; also the most early bytes in hand.
const READ: usize = 8 * 1024;
/// How often is looked whether sessions are left while they are closed.
const DRAIN_LOOK: Duration = Duration::from_millis(5);
/// Room for one read, in bytes, at least: most heads fit.
const HEAD: usize = 1024;

/// What to try where the system's words leave it open.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need root or CAP_NET_BIND_SERVICE, a socket a directory that may be written to"
        }
        io::ErrorKind::NotFound => "; the directory of a socket must exist",
        _ => "",
    }
}

/// Why the gateway did not start, or did not take another configuration.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// An address can't be listened on.
    #[error("cannot listen on {address} ({key}): {error}{}", advice(error))]
    Listen {
        /// The address.
        address: String,
        /// Key and flag that name it.
        key: &'static str,
        /// Why.
        error: io::Error,
    },
    /// What the configuration names can't be used.
    #[error("{0}")]
    Setup(Problems),
    /// It would take what the process gave up at its start, or never had.
    #[error("{0} needs a restart: this process has no {1} any more")]
    Dropped(&'static str, &'static str),
    /// A socket in a folder that this process can't write to.
    #[error(
        "listener.address {0}: its folder is outside of what this process may write to since its \
         start (Landlock): a new folder needs a restart"
    )]
    Confined(String),
    /// The access log can't be written.
    #[error("cannot open the access log {path}: {error}")]
    AccessLog {
        /// Its path.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// The datapath can't start.
    #[error(transparent)]
    Datapath(#[from] StartError),
    /// The metrics are inconsistent.
    #[error("cannot set up the metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl From<CannotListen> for GatewayError {
    fn from(failed: CannotListen) -> Self {
        let CannotListen { address, error } = failed;
        let key = "listener.address or --listen";
        Self::Listen { address: address.to_string(), key, error }
    }
}

/// What connections need.
pub(crate) struct Gateway {
    setup: ArcSwap<Setup>,
    datapath: Arc<Datapath>,
    metrics: Arc<Metrics>,
    access_log: Option<Arc<AccessLog>>,
    /// What this process may still do.
    privileges: Privileges,
    /// What times are counted from.
    epoch: Instant,
    /// Makes request ids differ from those of other processes.
    seed: u64,
    ids: AtomicU64,
    requests: AtomicU64,
    /// Handshakes are refused: sessions are being closed.
    draining: AtomicBool,
    stopped: watch::Receiver<bool>,
}

/// Who is at the other end of a connection.
pub(crate) struct Client {
    pub(crate) connection: Connection,
    listener: Arc<ListenerSetup>,
}

impl Gateway {
    /// Returns when the gateway begins to stop.
    async fn until_stopped(&self) {
        let mut stopped = self.stopped.clone();
        // An error means that the sender is gone, and the gateway with it.
        let _gone = stopped.wait_for(|stopped| *stopped).await;
    }

    /// Whether a configuration takes no more than this process may do since its start.
    fn may_become(&self, config: &Config, old: &Config) -> Result<(), GatewayError> {
        let privileges = &self.privileges;
        if config.upstreams.iter().any(|group| group.transparent)
            && !privileges.can_be_transparent()
        {
            return Err(GatewayError::Dropped("upstream.transparent", "CAP_NET_RAW"));
        }
        let files = config.files().into_iter().filter(|file| !privileges.may_read(&file.value));
        let unreadable = files.map(|file| {
            let text = "outside of what this process may read since its start (Landlock): a new folder needs a restart";
            file.remark(text).with_found(file.value.display().to_string())
        });
        if let Some(problems) = Problems::of(unreadable.collect()) {
            return Err(GatewayError::Setup(problems));
        }
        let known: Vec<_> = old.listeners.iter().map(|listener| &listener.address).collect();
        let new = config.listeners.iter().filter(|listener| !known.contains(&&listener.address));
        for listener in new {
            if let ListenOn::Unix(path) = &listener.address
                && let Some(folder) = path.parent()
                && !privileges.may_listen(folder)
            {
                let address = listener.address.to_string();
                return Err(GatewayError::Confined(address));
            }
        }
        Ok(())
    }

    /// As `until_stopped`, at a glance.
    fn is_stopped(&self) -> bool {
        // Nobody ever marks this receiver's value as seen.
        self.stopped.has_changed().unwrap_or(true)
    }

    fn live_counts(&self) -> LiveCounts {
        let setup = self.setup.load();
        let routes = setup.routes.iter().map(|route| (route.name.to_string(), route.count.live()));
        let servers = setup.config.upstreams.iter().flat_map(|config| {
            let status = setup.upstreams.get(&config.name).map(|group| group.status());
            let servers = status.unwrap_or_default().into_iter();
            servers.map(|server| (config.name.clone(), server.name.to_string(), server.live.into()))
        });
        LiveCounts {
            routes: routes.map(|(name, live)| (name, live.into())).collect(),
            servers: servers.collect(),
            draining: self.draining.load(Ordering::SeqCst),
        }
    }

    fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    fn next_request_id(&self) -> (String, Option<u64>) {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        (request_id(self.seed, number), Some(number))
    }
}

/// At most [`READ`] more bytes into `buffer`, whatever its spare capacity.
fn limited(buffer: &mut Vec<u8>) -> bytes::buf::Limit<&mut Vec<u8>> {
    use bytes::BufMut as _;
    // Else a read takes as little as an empty vector grows by at first.
    buffer.reserve(HEAD);
    buffer.limit(READ)
}

/// A gateway that accepts connections.
pub struct Running {
    gateway: Arc<Gateway>,
    listeners: Mutex<Listeners>,
    /// Not ready any more: for the admin address.
    drain: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    orders: mpsc::Receiver<OperatorOrder>,
    /// Where clients of the first listener connect; none for a Unix socket.
    pub address: Option<SocketAddr>,
    /// Where metrics are.
    pub admin: Option<SocketAddr>,
}

/// Starts the gateway over what was opened for it. Nothing here needs a privilege that
/// [`Opened::needs`] does not name.
///
/// # Errors
/// See [`GatewayError`]. Nothing is left running.
pub async fn start(opened: Opened, privileges: Privileges) -> Result<Running, GatewayError> {
    let Opened { setup, epoch, seed, listeners: doors, admin: admin_listener, socket, .. } = opened;
    let workers = Workers::start(opened.workers).map_err(StartError::System)?;
    let mut listeners = Listeners::new(workers);
    let access_log = opened.access_log.map(opened::AccessLogFile::start).transpose()?;
    let metrics = Arc::new(Metrics::new()?);
    let setup = Arc::new(setup);
    let first = Arc::downgrade(&setup);
    let reporter = Reporter::new(Arc::clone(&metrics), access_log.clone(), seed, first);
    let prepared = opened.datapath;
    // Sessions of an earlier process are counted at their servers.
    setup.look_up().await;
    // Sessions of an earlier process are taken over: many, perhaps.
    let datapath = tokio::task::spawn_blocking(move || prepared.start(Arc::new(reporter)))
        .await
        .map_err(|e| StartError::System(io::Error::other(e)))??;
    crate::sys::release_free_memory();
    let datapath = Arc::new(datapath);
    metrics.watch(&datapath);
    announce(&datapath, &metrics);
    setup.start(&datapath);

    let (stop, stopped) = watch::channel(false);
    let gateway = Arc::new(Gateway {
        setup: ArcSwap::new(Arc::clone(&setup)),
        ids: AtomicU64::new(datapath.next_id()),
        datapath,
        metrics,
        access_log,
        privileges,
        epoch,
        seed,
        requests: AtomicU64::new(0),
        draining: AtomicBool::new(false),
        stopped: stopped.clone(),
    });
    let counted = Arc::downgrade(&gateway);
    gateway.metrics.watch_counts(Arc::new(move || {
        counted.upgrade().map(|gateway| gateway.live_counts()).unwrap_or_default()
    }));
    listeners.apply(&gateway, &setup, doors);
    let address = setup.config.listeners.first().and_then(|l| listeners.address(&l.name));
    let mut tasks = Vec::new();
    let mut admin = None;
    let (drain, draining) = watch::channel(false);
    let state = admin::State { metrics: Arc::clone(&gateway.metrics), stopping: draining };
    let cannot = |error| GatewayError::from(StartError::System(error));
    if let Some(listener) = admin_listener {
        let listener = TcpListener::from_std(listener).map_err(cannot)?;
        admin = listener.local_addr().ok();
        tasks.push(tokio::spawn(admin::serve(listener, state.clone())));
    }
    let (sender, orders) = mpsc::channel(1);
    if let Some(listener) = socket {
        let listener = UnixListener::from_std(listener).map_err(cannot)?;
        let gateway = Arc::clone(&gateway);
        let control = Control { gateway, orders: sender };
        tasks.push(tokio::spawn(admin::serve_operator(listener, state, control)));
    }
    if let Some(listener) = opened.embedded {
        let listener = TcpListener::from_std(listener).map_err(cannot)?;
        tasks.push(tokio::spawn(embedded_upstream(&gateway, listener, stopped)));
    }
    let listeners = Mutex::new(listeners);
    Ok(Running { gateway, listeners, drain, stop, tasks, orders, address, admin })
}

fn embedded_upstream(
    gateway: &Gateway,
    listener: TcpListener,
    mut stopped: watch::Receiver<bool>,
) -> impl Future<Output = ()> + use<> {
    let datapath = Arc::downgrade(&gateway.datapath);
    let path_of = move |peer: SocketAddr| {
        let session = datapath.upgrade()?.session_from(peer)?;
        Some(match session.path {
            Path::Packet => demo::Carrier::Packet,
            Path::Sockmap => demo::Carrier::Kernel,
            Path::Relay => demo::Carrier::Relay,
        })
    };
    async move {
        let stop = async move {
            // Sessions end first; the sender is dropped when all is over.
            while stopped.changed().await.is_ok() {}
        };
        demo::serve_upstream(listener, Arc::new(path_of), stop).await;
    }
}

/// Says once which way sessions go, and why not through the kernel.
fn announce(datapath: &Datapath, metrics: &Metrics) {
    match datapath.fallback() {
        Some(reason) => {
            metrics.datapath_fallback.with_label_values(&[reason.label()]).inc();
            tracing::warn!(
                reason = %reason,
                "the kernel path is off: sessions are relayed in user space (see `wsproxy doctor`)"
            );
        }
        None => tracing::info!(datapath = datapath.path().label(), "datapath ready"),
    }
}

impl Running {
    /// Takes another configuration, all of it in one step, or none of it. Live sessions go on.
    ///
    /// # Errors
    /// What can't be used; everything stays as it was.
    pub async fn reload(&self, config: Config) -> Result<(), GatewayError> {
        let mut listeners = self.listeners.lock().await;
        let gateway = &self.gateway;
        let old = gateway.setup.load_full();
        for what in fixed(&old.config, &config) {
            tracing::warn!("a change of {what} takes a restart; the old value stays in force");
        }
        gateway.may_become(&config, &old.config)?;
        let setup = Setup::new(config, gateway.epoch, gateway.seed, Some(&old));
        let setup = Arc::new(setup.map_err(GatewayError::Setup)?);
        let opened = listeners.prepare(&setup)?;
        setup.look_up().await;
        setup.start(&gateway.datapath);
        gateway.setup.store(Arc::clone(&setup));
        let drain = &setup.config.drain;
        gateway.datapath.set_closing(supervision::farewell(drain), supervision::window(drain));
        listeners.apply(gateway, &setup, opened);
        gateway.metrics.reloads.with_label_values(&["ok"]).inc();
        Ok(())
    }

    /// The next order of an operator that is for the process; never, where there is no admin
    /// socket.
    pub async fn order(&mut self) -> OperatorOrder {
        match self.orders.recv().await {
            Some(order) => order,
            None => std::future::pending().await,
        }
    }

    /// Counts a configuration that was not taken.
    pub fn reload_failed(&self) {
        self.gateway.metrics.reloads.with_label_values(&["failed"]).inc();
    }

    /// Opens the access log again, after it was moved away.
    pub fn reopen_logs(&self) {
        if let Some(log) = &self.gateway.access_log {
            log.reopen();
        }
    }

    /// Closes the live sessions one by one over `drain.window`; handshakes are refused meanwhile,
    /// everything else is served. Returns when none is left, or their time is over.
    async fn drain(&self) {
        let gateway = &self.gateway;
        gateway.draining.store(true, Ordering::SeqCst);
        // Nobody asks for it where there is no admin address.
        let _ = self.drain.send(true);
        let setup = gateway.setup.load_full();
        let drain = &setup.config.drain;
        let window = supervision::window(drain);
        let live = || gateway.datapath.live_all();
        tracing::info!(sessions = live(), window_ms = window.as_millis() as u64, "draining");
        let end = gateway.datapath.begin_drain(&supervision::farewell(drain), window);
        while live() > 0 && Instant::now() < end {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    }

    /// Tells whether the threads that serve get to their work.
    pub async fn heart(&self) -> Heart {
        let listeners = self.listeners.lock().await;
        let engines = self.gateway.datapath.pulses();
        Heart::new(listeners.workers().handles(), engines, self.gateway.stopped.clone())
    }

    /// The longest that [`Self::stop`] leaves sessions to end by themselves.
    #[must_use]
    pub fn longest_stop(&self) -> Duration {
        let setup = self.gateway.setup.load();
        let window = supervision::window(&setup.config.drain);
        // Twice: handshakes under way become sessions, which have their time too.
        window + 2 * self.gateway.datapath.grace()
    }

    /// What ends everything at once, for who can't wait for [`Self::stop`].
    pub fn cut_off(&self) -> impl FnOnce() + use<> {
        let datapath = Arc::downgrade(&self.gateway.datapath);
        move || {
            if let Some(datapath) = datapath.upgrade() {
                datapath.cut_off();
            }
        }
    }

    /// Closes sessions over `drain.window`, each within `timeouts.drain`, stops accepting, and
    /// detaches everything. Nothing of it is left in the kernel afterwards.
    pub async fn stop(mut self) {
        // Whoever wants something of the process now is told that it is too late, instead of
        // waiting for its end.
        self.orders.close();
        while self.orders.try_recv().is_ok() {}
        self.drain().await;
        let Self { gateway, listeners, stop, tasks, .. } = self;
        // Nobody listens any more only when all tasks have ended by themselves.
        let _ = stop.send(true);
        let workers = listeners.into_inner().close().await;
        let live = gateway.datapath.live_all();
        tracing::info!(sessions = live, "stopping");
        let datapath = Arc::clone(&gateway.datapath);
        // Handshakes that were under way: they end with the rest, or become sessions that do.
        let farewell = supervision::farewell(&gateway.setup.load().config.drain);
        let drain = move || datapath.drain(&farewell, Duration::ZERO);
        let drained = tokio::task::spawn_blocking(drain).await;
        if let Err(error) = drained {
            tracing::error!(%error, "draining failed");
        }
        drop(stop);
        if let Some(path) = &gateway.setup.load().config.admin.socket {
            // Gone already: that is what we want.
            let _ = std::fs::remove_file(path);
        }
        gateway.metrics.unwatch();
        for task in tasks {
            task.abort();
            // Aborted or done, both are the end we want.
            let _ = task.await;
        }
        // Joins threads.
        let _ended = tokio::task::spawn_blocking(move || drop(workers)).await;
        tracing::info!("stopped");
    }
}

/// Keys whose values hold from the start of the process, and have changed.
fn fixed(old: &Config, new: &Config) -> Vec<&'static str> {
    let changes = [
        ("datapath", old.datapath != new.datapath),
        ("admin", old.admin != new.admin),
        ("process", old.process != new.process),
        ("access_log", old.access_log != new.access_log),
        ("log", old.log != new.log),
        ("limits.max_sessions", old.limits.max_sessions != new.limits.max_sessions),
        ("limits.relay_buffer", old.limits.relay_buffer != new.limits.relay_buffer),
        ("timeouts.idle", old.timeouts.idle != new.timeouts.idle),
        ("timeouts.drain", old.timeouts.drain != new.timeouts.drain),
    ];
    changes.into_iter().filter(|(_, changed)| *changed).map(|(what, _)| what).collect()
}
