//! What one side has said before it broke arrives, as far as the gateway had taken it.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpStream},
    time::Duration,
};

use rustix::net::sockopt;
use wsproxy::datapath::{
    ClientSocket, Ending, Endpoint, Handover, Mode, Options, SessionEnd, SessionMeta, Terms,
    UpstreamSocket,
};
use wsproxy_tests::{
    sessions::{Bench, Stream, hop, options, wait_for},
    torture::wire::{Wire, handshake},
};

const PATIENCE: Duration = Duration::from_secs(20);
/// `SO_SNDBUF` and `SO_RCVBUF` towards the client, in bytes.
const BUFFER: usize = 16 << 10;
const SEED: u64 = 7;
/// Bytes of one write: so small that they come in one read.
const PIECE: usize = 8 << 10;

/// A session of a client with small buffers, with TLS or not, and a server without, which says
/// `first` before the gateway begins to read, and ends if that is all.
fn session(bench: &Bench, id: u64, first: &[u8], tls: bool) -> (Wire, TcpStream) {
    let (client, ours_client, client_addr) = hop(Ipv4Addr::LOCALHOST.into());
    let (ours_upstream, mut server, _) = hop(Ipv4Addr::LOCALHOST.into());
    sockopt::set_socket_recv_buffer_size(&client, BUFFER).unwrap();
    sockopt::set_socket_send_buffer_size(&ours_client, BUFFER).unwrap();
    server.write_all(first).unwrap();
    if !first.is_empty() {
        server.shutdown(Shutdown::Write).unwrap();
    }
    for socket in [&client, &ours_client, &ours_upstream, &server] {
        socket.set_nonblocking(true).unwrap();
        socket.set_nodelay(true).unwrap();
    }
    let [client_tls, ours_tls] = if tls { handshake(false).map(Some) } else { [None, None] };
    let handover = Handover {
        client: ClientSocket(Wire::new(ours_client, ours_tls).into_endpoint()),
        upstream: UpstreamSocket(Endpoint::tcp(ours_upstream)),
        early_to_upstream: Vec::new(),
        early_to_client: Vec::new(),
        meta: SessionMeta {
            id,
            client: client_addr,
            local: client_addr,
            upstream: "test".into(),
            route: "default".into(),
        },
        terms: Terms::default(),
    };
    let place = bench.datapath.reserve().expect("a place");
    bench.datapath.take_over(place, handover);
    (Wire::new(client, client_tls), server)
}

/// Bytes that the gateway has taken for the client.
fn taken(bench: &Bench, id: u64) -> u64 {
    let sessions = bench.datapath.sessions();
    sessions.iter().find(|s| s.meta.id == id).map_or(0, |s| s.to_client.total())
}

/// Sends a piece; whether the gateway takes it soon.
fn piece(bench: &Bench, id: u64, server: &mut TcpStream, stream: &mut Stream) -> bool {
    server.write_all(&stream.take(PIECE)).unwrap();
    let all = || (taken(bench, id) == stream.position()).then_some(());
    wait_for(Duration::from_millis(500), all).is_some()
}

/// Pieces that are taken for a client that does not read. A further one is not: something of
/// the last one is still with TLS.
fn most_taken(bench: &Bench) -> usize {
    let (_client, mut server) = session(bench, 1, b"", true);
    let mut stream = Stream::new(SEED);
    (0..1000).take_while(|_| piece(bench, 1, &mut server, &mut stream)).count()
}

/// Reads the next bytes, or the end.
fn read(client: &mut Wire, buf: &mut [u8]) -> std::io::Result<usize> {
    let look = || match client.read(buf) {
        Err(e) if e.kind() == ErrorKind::WouldBlock => None,
        other => Some(other),
    };
    wait_for(PATIENCE, look).expect("something comes")
}

/// A server says this much, ends and breaks, and the client has read nothing of it: the gateway
/// has all of it. `None`: it was too much for that.
fn breaks(bench: &Bench, id: u64, length: usize) -> Option<Wire> {
    let (mut client, mut server) = session(bench, id, &Stream::new(SEED).take(length), true);
    let all = || (taken(bench, id) == length as u64).then_some(());
    wait_for(Duration::from_secs(2), all)?;
    // Once this has passed, the gateway has seen the end before it.
    assert_eq!(client.write(b"x").unwrap(), 1);
    server.set_nonblocking(false).unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    server.read_exact(&mut [0]).unwrap();
    socket2::Socket::from(server).set_linger(Some(Duration::ZERO)).unwrap();
    Some(client)
}

