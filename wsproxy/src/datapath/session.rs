//! One session inside its engine: two sockets, two lanes, and how it ends.

mod adoption;
mod ending;
mod moments;
mod parting;
mod passage;
mod supervision;

pub(super) use self::{
    ending::Cause,
    passage::{Errand, News, Remains, Returning, TIME_WAIT},
    supervision::Look,
};

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use rustix::{event::epoll::EventFlags, net::sockopt};
use wsproxy_common::direction::FOLLOW_FRAMES;

use super::{
    Carried, Companion, Ending, Endpoint, Entry, Frames, Handover, Path, Reservation, SessionMeta,
    Shared,
    entry::{self, Activity, Batches},
    lane::{Attachment, Fault, Lane, Want, Wire},
    packet::plan::Ineligible,
    pings::Pings,
};
use crate::sys::{self, SharedDirection};

/// Index of a side: of its socket, and of the lane that reads from it.
pub(super) const CLIENT: usize = 0;
/// See [`CLIENT`].
pub(super) const UPSTREAM: usize = 1;

/// A pair of endpoints seen along one direction.
struct Pair<'a> {
    source: &'a mut Endpoint,
    target: &'a mut Endpoint,
    /// The other direction has ended: when this one does, both sockets are closed, which sends
    /// the FIN.
    last: bool,
}

impl Wire for Pair<'_> {
    fn recv(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.source.recv(buf)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.target.send(bytes)
    }

    fn target_count(&mut self) -> io::Result<u64> {
        // In this order the sum can only be too small: what is acknowledged in between
        // is missing from the second number.
        let acked = sys::tcp_bytes_acked(self.target.as_fd())?;
        Ok(acked + u64::from(sys::tcp_unacknowledged(self.target.as_fd())?))
    }

    fn target_room(&mut self) -> usize {
        // A socket that does not tell is no reason to stop: sending to it will say why.
        sys::send_room(self.target.as_fd()).unwrap_or(usize::MAX)
    }

    fn finish_target(&mut self, over: bool) -> io::Result<()> {
        self.target.finish(self.last && over)
    }
}

/// A session is to end in an orderly way.
#[derive(Clone, Copy, Debug)]
struct Closing {
    why: Ending,
    deadline: Instant,
}

/// A side broke after it had ended in order; the other one has not got all of it yet.
#[derive(Debug)]
struct BrokenOff {
    /// The side that broke.
    side: usize,
    error: Option<io::Error>,
}

/// What became of a session after it ran.
#[derive(Debug)]
pub(super) enum Progress {
    /// It goes on.
    Runs,
    /// Both streams are at their end.
    Finished,
    /// One side broke.
    Broken {
        /// [`CLIENT`] or [`UPSTREAM`].
        side: usize,
        /// How.
        error: io::Error,
    },
    /// One side ended without a Close, and the other one got ours.
    Gone {
        /// [`CLIENT`] or [`UPSTREAM`].
        side: usize,
    },
    /// One side broke a rule that is enforced.
    Forbidden {
        /// [`CLIENT`] or [`UPSTREAM`].
        side: usize,
        /// Bits of `cursor::violation`.
        violations: u16,
    },
}

