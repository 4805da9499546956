//! One direction of a session as user space drives it: a state machine over
//! four system calls and the shared record, without descriptors, clock or
//! threads. The relay and the kernel path are this same machine; a lane whose
//! sockets are not in the socket map simply never offers itself to the kernel.
//!
//! `tests/src/model` holds this machine, the verdict program and the kernel's
//! worker against each other, exhaustively.

mod frames;
mod framing;
mod moving;
mod pong;

use std::{
    io,
    sync::atomic::{Ordering, fence},
};

use wsproxy_common::Owner;

use self::{framing::Framing, pong::MOST_HELD};
use crate::sys::SharedDirection;

/// What a lane needs of its two sockets. S is the source, T the target.
pub trait Wire {
    /// Reads from S without waiting; `Ok(0)` is the end of the stream.
    fn recv(&mut self, buf: &mut [u8]) -> io::Result<usize>;
    /// Writes to T without waiting.
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Bytes that T's TCP was ever given; may be too small for a moment, never too large.
    fn target_count(&mut self) -> io::Result<u64>;
    /// What T's send buffer takes about now, in bytes.
    fn target_room(&mut self) -> usize;
    /// Sends T a FIN. With `over` the direction is over for good, and the FIN may come with the
    /// close of the socket.
    fn finish_target(&mut self, over: bool) -> io::Result<()>;
}

/// Which socket failed, and how.
#[derive(Debug)]
pub enum Fault {
    /// Reading S failed.
    Source(io::Error),
    /// Writing T failed.
    Target(io::Error),
}

/// What a lane waits for after [`Lane::run`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// S readable, or closed.
    Readable,
    /// T writable.
    Writable,
    /// To be run again at once: its share of this turn is used up.
    Turn,
    /// To be run again in a moment: bytes are on their way inside the kernel.
    Moment,
    /// Nothing but S's FIN: the kernel moves the bytes.
    Hangup,
    /// Nothing: FIN was sent to T.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// User space owns the direction and nothing of it is inside the kernel.
    Relay,
    /// The kernel moves the bytes.
    Kernel,
    /// Taken from the kernel; bytes it redirected may still be on their way to T.
    Taking,
    /// T got our Close; S is read only to hear its own. T gets its FIN when it has answered.
    Parting,
    /// T got its FIN because we are closing; what S still sends is thrown away.
    Discarding,
    /// T got its FIN, S is at its end.
    Ended,
}

/// Bytes read from S that T had no room for.
#[derive(Debug, Default)]
struct Residue {
    bytes: Vec<u8>,
    written: usize,
}

/// What the kernel does with the source of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// S is a plain socket.
    None,
    /// S is in the socket map, T is not: the verdict program counts and passes, and can't take over.
    Counted,
    /// Both are in the socket map: the kernel may take over.
    Full,
}

/// One direction of one session.
#[derive(Debug)]
pub struct Lane {
    state: State,
    attachment: Attachment,
    /// Send the FIN as soon as S has nothing more at hand, without waiting for its end.
    closing: bool,
    /// Never to be offered to the kernel again.
    stays: bool,
    /// Reads that brought bytes.
    reads: u64,
    /// The last read was a long one.
    bulk: bool,
    /// S is at its end, or broken.
    source_ended: bool,
    /// S broke; no more is read from it.
    source_broke: bool,
    /// T has got the frame of our own that was inserted last.
    said_own: bool,
    /// T is told this code when S ends without a Close; 0: T is told nothing.
    gone_code: u16,
    /// The code of the Close that T got from us; 0: none.
    told: u16,
    residue: Option<Box<Residue>>,
    framing: Option<Box<Framing>>,
}

/// Reads of one turn, so that one busy session does not starve the others.
const READS_PER_TURN: u32 = 16;
/// After a read of so many bytes the next one takes no more than T has room for, lest a reader
/// that stops leaves all of a large read in user space.
const BULK: usize = 64 * 1024;
/// Bytes of such a read, at least.
const LEAST_READ: usize = 16 * 1024;

