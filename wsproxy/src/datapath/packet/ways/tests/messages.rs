//! Answers built by hand: of devices and routes that the kernel under test may not have.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netlink_packet_core::{Emitable, Parseable};
use netlink_packet_route::{
    AddressFamily,
    link::{
        InfoKind, InfoPortKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
    },
    route::{
        RouteAttribute, RouteLwEnCapType, RouteMessage, RouteMetric, RouteNextHop, RouteType,
        RouteVia,
    },
};

use super::super::{Device, LOOPBACK, NoWay, Way, answers, answers::Hop, emitted};

fn link(layer: LinkLayerType, infos: Vec<LinkInfo>) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = 5;
    link.header.flags = LinkFlags::Up;
    link.header.link_layer_type = layer;
    link.attributes = vec![LinkAttribute::IfName("eth5".into()), LinkAttribute::Mtu(1500)];
    if !infos.is_empty() {
        link.attributes.push(LinkAttribute::LinkInfo(infos));
    }
    // By way of the bytes, as it comes from the kernel.
    LinkMessage::parse(&emitted(&link)).unwrap()
}

fn route(kind: RouteType, attributes: Vec<RouteAttribute>) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet;
    route.header.kind = kind;
    route.attributes = attributes;
    RouteMessage::parse(&emitted(&route)).unwrap()
}

fn label<T: std::fmt::Debug>(result: Result<T, NoWay>) -> &'static str {
    result.unwrap_err().label()
}

#[test]
fn whatever_has_ethernet_headers_is_a_device() {
    use InfoKind::{Bond, Bridge, Dummy, MacVlan, Tun, Veth, Vlan, Vxlan};
    let expected = Device { index: 5, name: "eth5".into(), mtu: 1500, up: true, loopback: false };
    assert_eq!(answers::device(&link(LinkLayerType::Ether, vec![])).unwrap(), expected);
    for kind in [Bond, Bridge, Dummy, MacVlan, Tun, Veth, Vlan, Vxlan] {
        let device = answers::device(&link(LinkLayerType::Ether, vec![LinkInfo::Kind(kind)]));
        assert_eq!(device.unwrap(), expected);
    }
    for port in [InfoPortKind::Bridge, InfoPortKind::Bond] {
        let infos = vec![LinkInfo::Kind(Veth), LinkInfo::PortKind(port)];
        assert_eq!(answers::device(&link(LinkLayerType::Ether, infos)).unwrap(), expected);
    }
    let lo = answers::device(&link(LinkLayerType::Loopback, vec![])).unwrap();
    assert!(lo.loopback);
}

#[test]
fn tunnels_and_vrfs_are_none_and_say_what_they_are() {
    let refused = |layer, infos: Vec<LinkInfo>| match answers::device(&link(layer, infos)) {
        Err(NoWay::Device { name, kind }) => {
            assert_eq!(name, "eth5");
            kind
        }
        other => panic!("{other:?}"),
    };
    let kind = |kind| vec![LinkInfo::Kind(kind)];
    assert_eq!(refused(LinkLayerType::None, kind(InfoKind::Wireguard)), "wireguard");
    assert_eq!(refused(LinkLayerType::None, kind(InfoKind::Tun)), "tun");
    assert_eq!(refused(LinkLayerType::Tunnel, kind(InfoKind::IpIp)), "ipip");
    assert_eq!(refused(LinkLayerType::Ppp, vec![]), "of link type 512");
    assert_eq!(refused(LinkLayerType::Ether, kind(InfoKind::Vrf)), "vrf");
    let member = vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::PortKind(InfoPortKind::Vrf)];
    assert_eq!(refused(LinkLayerType::Ether, member), "in a VRF");
}

#[test]
fn a_hop_is_what_the_route_says() {
    let gateway: IpAddr = [10, 0, 0, 1].into();
    let attributes = vec![
        RouteAttribute::Oif(5),
        RouteAttribute::Gateway(gateway.into()),
        RouteAttribute::Metrics(vec![RouteMetric::Advmss(9), RouteMetric::Mtu(1400)]),
    ];
    let expected = Hop { device: 5, local: false, gateway: Some(gateway), mtu: Some(1400) };
    let unicast = route(RouteType::Unicast, attributes.clone());
    assert_eq!(answers::hop(&unicast).unwrap(), expected);
    // An address of this host: by `lo`, whatever device the route names.
    let local = answers::hop(&route(RouteType::Local, attributes)).unwrap();
    assert_eq!(local, Hop { device: LOOPBACK, local: true, gateway: None, mtu: Some(1400) });
    // IPv4 by an IPv6 router.
    let v6 = Ipv6Addr::LOCALHOST;
    let via = vec![RouteAttribute::Oif(5), RouteAttribute::Via(RouteVia::Inet6(v6))];
    let hop = answers::hop(&route(RouteType::Unicast, via)).unwrap();
    assert_eq!((hop.gateway, hop.mtu), (Some(v6.into()), None));
}

