//! The gateway: listener, handshakes, datapath and admin address put together
//! from a [`Config`], until it is told to stop.

mod connection;
pub mod listen;
mod observer;
pub mod upstream;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinHandle,
};

use crate::{
    admin,
    config::{Config, DatapathMode, Setting, Upstreams as Servers},
    datapath::{Datapath, Entry, Mode, Options, Path, StartError},
    demo,
    handshake::{HeadLimits, Refusal},
    limits,
    metrics::Metrics,
};
use listen::TcpOptions;
use observer::Reporter;
use upstream::Upstreams;

/// After a failed accept for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Refusals over the session limit at the same time; beyond, connections are just closed.
const REFUSALS_AT_ONCE: usize = 64;
/// What a client over the session limit is told to wait, in s.
const RETRY_AFTER_S: u32 = 5;
/// Threads that own sessions, at most, when nothing is configured.
const MOST_WORKERS: usize = 64;

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// An address can't be listened on.
    #[error("cannot listen on {address} ({key}): {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Key and flag that name it.
        key: &'static str,
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

/// What connections need.
pub(crate) struct Gateway {
    pub(crate) config: Config,
    pub(crate) datapath: Arc<Datapath>,
    pub(crate) metrics: Arc<Metrics>,
    upstreams: Upstreams,
    tcp: TcpOptions,
    head_limits: HeadLimits,
    /// Serves the embedded page.
    demo: bool,
    route: Arc<str>,
    ids: AtomicU64,
    stopped: watch::Receiver<bool>,
}

impl Gateway {
    /// Returns when the gateway begins to stop.
    async fn until_stopped(&self) {
        let mut stopped = self.stopped.clone();
        // An error means that the sender is gone, and the gateway with it.
        let _gone = stopped.wait_for(|stopped| *stopped).await;
    }

    fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }
}

/// A gateway that accepts connections.
pub struct Running {
    gateway: Arc<Gateway>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    /// Where clients connect.
    pub address: SocketAddr,
    /// Where metrics are.
    pub admin: Option<SocketAddr>,
}

/// Starts the gateway that `config` describes.
///
/// # Errors
/// See [`GatewayError`]. Nothing is left running.
pub async fn start(config: Config) -> Result<Running, GatewayError> {
    let listening = |address, key| move |error| GatewayError::Listen { address, key, error };
    let tcp = TcpOptions::new(&config.timeouts);
    let listener = listen::open(&config.listener, tcp).map_err(listening(
        config.listener.address.socket_addr(),
        "listener.address or --listen",
    ))?;
    let address = listener.local_addr().map_err(StartError::System)?;
    let admin_listener = match &config.admin {
        None => None,
        Some(admin) => {
            let socket_addr = admin.socket_addr();
            let bound = listen::bind(socket_addr, admin.is_dual_stack(), admin::BACKLOG);
            Some(bound.map_err(listening(socket_addr, "admin.address or --admin"))?)
        }
    };
    let (servers, embedded) = servers(&config.upstreams).await?;

    let metrics = Arc::new(Metrics::new()?);
    let options = datapath_options(&config);
    let reporter = Arc::new(Reporter::new(Arc::clone(&metrics)));
    // Loading BPF and its self-test take a while; nothing else runs yet.
    let datapath = tokio::task::spawn_blocking(move || Datapath::start(options, reporter))
        .await
        .map_err(|e| StartError::System(io::Error::other(e)))??;
    crate::sys::release_free_memory();
    let datapath = Arc::new(datapath);
    metrics.watch(&datapath);
    announce(&datapath, &metrics);

    let (stop, stopped) = watch::channel(false);
    let head_limits = HeadLimits {
        max_bytes: config.limits.head_bytes.as_usize(),
        max_headers: config.limits.head_headers.as_usize(),
    };
    let gateway = Arc::new(Gateway {
        tcp,
        upstreams: Upstreams::new(servers),
        demo: embedded.is_some(),
        route: "default".into(),
        ids: AtomicU64::new(1),
        stopped: stopped.clone(),
        head_limits,
        config,
        datapath,
        metrics,
    });
    let mut tasks = vec![tokio::spawn(accept(Arc::clone(&gateway), listener, stopped.clone()))];
    let mut admin = None;
    if let Some(listener) = admin_listener {
        admin = listener.local_addr().ok();
        let state =
            admin::State { metrics: Arc::clone(&gateway.metrics), stopping: stopped.clone() };
        tasks.push(tokio::spawn(admin::serve(listener, state)));
    }
    if let Some(listener) = embedded {
        tasks.push(tokio::spawn(embedded_upstream(&gateway, listener, stopped)));
    }
    Ok(Running { gateway, stop, tasks, address, admin })
}

