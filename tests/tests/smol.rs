//! The datapaths with a second TCP implementation (smoltcp) as client, as server and as both.
//! Needs root.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpStream},
    process::Command,
    thread,
};

use wsproxy::datapath::{Ending, Mode, Path};
use wsproxy_tests::{
    namespaces::{Family, Net, Place, address},
    routed::{End, Gateway, both_ways, connect, converse, drain, listen, patient, push},
    sessions::{Stream, kernel_expected},
    smol::{SmolPeer, Timestamps, gateway_address},
};

const KIB: usize = 1 << 10;

/// One test a datapath for each function.
macro_rules! over_all {
    ($($mode:ident: $variant:ident),*; $tests:tt) => { $(over_all!(@ $mode $variant $tests);)* };
    (@ $mode:ident $variant:ident { $($name:ident,)* }) => {
        mod $mode { $(#[test] fn $name() { super::$name(super::Mode::$variant); })* }
    };
}

over_all!(relay: Relay, sockmap: Sockmap, packet: Packet; { a_client, a_server, both, breaks_off, });

/// Runs `test` in a gateway, over each family, with and without timestamps.
fn with_gateway(mode: Mode, test: impl Fn(&Gateway<'_>, Family, Timestamps) + Sync) {
    // The relay too: namespaces need root.
    if !kernel_expected() {
        return;
    }
    let net = &Net::new(1500);
    Gateway::run(net, mode, |gateway| {
        for family in net.families() {
            for timestamps in [Timestamps::Offered, Timestamps::None] {
                if mode == Mode::Packet {
                    linux_too(net, timestamps);
                }
                test(gateway, *family, timestamps);
            }
        }
    });
}

/// Has Linux' peers offer timestamps or not: packets are translated where both sides agreed.
fn linux_too(net: &Net, timestamps: Timestamps) {
    let offered = if timestamps == Timestamps::Offered { "1" } else { "0" };
    for place in [Place::Client, Place::Server] {
        net.within(place, || {
            std::fs::write("/proc/sys/net/ipv4/tcp_timestamps", offered).unwrap();
        });
    }
}

/// Gives both connections to the datapath; the session's number.
fn hand_over(
    gateway: &Gateway<'_>,
    [ours, upstream]: [TcpStream; 2],
    client: &impl End,
    server: &impl End,
) -> u64 {
    let id = gateway.hand_over(ours, upstream, None);
    if gateway.bench.path == Path::Packet {
        gateway.bench.warm(id, client, server);
    }
    id
}

/// A client of smoltcp's, connected: its end and the gateway's.
fn smol_client<'a>(
    gateway: &Gateway<'a>,
    family: Family,
    timestamps: Timestamps,
) -> (SmolPeer<'a>, TcpStream) {
    // The address is there with the device, so with the peer: whoever listens before it does so
    // on every address.
    let any = if family == Family::V4 { "0.0.0.0:0" } else { "[::]:0" };
    let any: SocketAddr = any.parse().unwrap();
    let (listener, at) = listen(any.ip());
    let client = SmolPeer::client(gateway.net, family, at.port(), timestamps);
    client.established();
    let (ours, from) = listener.accept().unwrap();
    assert_eq!(from, client.address());
    assert_eq!(ours.local_addr().unwrap().ip(), gateway_address(Place::Client, family));
    assert_options(&ours, timestamps);
    (client, ours)
}

fn smol_server<'a>(
    gateway: &Gateway<'a>,
    family: Family,
    timestamps: Timestamps,
) -> (SmolPeer<'a>, TcpStream) {
    let server = SmolPeer::server(gateway.net, family, timestamps);
    let ours = connect(server.address());
    server.established();
    assert_options(&ours, timestamps);
    (server, ours)
}

/// What Linux says of the connection.
fn assert_options(ours: &TcpStream, timestamps: Timestamps) {
    let ports = [ours.local_addr().unwrap().port(), ours.peer_addr().unwrap().port()];
    let filter = format!("sport = :{} and dport = :{}", ports[0], ports[1]);
    let said = Command::new("ss").args(["-tionHO", &filter]).output().expect("ss (iproute2)");
    let said = String::from_utf8_lossy(&said.stdout);
    let words: Vec<_> = said.split_whitespace().collect();
    assert!(words.contains(&"sack"), "{said}");
    assert_eq!(words.contains(&"ts"), timestamps == Timestamps::Offered, "{said}");
}

fn linux_client(gateway: &Gateway<'_>, family: Family) -> (TcpStream, TcpStream) {
    let (listener, to) = listen(address(Place::Client, Place::Gateway, family));
    let client = gateway.net.within(Place::Client, || connect(to));
    (client, listener.accept().unwrap().0)
}

fn linux_server(gateway: &Gateway<'_>, family: Family) -> (TcpStream, TcpStream) {
    let ip = address(Place::Server, Place::Server, family);
    let (listener, to) = gateway.net.within(Place::Server, || listen(ip));
    let ours = connect(to);
    let (server, _) = listener.accept().unwrap();
    patient(&server);
    (server, ours)
}

/// An echo, 256 KiB each way, a FIN each way.
fn talk<C: End, S: End>(
    gateway: &Gateway<'_>,
    (client, ours): (C, TcpStream),
    (server, upstream): (S, TcpStream),
) {
    let sizes = [1, 100, 1460, 1461, 16 * KIB, 40 * KIB, 7];
    let id = hand_over(gateway, [ours, upstream], &client, &server);
    converse(&client, &server, 1, &sizes);
    both_ways(&client, &server, 1, 256 * KIB);
    let end = gateway.finish(id, &client, &server);
    let said = (sizes.iter().sum::<usize>() + 256 * KIB) as u64;
    for carried in [end.to_upstream, end.to_client] {
        assert_eq!(carried.total(), said, "{end:?}");
        match gateway.bench.path {
            Path::Relay => {}
            Path::Sockmap => assert!(carried.kernel > 0, "{end:?}"),
            Path::Packet => assert_eq!(carried.packet, said, "{end:?}"),
        }
    }
}

fn a_client(mode: Mode) {
    with_gateway(mode, |gateway, family, timestamps| {
        talk(gateway, smol_client(gateway, family, timestamps), linux_server(gateway, family));
    });
}

fn a_server(mode: Mode) {
    with_gateway(mode, |gateway, family, timestamps| {
        talk(gateway, linux_client(gateway, family), smol_server(gateway, family, timestamps));
    });
}

fn both(mode: Mode) {
    with_gateway(mode, |gateway, family, timestamps| {
        talk(
            gateway,
            smol_client(gateway, family, timestamps),
            smol_server(gateway, family, timestamps),
        );
    });
}

/// smoltcp aborts, as client and as server, and is told of an abort.
fn breaks_off(mode: Mode) {
    with_gateway(mode, |gateway, family, timestamps| {
        let (client, ours) = smol_client(gateway, family, timestamps);
        let (server, upstream) = linux_server(gateway, family);
        let id = hand_over(gateway, [ours, upstream], &client, &server);
        break_off(gateway, id, Ending::ClientBroke, client, SmolPeer::abort, &server);

        let (client, ours) = smol_client(gateway, family, timestamps);
        let (server, upstream) = smol_server(gateway, family, timestamps);
        let id = hand_over(gateway, [ours, upstream], &client, &server);
        break_off(gateway, id, Ending::UpstreamBroke, server, SmolPeer::abort, &client);
    });
}

/// One side breaks in the middle of streams both ways.
fn break_off<B: End>(
    gateway: &Gateway<'_>,
    id: u64,
    ending: Ending,
    breaking: B,
    abort: impl FnOnce(&B),
    other: &impl End,
) {
    let some = 64 * KIB;
    thread::scope(|scope| {
        let sender = scope.spawn(|| push(other, 2));
        let reader = scope.spawn(|| drain(other, 1));
        breaking.send(&Stream::new(1).take(some)).unwrap();
        let mut got = vec![0; some];
        breaking.receive_all(&mut got).unwrap();
        Stream::new(2).check(&got);
        abort(&breaking);
        let ends = [sender.join().unwrap(), reader.join().unwrap()];
        // Whoever looks first is told of the reset, who looks later of an end.
        assert!(ends.contains(&ErrorKind::ConnectionReset), "{ends:?}");
    });
    let end = gateway.end_of(id);
    assert_eq!(end.ending, ending, "{end:?}");
    assert!(end.reset, "{end:?}");
}
