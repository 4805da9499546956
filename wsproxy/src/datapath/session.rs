//! One session inside its engine: two sockets, two lanes, and how it ends.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use rustix::{event::epoll::EventFlags, net::sockopt};

use super::{
    Carried, Companion, Ending, Endpoint, Entry, Handover, Path, Reservation, SessionEnd,
    SessionMeta, Shared,
    entry::{self, Activity, Batches},
    lane::{Attachment, Fault, Lane, Want, Wire},
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

    fn finish_target(&mut self) -> io::Result<()> {
        self.target.finish(self.last)
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
    /// Bytes and reads when [`Self::is_time_to_enter`] last looked.
    seen: (u64, [u64; 2]),
    started: Instant,
    /// Silence after which it is closed, in ms; 0: never.
    idle_ms: u32,
    /// Age at which it is closed, in ms; 0: never.
    lifetime_ms: u32,
    /// For the observer.
    companion: Option<Companion>,
    /// Totals of the place before this session.
    before: [Carried; 2],
    first_finished: Option<usize>,
    closing: Option<Closing>,
    broken_off: Option<Box<BrokenOff>>,
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
    Carried { kernel: record.kernel_bytes.load(Relaxed), relay: record.relay_bytes.load(Relaxed) }
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
    /// Takes the sockets over, and puts them into the socket map if that is to be done at once.
    pub(super) fn begin(shared: &Shared, place: Reservation, handover: Handover) -> Self {
        use std::sync::atomic::Ordering::{Relaxed, SeqCst};
        let Handover { client, upstream, early_to_upstream, early_to_client, meta, terms } =
            handover;
        let ends = [client.0, upstream.0];
        let records = records(shared, place.slot());
        for record in records {
            record.generation.fetch_add(1, SeqCst);
            record.last_activity_ns.store(now_ns(), Relaxed);
        }
        shared.live(Path::Relay).fetch_add(1, Relaxed);
        let mut session = Self {
            lanes: [
                Lane::new(Attachment::None, &early_to_upstream),
                Lane::new(Attachment::None, &early_to_client),
            ],
            inside: [false; 2],
            outside: shared.kernel.is_some() && ends.iter().all(Endpoint::is_plain_tcp),
            seen: (0, [0; 2]),
            wants: [Want::Readable; 2],
            watched: [EventFlags::empty(); 2],
            ends,
            idle_ms: millis(terms.idle.unwrap_or(shared.options.idle)),
            lifetime_ms: millis(terms.lifetime),
            companion: terms.companion,
            meta,
            path: Path::Relay,
            started: Instant::now(),
            before: records.map(carried),
            first_finished: None,
            closing: None,
            broken_off: None,
            suspects: [false; 2],
            hung_up: [false; 2],
            queued: [false; 2],
            place,
        };
        if shared.options.entry == Entry::AtOnce {
            session.enter(shared);
        }
        session
    }

    /// Whether the session is outside the kernel and should enter it now.
    pub(super) fn is_time_to_enter(&mut self, shared: &Shared, batches: Batches, now: u64) -> bool {
        let delay = shared.options.entry.delay().unwrap_or_default();
        if !self.outside || self.started.elapsed() < delay || !self.has_read_all() {
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
                (Path::Relay, true) => Attachment::Counted,
                (Path::Relay, false) => Attachment::None,
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
        let [client, upstream] = &mut self.ends;
        let (source, target) = if side == CLIENT { (client, upstream) } else { (upstream, client) };
        let mut pair = Pair { source, target, last: self.lanes[1 - side].is_ended() };
        match self.lanes[side].run(&mut pair, record, buf, now, rest) {
            Ok(want) => self.wants[side] = want,
            Err(Fault::Source(error)) => return Progress::Broken { side, error },
            Err(Fault::Target(error)) => return Progress::Broken { side: 1 - side, error },
        }
        let pending = self.ends.each_ref().map(Endpoint::has_pending);
        for (to, pending) in pending.into_iter().enumerate() {
            if pending {
                self.wants[1 - to] = Want::Writable;
            }
        }
        if self.lanes[side].is_finished() && self.first_finished.is_none() {
            self.first_finished = Some(side);
        }
        let all_ended = self.lanes.iter().all(Lane::is_ended);
        if all_ended && !pending.contains(&true) { Progress::Finished } else { Progress::Runs }
    }

    /// A side broke: whether the session is over. It is not while the other side is still to get
    /// what was said in order before; by `deadline` it is.
    pub(super) fn break_off(
        &mut self,
        side: usize,
        error: io::Error,
        deadline: Instant,
    ) -> Option<Cause> {
        if let Some(first) = &mut self.broken_off {
            let error = first.error.take().unwrap_or(error);
            return Some(Cause::Broke { side: first.side, error });
        }
        let other = 1 - side;
        if !self.lanes[side].is_finished() || self.has_got_all(other) {
            return Some(Cause::Broke { side, error });
        }
        self.wants[side] = Want::Writable;
        self.wants[other] = Want::Readable;
        self.closing.get_or_insert(Closing { why: broke(side), deadline });
        self.broken_off = Some(Box::new(BrokenOff { side, error: Some(error) }));
        None
    }

    /// Whether everything written to this side has been acknowledged, or nothing can be any more.
    fn has_got_all(&self, side: usize) -> bool {
        let end = &self.ends[side];
        !end.has_pending() && !sys::unacknowledged(end.as_fd()).is_ok_and(|bytes| bytes > 0)
    }

    /// Writes what TLS holds for the side that is not `broken`, and throws away what that says:
    /// a socket that is closed with unread bytes, or gets some afterwards, resets, and what it
    /// was still to send is lost (`__tcp_close`, `tcp_rcv_state_process`).
    fn say_the_rest(&mut self, broken: usize, side: usize, buf: &mut [u8]) -> Progress {
        let end = &mut self.ends[1 - broken];
        if side != broken {
            let reads = (0..READS_PER_TURN).take_while(|_| end.recv(buf).is_ok_and(|n| n > 0));
            let all = reads.count() == READS_PER_TURN;
            self.wants[side] = if all { Want::Turn } else { Want::Readable };
        }
        if end.flush().is_ok() && !self.has_got_all(1 - broken) {
            return Progress::Runs;
        }
        let error = self.broken_off.as_mut().and_then(|broken| broken.error.take());
        let error = error.unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
        Progress::Broken { side: broken, error }
    }

    /// What the lane that reads from `side` waits for.
    pub(super) fn want(&self, side: usize) -> Want {
        self.wants[side]
    }

    /// BPF gave the direction back, or S hung up: user space owns it again.
    pub(super) fn take(&mut self, side: usize, shared: &Shared) {
        self.lanes[side].take(records(shared, self.place.slot())[side]);
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

    /// Starts an orderly close: FIN behind the last byte at hand, both ways.
    pub(super) fn close(&mut self, shared: &Shared, why: Ending, deadline: Instant) {
        let records = records(shared, self.place.slot());
        for (lane, record) in self.lanes.iter_mut().zip(records) {
            lane.close(record);
        }
        self.closing.get_or_insert(Closing { why, deadline });
    }

    /// When an orderly close becomes a reset.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.closing.map(|c| c.deadline)
    }

    /// Whether a time limit of the session is over, and which.
    pub(super) fn is_due(&self, shared: &Shared, clock: Instant, now: u64) -> Option<Ending> {
        let over = |limit_ms: u32, passed: Duration| {
            limit_ms > 0 && passed >= Duration::from_millis(limit_ms.into())
        };
        if over(self.idle_ms, Duration::from_nanos(self.idle_ns(shared, now))) {
            return Some(Ending::Idle);
        }
        let age = clock.saturating_duration_since(self.started);
        over(self.lifetime_ms, age).then_some(Ending::Lifetime)
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
        })
    }

    /// How the engine shows it.
    pub(super) fn info(&self, shared: &Shared) -> super::SessionInfo {
        let [to_upstream, to_client] = self.moved(shared);
        super::SessionInfo {
            meta: self.meta.clone(),
            path: self.path,
            age: self.started.elapsed(),
            to_upstream,
            to_client,
            in_kernel: self.lanes.each_ref().map(Lane::is_kernel),
        }
    }

    /// Ends the session: out of the maps, sockets closed or reset, told.
    pub(super) fn end(self, shared: &Shared, cause: Cause) {
        if self.inside.contains(&true)
            && let Some(kernel) = &shared.kernel
        {
            kernel.detach(self.place.slot(), self.socket(CLIENT), self.socket(UPSTREAM));
        }
        let reset = match &cause {
            Cause::Finished => [false; 2],
            Cause::Late | Cause::Failed(_) => [true; 2],
            // The other side is reset too, unless it has already been sent all of the broken
            // side's bytes and its FIN: those must still arrive, the reset behind them.
            Cause::Broke { side, .. } => {
                let mut reset = [true; 2];
                reset[1 - side] = !self.lanes[*side].is_finished();
                reset
            }
        };
        for (end, reset) in self.ends.iter().zip(reset) {
            let socket = end.as_fd();
            if reset {
                // Linger 0: close sends RST and drops what is queued.
                let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
            } else if matches!(cause, Cause::Broke { .. }) {
                // The kernel would answer NEW data with a reset, but a side whose window we
                // have closed sends none, and would wait for as long as the socket lingers.
                let _ = sys::reset_behind_fin(socket);
            }
        }
        let [to_upstream, to_client] = self.moved(shared);
        let end = SessionEnd {
            path: self.path,
            duration: self.started.elapsed(),
            to_upstream,
            to_client,
            ending: self.ending(&cause),
            reset: reset.contains(&true),
            error: cause.error(),
            meta: self.meta,
        };
        let live = shared.live(self.path);
        // Sockets first, then the place, then the news: who hears of the end finds nothing left.
        drop(self.ends);
        drop(self.place);
        live.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        shared.observer.ended(&end, self.companion);
    }

    fn ending(&self, cause: &Cause) -> Ending {
        match (cause, self.closing) {
            (Cause::Failed(_), _) => Ending::Failed,
            (_, Some(closing)) => closing.why,
            (Cause::Broke { side, .. }, None) => broke(*side),
            (Cause::Finished | Cause::Late, None) => match self.first_finished {
                Some(UPSTREAM) => Ending::UpstreamFinished,
                _ => Ending::ClientFinished,
            },
        }
    }
}

/// Why [`Session::end`] is called.
#[derive(Debug)]
pub(super) enum Cause {
    /// Both streams are at their end.
    Finished,
    /// One side broke.
    Broke {
        /// [`CLIENT`] or [`UPSTREAM`].
        side: usize,
        /// How.
        error: io::Error,
    },
    /// An orderly close took too long.
    Late,
    /// The engine can't watch its sockets.
    Failed(io::Error),
}

impl Cause {
    fn error(&self) -> Option<String> {
        match self {
            Self::Finished => None,
            Self::Late => Some("did not close in time".into()),
            Self::Broke { error, .. } | Self::Failed(error) => Some(error.to_string()),
        }
    }
}

/// `CLOCK_MONOTONIC` as `bpf_ktime_get_coarse_ns` gives it.
pub(super) fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
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
