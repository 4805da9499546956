//! The datapaths between real links: a client, a gateway and a server, each in
//! a network namespace of its own. Needs root.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use wsproxy::datapath::{
    ClientSocket, Ending, Endpoint, Handover, Mode, Path, SessionEnd, SessionMeta, Terms,
    UpstreamSocket,
};
use wsproxy_tests::{
    namespaces::{Family, Net, Place, address},
    sessions::{Bench, Dice, Stream, kernel_expected, options, wait_for},
    torture::peer::wrong_bytes,
};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// One test a datapath for each function.
macro_rules! over_both {
    ($($name:ident),* $(,)?) => {
        mod relay { $(#[test] fn $name() { super::$name(super::Mode::Relay); })* }
        mod sockmap { $(#[test] fn $name() { super::$name(super::Mode::Sockmap); })* }
    };
}

over_both!(echoes, small_packets, server_vanishes, client_vanishes);

/// A datapath in the gateway.
struct Gateway<'a> {
    net: &'a Net,
    bench: Bench,
    next: AtomicU64,
}

/// Makes the namespaces and runs `test` in the gateway.
fn with_gateway(mode: Mode, mtu: u32, test: impl FnOnce(&Gateway<'_>) + Send) {
    // The relay too: namespaces need root.
    if !kernel_expected() {
        return;
    }
    let net = Net::new(mtu);
    net.within(Place::Gateway, || {
        let bench = Bench::start(options(mode)).expect("root was asked for above");
        let gateway = Gateway { net: &net, bench, next: AtomicU64::new(1) };
        test(&gateway);
        gateway.bench.all_gone();
        assert_eq!(*gateway.bench.record.fallbacks.lock().unwrap(), [""; 0]);
        assert_eq!(gateway.bench.datapath.healed(), 0);
        eprintln!("{mode:?}: {:?}", gateway.bench.datapath.reasons());
    });
}

fn listen(ip: IpAddr) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
    stream.set_nodelay(true).unwrap();
    // No test waits for ever.
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn prepared(stream: TcpStream, user_timeout: Option<Duration>) -> OwnedFd {
    stream.set_nonblocking(true).unwrap();
    stream.set_nodelay(true).unwrap();
    let millis = user_timeout.map_or(0, |t| t.as_millis() as u32);
    rustix::net::sockopt::set_tcp_user_timeout(&stream, millis).unwrap();
    stream.into()
}

impl Gateway<'_> {
    /// A session: its number, the client's and the server's end.
    fn session(
        &self,
        family: Family,
        user_timeout: Option<Duration>,
    ) -> (u64, TcpStream, TcpStream) {
        let (entry, entry_addr) = listen(address(Place::Client, Place::Gateway, family));
        let client = self.net.within(Place::Client, || connect(entry_addr));
        let (ours_client, client_addr) = entry.accept().unwrap();
        let server_ip = address(Place::Server, Place::Server, family);
        let (listener, server_addr) = self.net.within(Place::Server, || listen(server_ip));
        let ours_upstream = connect(server_addr);
        let (server, _) = listener.accept().unwrap();
        server.set_nodelay(true).unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        server.set_write_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(client_addr.ip(), address(Place::Client, Place::Client, family));

        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let meta = SessionMeta {
            id,
            client: client_addr,
            local: ours_upstream.local_addr().unwrap(),
            upstream: "test".into(),
            route: "default".into(),
        };
        let place = self.bench.datapath.reserve().expect("a place for a session");
        let handover = Handover {
            client: ClientSocket(Endpoint::tcp(prepared(ours_client, user_timeout))),
            upstream: UpstreamSocket(Endpoint::tcp(prepared(ours_upstream, user_timeout))),
            early_to_upstream: Vec::new(),
            early_to_client: Vec::new(),
            meta,
            terms: Terms::default(),
        };
        self.bench.datapath.take_over(place, handover);
        (id, client, server)
    }

    fn end_of(&self, id: u64) -> SessionEnd {
        let find = || self.bench.ends().into_iter().find(|e| e.meta.id == id);
        wait_for(PATIENCE, find)
            .unwrap_or_else(|| panic!("no end of {id}: {:?}", self.bench.datapath.sessions()))
    }

    /// FIN by the client, FIN by the server, and the report of both.
    fn finish(&self, id: u64, client: &TcpStream, server: &TcpStream) -> SessionEnd {
        client.shutdown(std::net::Shutdown::Write).unwrap();
        expect_end(server);
        server.shutdown(std::net::Shutdown::Write).unwrap();
        expect_end(client);
        let end = self.end_of(id);
        assert_eq!((end.path, end.ending), (self.bench.path, Ending::ClientFinished), "{end:?}");
        assert!(!end.reset && end.error.is_none(), "{end:?}");
        end
    }
}

fn expect_end(mut from: &TcpStream) {
    assert_eq!(from.read(&mut [0; 1]).unwrap(), 0, "more bytes than were sent");
}

/// Sends back what comes, until `total` bytes have.
fn echo(mut socket: &TcpStream, total: usize) {
    let (mut buf, mut done) = (vec![0; 64 * KIB], 0);
    while done < total {
        let n = socket.read(&mut buf).unwrap();
        assert_ne!(n, 0, "the stream ended after {done} of {total} bytes");
        socket.write_all(&buf[..n]).unwrap();
        done += n;
    }
}

/// Sends messages of these sizes, each when the echo of the one before is
/// here, and checks every byte of it.
fn converse(client: &TcpStream, server: &TcpStream, seed: u64, sizes: &[usize]) {
    let total = sizes.iter().sum();
    thread::scope(|scope| {
        scope.spawn(|| echo(server, total));
        let (mut stream, mut answers) = (Stream::new(seed), Stream::new(seed));
        let mut answer = Vec::new();
        for size in sizes {
            // A large message must not wait for its own echo to be read.
            let message = stream.take(*size);
            let sender = scope.spawn(move || {
                let mut client = client;
                client.write_all(&message)
            });
            answer.resize(*size, 0);
            let mut client = client;
            client.read_exact(&mut answer).unwrap();
            answers.check(&answer);
            sender.join().unwrap().unwrap();
        }
    });
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
                    if gateway.bench.path == Path::Sockmap {
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
                thread::scope(|scope| {
                    for (socket, seed) in [(&client, 1), (&server, 2)] {
                        scope.spawn(move || send(socket, seed, TOTAL));
                    }
                    for (socket, seed) in [(&client, 2), (&server, 1)] {
                        scope.spawn(move || receive(socket, seed, TOTAL));
                    }
                });
                for place in [Place::Client, Place::Gateway, Place::Server] {
                    gateway.net.within(place, || eprintln!("{place:?}: {}", retransmissions()));
                }
                let end = gateway.finish(id, &client, &server);
                eprintln!("{mode:?} {family:?} {mtu}: {:?} {:?}", end.to_upstream, end.to_client);
                assert_eq!([end.to_upstream.total(), end.to_client.total()], [TOTAL as u64; 2]);
            }
        });
    }
}