impl Lane {
    /// A lane that user space owns, with `early` bytes of S already in hand.
    /// When attached, the record's `handed` is T's count, and its `diverted`
    /// minus `relayed` is the number of early bytes.
    #[must_use]
    pub fn new(attachment: Attachment, early: &[u8]) -> Self {
        let residue =
            (!early.is_empty()).then(|| Box::new(Residue { bytes: early.to_vec(), written: 0 }));
        Self {
            state: State::Relay,
            attachment,
            closing: false,
            stays: false,
            reads: 0,
            bulk: false,
            source_ended: false,
            source_broke: false,
            said_own: false,
            gone_code: 0,
            told: 0,
            residue,
            framing: None,
        }
    }

    /// T is to get a Close with this code when S ends without one between two frames.
    #[must_use]
    pub fn with_gone_code(mut self, code: u16) -> Self {
        self.gone_code = code;
        self
    }

    /// Whether the sockets may come into the socket map now: user space owns the direction, and
    /// it is not about to end.
    #[must_use]
    pub fn may_enter(&self) -> bool {
        self.state == State::Relay
            && self.attachment == Attachment::None
            && !self.closing
            && !self.stays
            && self.framing.as_ref().is_none_or(|framing| framing.forbidden() == 0)
    }

    /// The sockets came into the socket map. The record is set up as for [`Self::new`], with
    /// [`Self::in_hand`] for the early bytes.
    pub fn enter(&mut self, attachment: Attachment) {
        self.attachment = attachment;
    }

    /// Bytes that were read from S and not written to T.
    #[must_use]
    pub fn in_hand(&self) -> u64 {
        let residue = self.residue.as_ref().map_or(0, |r| r.bytes.len() - r.written);
        let held = self.framing.as_ref().map_or(0, |framing| framing.held().len());
        (residue + held) as u64
    }

