//! Sessions over real loopback sockets, handed straight to a datapath: what a
//! client and a server would see after a handshake.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use wsproxy::datapath::{
    ClientSocket, Companion, Datapath, Endpoint, Entry, Farewell, Handover, Mode, Observer,
    Options, Path, SessionEnd, SessionMeta, Side, Terms, UpstreamSocket,
};

use crate::routed::End;

/// Collects what the datapath tells.
#[derive(Default)]
pub struct Record {
    /// Ended sessions.
    pub ends: Mutex<Vec<SessionEnd>>,
    /// Reasons of fall-backs.
    pub fallbacks: Mutex<Vec<&'static str>>,
    /// Sides that were pinged, one by one.
    pub pinged: Mutex<Vec<Side>>,
}

impl Observer for Record {
    fn ended(&self, end: &SessionEnd, _: Option<Companion>) {
        self.ends.lock().unwrap().push(end.clone());
    }

    fn pinged(&self, to: Side) {
        self.pinged.lock().unwrap().push(to);
    }

    fn fell_back(&self, _: &SessionMeta, reason: &'static str, _: &io::Error) {
        self.fallbacks.lock().unwrap().push(reason);
    }
}

/// As long as this lives, nobody else's benches run.
pub type Alone = MutexGuard<'static, ()>;

/// A running datapath and what it told.
pub struct Bench {
    /// The datapath.
    pub datapath: Datapath,
    /// What it told.
    pub record: Arc<Record>,
    /// Which one it is.
    pub path: Path,
    /// Sessions enter the kernel some time after their begin, or never.
    pub late: bool,
    next_id: AtomicU64,
    /// Nothing but the test's own bytes is sent at a session's begin.
    pub cold: AtomicBool,
    /// Bytes each way that sessions on the packet path began with, by number.
    warmed: Mutex<HashMap<u64, u64>>,
    /// `None`: beside another one.
    alone: Option<Alone>,
}

/// Addresses of the two hops of a session.
#[derive(Clone, Copy, Debug)]
pub struct Hops {
    /// Client to us.
    pub client: IpAddr,
    /// Us to the server.
    pub server: IpAddr,
}

impl Default for Hops {
    fn default() -> Self {
        Self { client: Ipv4Addr::LOCALHOST.into(), server: Ipv4Addr::LOCALHOST.into() }
    }
}

/// All mixes of address families.
pub const FAMILIES: [Hops; 4] = {
    const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
    [
        Hops { client: V4, server: V4 },
        Hops { client: V6, server: V6 },
        Hops { client: V4, server: V6 },
        Hops { client: V6, server: V4 },
    ]
};

/// Limits for tests: nothing idles out, closing is quick.
#[must_use]
pub fn options(mode: Mode) -> Options {
    Options {
        mode,
        max_sessions: 4096,
        workers: 2,
        relay_buffer: 64 * 1024,
        idle: None,
        drain: Duration::from_secs(5),
        farewell: Farewell::default(),
        window: Duration::ZERO,
        entry: Entry::AtOnce,
        packets: mode == Mode::Packet,
        tcx: true,
        persist: None,
    }
}

/// Whether the kernel path can be tested here. As root or in CI the answer is
/// yes, and a kernel that can't fails the test.
#[must_use]
pub fn kernel_expected() -> bool {
    let root = rustix::process::geteuid().is_root();
    let expected = root || std::env::var_os("CI").is_some_and(|v| v == "true");
    if !expected {
        use std::io::Write as _;
        // Past the test harness, which would swallow it.
        let _ = writeln!(io::stderr(), "!!! SKIPPED: the kernel path needs root (sudo)");
    }
    expected
}

