//! The datapaths: what carries the bytes of a session once its handshake is
//! over. The rest of the program knows four things of it: take over a pair of
//! sockets, say how it ended, counters, and stop. Nothing above this seam
//! knows how bytes travel.

pub mod bpf;
mod control_frame;
mod endpoint;
mod engine;
pub mod entry;
pub mod frames;
pub mod lane;
mod packet;
mod persist;
mod pings;
mod report;
mod session;
mod slots;
mod start;

use std::{
    any::Any,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

pub use control_frame::MOST_REASON;
pub use endpoint::Endpoint;
pub use engine::Pulse;
pub use entry::Entry;
pub use frames::{Farewell, FramePlan, Frames, PingPlan};
pub use persist::{Persist, Persisted};
pub use report::{
    Carried, CloseCodes, Ending, FrameState, Observer, SessionEnd, SessionInfo, Side,
};
pub use slots::Reservation;
pub use start::{NoKernelPath, Prepared, StartError};

use wsproxy_common::cursor::{Counts, FrameCursor};

use crate::sys::{DirectionTable, SharedDirection};
use bpf::Kernel;
use engine::{CloseOrder, EngineHandle};
use slots::SlotPool;

/// Which way the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The kernel where the checks pass, the relay elsewhere.
    Auto,
    /// The kernel, or no start.
    Sockmap,
    /// The packet path for every session that can go it, at once; or no start.
    Packet,
    /// User space; loads nothing, needs no privilege.
    Relay,
}

impl Mode {
    /// As the configuration names it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Sockmap => "sockmap",
            Self::Packet => "packet",
            Self::Relay => "relay",
        }
    }
}

/// What carries a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Path {
    /// Its sockets are in the socket map.
    Sockmap,
    /// User space copies.
    Relay,
    /// Its packets are translated.
    Packet,
}

impl Path {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sockmap, Self::Relay, Self::Packet];

    /// Label for metrics and logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Sockmap => "sockmap",
            Self::Relay => "relay",
            Self::Packet => "packet",
        }
    }
}

/// Limits and sizes of a datapath.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which way.
    pub mode: Mode,
    /// Sessions at the same time.
    pub max_sessions: u32,
    /// Threads that own sessions.
    pub workers: u32,
    /// Bytes of one read, and the most that one direction may hold in user space.
    pub relay_buffer: usize,
    /// A session in which nothing moves for this long is closed; `None`: never.
    pub idle: Option<Duration>,
    /// How long an orderly close may take before it becomes a reset.
    pub drain: Duration,
    /// What peers are told when a time limit ends their session.
    pub farewell: Farewell,
    /// Over how long the sessions of a server that was taken out are closed.
    pub window: Duration,
    /// When sessions enter the kernel, where it can carry them.
    pub entry: Entry,
    /// Whether sessions may go the packet path.
    pub packets: bool,
    /// Whether its program is attached by tcx where the kernel has that; `false`, for tests: by
    /// classical filters, as before Linux 6.6.
    pub tcx: bool,
    /// Where sessions on the packet path are kept over the end of the process, if they are.
    pub persist: Option<Persist>,
}

/// The client's side of a session.
#[derive(Debug)]
pub struct ClientSocket(pub Endpoint);

/// The upstream's side of a session.
#[derive(Debug)]
pub struct UpstreamSocket(pub Endpoint);

/// What holds for one session only.
#[derive(Default)]
pub struct Terms {
    /// In the place of [`Options::idle`].
    pub idle: Option<Option<Duration>>,
    /// A session older than this is closed.
    pub lifetime: Option<Duration>,
    /// A session of which one side has ended is closed when nothing moves for so long.
    pub half_closed: Option<Duration>,
    /// Its frames are followed, and this is known and wanted of them; `None`: they are not.
    pub frames: Option<Frames>,
    /// Its packets may not be translated.
    pub no_packets: bool,
    /// What goes with the session and comes to the observer at its end; nothing of it is looked
    /// at here.
    pub companion: Option<Companion>,
}

/// What goes with a session: places in limits and counts, what is to be logged at its end.
pub type Companion = Box<dyn Any + Send + Sync>;

impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terms")
            .field("idle", &self.idle)
            .field("lifetime", &self.lifetime)
            .field("half_closed", &self.half_closed)
            .field("frames", &self.frames)
            .finish_non_exhaustive()
    }
}

/// Which sessions.
pub type Which = Arc<dyn Fn(&SessionMeta) -> bool + Send + Sync>;

/// What the log line of a session says besides what the datapath knows.
#[derive(Clone, Debug)]
pub struct SessionMeta {
    /// Number of the session, unique in this process.
    pub id: u64,
    /// The client's address.
    pub client: SocketAddr,
    /// Our own address towards the upstream.
    pub local: SocketAddr,
    /// The upstream server, as configured.
    pub upstream: Arc<str>,
    /// The route's name.
    pub route: Arc<str>,
}

/// A session whose handshake is over.
#[derive(Debug)]
pub struct Handover {
    /// Towards the client.
    pub client: ClientSocket,
    /// Towards the upstream.
    pub upstream: UpstreamSocket,
    /// Bytes that came from the client behind its request.
    pub early_to_upstream: Vec<u8>,
    /// Bytes that came from the upstream behind its 101.
    pub early_to_client: Vec<u8>,
    /// For the log.
    pub meta: SessionMeta,
    /// What holds for it only.
    pub terms: Terms,
}

/// Bytes moved since the start, running sessions included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// From clients to upstreams.
    pub to_upstream: Carried,
    /// From upstreams to clients.
    pub to_client: Carried,
}

/// What the engines share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    // Dropped in this order: the records' mapping before the object.
    pub(crate) table: DirectionTable,
    pub(crate) kernel: Option<Kernel>,
    /// How peers are reached; with the packet path.
    pub(crate) paths: Option<packet::plan::Paths>,
    /// What is kept of sessions over the end of the process.
    pub(crate) store: Option<persist::Store>,
    pub(crate) slots: Arc<SlotPool>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) live: [AtomicI64; 3],
    pub(crate) started: AtomicU64,
    /// Directions that the sweep found given back without a notification.
    pub(crate) healed: AtomicU64,
    /// Segments that frozen sockets got.
    pub(crate) astray: AtomicU64,
    /// Sessions that entered the kernel.
    pub(crate) entered: AtomicU64,
    /// ns that directions of sessions in the kernel were in user space.
    pub(crate) diverted_ns: [AtomicU64; 2],
    /// What peers are told when a time limit ends their session, and over how long the sessions of
    /// a server that was taken out are closed.
    closing: RwLock<(Farewell, Duration)>,
    /// Frames of sessions whose place has another one now.
    folded: Mutex<[Counts; 2]>,
}

impl Shared {
    /// Starts a record's cursor anew; what it has counted stays in the totals.
    pub(crate) fn fold(&self, side: usize, record: &SharedDirection) {
        let mut folded = self.folded.lock().unwrap_or_else(PoisonError::into_inner);
        folded[side].add(&record.cursor().counts);
        record.set_cursor(&FrameCursor::default());
    }

    /// What peers are told when a time limit ends their session.
    pub(crate) fn farewell(&self) -> Farewell {
        self.closing.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    fn window(&self) -> Duration {
        self.closing.read().unwrap_or_else(PoisonError::into_inner).1
    }

    fn counts(&self) -> [Counts; 2] {
        let folded = self.folded.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counts = *folded;
        for (at, record) in self.table.records().iter().enumerate() {
            counts[at % 2].add(&record.cursor().counts);
        }
        counts
    }

    pub(crate) fn live(&self, path: Path) -> &AtomicI64 {
        match path {
            Path::Sockmap => &self.live[0],
            Path::Relay => &self.live[1],
            Path::Packet => &self.live[2],
        }
    }
}

/// A running datapath. Dropping it resets what is left of its sessions and
/// takes everything out of the kernel. With [`Options::persist`] it leaves sessions on the packet
/// path as they are, unless [`Self::begin_drain`] or [`Self::drain`] was called.
pub struct Datapath {
    shared: Arc<Shared>,
    engines: Vec<EngineHandle>,
    fallback: Option<NoKernelPath>,
    /// What became of the sessions that an earlier process left.
    persisted: Persisted,
    /// No session that runs has this number, or a higher one.
    next_id: u64,
}

impl fmt::Debug for Datapath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datapath").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl Datapath {
    /// Why the kernel path is off although it was wanted.
    #[must_use]
    pub fn fallback(&self) -> Option<&NoKernelPath> {
        self.fallback.as_ref()
    }

