//! Headers for the connections to a server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::v2;

/// The addresses of both ends in one family.
enum Pair {
    Ip4([Ipv4Addr; 2]),
    Ip6([Ipv6Addr; 2]),
}

/// IPv4 if both are (an IPv6 address that stands for an IPv4 one is), else
/// IPv6 with `::ffff:a.b.c.d` for the other one.
fn pair(source: SocketAddr, destination: SocketAddr) -> Pair {
    let both = [source, destination].map(|socket| socket.ip().to_canonical());
    if let [IpAddr::V4(source), IpAddr::V4(destination)] = both {
        return Pair::Ip4([source, destination]);
    }
    Pair::Ip6(both.map(|ip| match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }))
}

/// The line of version 1 (section 2.1), at most 104 bytes. Without one of the
/// addresses (a UNIX socket has none) it is `UNKNOWN`.
#[must_use]
pub fn write_v1(source: Option<SocketAddr>, destination: Option<SocketAddr>) -> Vec<u8> {
    let (Some(source), Some(destination)) = (source, destination) else {
        return b"PROXY UNKNOWN\r\n".to_vec();
    };
    let addresses = match pair(source, destination) {
        Pair::Ip4([from, to]) => format!("TCP4 {from} {to}"),
        Pair::Ip6([from, to]) => format!("TCP6 {} {}", groups(from), groups(to)),
    };
    format!("PROXY {addresses} {} {}\r\n", source.port(), destination.port()).into_bytes()
}

/// The address in groups of hex digits only, as the grammar of version 1 has
/// it: `Display` would write `::ffff:192.0.2.1`.
fn groups(ip: Ipv6Addr) -> String {
    match ip.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] => format!("::ffff:{high:x}:{low:x}"),
        _ => ip.to_string(),
    }
}

/// The header of version 2 (section 2.2), at most 52 bytes. Without one of the
/// addresses (a UNIX socket has none) it is `LOCAL`.
#[must_use]
pub fn write_v2(source: Option<SocketAddr>, destination: Option<SocketAddr>) -> Vec<u8> {
    let mut header = v2::SIGNATURE.to_vec();
    let (Some(source), Some(destination)) = (source, destination) else {
        header.extend([v2::LOCAL, v2::UNSPEC, 0, 0]);
        return header;
    };
    match pair(source, destination) {
        Pair::Ip4(both) => {
            header.extend([v2::PROXY, v2::TCP4, 0, 12]);
            header.extend(both.iter().flat_map(Ipv4Addr::octets));
        }
        Pair::Ip6(both) => {
            header.extend([v2::PROXY, v2::TCP6, 0, 36]);
            header.extend(both.iter().flat_map(Ipv6Addr::octets));
        }
    }
    header.extend([source, destination].iter().flat_map(|socket| socket.port().to_be_bytes()));
    header
}
