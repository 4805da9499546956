//! Numbers that wrap while a session is on the packet path: sequence numbers and timestamps of both
//! sides and of the gateway's own connections. Connections are made in repair mode, with numbers
//! of the test's choice. Needs root.

use std::{
    net::{SocketAddr, TcpStream},
    os::fd::AsFd as _,
};

use socket2::{Domain, Socket, Type};
use wsproxy::{
    datapath::Mode,
    sys::repair::{
        self, Agreed, Queue, Repair, RepairWindow, limit_mss, set_agreed, set_queue_seq,
        set_repair_window, set_timestamp,
    },
};
use wsproxy_tests::{
    namespaces::{Family, Net, Place, address},
    routed::{Gateway, PATIENCE, both_ways, converse, patient},
    sessions::{kernel_expected, wait_for},
};

const KIB: usize = 1 << 10;
/// Bytes of a window before anything was said of it.
const WINDOW: u32 = 60_000;
/// Bytes of the timestamps option.
const TIMESTAMPS: u16 = 12;
/// How long before its end each clock begins, in ms: the session is on the packet path by then, or
/// another one tries.
const CLOCK: u32 = 3_000;
const TRIES: u32 = 5;

/// One end of a connection, as if there had been a handshake: its address and the other one's, and
/// the numbers of the next byte of each.
fn end([local, peer]: [SocketAddr; 2], [sent, received]: [u32; 2]) -> TcpStream {
    let socket = Socket::new(Domain::for_address(local), Type::STREAM, None).unwrap();
    let fd = socket.as_fd();
    let mss = if local.is_ipv4() { 1460 } else { 1440 };
    repair::repair(fd, Repair::On).unwrap();
    socket.bind(&local.into()).unwrap();
    // What the handshake takes off what the peer is told.
    limit_mss(fd, mss - TIMESTAMPS).unwrap();
    set_queue_seq(fd, Queue::Send, sent).unwrap();
    set_queue_seq(fd, Queue::Receive, received).unwrap();
    socket.connect(&peer.into()).unwrap();
    let agreed = Agreed { mss, timestamps: true, sack: true, window_scale: Some((7, 7)) };
    set_agreed(fd, &agreed).unwrap();
    set_timestamp(fd, CLOCK.wrapping_neg() & !1).unwrap();
    let window = RepairWindow {
        snd_wl1: received,
        snd_wnd: WINDOW,
        max_window: WINDOW,
        rcv_wnd: WINDOW,
        rcv_wup: received,
    };
    set_repair_window(fd, &window).unwrap();
    repair::repair(fd, Repair::OffInSilence).unwrap();
    let stream = TcpStream::from(socket);
    patient(&stream);
    stream
}

/// A connection on the hop to `hop`: the peer's end and the gateway's, so many bytes before their
/// numbers wrap.
fn connection(
    net: &Net,
    (hop, family): (Place, Family),
    ports: [u16; 2],
    before: [u32; 2],
) -> (TcpStream, TcpStream) {
    let peer = SocketAddr::new(address(hop, hop, family), ports[0]);
    let ours = SocketAddr::new(address(hop, Place::Gateway, family), ports[1]);
    let [theirs, own] = before.map(u32::wrapping_neg);
    let far = net.within(hop, || end([peer, ours], [theirs, own]));
    (far, end([ours, peer], [own, theirs]))
}

/// Whether an end's clock has begun anew.
fn has_wrapped(end: &TcpStream) -> bool {
    repair::timestamp(end.as_fd()).unwrap() < 1 << 31
}

#[test]
fn sequence_numbers_and_timestamps_wrap() {
    if !kernel_expected() {
        return;
    }
    let net = Net::new(1500);
    Gateway::run(&net, Mode::Packet, |gateway| {
        for family in [Family::V4, Family::V6] {
            let wrapped = (0..TRIES).any(|nth| wraps(gateway, family, 20_000 + nth as u16));
            assert!(wrapped, "no session came to the packet path in {CLOCK} ms");
        }
    });
}

/// A session whose numbers wrap; false: its clocks did before it was on the packet path.
fn wraps(gateway: &Gateway<'_>, family: Family, port: u16) -> bool {
    let net = gateway.net;
    let (client, ours_client) =
        connection(net, (Place::Client, family), [port, 80], [20_000, 30_000]);
    let (server, ours_upstream) =
        connection(net, (Place::Server, family), [80, port], [35_000, 25_000]);
    let id = gateway.hand_over(ours_client, ours_upstream, None);
    gateway.bench.warm(id, &client, &server);
    let in_time = !has_wrapped(&client) && !has_wrapped(&server);

    // Over the end of all four sequences: not all at the same message.
    let sizes = [1000; 60];
    converse(&client, &server, 1, &sizes);
    let mut total = sizes.iter().sum::<usize>();
    // And over the end of the clocks, packet by packet.
    let over = wait_for(PATIENCE, || {
        converse(&client, &server, 2, &[100]);
        total += 100;
        (has_wrapped(&client) && has_wrapped(&server)).then_some(())
    });
    assert!(over.is_some(), "the clocks stand still");
    both_ways(&client, &server, 3, 256 * KIB);
    total += 256 * KIB;
    let end = gateway.finish(id, &client, &server);
    for carried in [end.to_upstream, end.to_client] {
        assert_eq!(carried.packet, total as u64, "{end:?}");
    }
    in_time
}
