//! The packet path: once a session is on it, the gateway's own TCP does nothing for it. Needs root.

use std::{net::TcpStream, time::Duration};

use wsproxy::datapath::{Mode, Path};
use wsproxy_tests::{
    namespaces::{Family, Net, tcp_counter},
    routed::{End as _, Gateway, PATIENCE, converse},
    sessions::{kernel_expected, wait_for},
};

const KIB: usize = 1 << 10;
/// Of one session.
const MESSAGES: usize = 1000;

/// Sizes of messages, from an empty-looking one to trains of segments.
fn sizes() -> Vec<usize> {
    let cycle = [1, 64, 125, 1400, 4 * KIB, 16 * KIB, 64 * KIB];
    cycle.into_iter().cycle().take(MESSAGES).collect()
}

/// Segments that the gateway's TCP received, and sent (resent ones apart).
fn segments() -> [u64; 2] {
    ["InSegs", "OutSegs"].map(tcp_counter)
}

/// Bytes to and fro until the packets are translated; how many each way.
fn warm(gateway: &Gateway<'_>, id: u64, client: &TcpStream, server: &TcpStream) -> u64 {
    let mut bytes = 0;
    let on_path = wait_for(PATIENCE, || {
        for (from, to) in [(client, server), (server, client)] {
            from.send(b"w").unwrap();
            to.receive_all(&mut [0]).unwrap();
        }
        bytes += 1;
        std::thread::sleep(Duration::from_millis(1));
        let sessions = gateway.bench.datapath.sessions();
        let session = sessions.iter().find(|session| session.meta.id == id)?;
        (session.path == gateway.bench.path || gateway.bench.path != Path::Packet).then_some(())
    });
    on_path.unwrap_or_else(|| panic!("{:?}", gateway.bench.datapath.sessions()));
    bytes
}

/// What 1000 messages and their answers cost the gateway's TCP, and how the session was carried.
fn with_sessions(mode: Mode, check: impl Fn([u64; 2]) + Sync) {
    if !kernel_expected() {
        return;
    }
    Gateway::run(&Net::new(1500), mode, |gateway| {
        let sizes = sizes();
        for family in [Family::V4, Family::V6] {
            let (id, client, server) = gateway.session(family, None);
            let warmed = warm(gateway, id, &client, &server);
            let before = segments();
            converse(&client, &server, 1, &sizes);
            let after = segments();
            let [received, sent] = [0, 1].map(|n| after[n] - before[n]);
            eprintln!("{mode:?} {family:?}: {received} segments in, {sent} out");
            check([received, sent]);
            let end = gateway.finish(id, &client, &server);
            let total = sizes.iter().sum::<usize>() as u64;
            for carried in [end.to_upstream, end.to_client] {
                assert_eq!(carried.total(), total + warmed, "{carried:?}");
                if mode == Mode::Packet {
                    assert!(carried.packet >= total && carried.kernel == 0, "{carried:?}");
                }
            }
        }
    });
}

/// The point of it all: not one segment is the gateway's own.
#[test]
fn the_gateways_tcp_sees_no_segment() {
    with_sessions(Mode::Packet, |segments| assert_eq!(segments, [0; 2], "in, out"));
}

/// The same count where every segment is the gateway's: that it counts is seen here.
#[test]
fn elsewhere_it_sees_them_all() {
    for mode in [Mode::Sockmap, Mode::Relay] {
        with_sessions(mode, |[received, sent]| {
            // Each message comes in and goes out, and so does its answer.
            let least = 2 * MESSAGES as u64;
            assert!(received >= least && sent >= least, "{received} in, {sent} out");
        });
    }
}