    /// What carries a session at best.
    #[must_use]
    pub fn path(&self) -> Path {
        match &self.shared.kernel {
            Some(kernel) if kernel.packets().is_some() => Path::Packet,
            Some(_) => Path::Sockmap,
            None => Path::Relay,
        }
    }

    /// Connections and sessions that may be at a time: what the configuration and the limit on
    /// descriptors allow.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.shared.options.max_sessions
    }

    /// Places of [`Self::limit`] that are taken now.
    #[must_use]
    pub fn taken(&self) -> u32 {
        self.shared.slots.taken()
    }

    /// Sets a place aside for a session; `None` at the limit.
    #[must_use]
    pub fn reserve(&self) -> Option<Reservation> {
        SlotPool::reserve(&self.shared.slots)
    }

    /// Takes over a session. From here on its end is the observer's to hear.
    pub fn take_over(&self, place: Reservation, handover: Handover) {
        self.shared.started.fetch_add(1, Ordering::Relaxed);
        self.engine_of(place.slot()).adopt(place, handover);
    }

    fn engine_of(&self, slot: u32) -> &EngineHandle {
        &self.engines[slot as usize % self.engines.len()]
    }

    /// What became of the sessions that an earlier process left in the kernel.
    #[must_use]
    pub fn persisted(&self) -> Persisted {
        self.persisted
    }

    /// The least number that no session of an earlier process has.
    #[must_use]
    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Sessions now on `path`.
    #[must_use]
    pub fn live(&self, path: Path) -> i64 {
        self.shared.live(path).load(Ordering::Relaxed)
    }

    /// Sessions taken over since the start.
    #[must_use]
    pub fn started(&self) -> u64 {
        self.shared.started.load(Ordering::Relaxed)
    }

    /// Bytes moved since the start; reads shared memory, asks nobody.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for (at, record) in self.shared.table.records().iter().enumerate() {
            let sum = if at % 2 == 0 { &mut totals.to_upstream } else { &mut totals.to_client };
            sum.kernel += record.kernel_bytes.load(Ordering::Relaxed);
            sum.relay += record.relay_bytes.load(Ordering::Relaxed);
            sum.packet += record.packet_bytes.load(Ordering::Relaxed);
        }
        totals
    }

    /// Frames that passed since the start, running sessions included, client's direction first;
    /// those of sessions whose frames are followed.
    #[must_use]
    pub fn counts(&self) -> [Counts; 2] {
        self.shared.counts()
    }

    /// How long directions of sessions in the kernel were in user space, once they came back.
    #[must_use]
    pub fn diverted(&self) -> [Duration; 2] {
        self.shared
            .diverted_ns
            .each_ref()
            .map(|ns| Duration::from_nanos(ns.load(Ordering::Relaxed)))
    }

    /// How often the verdict program took each exit; empty without BPF.
    #[must_use]
    pub fn reasons(&self) -> Vec<(wsproxy_common::Reason, u64)> {
        self.shared.kernel.as_ref().map(|k| k.reason_counts().to_vec()).unwrap_or_default()
    }

    /// Sessions that entered the kernel since the start.
    #[must_use]
    pub fn entered(&self) -> u64 {
        self.shared.entered.load(Ordering::Relaxed)
    }

    /// Directions that the sweep found given back without a notification.
    #[must_use]
    pub fn healed(&self) -> u64 {
        self.shared.healed.load(Ordering::Relaxed)
    }

    /// Segments of sessions on the packet path that came in where nobody translates them, as far
    /// as was noticed.
    #[must_use]
    pub fn astray(&self) -> u64 {
        self.shared.astray.load(Ordering::Relaxed)
    }

    /// Entries in the socket map, and of the packet path; 0 without BPF.
    #[must_use]
    pub fn map_entries(&self) -> usize {
        let Some(kernel) = &self.shared.kernel else { return 0 };
        kernel.entries() + kernel.packets().map_or(0, |packets| packets.entries())
    }

    /// Sessions that run now, whatever carries them.
    #[must_use]
    pub fn live_all(&self) -> i64 {
        Path::ALL.iter().map(|path| self.live(*path)).sum()
    }

    /// The running sessions, as the engines see them.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionInfo> {
        self.list(false)
    }

    /// The same, with TCP's own view of their sockets: two system calls a session.
    #[must_use]
    pub fn sessions_with_tcp(&self) -> Vec<SessionInfo> {
        self.list(true)
    }

    fn list(&self, tcp: bool) -> Vec<SessionInfo> {
        self.engines.iter().flat_map(|engine| engine.sessions(tcp)).collect()
    }

    /// The session whose connection to the upstream leaves from `local`.
    #[must_use]
    pub fn session_from(&self, local: SocketAddr) -> Option<SessionInfo> {
        self.sessions().into_iter().find(|s| s.meta.local == local)
    }

    /// From now on these stand in the place of [`Options::farewell`] and [`Options::window`].
    pub fn set_closing(&self, farewell: Farewell, window: Duration) {
        let mut closing = self.shared.closing.write().unwrap_or_else(PoisonError::into_inner);
        *closing = (farewell, window);
    }

    /// Pings both sides of these sessions now, whatever they have said lately; not those whose
    /// frames are not followed, or which are about to end.
    pub fn ping(&self, which: &Which) {
        for engine in &self.engines {
            engine.ping(which);
        }
    }

    /// Closes these sessions in order, one by one over `window` (without one, [`Options::window`]), as
    /// [`Self::drain`] does, with `why` in their log lines; a reset for what is left of each
    /// after [`Options::drain`].
    pub fn close(&self, which: &Which, why: Ending, farewell: &Farewell, window: Option<Duration>) {
        let order = Arc::new(CloseOrder { why, farewell: farewell.clone() });
        let window = window.unwrap_or_else(|| self.shared.window());
        for engine in &self.engines {
            engine.close(which, &order, window);
        }
    }

    /// How often the engines woke up since the start, for tests and benchmarks.
    #[must_use]
    pub fn wakeups(&self) -> u64 {
        self.engines.iter().map(EngineHandle::wakeups).sum()
    }

    /// A way to ask each engine whether it gets to its work.
    #[must_use]
    pub fn pulses(&self) -> Vec<Pulse> {
        self.engines.iter().map(EngineHandle::pulse).collect()
    }

    /// [`Options::drain`].
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.shared.options.drain
    }

    /// As [`Self::drain`], but returns at once; sessions that still come are closed at once. When
    /// what is left is reset.
    pub fn begin_drain(&self, farewell: &Farewell, window: Duration) -> Instant {
        self.shared.release();
        let deadline = Instant::now() + window + self.shared.options.drain;
        let order = Arc::new(CloseOrder { why: Ending::Drained, farewell: farewell.clone() });
        for engine in &self.engines {
            engine.drain(&order, window, deadline);
        }
        deadline
    }

    /// The process ends now, whatever runs: nothing stays in the kernel. Peers on the packet path
    /// are reset by the stack when they say something.
    pub fn cut_off(&self) {
        self.shared.cut_off();
    }

    /// Ends all sessions, one by one over `window`: a Close frame at the end of the frame under
    /// way (without followed frames a FIN behind the last byte), in both directions, and a reset
    /// for what is left of each after [`Options::drain`]. Returns when none is left. Blocks.
    pub fn drain(&self, farewell: &Farewell, window: Duration) {
        let deadline = self.begin_drain(farewell, window);
        let live = || self.live_all() > 0;
        // Reserved places too: a handshake under way becomes a session, which ends in order.
        let busy = || live() || self.shared.slots.taken() > 0;
        // The engines reset at the deadline; the rest is for them to get there.
        let give_up = deadline + Duration::from_secs(2);
        while (busy() && Instant::now() < deadline) || (live() && Instant::now() < give_up) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Datapath {
    fn drop(&mut self) {
        for engine in &mut self.engines {
            engine.stop();
        }
        self.shared.slots.stop();
        self.shared.leave();
    }
}
