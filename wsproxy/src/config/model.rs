//! What a valid configuration says.

use std::path::PathBuf;

use super::addr::{ListenAddr, ListenOn, ServerAddr};
use super::network::{Access, Network};
use super::problem::Diagnostic;
use super::rate::Rate;
use super::reader::Given;
use super::routing::{Action, Route};
use super::{
    Backlog, Burst, DatapathMode, HeadBytes, HeadHeaders, Keepalive, LogFormat, LogLevel,
    MaxSessions, RelayBuffer, Setting, Source, UserTimeout, Wait, Weight, Workers,
};

/// A valid configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where it came from.
    pub source: Source,
    /// What clients connect to; at least one, none overlaps another one or `admin`.
    pub listeners: Vec<Listener>,
    /// Groups of servers; no name twice.
    pub upstreams: Vec<Upstream>,
    /// Which request goes where; at least one.
    pub routes: Vec<Route>,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// Whether silent sides are alive; routes have theirs in [`Forward`](super::Forward).
    pub ping: Ping,
    /// How sessions are closed when they have to go.
    pub drain: Drain,
    /// How much to hold.
    pub limits: Limits,
    /// Who a client is.
    pub clients: Clients,
    /// A line per request and session.
    pub access_log: Option<AccessLog>,
    /// How bytes are moved, and by how many threads.
    pub datapath: Datapath,
    /// Metrics and commands.
    pub admin: Admin,
    /// What the process may still do once it serves.
    pub process: Process,
    /// How to log.
    pub log: Log,
    /// What is allowed but should be known; to be logged at start.
    pub warnings: Vec<Diagnostic>,
}

impl Config {
    /// The files and directories that it names and that are read again after the start.
    #[must_use]
    pub fn files(&self) -> Vec<&Given<PathBuf>> {
        let mut files = Vec::new();
        for tls in self.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
            files.extend(tls.certificates.iter().flat_map(Certificate::files));
            files.extend(&tls.client_ca);
        }
        for tls in self.upstreams.iter().map(|group| &group.tls) {
            files.extend(tls.certificate.iter().flat_map(Certificate::files));
            files.extend(tls.ca.iter().filter(|_| tls.verify));
        }
        files.extend(self.routes.iter().filter_map(|route| match &route.action {
            Action::Files { root, .. } => Some(root),
            Action::Upstream(_) | Action::Redirect { .. } | Action::Respond { .. } => None,
        }));
        files
    }
}

/// `[[listener]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// What routes and the log call it.
    pub name: String,
    /// Where to listen.
    pub address: ListenOn,
    /// Connections that may wait to be accepted.
    pub backlog: Backlog,
    /// `SO_REUSEPORT`.
    pub reuseport: bool,
    /// Who begins with a PROXY header.
    pub proxy_protocol_from: Vec<Network>,
    /// Live sessions that came in here.
    pub max_sessions: Option<MaxSessions>,
    /// Who may connect.
    pub access: Access,
    /// Whether its sessions may go the packet path.
    pub packets: bool,
    /// TLS; none: plain.
    pub tls: Option<ListenerTls>,
}

impl Listener {
    /// A plain one with the defaults.
    #[must_use]
    pub fn at(address: ListenAddr) -> Self {
        Self {
            name: address.to_string(),
            address: ListenOn::Tcp(address),
            backlog: Backlog::of::<4_096>(),
            reuseport: false,
            proxy_protocol_from: Vec::new(),
            max_sessions: None,
            access: Access::default(),
            packets: true,
            tls: None,
        }
    }
}

/// `[listener.tls]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTls {
    /// At least one; the first is for clients that name no known host.
    pub certificates: Vec<Certificate>,
    /// What client certificates are checked against.
    pub client_ca: Option<Given<PathBuf>>,
    /// A client without a certificate is let in.
    pub client_optional: bool,
    /// TLS 1.2 is not spoken.
    pub only_tls13: bool,
}

