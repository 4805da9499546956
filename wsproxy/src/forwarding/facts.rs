//! What is known of a request before anything is done with it.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::Headers;
use super::client::{client_of, is_trusted};
use super::headers::cookie;
use crate::config::{Clients, Variable};

/// Longest request id that is taken from a trusted proxy, in bytes.
const ID_MAX: usize = 128;

/// What is known of a connection.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Who is at its other end, or was before a PROXY header.
    pub peer: SocketAddr,
    /// Our end of it, or that of the PROXY header.
    pub local: SocketAddr,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The name that a TLS client asked for.
    pub tls_name: Option<Arc<str>>,
    /// `TLSv1.2`, `TLSv1.3`.
    pub tls_version: Option<&'static str>,
}

/// What is known of a request.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The client's address, behind trusted proxies.
    pub client: IpAddr,
    /// The peer is a trusted proxy.
    pub trusted: bool,
    /// `Host` without its port, in lower case.
    pub host: String,
    /// `Host` as it came.
    pub http_host: String,
    /// The method.
    pub method: String,
    /// Path and query as they came.
    pub target: String,
    /// By which the log can be searched.
    pub request_id: String,
    /// The number that the id was made of, if it is one of ours.
    pub request_number: Option<u64>,
    /// The `X-Forwarded-For` that the upstream gets.
    pub forwarded_for: String,
    /// Where in it the peer's own address begins.
    peer_at: usize,
    /// How the client speaks to us, or to a trusted proxy before us.
    pub scheme: Cow<'static, str>,
}

impl Facts {
    /// Of a request with these `headers`; `new_id` makes its id, with the number it is made of,
    /// unless a trusted proxy gave one.
    pub fn new(
        connection: &Connection,
        clients: &Clients,
        headers: &impl Headers,
        (method, target, http_host): (&str, &str, &str),
        new_id: impl FnOnce() -> (String, Option<u64>),
    ) -> Self {
        let peer = connection.peer.ip().to_canonical();
        let trusted = is_trusted(clients, peer);
        let said = |name: &str| {
            let value = if trusted { headers.values(name).next() } else { None };
            value.and_then(|value| std::str::from_utf8(value).ok())
        };
        let scheme = match said("x-forwarded-proto").map(str::trim) {
            Some("https" | "wss") => Cow::Borrowed("https"),
            Some("http" | "ws") => Cow::Borrowed("http"),
            _ => Cow::Borrowed(connection.scheme),
        };
        let is_id = |id: &&str| {
            (1..=ID_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
        };
        let (request_id, request_number) = match said("x-request-id").filter(is_id) {
            Some(id) => (id.to_owned(), None),
            None => new_id(),
        };
        let mut forwarded_for = String::new();
        if trusted {
            for value in headers.values("x-forwarded-for") {
                if let Ok(text) = std::str::from_utf8(value)
                    && !text.is_empty()
                {
                    forwarded_for.push_str(text);
                    forwarded_for.push_str(", ");
                }
            }
        }
        let before = forwarded_for.len();
        push_address(&mut forwarded_for, peer);
        Self {
            client: client_of(clients, peer, headers),
            trusted,
            host: host_of(http_host),
            http_host: http_host.to_owned(),
            method: method.to_owned(),
            target: target.to_owned(),
            request_id,
            request_number,
            forwarded_for,
            peer_at: before,
            scheme,
        }
    }

    /// The address of the peer, as text.
    #[must_use]
    pub fn peer_text(&self) -> &str {
        self.forwarded_for.get(self.peer_at..).unwrap_or_default()
    }

    /// The path as it came.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The query without its `?`.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// What a variable stands for.
    pub fn value<'v>(
        &'v self,
        variable: &Variable,
        connection: &'v Connection,
        headers: &'v impl Headers,
        upstream: &'v str,
    ) -> Cow<'v, str> {
        match variable {
            Variable::ClientIp => self.client.to_string().into(),
            Variable::ClientPort => connection.peer.port().to_string().into(),
            Variable::Host => self.host.as_str().into(),
            Variable::HttpHost => self.http_host.as_str().into(),
            Variable::Scheme => self.scheme.as_ref().into(),
            Variable::RequestId => self.request_id.as_str().into(),
            Variable::RequestUri => self.target.as_str().into(),
            Variable::Path => self.path().into(),
            Variable::Query => self.query().unwrap_or_default().into(),
            Variable::Method => self.method.as_str().into(),
            Variable::TlsName => connection.tls_name.as_deref().unwrap_or_default().into(),
            Variable::TlsVersion => connection.tls_version.unwrap_or_default().into(),
            Variable::ServerPort => connection.local.port().to_string().into(),
            Variable::ForwardedFor => self.forwarded_for.as_str().into(),
            Variable::Upstream => upstream.into(),
            Variable::Header(name) => {
                headers.values(name).next().map_or(Cow::Borrowed(""), String::from_utf8_lossy)
            }
            Variable::Cookie(name) => cookie(headers, name).unwrap_or_default().into(),
        }
    }
}

