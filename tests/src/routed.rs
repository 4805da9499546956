//! A datapath between real links: a client, a gateway and a server, each in a network namespace of
//! its own ([`Net`]), and what they say to each other. Needs root.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use wsproxy::datapath::{
    ClientSocket, Ending, Endpoint, Handover, Mode, Path, SessionEnd, SessionMeta, Terms,
    UpstreamSocket,
};

use crate::{
    namespaces::{Family, Net, Place, address},
    sessions::{Bench, Dice, Stream, options, wait_for},
    torture::peer::wrong_bytes,
};

const KIB: usize = 1 << 10;
/// Nothing here takes longer.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A datapath in the gateway.
pub struct Gateway<'a> {
    /// Where it is.
    pub net: &'a Net,
    /// The datapath.
    pub bench: Bench,
    next: AtomicU64,
}

/// One end of a connection, whoever's TCP it is. Nothing waits longer than [`PATIENCE`].
pub trait End: Sync {
    /// Reads what is there, or waits for something; 0 is the other end's FIN.
    ///
    /// # Errors
    /// When the connection is broken.
    fn receive(&self, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes all of it.
    ///
    /// # Errors
    /// When the connection is broken.
    fn send(&self, bytes: &[u8]) -> io::Result<()>;

    /// Says that nothing more comes.
    ///
    /// # Errors
    /// When the connection is broken.
    fn finish(&self) -> io::Result<()>;

    /// Fills the buffer.
    ///
    /// # Errors
    /// When the connection is broken, or ends before.
    fn receive_all(&self, buf: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match self.receive(&mut buf[done..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => done += n,
            }
        }
        Ok(())
    }
}

impl End for TcpStream {
    fn receive(&self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        (&*self).write_all(bytes)
    }

    fn finish(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// Listens on any port of this address.
///
/// # Panics
/// When it can't.
#[must_use]
pub fn listen(ip: IpAddr) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Connects.
///
/// # Panics
/// When it can't.
#[must_use]
pub fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
    patient(&stream);
    stream
}

/// No test waits for ever, and none for Nagle.
///
/// # Panics
/// When the socket is none of TCP.
pub fn patient(socket: &TcpStream) {
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
}

fn prepared(stream: TcpStream, user_timeout: Option<Duration>) -> OwnedFd {
    stream.set_nonblocking(true).unwrap();
    stream.set_nodelay(true).unwrap();
    let millis = user_timeout.map_or(0, |t| t.as_millis() as u32);
    rustix::net::sockopt::set_tcp_user_timeout(&stream, millis).unwrap();
    stream.into()
}

impl<'a> Gateway<'a> {
    /// Runs `test` in the gateway, and checks that it leaves nothing behind.
    ///
    /// # Panics
    /// When `test` does, and when something is left.
    pub fn run(net: &'a Net, mode: Mode, test: impl FnOnce(&Self) + Send) {
        net.within(Place::Gateway, || {
            let bench = Bench::start(options(mode)).expect("root was asked for");
            let gateway = Gateway { net, bench, next: AtomicU64::new(1) };
            test(&gateway);
            gateway.bench.all_gone();
            assert_eq!(*gateway.bench.record.fallbacks.lock().unwrap(), [""; 0]);
            assert_eq!(gateway.bench.datapath.healed(), 0);
            eprintln!("{mode:?}: {:?}", gateway.bench.datapath.reasons());
        });
    }

    /// A session: its number, the client's and the server's end.
    pub fn session(
        &self,
        family: Family,
        user_timeout: Option<Duration>,
    ) -> (u64, TcpStream, TcpStream) {
        self.session_after(family, user_timeout, || {})
    }

    /// The same, with `before` done between the connections and the datapath.
    ///
    /// # Panics
    /// When there is no connection or no place.
    pub fn session_after(
        &self,
        family: Family,
        user_timeout: Option<Duration>,
        before: impl FnOnce(),
    ) -> (u64, TcpStream, TcpStream) {
        let [(client, ours_client), (server, ours_upstream)] = self.connections(family);
        before();
        let id = self.hand_over(ours_client, ours_upstream, user_timeout);
        if self.bench.path == Path::Packet {
            self.bench.warm(id, &client, &server);
        }
        (id, client, server)
    }

    /// A session whose frames are followed, with nothing said yet.
    ///
    /// # Panics
    /// As [`Self::session_after`].
    pub fn framed_session(&self, family: Family, terms: Terms) -> (u64, TcpStream, TcpStream) {
        let [(client, ours_client), (server, ours_upstream)] = self.connections(family);
        let id = self.hand_over_on(terms, ours_client, ours_upstream, None);
        (id, client, server)
    }

    /// Connections to the client and to the server: its end, ours.
    fn connections(&self, family: Family) -> [(TcpStream, TcpStream); 2] {
        let (entry, entry_addr) = listen(address(Place::Client, Place::Gateway, family));
        let client = self.net.within(Place::Client, || connect(entry_addr));
        let (ours_client, client_addr) = entry.accept().unwrap();
        let server_ip = address(Place::Server, Place::Server, family);
        let (listener, server_addr) = self.net.within(Place::Server, || listen(server_ip));
        let ours_upstream = connect(server_addr);
        let (server, _) = listener.accept().unwrap();
        patient(&server);
        assert_eq!(client_addr.ip(), address(Place::Client, Place::Client, family));
        [(client, ours_client), (server, ours_upstream)]
    }

