//! epoll over a table of things, and the clock: what both ends of the load share.

use std::{io, os::fd::AsFd};

use rustix::{
    event::epoll::{self, CreateFlags, EventData, EventFlags},
    fd::OwnedFd,
    time::{
        ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec,
        clock_gettime, timerfd_create, timerfd_settime,
    },
};

/// Events taken at once.
const EVENTS: usize = 256;
/// The timer's place: no table is so long.
const TIMER: u64 = u64::MAX;

/// ns of the monotonic clock, the same in all processes of the machine.
#[must_use]
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Level-triggered readiness, by place in a table.
pub struct Poll {
    epoll: OwnedFd,
    /// Wakes at a point in time: epoll's own limit is in whole ms.
    timer: OwnedFd,
    events: Vec<epoll::Event>,
    ready: Vec<Ready>,
}

/// One socket that is ready.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// Its place in the caller's table.
    pub place: usize,
    /// Reading gives bytes, an end or an error.
    pub readable: bool,
    /// Writing takes some bytes.
    pub writable: bool,
}

fn flags(read: bool, write: bool) -> EventFlags {
    let mut flags = EventFlags::empty();
    flags.set(EventFlags::IN, read);
    flags.set(EventFlags::OUT, write);
    flags
}

impl Poll {
    /// # Errors
    /// As epoll_create1(2) and timerfd_create(2).
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER), EventFlags::IN)?;
        Ok(Self { epoll, timer, events: Vec::with_capacity(EVENTS), ready: Vec::new() })
    }

    /// # Errors
    /// As epoll_ctl(2).
    pub fn add(&self, socket: impl AsFd, place: usize, read: bool, write: bool) -> io::Result<()> {
        let data = EventData::new_u64(place as u64);
        Ok(epoll::add(&self.epoll, socket, data, flags(read, write))?)
    }

    /// # Errors
    /// As epoll_ctl(2).
    pub fn set(&self, socket: impl AsFd, place: usize, read: bool, write: bool) -> io::Result<()> {
        let data = EventData::new_u64(place as u64);
        Ok(epoll::modify(&self.epoll, socket, data, flags(read, write))?)
    }

    /// Waits for sockets, until `due` (ns of [`now`]) at the latest; with a `due` that is past
    /// it only looks.
    ///
    /// # Errors
    /// As epoll_wait(2) and timerfd_settime(2).
    pub fn wait(&mut self, due: u64) -> io::Result<&[Ready]> {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let past = due <= now();
        if !past {
            let it_value = Timespec {
                tv_sec: (due / 1_000_000_000) as i64,
                tv_nsec: (due % 1_000_000_000) as i64,
            };
            let time = Itimerspec { it_interval: zero, it_value };
            timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &time)?;
        }
        self.events.clear();
        let buffer = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, buffer, past.then_some(&zero)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = |event: &epoll::Event| {
            let flags = event.flags;
            let broken = flags.intersects(EventFlags::HUP | EventFlags::ERR);
            Ready {
                place: event.data.u64() as usize,
                readable: broken || flags.contains(EventFlags::IN),
                writable: broken || flags.contains(EventFlags::OUT),
            }
        };
        self.ready.clear();
        let sockets = self.events.iter().filter(|event| event.data.u64() != TIMER);
        self.ready.extend(sockets.map(ready));
        Ok(&self.ready)
    }
}

/// `WouldBlock` and `Interrupted` are no errors: nothing now.
///
/// # Errors
/// Any other.
pub fn now_or_later(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