#[test]
fn special_routes_are_no_way() {
    use RouteType::{Anycast, BlackHole, Broadcast, Multicast, Prohibit, Throw, Unreachable};
    let by = |device| vec![RouteAttribute::Oif(device)];
    for kind in [Anycast, BlackHole, Broadcast, Multicast, Prohibit, Throw] {
        assert_eq!(label(answers::hop(&route(kind, by(5)))), "packet_special", "{kind:?}");
    }
    assert_eq!(label(answers::hop(&route(Unreachable, by(5)))), "packet_no_route");
    assert_eq!(label(answers::hop(&route(RouteType::Unicast, by(LOOPBACK)))), "packet_special");
    assert_eq!(label(answers::hop(&route(RouteType::Unicast, vec![]))), "packet_special");
    let wrapped = vec![RouteAttribute::Oif(5), RouteAttribute::EncapType(RouteLwEnCapType::Seg6)];
    assert_eq!(label(answers::hop(&route(RouteType::Unicast, wrapped))), "packet_special");
}

#[test]
fn several_next_hops_are_seen() {
    let chooses = |attributes| answers::has_choice(&route(RouteType::Unicast, attributes));
    let hops = vec![RouteNextHop::default(), RouteNextHop::default()];
    assert!(chooses(vec![RouteAttribute::MultiPath(hops)]));
    assert!(chooses(vec![RouteAttribute::NhId(7)]));
    assert!(!chooses(vec![RouteAttribute::NhId(7), RouteAttribute::Oif(5)]));
    assert!(!chooses(vec![RouteAttribute::Oif(5)]));
}

#[test]
fn the_smaller_mtu_counts_and_a_device_that_is_down_is_gone() {
    let device = answers::device(&link(LinkLayerType::Ether, vec![])).unwrap();
    let hop = |mtu| Hop { device: 5, local: false, gateway: None, mtu };
    for (of_route, expected) in [(None, 1500), (Some(1280), 1280), (Some(9000), 1500)] {
        let way = answers::way(hop(of_route), &device).unwrap();
        assert_eq!(way, Way { device: 5, local: false, gateway: None, mtu: expected });
    }
    let zero = vec![RouteAttribute::Oif(5), RouteAttribute::Metrics(vec![RouteMetric::Mtu(0)])];
    assert_eq!(answers::hop(&route(RouteType::Unicast, zero)).unwrap().mtu, None);
    let down = Device { up: false, ..device };
    assert_eq!(label(answers::way(hop(None), &down)), "packet_gone");
}

#[test]
fn errors_in_place_of_a_route() {
    let refusal = |number| answers::refusal(io::Error::from_raw_os_error(number)).label();
    assert_eq!(refusal(libc::ENETUNREACH), "packet_no_route");
    assert_eq!(refusal(libc::EHOSTUNREACH), "packet_no_route");
    assert_eq!(refusal(libc::EINVAL), "packet_special");
    assert_eq!(refusal(libc::EACCES), "packet_special");
    assert_eq!(refusal(libc::ENODEV), "packet_gone");
    assert_eq!(refusal(libc::ENOBUFS), "packet_netlink");
}

#[test]
fn some_peers_need_not_be_asked_for() {
    for special in ["224.0.0.1", "255.255.255.255", "0.0.0.0", "ff02::1", "fe80::1", "::"] {
        assert!(answers::is_special(special.parse().unwrap()), "{special}");
    }
    assert!(!answers::is_special(Ipv4Addr::LOCALHOST.into()));
    assert!(!answers::is_special(Ipv6Addr::LOCALHOST.into()));
}

#[test]
fn a_question_is_as_long_as_it_says() {
    // The header's 12 bytes, then 8 bytes for each IPv4 address and for the protocol.
    let [peer, from]: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
    let question = super::super::route_question(peer, Some(from), Default::default());
    assert_eq!(question.len(), 12 + 3 * 8);
    assert_eq!(question[..3], [u8::try_from(libc::AF_INET).unwrap(), 32, 32]);
    let parsed = RouteMessage::parse(&question).unwrap();
    assert!(parsed.attributes.contains(&RouteAttribute::IpProto(6)));
    assert_eq!(parsed.buffer_len(), question.len());
}