/// Where exactly the socket is full and TLS has the rest depends on the kernel: runs `test` for
/// every length around that, until the gateway does not take all of it.
fn around_the_limit(bench: &Bench, mut test: impl FnMut(u64, usize, Wire)) {
    let pieces = most_taken(bench);
    for id in 2..100 {
        let length = pieces * PIECE + (id as usize - 2) * (PIECE / 2);
        let Some(client) = breaks(bench, id, length) else { return };
        test(id, length, client);
    }
    panic!("the gateway takes without end");
}

/// So many bytes arrive, and the end.
fn all_arrives(client: &mut Wire, length: usize) {
    let (mut stream, mut buf) = (Stream::new(SEED), vec![0; 64 << 10]);
    loop {
        let n = read(client, &mut buf).unwrap_or_else(|error| {
            panic!("after {} of {length} bytes: {error}", stream.position());
        });
        if n == 0 {
            break;
        }
        stream.check(&buf[..n]);
    }
    assert_eq!(stream.position(), length as u64);
}

/// Writes until nobody takes any more.
fn fill(client: &mut Wire) {
    let piece = [b'z'; PIECE];
    let more = || match client.write(&piece) {
        Ok(_) => Some(()),
        Err(e) if e.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("the client can't write: {error}"),
    };
    let mut more = more;
    while wait_for(Duration::from_millis(300), &mut more).is_some() {}
}

fn end_of(bench: &Bench, id: u64) -> Option<SessionEnd> {
    bench.ends().iter().find(|end| end.meta.id == id).cloned()
}

#[test]
fn what_tls_holds_for_a_slow_client_arrives_although_the_server_breaks() {
    let bench = Bench::start(options(Mode::Relay)).unwrap();
    around_the_limit(&bench, |id, length, mut client| {
        if wait_for(Duration::from_millis(300), || end_of(&bench, id)).is_none() {
            // Held for us: what nobody reads any more must not turn the end into a reset.
            assert_eq!(client.write(&[b'y'; 4096]).unwrap(), 4096);
        }
        all_arrives(&mut client, length);
        let end = wait_for(PATIENCE, || end_of(&bench, id)).expect("the session ends");
        assert_eq!((end.ending, end.reset), (Ending::UpstreamBroke, true), "{end:?}");
    });
    bench.all_gone();
}

#[test]
fn a_client_that_never_reads_does_not_hold_such_a_session() {
    let drain = Duration::from_millis(500);
    let bench = Bench::start(Options { drain, ..options(Mode::Relay) }).unwrap();
    let mut late = 0;
    around_the_limit(&bench, |id, _, client| {
        let end = wait_for(PATIENCE, || end_of(&bench, id)).expect("the session ends");
        assert_eq!((end.ending, end.reset), (Ending::UpstreamBroke, true), "{end:?}");
        late += u32::from(end.error.is_some_and(|error| error.contains("in time")));
        drop(client);
    });
    assert!(late > 0, "TLS never held anything: the other test shows nothing");
    bench.all_gone();
}

/// A server that answers an upload before its end, closes, and resets what still comes.
fn a_slow_client_that_talks_on_gets_all(mode: Mode) {
    let Some(bench) = Bench::start(options(mode)) else { return };
    let mut waiting = 0;
    for id in 2..100 {
        let length = id as usize * PIECE;
        let (mut client, server) = session(&bench, id, &Stream::new(SEED).take(length), false);
        let all = || (taken(&bench, id) == length as u64).then_some(());
        if wait_for(Duration::from_millis(500), all).is_none() {
            break;
        }
        // The gateway is left with bytes that nobody will take: closing its socket now would
        // reset it, and what is still on the way to the client would be lost.
        fill(&mut client);
        let arrived = rustix::io::ioctl_fionread(client.socket()).unwrap();
        waiting += u32::from(arrived < length as u64);
        socket2::Socket::from(server).set_linger(Some(Duration::ZERO)).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        let _refused = client.write(&[b'y'; PIECE]);
        all_arrives(&mut client, length);
        let end = wait_for(PATIENCE, || end_of(&bench, id)).expect("the session ends");
        assert_eq!((end.ending, end.reset), (Ending::UpstreamBroke, true), "{end:?}");
    }
    assert!(waiting > 0, "everything had arrived before the end: this shows nothing");
    bench.all_gone();
}

#[test]
fn relay_a_slow_client_that_talks_on_gets_all() {
    a_slow_client_that_talks_on_gets_all(Mode::Relay);
}

#[test]
fn sockmap_a_slow_client_that_talks_on_gets_all() {
    a_slow_client_that_talks_on_gets_all(Mode::Sockmap);
}