    /// Gives two connections to the datapath; the session's number.
    ///
    /// # Panics
    /// When there is no place.
    pub fn hand_over(
        &self,
        client: TcpStream,
        upstream: TcpStream,
        user_timeout: Option<Duration>,
    ) -> u64 {
        self.hand_over_on(Terms::default(), client, upstream, user_timeout)
    }

    fn hand_over_on(
        &self,
        terms: Terms,
        client: TcpStream,
        upstream: TcpStream,
        user_timeout: Option<Duration>,
    ) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let meta = SessionMeta {
            id,
            client: client.peer_addr().unwrap(),
            local: upstream.local_addr().unwrap(),
            upstream: "test".into(),
            route: "default".into(),
        };
        let place = self.bench.datapath.reserve().expect("a place for a session");
        let handover = Handover {
            client: ClientSocket(Endpoint::tcp(prepared(client, user_timeout))),
            upstream: UpstreamSocket(Endpoint::tcp(prepared(upstream, user_timeout))),
            early_to_upstream: Vec::new(),
            early_to_client: Vec::new(),
            meta,
            terms,
        };
        self.bench.datapath.take_over(place, handover);
        id
    }

    /// How a session ended.
    ///
    /// # Panics
    /// When it doesn't.
    pub fn end_of(&self, id: u64) -> SessionEnd {
        let find = || self.bench.ends().into_iter().find(|e| e.meta.id == id);
        wait_for(PATIENCE, find)
            .unwrap_or_else(|| panic!("no end of {id}: {:?}", self.bench.datapath.sessions()))
    }

    /// FIN by the client, FIN by the server, and the report of both.
    ///
    /// # Panics
    /// When that is not how it ends.
    pub fn finish(&self, id: u64, client: &impl End, server: &impl End) -> SessionEnd {
        client.finish().unwrap();
        expect_end(server);
        server.finish().unwrap();
        expect_end(client);
        let end = self.end_of(id);
        assert_eq!((end.path, end.ending), (self.bench.path, Ending::ClientFinished), "{end:?}");
        assert!(!end.reset && end.error.is_none(), "{end:?}");
        end
    }
}

fn expect_end(from: &impl End) {
    assert_eq!(from.receive(&mut [0; 1]).unwrap(), 0, "more bytes than were sent");
}

/// Sends back what comes, until `total` bytes have.
fn echo(socket: &impl End, total: usize) {
    let (mut buf, mut done) = (vec![0; 64 * KIB], 0);
    while done < total {
        let n = socket.receive(&mut buf).unwrap();
        assert_ne!(n, 0, "the stream ended after {done} of {total} bytes");
        socket.send(&buf[..n]).unwrap();
        done += n;
    }
}

/// Sends messages of these sizes, each when the echo of the one before is
/// here, and checks every byte of it.
///
/// # Panics
/// When a byte is wrong.
pub fn converse(client: &impl End, server: &impl End, seed: u64, sizes: &[usize]) {
    let total = sizes.iter().sum();
    thread::scope(|scope| {
        scope.spawn(|| echo(server, total));
        let (mut stream, mut answers) = (Stream::new(seed), Stream::new(seed));
        let mut answer = Vec::new();
        for size in sizes {
            // A large message must not wait for its own echo to be read.
            let message = stream.take(*size);
            let sender = scope.spawn(move || client.send(&message));
            answer.resize(*size, 0);
            client.receive_all(&mut answer).unwrap();
            answers.check(&answer);
            sender.join().unwrap().unwrap();
        }
    });
}

/// Streams of `total` bytes both ways at once, unasked: the client's of this seed, the server's of
/// the next one. Every byte is checked.
///
/// # Panics
/// When one is wrong.
pub fn both_ways(client: &impl End, server: &impl End, seed: u64, total: usize) {
    thread::scope(|scope| {
        scope.spawn(|| send(client, seed, total));
        scope.spawn(|| send(server, seed + 1, total));
        scope.spawn(|| receive(server, seed, total));
        scope.spawn(|| receive(client, seed + 1, total));
    });
}

fn send(to: &impl End, seed: u64, total: usize) {
    let (mut stream, mut dice) = (Stream::new(seed), Dice::new(seed));
    while (stream.position() as usize) < total {
        let left = total - stream.position() as usize;
        let piece = stream.take(dice.size(256 * KIB).min(left));
        to.send(&piece).unwrap();
    }
}

fn receive(from: &impl End, seed: u64, total: usize) {
    let (mut stream, mut buf) = (Stream::new(seed), vec![0; 64 * KIB]);
    while (stream.position() as usize) < total {
        let at = stream.position();
        let n = from.receive(&mut buf).unwrap();
        assert_ne!(n, 0, "the stream ended after {at} of {total} bytes");
        let expected = stream.take(n);
        if let Some(wrong) = buf.iter().zip(&expected).position(|(a, b)| a != b) {
            panic!("{}", wrong_bytes(seed, at + wrong as u64, &buf[wrong..n]));
        }
    }
}

/// Sends the stream of this seed until it can't.
pub fn push(to: &impl End, seed: u64) -> io::ErrorKind {
    let mut stream = Stream::new(seed);
    loop {
        if let Err(error) = to.send(&stream.take(16 * KIB)) {
            return error.kind();
        }
    }
}

/// Receives and checks the stream of this seed until it can't; an end in order is an unexpected one.
pub fn drain(from: &impl End, seed: u64) -> io::ErrorKind {
    let (mut stream, mut buf) = (Stream::new(seed), vec![0; 64 * KIB]);
    loop {
        match from.receive(&mut buf) {
            Ok(0) => return io::ErrorKind::UnexpectedEof,
            Ok(n) => stream.check(&buf[..n]),
            Err(error) => return error.kind(),
        }
    }
}
