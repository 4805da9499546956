//! The configuration: flags and a TOML file, parsed once into a [`Config`]
//! whose values are all in range. Nothing here reads a clock, a descriptor or
//! a file: [`load`] is handed the function that reads.
//!
//! CONFIGURATION.md describes every key.

mod addr;
mod build;
mod count;
mod period;
mod problem;
mod raw;
mod size;
mod suggest;
mod value;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::cli::RunArgs;

pub use addr::{Host, LABEL_MAX, ListenAddr, NAME_MAX, UpstreamAddr};
pub use count::{Count, Setting};
pub use period::Period;
pub use problem::{Diagnostic, Invalid, Place, Position, Problems};
pub use size::Size;

use raw::Parsed;

/// The file read when `--config` names none; it need not exist.
pub const DEFAULT_FILE: &str = "/etc/wsproxy/wsproxy.toml";
/// Where to listen when neither a file nor a flag says.
pub const DEFAULT_LISTEN: ListenAddr = ListenAddr::localhost(8080);

/// Shortest wait that can be set, in milliseconds.
pub const WAIT_MIN_MS: u32 = 1;
/// Longest wait that can be set, in milliseconds: 30 days.
pub const WAIT_MAX_MS: u32 = 30 * 24 * 3_600_000;
/// TCP counts keepalive in whole seconds, from 1.
pub const KEEPALIVE_STEP_MS: u32 = 1_000;
/// Longest keepalive in milliseconds: 9 hours, the last whole one below the
/// 32767 seconds that Linux takes for `TCP_KEEPIDLE`.
pub const KEEPALIVE_MAX_MS: u32 = 9 * 3_600_000;
/// Shortest `TCP_USER_TIMEOUT` that can be set, in milliseconds: a lower one
/// would end connections that only lost a segment or two.
pub const USER_TIMEOUT_MIN_MS: u32 = 1_000;
/// Longest `TCP_USER_TIMEOUT` in milliseconds: 24 days, the last whole one
/// that fits the `int` Linux keeps it in.
pub const USER_TIMEOUT_MAX_MS: u32 = 24 * 24 * 3_600_000;
/// Longest accept queue; the kernel lowers it to `net.core.somaxconn`.
pub const BACKLOG_MAX: u32 = 65_535;
/// Most upstream servers.
pub const SERVERS_MAX: usize = 1_024;
/// Most sessions that can be set.
pub const MAX_SESSIONS_MAX: u32 = 1_000_000;
/// Smallest bound on the bytes of a request or answer head: 1 KiB.
pub const HEAD_BYTES_MIN: u32 = 1 << 10;
/// Largest bound on the bytes of a request or answer head: 1 MiB.
pub const HEAD_BYTES_MAX: u32 = 1 << 20;
/// Smallest bound on header lines; a WebSocket handshake has 5 of its own.
pub const HEAD_HEADERS_MIN: u32 = 8;
/// Largest bound on header lines.
pub const HEAD_HEADERS_MAX: u32 = 1_024;
/// Smallest relay buffer: 16 KiB.
pub const RELAY_BUFFER_MIN: u32 = 16 << 10;
/// Largest relay buffer: 16 MiB.
pub const RELAY_BUFFER_MAX: u32 = 16 << 20;
/// Most workers that can be set.
pub const WORKERS_MAX: u32 = 64;

/// How long to wait for something.
pub type Wait = Period<WAIT_MIN_MS, WAIT_MAX_MS>;
/// Silence after which TCP probes the peer, in whole seconds.
pub type Keepalive = Period<KEEPALIVE_STEP_MS, KEEPALIVE_MAX_MS, KEEPALIVE_STEP_MS>;
/// How long sent data may stay unacknowledged.
pub type UserTimeout = Period<USER_TIMEOUT_MIN_MS, USER_TIMEOUT_MAX_MS>;
/// Length of the accept queue.
pub type Backlog = Count<1, BACKLOG_MAX>;
/// Number of sessions.
pub type MaxSessions = Count<1, MAX_SESSIONS_MAX>;
/// Bytes of a request or answer head.
pub type HeadBytes = Size<HEAD_BYTES_MIN, HEAD_BYTES_MAX>;
/// Header lines of a request or answer head.
pub type HeadHeaders = Count<HEAD_HEADERS_MIN, HEAD_HEADERS_MAX>;
/// Bytes that one direction may hold in user space.
pub type RelayBuffer = Size<RELAY_BUFFER_MIN, RELAY_BUFFER_MAX>;
/// Number of worker threads.
pub type Workers = Count<1, WORKERS_MAX>;

