//! Addresses to listen on and addresses to connect to.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::problem::Invalid;

/// Longest host name, in bytes, without a final dot.
pub const NAME_MAX: usize = 253;
/// Longest part of a host name between dots, in bytes.
pub const LABEL_MAX: usize = 63;

const LISTEN_EXPECTED: &str = "ip:port such as \"0.0.0.0:8080\" or \"[::1]:8080\", or \":8080\"";
const UPSTREAM_EXPECTED: &str = "host:port such as \"app.internal:9000\", \"127.0.0.1:9000\" or \
                                 \"[::1]:9000\", or the same after ws:// or http://";

/// An address to listen on: an IP address and a port, 0 for any free one.
///
/// Reads `ip:port` and `:port`, which stands for `[::]:port`: every address of
/// the machine, of IPv4 and IPv6 alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListenAddr(SocketAddr);

impl ListenAddr {
    /// Loopback over IPv4 at `port`.
    pub const fn localhost(port: u16) -> Self {
        Self(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    }

    /// The address to bind.
    pub const fn socket_addr(self) -> SocketAddr {
        self.0
    }

    /// Whether the socket takes IPv4 too (`IPV6_V6ONLY` off): that of `[::]`.
    pub fn is_dual_stack(self) -> bool {
        self.0.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    }

    /// Whether only this machine can connect to it.
    pub fn is_loopback(self) -> bool {
        self.ip().is_loopback()
    }

    /// Whether the two cannot both be bound: the same port, and addresses of
    /// which one is the other or includes it.
    pub fn overlaps(self, other: Self) -> bool {
        self.0.port() == other.0.port()
            && self.0.port() != 0
            && (self.includes(other.ip()) || other.includes(self.ip()))
    }

    /// Whether connecting to `upstream` would surely arrive here. Not sure,
    /// and so false: names, and addresses that other machines could have.
    pub fn is_reached_by(self, upstream: &UpstreamAddr) -> bool {
        let Host::Ip(ip) = upstream.host else {
            return false;
        };
        // Linux connects to the unspecified address as to loopback.
        let ip = match ip.to_canonical() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        let here = ip == self.ip() || (ip.is_loopback() && self.includes(ip));
        self.0.port() == upstream.port && here
    }

    fn ip(self) -> IpAddr {
        self.0.ip().to_canonical()
    }

    fn includes(self, ip: IpAddr) -> bool {
        match self.ip() {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => true,
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => ip.is_ipv4(),
            own => own == ip,
        }
    }
}

impl FromStr for ListenAddr {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = |message: &'static str| Err(Invalid::new(message, LISTEN_EXPECTED));
        if let Some(port) = text.strip_prefix(':')
            && !port.contains(':')
        {
            return match parse_port(port) {
                Some(port) => Ok(Self(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))),
                None => invalid("not a port"),
            };
        }
        if let Ok(address) = text.parse() {
            return Ok(Self(address));
        }
        if text.parse::<IpAddr>().is_ok() || parse_port(text).is_some() {
            return invalid("an address without its port, or a port without its colon");
        }
        if text.contains("://") {
            return invalid("a URL where an address to listen on belongs");
        }
        match text.rsplit_once(':') {
            Some((_, port)) if parse_port(port).is_none() => invalid("not a port"),
            Some((host, _)) if is_name(host) => invalid("a name: only an IP address can be bound"),
            _ => invalid("not an address to listen on"),
        }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The host of an [`UpstreamAddr`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// An IP address.
    Ip(IpAddr),
    /// A name in lower case, for the system resolver to resolve whenever a
    /// connection is made.
    Name(String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// A server to connect to: a host and a port from 1.
///
/// Reads `host:port`, `1.2.3.4:80`, `[::1]:80` and each of them after `ws://`
/// or `http://`; displays without the scheme.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UpstreamAddr {
    host: Host,
    port: u16,
}

impl UpstreamAddr {
    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, never 0.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for UpstreamAddr {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = |message: &'static str| Err(Invalid::new(message, UPSTREAM_EXPECTED));
        let authority = match text.split_once("://") {
            None => text,
            Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
                "ws" | "http" => rest,
                _ => return invalid("not a scheme of an upstream"),
            },
        };
        if authority.contains(['/', '?', '#']) {
            return invalid("a path is not allowed here: each request keeps its own");
        }
        if authority.parse::<Ipv6Addr>().is_ok() {
            return invalid("an IPv6 address must stand in brackets, with a port after them");
        }
        let Some((host, port)) = authority.rsplit_once(':') else {
            return invalid("the port is missing");
        };
        let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(inner) => match inner.parse() {
                Ok(ip) => Host::Ip(IpAddr::V6(ip)),
                Err(_) => return invalid("not an IPv6 address between the brackets"),
            },
            None if host.starts_with('[') => return invalid("the port is missing"),
            None if host.contains(':') => {
                return invalid("an IPv6 address must stand in brackets, with a port after them");
            }
            None => match host.parse() {
                Ok(ip) => Host::Ip(IpAddr::V4(ip)),
                Err(_) if is_name(host) => Host::Name(host.to_ascii_lowercase()),
                Err(_) => return invalid("not an IP address or host name before the port"),
            },
        };
        match parse_port(port) {
            None | Some(0) => invalid("not a port: 1 to 65535 are"),
            Some(port) => Ok(Self { host, port }),
        }
    }
}