impl Bench {
    /// Starts a datapath; `None` (said loudly) where it can't run here.
    #[must_use]
    pub fn start(options: Options) -> Option<Self> {
        static ALONE: Mutex<()> = Mutex::new(());
        if options.mode != Mode::Relay && !kernel_expected() {
            return None;
        }
        // One at a time: the machine is small, and some tests measure memory.
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Self::begin(options, Some(alone)))
    }

    /// Starts another one on the same host.
    #[must_use]
    pub fn start_beside(&self, options: Options) -> Self {
        Self::begin(options, None)
    }

    /// Stops it; what kept others from running.
    #[must_use]
    pub fn stop(self) -> Option<Alone> {
        drop(self.datapath);
        self.alone
    }

    fn begin(options: Options, alone: Option<Alone>) -> Self {
        let path = match options.mode {
            Mode::Relay => Path::Relay,
            Mode::Packet => Path::Packet,
            Mode::Auto | Mode::Sockmap => Path::Sockmap,
        };
        let late = options.entry != Entry::AtOnce;
        let record = Arc::new(Record::default());
        let datapath = Datapath::start(options, Arc::clone(&record) as Arc<dyn Observer>)
            .expect("the datapath starts");
        let next_id = AtomicU64::new(1);
        Self {
            datapath,
            record,
            path,
            late,
            next_id,
            cold: AtomicBool::new(false),
            warmed: Mutex::default(),
            alone,
        }
    }

    /// A session with nothing sent yet: the client's and the server's end.
    pub fn session(&self) -> (TcpStream, TcpStream) {
        self.session_with(Hops::default(), |_, _| {}, b"", b"")
    }

    /// A session between these addresses, to which `before` is done before the
    /// datapath has it, with bytes that the handshake's reader has read too far.
    pub fn session_with(
        &self,
        hops: Hops,
        before: impl FnOnce(&mut TcpStream, &mut TcpStream),
        early_to_upstream: &[u8],
        early_to_client: &[u8],
    ) -> (TcpStream, TcpStream) {
        let early = [early_to_upstream, early_to_client];
        self.session_on(Terms::default(), hops, before, early)
    }

    /// The same, with terms of its own; the early bytes are to the upstream and to the client.
    pub fn session_on(
        &self,
        terms: Terms,
        hops: Hops,
        before: impl FnOnce(&mut TcpStream, &mut TcpStream),
        [early_to_upstream, early_to_client]: [&[u8]; 2],
    ) -> (TcpStream, TcpStream) {
        let (mut client, ours_client, client_addr) = hop(hops.client);
        let (ours_upstream, mut server, _) = hop(hops.server);
        before(&mut client, &mut server);
        let meta = SessionMeta {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            client: client_addr,
            local: ours_upstream.local_addr().unwrap(),
            upstream: "test".into(),
            route: "default".into(),
        };
        let handover = Handover {
            client: ClientSocket(Endpoint::tcp(prepared(ours_client))),
            upstream: UpstreamSocket(Endpoint::tcp(prepared(ours_upstream))),
            early_to_upstream: early_to_upstream.to_vec(),
            early_to_client: early_to_client.to_vec(),
            meta,
            terms,
        };
        let place = wait_for(Duration::from_secs(20), || self.datapath.reserve())
            .expect("a place for a session");
        let id = handover.meta.id;
        let early = !handover.early_to_upstream.is_empty() || !handover.early_to_client.is_empty();
        let same_family = hops.client.is_ipv4() == hops.server.is_ipv4();
        // Bytes that are no frames would not do where frames are followed.
        let plain = handover.terms.frames.is_none();
        let eligible = same_family && !early && !handover.terms.no_packets && plain;
        self.datapath.take_over(place, handover);
        if self.path == Path::Packet && eligible && !self.cold.load(Ordering::Relaxed) {
            self.warm(id, &client, &server);
        }
        (client, server)
    }

    /// Sends bytes to and fro until the packets are translated: they are once something was heard
    /// of both sides, and nothing is under way.
    ///
    /// # Panics
    /// When they never are.
    pub fn warm(&self, id: u64, client: &impl End, server: &impl End) {
        // Not each moment is quiet, and where the machine is emulated, and busy besides, a byte to and
        // fro was seen to take 300 ms: that was seven tries in 20 s.
        let deadline = Instant::now() + Duration::from_secs(120);
        let mut bytes = 0;
        let mut byte = [0];
        while self.datapath.sessions().iter().any(|s| s.meta.id == id && s.path != Path::Packet) {
            assert!(Instant::now() < deadline, "{}", self.not_translated(id));
            client.send(b"w").unwrap();
            server.receive_all(&mut byte).unwrap();
            server.send(b"w").unwrap();
            client.receive_all(&mut byte).unwrap();
            bytes += 1;
            std::thread::sleep(Duration::from_millis(2));
        }
        self.warmed.lock().unwrap().insert(id, bytes);
    }

    /// What is known about why.
    fn not_translated(&self, id: u64) -> String {
        let reasons: Vec<_> =
            self.datapath.reasons().into_iter().filter(|(_, count)| *count > 0).collect();
        let fallbacks = self.record.fallbacks.lock().unwrap();
        format!("the packets of session {id} are not translated: {fallbacks:?}, {reasons:?}")
    }

    /// Waits until no session is left, and checks that nothing else is either.
    pub fn all_gone(&self) {
        let gone =
            wait_for(Duration::from_secs(20), || (self.datapath.live_all() == 0).then_some(()));
        assert!(gone.is_some(), "sessions are left: {:?}", self.datapath.sessions());
        // Those of the packet path stay for a while after the session.
        let empty = || (self.datapath.map_entries() == 0).then_some(());
        let patience = Duration::from_secs(if self.path == Path::Packet { 10 } else { 0 });
        assert!(wait_for(patience, empty).is_some(), "entries are left in the maps");
    }

    /// The ends so far.
    #[must_use]
    pub fn ends(&self) -> Vec<SessionEnd> {
        let mut ends = self.record.ends.lock().unwrap().clone();
        let warmed = self.warmed.lock().unwrap();
        for end in &mut ends {
            // What the test did not send.
            let bytes = warmed.get(&end.meta.id).copied().unwrap_or_default();
            for carried in [&mut end.to_upstream, &mut end.to_client] {
                let relayed = carried.relay.min(bytes);
                carried.relay -= relayed;
                carried.packet -= bytes - relayed;
            }
        }
        ends
    }
}

