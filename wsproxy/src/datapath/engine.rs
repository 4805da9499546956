//! The threads that own sessions. One epoll each; a session stays where it
//! began. A session whose bytes the kernel moves wakes nobody.

mod mailbox;
mod timing;

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{
        Timespec,
        epoll::{self, Event, EventData, EventFlags},
    },
    fd::BorrowedFd,
};
use wsproxy_common::direction::slot_of;

pub use self::mailbox::Pulse;
pub(super) use self::mailbox::{CloseOrder, EngineHandle};
use self::{
    mailbox::{Command, Mailbox},
    timing::{SWEEP, Timers, What},
};
use super::{
    Handover, Reservation, Shared,
    bpf::Events,
    entry::Batches,
    frames::Numbers,
    lane::Want,
    session::{CLIENT, Cause, Progress, Remains, Returning, Session, TIME_WAIT, UPSTREAM, now_ns},
};

/// Events of one `epoll_wait`.
const BATCH: usize = 256;
/// Pause before bytes on their way inside the kernel are looked for again.
const MOMENT: Duration = Duration::from_micros(500);

/// Pause before sessions whose packets are translated since a moment ago are looked at again.
const CLEARED: Duration = Duration::from_millis(5);

const WAKE: u64 = u64::MAX;
const RING: u64 = u64::MAX - 1;

/// Starts `workers` engines; the first one reads the kernel's notifications
/// and hands them on.
pub(super) fn start(
    shared: &Arc<Shared>,
    workers: u32,
    mut events: Option<Events>,
) -> io::Result<Vec<EngineHandle>> {
    let mailboxes =
        (0..workers).map(|_| Mailbox::new().map(Arc::new)).collect::<io::Result<Vec<_>>>()?;
    let mut engines = Vec::new();
    for (at, mailbox) in mailboxes.iter().enumerate() {
        let engine = Engine::new(Arc::clone(shared), mailboxes.clone(), at, events.take())?;
        let thread = thread::Builder::new()
            .name(format!("wsproxy-engine{at}"))
            .spawn(move || engine.run())?;
        engines.push(EngineHandle { mailbox: Arc::clone(mailbox), thread: Some(thread) });
    }
    Ok(engines)
}

struct Engine {
    shared: Arc<Shared>,
    mailboxes: Vec<Arc<Mailbox>>,
    at: usize,
    epoll: OwnedFd,
    events: Option<Events>,
    /// By slot divided by the number of engines.
    sessions: Vec<Option<Box<Session>>>,
    count: usize,
    buf: Vec<u8>,
    /// Sessions that used up their turn, and those to look at again in a moment.
    queues: [VecDeque<u32>; 2],
    /// Sessions to look at for entering the kernel, by slot and number, and when to do so first.
    newcomers: VecDeque<(Instant, u32, u64)>,
    /// Sessions that are to enter the kernel as soon as there is time.
    entering: VecDeque<(u32, u64)>,
    /// Sessions that one side has broken off, by slot and number, and when to look at them again.
    last_words: VecDeque<(Instant, u32, u64)>,
    /// Sessions that come back from the packet path.
    returning: Vec<Returning>,
    /// Sessions whose frozen sockets may still hold what their peers are to acknowledge.
    clearing: Vec<(u32, u64)>,
    /// What is left of sessions whose packets may still come, and until when.
    remains: VecDeque<(Instant, Remains)>,
    batches: Batches,
    timers: Timers,
    numbers: Numbers,
    next_sweep: Instant,
    /// Changes of routes and devices that were looked at.
    changes: u64,
    /// Sweeps so far.
    sweeps: u32,
    draining: Option<(Arc<CloseOrder>, Instant)>,
    stopping: bool,
}

const TURN: usize = 0;
const LATER: usize = 1;