/// What this thread's namespace has sent twice.
fn retransmissions() -> String {
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let rows: Vec<Vec<_>> = text
        .lines()
        .filter(|l| l.starts_with("Tcp:"))
        .map(|l| l.split_whitespace().collect())
        .collect();
    let at = rows[0].iter().position(|w| *w == "RetransSegs").unwrap();
    format!("{} segments sent twice", rows[1][at])
}

fn send(mut to: &TcpStream, seed: u64, total: usize) {
    let (mut stream, mut dice) = (Stream::new(seed), Dice::new(seed));
    while (stream.position() as usize) < total {
        let left = total - stream.position() as usize;
        let piece = stream.take(dice.size(256 * KIB).min(left));
        to.write_all(&piece).unwrap();
    }
}

fn receive(mut from: &TcpStream, seed: u64, total: usize) {
    let (mut stream, mut buf) = (Stream::new(seed), vec![0; 64 * KIB]);
    while (stream.position() as usize) < total {
        let at = stream.position();
        let n = from.read(&mut buf).unwrap();
        assert_ne!(n, 0, "the stream ended after {at} of {total} bytes");
        let expected = stream.take(n);
        if let Some(wrong) = buf.iter().zip(&expected).position(|(a, b)| a != b) {
            panic!("{}", wrong_bytes(seed, at + wrong as u64, &buf[wrong..n]));
        }
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