/// Repeats `look` until it finds something or `patience` is over.
pub fn wait_for<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// One TCP connection over loopback: connecting end, accepting end, address of the first.
#[must_use]
pub fn hop(ip: IpAddr) -> (TcpStream, TcpStream, SocketAddr) {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let connecting = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, address) = listener.accept().unwrap();
    connecting.set_nodelay(true).unwrap();
    (connecting, accepted, address)
}

fn prepared(stream: TcpStream) -> OwnedFd {
    stream.set_nonblocking(true).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.into()
}

/// A repeatable stream of bytes, for sending and for checking: position and
/// seed decide each byte, so a lost, doubled or moved byte shows.
#[derive(Clone, Debug)]
pub struct Stream {
    seed: u64,
    at: u64,
}

impl Stream {
    /// The stream of this seed, at its beginning.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, at: 0 }
    }

    /// Bytes produced or checked so far.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.at
    }

    fn word(&self, index: u64) -> [u8; 8] {
        // splitmix64: cheap, and no two positions look alike.
        let mut z = (index ^ self.seed.rotate_left(32)).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    }

    /// Fills `out` with the next bytes.
    pub fn fill(&mut self, out: &mut [u8]) {
        let mut done = 0;
        while done < out.len() {
            let word = self.word(self.at / 8);
            let from = (self.at % 8) as usize;
            let n = (8 - from).min(out.len() - done);
            out[done..done + n].copy_from_slice(&word[from..from + n]);
            done += n;
            self.at += n as u64;
        }
    }

    /// The next `n` bytes.
    #[must_use]
    pub fn take(&mut self, n: usize) -> Vec<u8> {
        let mut out = vec![0; n];
        self.fill(&mut out);
        out
    }

    /// Panics unless `bytes` are the next bytes.
    pub fn check(&mut self, bytes: &[u8]) {
        let at = self.at;
        let expected = self.take(bytes.len());
        if let Some(wrong) = bytes.iter().zip(&expected).position(|(a, b)| a != b) {
            panic!("byte {} of stream {:x} is wrong", at + wrong as u64, self.seed);
        }
    }
}

/// A small deterministic random source for schedules.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Starts from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(1))
    }

    /// A number below `n` (which is not 0).
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    /// A size from 1 to `max`, small ones as likely as large ones.
    pub fn size(&mut self, max: usize) -> usize {
        let bits = self.below(u64::from(max.ilog2()) + 1) + 1;
        (self.below(1 << bits) as usize + 1).min(max)
    }
}