impl Engine {
    fn new(
        shared: Arc<Shared>,
        mailboxes: Vec<Arc<Mailbox>>,
        at: usize,
        events: Option<Events>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let watch = |fd: BorrowedFd<'_>, token| {
            epoll::add(&epoll, fd, EventData::new_u64(token), EventFlags::IN)
        };
        watch(mailboxes[at].bell.as_fd(), WAKE)?;
        if let Some(events) = &events {
            watch(events.as_fd(), RING)?;
        }
        let buf = vec![0; shared.options.relay_buffer];
        Ok(Self {
            shared,
            mailboxes,
            at,
            epoll,
            events,
            sessions: Vec::new(),
            count: 0,
            buf,
            queues: Default::default(),
            newcomers: VecDeque::new(),
            entering: VecDeque::new(),
            last_words: VecDeque::new(),
            returning: Vec::new(),
            clearing: Vec::new(),
            remains: VecDeque::new(),
            batches: Batches::default(),
            timers: Timers::default(),
            numbers: Numbers::seeded(),
            next_sweep: Instant::now() + SWEEP,
            changes: 0,
            sweeps: 0,
            draining: None,
            stopping: false,
        })
    }

    fn run(mut self) {
        let mut batch: Vec<Event> = Vec::with_capacity(BATCH);
        while !self.stopping {
            batch.clear();
            let timeout = self.timeout();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut batch),
                timeout.as_ref(),
            ) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "epoll_wait failed; sessions of this thread end");
                    break;
                }
            }
            self.mailboxes[self.at].wakeups.fetch_add(1, Ordering::Relaxed);
            let now = now_ns();
            let mut touched = 0;
            for event in &batch {
                match event.data.u64() {
                    WAKE => self.obey(now),
                    RING => self.hear(now),
                    token => {
                        touched += 1;
                        self.touch((token >> 1) as u32, (token & 1) as usize, event.flags, now);
                    }
                }
            }
            self.batches.note(touched);
            self.run_queue(TURN, now);
            self.run_queue(LATER, now);
            let clock = Instant::now();
            self.look_at_newcomers(clock, now);
            self.enter_some(now);
            self.look_at_last_words(clock, now);
            self.look_at_returning(clock, now);
            self.clear_some();
            self.look_at_remains(clock);
            self.look_at_timers(now);
            if clock >= self.next_sweep {
                self.sweep(now);
            }
        }
        for at in 0..self.sessions.len() {
            if let Some(session) = self.sessions[at].take() {
                if session.is_translated() && self.shared.persists() {
                    // Its sockets are silent: the next process finds it as it is.
                    continue;
                }
                session.end(&self.shared, Cause::Late);
            }
        }
        for (_, remains) in self.remains.drain(..) {
            remains.bury(&self.shared);
        }
    }

    fn timeout(&self) -> Option<Timespec> {
        let wait = if !self.queues[TURN].is_empty() || !self.entering.is_empty() {
            Duration::ZERO
        } else if !self.queues[LATER].is_empty() || !self.returning.is_empty() {
            MOMENT
        } else if !self.clearing.is_empty() {
            CLEARED
        } else if self.count > 0 || !self.remains.is_empty() {
            let first = |list: &VecDeque<(Instant, u32, u64)>| list.front().map(|(due, ..)| *due);
            let firsts = [first(&self.newcomers), first(&self.last_words)].into_iter().flatten();
            let end = self.remains.front().map(|(due, _)| *due);
            let due = firsts.chain(end).fold(self.next_sweep, Instant::min);
            let wait = due.saturating_duration_since(Instant::now());
            let timer = self.timers.next().map(|at| at.saturating_sub(now_ns()));
            timer.map_or(wait, |ns| wait.min(Duration::from_nanos(ns)))
        } else {
            return None;
        };
        Timespec::try_from(wait).ok()
    }

    fn place_of(&self, slot: u32) -> usize {
        slot as usize / self.mailboxes.len()
    }

    fn session(&mut self, slot: u32) -> Option<&mut Session> {
        let at = self.place_of(slot);
        self.sessions.get_mut(at)?.as_deref_mut()
    }

    fn obey(&mut self, now: u64) {
        for command in self.mailboxes[self.at].take() {
            match command {
                Command::Adopt(place, handover) => self.adopt(place, *handover, now),
                Command::GoOn(session) => self.seat(session, now),
                Command::Given(direction, generation) => self.given(direction, generation, now),
                Command::List(tcp, sender) => {
                    let all = self.sessions.iter().flatten();
                    // Nobody listens any more: nothing to do.
                    let _ = sender.send(all.map(|s| s.info(&self.shared, now, tcp)).collect());
                }
                Command::Ping(which) => self.ping(|meta| which(meta), now),
                Command::Close(which, order, window) => {
                    self.close_spread(|meta| which(meta), &order, window, now);
                }
                Command::Drain(order, window, deadline) => {
                    self.close_spread(|_| true, &order, window, now);
                    self.draining = Some((order, deadline));
                }
                Command::Answer(answer) => answer(),
                Command::Stop => self.stopping = true,
            }
        }
    }

    fn slots(&self) -> Vec<u32> {
        self.sessions.iter().flatten().map(|s| s.slot()).collect()
    }

    /// Reads the kernel's notifications; each goes to the engine of its slot.
    fn hear(&mut self, now: u64) {
        while let Some(event) = self.events.as_mut().and_then(Events::take) {
            let engine = slot_of(event.direction) as usize % self.mailboxes.len();
            if engine == self.at {
                self.given(event.direction, event.generation, now);
            } else {
                self.mailboxes[engine].put(Command::Given(event.direction, event.generation));
            }
        }
    }

    fn given(&mut self, direction: u32, generation: u64, now: u64) {
        let shared = Arc::clone(&self.shared);
        let record = shared.table.records().get(direction as usize);
        // An older generation speaks of a session that is gone.
        if record.is_some_and(|r| r.generation.load(Ordering::SeqCst) == generation) {
            let slot = slot_of(direction);
            let side = (direction & 1) as usize;
            if self.session(slot).is_some_and(|session| session.is_translated()) {
                return self.hear_packets(slot, Some((direction & 1) as usize), now);
            }
            if let Some(session) = self.session(slot) {
                session.given_back(side, &shared, now);
                self.run_lanes(slot, [side == CLIENT, side == UPSTREAM], now, false);
            }
        }
    }

    fn adopt(&mut self, place: Reservation, handover: Handover, now: u64) {
        self.seat(Box::new(Session::begin(&self.shared, place, handover)), now);
    }

    fn seat(&mut self, session: Box<Session>, now: u64) {
        let slot = session.slot();
        let at = self.place_of(slot);
        if at >= self.sessions.len() {
            self.sessions.resize_with(at + 1, || None);
        }
        if self.count == 0 {
            self.next_sweep = Instant::now() + SWEEP;
        }
        self.count += 1;
        if session.is_outside()
            && let Some(delay) = self.shared.options.entry.delay()
        {
            self.newcomers.push_back((Instant::now() + delay, slot, session.id()));
        }
        if let Some(at) = session.first_look(now) {
            self.timers.push(now, at, slot, session.id(), What::Look);
        }
        self.sessions[at] = Some(session);
        match &self.draining {
            Some((order, deadline)) => {
                let (order, deadline) = (Arc::clone(order), *deadline);
                self.close(slot, order.why, [&order.farewell; 2], deadline, now);
            }
            None => self.run_lanes(slot, [true; 2], now, false),
        }
    }

    /// Something happened on a socket.
    fn touch(&mut self, slot: u32, side: usize, flags: EventFlags, now: u64) {
        let at = self.place_of(slot);
        let Some(session) = self.sessions.get_mut(at).and_then(Option::as_deref_mut) else {
            return;
        };
        if session.is_translated() {
            // Of before it was frozen.
            return;
        }
        if flags.contains(EventFlags::ERR)
            && let Some(error) = session.socket_error(side)
        {
            return self.broke(slot, side, error, now);
        }
        let hung_up = flags.intersects(EventFlags::RDHUP | EventFlags::HUP);
        if hung_up {
            session.hung_up[side] = true;
            session.take(side, &self.shared, now);
        }
        let readable = hung_up || flags.contains(EventFlags::IN);
        let writable = flags.contains(EventFlags::OUT) && session.want(1 - side) == Want::Writable;
        let mut lanes = [false; 2];
        lanes[side] = readable;
        lanes[1 - side] = writable;
        self.run_lanes(slot, lanes, now, !hung_up);
    }

    fn run_lanes(&mut self, slot: u32, lanes: [bool; 2], now: u64, rest: bool) {
        let at = self.place_of(slot);
        let Some(session) = self.sessions.get_mut(at).and_then(Option::as_deref_mut) else {
            return;
        };
        if session.is_translated() {
            return;
        }
        for side in [CLIENT, UPSTREAM] {
            if !lanes[side] {
                continue;
            }
            match session.run_lane(side, &self.shared, &mut self.buf, now, rest) {
                Progress::Runs => {}
                Progress::Finished => return self.end(slot, Cause::Finished),
                Progress::Broken { side, error } => {
                    return self.broke(slot, side, error, now);
                }
                Progress::Gone { side } => return self.gone(slot, side, now),
                Progress::Forbidden { side, violations } => {
                    let (why, [client, upstream]) = Session::verdict(side, violations);
                    let deadline = Instant::now() + self.shared.options.drain;
                    return self.close(slot, why, [&client, &upstream], deadline, now);
                }
            }
            let queue = match session.want(side) {
                Want::Turn => TURN,
                Want::Moment => LATER,
                _ => continue,
            };
            if !std::mem::replace(&mut session.queued[queue], true) {
                self.queues[queue].push_back(slot);
            }
        }
        for side in [CLIENT, UPSTREAM] {
            let events = session.wanted_events(side);
            let before = std::mem::replace(&mut session.watched[side], events);
            if before == events {
                continue;
            }
            let token = EventData::new_u64(u64::from(slot) << 1 | side as u64);
            let watched = if before.is_empty() {
                epoll::add(&self.epoll, session.socket(side), token, events)
            } else {
                epoll::modify(&self.epoll, session.socket(side), token, events)
            };
            if let Err(error) = watched {
                return self.end(slot, Cause::Failed(error.into()));
            }
        }
        if session.is_moment(&self.shared) && session.translate(&self.shared) {
            self.clearing.push((slot, session.id()));
        }
    }

    fn run_queue(&mut self, queue: usize, now: u64) {
        for _ in 0..self.queues[queue].len() {
            let Some(slot) = self.queues[queue].pop_front() else { return };
            let Some(session) = self.session(slot) else { continue };
            session.queued[queue] = false;
            let wanted = if queue == TURN { Want::Turn } else { Want::Moment };
            let lanes = [session.want(CLIENT) == wanted, session.want(UPSTREAM) == wanted];
            self.run_lanes(slot, lanes, now, false);
        }
    }

    fn end(&mut self, slot: u32, cause: Cause) {
        let at = self.place_of(slot);
        if let Some(session) = self.sessions.get_mut(at).and_then(Option::take) {
            self.count -= 1;
            if self.count == 0 {
                self.timers.clear();
            }
            if let Some(remains) = session.end(&self.shared, cause) {
                self.remains.push_back((Instant::now() + TIME_WAIT, remains));
            }
        }
    }
}