    /// Reads that brought bytes, since the beginning.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.reads
    }

    /// T got its FIN.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        matches!(self.state, State::Ended | State::Discarding)
    }

    /// T got its FIN and S is at its end.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// The kernel moves the bytes, as far as user space knows.
    #[must_use]
    pub fn is_kernel(&self) -> bool {
        self.state == State::Kernel
    }

    /// User space wants the direction, or learns that BPF gave it back.
    /// Harmless in every state.
    pub fn take(&mut self, record: &SharedDirection) {
        if self.state == State::Kernel {
            claim(record);
            self.state = State::Taking;
        }
    }

    /// Moves what can be moved. `rest` says that a short read may be trusted
    /// to have emptied S (false after S hung up). `now_ns` stamps activity.
    ///
    /// # Errors
    /// [`Fault`]: the session cannot go on.
    pub fn run(
        &mut self,
        wire: &mut impl Wire,
        record: &SharedDirection,
        buf: &mut [u8],
        now_ns: u64,
        rest: bool,
    ) -> Result<Want, Fault> {
        let mut reads = 0;
        loop {
            match self.state {
                State::Ended => return Ok(Want::Nothing),
                State::Kernel => return Ok(Want::Hangup),
                State::Taking => {
                    let count = wire.target_count().map_err(Fault::Target)?;
                    // Signed distance: the counters wrap together.
                    let missing = record.handed.load(Ordering::SeqCst).wrapping_sub(count);
                    if (missing as i64) > 0 {
                        return Ok(Want::Moment);
                    }
                    // The frame cursor as BPF left it, behind those bytes.
                    fence(Ordering::SeqCst);
                    self.state = State::Relay;
                }
                State::Parting if self.source_ended => return Ok(Want::Nothing),
                State::Parting | State::Discarding => match wire.recv(buf) {
                    Ok(0) => {
                        self.source_ended = true;
                        if self.state == State::Discarding {
                            self.state = State::Ended;
                        }
                    }
                    Ok(n) => {
                        self.listen(record, &buf[..n]);
                        if reads >= READS_PER_TURN {
                            return Ok(Want::Turn);
                        }
                        reads += 1;
                    }
                    Err(e) if is_wait(&e) => return Ok(Want::Readable),
                    Err(e) => return Err(Fault::Source(e)),
                },
                State::Relay => {
                    if !self.flush(wire, record, now_ns)? {
                        return Ok(Want::Writable);
                    }
                    if let Some(want) = self.turn_away(wire)? {
                        return Ok(want);
                    }
                    if self.state != State::Relay {
                        continue;
                    }
                    if reads >= READS_PER_TURN {
                        return Ok(Want::Turn);
                    }
                    reads += 1;
                    let mut most = buf.len();
                    if self.bulk {
                        most = wire.target_room().max(LEAST_READ).min(most);
                    }
                    let held = self.bring_held(buf);
                    let most = most.max(MOST_HELD * 2).min(buf.len());
                    match wire.recv(&mut buf[held..most]) {
                        Ok(0) if held > 0 => {
                            // Not the answer after all.
                            self.release();
                            self.forward(wire, record, &buf[..held], now_ns)?;
                        }
                        Ok(0) if self.unread(record) => return Ok(Want::Moment),
                        Ok(0) => {
                            self.source_ended = true;
                            if self.say_gone(record) {
                                continue;
                            }
                            self.finish(wire)?;
                        }
                        Ok(n) => {
                            self.reads += 1;
                            let n = held + n;
                            self.bulk = n >= BULK || (self.bulk && n == most);
                            self.receive(wire, record, &buf[..n], now_ns)?;
                            // Without the socket map a short read of a stream means "empty"
                            // (epoll(7)), and the next byte is a new edge.
                            let plain = self.attachment == Attachment::None;
                            let relays = self.state == State::Relay && self.forbidden() == 0;
                            let trusted = rest && plain && !self.closing && relays;
                            if trusted && n < most && self.residue.is_none() {
                                return Ok(Want::Readable);
                            }
                        }
                        Err(e) if is_wait(&e) => {
                            if let Some(want) = self.idle(wire, record)? {
                                return Ok(want);
                            }
                        }
                        Err(e) => return Err(Fault::Source(e)),
                    }
                }
            }
        }
    }

    /// S has nothing at hand and T has everything: close, offer, or wait.
    fn idle(
        &mut self,
        wire: &mut impl Wire,
        record: &SharedDirection,
    ) -> Result<Option<Want>, Fault> {
        if self.unread(record) {
            // Diverted, but still in the kernel's line to S's reader.
            return Ok(Some(Want::Readable));
        }
        if self.has_own() {
            // Inside a frame of S: ours waits for its end.
            return Ok(Some(Want::Readable));
        }
        if self.closing {
            self.finish(wire)?;
            return Ok(None);
        }
        if self.attachment != Attachment::Full || self.stays {
            return Ok(Some(Want::Readable));
        }
        self.offer(record);
        Ok(None)
    }

    /// Offers the direction to the kernel, which takes it at S's next packet.
    /// Takes it back when a packet was diverted while we made up our mind.
    fn offer(&mut self, record: &SharedDirection) {
        record.owner.store(Owner::Resume as u64, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if self.unread(record) {
            // The kernel may have taken over in between all the same: the full claim.
            claim(record);
            self.state = State::Taking;
        } else {
            self.state = State::Kernel;
        }
    }

    /// Bytes were diverted that have not been written to T.
    fn unread(&self, record: &SharedDirection) -> bool {
        self.attachment != Attachment::None
            && record.diverted.load(Ordering::SeqCst) != record.relayed.load(Ordering::Relaxed)
    }

    /// What comes after T's FIN, or its end.
    fn finished(&self) -> State {
        if self.source_ended { State::Ended } else { State::Discarding }
    }

    /// Sends T its FIN, and is over, or goes on to read what S still says.
    fn finish(&mut self, wire: &mut impl Wire) -> Result<(), Fault> {
        self.state = self.finished();
        match wire.finish_target(self.source_ended) {
            // T is gone already; the socket's own event says how.
            Err(e) if e.raw_os_error() == Some(libc::ENOTCONN) => Ok(()),
            other => other.map_err(Fault::Target),
        }
    }
}

/// Makes user space the owner, for the verdict program too. What it redirected
/// before it saw this is in `handed` by then.
fn claim(record: &SharedDirection) {
    record.owner.store(Owner::Relay as u64, Ordering::SeqCst);
    fence(Ordering::SeqCst);
}

fn is_wait(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "lane/frame_tests.rs"]
mod frame_tests;
