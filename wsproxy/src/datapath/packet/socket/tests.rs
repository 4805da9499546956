//! Real sockets on loopback: A is the peer, which knows of nothing; B is ours, accepted from a
//! listener that goes on listening on the same port.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use super::*;

mod freezing;
mod reviving;

/// How long the peer is listened to where nothing may come.
const SILENCE: Duration = Duration::from_millis(200);
/// How long anything that must come may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// Whether there is no privilege to test with; root must have it.
fn skipped() -> bool {
    let skipped = !rustix::process::geteuid().is_root();
    if skipped {
        eprintln!("!!! SKIPPED: repair mode needs root");
    }
    skipped
}

impl Frozen {
    /// Whether nothing has come or gone since the socket was frozen.
    fn is_still_quiet(&self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        Ok(repair::queue_seq(socket, Queue::Send)? == self.snd_seq
            && repair::queue_seq(socket, Queue::Receive)? == self.rcv_seq
            && is_empty(socket)?)
    }
}

/// Closes a socket without a packet, as the end of a process does with a frozen one: `__tcp_close`
/// disconnects a socket in repair mode before it thinks of FIN or reset.
fn close_silently(socket: OwnedFd) -> io::Result<()> {
    repair::repair(socket.as_fd(), Repair::On)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Family {
    V4,
    V6,
    /// IPv4, accepted by an IPv6 socket.
    Mapped,
}

const FAMILIES: [Family; 3] = [Family::V4, Family::V6, Family::Mapped];

struct Pair {
    listener: TcpListener,
    a: TcpStream,
    b: TcpStream,
}

fn listen(family: Family, port: u16) -> TcpListener {
    let (domain, address): (_, SocketAddr) = match family {
        Family::V4 => (Domain::IPV4, (Ipv4Addr::LOCALHOST, port).into()),
        Family::V6 => (Domain::IPV6, (Ipv6Addr::LOCALHOST, port).into()),
        Family::Mapped => (Domain::IPV6, (Ipv6Addr::UNSPECIFIED, port).into()),
    };
    let socket = Socket::new(domain, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    if family == Family::Mapped {
        socket.set_only_v6(false).unwrap();
    }
    socket.bind(&address.into()).unwrap();
    socket.listen(16).unwrap();
    socket.into()
}

fn pair(family: Family) -> Pair {
    pair_with(family, None)
}

/// `mss`: the most that A accepts in a segment.
fn pair_with(family: Family, mss: Option<u32>) -> Pair {
    let listener = listen(family, 0);
    let port = listener.local_addr().unwrap().port();
    let ip: IpAddr = match family {
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
        Family::V4 | Family::Mapped => Ipv4Addr::LOCALHOST.into(),
    };
    let a = Socket::new(Domain::for_address((ip, port).into()), Type::STREAM, None).unwrap();
    if let Some(mss) = mss {
        a.set_tcp_mss(mss).unwrap();
    }
    a.connect(&SocketAddr::from((ip, port)).into()).unwrap();
    let a = TcpStream::from(a);
    let (b, _) = listener.accept().unwrap();
    for end in [&a, &b] {
        end.set_read_timeout(Some(DEADLINE)).unwrap();
        end.set_write_timeout(Some(DEADLINE)).unwrap();
        end.set_nodelay(true).unwrap();
    }
    Pair { listener, a, b }
}

fn freeze_soon(socket: &TcpStream) -> Frozen {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(frozen) = freeze(socket.as_fd()).unwrap() {
            return frozen;
        }
        assert!(Instant::now() < end, "never quiet: {:?}", facts(socket.as_fd()));
        thread::sleep(Duration::from_millis(1));
    }
}

/// Rebuilds a connection whose socket was just closed. A process that another test starts has a copy of
/// all descriptors until it runs its program, and the socket lives as long.
fn rebuild_soon(revival: &Revival) -> OwnedFd {
    let end = Instant::now() + DEADLINE;
    loop {
        match rebuild_frozen(revival) {
            Err(error)
                if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) && Instant::now() < end =>
            {
                thread::sleep(Duration::from_millis(1));
            }
            rebuilt => return rebuilt.unwrap(),
        }
    }
}

/// The same connection again.
fn again(socket: &TcpStream, frozen: &Frozen) -> Revival {
    let facts = facts(socket.as_fd()).unwrap();
    Revival {
        local: socket.local_addr().unwrap(),
        peer: socket.peer_addr().unwrap(),
        snd_seq: frozen.snd_seq,
        rcv_seq: frozen.rcv_seq,
        mss: frozen.mss,
        timestamps: facts.timestamps.then_some(frozen.timestamp),
        sack: facts.sack,
        window_scale: facts.window_scale,
        window: frozen.window,
        keepalive: frozen.keepalive,
        transparent: false,
        device: None,
    }
}

fn say(from: &mut TcpStream, to: &mut TcpStream, what: &[u8]) {
    from.write_all(what).unwrap();
    let mut got = vec![0; what.len()];
    to.read_exact(&mut got).unwrap();
    assert_eq!(got, what);
}

/// A few bytes both ways, so that the sequence numbers are not those of the handshake.
fn greet(pair: &mut Pair) {
    say(&mut pair.a, &mut pair.b, b"from a");
    say(&mut pair.b, &mut pair.a, b"from b");
}

/// `bytes` from one to the other, while the other reads.
fn stream(mut from: &TcpStream, mut to: &TcpStream, bytes: usize) {
    let sent: Vec<u8> = (0..bytes).map(|at| ((at * 31) >> 3) as u8).collect();
    thread::scope(|scope| {
        scope.spawn(|| from.write_all(&sent).unwrap());
        let mut got = vec![0; bytes];
        to.read_exact(&mut got).unwrap();
        assert!(got == sent);
    });
}

fn end_in_order(pair: &mut Pair) {
    let Pair { a, b, .. } = pair;
    b.shutdown(Shutdown::Write).unwrap();
    assert_eq!(a.read(&mut [0; 8]).unwrap(), 0);
    say(a, b, b"the other way still goes");
    a.shutdown(Shutdown::Write).unwrap();
    assert_eq!(b.read(&mut [0; 8]).unwrap(), 0);
}

fn assert_hears_nothing(mut end: &TcpStream) {
    end.set_read_timeout(Some(SILENCE)).unwrap();
    let error = loop {
        match end.read(&mut [0; 8]).unwrap_err() {
            // Whoever stops and continues this process ends waits that have a limit (signal(7)).
            error if error.kind() == ErrorKind::Interrupted => {}
            error => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
    end.set_read_timeout(Some(DEADLINE)).unwrap();
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}