/// One session.
pub(super) struct Session {
    ends: [Endpoint; 2],
    lanes: [Lane; 2],
    wants: [Want; 2],
    /// What epoll watches on each socket; nothing at all: it does not know the socket yet.
    pub(super) watched: [EventFlags; 2],
    place: Reservation,
    meta: SessionMeta,
    path: Path,
    /// Which sockets are in the socket map; one may be although the session is relayed.
    inside: [bool; 2],
    /// May still enter the kernel.
    outside: bool,
    /// May still go the packet path.
    may_be_translated: bool,
    /// Reads of both lanes when it came back from the packet path for a moment.
    came_back_at: Option<u64>,
    /// When it came back, a side was told a window too small to say what it has.
    held_back: bool,
    /// Where it is on the packet path.
    passage: Option<Box<passage::Passage>>,
    /// Bytes and reads when [`Self::is_time_to_enter`] last looked.
    seen: (u64, [u64; 2]),
    started: Instant,
    /// Silence after which it is closed, in ms; 0: never.
    idle_ms: u32,
    /// Age at which it is closed, in ms; 0: never.
    lifetime_ms: u32,
    /// Silence after which it is closed once one side has ended, in ms; 0: never.
    half_closed_ms: u32,
    /// What is known and wanted of its frames; `None`: they are not followed.
    frames: Option<Frames>,
    /// Pings of each side.
    pings: [Pings; 2],
    /// Times that BPF gave a direction back.
    diversions: u32,
    /// When each direction was last taken from the kernel, in ns; 0: it never was there.
    taken_ns: [u64; 2],
    /// For the observer.
    companion: Option<Companion>,
    /// Totals of the place before this session.
    before: [Carried; 2],
    first_finished: Option<usize>,
    closing: Option<Closing>,
    broken_off: Option<Box<BrokenOff>>,
    /// The side that broke, or is dead, while the other one is told so.
    lost: Option<usize>,
    /// How it broke.
    error: Option<Box<io::Error>>,
    /// Lanes that the last sweep found given back without a word.
    suspects: [bool; 2],
    /// S has hung up: epoll tells that once, so no short read may be taken for an empty
    /// S any more; the FIN may stand behind it.
    pub(super) hung_up: [bool; 2],
    /// Waits in the engine's queue of sessions to run again at once / in a moment.
    pub(super) queued: [bool; 2],
}

fn carried(record: &SharedDirection) -> Carried {
    use std::sync::atomic::Ordering::Relaxed;
    Carried {
        kernel: record.kernel_bytes.load(Relaxed),
        relay: record.relay_bytes.load(Relaxed),
        packet: record.packet_bytes.load(Relaxed),
    }
}

/// Reads of one turn whose bytes are thrown away.
const READS_PER_TURN: usize = 16;

fn broke(side: usize) -> Ending {
    if side == CLIENT { Ending::ClientBroke } else { Ending::UpstreamBroke }
}

/// A limit in ms, at least 1 where there is one: small, since every session has it.
fn millis(limit: Option<Duration>) -> u32 {
    limit.map_or(0, |limit| u32::try_from(limit.as_millis()).unwrap_or(u32::MAX).max(1))
}

/// The two records of a place.
pub(super) fn records(shared: &Shared, slot: u32) -> [&SharedDirection; 2] {
    let at = slot as usize * 2;
    let all = shared.table.records();
    [&all[at], &all[at + 1]]
}

impl Session {
    /// A session that begins now, on its sockets, and of which nothing is under way. Its limits in
    /// ms are idle, lifetime, half-closed; `before` are the totals of its place.
    fn new(
        place: Reservation,
        ends: [Endpoint; 2],
        meta: SessionMeta,
        limits_ms: [u32; 3],
        before: [Carried; 2],
    ) -> Self {
        let [idle_ms, lifetime_ms, half_closed_ms] = limits_ms;
        Self {
            ends,
            lanes: [(); 2].map(|()| Lane::new(Attachment::None, &[])),
            wants: [Want::Readable; 2],
            watched: [EventFlags::empty(); 2],
            place,
            meta,
            path: Path::Relay,
            inside: [false; 2],
            outside: false,
            may_be_translated: false,
            came_back_at: None,
            held_back: false,
            passage: None,
            seen: (0, [0; 2]),
            started: Instant::now(),
            idle_ms,
            lifetime_ms,
            half_closed_ms,
            frames: None,
            pings: Default::default(),
            diversions: 0,
            taken_ns: [0; 2],
            companion: None,
            before,
            first_finished: None,
            closing: None,
            broken_off: None,
            lost: None,
            error: None,
            suspects: [false; 2],
            hung_up: [false; 2],
            queued: [false; 2],
        }
    }

