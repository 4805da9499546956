//! What the kernel's answers mean: functions of messages.

use std::{io, net::IpAddr};

use netlink_packet_route::{
    link::{
        InfoKind, InfoPortKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
    },
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia},
};

use super::{Device, LOOPBACK, NoWay, Way};

/// A route's next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Index of its device.
    pub device: u32,
    /// The peer is an address of this host.
    pub local: bool,
    /// Who takes the packets, if not the peer.
    pub gateway: Option<IpAddr>,
    /// Bytes, where the route has an MTU of its own.
    pub mtu: Option<u32>,
}

/// Peers whose route needs not be asked for: no connection of ours goes there, or its link would
/// have to be told with it.
pub fn is_special(peer: IpAddr) -> bool {
    let by_family = match peer {
        IpAddr::V4(peer) => peer.is_broadcast(),
        IpAddr::V6(peer) => peer.is_unicast_link_local(),
    };
    by_family || peer.is_multicast() || peer.is_unspecified()
}

/// Whether the kernel says this, too, of a source address that is not this host's.
pub fn may_be_foreign(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENETUNREACH))
}

/// What an error in place of a route means. IPv4's and IPv6's blackholes are EINVAL, prohibited
/// is EACCES, unreachable is EHOSTUNREACH (`fib_props` of the kernel).
pub fn refusal(error: io::Error) -> NoWay {
    match error.raw_os_error() {
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => NoWay::NoRoute,
        Some(libc::EINVAL | libc::EACCES) => NoWay::Special,
        Some(libc::ENODEV) => NoWay::Gone,
        _ => NoWay::Netlink(error),
    }
}

/// The next hop of the route for a packet.
pub fn hop(route: &RouteMessage) -> Result<Hop, NoWay> {
    let mut hop = Hop { device: 0, local: false, gateway: None, mtu: None };
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(device) => hop.device = *device,
            RouteAttribute::Gateway(RouteAddress::Inet(v4)) => hop.gateway = Some((*v4).into()),
            RouteAttribute::Gateway(RouteAddress::Inet6(v6)) => hop.gateway = Some((*v6).into()),
            RouteAttribute::Via(RouteVia::Inet(v4)) => hop.gateway = Some((*v4).into()),
            RouteAttribute::Via(RouteVia::Inet6(v6)) => hop.gateway = Some((*v6).into()),
            RouteAttribute::Metrics(metrics) => hop.mtu = mtu(metrics),
            RouteAttribute::Gateway(_)
            | RouteAttribute::Via(_)
            | RouteAttribute::Encap(_)
            | RouteAttribute::EncapType(_)
            | RouteAttribute::MultiPath(_) => return Err(NoWay::Special),
            _ => {}
        }
    }
    match route.header.kind {
        // Whichever device has the address, the packets go through this one.
        RouteType::Local => Ok(Hop { device: LOOPBACK, local: true, gateway: None, ..hop }),
        // A route to other hosts through `lo` leads nowhere.
        RouteType::Unicast if hop.device == LOOPBACK => Err(NoWay::Special),
        RouteType::Unicast if hop.device != 0 => Ok(hop),
        RouteType::Unreachable => Err(NoWay::NoRoute),
        _ => Err(NoWay::Special),
    }
}

/// 0 means none.
fn mtu(metrics: &[RouteMetric]) -> Option<u32> {
    let mtu = metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    mtu.filter(|mtu| *mtu != 0)
}

/// Whether a route as it is written leads to several next hops. One that only names a nexthop
/// object (`net.ipv4.nexthop_compat_mode = 0`) may, so it counts as one that does.
pub fn has_choice(written: &RouteMessage) -> bool {
    let has = |test: fn(&RouteAttribute) -> bool| written.attributes.iter().any(test);
    has(|a| matches!(a, RouteAttribute::MultiPath(_)))
        || (has(|a| matches!(a, RouteAttribute::NhId(_)))
            && !has(|a| matches!(a, RouteAttribute::Oif(_))))
}

/// The device, if translated packets can use it.
pub fn device(link: &LinkMessage) -> Result<Device, NoWay> {
    let mut device = Device {
        index: link.header.index,
        name: String::new(),
        mtu: 0,
        up: link.header.flags.contains(LinkFlags::Up),
        loopback: link.header.link_layer_type == LinkLayerType::Loopback,
    };
    let mut infos: &[LinkInfo] = &[];
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => device.mtu = *mtu,
            LinkAttribute::LinkInfo(list) => infos = list,
            _ => {}
        }
    }
    match unfit(link.header.link_layer_type, infos) {
        Some(kind) => Err(NoWay::Device { name: device.name, kind }),
        None => Ok(device),
    }
}

/// What makes a device unfit. A TAP device is of kind `tun` and fit: its packets have Ethernet
/// headers, and that decides.
fn unfit(layer: LinkLayerType, infos: &[LinkInfo]) -> Option<String> {
    let kind = infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    });
    let in_vrf = infos.iter().any(|info| matches!(info, LinkInfo::PortKind(InfoPortKind::Vrf)));
    match layer {
        LinkLayerType::Ether | LinkLayerType::Loopback if in_vrf => Some("in a VRF".into()),
        // The VRF itself has Ethernet's type, and no Ethernet.
        LinkLayerType::Ether if kind == Some(&InfoKind::Vrf) => Some("vrf".into()),
        LinkLayerType::Ether | LinkLayerType::Loopback => None,
        layer => Some(
            kind.map_or_else(|| format!("of link type {}", u16::from(layer)), ToString::to_string),
        ),
    }
}

/// A next hop through its device.
pub fn way(hop: Hop, device: &Device) -> Result<Way, NoWay> {
    if !device.up {
        return Err(NoWay::Gone);
    }
    let mtu = hop.mtu.map_or(device.mtu, |mtu| mtu.min(device.mtu));
    Ok(Way { device: device.index, local: hop.local, gateway: hop.gateway, mtu })
}
