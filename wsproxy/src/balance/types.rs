//! What goes into a group and what comes out of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::hash::hash_key;

/// The most servers of one group.
pub const MAX_SERVERS: usize = 1024;
/// The largest weight of a server; the smallest is 1.
pub const MAX_WEIGHT: u32 = 1000;
/// The largest `max_fails`: every server remembers the times of so many
/// failures.
pub const MAX_FAILS: u32 = 1000;

/// How the requests are spread over the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// One server after the other, the heavier ones more often (the smooth
    /// weighted round robin of nginx).
    RoundRobin,
    /// The server with the fewest live connections for its weight; among
    /// equals round robin.
    LeastConnections,
    /// Of two servers drawn at random by weight, the one with fewer live
    /// connections for its weight.
    Random,
    /// Consistent hashing of the request's key, see [`crate::balance`]. A
    /// request without a key goes round robin.
    Hash,
}

/// One server of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// What tells the server from the others, and what consistent hashing and
    /// the sticky cookie go by: usually its address.
    pub name: Arc<str>,
    /// Its share of the requests, from 1 to [`MAX_WEIGHT`].
    pub weight: u32,
    /// Used only when no other server is usable.
    pub backup: bool,
    /// The most live connections, at least 1. `None`: as many as come.
    pub max_connections: Option<u32>,
    /// Gets no requests until [`Group::enable`](super::Group::enable).
    pub disabled: bool,
}

/// A group of servers that are used alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// How the requests are spread.
    pub method: Method,
    /// The servers, at most [`MAX_SERVERS`], each name once. None is allowed:
    /// a name may have no addresses for a while.
    pub servers: Vec<ServerConfig>,
    /// So many failures within `fail_timeout` take a server out for
    /// `fail_timeout`; 0: they never do. At most [`MAX_FAILS`].
    pub max_fails: u32,
    /// See `max_fails`.
    pub fail_timeout: Duration,
    /// How long the weight of a server that comes back or joins later takes to
    /// grow to its full size. `None`, or with [`Method::Hash`]: at once.
    pub slow_start: Option<Duration>,
}

/// Why a group cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// More than [`MAX_SERVERS`].
    #[error("{count} servers, at most {MAX_SERVERS} are possible")]
    TooManyServers {
        /// How many there are.
        count: usize,
    },
    /// A name that another server has as well.
    #[error("server \"{name}\" comes twice")]
    Duplicate {
        /// The name.
        name: Arc<str>,
    },
    /// A weight outside of 1 to [`MAX_WEIGHT`].
    #[error("weight {weight} of server \"{name}\" is not from 1 to {MAX_WEIGHT}")]
    Weight {
        /// The name of the server.
        name: Arc<str>,
        /// Its weight.
        weight: u32,
    },
    /// `max_connections` is 0, which would queue requests for ever.
    #[error("max_connections of server \"{name}\" must be at least 1")]
    MaxConnections {
        /// The name of the server.
        name: Arc<str>,
    },
    /// `max_fails` above [`MAX_FAILS`].
    #[error("max_fails {max_fails} is more than {MAX_FAILS}")]
    MaxFails {
        /// The setting.
        max_fails: u32,
    },
}

/// A server of a group, as a number: a stable hash of its name. It means the
/// same server after a reload, and nobody when that server is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub(super) u64);

impl ServerId {
    /// The server of this name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self(hash_key(name.as_bytes()))
    }

    /// Reads the value of a sticky cookie: 16 lower case hex digits, nothing
    /// else.
    #[must_use]
    pub fn from_token(token: &str) -> Option<Self> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if token.len() != 16 || !token.bytes().all(digit) {
            return None;
        }
        u64::from_str_radix(token, 16).ok().map(Self)
    }
}

/// The value of the sticky cookie: 16 hex digits.
impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a choice depends on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request<'a> {
    /// For [`Method::Hash`]: [`hash_key`] or [`client_key`](super::client_key).
    pub key: Option<u64>,
    /// The value of the sticky cookie, as the client sent it.
    pub sticky: Option<&'a str>,
    /// The time since the start of the program.
    pub now: Duration,
    /// The servers that failed this request already: not asked again.
    pub tried: &'a [ServerId],
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice<T> {
    /// To this server.
    Server(T),
    /// Nowhere yet: the usable servers are all at `max_connections`. Ask again
    /// when a [`Lease`](super::Lease) has ended; it may have ended since, so
    /// get in line before you ask.
    Full,
    /// Nowhere: no server is usable (503, RFC 9110 section 15.6.4).
    Nobody {
        /// When the first server gets its next try, for `Retry-After`; zero
        /// when only this request has tried them all. `None`: nobody knows,
        /// they are disabled, draining or fail their health checks.
        retry_after: Option<Duration>,
    },
}

/// What a server is up to, the most telling first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerState {
    /// Gets no requests, by order.
    Disabled,
    /// Gets only the requests of its sticky clients, by order.
    Draining,
    /// Fails its health checks.
    Unhealthy,
    /// Taken out by failed requests.
    Failed,
    /// Was taken out, and now waits for how one request goes.
    Trial,
    /// Came back a short time ago: its weight still grows.
    SlowStart,
    /// Gets its full share.
    Up,
}

impl ServerState {
    /// A word for the admin API and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Draining => "draining",
            Self::Unhealthy => "unhealthy",
            Self::Failed => "failed",
            Self::Trial => "trial",
            Self::SlowStart => "slow_start",
            Self::Up => "up",
        }
    }
}

/// A server as the admin API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerStatus {
    /// Its number.
    pub id: ServerId,
    /// Its name.
    pub name: Arc<str>,
    /// The weight of the configuration.
    pub weight: u32,
    /// Used only when no other server is usable.
    pub backup: bool,
    /// The most live connections.
    pub max_connections: Option<u32>,
    /// Connections right now.
    pub live: u32,
    /// Connections since the server joined.
    pub total: u64,
    /// Failed requests since the server joined.
    pub failures: u64,
    /// What it is up to.
    pub state: ServerState,
}
