//! The packet path: once a session is on it, the gateway's own TCP does nothing for it. Needs root.

use std::process::Command;

use wsproxy::datapath::Mode;
use wsproxy_tests::{
    namespaces::{Family, Net, Place, tcp_counter},
    routed::{Gateway, converse},
    sessions::kernel_expected,
};

const KIB: usize = 1 << 10;
/// Of one session.
const MESSAGES: usize = 1000;
/// Sizes of messages before those that are counted.
const FIRST: [usize; 10] = [1; 10];

/// Sizes of messages, from an empty-looking one to trains of segments.
fn sizes() -> Vec<usize> {
    let cycle = [1, 64, 125, 1400, 4 * KIB, 16 * KIB, 64 * KIB];
    cycle.into_iter().cycle().take(MESSAGES).collect()
}

/// Segments that the gateway's TCP received, and sent (resent ones apart).
fn segments() -> [u64; 2] {
    ["InSegs", "OutSegs"].map(tcp_counter)
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
            // What the sockets had still under way at the switch is acknowledged now.
            converse(&client, &server, 0, &FIRST);
            let before = segments();
            converse(&client, &server, 1, &sizes);
            let after = segments();
            let [received, sent] = [0, 1].map(|n| after[n] - before[n]);
            eprintln!("{mode:?} {family:?}: {received} segments in, {sent} out");
            check([received, sent]);
            let end = gateway.finish(id, &client, &server);
            let total = sizes.iter().chain(&FIRST).sum::<usize>() as u64;
            for carried in [end.to_upstream, end.to_client] {
                assert_eq!(carried.total(), total, "{carried:?}");
                if mode == Mode::Packet {
                    assert_eq!(carried.packet, total, "{carried:?}");
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

fn ip(namespace: &str, words: &str) {
    let done = Command::new("ip").args(["-n", namespace]).args(words.split(' ')).status();
    assert!(done.expect("ip (iproute2)").success(), "ip -n {namespace} {words}");
}

/// The client's packets come in through another device from one moment to the next: the frozen
/// socket takes none of their bytes, and the program looks at that device too before long.
#[test]
fn packets_may_come_in_through_another_device() {
    if !kernel_expected() {
        return;
    }
    let net = Net::new(1500);
    let [client_ns, gateway_ns] = [Place::Client, Place::Gateway].map(|place| net.namespace(place));
    ip(&client_ns, &format!("link add other type veth peer other netns {gateway_ns}"));
    for (namespace, address) in [(&client_ns, "10.99.0.2/24"), (&gateway_ns, "10.99.0.1/24")] {
        ip(namespace, &format!("addr add {address} dev other"));
        ip(namespace, "link set other up");
    }
    Gateway::run(&net, Mode::Packet, |gateway| {
        let (id, client, server) = gateway.session(Family::V4, None);
        converse(&client, &server, 1, &[100; 20]);
        for name in ["all", "other"] {
            // The way back is the old one, and must not count as a lie.
            std::fs::write(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"), "0").unwrap();
        }
        ip(&client_ns, "route replace 10.77.1.1/32 dev other src 10.77.1.2");
        converse(&client, &server, 2, &[100, 64 * KIB, 1, 20 * KIB]);
        let end = gateway.finish(id, &client, &server);
        let total = 2000 + 101 + 84 * KIB as u64;
        assert_eq!([end.to_upstream.total(), end.to_client.total()], [total; 2]);
    });
}
