//! What a configuration becomes at run time. A reload makes another one and puts it in the
//! place of this one, in one step; connections look at it request by request.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;

use super::{
    counts::{Count, Limiter, PerClient},
    listen::TcpOptions,
    supervision::frame_plan,
    upstreams::{UpstreamGroup, Upstreams},
};
use crate::{
    config::{Action, Config, Diagnostic, Given, Listener, ListenerTls, Problems, Route},
    datapath::{Datapath, FramePlan},
    files::{Fallback, Files, FilesConfig},
    handshake::HeadLimits,
    routes::Router,
    tls::{
        CertificateFiles, FileProblem, Reloading, Resumption, ServerFiles, ServerSource,
        SystemRoots,
    },
};

/// For the names of servers to be looked up before the first request.
const FIRST_LOOK_UP: Duration = Duration::from_secs(5);
/// Certificates are looked at for changes this often.
const CERTIFICATES: Duration = Duration::from_secs(5);

/// A configuration that requests are served by.
pub(super) struct Setup {
    pub(super) config: Config,
    pub(super) upstreams: Upstreams,
    pub(super) routes: Vec<Arc<RouteSetup>>,
    pub(super) listeners: HashMap<String, Arc<ListenerSetup>>,
    pub(super) tcp: TcpOptions,
    pub(super) head_limits: HeadLimits,
    /// Handshakes of all clients.
    pub(super) all: Option<Limiter>,
    /// Handshakes of each client.
    pub(super) each: Option<Limiter>,
    /// Live sessions of each client.
    pub(super) clients: Arc<PerClient>,
    /// The authorities that the system trusts.
    system: Arc<SystemRoots>,
}

/// A listener at run time.
pub(super) struct ListenerSetup {
    pub(super) config: Listener,
    pub(super) router: Router,
    pub(super) tls: Option<ListenerTlsSetup>,
    pub(super) count: Arc<Count>,
}

/// A listener's certificates, which follow their files for as long as this lives.
pub(super) struct ListenerTlsSetup {
    certificates: Arc<Reloading<ServerSource>>,
    /// What TLS sessions are resumed with; the same after a reload.
    resumption: Arc<Resumption>,
    watching: OnceLock<JoinHandle<()>>,
}

impl ListenerTlsSetup {
    /// The configuration for the next connection.
    pub(super) fn current(&self) -> Arc<rustls::ServerConfig> {
        self.certificates.current()
    }
}

impl Drop for ListenerTlsSetup {
    fn drop(&mut self) {
        if let Some(watching) = self.watching.get() {
            watching.abort();
        }
    }
}

/// A route at run time.
pub(super) struct RouteSetup {
    pub(super) config: Route,
    pub(super) name: Arc<str>,
    pub(super) files: Option<Files>,
    pub(super) upstream: Option<Arc<UpstreamGroup>>,
    /// What holds for its sessions' frames; `None`: they are not followed.
    pub(super) plan: Option<Arc<FramePlan>>,
    pub(super) limiter: Option<Limiter>,
    pub(super) count: Arc<Count>,
    pub(super) clients: Arc<PerClient>,
}

impl Setup {
    /// Reads what the configuration names: certificates, directories. `old` is what was served
    /// by before: live sessions stay counted, certificates' tickets stay good.
    ///
    /// # Errors
    /// Everything that can't be used; nothing of `old` has changed then.
    pub(super) fn new(
        config: Config,
        epoch: Instant,
        seed: u64,
        old: Option<&Self>,
    ) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let before = old.map(|old| &old.upstreams);
        let system = old.map(|old| Arc::clone(&old.system)).unwrap_or_default();
        let upstreams = Upstreams::new(&config.upstreams, epoch, seed, &system, before);
        let upstreams = upstreams.unwrap_or_else(|found| {
            problems.extend(found.iter().cloned());
            Upstreams::default()
        });
        let mut listeners = HashMap::new();
        for listener in &config.listeners {
            let known = old.and_then(|old| old.listeners.get(&listener.name));
            let tls = match &listener.tls {
                None => None,
                Some(tls) => match tls_listener(tls, known.and_then(|k| k.tls.as_ref())) {
                    Ok(loaded) => Some(loaded),
                    Err(found) => {
                        problems.extend(found);
                        None
                    }
                },
            };
            let setup = ListenerSetup {
                config: listener.clone(),
                router: Router::new(&config.routes, &listener.name),
                tls,
                count: match known {
                    Some(known) => Arc::clone(&known.count),
                    None => Count::of(&listener.name),
                },
            };
            listeners.insert(listener.name.clone(), Arc::new(setup));
        }
        let mut routes = Vec::new();
        for route in &config.routes {
            match route_setup(route, &upstreams, old) {
                Ok(setup) => routes.push(Arc::new(setup)),
                Err(problem) => problems.push(*problem),
            }
        }
        if let Some(problems) = Problems::of(problems) {
            return Err(problems);
        }
        let limits = &config.limits;
        let limiter = |rate| Limiter::new(rate, limits.handshake_burst.get());
        Ok(Self {
            upstreams,
            routes,
            listeners,
            tcp: TcpOptions::new(&config.timeouts),
            head_limits: HeadLimits {
                max_bytes: limits.head_bytes.as_usize(),
                max_headers: limits.head_headers.as_usize(),
            },
            all: limits.handshake_rate.map(limiter),
            each: limits.handshake_rate_per_client.map(limiter),
            clients: old.map(|old| Arc::clone(&old.clients)).unwrap_or_default(),
            system,
            config,
        })
    }
}

