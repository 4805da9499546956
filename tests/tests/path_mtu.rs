//! The packet path between routers: a path MTU that shrinks in a session's middle, and routers that
//! say that a host is unreachable. Needs root.

use std::net::{IpAddr, SocketAddr, TcpStream};

use socket2::{Domain, Protocol, Socket, Type};
use wsproxy::datapath::{Mode, Path};
use wsproxy_common::Reason;
use wsproxy_tests::{
    beyond::Beyond,
    namespaces::{Family, Net, Place, address, tcp_counter},
    routed::{End as _, Gateway, PATIENCE, both_ways, connect, converse, listen, patient},
    sessions::{Stream, kernel_expected, wait_for},
};

const KIB: usize = 1 << 10;
const MESSAGES: [usize; 40] = [16 * KIB; 40];

/// A client and a server, each beyond a router.
struct Hosts<'net> {
    client: Beyond<'net>,
    server: Beyond<'net>,
}

impl<'net> Hosts<'net> {
    fn of(net: &'net Net) -> Self {
        let [client, server] = [Place::Client, Place::Server].map(|at| Beyond::add(net, at));
        Self { client, server }
    }

    /// A session between them, on the packet path: its number, and both ends.
    fn session(&self, gateway: &Gateway<'_>, family: Family) -> (u64, TcpStream, TcpStream) {
        let (entry, to) = listen(address(Place::Client, Place::Gateway, family));
        let client = self.client.within(|| connect(to));
        let (ours_client, from) = entry.accept().unwrap();
        assert_eq!(from.ip(), self.client.address(family));
        let (listener, to) = self.server.within(|| listen(self.server.address(family)));
        let ours_upstream = connect(to);
        let (server, _) = listener.accept().unwrap();
        patient(&server);
        let id = gateway.hand_over(ours_client, ours_upstream, None);
        gateway.bench.warm(id, &client, &server);
        (id, client, server)
    }
}

fn counted(gateway: &Gateway<'_>, reason: Reason) -> u64 {
    let reasons = gateway.bench.datapath.reasons();
    reasons.into_iter().find(|(counted, _)| *counted == reason).map_or(0, |(_, n)| n)
}

/// Segments that the gateway's TCP received, and sent.
fn segments() -> [u64; 2] {
    ["InSegs", "OutSegs"].map(tcp_counter)
}

/// On each side of the gateway in turn a router's link shrinks: whoever sends into it is told so by
/// an ICMP message that quotes a packet which the sender has never seen. Without its translation
/// the session would stand still, since no segment that is full passes any more.
#[test]
fn the_path_mtu_may_shrink_in_the_middle() {
    if !kernel_expected() {
        return;
    }
    for net in [Net::new(1500), Net::one_by_one(1500)] {
        let hosts = Hosts::of(&net);
        Gateway::run(&net, Mode::Packet, |gateway| {
            for family in [Family::V4, Family::V6] {
                shrink(gateway, &hosts, family);
            }
        });
    }
}

fn shrink(gateway: &Gateway<'_>, hosts: &Hosts<'_>, family: Family) {
    let (id, client, server) = hosts.session(gateway, family);
    converse(&client, &server, 1, &MESSAGES);
    let before = segments();
    // The server's own stack knows of its link; only the client has to be told. Then the other
    // way round, and with less than the server knows of.
    for (seed, host, mtu) in [(2, &hosts.server, 1400), (4, &hosts.client, 1300)] {
        let told = counted(gateway, Reason::ErrorTranslated);
        host.set_mtu(mtu);
        converse(&client, &server, seed, &MESSAGES);
        let told = counted(gateway, Reason::ErrorTranslated) - told;
        eprintln!("{family:?} {mtu}: {told} messages");
        assert!(told > 0, "nobody was told of the MTU {mtu}");
    }
    both_ways(&client, &server, 6, 256 * KIB);
    assert_eq!(segments(), before, "of the gateway's own: in, out");
    let end = gateway.finish(id, &client, &server);
    let total = (3 * MESSAGES.iter().sum::<usize>() + 256 * KIB) as u64;
    for carried in [end.to_upstream, end.to_client] {
        assert_eq!(carried.packet, total, "{end:?}");
    }
    for host in [&hosts.client, &hosts.server] {
        host.set_mtu(gateway.net.mtu);
    }
}