    /// Takes the sockets over, and puts them into the socket map if that is to be done at once.
    pub(super) fn begin(shared: &Shared, place: Reservation, handover: Handover) -> Self {
        use std::sync::atomic::Ordering::{Relaxed, SeqCst};
        let Handover { client, upstream, early_to_upstream, early_to_client, meta, terms } =
            handover;
        let ends = [client.0, upstream.0];
        let records = records(shared, place.slot());
        for (side, record) in records.into_iter().enumerate() {
            record.generation.fetch_add(1, SeqCst);
            record.last_activity_ns.store(now_ns(), Relaxed);
            shared.fold(side, record);
            let followed = terms.frames.as_ref();
            record.set_rules(&followed.map(|frames| frames.rules(side)).unwrap_or_default());
            record.follow.store(followed.map_or(0, |_| FOLLOW_FRAMES), SeqCst);
        }
        let plain = ends.iter().all(Endpoint::is_plain_tcp);
        let may_be_translated = shared.paths.is_some() && !terms.no_packets;
        let gone_code = terms.frames.as_ref().map_or(0, |frames| frames.plan.gone_code);
        shared.live(Path::Relay).fetch_add(1, Relaxed);
        let limits_ms = [
            millis(terms.idle.unwrap_or(shared.options.idle)),
            millis(terms.lifetime),
            millis(terms.half_closed),
        ];
        let mut session = Self {
            lanes: [
                Lane::new(Attachment::None, &early_to_upstream),
                Lane::new(Attachment::None, &early_to_client).with_gone_code(gone_code),
            ],
            outside: shared.kernel.is_some() && plain,
            may_be_translated: may_be_translated && plain,
            frames: terms.frames,
            companion: terms.companion,
            ..Self::new(place, ends, meta, limits_ms, records.map(carried))
        };
        if may_be_translated && !plain {
            session.not_translated(shared, &Ineligible::NotTcp);
        }
        if shared.options.entry == Entry::AtOnce {
            session.enter(shared);
        }
        session
    }

    /// Whether the session is outside the kernel and should enter it now.
    pub(super) fn is_time_to_enter(&mut self, shared: &Shared, batches: Batches, now: u64) -> bool {
        let delay = shared.options.entry.delay().unwrap_or_default();
        let watched = self.passage.is_some();
        if !self.outside || watched || self.started.elapsed() < delay || !self.has_read_all() {
            return false;
        }
        let bytes = self.moved(shared).iter().map(|c| c.total()).sum::<u64>();
        let reads = self.lanes.each_ref().map(Lane::reads);
        let activity = Activity {
            bytes: bytes - self.seen.0,
            reads: [reads[0] - self.seen.1[0], reads[1] - self.seen.1[1]],
            silent_ns: self.idle_ns(shared, now),
        };
        self.seen = (bytes, reads);
        entry::is_time(shared.options.entry, batches, activity)
    }

    /// The last read of each lane found its socket empty. A packet of which only a part was read
    /// can be longer than the verdict program is able to cut off.
    fn has_read_all(&self) -> bool {
        self.wants == [Want::Readable; 2]
    }

    /// Puts the sockets into the socket map, if there is one and it takes them; the lanes must
    /// be run after. A session that is about to end stays as it is.
    pub(super) fn enter(&mut self, shared: &Shared) {
        use std::sync::atomic::Ordering::Relaxed;
        let Some(kernel) = shared.kernel.as_ref().filter(|_| self.outside) else { return };
        if !self.has_read_all() {
            return;
        }
        self.watch(shared);
        if self.passage.is_some() {
            return;
        }
        self.outside = false;
        if !self.lanes.iter().all(Lane::may_enter) || self.hung_up.contains(&true) {
            return;
        }
        self.place.mark_used();
        let records = records(shared, self.place.slot());
        let early = self.lanes.each_ref().map(Lane::in_hand);
        let sockets = self.ends.each_ref().map(AsFd::as_fd);
        let attached = kernel.attach(self.place.slot(), records, sockets, early);
        self.inside = attached.inside;
        match attached.error {
            None => {
                self.path = Path::Sockmap;
                shared.live(Path::Relay).fetch_sub(1, Relaxed);
                shared.live(Path::Sockmap).fetch_add(1, Relaxed);
                shared.entered.fetch_add(1, Relaxed);
            }
            Some(error) => shared.observer.fell_back(&self.meta, refusal_label(&error), &error),
        }
        for side in [CLIENT, UPSTREAM] {
            self.lanes[side].enter(match (self.path, self.inside[side]) {
                (Path::Sockmap, _) => Attachment::Full,
                (_, true) => Attachment::Counted,
                (_, false) => Attachment::None,
            });
        }
    }