impl Setup {
    /// Looks the names of servers up for the first time.
    pub(super) async fn look_up(&self) {
        self.upstreams.look_up(FIRST_LOOK_UP).await;
    }

    /// Begins to follow what changes by itself: names of servers, their health, certificates.
    pub(super) fn start(&self, datapath: &Arc<Datapath>) {
        self.upstreams.look_after(datapath);
        for tls in self.listeners.values().filter_map(|listener| listener.tls.as_ref()) {
            let certificates = Arc::clone(&tls.certificates);
            tls.watching.get_or_init(|| tokio::spawn(certificates.watch(CERTIFICATES)));
        }
    }
}

fn route_setup(
    route: &Route,
    upstreams: &Upstreams,
    old: Option<&Setup>,
) -> Result<RouteSetup, Box<Diagnostic>> {
    let files = match &route.action {
        Action::Files { root, index, fallback } => {
            let parse = |text: &String| Fallback::parse(text);
            let fallback = fallback.iter().map(parse).collect::<Result<_, _>>();
            let fallback = fallback.map_err(|error| Box::new(root.remark(error)))?;
            let config = FilesConfig { root: root.value.clone(), index: index.clone(), fallback };
            let files = Files::open(config);
            Some(files.map_err(|error| {
                let shown = root.value.display().to_string();
                Box::new(root.remark(format!("cannot be served: {error}")).with_found(shown))
            })?)
        }
        _ => None,
    };
    let upstream = match &route.action {
        Action::Upstream(forward) => upstreams.get(&forward.upstream).cloned(),
        _ => None,
    };
    let plan = match &route.action {
        Action::Upstream(forward) => {
            frame_plan(forward, upstream.as_ref().and_then(|group| group.config.gone_code))
        }
        _ => None,
    };
    let known = old.and_then(|old| old.routes.iter().find(|r| r.config.name == route.name));
    Ok(RouteSetup {
        plan,
        name: route.name.as_str().into(),
        files,
        upstream,
        limiter: route.handshake_rate.map(|rate| Limiter::new(rate, route.handshake_burst.get())),
        count: match known {
            Some(known) => Arc::clone(&known.count),
            None => Count::of(&route.name),
        },
        clients: known.map(|known| Arc::clone(&known.clients)).unwrap_or_default(),
        config: route.clone(),
    })
}

fn tls_listener(
    tls: &ListenerTls,
    old: Option<&ListenerTlsSetup>,
) -> Result<ListenerTlsSetup, Vec<Diagnostic>> {
    let files = ServerFiles {
        certificates: tls
            .certificates
            .iter()
            .map(|pair| CertificateFiles {
                certificate: pair.certificate.value.clone(),
                key: pair.key.value.clone(),
            })
            .collect(),
        client_ca: tls.client_ca.as_ref().map(|given| given.value.clone()),
        client_optional: tls.client_optional,
        only_tls13: tls.only_tls13,
    };
    let resumption = old.map(|old| Arc::clone(&old.resumption)).unwrap_or_default();
    let source = ServerSource { files, resumption: Arc::clone(&resumption) };
    let certificates = Reloading::start(source).map_err(|found| -> Vec<_> {
        found.problems.iter().map(|problem| file_problem(tls, problem)).collect()
    })?;
    let certificates = Arc::new(certificates);
    Ok(ListenerTlsSetup { certificates, resumption, watching: OnceLock::new() })
}

/// What is wrong with a file, at the place in the configuration that names it.
fn file_problem(tls: &ListenerTls, problem: &FileProblem) -> Diagnostic {
    let pairs = tls.certificates.iter().flat_map(|pair| [&pair.certificate, &pair.key]);
    let mut named = pairs.chain(tls.client_ca.as_ref());
    let given: Option<&Given<_>> = named.find(|given| given.value == problem.path);
    let given = given.or_else(|| tls.certificates.first().map(|pair| &pair.certificate));
    let shown = problem.path.display().to_string();
    match given {
        Some(given) => given.remark(problem.message.clone()).with_found(shown),
        None => Diagnostic::new(crate::config::Place::CommandLine, problem.message.clone()),
    }
}

/// Reads everything that a configuration names, as a start would, and lets go of it.
///
/// # Errors
/// What can't be used.
pub fn try_files(config: Config) -> Result<(), Problems> {
    Setup::new(config, Instant::now(), 0, None).map(drop)
}