/// `Host` as routes compare it: in lower case, without its port and without a final dot.
#[must_use]
pub fn host_of(http_host: &str) -> String {
    let name = match http_host.strip_prefix('[') {
        Some(rest) => rest.find(']').map_or(http_host, |end| &http_host[..end + 2]),
        None => http_host.split(':').next().unwrap_or_default(),
    };
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// The id of the `count`th request of a process that drew `seed`: 32 digits, no two alike.
#[must_use]
pub fn request_id(seed: u64, count: u64) -> String {
    // splitmix64: a permutation, so that no two counts give the same.
    let mut mixed = count.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed.rotate_left(32);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let both = u128::from(seed) << 64 | u128::from(mixed ^ (mixed >> 31));
    // For each request: several times as fast as the formatting of the library.
    let digit = |at: u32| b"0123456789abcdef"[(both >> (4 * (31 - at)) & 15) as usize];
    (0..32).map(|at| char::from(digit(at))).collect()
}

/// Writes an address; for each request, hence by hand where that is simple.
fn push_address(text: &mut String, address: IpAddr) {
    let IpAddr::V4(address) = address else {
        text.push_str(&address.to_string());
        return;
    };
    for (at, octet) in address.octets().into_iter().enumerate() {
        if at > 0 {
            text.push('.');
        }
        let digit = |value: u8| char::from(b'0' + value % 10);
        if octet >= 100 {
            text.push(digit(octet / 100));
        }
        if octet >= 10 {
            text.push(digit(octet / 10));
        }
        text.push(digit(octet));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_compared_without_port_and_case() {
        for (host, name) in [
            ("Example.COM:8080", "example.com"),
            ("example.com.", "example.com"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("1.2.3.4", "1.2.3.4"),
            ("", ""),
        ] {
            assert_eq!(host_of(host), name, "{host}");
        }
    }

    #[test]
    fn ids_differ() {
        let ids: std::collections::HashSet<_> = (0..10_000).map(|n| request_id(7, n)).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| id.len() == 32));
        assert_eq!(request_id(0xab, 0)[..16], format!("{:016x}", 0xab));
    }

    #[test]
    fn addresses_are_written_as_the_library_writes_them() {
        let octets = [0, 1, 9, 10, 11, 99, 100, 101, 109, 110, 199, 200, 255];
        let v4 = octets.map(|octet| IpAddr::from([octet, 255 - octet, octet, octet / 3]));
        for address in v4.into_iter().chain(["2001:db8::1".parse().unwrap()]) {
            let mut text = String::new();
            push_address(&mut text, address);
            assert_eq!(text, address.to_string());
        }
    }

    #[test]
    fn only_a_trusted_proxy_names_scheme_and_id() {
        let connection = Connection {
            peer: "10.0.0.1:5".parse().unwrap(),
            local: "10.0.0.2:80".parse().unwrap(),
            scheme: "http",
            tls_name: None,
            tls_version: None,
        };
        let headers: Vec<(String, Vec<u8>)> = [
            ("X-Forwarded-Proto", "https"),
            ("X-Request-ID", "abc"),
            ("X-Forwarded-For", "9.9.9.9"),
        ]
        .map(|(n, v)| (n.to_owned(), v.as_bytes().to_vec()))
        .to_vec();
        for (trusted, scheme, id, list) in
            [(true, "https", "abc", "9.9.9.9, 10.0.0.1"), (false, "http", "new", "10.0.0.1")]
        {
            let network = "10.0.0.0/8".parse().unwrap();
            let trusted_proxies = if trusted { vec![network] } else { Vec::new() };
            let clients = Clients { trusted_proxies, ..Clients::default() };
            let line = ("GET", "/a?b", "h:1");
            let new = || ("new".to_owned(), None);
            let facts = Facts::new(&connection, &clients, &headers, line, new);
            assert_eq!((&*facts.scheme, &*facts.request_id), (scheme, id));
            assert_eq!(facts.forwarded_for, list);
            assert_eq!((facts.path(), facts.query()), ("/a", Some("b")));
        }
    }
}