    /// Number of the session, unique in this process.
    pub(super) fn id(&self) -> u64 {
        self.meta.id
    }

    /// May still enter the kernel.
    pub(super) fn is_outside(&self) -> bool {
        self.outside
    }

    pub(super) fn slot(&self) -> u32 {
        self.place.slot()
    }

    pub(super) fn socket(&self, side: usize) -> BorrowedFd<'_> {
        self.ends[side].as_fd()
    }

    /// Runs the lane that reads from `side` as far as it goes.
    pub(super) fn run_lane(
        &mut self,
        side: usize,
        shared: &Shared,
        buf: &mut [u8],
        now: u64,
        rest: bool,
    ) -> Progress {
        if let Some(broken) = self.broken_off.as_ref().map(|broken| broken.side) {
            return self.say_the_rest(broken, side, buf);
        }
        let record = records(shared, self.place.slot())[side];
        if self.inside[side] && record.broken.load(std::sync::atomic::Ordering::Relaxed) != 0 {
            let error = io::Error::other("the kernel could not cut off a retransmission");
            return Progress::Broken { side, error };
        }
        // What T has not taken yet comes first: the lane waits for it as for T's own buffer.
        if let Err(error) = self.ends[1 - side].flush() {
            return Progress::Broken { side: 1 - side, error };
        }
        if self.ends[1 - side].has_pending() {
            self.wants[side] = Want::Writable;
            return Progress::Runs;
        }
        let rest = rest && !self.hung_up[side] && self.ends[side].is_plain();
        let was_kernel = self.lanes[side].is_kernel();
        let ran =
            self.along(side, shared, |lane, pair, record| lane.run(pair, record, buf, now, rest));
        match ran {
            Ok(want) => self.wants[side] = want,
            Err(Fault::Source(error)) => return Progress::Broken { side, error },
            Err(Fault::Target(error)) => return Progress::Broken { side: 1 - side, error },
        }
        self.note_time(side, was_kernel, shared, now);
        if let Some(progress) = self.supervise(side, shared) {
            return progress;
        }
        let pending = self.ends.each_ref().map(Endpoint::has_pending);
        for (to, pending) in pending.into_iter().enumerate() {
            if pending {
                self.wants[1 - to] = Want::Writable;
            }
        }
        if self.lanes[side].is_finished() && self.first_finished.is_none() {
            self.first_finished = Some(side);
            if side == CLIENT {
                // Who left first was the client: one that reads no more would answer a Close
                // with a reset, and the session would look broken.
                let _ = self.lanes[UPSTREAM].take_gone_code();
            }
            // The time of a half-closed session is counted from here.
            record.last_activity_ns.store(now, std::sync::atomic::Ordering::Relaxed);
        }
        let all_ended = self.lanes.iter().all(Lane::is_ended);
        if all_ended && !pending.contains(&true) { Progress::Finished } else { Progress::Runs }
    }

    /// Does something with the lane that reads from `side`.
    fn along<T>(
        &mut self,
        side: usize,
        shared: &Shared,
        act: impl FnOnce(&mut Lane, &mut Pair<'_>, &SharedDirection) -> T,
    ) -> T {
        let record = records(shared, self.place.slot())[side];
        let last = self.lanes[1 - side].is_ended();
        let [client, upstream] = &mut self.ends;
        let (source, target) = if side == CLIENT { (client, upstream) } else { (upstream, client) };
        act(&mut self.lanes[side], &mut Pair { source, target, last }, record)
    }

    /// Adds up how long directions of sessions in the kernel are in user space.
    fn note_time(&mut self, side: usize, was_kernel: bool, shared: &Shared, now: u64) {
        let came_back = !was_kernel && self.lanes[side].is_kernel();
        if came_back && self.taken_ns[side] != 0 {
            let taken = now.saturating_sub(self.taken_ns[side]);
            shared.diverted_ns[side].fetch_add(taken, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// What the lane that reads from `side` waits for.
    pub(super) fn want(&self, side: usize) -> Want {
        self.wants[side]
    }

    /// User space wants the direction: S hung up, or there is something to say in it.
    pub(super) fn take(&mut self, side: usize, shared: &Shared, now: u64) {
        if self.lanes[side].is_kernel() {
            self.taken_ns[side] = now;
        }
        self.lanes[side].take(records(shared, self.place.slot())[side]);
    }

    /// BPF gave the direction back.
    pub(super) fn given_back(&mut self, side: usize, shared: &Shared, now: u64) {
        self.diversions = self.diversions.saturating_add(1);
        self.take(side, shared, now);
    }

    /// The error that the socket reports, if any; reading it clears it.
    pub(super) fn socket_error(&self, side: usize) -> Option<io::Error> {
        match sockopt::socket_error(self.socket(side)) {
            Ok(Ok(())) => None,
            Ok(Err(error)) | Err(error) => Some(error.into()),
        }
    }

    /// What epoll has to watch on `side` now. Edge-triggered throughout: a
    /// state that lasts (both directions shut) is told once. While the kernel
    /// owns what is read from a socket, nothing but its hang-up wakes us: its
    /// packets still "signal" readability, one by one.
    pub(super) fn wanted_events(&self, side: usize) -> EventFlags {
        let asleep = |want| matches!(want, Want::Hangup | Want::Nothing);
        let mut events = EventFlags::ET | EventFlags::RDHUP;
        if !asleep(self.wants[side]) {
            events |= EventFlags::IN;
        }
        // Once a target was full it will be again: it stays watched.
        let was_full = self.watched[side].contains(EventFlags::OUT);
        let target_of = self.wants[1 - side];
        if target_of == Want::Writable || (was_full && !asleep(target_of)) {
            events |= EventFlags::OUT;
        }
        events
    }

    /// What was handed over with it.
    pub(super) fn meta(&self) -> &SessionMeta {
        &self.meta
    }

    /// ns since a byte moved in either direction.
    pub(super) fn idle_ns(&self, shared: &Shared, now: u64) -> u64 {
        use std::sync::atomic::Ordering::Relaxed;
        let [a, b] = records(shared, self.place.slot()).map(|r| r.last_activity_ns.load(Relaxed));
        now.saturating_sub(a.max(b))
    }

    /// Directions that BPF gave back without user space hearing of it (its
    /// ring buffer was full), found at two sweeps in a row: a notification
    /// that is merely late is not one.
    pub(super) fn forgotten(&mut self, shared: &Shared) -> [bool; 2] {
        use std::sync::atomic::Ordering::Relaxed;
        let records = records(shared, self.place.slot());
        std::array::from_fn(|side| {
            let given_back = self.lanes[side].is_kernel()
                && records[side].owner.load(Relaxed) == wsproxy_common::Owner::Relay as u64;
            let again = given_back && self.suspects[side];
            self.suspects[side] = given_back && !again;
            again
        })
    }

    fn moved(&self, shared: &Shared) -> [Carried; 2] {
        let now = records(shared, self.place.slot()).map(carried);
        std::array::from_fn(|side| Carried {
            kernel: now[side].kernel - self.before[side].kernel,
            relay: now[side].relay - self.before[side].relay,
            packet: now[side].packet - self.before[side].packet,
        })
    }
}

/// `CLOCK_MONOTONIC` as `bpf_ktime_get_coarse_ns` gives it.
pub(super) fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// `CLOCK_MONOTONIC`, in ns: the same clock, read precisely.
fn precise_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Label for a socket that the socket map did not take.
fn refusal_label(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        // One side has closed its direction, or all, before the hand-over.
        None if error.kind() == io::ErrorKind::NotConnected => "closed_early",
        Some(libc::ENOTCONN) => "closed_early",
        Some(libc::EOPNOTSUPP) => "socket_not_supported",
        Some(libc::ENOMEM | libc::E2BIG | libc::ENOSPC) => "map_full",
        Some(libc::EBUSY | libc::EINVAL) => "socket_busy",
        _ => "insert_failed",
    }
}
