//! Sessions that are opened, closed in order and opened again.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
};

use anyhow::{Context as _, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Target, Window};
use crate::{
    opening::{self, MOST_HEAD},
    poll::{Poll, now, now_or_later},
    results::Figures,
};

/// An empty Close, masked (RFC 6455, section 5.5.1): the server answers and closes the
/// connection first, so that the ports in TIME_WAIT are its own.
const CLOSE: [u8; 6] = [0x88, 0x80, 1, 2, 3, 4];
const CLOSE_ANSWER: [u8; 2] = [0x88, 0];

enum Stage {
    Connecting,
    Opening,
    Closing,
}

struct Session {
    stream: TcpStream,
    stage: Stage,
    bytes: Vec<u8>,
    began: u64,
}

/// Keeps so many going; a message is a whole life of one. The latency is from connect(2) to the
/// 101.
///
/// # Errors
/// A handshake that failed or an end that was none.
pub fn run(target: &Target, at_once: usize) -> Result<Figures> {
    let mut poll = Poll::new()?;
    let request = opening::request(target.address, "/echo");
    let mut sessions = Vec::new();
    for place in 0..at_once {
        sessions.push(begin(target, &poll, place)?);
    }
    let mut window = Window::new(target)?;
    let mut buffer = vec![0; MOST_HEAD];
    let mut ready = Vec::new();
    loop {
        ready.clear();
        ready.extend_from_slice(poll.wait(window.due())?);
        for socket in &ready {
            let session = &mut sessions[socket.place];
            let ended = session
                .go_on(&poll, socket.place, &request, &mut buffer, &mut window)
                .context("a session of the churn")?;
            if ended {
                window.arrived(now(), 1, 0);
                sessions[socket.place] = begin(target, &poll, socket.place)?;
            }
        }
        if !window.goes_on(target, now())? {
            return window.finish();
        }
    }
}

fn begin(target: &Target, poll: &Poll, place: usize) -> Result<Session> {
    let domain = Domain::for_address(target.address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    let began = now();
    match socket.connect(&target.address.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(IN_PROGRESS) => {}
        Err(error) => return Err(error).context("connect"),
    }
    let stream = TcpStream::from(socket);
    poll.add(&stream, place, false, true)?;
    Ok(Session { stream, stage: Stage::Connecting, bytes: Vec::new(), began })
}

const IN_PROGRESS: i32 = rustix::io::Errno::INPROGRESS.raw_os_error();

impl Session {
    /// Whether it ended, in order.
    fn go_on(
        &mut self,
        poll: &Poll,
        place: usize,
        request: &str,
        buffer: &mut [u8],
        window: &mut Window,
    ) -> Result<bool> {
        if let Stage::Connecting = self.stage {
            if let Some(error) = self.stream.take_error()? {
                return Err(error).context("connect");
            }
            write(&self.stream, request.as_bytes())?;
            self.stage = Stage::Opening;
            poll.set(&self.stream, place, true, false)?;
            return Ok(false);
        }
        let Some(count) = now_or_later(self.stream.read(buffer))? else { return Ok(false) };
        self.bytes.extend_from_slice(&buffer[..count]);
        match self.stage {
            Stage::Opening => {
                let Some(length) = opening::head_length(&self.bytes) else {
                    if count == 0 || self.bytes.len() > MOST_HEAD {
                        return Err(opening::not_accepted(&self.bytes).into());
                    }
                    return Ok(false);
                };
                if !opening::accepts(&self.bytes[..length]) {
                    return Err(opening::not_accepted(&self.bytes).into());
                }
                window.took(now() - self.began);
                self.bytes.drain(..length);
                write(&self.stream, &CLOSE)?;
                self.stage = Stage::Closing;
                Ok(false)
            }
            _ if count > 0 => Ok(false),
            _ if self.bytes == CLOSE_ANSWER => Ok(true),
            _ => bail!("the end was not the answer to Close: {:?}", self.bytes),
        }
    }
}

/// So little always fits an empty send buffer.
fn write(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    let count = stream.write(bytes)?;
    if count == bytes.len() { Ok(()) } else { Err(io::Error::other("a short write")) }
}