/// A soft error (RFC 1122, section 4.2.3.9): it is passed on, ends nothing, and TCP goes on when the
/// host is there again.
#[test]
fn an_unreachable_host_ends_nothing() {
    if !kernel_expected() {
        return;
    }
    let net = Net::new(1500);
    net.recover_quickly();
    let hosts = Hosts::of(&net);
    Gateway::run(&net, Mode::Packet, |gateway| {
        for family in [Family::V4, Family::V6] {
            let (id, client, server) = hosts.session(gateway, family);
            for (host, from, to) in
                [(&hosts.server, &client, &server), (&hosts.client, &server, &client)]
            {
                let told = counted(gateway, Reason::ErrorTranslated);
                host.set_unreachable(family, true);
                from.send(&Stream::new(7).take(16 * KIB)).unwrap();
                let is_told = || (counted(gateway, Reason::ErrorTranslated) > told).then_some(());
                assert!(wait_for(PATIENCE, is_told).is_some(), "nobody told {family:?}");
                host.set_unreachable(family, false);
                let mut got = vec![0; 16 * KIB];
                to.receive_all(&mut got).unwrap();
                Stream::new(7).check(&got);
            }
            let path =
                gateway.bench.datapath.sessions().iter().find(|s| s.meta.id == id).unwrap().path;
            assert_eq!(path, Path::Packet);
            let end = gateway.finish(id, &client, &server);
            assert_eq!(end.to_upstream.packet, 16 * KIB as u64, "{end:?}");
        }
    });
}

/// "Fragmentation needed" (RFC 1191) about a segment that `from` has sent to `to`.
fn too_big([from, to]: [SocketAddr; 2], seq: u32) -> Vec<u8> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (from.ip(), to.ip()) else {
        panic!("no IPv4: {from} {to}");
    };
    let mut message = vec![3, 4, 0, 0, 0, 0, 2, 88];
    message.extend([0x45, 0, 5, 220, 0, 1, 0x40, 0, 60, 6, 0, 0]);
    message.extend(source.octets());
    message.extend(destination.octets());
    message.extend(from.port().to_be_bytes());
    message.extend(to.port().to_be_bytes());
    message.extend(seq.to_be_bytes());
    let words = message.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum = words.sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !(folded as u16 + (folded >> 16) as u16);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}

/// Who does not see a session can't make its packets smaller: nothing is under way, so whatever
/// number is quoted is wrong (RFC 5927).
#[test]
fn what_a_stranger_says_goes_nowhere() {
    if !kernel_expected() {
        return;
    }
    let net = Net::new(1500);
    Gateway::run(&net, Mode::Packet, |gateway| {
        let (id, client, server) = gateway.session(Family::V4, None);
        let sessions = gateway.bench.datapath.sessions();
        let ours = sessions.iter().find(|session| session.meta.id == id).unwrap().meta.local;
        let ends = [ours, server.local_addr().unwrap()];
        net.within(Place::Server, || {
            let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
            for quarter in 0..4 {
                raw.send_to(&too_big(ends, quarter << 30), &ours.into()).unwrap();
            }
        });
        let dropped = || (counted(gateway, Reason::ErrorAstray) == 4).then_some(());
        assert!(wait_for(PATIENCE, dropped).is_some(), "{:?}", gateway.bench.datapath.reasons());
        converse(&client, &server, 1, &MESSAGES);
        assert_eq!(counted(gateway, Reason::ErrorTranslated), 0);
        gateway.finish(id, &client, &server);
    });
}
