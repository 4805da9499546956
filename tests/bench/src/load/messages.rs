//! Request and answer: in a closed loop (the answer triggers the next message)
//! or an open one (messages are due at fixed times, whatever the answers do).

use std::{
    collections::VecDeque,
    io::{Read as _, Write as _},
    net::TcpStream,
};

use anyhow::{Context as _, Result, bail};

use super::{Target, Window};
use crate::{
    opening,
    pattern::{Checked, Pattern},
    poll::{Poll, now, now_or_later},
    results::Figures,
};

const READ: usize = 256 << 10;
/// An open loop that far behind can't be kept up with: messages waiting in one session.
const MOST_WAITING: usize = 10_000;

/// What is sent.
#[derive(Clone, Debug)]
pub struct Messages {
    /// Payload sizes; session number `i` uses number `i` modulo their count.
    pub payloads: Vec<usize>,
    /// Sessions at once.
    pub sessions: usize,
    /// Messages per second of all sessions together; `None`: a closed loop.
    pub rate: Option<f64>,
}

struct Session {
    stream: TcpStream,
    size: usize,
    /// Number of the frame being written and how much of it was.
    number: u64,
    written: usize,
    waits_for_room: bool,
    checked: Checked,
    /// When the messages that have no answer yet were meant to be sent.
    due: VecDeque<u64>,
}

struct Size {
    payload: usize,
    sent: Pattern,
    answer: Pattern,
}

struct Load<'a> {
    poll: Poll,
    sizes: Vec<Size>,
    sessions: Vec<Session>,
    window: Window,
    target: &'a Target,
    buffer: Vec<u8>,
    closed_loop: bool,
}

/// Runs the load.
///
/// # Errors
/// A session that did not open, broke, stalled or brought a wrong byte.
pub fn run(target: &Target, messages: &Messages) -> Result<Figures> {
    let mut payloads = messages.payloads.clone();
    payloads.sort_unstable();
    payloads.dedup();
    let size = |payload: &usize| Size {
        payload: *payload,
        sent: Pattern::masked(*payload),
        answer: Pattern::plain(*payload),
    };
    let mut load = Load {
        poll: Poll::new()?,
        sizes: payloads.iter().map(size).collect(),
        sessions: Vec::new(),
        window: Window::new(target)?,
        target,
        buffer: vec![0; READ],
        closed_loop: messages.rate.is_none(),
    };
    for place in 0..messages.sessions {
        let payload = messages.payloads[place % messages.payloads.len()];
        let size = payloads.iter().position(|other| *other == payload).unwrap_or(0);
        load.open(place, size)?;
    }
    load.window = Window::new(target)?;
    load.go(messages.rate)?;
    load.window.finish()
}

impl Load<'_> {
    fn open(&mut self, place: usize, size: usize) -> Result<()> {
        let (stream, early) = opening::open(self.target.address, "/echo")
            .with_context(|| format!("session {place}"))?;
        if !early.is_empty() {
            bail!("session {place}: bytes that nobody asked for");
        }
        self.poll.add(&stream, place, true, false)?;
        // No two sessions' frames are alike, so that mixed up answers are seen.
        let number = (place as u64) << 32;
        self.sessions.push(Session {
            stream,
            size,
            number,
            written: 0,
            waits_for_room: false,
            checked: Checked::from(number),
            due: VecDeque::new(),
        });
        Ok(())
    }

    fn go(&mut self, rate: Option<f64>) -> Result<()> {
        let begin = now();
        if rate.is_none() {
            for place in 0..self.sessions.len() {
                self.sessions[place].due.push_back(now());
                self.write(place)?;
            }
        }
        let every = rate.map(|rate| 1e9 / rate);
        let mut planned = 0_u64;
        let mut ready = Vec::new();
        loop {
            let mut due = self.window.due();
            if let Some(every) = every {
                let next = |planned: u64| begin + (planned as f64 * every) as u64;
                while next(planned) <= now() {
                    let place = (planned % self.sessions.len() as u64) as usize;
                    self.plan(place, next(planned))?;
                    planned += 1;
                }
                due = due.min(next(planned));
            }
            ready.clear();
            ready.extend_from_slice(self.poll.wait(due)?);
            for socket in &ready {
                if socket.readable {
                    self.read(socket.place).with_context(|| format!("session {}", socket.place))?;
                }
                if socket.writable && self.sessions[socket.place].waits_for_room {
                    self.write(socket.place)?;
                }
            }
            if !self.window.goes_on(self.target, now())? {
                return Ok(());
            }
        }
    }

    fn plan(&mut self, place: usize, due: u64) -> Result<()> {
        let session = &mut self.sessions[place];
        if session.due.len() >= MOST_WAITING {
            bail!("the rate is too high: session {place} is {MOST_WAITING} messages behind");
        }
        session.due.push_back(due);
        if session.waits_for_room { Ok(()) } else { self.write(place) }
    }

    /// Writes the frames that are due.
    fn write(&mut self, place: usize) -> Result<()> {
        let session = &mut self.sessions[place];
        let pattern = &mut self.sizes[session.size].sent;
        let mut full = false;
        // Frames are due from the first without an answer on.
        while session.number < session.checked.number + session.due.len() as u64 {
            let rest = &pattern.set(session.number)[session.written..];
            let Some(count) = now_or_later(session.stream.write(rest))? else {
                full = true;
                break;
            };
            session.written += count;
            if session.written == pattern.size() {
                session.written = 0;
                session.number += 1;
            }
        }
        if full != session.waits_for_room {
            session.waits_for_room = full;
            self.poll.set(&session.stream, place, true, full)?;
        }
        Ok(())
    }

    fn read(&mut self, place: usize) -> Result<()> {
        let session = &mut self.sessions[place];
        let size = &mut self.sizes[session.size];
        let Some(count) = now_or_later(session.stream.read(&mut self.buffer))? else {
            return Ok(());
        };
        if count == 0 {
            bail!("closed by the other side");
        }
        let ended = session.checked.feed(&mut size.answer, &self.buffer[..count]);
        let ended = ended.map_err(|wrong| anyhow::anyhow!("a wrong byte: {wrong:?}"))?;
        let now = now();
        self.window.arrived(now, ended, ended * size.payload as u64);
        for _ in 0..ended {
            if let Some(due) = session.due.pop_front() {
                self.window.took(now.saturating_sub(due));
            }
        }
        if self.closed_loop && ended > 0 {
            session.due.push_back(now);
            self.write(place)?;
        }
        Ok(())
    }
}
