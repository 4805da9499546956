//! Frames of our own in a lane, and what S may not send: what supervision asks of it.

use std::{io, sync::atomic::Ordering};

use wsproxy_common::direction::{FOLLOW_FRAMES, WATCH_PONGS};

use super::{Attachment, Fault, Lane, SharedDirection, State, Want, Wire, claim, framing::Framing};
use crate::datapath::control_frame::{self, PING_PAYLOAD};

impl Lane {
    /// Ends the direction at the next moment S has nothing at hand. With a `farewell`, a Close
    /// frame, T gets that between two frames of S, and nothing more of S; unless S has said its
    /// Close already, or its frames are not followed.
    pub fn close(&mut self, record: &SharedDirection, farewell: Option<(u16, &[u8])>) {
        let first = !std::mem::replace(&mut self.closing, true);
        match farewell {
            Some((code, frame)) if first && may_speak(record) && !self.is_finished() => {
                self.framing().add_close(code, frame);
            }
            _ if first => {
                if let Some(framing) = &mut self.framing {
                    framing.drop_unbegun();
                }
            }
            _ => {}
        }
        self.take(record);
    }

    /// User space keeps the direction: it listens for S's Close.
    pub fn stay(&mut self, record: &SharedDirection) {
        self.stays = true;
        self.take(record);
    }

    /// Puts a frame of our own between two frames of S. It is not sent when S has said its Close:
    /// [`Self::has_said_own`] tells, once [`Self::has_own`] is over.
    pub fn insert(&mut self, record: &SharedDirection, frame: &[u8]) {
        self.said_own = false;
        if self.state != State::Parting && !self.is_finished() && !self.closing {
            self.framing().add(frame);
            self.take(record);
        }
    }

    /// Frames of our own wait for their place, or for room.
    #[must_use]
    pub fn has_own(&self) -> bool {
        self.framing.as_ref().is_some_and(|framing| framing.has_own())
    }

    /// T has got the frame that was inserted last.
    #[must_use]
    pub fn has_said_own(&self) -> bool {
        self.said_own
    }

    /// S is about to get a Ping with this payload: its answer will be kept from T.
    pub fn await_answer(&mut self, record: &SharedDirection, payload: [u8; PING_PAYLOAD]) {
        self.framing().await_answer(payload);
        record.follow.fetch_or(WATCH_PONGS, Ordering::SeqCst);
    }

    /// An answer is waited for.
    #[must_use]
    pub fn awaits_answer(&self) -> bool {
        self.framing.as_ref().is_some_and(|framing| framing.awaits())
    }

    /// Whether the last Ping was answered; says so once.
    pub fn take_answer(&mut self, record: &SharedDirection) -> bool {
        let Some(framing) = &mut self.framing else { return false };
        let answered = framing.take_answer();
        if answered {
            record.follow.fetch_and(!WATCH_PONGS, Ordering::SeqCst);
        }
        if framing.is_idle() {
            self.framing = None;
        }
        answered
    }

    /// Enforced rules that S has broken: bits of `cursor::violation`.
    #[must_use]
    pub fn forbidden(&self) -> u16 {
        self.framing.as_ref().map_or(0, |framing| framing.forbidden())
    }

    /// T got our Close, and waits for its FIN.
    #[must_use]
    pub fn is_parting(&self) -> bool {
        self.state == State::Parting
    }

    /// T got a Close of ours.
    #[must_use]
    pub fn has_said_farewell(&self) -> bool {
        self.framing.as_ref().is_some_and(|framing| framing.has_said_farewell())
    }

    /// S has said its Close, or nothing that it says can be understood, or it is at its end.
    #[must_use]
    pub fn has_heard_all(&self, record: &SharedDirection) -> bool {
        let heard = |framing: &Framing| framing.has_heard_close() || framing.forbidden() != 0;
        self.source_ended
            || self.framing.as_deref().is_some_and(heard)
            || record.cursor().counts.closes > 0
    }

    /// T has answered our Close: its FIN may follow.
    ///
    /// # Errors
    /// [`Fault::Target`].
    pub fn part(&mut self, wire: &mut impl Wire) -> Result<(), Fault> {
        if self.state == State::Parting {
            self.finish(wire)?;
        }
        Ok(())
    }

    /// S broke, or is dead: what it has sent goes to T, then this Close. Where S stopped
    /// inside a frame, [`Self::run`] says that S broke. False: T can't be told so.
    pub fn source_lost(&mut self, record: &SharedDirection, farewell: (u16, &[u8])) -> bool {
        self.gone_code = 0;
        if !may_speak(record) || self.closing || self.is_finished() {
            return false;
        }
        self.source_broke = true;
        self.source_ended = true;
        self.framing().add_close(farewell.0, farewell.1);
        self.take(record);
        true
    }

