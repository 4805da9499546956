//! Sessions that are opened, closed in order and opened again.

use anyhow::{Context as _, Result, bail};

use super::{
    Target, Window,
    wire::{Received, Transport, Wire},
};
use crate::{
    opening::{self, MOST_HEAD},
    poll::{Poll, now},
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
    wire: Wire,
    stage: Stage,
    bytes: Vec<u8>,
    began: u64,
}

/// Keeps so many going; a message is a whole life of one. The latency is from connect(2) to the
/// 101.
///
/// # Errors
/// A handshake that failed or an end that was none.
pub fn run(target: &Target, transport: &Transport, at_once: usize) -> Result<Figures> {
    let mut poll = Poll::new()?;
    let request = opening::request(target.address, "/echo");
    let mut sessions = Vec::new();
    for place in 0..at_once {
        sessions.push(begin(target, transport, &poll, place)?);
    }
    let mut window = Window::new(target)?;
    let mut ready = Vec::new();
    loop {
        ready.clear();
        ready.extend_from_slice(poll.wait(window.due())?);
        for socket in &ready {
            let session = &mut sessions[socket.place];
            let ended = session
                .go_on(&poll, socket.place, &request, &mut window)
                .context("a session of the churn")?;
            if ended {
                window.arrived(now(), 1, 0);
                sessions[socket.place] = begin(target, transport, &poll, socket.place)?;
            }
        }
        if !window.goes_on(target, now())? {
            return window.finish();
        }
    }
}

fn begin(target: &Target, transport: &Transport, poll: &Poll, place: usize) -> Result<Session> {
    let began = now();
    let wire = Wire::connect(target.address, transport).context("connect")?;
    poll.add(wire.socket(), place, false, true)?;
    Ok(Session { wire, stage: Stage::Connecting, bytes: Vec::new(), began })
}

impl Session {
    /// Whether it ended, in order.
    fn go_on(
        &mut self,
        poll: &Poll,
        place: usize,
        request: &str,
        window: &mut Window,
    ) -> Result<bool> {
        if let Stage::Connecting = self.stage {
            self.wire.connected().context("connect")?;
            self.wire.send(request.as_bytes())?;
            self.stage = Stage::Opening;
            poll.set(self.wire.socket(), place, true, false)?;
            return Ok(false);
        }
        let received = self.wire.receive(&mut self.bytes)?;
        match (&self.stage, received) {
            (_, Received::Nothing) | (Stage::Closing, Received::Bytes) => Ok(false),
            (Stage::Closing, Received::End) if self.bytes == CLOSE_ANSWER => Ok(true),
            (Stage::Closing, Received::End) => {
                bail!("the end was not the answer to Close: {:?}", self.bytes)
            }
            _ => self.opened(received, window),
        }
    }

    /// Looks for the 101 in what arrived; closes once it is there.
    fn opened(&mut self, received: Received, window: &mut Window) -> Result<bool> {
        let Some(length) = opening::head_length(&self.bytes) else {
            if received == Received::End || self.bytes.len() > MOST_HEAD {
                return Err(opening::not_accepted(&self.bytes).into());
            }
            return Ok(false);
        };
        if !opening::accepts(&self.bytes[..length]) {
            return Err(opening::not_accepted(&self.bytes).into());
        }
        window.took(now() - self.began);
        self.bytes.drain(..length);
        self.wire.send(&CLOSE)?;
        self.stage = Stage::Closing;
        Ok(false)
    }
}
