//! A second TCP implementation as a peer: smoltcp, behind a TAP device in the gateway's namespace.
//! It shares no line of code with Linux', and its options differ: timestamps only if asked for,
//! and what it is told by SACK it ignores.
//!
//! A peer is one device, one small net of its own and one connection, driven by a thread. What it
//! offers waits as blocking sockets do.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU16, Ordering},
        mpsc::{Receiver, channel},
    },
    thread::JoinHandle,
    time::Instant,
};

use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{Medium, TunTapInterface, wait},
    socket::tcp::{RecvError, Socket, SocketBuffer, State},
    time::{Duration as SmolDuration, Instant as SmolInstant},
    wire::{EthernetAddress, IpCidr},
};

use crate::{
    namespaces::{Entrance, Family, Net, Place, device, numbered},
    routed::{End, PATIENCE},
};

/// Bytes of each buffer: the window needs scaling.
const BUFFER: usize = 128 << 10;
/// Bytes of the timestamps option. smoltcp 0.12 does not take them off the MSS, as it must (RFC
/// 6691, section 2), and then its segments do not fit the link; so it is told of a smaller one.
const TIMESTAMPS: u32 = 12;
/// How long what was written waits at most for the thread to send it.
const NAP: SmolDuration = SmolDuration::from_millis(1);

/// A connection of smoltcp's, on the client's or on the server's side; gone when dropped, without
/// a word, and its device with it.
pub struct SmolPeer<'net> {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    hop: Place,
    net: &'net Net,
    address: SocketAddr,
}

/// What the thread and the peer's owner both have.
struct Shared {
    stack: Mutex<Stack>,
    /// The thread has looked at the network.
    changed: Condvar,
    ended: AtomicBool,
}

impl Shared {
    fn new(timestamps: Timestamps) -> Self {
        let buffer = || SocketBuffer::new(vec![0; BUFFER]);
        let mut tcp = Socket::new(buffer(), buffer());
        tcp.set_nagle_enabled(false);
        if timestamps == Timestamps::Offered {
            tcp.set_tsval_generator(Some(|| SmolInstant::now().total_millis() as u32));
        }
        let mut sockets = SocketSet::new(Vec::new());
        let tcp = sockets.add(tcp);
        let stack = Mutex::new(Stack { sockets, tcp });
        Self { stack, changed: Condvar::new(), ended: AtomicBool::new(false) }
    }
}

struct Stack {
    sockets: SocketSet<'static>,
    tcp: SocketHandle,
}

impl Stack {
    fn tcp(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.tcp)
    }
}

/// Whether smoltcp offers timestamps (RFC 7323, section 3), as Linux does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timestamps {
    /// It does.
    Offered,
    /// It does not, and there are none on the connection.
    None,
}

/// What the connection begins with.
enum Begin {
    Connect(SocketAddr),
    Listen,
}

impl<'net> SmolPeer<'net> {
    /// A client that begins to connect to this port of the gateway's [`gateway_address`];
    /// [`Self::established`] waits for it.
    ///
    /// # Panics
    /// Without a device.
    #[must_use]
    pub fn client(net: &'net Net, family: Family, port: u16, timestamps: Timestamps) -> Self {
        let to = SocketAddr::new(gateway_address(Place::Client, family), port);
        Self::start(net, (Place::Client, family), Begin::Connect(to), timestamps)
    }

    /// A server that listens at its [`Self::address`].
    ///
    /// # Panics
    /// Without a device.
    #[must_use]
    pub fn server(net: &'net Net, family: Family, timestamps: Timestamps) -> Self {
        Self::start(net, (Place::Server, family), Begin::Listen, timestamps)
    }

    fn start(
        net: &'net Net,
        (hop, family): (Place, Family),
        begin: Begin,
        timestamps: Timestamps,
    ) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let name = device_of(hop);
        net.add_tap(Place::Gateway, &name);
        net.add_address(Place::Gateway, &name, gateway_address(hop, family));
        net.set_link(Place::Gateway, &name, "up");

        let host = numbered(net_of(hop), 2, family);
        if timestamps == Timestamps::Offered {
            let headers = if family == Family::V4 { 40 } else { 60 };
            net.announce(Place::Gateway, &name, host, net.mtu - headers - TIMESTAMPS);
        }

