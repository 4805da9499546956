//! Who the client is, when others speak for it.

use std::net::IpAddr;

use super::Headers;
use crate::config::{AddressHeader, Clients, Network};

/// Most addresses of a list that are looked at, from its end.
const MOST_HOPS: usize = 32;

/// The client's address: the peer's, or what a trusted peer says. In a list the last address
/// that is not itself a trusted proxy is the client; what stands before it could be anybody's
/// invention.
pub fn client_of(clients: &Clients, peer: IpAddr, headers: &impl Headers) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_trusted(clients, peer) {
        return peer;
    }
    let said: Vec<Option<IpAddr>> = match clients.address_header {
        AddressHeader::XForwardedFor => addresses(headers, "x-forwarded-for", plain),
        AddressHeader::Forwarded => addresses(headers, "forwarded", forwarded_for),
        AddressHeader::XRealIp => addresses(headers, "x-real-ip", plain),
    };
    let mut client = peer;
    for address in said.into_iter().rev().take(MOST_HOPS) {
        // Nonsense ends what can be believed.
        let Some(address) = address else { break };
        client = address;
        if !is_trusted(clients, address) {
            break;
        }
    }
    client
}

/// Whether what this peer says of others is believed.
pub(super) fn is_trusted(clients: &Clients, peer: IpAddr) -> bool {
    clients.trusted_proxies.iter().any(|network: &Network| network.contains(peer))
}

fn addresses(
    headers: &impl Headers,
    name: &str,
    parse: fn(&str) -> Option<IpAddr>,
) -> Vec<Option<IpAddr>> {
    let mut found = Vec::new();
    for value in headers.values(name) {
        match std::str::from_utf8(value) {
            Ok(text) => found.extend(text.split(',').map(|element| parse(element.trim()))),
            Err(_) => found.push(None),
        }
    }
    found
}

/// An address, with a port perhaps.
fn plain(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return Some(address.ip().to_canonical());
    }
    let bracketed = text.strip_prefix('[')?.strip_suffix(']')?;
    bracketed.parse().ok().map(|address: IpAddr| address.to_canonical())
}

/// The `for` of one element of `Forwarded` (RFC 7239 section 4).
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let node = element.split(';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.eq_ignore_ascii_case("for").then_some(value)
    })?;
    plain(node.trim_matches('"'))
}

/// What counts as one client in limits: an IPv4 address, or an IPv6 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientKey(IpAddr);

impl ClientKey {
    /// `prefix` is the length in bits of the IPv6 networks that count as one.
    #[must_use]
    pub fn new(address: IpAddr, prefix: u8) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => {
                let kept = u32::from(prefix.clamp(1, 128));
                let mask = u128::MAX << (128 - kept);
                Self(IpAddr::V6((u128::from(v6) & mask).into()))
            }
            v4 @ IpAddr::V4(_) => Self(v4),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(header: AddressHeader) -> Clients {
        let trusted = ["10.0.0.0/8", "::1"].map(|text| text.parse().unwrap());
        Clients { trusted_proxies: trusted.to_vec(), address_header: header }
    }

    fn found(header: AddressHeader, peer: &str, lines: &[(&str, &str)]) -> String {
        let lines: Vec<(String, Vec<u8>)> =
            lines.iter().map(|(n, v)| ((*n).to_owned(), v.as_bytes().to_vec())).collect();
        client_of(&clients(header), peer.parse().unwrap(), &lines).to_string()
    }

    #[test]
    fn only_trusted_peers_are_believed() {
        use AddressHeader::{Forwarded, XForwardedFor, XRealIp};
        for (header, peer, lines, client) in [
            (XForwardedFor, "1.1.1.1", &[("X-Forwarded-For", "2.2.2.2")][..], "1.1.1.1"),
            (XForwardedFor, "10.0.0.1", &[("X-Forwarded-For", "2.2.2.2")], "2.2.2.2"),
            (XForwardedFor, "::ffff:10.0.0.1", &[("X-Forwarded-For", "2.2.2.2")], "2.2.2.2"),
            // What the client wrote itself stands before what the proxy added.
            (XForwardedFor, "10.0.0.1", &[("X-Forwarded-For", "9.9.9.9, 2.2.2.2")], "2.2.2.2"),
            (
                XForwardedFor,
                "10.0.0.1",
                &[("X-Forwarded-For", "9.9.9.9, 2.2.2.2"), ("X-Forwarded-For", "10.0.0.7")],
                "2.2.2.2",
            ),
            (XForwardedFor, "10.0.0.1", &[("X-Forwarded-For", "2.2.2.2, junk")], "10.0.0.1"),
            (XForwardedFor, "10.0.0.1", &[("X-Forwarded-For", "10.0.0.2")], "10.0.0.2"),
            (XForwardedFor, "10.0.0.1", &[], "10.0.0.1"),
            (XForwardedFor, "10.0.0.1", &[("X-Forwarded-For", "[2001:db8::1]:80")], "2001:db8::1"),
            (XRealIp, "10.0.0.1", &[("X-Real-IP", "2.2.2.2:80")], "2.2.2.2"),
            (
                Forwarded,
                "::1",
                &[("Forwarded", "for=9.9.9.9, For=\"[2001:db8::1]:4711\";proto=http")],
                "2001:db8::1",
            ),
            (Forwarded, "::1", &[("Forwarded", "for=_hidden")], "::1"),
        ] {
            assert_eq!(found(header, peer, lines), client, "{header:?} {peer} {lines:?}");
        }
    }

    #[test]
    fn networks_of_ipv6_count_as_one_client() {
        let key = |text: &str, prefix| ClientKey::new(text.parse().unwrap(), prefix);
        assert_eq!(key("2001:db8::1", 64), key("2001:db8::ffff", 64));
        assert_ne!(key("2001:db8::1", 128), key("2001:db8::ffff", 128));
        assert_ne!(key("2001:db8::1", 64), key("2001:db8:0:1::1", 64));
        assert_ne!(key("1.2.3.4", 64), key("1.2.3.5", 64));
        assert_eq!(key("::ffff:1.2.3.4", 64), key("1.2.3.4", 64));
    }
}