/// A valid configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where it came from.
    pub source: Source,
    /// What clients connect to; never overlaps `admin`.
    pub listener: Listener,
    /// What sessions are forwarded to.
    pub upstreams: Upstreams,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// How much to hold.
    pub limits: Limits,
    /// How bytes are moved, and by how many threads.
    pub datapath: Datapath,
    /// Where the admin port listens; none unless configured.
    pub admin: Option<ListenAddr>,
    /// How to log.
    pub log: Log,
    /// What is allowed but should be known; to be logged at start.
    pub warnings: Vec<Diagnostic>,
}

/// Where a configuration came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// No file and no upstream: the embedded one.
    Demo,
    /// No file, but an upstream given by flag.
    Flags,
    /// This file, with flags over it.
    File(PathBuf),
}

/// What sessions are forwarded to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstreams {
    /// The server inside this program.
    Embedded,
    /// These, in turn; at least one, none twice.
    Servers(Vec<UpstreamAddr>),
}

/// `[listener]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Where to listen.
    pub address: ListenAddr,
    /// Connections that may wait to be accepted.
    pub backlog: Backlog,
}

impl Default for Listener {
    fn default() -> Self {
        Self { address: DEFAULT_LISTEN, backlog: Backlog::of::<4_096>() }
    }
}

/// `[timeouts]`; those that may be off are `None` when they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// From accept to the end of the request head.
    pub request_head: Wait,
    /// To connect to an upstream, its name resolved.
    pub upstream_connect: Wait,
    /// From the request sent to the end of the upstream's answer head.
    pub upstream_answer: Wait,
    /// A session in which nothing moves in either direction.
    pub idle: Option<Wait>,
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
            upstream_connect: Wait::of::<5_000>(),
            upstream_answer: Wait::of::<30_000>(),
            idle: Some(Wait::of::<3_600_000>()),
            drain: Wait::of::<10_000>(),
            keepalive: Some(Keepalive::of::<60_000>()),
            user_timeout: Some(UserTimeout::of::<60_000>()),
        }
    }
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Sessions at a time; `Auto` is from the limit on descriptors.
    pub max_sessions: Setting<MaxSessions>,
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
            head_bytes: HeadBytes::of::<{ 16 << 10 }>(),
            head_headers: HeadHeaders::of::<100>(),
            relay_buffer: RelayBuffer::of::<{ 256 << 10 }>(),
        }
    }
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
}

impl Default for Datapath {
    fn default() -> Self {
        Self { mode: DatapathMode::Auto, workers: Setting::Auto, settle: Some(Wait::of::<100>()) }
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

/// How bytes are moved once a session is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum DatapathMode {
    /// `sockmap` where the kernel can, else `relay`.
    Auto,
    /// In the kernel, by BPF; an error where it cannot.
    Sockmap,
    /// Through user space.
    Relay,
}

/// What a line of the log looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The least important messages that are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum LogLevel {
    /// What failed.
    Error,
    /// What may be wrong.
    Warn,
    /// What an operator wants to know.
    Info,
    /// What a developer wants to know.
    Debug,
    /// Everything.
    Trace,
}

macro_rules! display_as_written {
    ($($type:ty),+) => {
        $(
            impl fmt::Display for $type {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    match self.to_possible_value() {
                        Some(value) => f.write_str(value.get_name()),
                        None => Ok(()),
                    }
                }
            }
        )+
    };
}

display_as_written!(DatapathMode, LogFormat, LogLevel);

impl Config {
    /// The configuration when nothing is configured: loopback, and the
    /// embedded upstream.
    pub fn demo() -> Self {
        Self {
            source: Source::Demo,
            listener: Listener::default(),
            upstreams: Upstreams::Embedded,
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            // Its page shows the way of the bytes: no time to lose.
            datapath: Datapath { settle: None, ..Datapath::default() },
            admin: None,
            log: Log::default(),
            warnings: Vec::new(),
        }
    }
}

/// The configuration of `wsproxy run`: the file that `--config` names, or
/// [`DEFAULT_FILE`] if it exists, or none; and the flags over it.
///
/// `read_file` returns a file's text: [`cli::read_file`](crate::cli::read_file).
pub fn load(
    run: &RunArgs,
    read_file: impl Fn(&Path) -> io::Result<String>,
) -> Result<Config, Problems> {
    let path = run.config.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
    match read_file(path) {
        Ok(text) => build::build(Some(path), raw::parse(path, &text), run),
        Err(error) if run.config.is_none() && error.kind() == io::ErrorKind::NotFound => {
            build::build(None, Parsed::default(), run)
        }
        Err(error) => {
            let message = format!("cannot be read: {error}");
            let unreadable = Parsed {
                problems: vec![Diagnostic::new(Place::file(path, None), message)],
                ..Parsed::default()
            };
            build::build(Some(path), unreadable, run)
        }
    }
}

/// The configuration in a file's text alone, without flags.
pub fn check(path: &Path, text: &str) -> Result<Config, Problems> {
    build::build(Some(path), raw::parse(path, text), &RunArgs::default())
}
