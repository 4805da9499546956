//! What a gateway has to open while it is allowed to: sockets, files and BPF programs. It happens
//! before there is any thread, so that what the process gives up afterwards, every thread of it has
//! given up (capabilities, users and Landlock's rules are each thread's own in Linux).

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, TcpListener as StdTcpListener},
    os::unix::net::UnixListener as StdUnixListener,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use super::{
    GatewayError,
    accept::open_missing,
    access,
    listen::{self, Listening},
    setup::Setup,
    supervision,
    workers::MOST_WORKERS,
};
use crate::{
    access_log::{self, AccessLog},
    admin,
    config::{Config, DatapathMode, ListenOn, Listener, Server, ServerAddr, Setting, Source},
    datapath::{self, Entry, Mode, Options, Persist, Prepared, StartError},
    limits,
    privileges::{self, Needs},
};

/// Sockets, files and programs of a gateway that does not run yet.
pub struct Opened {
    pub(super) setup: Setup,
    pub(super) epoch: Instant,
    pub(super) seed: u64,
    pub(super) listeners: Vec<(Listener, Listening)>,
    pub(super) admin: Option<StdTcpListener>,
    pub(super) socket: Option<StdUnixListener>,
    pub(super) access_log: Option<AccessLogFile>,
    pub(super) embedded: Option<StdTcpListener>,
    pub(super) datapath: Prepared,
    /// Each listener has as many sockets.
    pub(super) workers: usize,
}

/// The access log, before there is the thread that writes it.
pub(super) struct AccessLogFile {
    format: access_log::Format,
    path: Option<PathBuf>,
    file: File,
}

impl AccessLogFile {
    fn open(log: &crate::config::AccessLog) -> Result<Self, GatewayError> {
        let path = log.path.clone();
        let file = AccessLog::file(path.as_deref());
        let file = file.map_err(|error| Self::failed(path.as_deref(), error))?;
        Ok(Self { format: access::format_of(log), path, file })
    }

    pub(super) fn start(self) -> Result<Arc<AccessLog>, GatewayError> {
        let Self { format, path, file } = self;
        let started = AccessLog::start(format, path.clone(), file);
        Ok(Arc::new(started.map_err(|error| Self::failed(path.as_deref(), error))?))
    }

    fn failed(path: Option<&Path>, error: io::Error) -> GatewayError {
        let path = path.map_or_else(|| "-".into(), |path| path.display().to_string());
        GatewayError::AccessLog { path, error }
    }
}

/// Opens what `config` describes. Starts no thread that lasts.
///
/// # Errors
/// See [`GatewayError`]. Nothing is left open.
pub fn open(mut config: Config) -> Result<Opened, GatewayError> {
    let (epoch, seed) = (Instant::now(), seed());
    let embedded = embed(&mut config)?;
    let setup = Setup::new(config, epoch, seed, None).map_err(GatewayError::Setup)?;
    let config = &setup.config;
    let workers = workers_of(config);
    let listeners = open_missing(&setup, workers, |_| false)?;
    let admin = match &config.admin.address {
        None => None,
        Some(admin) => {
            let socket_addr = admin.socket_addr();
            let bound = listen::bind(socket_addr, admin.is_dual_stack(), admin::BACKLOG);
            Some(bound.map_err(|error| GatewayError::Listen {
                address: socket_addr.to_string(),
                key: "admin.address or --admin",
                error,
            })?)
        }
    };
    let socket = match &config.admin.socket {
        None => None,
        Some(path) => Some(listen::bind_private(path).map_err(|error| GatewayError::Listen {
            address: path.display().to_string(),
            key: "admin.socket",
            error,
        })?),
    };
    let access_log = config.access_log.as_ref().map(AccessLogFile::open).transpose()?;
    // Loading BPF and its self-test take a while.
    let datapath = Prepared::load(datapath_options(config))?;
    Ok(Opened {
        setup,
        epoch,
        seed,
        listeners,
        admin,
        socket,
        access_log,
        embedded,
        datapath,
        workers,
    })
}