/// The servers to connect to, and the listener of the embedded one.
async fn servers(
    configured: &Servers,
) -> Result<(Vec<crate::config::UpstreamAddr>, Option<TcpListener>), StartError> {
    match configured {
        Servers::Servers(list) => Ok((list.clone(), None)),
        Servers::Embedded => {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let address = listener.local_addr()?.to_string();
            let parsed = address.parse();
            let address =
                parsed.map_err(|_| io::Error::other("the embedded upstream's own address"))?;
            Ok((vec![address], Some(listener)))
        }
    }
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

/// The page for a plain request's head, if there is one under its path.
fn demo_page(head: &[u8]) -> Option<Vec<u8>> {
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut headers);
    request.parse(head).ok()?;
    let head_only = request.method? == "HEAD";
    (head_only || request.method? == "GET").then_some(())?;
    demo::page_response(request.path?, head_only)
}

fn datapath_options(config: &Config) -> Options {
    let max_sessions = match config.limits.max_sessions {
        Setting::Auto => limits::sessions_for(limits::raise_descriptors(0)),
        Setting::Fixed(sessions) => {
            let wanted = limits::descriptors_for(sessions.get());
            let have = limits::raise_descriptors(wanted);
            if have < wanted {
                tracing::warn!(
                    max_sessions = sessions.get(),
                    descriptors = have,
                    wanted,
                    "limits.max_sessions does not fit under the descriptor limit"
                );
            }
            sessions.get().min(limits::sessions_for(have))
        }
    };
    let workers = match config.datapath.workers {
        Setting::Auto => {
            std::thread::available_parallelism().map_or(1, |n| n.get().min(MOST_WORKERS) as u32)
        }
        Setting::Fixed(workers) => workers.get(),
    };
    Options {
        mode: match config.datapath.mode {
            DatapathMode::Auto => Mode::Auto,
            DatapathMode::Sockmap => Mode::Sockmap,
            DatapathMode::Relay => Mode::Relay,
        },
        max_sessions,
        workers,
        relay_buffer: config.limits.relay_buffer.as_usize(),
        idle: config.timeouts.idle.map(|idle| idle.get()),
        drain: config.timeouts.drain.get(),
        entry: config.datapath.settle.map_or(Entry::AtOnce, |s| Entry::WhenCheaper(s.get())),
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

async fn accept(gateway: Arc<Gateway>, listener: TcpListener, mut stopped: watch::Receiver<bool>) {
    let refusals = Arc::new(Semaphore::new(REFUSALS_AT_ONCE));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => return,
        };
        match accepted {
            Ok((stream, address)) => {
                gateway.metrics.accepted.inc();
                begin(&gateway, stream, address, &refusals);
            }
            Err(error) => {
                let reason = accept_error(&error);
                gateway.metrics.accept_errors.with_label_values(&[reason]).inc();
                if reason != "aborted" {
                    tracing::warn!(%error, "accept failed; pausing");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

fn accept_error(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => "descriptors",
        Some(libc::ENOBUFS | libc::ENOMEM) => "memory",
        Some(libc::ECONNABORTED | libc::EPROTO | libc::EPERM) => "aborted",
        _ => "other",
    }
}

fn begin(
    gateway: &Arc<Gateway>,
    stream: TcpStream,
    address: SocketAddr,
    refusals: &Arc<Semaphore>,
) {
    let gateway = Arc::clone(gateway);
    match gateway.datapath.reserve() {
        Some(place) => {
            tokio::spawn(connection::serve(gateway, stream, address, place));
        }
        None => {
            let refusal = Refusal::session_limit(RETRY_AFTER_S);
            if let Ok(permit) = Arc::clone(refusals).try_acquire_owned() {
                tokio::spawn(async move {
                    connection::refuse(&gateway, stream, address, &refusal).await;
                    drop(permit);
                });
            } else {
                let reason = refusal.reason.label();
                gateway.metrics.handshake_failures.with_label_values(&[reason]).inc();
            }
        }
    }
}

impl Running {
    /// Stops accepting, closes sessions within `timeouts.drain`, detaches
    /// everything. Nothing of it is left in the kernel afterwards.
    pub async fn stop(self) {
        let Self { gateway, stop, tasks, .. } = self;
        // Nobody listens any more only when all tasks have ended by themselves.
        let _ = stop.send(true);
        let deadline = Instant::now() + gateway.config.timeouts.drain.get();
        let live = gateway.datapath.live(Path::Sockmap) + gateway.datapath.live(Path::Relay);
        tracing::info!(sessions = live, "stopping");
        let datapath = Arc::clone(&gateway.datapath);
        let drained = tokio::task::spawn_blocking(move || datapath.drain(deadline)).await;
        if let Err(error) = drained {
            tracing::error!(%error, "draining failed");
        }
        drop(stop);
        gateway.metrics.unwatch();
        for task in tasks {
            task.abort();
            // Aborted or done, both are the end we want.
            let _ = task.await;
        }
        tracing::info!("stopped");
    }
}
