//! The datapaths between real links: a client, a gateway and a server, each in
//! a network namespace of its own. Needs root.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use wsproxy::datapath::{Ending, Mode, Path};
use wsproxy_tests::{
    namespaces::{Family, Net, Place, retransmissions},
    routed::{Gateway, both_ways, converse},
    sessions::{Dice, Stream, kernel_expected},
};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// One test a datapath for each function.
macro_rules! over_both {
    ($($name:ident),* $(,)?) => {
        mod relay { $(#[test] fn $name() { super::$name(super::Mode::Relay); })* }
        mod sockmap { $(#[test] fn $name() { super::$name(super::Mode::Sockmap); })* }
    };
}

/// Those about a side that vanishes are about the gateway's own TCP, which the packet path has not.
mod packet {
    #[test]
    fn echoes() {
        super::echoes(super::Mode::Packet);
    }

    #[test]
    fn small_packets() {
        super::small_packets(super::Mode::Packet);
    }
}

over_both!(echoes, small_packets, server_vanishes, client_vanishes);

/// Makes the namespaces and runs `test` in the gateway.
fn with_gateway(mode: Mode, mtu: u32, test: impl FnOnce(&Gateway<'_>) + Send) {
    // The relay too: namespaces need root.
    if kernel_expected() {
        Gateway::run(&Net::new(mtu), mode, test);
    }
}

fn echoes(mode: Mode) {
    with_gateway(mode, 1500, |gateway| {
        let mut dice = Dice::new(42);
        let random: Vec<_> = (0..300).map(|_| dice.size(16 * KIB)).collect();
        let tables = [random, vec![16 * KIB; 300], vec![256 * KIB; 60]];
        for family in gateway.net.families() {
            for (seed, sizes) in tables.iter().enumerate() {
                let (id, client, server) = gateway.session(*family, None);
                converse(&client, &server, seed as u64, sizes);
                let end = gateway.finish(id, &client, &server);
                let total = sizes.iter().sum::<usize>() as u64;
                for carried in [end.to_upstream, end.to_client] {
                    eprintln!("{mode:?} {family:?} {} messages: {carried:?}", sizes.len());
                    assert_eq!(carried.total(), total);
                    if gateway.bench.path == Path::Packet {
                        assert_eq!(carried.packet, total);
                    } else if gateway.bench.path == Path::Sockmap {
                        // A message that is larger than a fresh send buffer finds no room at
                        // first: part of it goes through user space, by design.
                        let least = if sizes[0] > 16 * KIB { 50 } else { 95 };
                        assert!(carried.kernel * 100 >= total * least, "{carried:?}");
                    } else {
                        assert_eq!(carried.kernel, 0);
                    }
                }
            }
        }
    });
}

/// Both ways at once, unasked.
fn small_packets(mode: Mode) {
    const TOTAL: usize = 2 * MIB;
    for mtu in [576, 1280] {
        with_gateway(mode, mtu, |gateway| {
            for family in gateway.net.families() {
                let (id, client, server) = gateway.session(*family, None);
                both_ways(&client, &server, 1, TOTAL);
                for place in Place::ALL {
                    let twice = gateway.net.within(place, retransmissions);
                    eprintln!("{place:?}: {twice} segments sent twice");
                }
                let end = gateway.finish(id, &client, &server);
                eprintln!("{mode:?} {family:?} {mtu}: {:?} {:?}", end.to_upstream, end.to_client);
                assert_eq!([end.to_upstream.total(), end.to_client.total()], [TOTAL as u64; 2]);
            }
        });
    }
}

fn server_vanishes(mode: Mode) {
    vanishes(mode, Place::Server, Ending::UpstreamBroke);
}

fn client_vanishes(mode: Mode) {
    vanishes(mode, Place::Client, Ending::ClientBroke);
}

/// `TCP_USER_TIMEOUT` of our sockets, and when the last one must know.
const USER_TIMEOUT: Duration = Duration::from_secs(2);
const KNOWN_WITHIN: Duration = Duration::from_secs(8);

/// The cable is taken out in the middle of two transfers: one that fills every
/// queue on the way, and a trickle that the kernel path never gives back.
fn vanishes(mode: Mode, gone: Place, ending: Ending) {
    with_gateway(mode, 1500, |gateway| {
        let sessions = [(64 * KIB, Duration::ZERO), (64, Duration::from_millis(20))]
            .map(|(size, pause)| (gateway.session(Family::V4, Some(USER_TIMEOUT)), size, pause));
        thread::scope(|scope| {
            let mut senders = Vec::new();
            for ((id, client, server), size, pause) in &sessions {
                let (from, to) =
                    if gone == Place::Server { (client, server) } else { (server, client) };
                senders.push((*id, scope.spawn(move || push(from, *size, *pause))));
                // It flows, and what flows is right.
                receive_some(to, 50 * size);
            }
            gateway.net.unplug(gone);
            let unplugged = Instant::now();
            for (id, sender) in senders {
                let error = sender.join().unwrap();
                let known = unplugged.elapsed();
                eprintln!("{mode:?}: session {id}: {error} after {known:?}");
                let reset = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
                assert!(reset.contains(&error.kind()), "{error}");
                assert!(known < KNOWN_WITHIN, "known after {known:?}");
                let end = gateway.end_of(id);
                assert_eq!(end.ending, ending, "{end:?}");
                assert!(end.reset && end.error.is_some(), "{end:?}");
            }
        });
    });
}

/// Sends until it can't.
fn push(mut to: &TcpStream, size: usize, pause: Duration) -> std::io::Error {
    let mut stream = Stream::new(3);
    loop {
        if let Err(error) = to.write_all(&stream.take(size)) {
            return error;
        }
        thread::sleep(pause);
    }
}

fn receive_some(mut from: &TcpStream, total: usize) {
    let mut stream = Stream::new(3);
    let mut buf = vec![0; 64 * KIB];
    while (stream.position() as usize) < total {
        let n = from.read(&mut buf).unwrap();
        assert_ne!(n, 0, "the stream ended");
        stream.check(&buf[..n]);
    }
}