/// A certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// PEM file of the chain.
    pub certificate: Given<PathBuf>,
    /// PEM file of the key.
    pub key: Given<PathBuf>,
}

impl Certificate {
    /// Both files.
    fn files(&self) -> [&Given<PathBuf>; 2] {
        [&self.certificate, &self.key]
    }
}

/// `[[upstream]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// What routes call it.
    pub name: String,
    /// The server inside this program, and no other.
    pub embedded: bool,
    /// Where requests go; at least one unless `embedded`.
    pub servers: Vec<Server>,
    /// Who is next.
    pub balance: Balance,
    /// The cookie that brings a client back.
    pub sticky_cookie: Option<String>,
    /// 0: never out.
    pub max_fails: u32,
    /// For `max_fails`.
    pub fail_timeout: Wait,
    /// Requests that may wait for a server.
    pub queue: u32,
    /// For how long.
    pub queue_timeout: Wait,
    /// How long a server that came back warms up.
    pub slow_start: Option<Wait>,
    /// Idle connections per server.
    pub keepalive: u32,
    /// The header that a connection begins with.
    pub proxy_protocol: Option<ProxyVersion>,
    /// From the client's address.
    pub transparent: bool,
    /// Close the sessions of a dead server.
    pub close_dead: bool,
    /// The code of the Close frame that a client gets from wsproxy when its server went without
    /// one: 1014 (bad gateway) or 1001 (going away); none: no frame, so the client's own library
    /// says 1006 (RFC 6455 section 7.1.5).
    pub gone_code: Option<u16>,
    /// At most between two look-ups of a name.
    pub resolve: Wait,
    /// For servers over TLS.
    pub tls: UpstreamTls,
    /// Whether servers are well.
    pub health: Option<Health>,
}

impl Upstream {
    /// A group with the defaults.
    #[must_use]
    pub fn of(name: impl Into<String>, servers: Vec<Server>) -> Self {
        Self {
            name: name.into(),
            embedded: false,
            servers,
            balance: Balance::RoundRobin,
            sticky_cookie: None,
            max_fails: 1,
            fail_timeout: Wait::of::<10_000>(),
            queue: 0,
            queue_timeout: Wait::of::<5_000>(),
            slow_start: None,
            keepalive: 32,
            proxy_protocol: None,
            transparent: false,
            close_dead: false,
            gone_code: Some(1014),
            resolve: Wait::of::<30_000>(),
            tls: UpstreamTls::default(),
            health: None,
        }
    }
}

/// One of a group's servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where it is.
    pub address: ServerAddr,
    /// Its share.
    pub weight: Weight,
    /// Only when no other is usable.
    pub backup: bool,
    /// Sessions and requests at a time.
    pub max_connections: Option<MaxSessions>,
    /// Gets nothing.
    pub disabled: bool,
}

impl Server {
    /// One with the defaults.
    #[must_use]
    pub fn at(address: ServerAddr) -> Self {
        Self {
            address,
            weight: Weight::of::<1>(),
            backup: false,
            max_connections: None,
            disabled: false,
        }
    }
}

/// Who is next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balance {
    /// In turn, by weight.
    RoundRobin,
    /// The fewest live sessions and requests.
    LeastConnections,
    /// The less busy of two.
    Random,
    /// By the client's address.
    IpHash,
    /// By something of the request.
    Hash(HashKey),
}

/// What `hash` looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// The client's whole address.
    Client,
    /// A header.
    Header(String),
    /// A cookie.
    Cookie(String),
    /// A parameter of the query.
    Query(String),
}

/// Which PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// The text form.
    V1,
    /// The binary form.
    V2,
}

/// `[upstream.tls]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Who vouches for the servers; none: the system's.
    pub ca: Option<Given<PathBuf>>,
    /// The name in the certificate; none: the server's host.
    pub server_name: Option<String>,
    /// Whether it is checked.
    pub verify: bool,
    /// What is shown to a server that asks.
    pub certificate: Option<Certificate>,
}

