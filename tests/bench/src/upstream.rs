//! The server behind every contender: one thread, one epoll, no work but the
//! sockets'. What a session does is in its path:
//!
//! | path | session |
//! |---|---|
//! | `/echo` | every frame comes back |
//! | `/source/SIZE` | sends frames of SIZE bytes as fast as they are taken |
//! | `/sink/SIZE` | takes frames of SIZE bytes and checks them |
//! | `/broadcast/SIZE/RATE` | gets a frame RATE times a second, together with all others; its number is the intended time of sending |

use std::{
    io::{self, Read, Write},
    mem,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use anyhow::{Context as _, Result};

use crate::{
    opening::{self, MOST_HEAD},
    pattern::{Checked, Echo, Pattern},
    poll::{Poll, now, now_or_later},
};

/// One read, at most.
const READ: usize = 256 << 10;
/// Sources write so many frames before others get their turn.
const TURN: usize = 16;
/// How often a stop is looked for, in ns.
const TICK: u64 = 50_000_000;
const LISTENER: usize = 0;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 8192;

/// What the sessions did, for the other side to read meanwhile.
#[derive(Debug, Default)]
pub struct Counters {
    /// Sessions that are open.
    pub open: AtomicU64,
    /// Frames that arrived whole.
    pub frames: AtomicU64,
    /// Payload bytes of sinks' frames.
    pub bytes: AtomicU64,
    /// Sessions in which something wrong arrived.
    pub wrong: AtomicU64,
}

/// A running upstream; stopped when dropped.
#[derive(Debug)]
pub struct Upstream {
    /// What it did so far.
    pub counters: Arc<Counters>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Upstream {
    /// Listens in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The address can't be listened on.
    pub fn start(address: SocketAddr) -> Result<Self> {
        let counters = Arc::new(Counters::default());
        let stop = Arc::new(AtomicBool::new(false));
        let listener =
            listen(address).with_context(|| format!("the upstream cannot listen on {address}"))?;
        let (counted, stopped) = (counters.clone(), stop.clone());
        let work = move || {
            let served = Server::new(listener, counted, stopped).and_then(|mut it| it.run());
            if let Err(error) = served {
                eprintln!("the upstream stopped: {error}");
            }
        };
        let thread = std::thread::Builder::new().name("upstream".into()).spawn(work)?;
        Ok(Self { counters, stop, thread: Some(thread) })
    }

    /// Waits for the upstream's end, which is never unless something broke.
    pub fn join(mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic was printed by the thread.
            let _printed = thread.join();
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _printed = thread.join();
        }
    }
}

/// What a session does.
enum Role {
    /// Still asks.
    Opening(Vec<u8>),
    Echo(Echo),
    /// Number of the next frame and how much of it was written.
    Source(u64, usize),
    Sink(Checked),
    Broadcast,
    /// Gets what is left and then FIN.
    Closing,
}

struct Session {
    stream: TcpStream,
    role: Role,
    /// Size of the frames.
    size: usize,
    /// Not taken by the socket yet; nothing is read meanwhile.
    rest: Vec<u8>,
}

/// Frames for everyone, at a rate.
#[derive(Default)]
struct Broadcast {
    places: Vec<usize>,
    size: usize,
    /// ns between two.
    every: u64,
    due: u64,
}

struct Server {
    listener: TcpListener,
    poll: Poll,
    sessions: Vec<Option<Session>>,
    free: Vec<usize>,
    broadcast: Broadcast,
    /// As servers send them and as clients do, by size.
    plain: Vec<Pattern>,
    masked: Vec<Pattern>,
    buffer: Vec<u8>,
    counters: Arc<Counters>,
    stop: Arc<AtomicBool>,
}

fn of_size(patterns: &mut Vec<Pattern>, size: usize, new: fn(usize) -> Pattern) -> &mut Pattern {
    let at = patterns.iter().position(|pattern| pattern.payload() == size).unwrap_or_else(|| {
        patterns.push(new(size));
        patterns.len() - 1
    });
    &mut patterns[at]
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

impl Server {
    fn new(
        listener: TcpListener,
        counters: Arc<Counters>,
        stop: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        poll.add(&listener, LISTENER, true, false)?;
        Ok(Self {
            listener,
            poll,
            // The first place is the listener's.
            sessions: Vec::from([None]),
            free: Vec::new(),
            broadcast: Broadcast::default(),
            plain: Vec::new(),
            masked: Vec::new(),
            buffer: vec![0; READ],
            counters,
            stop,
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let mut due = now() + TICK;
            if !self.broadcast.places.is_empty() {
                due = due.min(self.broadcast.due);
            }
            ready.clear();
            ready.extend_from_slice(self.poll.wait(due)?);
            for socket in &ready {
                if socket.place == LISTENER {
                    self.accept()?;
                } else {
                    self.serve(socket.place);
                }
            }
            if !self.broadcast.places.is_empty() && self.broadcast.due <= now() {
                self.send_to_all();
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // The client gave up in the queue, or descriptors ran out: it will see.
                Err(error) => {
                    eprintln!("the upstream cannot accept: {error}");
                    return Ok(());
                }
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let place = self.free.pop().unwrap_or(self.sessions.len());
            if place == self.sessions.len() {
                self.sessions.push(None);
            }
            self.poll.add(&stream, place, true, false)?;
            let role = Role::Opening(Vec::new());
            self.sessions[place] = Some(Session { stream, role, size: 0, rest: Vec::new() });
            self.counters.open.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn serve(&mut self, place: usize) {
        let Some(mut session) = self.sessions[place].take() else { return };
        match self.attend(&mut session, place) {
            Ok(true) => self.sessions[place] = Some(session),
            Ok(false) => self.forget(place),
            Err(error) => {
                // A reset is how the load ends a session.
                if error.kind() == io::ErrorKind::InvalidData {
                    eprintln!("the upstream got something wrong: {error}");
                    self.counters.wrong.fetch_add(1, Ordering::Relaxed);
                }
                self.forget(place);
            }
        }
    }

    fn forget(&mut self, place: usize) {
        self.broadcast.places.retain(|other| *other != place);
        self.free.push(place);
        self.counters.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether the session goes on.
    fn attend(&mut self, session: &mut Session, place: usize) -> io::Result<bool> {
        if !session.rest.is_empty() {
            match now_or_later((&session.stream).write(&session.rest))? {
                None => return Ok(true),
                Some(count) => session.rest.drain(..count),
            };
            if !session.rest.is_empty() {
                return Ok(true);
            }
            session.rest = Vec::new();
            if matches!(session.role, Role::Closing) {
                return Ok(false);
            }
            let source = matches!(session.role, Role::Source(..));
            self.poll.set(&session.stream, place, !source, source)?;
        }
        if let Role::Source(..) = session.role {
            return self.pour(session);
        }
        match now_or_later((&session.stream).read(&mut self.buffer))? {
            None => Ok(true),
            Some(0) => Ok(false),
            Some(count) => self.arrived(session, place, count),
        }
    }

    fn arrived(&mut self, session: &mut Session, place: usize, count: usize) -> io::Result<bool> {
        let data = &mut self.buffer[..count];
        let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        match &mut session.role {
            Role::Opening(bytes) => {
                bytes.extend_from_slice(data);
                let Some(length) = opening::head_length(bytes) else {
                    return Ok(bytes.len() <= MOST_HEAD);
                };
                let early = bytes.split_off(length);
                let asked = opening::answer(bytes).ok_or_else(|| wrong("no request".into()))?;
                self.open(session, place, &asked.0, &asked.1, early)
            }
            Role::Echo(echo) => {
                let mut out = mem::take(&mut session.rest);
                let echoed = echo.feed(data, &mut out).map_err(|what| wrong(what.into()))?;
                self.counters.frames.fetch_add(echoed.frames, Ordering::Relaxed);
                if echoed.closed {
                    session.role = Role::Closing;
                }
                self.send(session, place, out)
            }
            Role::Sink(checked) => {
                let pattern = of_size(&mut self.masked, session.size, Pattern::masked);
                let ended = checked.feed(pattern, data);
                let ended = ended.map_err(|mismatch| wrong(format!("{mismatch:?}")))?;
                self.counters.frames.fetch_add(ended, Ordering::Relaxed);
                self.counters.bytes.fetch_add(ended * session.size as u64, Ordering::Relaxed);
                Ok(true)
            }
            // Nothing is expected from these.
            Role::Source(..) | Role::Broadcast | Role::Closing => Ok(true),
        }
    }

    fn open(
        &mut self,
        session: &mut Session,
        place: usize,
        path: &str,
        answer: &str,
        early: Vec<u8>,
    ) -> io::Result<bool> {
        let mut words = path.trim_start_matches('/').split('/');
        let role = words.next().unwrap_or_default();
        let mut number = |or: usize| words.next().and_then(|word| word.parse().ok()).unwrap_or(or);
        session.size = number(64);
        session.role = match role {
            "source" => Role::Source(0, 0),
            "sink" => Role::Sink(Checked::default()),
            "broadcast" => {
                if self.broadcast.places.is_empty() {
                    self.broadcast.due = now();
                }
                self.broadcast.places.push(place);
                self.broadcast.size = session.size;
                self.broadcast.every = 1_000_000_000 / number(1).clamp(1, 1_000_000) as u64;
                Role::Broadcast
            }
            _ => Role::Echo(Echo::default()),
        };
        if !self.send(session, place, answer.as_bytes().to_vec())? {
            return Ok(false);
        }
        if let Role::Source(..) = session.role {
            self.poll.set(&session.stream, place, false, true)?;
        }
        if early.is_empty() {
            return Ok(true);
        }
        self.buffer[..early.len()].copy_from_slice(&early);
        self.arrived(session, place, early.len())
    }

    /// Writes what the socket takes; the rest waits for room.
    fn send(&mut self, session: &mut Session, place: usize, mut out: Vec<u8>) -> io::Result<bool> {
        let count = match out.len() {
            0 => 0,
            _ => now_or_later((&session.stream).write(&out))?.unwrap_or(0),
        };
        if count < out.len() {
            out.drain(..count);
            session.rest = out;
            self.poll.set(&session.stream, place, false, true)?;
            return Ok(true);
        }
        Ok(!matches!(session.role, Role::Closing))
    }

    /// A source writes until the socket is full or its turn is over.
    fn pour(&mut self, session: &mut Session) -> io::Result<bool> {
        let Role::Source(number, at) = &mut session.role else { return Ok(true) };
        let pattern = of_size(&mut self.plain, session.size, Pattern::plain);
        for _ in 0..TURN {
            let rest = &pattern.set(*number)[*at..];
            let Some(count) = now_or_later((&session.stream).write(rest))? else { break };
            *at += count;
            if *at == pattern.size() {
                *at = 0;
                *number += 1;
            }
        }
        Ok(true)
    }

    fn send_to_all(&mut self) {
        let due = self.broadcast.due;
        self.broadcast.due += self.broadcast.every;
        let pattern = of_size(&mut self.plain, self.broadcast.size, Pattern::plain);
        let frame = pattern.set(due).to_vec();
        for place in self.broadcast.places.clone() {
            let Some(mut session) = self.sessions[place].take() else { continue };
            // A receiver that is too slow gets its frames later, all of them.
            let sent = if session.rest.is_empty() {
                self.send(&mut session, place, frame.clone())
            } else {
                session.rest.extend_from_slice(&frame);
                Ok(true)
            };
            match sent {
                Ok(true) => self.sessions[place] = Some(session),
                Ok(false) | Err(_) => self.forget(place),
            }
        }
    }
}