    /// T is to be told if S ends without a Close.
    #[must_use]
    pub fn has_gone_code(&self) -> bool {
        self.gone_code != 0
    }

    /// What T is told when S breaks off, with a frame that says it; once.
    pub fn take_gone_code(&mut self) -> Option<u16> {
        let code = std::mem::take(&mut self.gone_code);
        (code != 0).then_some(code)
    }

    /// The code of the Close that T got from us; 0: none.
    #[must_use]
    pub fn told(&self) -> u16 {
        self.told
    }

    /// S broke after T got our Close.
    pub fn source_is_gone(&mut self) {
        self.source_ended = true;
    }

    /// T broke: what S says is thrown away, once its Close was looked for in it.
    pub fn target_broke(&mut self, record: &SharedDirection) {
        claim(record);
        if let Some(residue) = self.residue.take() {
            self.listen(record, &residue.bytes[residue.written..]);
        }
        if !self.is_finished() {
            self.state = self.finished();
        }
    }

    pub(super) fn framing(&mut self) -> &mut Framing {
        self.framing.get_or_insert_default()
    }

    /// What is left to do for a direction of which S or a broken rule leaves nothing more to
    /// read: `None` and another state, or nothing special.
    pub(super) fn turn_away(&mut self, wire: &mut impl Wire) -> Result<Option<Want>, Fault> {
        if self.has_said_farewell() {
            self.state = State::Parting;
        } else if self.source_broke {
            // Its Close would have been said by now: it broke inside a frame.
            return Err(Fault::Source(io::ErrorKind::ConnectionReset.into()));
        } else if self.forbidden() != 0 {
            if !self.closing {
                return Ok(Some(Want::Readable));
            }
            self.finish(wire)?;
        }
        Ok(None)
    }

    /// S ended without a Close: queues the one that T is to get instead, once.
    pub(super) fn say_gone(&mut self, record: &SharedDirection) -> bool {
        let code = std::mem::take(&mut self.gone_code);
        let cursor = record.cursor();
        let between = cursor.at_boundary() && cursor.violations == 0;
        let speaks = code != 0 && may_speak(record) && between && !self.closing;
        if speaks {
            self.framing().add_close(code, &control_frame::close(code, "", None));
        }
        speaks
    }

    /// Puts what was held back in front of what is read next; how many bytes that is.
    pub(super) fn bring_held(&self, buf: &mut [u8]) -> usize {
        let held = self.framing.as_ref().map_or(&[][..], |framing| framing.held());
        buf[..held.len()].copy_from_slice(held);
        held.len()
    }

    pub(super) fn release(&mut self) {
        if let Some(framing) = &mut self.framing {
            framing.release();
        }
    }

    /// Bytes came from S: to T with them, but for the answers to our Pings.
    pub(super) fn receive(
        &mut self,
        wire: &mut impl Wire,
        record: &SharedDirection,
        bytes: &[u8],
        now_ns: u64,
    ) -> Result<(), Fault> {
        if !self.awaits_answer() {
            return self.forward(wire, record, bytes, now_ns);
        }
        // What T has no room for is sorted all the same, so the record's cursor is not asked again.
        let (mut cursor, rules, mut rest) = (record.cursor(), record.rules(), bytes);
        while let Some(framing) = self.framing.as_mut().filter(|framing| framing.awaits()) {
            let parts = framing.sort(cursor, rules, rest);
            self.forward(wire, record, parts.first, now_ns)?;
            if parts.swallowed == 0 {
                return Ok(());
            }
            if self.attachment != Attachment::None {
                record.relayed.fetch_add(parts.swallowed as u64, Ordering::SeqCst);
            }
            cursor.advance(parts.first, rules);
            rest = parts.second;
        }
        self.forward(wire, record, rest, now_ns)
    }

    /// S says this, and T does not get it.
    pub(super) fn listen(&mut self, record: &SharedDirection, bytes: &[u8]) {
        if is_followed(record) {
            self.framing().listen(record.cursor(), bytes, record.rules());
        }
    }
}

pub(super) fn is_followed(record: &SharedDirection) -> bool {
    record.follow.load(Ordering::Relaxed) & FOLLOW_FRAMES != 0
}

/// Frames of our own can be put into the direction: its frames are followed and understood, and
/// S has not said its Close.
pub(super) fn may_speak(record: &SharedDirection) -> bool {
    let cursor = record.cursor();
    is_followed(record) && !cursor.is_lost() && cursor.counts.closes == 0
}