impl Default for UpstreamTls {
    fn default() -> Self {
        Self { ca: None, server_name: None, verify: true, certificate: None }
    }
}

/// `[upstream.health]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What is tried.
    pub kind: HealthKind,
    /// What is asked for.
    pub path: String,
    /// Between two checks.
    pub interval: Wait,
    /// For one.
    pub timeout: Wait,
    /// Good ones in a row.
    pub rise: u32,
    /// Bad ones in a row.
    pub fall: u32,
}

/// What a health check tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthKind {
    /// To connect.
    Tcp,
    /// A GET.
    Http,
    /// A WebSocket handshake.
    WebSocket,
}

/// `[timeouts]`; those that may be off are `None` when they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// From accept to the end of the request head.
    pub request_head: Wait,
    /// For a TLS handshake, and for a PROXY header.
    pub tls_handshake: Wait,
    /// Between two requests of a connection.
    pub keepalive_idle: Wait,
    /// The longest pause inside a body.
    pub request_body: Wait,
    /// To connect to an upstream, its name resolved.
    pub upstream_connect: Wait,
    /// From the request sent to the end of the upstream's answer head.
    pub upstream_answer: Wait,
    /// A session in which nothing moves in either direction.
    pub idle: Option<Wait>,
    /// A session in which nothing moves since one side has ended its direction.
    pub half_closed: Option<Wait>,
    /// After SIGTERM, for sessions to close.
    pub drain: Wait,
    /// TCP keepalive on both sockets.
    pub keepalive: Option<Keepalive>,
    /// `TCP_USER_TIMEOUT` on both sockets.
    pub user_timeout: Option<UserTimeout>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            request_head: Wait::of::<10_000>(),
            tls_handshake: Wait::of::<10_000>(),
            keepalive_idle: Wait::of::<75_000>(),
            request_body: Wait::of::<60_000>(),
            upstream_connect: Wait::of::<5_000>(),
            upstream_answer: Wait::of::<30_000>(),
            idle: Some(Wait::of::<3_600_000>()),
            half_closed: Some(Wait::of::<60_000>()),
            drain: Wait::of::<10_000>(),
            keepalive: Some(Keepalive::of::<60_000>()),
            user_timeout: Some(UserTimeout::of::<60_000>()),
        }
    }
}

/// `[ping]`, and `[route.ping]` with what it leaves to that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ping {
    /// The silence of a side after which it is sent a Ping (RFC 6455 section 5.5.2); none: never.
    pub interval: Option<Wait>,
    /// The silence after a Ping that ends the session.
    pub timeout: Wait,
    /// Servers too, not only clients.
    pub upstream: bool,
}

impl Default for Ping {
    fn default() -> Self {
        Self {
            interval: Some(Wait::of::<30_000>()),
            timeout: Wait::of::<10_000>(),
            upstream: false,
        }
    }
}