        let number = NEXT.fetch_add(1, Ordering::Relaxed) % 10_000;
        let address = SocketAddr::new(host, 40_000 + number);
        let shared = Arc::new(Shared::new(timestamps));
        let (entrance, (begun, begins)) = (net.entrance(Place::Gateway), channel());
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let mut link = Link::open(entrance, &name, address.ip());
                link.begin(&shared, address, &begin);
                let _ = begun.send(());
                link.drive(&shared);
            }
        });
        wait_for_begin(&begins);
        Self { shared, thread: Some(thread), hop, net, address }
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it is connected.
    ///
    /// # Panics
    /// When it isn't.
    pub fn established(&self) {
        let established = self.until(|tcp| (tcp.state() == State::Established).then_some(()));
        assert!(established.is_some(), "smoltcp is not connected");
    }

    /// Breaks the connection: a reset, whatever is still to be sent. Waits until that is sent.
    ///
    /// # Panics
    /// When it can't be.
    pub fn abort(&self) {
        self.stack().tcp().abort();
        // It forgets whom it was connected with when it has told them.
        let told = self.until(|tcp| tcp.remote_endpoint().is_none().then_some(()));
        assert!(told.is_some(), "smoltcp sends no reset");
    }

    fn stack(&self) -> MutexGuard<'_, Stack> {
        self.shared.stack.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks again and again, each time the thread has looked at the network.
    fn until<T>(&self, mut look: impl FnMut(&mut Socket<'static>) -> Option<T>) -> Option<T> {
        let end = Instant::now() + PATIENCE;
        let mut stack = self.stack();
        loop {
            if let Some(found) = look(stack.tcp()) {
                return Some(found);
            }
            let left = end.checked_duration_since(Instant::now())?;
            let waited = self.shared.changed.wait_timeout(stack, left);
            stack = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl End for SmolPeer<'_> {
    fn receive(&self, buf: &mut [u8]) -> io::Result<usize> {
        let received = self.until(|tcp| match tcp.recv_slice(buf) {
            Ok(0) => None,
            Ok(n) => Some(Ok(n)),
            Err(RecvError::Finished) => Some(Ok(0)),
            Err(RecvError::InvalidState) => Some(Err(ErrorKind::ConnectionReset.into())),
        });
        received.unwrap_or_else(|| Err(ErrorKind::TimedOut.into()))
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let mut left = bytes;
        while !left.is_empty() {
            let sent = self.until(|tcp| match tcp.send_slice(left) {
                Ok(0) => None,
                Ok(n) => Some(Ok(n)),
                Err(_) => Some(Err(ErrorKind::ConnectionReset)),
            });
            left = &left[sent.unwrap_or(Err(ErrorKind::TimedOut))?..];
        }
        Ok(())
    }

    fn finish(&self) -> io::Result<()> {
        self.stack().tcp().close();
        Ok(())
    }
}

impl Drop for SmolPeer<'_> {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map_or(Ok(()), JoinHandle::join);
        self.net.remove(Place::Gateway, &device_of(self.hop));
        // Its panic was printed; a second one while the first unwinds would abort.
        assert!(ended.is_ok() || std::thread::panicking(), "smoltcp's thread broke");
    }
}

/// The gateway's address towards smoltcp on that side.
#[must_use]
pub fn gateway_address(hop: Place, family: Family) -> IpAddr {
    numbered(net_of(hop), 1, family)
}

fn net_of(hop: Place) -> u8 {
    if hop == Place::Client { 3 } else { 4 }
}

fn device_of(hop: Place) -> String {
    format!("smol-{}", device(hop))
}

fn wait_for_begin(begins: &Receiver<()>) {
    begins.recv().expect("smoltcp begins (its panic stands above)");
}

/// The thread's side: the device and smoltcp's stack on it.
struct Link {
    tap: TunTapInterface,
    interface: Interface,
}

impl Link {
    fn open(entrance: Entrance, name: &str, address: IpAddr) -> Self {
        entrance.enter();
        let mut tap = TunTapInterface::new(name, Medium::Ethernet).expect("the TAP device");
        // Locally administered; each is alone on its link.
        let hardware = EthernetAddress([2, 0, 0, 0, 0, 2]);
        let mut config = Config::new(hardware.into());
        // Sequence numbers that are not each run's same.
        config.random_seed = SmolInstant::now().total_micros() as u64;
        let mut interface = Interface::new(config, &mut tap, SmolInstant::now());
        let prefix = if address.is_ipv4() { 24 } else { 64 };
        interface.update_ip_addrs(|all| {
            all.push(IpCidr::new(address.into(), prefix)).expect("room for an address");
        });
        Self { tap, interface }
    }

    fn begin(&mut self, shared: &Shared, own: SocketAddr, begin: &Begin) {
        let mut stack = shared.stack.lock().unwrap_or_else(PoisonError::into_inner);
        match begin {
            Begin::Listen => stack.tcp().listen(own).expect("smoltcp listens"),
            Begin::Connect(to) => {
                let context = self.interface.context();
                stack.tcp().connect(context, *to, own).expect("smoltcp connects");
            }
        }
    }

    fn drive(&mut self, shared: &Shared) {
        while !shared.ended.load(Ordering::Relaxed) {
            let now = SmolInstant::now();
            let next = {
                let mut stack = shared.stack.lock().unwrap_or_else(PoisonError::into_inner);
                self.interface.poll(now, &mut self.tap, &mut stack.sockets);
                shared.changed.notify_all();
                self.interface.poll_delay(now, &stack.sockets)
            };
            let nap = next.unwrap_or(NAP).min(NAP);
            wait(self.tap.as_raw_fd(), Some(nap)).expect("select(2)");
        }
    }
}
