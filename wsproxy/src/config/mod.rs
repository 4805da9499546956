//! The configuration: flags and a TOML file, parsed once into a [`Config`]
//! whose values are all in range. Nothing here reads a clock, a descriptor or
//! a file: [`load`] is handed the function that reads.
//!
//! CONFIGURATION.md describes every key.

mod addr;
mod build;
mod count;
mod document;
mod flags;
mod keys;
mod model;
mod network;
mod period;
mod problem;
mod rate;
mod reader;
mod routing;
mod size;
mod suggest;
mod template;
mod value;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

pub use addr::{
    Host, LABEL_MAX, ListenAddr, ListenOn, NAME_MAX, ServerAddr, ServerPlace, UpstreamAddr,
};
pub use count::{Count, Setting};
pub use document::{example, reference, schema, title};
pub use flags::RunArgs;
pub use keys::{KEYS, Key, Kind};
pub use model::{
    AccessFormat, AccessLog, AddressHeader, Admin, Balance, Certificate, Clients, Config, Datapath,
    Drain, HashKey, Health, HealthKind, Limits, Listener, ListenerTls, Log, Ping, Process,
    ProxyVersion, Server, Timeouts, Upstream, UpstreamTls,
};
pub use network::{Access, Network};
pub use period::Period;
pub use problem::{Diagnostic, Invalid, Place, Position, Problems};
pub use rate::Rate;
pub use reader::Given;
pub use routing::{
    Action, Forward, HeaderChanges, HostHeader, HostPattern, Origin, Route, WebSocketRule,
};
pub use size::Size;
pub use template::{Template, Variable};

/// The file read when `--config` names none; it need not exist.
pub const DEFAULT_FILE: &str = "/etc/wsproxy/wsproxy.toml";
/// Where to listen when neither a file nor a flag says.
pub const DEFAULT_LISTEN: ListenAddr = ListenAddr::localhost(8080);

/// Shortest wait that can be set, in milliseconds.
pub const WAIT_MIN_MS: u32 = 1;
/// Longest wait that can be set, in milliseconds: 30 days.
pub const WAIT_MAX_MS: u32 = 30 * 24 * 3_600_000;
/// A day in milliseconds.
const DAY_MS: u32 = 24 * 3_600_000;
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
/// Most listeners.
pub const LISTENERS_MAX: usize = 64;
/// Most groups of servers.
pub const UPSTREAMS_MAX: usize = 256;
/// Most routes.
pub const ROUTES_MAX: usize = 1_024;
/// Most servers of a group.
pub const SERVERS_MAX: usize = 1_024;
/// Most sessions that can be set.
pub const MAX_SESSIONS_MAX: u32 = 1_000_000;
/// Smallest bound on the bytes of a request or answer head: 1 KiB.
pub const HEAD_BYTES_MIN: u64 = 1 << 10;
/// Largest bound on the bytes of a request or answer head: 1 MiB.
pub const HEAD_BYTES_MAX: u64 = 1 << 20;
/// Smallest bound on header lines; a WebSocket handshake has 5 of its own.
pub const HEAD_HEADERS_MIN: u32 = 8;
/// Largest bound on header lines.
pub const HEAD_HEADERS_MAX: u32 = 1_024;
/// Smallest relay buffer: 16 KiB.
pub const RELAY_BUFFER_MIN: u64 = 16 << 10;
/// Largest relay buffer: 16 MiB.
pub const RELAY_BUFFER_MAX: u64 = 16 << 20;
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
/// A server's share.
pub type Weight = Count<1, 1_000>;
/// Things that may happen at once.
pub type Burst = Count<1, 1_000_000>;
/// Length of an IPv6 prefix in bits.
pub type Prefix = Count<1, 128>;
/// An HTTP status of a redirect.
pub type Statuses = Count<300, 399>;
/// Bytes of a plain request's body.
pub type BodyLimit = Size<0, { 3 << 30 }>;
/// Payload bytes of a WebSocket message, or of one of its frames.
pub type MessageLimit = Size<1, { 1 << 40 }>;
/// Number of worker threads.
pub type Workers = Count<1, WORKERS_MAX>;

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

/// How bytes are moved once a session is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum DatapathMode {
    /// `packet` where the session can, `sockmap` where the kernel can, else `relay`.
    Auto,
    /// In the kernel, by BPF; an error where it cannot.
    Sockmap,
    /// In the kernel, packet by packet and at once, where a session allows it; an error where the
    /// kernel cannot.
    Packet,
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
            listeners: vec![Listener::at(DEFAULT_LISTEN)],
            upstreams: vec![Upstream { embedded: true, ..Upstream::of("default", Vec::new()) }],
            routes: vec![Route::everything_to("default")],
            timeouts: Timeouts::default(),
            ping: Ping::default(),
            drain: Drain::default(),
            limits: Limits::default(),
            clients: Clients::default(),
            access_log: None,
            // Its page shows the way of the bytes: no time to lose.
            datapath: Datapath { settle: None, ..Datapath::default() },
            admin: Admin::default(),
            process: Process::default(),
            log: Log::default(),
            warnings: Vec::new(),
        }
    }
}

/// The configuration of `wsproxy run`: the file that `--config` names, or
/// [`DEFAULT_FILE`] if it exists, or none; and the flags over it.
///
/// `read_file` returns a file's text: `cli::read_file`.
pub fn load(
    run: &RunArgs,
    read_file: impl Fn(&Path) -> io::Result<String>,
) -> Result<Config, Problems> {
    let path = run.config.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
    match read_file(path) {
        Ok(text) => from_text(path, &text, run),
        Err(error) if run.config.is_none() && error.kind() == io::ErrorKind::NotFound => {
            build::without_file(run)
        }
        Err(error) => {
            let message = format!("cannot be read: {error}");
            let problem = Diagnostic::new(Place::file(path, None), message);
            Err(Problems::single(problem))
        }
    }
}

/// The configuration in a file's text alone, without flags.
pub fn check(path: &Path, text: &str) -> Result<Config, Problems> {
    from_text(path, text, &RunArgs::default())
}

fn from_text(path: &Path, text: &str, run: &RunArgs) -> Result<Config, Problems> {
    let (reader, document) = reader::parse(path, text);
    build::with_file(reader, &document, run)
}

/// `token` of RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    let is_tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(is_tchar)
}

/// A name as DNS has it.
fn is_host_name(text: &str) -> bool {
    addr::is_name(text)
}