/// `[drain]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drain {
    /// The time over which sessions are closed one by one; none: all at once.
    pub window: Option<Wait>,
    /// The status code of their Close frames: 1001 (RFC 6455 section 7.4.1) or 1012 (IANA's
    /// registry of close codes).
    pub code: u16,
    /// The reason in them: 123 bytes at most, without control characters; may be empty.
    pub reason: String,
    /// When refused clients may come back, give or take a half; whole seconds.
    pub retry_after: Wait,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            window: Some(Wait::of::<10_000>()),
            code: 1001,
            reason: "going away".to_owned(),
            retry_after: Wait::of::<10_000>(),
        }
    }
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Sessions at a time; `Auto` is from the limit on descriptors.
    pub max_sessions: Setting<MaxSessions>,
    /// Of one client.
    pub max_sessions_per_client: Option<MaxSessions>,
    /// IPv6 clients that count as one, in bits.
    pub ipv6_prefix: u8,
    /// Of all clients.
    pub handshake_rate: Option<Rate>,
    /// Of one client.
    pub handshake_rate_per_client: Option<Rate>,
    /// At once.
    pub handshake_burst: Burst,
    /// Bytes of a request or answer head.
    pub head_bytes: HeadBytes,
    /// Header lines of a request or answer head.
    pub head_headers: HeadHeaders,
    /// Bytes that one direction may hold in user space, and the read buffer of
    /// each worker.
    pub relay_buffer: RelayBuffer,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_sessions: Setting::Auto,
            max_sessions_per_client: None,
            ipv6_prefix: 64,
            handshake_rate: None,
            handshake_rate_per_client: None,
            handshake_burst: Burst::of::<20>(),
            head_bytes: HeadBytes::of::<{ 16 << 10 }>(),
            head_headers: HeadHeaders::of::<100>(),
            relay_buffer: RelayBuffer::of::<{ 256 << 10 }>(),
        }
    }
}

/// `[clients]`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clients {
    /// Whose word is believed.
    pub trusted_proxies: Vec<Network>,
    /// Where they say it.
    pub address_header: AddressHeader,
}

/// Where a trusted proxy says who the client is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AddressHeader {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// `X-Real-IP`.
    XRealIp,
}

/// `[access_log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// What a line looks like.
    pub format: AccessFormat,
    /// None: standard output.
    pub path: Option<PathBuf>,
}

/// What a line of the access log looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessFormat {
    /// One JSON object.
    Json,
    /// As the "combined" of other servers.
    Combined,
}

/// `[datapath]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datapath {
    /// How bytes are moved.
    pub mode: DatapathMode,
    /// Threads that own sessions; `Auto` is the number of CPUs.
    pub workers: Setting<Workers>,
    /// For how long a session is relayed before it may enter the kernel; `None`: it enters at
    /// once.
    pub settle: Option<Wait>,
    /// Whether sessions may go the packet path.
    pub packets: bool,
    /// Whether sessions on the packet path outlive the process.
    pub persist: bool,
    /// Where the kernel's side of them is kept, on a bpffs.
    pub persist_path: PathBuf,
    /// Where the rest of them is kept.
    pub state_dir: PathBuf,
}

impl Default for Datapath {
    fn default() -> Self {
        Self {
            mode: DatapathMode::Auto,
            workers: Setting::Auto,
            settle: Some(Wait::of::<100>()),
            packets: true,
            persist: false,
            persist_path: "/sys/fs/bpf/wsproxy".into(),
            state_dir: "/run/wsproxy/sessions".into(),
        }
    }
}

impl Datapath {
    /// Whether sessions may go the packet path, as far as this is concerned: listeners and routes
    /// have a say too.
    #[must_use]
    pub const fn may_translate(&self) -> bool {
        match self.mode {
            DatapathMode::Packet => true,
            DatapathMode::Auto => self.packets,
            DatapathMode::Sockmap | DatapathMode::Relay => false,
        }
    }
}

/// `[admin]`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admin {
    /// Where the admin port listens.
    pub address: Option<ListenAddr>,
    /// The Unix socket for commands.
    pub socket: Option<PathBuf>,
}

/// `[process]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// The user to become when started as root, by name or number.
    pub user: Setting<String>,
    /// Its group; none: the user's.
    pub group: Option<String>,
    /// Whether only the system calls may be made that it makes.
    pub seccomp: bool,
    /// Whether only the files may be used that the configuration names.
    pub landlock: bool,
}

impl Default for Process {
    fn default() -> Self {
        Self { user: Setting::Auto, group: None, seccomp: true, landlock: true }
    }
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// What a line looks like.
    pub format: LogFormat,
    /// The least important messages that are written.
    pub level: LogLevel,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: LogLevel::Info }
    }
}