impl fmt::Display for UpstreamAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Where a listener listens: an address, or a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenOn {
    /// `"ip:port"`, `":port"`.
    Tcp(ListenAddr),
    /// `"unix:/path"`.
    Unix(PathBuf),
}

impl ListenOn {
    /// The address, if it is one.
    #[must_use]
    pub fn tcp(&self) -> Option<ListenAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Whether the two cannot both be bound.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(other)) => one.overlaps(*other),
            (Self::Unix(one), Self::Unix(other)) => one == other,
            _ => false,
        }
    }
}

impl FromStr for ListenOn {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Self::Unix(socket_path(path)?)),
            None => text.parse().map(Self::Tcp),
        }
    }
}

impl fmt::Display for ListenOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Longest path of a Unix socket in bytes: `sun_path` without its end.
const SOCKET_PATH_MAX: usize = 107;

/// An absolute path that fits a Unix socket's address.
pub(super) fn socket_path(text: &str) -> Result<PathBuf, Invalid> {
    let path = Path::new(text);
    if !path.is_absolute() || text.len() > SOCKET_PATH_MAX || text.contains('\0') {
        let expected = format!("an absolute path of at most {SOCKET_PATH_MAX} bytes");
        return Err(Invalid::new("not a path of a Unix socket", expected));
    }
    Ok(path.to_owned())
}

/// A server of a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerAddr {
    /// Over TLS: `wss://`, `https://`.
    pub tls: bool,
    /// Where.
    pub place: ServerPlace,
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerPlace {
    /// At an address and a port.
    Tcp(UpstreamAddr),
    /// At a Unix socket.
    Unix(PathBuf),
    /// Wherever the SRV records of this name say.
    Srv(String),
}

impl ServerAddr {
    /// In plain, at an address.
    #[must_use]
    pub fn plain(address: UpstreamAddr) -> Self {
        Self { tls: false, place: ServerPlace::Tcp(address) }
    }
}

impl FromStr for ServerAddr {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self { tls: false, place: ServerPlace::Unix(socket_path(path)?) });
        }
        let (tls, rest) = match text.split_once("://") {
            Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
                "wss" | "https" => (true, rest),
                "srv" if is_name(rest) => {
                    let place = ServerPlace::Srv(rest.to_ascii_lowercase());
                    return Ok(Self { tls: false, place });
                }
                "srv" => {
                    let expected = "srv:// and the name of SRV records";
                    return Err(Invalid::new("not a name of SRV records", expected));
                }
                _ => (false, text),
            },
            None => (false, text),
        };
        // A URL may leave its port to the scheme.
        let port = if tls { "443" } else { "80" };
        let has_scheme = tls || text.contains("://");
        let parsed = rest.parse();
        let place = match parsed {
            Err(_) if has_scheme && !authority(rest).contains([':', '/']) => {
                format!("{}:{port}", authority(rest)).parse()?
            }
            parsed => parsed?,
        };
        Ok(Self { tls, place: ServerPlace::Tcp(place) })
    }
}

/// What stands behind the scheme, if there is one.
fn authority(text: &str) -> &str {
    text.split_once("://").map_or(text, |(_, rest)| rest)
}

impl fmt::Display for ServerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "wss://" } else { "" };
        match &self.place {
            ServerPlace::Tcp(address) => write!(f, "{scheme}{address}"),
            ServerPlace::Unix(path) => write!(f, "unix:{}", path.display()),
            ServerPlace::Srv(name) => write!(f, "srv://{name}"),
        }
    }
}

/// Digits alone: the parser of numbers takes a sign too.
fn parse_port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// A host name as RFC 1123 has it, with the underscore that container
/// networks use. A last label of digits alone is a mistyped IPv4 address.
pub(super) fn is_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=LABEL_MAX).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    name.len() <= NAME_MAX
        && name.split('.').all(label)
        && !name
            .rsplit('.')
            .next()
            .is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
#[path = "addr_tests.rs"]
mod tests;
