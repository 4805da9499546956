//! How other threads talk to an engine.

use std::{
    fmt, io,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::event::EventfdFlags;

use crate::datapath::{
    Ending, Farewell, Handover, Reservation, SessionInfo, Which, session::Session,
};

/// How long somebody waits for an engine's list of sessions.
const LIST_PATIENCE: Duration = Duration::from_secs(2);

/// Sessions are to be closed.
#[derive(Debug)]
pub(in crate::datapath) struct CloseOrder {
    /// For their log lines.
    pub(in crate::datapath) why: Ending,
    /// What both sides are told.
    pub(in crate::datapath) farewell: Farewell,
}

pub(super) enum Command {
    Adopt(Reservation, Box<Handover>),
    /// A session of an earlier process, on the packet path.
    GoOn(Box<Session>),
    /// A direction was given back, by index, under a generation.
    Given(u32, u64),
    /// Lists the sessions, with TCP's own view of their sockets or without.
    List(bool, mpsc::SyncSender<Vec<SessionInfo>>),
    /// Pings both sides of these sessions.
    Ping(Which),
    /// Closes these sessions, one by one over so long.
    Close(Which, Arc<CloseOrder>, Duration),
    /// The same with all, and with those that still come; the rest is reset then.
    Drain(Arc<CloseOrder>, Duration, Instant),
    /// Calls this: a sign of life.
    Answer(Box<dyn FnOnce() + Send>),
    Stop,
}

/// How other threads talk to an engine.
pub(super) struct Mailbox {
    commands: Mutex<Vec<Command>>,
    pub(super) bell: OwnedFd,
    pub(super) wakeups: AtomicU64,
}

impl Mailbox {
    pub(super) fn new() -> io::Result<Self> {
        let bell = rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { commands: Mutex::default(), bell, wakeups: AtomicU64::new(0) })
    }

    pub(super) fn put(&self, command: Command) {
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        commands.push(command);
        if commands.len() > 1 {
            // The bell rings already, and the engine takes all there is.
            return;
        }
        drop(commands);
        // A full counter means that it rings, too.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    pub(super) fn take(&self) -> Vec<Command> {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.bell, &mut count);
        std::mem::take(&mut *self.commands.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether an engine gets to its work.
pub struct Pulse(Arc<Mailbox>);

impl Pulse {
    /// The engine calls `answer` when it comes to it, and goes on; never, if it has ended.
    pub fn ask(&self, answer: Box<dyn FnOnce() + Send>) {
        self.0.put(Command::Answer(answer));
    }
}

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pulse")
    }
}

/// An engine, from outside.
pub(in crate::datapath) struct EngineHandle {
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) thread: Option<JoinHandle<()>>,
}

impl EngineHandle {
    pub(in crate::datapath) fn adopt(&self, place: Reservation, handover: Handover) {
        self.mailbox.put(Command::Adopt(place, Box::new(handover)));
    }

    pub(in crate::datapath) fn go_on(&self, session: Session) {
        self.mailbox.put(Command::GoOn(Box::new(session)));
    }

    pub(in crate::datapath) fn ping(&self, which: &Which) {
        self.mailbox.put(Command::Ping(Arc::clone(which)));
    }

    pub(in crate::datapath) fn drain(
        &self,
        order: &Arc<CloseOrder>,
        window: Duration,
        deadline: Instant,
    ) {
        self.mailbox.put(Command::Drain(Arc::clone(order), window, deadline));
    }

    pub(in crate::datapath) fn close(
        &self,
        which: &Which,
        order: &Arc<CloseOrder>,
        window: Duration,
    ) {
        self.mailbox.put(Command::Close(Arc::clone(which), Arc::clone(order), window));
    }

    pub(in crate::datapath) fn sessions(&self, tcp: bool) -> Vec<SessionInfo> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.mailbox.put(Command::List(tcp, sender));
        receiver.recv_timeout(LIST_PATIENCE).unwrap_or_default()
    }

    pub(in crate::datapath) fn pulse(&self) -> Pulse {
        Pulse(Arc::clone(&self.mailbox))
    }

    pub(in crate::datapath) fn wakeups(&self) -> u64 {
        self.mailbox.wakeups.load(Ordering::Relaxed)
    }

    pub(in crate::datapath) fn stop(&mut self) {
        self.mailbox.put(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("an engine thread had panicked");
        }
    }
}