impl Opened {
    /// What has to be allowed from now on.
    #[must_use]
    pub fn needs(&self) -> Needs {
        let config = &self.setup.config;
        let packets = self.datapath.path() == datapath::Path::Packet;
        Needs {
            capabilities: privileges::wanted(packets),
            transparent: config.upstreams.iter().any(|group| group.transparent),
            reads: reads(config),
            writes: writes(config),
            owns: owns(config),
            keeps: keeps(config),
            bpf: self.datapath.path() != datapath::Path::Relay,
        }
    }
}

/// What a reload, or the watch over certificates, reads again.
fn reads(config: &Config) -> Vec<PathBuf> {
    let file = match &config.source {
        Source::File(path) => Some(path.clone()),
        Source::Demo | Source::Flags => None,
    };
    file.into_iter().chain(config.files().into_iter().map(|file| file.value.clone())).collect()
}

/// Folders in which files are made again later: by `SIGUSR1`, or by a reload.
fn writes(config: &Config) -> Vec<PathBuf> {
    let log = config.access_log.as_ref().and_then(|log| log.path.as_deref());
    let unix = config.listeners.iter().filter_map(|listener| match &listener.address {
        ListenOn::Unix(path) => Some(path.as_path()),
        ListenOn::Tcp(_) => None,
    });
    log.into_iter().chain(unix).filter_map(Path::parent).map(Path::to_owned).collect()
}

/// What was made for this process and is to be removed or changed by it.
fn owns(config: &Config) -> Vec<PathBuf> {
    let log = config.access_log.as_ref().and_then(|log| log.path.clone());
    let unix = config.listeners.iter().filter_map(|listener| match &listener.address {
        ListenOn::Unix(path) => Some(path.clone()),
        ListenOn::Tcp(_) => None,
    });
    log.into_iter().chain(unix).chain(config.admin.socket.clone()).collect()
}

/// Folders of sessions that outlive the process.
fn keeps(config: &Config) -> Vec<PathBuf> {
    persist(config).into_iter().flat_map(|persist| [persist.pins, persist.state]).collect()
}

/// Something that no other process has.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    if getrandom::fill(&mut bytes).is_err() {
        // Ids need no secret: the time and the process will do.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_nanos() as u64);
        return now ^ u64::from(std::process::id()).rotate_left(40);
    }
    u64::from_ne_bytes(bytes)
}

/// Puts the address of the embedded server into the group that wants it; returns its listener.
fn embed(config: &mut Config) -> Result<Option<StdTcpListener>, StartError> {
    let Some(group) = config.upstreams.iter_mut().find(|group| group.embedded) else {
        return Ok(None);
    };
    let listener = StdTcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?.to_string().parse();
    let address = address.map_err(|_| io::Error::other("the embedded upstream's own address"))?;
    group.servers = vec![Server::at(ServerAddr::plain(address))];
    Ok(Some(listener))
}

/// Threads of each kind: for connections, and for sessions.
fn workers_of(config: &Config) -> usize {
    match config.datapath.workers {
        Setting::Auto => {
            std::thread::available_parallelism().map_or(1, |n| n.get().min(MOST_WORKERS))
        }
        Setting::Fixed(workers) => workers.get() as usize,
    }
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
    Options {
        mode: match config.datapath.mode {
            DatapathMode::Auto => Mode::Auto,
            DatapathMode::Sockmap => Mode::Sockmap,
            DatapathMode::Packet => Mode::Packet,
            DatapathMode::Relay => Mode::Relay,
        },
        max_sessions,
        workers: workers_of(config) as u32,
        relay_buffer: config.limits.relay_buffer.as_usize(),
        idle: config.timeouts.idle.map(|idle| idle.get()),
        drain: config.timeouts.drain.get(),
        farewell: supervision::farewell(&config.drain),
        window: supervision::window(&config.drain),
        entry: match (config.datapath.mode, config.datapath.settle) {
            (DatapathMode::Packet, _) | (_, None) => Entry::AtOnce,
            (_, Some(settle)) => Entry::WhenCheaper(settle.get()),
        },
        packets: config.datapath.may_translate(),
        tcx: true,
        persist: persist(config),
    }
}

/// Where sessions are kept over the end of the process, if they are.
fn persist(config: &Config) -> Option<Persist> {
    let config = &config.datapath;
    let (pins, state) = (&config.persist_path, &config.state_dir);
    config.persist.then(|| Persist { pins: pins.clone(), state: state.clone() })
}
