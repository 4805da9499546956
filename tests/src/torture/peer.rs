//! One end of a torture session: sends its script, checks what it receives,
//! never blocks.

use std::{
    io::{self, ErrorKind},
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use rustix::event::PollFlags;

use super::{
    plan::{Gate, Side},
    wire::Wire,
};
use crate::sessions::Stream;

/// Bytes of one direction that a peer moves before others have their turn.
const SHARE: usize = 1 << 20;
/// Calls of one direction before others have their turn.
const CALLS: usize = 32;

/// One end.
#[derive(Debug)]
pub struct Peer {
    wire: Option<Wire>,
    side: Side,
    outgoing: Stream,
    incoming: Stream,
    incoming_seed: u64,
    /// Bytes that the kernel took from us, or TLS.
    pub sent: u64,
    /// Bytes that came, all of them right.
    pub received: u64,
    /// Bytes of the messages up to the current one.
    upto: u64,
    /// Index of the message after the current one.
    next: usize,
    /// Made, not sent yet.
    piece: Vec<u8>,
    sent_of_piece: usize,
    write_at: Option<Instant>,
    read_at: Option<Instant>,
    /// Where the next long pause is due.
    stall_at: u64,
    /// No FIN before.
    finish_from: Instant,
    reads: bool,
    /// Our FIN is sent, under TLS a close_notify.
    pub finished: bool,
    /// The other side's FIN has come, under TLS behind a close_notify.
    pub ended: bool,
    /// When our FIN or reset went.
    pub left_at: Option<Instant>,
    /// The connection broke.
    pub error: Option<io::Error>,
}

fn is_wait(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// What is wrong where the stream of `seed` has `found` at `place`: bytes lost,
/// doubled or moved say themselves where they belong.
#[must_use]
pub fn wrong_bytes(seed: u64, place: u64, found: &[u8]) -> String {
    let found = &found[..found.len().min(16)];
    let all = Stream::new(seed).take(place as usize + (8 << 20));
    let belongs = all.windows(found.len()).position(|window| window == found);
    let moved = belongs.map(|at| at as i64 - place as i64);
    format!("byte {place} is wrong: {found:02x?}, which belong at {belongs:?} ({moved:?})")
}

impl Peer {
    /// The end that `side` describes on `wire`, with the seeds of the streams
    /// that it sends and receives; and what it has said in hand already.
    #[must_use]
    pub fn new(wire: Wire, side: Side, seeds: [u64; 2]) -> (Self, Vec<u8>) {
        let sent = side.in_hand as u64;
        let mut outgoing = Stream::new(seeds[0]);
        let in_hand = outgoing.take(side.in_hand);
        let mut peer = Self {
            wire: Some(wire),
            stall_at: side.reader.stall_every,
            finish_from: Instant::now() + side.life,
            side,
            outgoing,
            incoming: Stream::new(seeds[1]),
            incoming_seed: seeds[1],
            sent,
            received: 0,
            upto: 0,
            next: 0,
            piece: Vec::new(),
            sent_of_piece: 0,
            write_at: None,
            read_at: None,
            reads: true,
            finished: false,
            ended: false,
            left_at: None,
            error: None,
        };
        if sent > 0 {
            peer.upto = peer.side.script.0[0].size;
            peer.next = 1;
        }
        (peer, in_hand)
    }

    /// Nothing more will happen here.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.wire.is_none() || self.error.is_some() || (self.finished && self.ended)
    }

    /// Sends what may be in the socket before the datapath has it.
    pub fn send_early(&mut self) {
        let limit = self.sent + self.side.in_socket;
        while self.sent < limit && self.error.is_none() {
            let before = self.sent;
            self.write_some(Instant::now(), (limit - self.sent) as usize);
            if self.sent == before {
                break;
            }
        }
    }

    /// Says nothing more than it has, and reads without pauses.
    pub fn hurry(&mut self) {
        self.side.script.0.truncate(self.next);
        self.upto = self.sent;
        // The stream itself is ahead, but nothing reads it any more.
        self.piece.clear();
        self.sent_of_piece = 0;
        self.side.reader.delay = Duration::ZERO;
        self.side.reader.stall = Duration::ZERO;
        (self.write_at, self.read_at) = (None, None);
    }

    /// Stops reading.
    pub fn stop_reading(&mut self) {
        self.reads = false;
    }

    /// Closes the socket, with a reset if wanted.
    pub fn close(&mut self, reset: bool) {
        self.left_at.get_or_insert_with(Instant::now);
        if let Some(wire) = self.wire.take()
            && reset
        {
            let socket = socket2::Socket::from(wire.into_socket());
            socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER is there");
        }
    }

    /// The end is said, and maybe sent.
    #[must_use]
    pub fn finishes(&self) -> bool {
        self.finished || self.wire.as_ref().is_some_and(Wire::is_finishing)
    }

    /// Everything is said, and the FIN is due.
    #[must_use]
    pub fn would_finish(&self, now: Instant) -> bool {
        !self.finished
            && now >= self.finish_from
            && self.sent == self.upto
            && self.next == self.side.script.0.len()
            && (self.ended || !self.side.ends_last)
    }

    /// Moves what can be moved; whether something was.
    ///
    /// # Errors
    /// What was received is not what was sent, or no TLS where it has to be.
    pub fn step(&mut self, now: Instant, buf: &mut [u8]) -> Result<bool, String> {
        let state = |peer: &Self| {
            let written = peer.wire.as_ref().map_or(0, Wire::written);
            (peer.sent, peer.received, peer.finished, peer.ended, written)
        };
        let before = state(self);
        self.read(now, buf)?;
        self.write_some(now, SHARE);
        Ok(before != state(self))
    }

    /// What to wait for, and until when at most.
    #[must_use]
    pub fn interest(&self) -> (Option<(BorrowedFd<'_>, PollFlags)>, Option<Instant>) {
        let mut flags = PollFlags::empty();
        if self.reads && !self.ended && self.read_at.is_none() {
            flags |= PollFlags::IN;
        }
        if self.sent_of_piece < self.piece.len()
            || self.wire.as_ref().is_some_and(Wire::has_pending)
        {
            flags |= PollFlags::OUT;
        }
        let finish = (!self.finished).then_some(self.finish_from);
        let finish = finish.filter(|at| *at > Instant::now());
        let wake = [self.write_at, self.read_at, finish].into_iter().flatten().min();
        // A socket with nothing to wait for would still wake us by its hang-up, for ever.
        let watch = !flags.is_empty() && !self.is_done();
        (self.wire.as_ref().filter(|_| watch).map(|w| (w.as_fd(), flags)), wake)
    }

    fn read(&mut self, now: Instant, buf: &mut [u8]) -> Result<(), String> {
        let mut share = SHARE;
        for _ in 0..CALLS {
            if self.read_at.is_some_and(|at| now < at) || !self.reads || share == 0 {
                return Ok(());
            }
            self.read_at = None;
            if self.ended || self.error.is_some() {
                return Ok(());
            }
            let Some(wire) = &mut self.wire else { return Ok(()) };
            let chunk = self.side.reader.chunk.min(buf.len());
            match wire.read(&mut buf[..chunk]) {
                Ok(0) => self.ended = true,
                Ok(n) => {
                    self.check(&buf[..n])?;
                    self.received += n as u64;
                    share = share.saturating_sub(n);
                    let mut pause = self.side.reader.delay;
                    if self.received >= self.stall_at {
                        self.stall_at = self.received + self.side.reader.stall_every;
                        pause = pause.max(self.side.reader.stall);
                    }
                    self.read_at = (!pause.is_zero()).then(|| now + pause);
                }
                Err(e) if is_wait(&e) => return Ok(()),
                // However a session ends, what comes is TLS up to its end.
                Err(e) if e.kind() == ErrorKind::InvalidData => return Err(e.to_string()),
                Err(e) => self.error = Some(e),
            }
        }
        Ok(())
    }

    fn check(&mut self, bytes: &[u8]) -> Result<(), String> {
        let at = self.incoming.position();
        let expected = self.incoming.take(bytes.len());
        let Some(wrong) = bytes.iter().zip(&expected).position(|(a, b)| a != b) else {
            return Ok(());
        };
        let found = &bytes[wrong..];
        Err(wrong_bytes(self.incoming_seed, at + wrong as u64, found))
    }

    /// The next message, if it may go.
    fn begin_message(&mut self, now: Instant) -> bool {
        let Some(message) = self.side.script.0.get(self.next) else { return false };
        let open = match message.gate {
            Gate::Open => true,
            Gate::Received(bytes) => self.received >= bytes || self.ended,
            Gate::OtherEnded => self.ended,
        };
        if !open {
            return false;
        }
        match self.write_at {
            Some(at) if now < at => return false,
            None if !message.pause.is_zero() => {
                self.write_at = Some(now + message.pause);
                return false;
            }
            _ => self.write_at = None,
        }
        self.upto += message.size;
        self.next += 1;
        true
    }

    fn write_some(&mut self, now: Instant, mut share: usize) {
        if let Some(Err(e)) = self.wire.as_mut().map(Wire::flush)
            && !is_wait(&e)
        {
            self.error.get_or_insert(e);
        }
        for _ in 0..CALLS {
            if self.finished || self.error.is_some() || share == 0 {
                return;
            }
            if self.sent_of_piece == self.piece.len() {
                if self.sent == self.upto && !self.begin_message(now) {
                    break;
                }
                let n = (self.upto - self.sent).min(self.side.write_max as u64).min(share as u64);
                self.piece.resize(n as usize, 0);
                self.outgoing.fill(&mut self.piece);
                self.sent_of_piece = 0;
            }
            let Some(wire) = &mut self.wire else { return };
            match wire.write(&self.piece[self.sent_of_piece..]) {
                Ok(n) => {
                    self.sent_of_piece += n;
                    self.sent += n as u64;
                    share = share.saturating_sub(n);
                }
                Err(e) if is_wait(&e) => return,
                Err(e) => self.error = Some(e),
            }
        }
        if self.would_finish(now)
            && let Some(wire) = &mut self.wire
        {
            match wire.finish() {
                Ok(false) => {}
                Ok(true) => {
                    self.finished = true;
                    self.left_at = Some(now);
                }
                Err(e) => self.error = Some(e),
            }
        }
    }
}
