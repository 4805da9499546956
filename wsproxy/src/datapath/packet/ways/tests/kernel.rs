//! A namespace for each test, with what `ip` makes in it. Needs root.

use std::{
    fs::File,
    io::Write as _,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsFd,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::super::{LOOPBACK, MOST_KNOWN, NoWay, Way, Ways};

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(20);
const OUR_V4: &str = "10.88.1.1";
const OUR_V6: &str = "fd88:1::1";
/// `veth` has both addresses; its other end is there, too.
const BASIC: &str = "link set lo up
link add veth type veth peer name other
link set veth up
link set other up
addr add 10.88.1.1/24 dev veth
addr add fd88:1::1/64 dev veth nodad";

/// A network namespace; gone when dropped.
struct Namespace(String);

impl Namespace {
    /// Makes it and runs the lines in it; none without root.
    fn new(lines: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            let _ = writeln!(std::io::stderr(), "!!! SKIPPED: namespaces need root");
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("wspw{}n{number}", std::process::id());
        let made = Command::new("ip").args(["netns", "add", &name]).output();
        let made = made.unwrap_or_else(|e| panic!("ip (iproute2) is needed: {e}"));
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let namespace = Self(name);
        namespace.ip(lines);
        Some(namespace)
    }

    fn ip(&self, lines: &str) {
        let errors = self.try_ip(lines);
        assert!(errors.is_none(), "{lines}: {errors:?}");
    }

    /// Runs lines of `ip`; what it says of those that fail.
    fn try_ip(&self, lines: &str) -> Option<String> {
        let mut ip = Command::new("ip")
            .args(["-n", &self.0, "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Dropped at once: the end of what it reads.
        ip.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        let output = ip.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        (!output.status.success()).then_some(errors)
    }

    /// One call of `ip`, options and all.
    fn ip_words(&self, words: &str) {
        let mut ip = Command::new("ip");
        let output = ip.args(["-n", &self.0]).args(words.split_whitespace()).output().unwrap();
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn ways(&self) -> Ways {
        let path = format!("/run/netns/{}", self.0);
        let namespace = File::open(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        // A socket belongs to the namespace of the thread that opened it.
        thread::scope(|scope| {
            let opened = scope.spawn(|| {
                let network = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(namespace.as_fd(), network).unwrap();
                Ways::open().unwrap()
            });
            opened.join().unwrap()
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn index(ways: &mut Ways, name: &str) -> u32 {
    let devices = ways.devices().unwrap();
    devices.iter().find(|d| d.name == name).unwrap_or_else(|| panic!("{devices:?}")).index
}

fn to(ways: &mut Ways, peer: &str, from: &str) -> Way {
    ways.to(address(peer), address(from)).unwrap_or_else(|e| panic!("{peer} from {from}: {e:?}"))
}

fn refused(ways: &mut Ways, peer: &str, from: &str) -> &'static str {
    ways.to(address(peer), address(from)).expect_err(peer).label()
}

fn wait_for_change(ways: &mut Ways) {
    let deadline = Instant::now() + PATIENCE;
    while !ways.has_changed() {
        assert!(Instant::now() < deadline, "nobody told of the change");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn on_the_link_and_by_a_gateway() {
    let Some(namespace) = Namespace::new(BASIC) else { return };
    namespace.ip("route add 10.99.0.0/16 via 10.88.1.254
        route add fd99::/64 via fd88:1::fe
        route add 10.98.0.0/16 via inet6 fd88:1::fe dev veth");
    let mut ways = namespace.ways();
    let veth = index(&mut ways, "veth");
    let by = |gateway| Way { device: veth, local: false, gateway, mtu: 1500 };
    assert_eq!(to(&mut ways, "10.88.1.7", OUR_V4), by(None));
    assert_eq!(to(&mut ways, "fd88:1::7", OUR_V6), by(None));
    assert_eq!(to(&mut ways, "10.99.3.4", OUR_V4), by(Some(address("10.88.1.254"))));
    assert_eq!(to(&mut ways, "fd99::5", OUR_V6), by(Some(address("fd88:1::fe"))));
    assert_eq!(to(&mut ways, "10.98.3.4", OUR_V4), by(Some(address("fd88:1::fe"))));
    assert_eq!(
        to(&mut ways, "::ffff:10.99.3.4", "::ffff:10.88.1.1").gateway,
        Some(address("10.88.1.254"))
    );
    // Not bound yet.
    assert_eq!(to(&mut ways, "10.88.1.7", "0.0.0.0"), by(None));
}

#[test]
fn addresses_of_this_host_are_behind_lo() {
    let Some(namespace) = Namespace::new(BASIC) else { return };
    namespace.ip("addr add 10.88.2.1/24 dev other");
    let mut ways = namespace.ways();
    let devices = ways.devices().unwrap();
    let lo = devices.iter().find(|d| d.loopback).unwrap();
    assert_eq!((lo.index, lo.name.as_str(), lo.up), (LOOPBACK, "lo", true));
    let expected = Way { device: LOOPBACK, local: true, gateway: None, mtu: lo.mtu };
    for (peer, from) in [
        ("127.0.0.1", "127.0.0.1"),
        ("127.9.9.9", "127.0.0.1"),
        ("::1", "::1"),
        (OUR_V4, OUR_V4),
        (OUR_V4, "127.0.0.1"),
        ("10.88.2.1", OUR_V4),
        (OUR_V6, OUR_V6),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1"),
    ] {
        assert_eq!(to(&mut ways, peer, from), expected, "{peer} from {from}");
    }
}

#[test]
fn where_no_route_leads() {
    let Some(namespace) = Namespace::new(BASIC) else { return };
    namespace.ip("route add blackhole 10.91.0.0/16
        route add prohibit 10.92.0.0/16
        route add unreachable 10.93.0.0/16
        route add 10.94.0.0/16 dev lo
        route add 10.95.0.0/16 nexthop via 10.88.1.2 nexthop via 10.88.1.3
        route add fd95::/64 nexthop via fd88:1::2 nexthop via fd88:1::3
        route add blackhole fd91::/64
        route add prohibit fd92::/64
        route add unreachable fd93::/64");
    let mut ways = namespace.ways();
    for (peer, why) in [
        ("192.0.2.1", "packet_no_route"),
        ("10.91.0.1", "packet_special"),
        ("10.92.0.1", "packet_special"),
        ("10.93.0.1", "packet_no_route"),
        ("10.94.0.1", "packet_special"),
        ("10.95.0.1", "packet_special"),
        ("10.88.1.255", "packet_special"),
        ("224.0.0.5", "packet_special"),
    ] {
        assert_eq!(refused(&mut ways, peer, OUR_V4), why, "{peer}");
        // Known now.
        assert_eq!(refused(&mut ways, peer, OUR_V4), why, "{peer}");
    }
    for (peer, why) in [
        ("2001:db8::1", "packet_no_route"),
        ("fd91::1", "packet_special"),
        ("fd92::1", "packet_special"),
        ("fd93::1", "packet_no_route"),
        ("fd95::1", "packet_special"),
        ("fe80::1", "packet_special"),
    ] {
        assert_eq!(refused(&mut ways, peer, OUR_V6), why, "{peer}");
    }
}

#[test]
fn a_nexthop_object_and_a_group_of_them() {
    let Some(namespace) = Namespace::new(BASIC) else { return };
    namespace.ip("nexthop add id 1 via 10.88.1.2 dev veth
        nexthop add id 2 via 10.88.1.3 dev veth
        nexthop add id 3 group 1/2
        route add 10.96.0.0/16 nhid 1
        route add 10.97.0.0/16 nhid 3");
    let mut ways = namespace.ways();
    assert_eq!(to(&mut ways, "10.96.0.1", OUR_V4).gateway, Some(address("10.88.1.2")));
    assert_eq!(refused(&mut ways, "10.97.0.1", OUR_V4), "packet_special");
    while ways.has_changed() {}
    namespace.ip("nexthop replace id 1 via 10.88.1.4 dev veth");
    wait_for_change(&mut ways);
    assert_eq!(to(&mut ways, "10.96.0.1", OUR_V4).gateway, Some(address("10.88.1.4")));
}

#[test]
fn what_a_source_address_changes() {
    let Some(namespace) = Namespace::new(BASIC) else { return };
    namespace.ip("addr add 10.88.1.9/24 dev veth
        addr add 10.88.1.10/24 dev veth
        route add default via 10.88.1.254
        route add default via 10.88.1.253 table 77
        rule add from 10.88.1.9 table 77
        rule add from 10.88.1.10 unreachable");
    let mut ways = namespace.ways();
    let gateway = |ways: &mut Ways, from| to(ways, "192.0.2.1", from).gateway;
    assert_eq!(gateway(&mut ways, OUR_V4), Some(address("10.88.1.254")));
    assert_eq!(gateway(&mut ways, "10.88.1.9"), Some(address("10.88.1.253")));
    // A client's, on a transparent socket.
    assert_eq!(gateway(&mut ways, "203.0.113.5"), Some(address("10.88.1.254")));
    assert_eq!(to(&mut ways, "fd88:1::7", "2001:db8::5").gateway, None);
    // Ours, and refused: not asked for without it.
    assert_eq!(refused(&mut ways, "192.0.2.1", "10.88.1.10"), "packet_no_route");
}

#[test]
fn a_tun_device_is_named_and_a_tap_device_is_ethernet() {
    let Some(namespace) = Namespace::new(BASIC) else { return };
    namespace.ip("tuntap add dev wsp_tun mode tun
        tuntap add dev wsp_tap mode tap
        link set wsp_tun up
        link set wsp_tap up
        addr add 10.88.3.1/24 dev wsp_tun
        addr add 10.88.4.1/24 dev wsp_tap");
    let mut ways = namespace.ways();
    match ways.to(address("10.88.3.7"), address("10.88.3.1")) {
        Err(NoWay::Device { name, kind }) => {
            assert_eq!((name.as_str(), kind.as_str()), ("wsp_tun", "tun"));
        }
        other => panic!("{other:?}"),
    }
    let tap = index(&mut ways, "wsp_tap");
    assert_eq!(to(&mut ways, "10.88.4.7", "10.88.4.1").device, tap);
    assert!(ways.devices().unwrap().iter().all(|d| d.name != "wsp_tun"));
}

#[test]
fn ethernet_devices_of_many_kinds() {
    let Some(namespace) = Namespace::new(BASIC) else { return };
    let kinds = [
        "bridge",
        "dummy",
        "bond",
        "vlan id 5 link veth",
        "macvlan link veth",
        "vxlan id 7 dstport 4789 dev veth",
    ];
    let mut ways = namespace.ways();
    for (number, kind) in (1..).zip(kinds) {
        let (name, rest) = kind.split_once(' ').unwrap_or((kind, ""));
        let (parent, options) = match rest.split_once("link veth") {
            Some((options, _)) => ("link veth", options),
            None => ("", rest),
        };
        let made =
            namespace.try_ip(&format!("link add {parent} name dev{number} type {name} {options}"));
        if let Some(errors) = made {
            // Any other failure is one.
            assert!(errors.contains("Unknown device type"), "{kind}: {errors}");
            eprintln!("this kernel has no {name}");
            continue;
        }
        namespace
            .ip(&format!("link set dev{number} up\naddr add 10.89.{number}.1/24 dev dev{number}"));
        let expected = index(&mut ways, &format!("dev{number}"));
        let (peer, from) = (format!("10.89.{number}.7"), format!("10.89.{number}.1"));
        assert_eq!(to(&mut ways, &peer, &from).device, expected, "{kind}");
    }
}

#[test]
fn vrf_members_are_refused_where_there_are_vrfs() {
    let Some(namespace) = Namespace::new(BASIC) else { return };
    if let Some(errors) = namespace.try_ip("link add red type vrf table 10") {
        assert!(errors.contains("Unknown device type"), "{errors}");
        eprintln!("this kernel has no vrf");
        return;
    }
    namespace.ip("link set red up\nlink set veth master red");
    namespace.ip("route add 10.88.5.0/24 dev veth\nroute add 10.88.6.0/24 dev red");
    let mut ways = namespace.ways();
    assert_eq!(refused(&mut ways, "10.88.5.7", "10.88.1.1"), "packet_device");
    assert_eq!(refused(&mut ways, "10.88.6.7", "10.88.1.1"), "packet_device");
}

#[test]
fn the_mtu_of_a_route_and_of_a_device() {
    let Some(namespace) = Namespace::new(BASIC) else { return };
    namespace.ip("route add 10.99.0.0/16 via 10.88.1.254 mtu 1400
        route add 10.98.0.0/16 via 10.88.1.254 mtu 9000
        route add fd99::/64 via fd88:1::fe mtu 1300");
    let mut ways = namespace.ways();
    assert_eq!(to(&mut ways, "10.99.0.1", OUR_V4).mtu, 1400);
    assert_eq!(to(&mut ways, "10.98.0.1", OUR_V4).mtu, 1500);
    assert_eq!(to(&mut ways, "fd99::1", OUR_V6).mtu, 1300);
    while ways.has_changed() {}
    namespace.ip("link set veth mtu 1350");
    wait_for_change(&mut ways);
    assert_eq!(to(&mut ways, "10.99.0.1", OUR_V4).mtu, 1350);
    assert_eq!(to(&mut ways, "10.88.1.7", OUR_V4).mtu, 1350);
}

#[test]
fn a_changed_route_is_noticed_and_asked_for_anew() {
    let Some(namespace) = Namespace::new(BASIC) else { return };
    namespace.ip("route add 10.99.0.0/16 via 10.88.1.254");
    let mut ways = namespace.ways();
    let gateway = |ways: &mut Ways| to(ways, "10.99.0.1", OUR_V4).gateway;
    assert_eq!(gateway(&mut ways), Some(address("10.88.1.254")));
    namespace.ip("route replace 10.99.0.0/16 via 10.88.1.253");
    // What is known holds until the news are read.
    assert_eq!(gateway(&mut ways), Some(address("10.88.1.254")));
    wait_for_change(&mut ways);
    assert_eq!(gateway(&mut ways), Some(address("10.88.1.253")));
    namespace.ip("route del 10.99.0.0/16");
    wait_for_change(&mut ways);
    assert_eq!(refused(&mut ways, "10.99.0.1", OUR_V4), "packet_no_route");
}

#[test]
fn every_kind_of_change_is_told() {
    let Some(namespace) = Namespace::new("") else { return };
    let mut ways = namespace.ways();
    // Only `lo` is there, and down: nothing happens by itself.
    assert!(!ways.has_changed());
    for change in [
        "link set lo up",
        "addr add 10.88.7.1/32 dev lo",
        "route add 10.88.8.0/24 dev lo",
        "route add fd88:8::/64 dev lo",
        "rule add from 10.88.7.2 table 77",
        "-6 rule add from fd88:7::2 table 77",
        "link set lo mtu 30000",
        "addr del 10.88.7.1/32 dev lo",
        "nexthop add id 1 blackhole",
        "link set lo down",
    ] {
        namespace.ip_words(change);
        wait_for_change(&mut ways);
        while ways.has_changed() {}
    }
}

#[test]
fn lost_notifications_are_a_change_too() {
    let Some(namespace) = Namespace::new("link set lo up") else { return };
    let mut ways = namespace.ways();
    // Far more than the socket's buffer holds.
    let lines: String =
        (0..2000).map(|n| format!("route add 10.77.{}.{}/32 dev lo\n", n / 250, n % 250)).collect();
    namespace.ip(&lines);
    assert!(ways.has_changed());
    while ways.has_changed() {}
    // It still listens.
    namespace.ip("route del 10.77.0.0/32");
    wait_for_change(&mut ways);
}

#[test]
fn a_deleted_device_takes_its_ways_with_it() {
    let Some(namespace) = Namespace::new(BASIC) else { return };
    let mut ways = namespace.ways();
    let veth = index(&mut ways, "veth");
    assert_eq!(to(&mut ways, "10.88.1.7", OUR_V4).device, veth);
    while ways.has_changed() {}
    namespace.ip("link del veth");
    wait_for_change(&mut ways);
    assert_eq!(refused(&mut ways, "10.88.1.7", OUR_V4), "packet_no_route");
    assert!(ways.devices().unwrap().iter().all(|d| d.index != veth));
    assert!(matches!(ways.device(veth), Err(NoWay::Gone)));
}

#[test]
fn devices_are_listed_up_or_down() {
    let Some(namespace) = Namespace::new(BASIC) else { return };
    namespace.ip("link set other down\nlink set other mtu 1400");
    let devices = namespace.ways().devices().unwrap();
    let one = |name| devices.iter().find(|d| d.name == name).unwrap();
    assert_eq!(devices.len(), 3, "{devices:?}");
    assert!(one("lo").loopback && one("lo").up);
    assert!(one("veth").up && !one("veth").loopback && one("veth").mtu == 1500);
    assert!(!one("other").up && one("other").mtu == 1400);
}

#[test]
fn what_is_known_is_bounded() {
    let Some(namespace) = Namespace::new("link set lo up") else { return };
    let mut ways = namespace.ways();
    for n in 0..u32::try_from(MOST_KNOWN).unwrap() + 10 {
        let peer = Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 0, 0).to_bits() + 1 + n);
        assert!(ways.to(peer.into(), address("127.0.0.1")).is_ok());
        assert!(ways.known.len() <= MOST_KNOWN);
    }
    assert_eq!(ways.known.len(), 10);
}
