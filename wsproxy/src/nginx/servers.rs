//! `server` blocks: their names and where they listen.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use super::notes::Notes;
use super::parser::Directive;
use super::scope::{Level, Scope};
use super::units::is_host_name;

/// Longest path of a Unix socket in bytes.
const SOCKET_PATH_MAX: usize = 107;

/// A server block.
#[derive(Debug)]
pub(super) struct Server<'a> {
    pub directive: &'a Directive,
    pub scope: Rc<Scope<'a>>,
    /// Hosts as our configuration has them.
    pub names: Vec<String>,
    pub listens: Vec<Listen<'a>>,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum At {
    /// Every address, of IPv4 or of IPv6.
    Any {
        v6: bool,
        port: u16,
    },
    Tcp(SocketAddr),
    Unix(String),
}

/// One `listen`.
#[derive(Debug)]
pub(super) struct Listen<'a> {
    /// The `listen`; the server, where it has none.
    pub directive: &'a Directive,
    pub at: At,
    pub ssl: bool,
    pub default: bool,
    pub proxy_protocol: bool,
    pub backlog: Option<u64>,
    pub reuseport: bool,
}

/// Reads a server block.
pub(super) fn server<'a>(
    directive: &'a Directive,
    http: &Rc<Scope<'a>>,
    notes: &Notes,
) -> Server<'a> {
    let scope = http.inner(Level::Server, directive.children());
    let names = names(&scope, notes);
    let ssl_on = scope.word("ssl") == Some("on");
    let mut listens: Vec<_> =
        scope.own("listen").iter().filter_map(|d| listen(d, ssl_on, notes)).collect();
    if !scope.has("listen") {
        listens.push(Listen::at(directive, At::Any { v6: false, port: 80 }, ssl_on));
    }
    Server { directive, scope, names, listens }
}

fn names(scope: &Scope<'_>, notes: &Notes) -> Vec<String> {
    let mut list: Vec<String> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for directive in scope.own("server_name") {
        for text in &directive.args {
            for name in hosts(directive, &text.to_ascii_lowercase(), notes) {
                if seen.insert(name.clone()) {
                    list.push(name);
                }
            }
        }
    }
    list
}

/// The hosts that one name stands for.
fn hosts(directive: &Directive, name: &str, notes: &Notes) -> Vec<String> {
    if matches!(name, "_" | "" | "*" | "--" | "!@#") {
        return Vec::new();
    }
    if let Some(rest) = name.strip_prefix('.')
        && is_host_name(rest)
    {
        return vec![rest.to_owned(), format!("*.{rest}")];
    }
    let bare = name.strip_prefix("*.").unwrap_or(name);
    let inner = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    let is_address =
        name.parse::<Ipv4Addr>().is_ok() || inner.is_some_and(|n| n.parse::<Ipv6Addr>().is_ok());
    if is_host_name(bare) || is_address {
        return vec![name.trim_end_matches('.').to_owned()];
    }
    notes.unsupported(
        directive,
        format!("{name}: hosts are names or *.name: list those that are meant in route.hosts"),
    );
    Vec::new()
}

impl<'a> Listen<'a> {
    fn at(directive: &'a Directive, at: At, ssl: bool) -> Self {
        Self {
            directive,
            at,
            ssl,
            default: false,
            proxy_protocol: false,
            backlog: None,
            reuseport: false,
        }
    }
}

fn listen<'a>(directive: &'a Directive, ssl: bool, notes: &Notes) -> Option<Listen<'a>> {
    let options = directive.args.get(1..).unwrap_or_default();
    if options.iter().any(|option| option == "quic") {
        notes.ignored(directive, "left out: HTTP/3 is not spoken, clients come over TCP");
        return None;
    }
    let at = address(directive, notes)?;
    let mut listen = Listen::at(directive, at, ssl);
    for option in options {
        match option.split_once('=').unwrap_or((option, "")) {
            ("ssl", _) => listen.ssl = true,
            ("default_server" | "default", _) => listen.default = true,
            ("proxy_protocol", _) => listen.proxy_protocol = true,
            ("reuseport", _) => listen.reuseport = true,
            ("backlog", number) => {
                listen.backlog = number.parse().ok().filter(|n| (1..=65_535).contains(n));
            }
            ("http2" | "spdy", _) => {
                notes.ignored(directive, "http2: clients speak HTTP/1.1, as WebSockets do");
            }
            (
                "ipv6only" | "bind" | "deferred" | "fastopen" | "rcvbuf" | "sndbuf" | "setfib"
                | "accept_filter",
                _,
            ) => notes.ignored(directive, format!("{option}: not needed")),
            ("so_keepalive", _) => {
                notes.ignored(directive, format!("{option}: not needed: see timeouts.keepalive"));
            }
            _ => notes.unsupported(directive, format!("{option}: there is nothing like it here")),
        }
    }
    Some(listen)
}

fn address(directive: &Directive, notes: &Notes) -> Option<At> {
    let text = directive.arg(0);
    if let Some(path) = text.strip_prefix("unix:") {
        if path.starts_with('/') && path.len() <= SOCKET_PATH_MAX && !path.contains('\0') {
            return Some(At::Unix(path.to_owned()));
        }
        let message = format!("left out: an absolute path of at most {SOCKET_PATH_MAX} bytes");
        notes.unsupported(directive, message);
        return None;
    }
    let found = tcp(text);
    if found.is_none() {
        notes.unsupported(
            directive,
            "left out: only an IP address with a port can be bound; write a [[listener]] for \
             each address and port",
        );
    } else if text.starts_with("localhost") {
        notes.changed(directive, "localhost became 127.0.0.1");
    }
    found
}

fn tcp(text: &str) -> Option<At> {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let number = |text: &str| text.parse().ok().filter(|port: &u16| digits(text) && *port > 0);
    if !text.is_empty() && digits(text) {
        return number(text).map(|port| At::Any { v6: false, port });
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.starts_with('[') || host.ends_with(']') => {
            (host, number(port)?)
        }
        _ => (text, 80),
    };
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let ip = match (host, inner) {
        ("*", _) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        ("localhost", _) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        (_, Some(inner)) => IpAddr::V6(inner.parse().ok()?),
        (host, None) => IpAddr::V4(host.parse().ok()?),
    };
    if ip.is_unspecified() {
        return Some(At::Any { v6: ip.is_ipv6(), port });
    }
    Some(At::Tcp(SocketAddr::new(ip, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let any = |v6, port| Some(At::Any { v6, port });
        let at = |text: &str| Some(At::Tcp(text.parse().unwrap()));
        for (text, expected) in [
            ("80", any(false, 80)),
            ("*:81", any(false, 81)),
            ("0.0.0.0:82", any(false, 82)),
            ("[::]:80", any(true, 80)),
            ("[::]", any(true, 80)),
            ("10.0.0.1", at("10.0.0.1:80")),
            ("10.0.0.1:8080", at("10.0.0.1:8080")),
            ("[::1]:8080", at("[::1]:8080")),
            ("localhost:8080", at("127.0.0.1:8080")),
            ("", None),
            ("0", None),
            ("70000", None),
            ("8000-8010", None),
            ("host:80", None),
            ("[::1", None),
            ("10.0.0.1:+80", None),
        ] {
            assert_eq!(tcp(text), expected, "{text}");
        }
    }
}
