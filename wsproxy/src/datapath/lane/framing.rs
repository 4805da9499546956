//! What a lane has to do with frames, besides moving bytes: frames of our own for T, the answer
//! that it waits for from S, and what S may not send.

use wsproxy_common::cursor::{FrameCursor, Rules};

use super::pong;
use crate::datapath::control_frame::PING_PAYLOAD;

/// Made when there is something to do, gone when it is done: most sessions have none.
#[derive(Debug, Default)]
pub struct Framing {
    /// Frames for T, to be put between two of S's.
    own: Vec<u8>,
    /// Bytes of them that T has.
    written: usize,
    /// The code of a Close among them; 0: there is none.
    code: u16,
    /// T has got it: it gets nothing more.
    has_said_farewell: bool,
    /// Follows what S says and T does not get, to hear its Close.
    unheard: Option<FrameCursor>,
    /// Payloads of the Pings that S was sent and has not answered, the last one at the end: who
    /// talks meanwhile is pinged again.
    awaited: Vec<[u8; PING_PAYLOAD]>,
    /// The last of them was answered.
    answered: bool,
    /// Bytes of S that may be the begin of that answer.
    held: Vec<u8>,
    /// Enforced rules that S has broken.
    forbidden: u16,
}

/// Pings whose answers are waited for, at most. A side that has answered none of so many does not
/// answer the first one any more.
const MOST_AWAITED: usize = 8;

/// What is to be done with bytes that were read from S.
pub struct Parts<'a> {
    /// They go to T.
    pub first: &'a [u8],
    /// The answer to our Ping: nobody gets it.
    pub swallowed: usize,
    /// They go to T after it.
    pub second: &'a [u8],
}

impl Framing {
    /// One more frame for T: no Close.
    pub fn add(&mut self, frame: &[u8]) {
        self.own.extend(frame);
    }

    /// A Close for T with this code. Nothing goes to T behind it.
    pub fn add_close(&mut self, code: u16, frame: &[u8]) {
        self.own.extend(frame);
        self.code = code;
    }

    /// The rest of the frames for T, if there is one; whether it may go now. What was begun is
    /// brought to its end; a frame begins only between two of S's.
    pub fn due(&self, at_boundary: bool) -> Option<&[u8]> {
        let rest = &self.own[self.written..];
        (!rest.is_empty() && (self.written > 0 || at_boundary)).then_some(rest)
    }

    /// Frames for T are waiting.
    pub fn has_own(&self) -> bool {
        !self.own.is_empty()
    }

    /// T took so many bytes of them; `cursor` is where S's stream stands. The code of a Close
    /// that T has got with that.
    pub fn took(&mut self, bytes: usize, cursor: FrameCursor) -> Option<u16> {
        self.written += bytes;
        if self.written < self.own.len() {
            return None;
        }
        if self.code != 0 {
            self.has_said_farewell = true;
            self.unheard = Some(cursor);
        }
        let code = self.code;
        self.drop_own();
        (code != 0).then_some(code)
    }

    /// The frames for T are given up.
    pub fn drop_own(&mut self) {
        self.own.clear();
        (self.written, self.code) = (0, 0);
    }

    /// The frames for T are given up, unless T has a part of one.
    pub fn drop_unbegun(&mut self) {
        if self.written == 0 {
            self.drop_own();
        }
    }

    /// T has got our Close.
    pub fn has_said_farewell(&self) -> bool {
        self.has_said_farewell
    }

    /// S says this, and T does not get it; `cursor` is where S's stream stood when T got the last.
    pub fn listen(&mut self, cursor: FrameCursor, bytes: &[u8], rules: Rules) {
        self.unheard.get_or_insert(cursor).advance(bytes, rules);
    }

    /// S's Close was in what T did not get.
    pub fn has_heard_close(&self) -> bool {
        self.unheard.is_some_and(|cursor| cursor.counts.closes > 0)
    }

    /// S was sent a Ping with this payload, or will be in a moment.
    pub fn await_answer(&mut self, payload: [u8; PING_PAYLOAD]) {
        if self.awaited.len() == MOST_AWAITED {
            self.awaited.remove(0);
        }
        self.awaited.push(payload);
        self.answered = false;
    }

    /// An answer is waited for.
    pub fn awaits(&self) -> bool {
        !self.awaited.is_empty()
    }

    /// Whether the last Ping was answered; says so once.
    pub fn take_answer(&mut self) -> bool {
        std::mem::take(&mut self.answered)
    }

    /// Bytes that are held back.
    pub fn held(&self) -> &[u8] {
        &self.held
    }

    /// Nothing is held back any more.
    pub fn release(&mut self) {
        self.held.clear();
    }

    /// Sorts what follows where `cursor` stands, with what is held back in front of it, and holds
    /// back what may be the begin of an answer. Behind an answer there may be another one.
    pub fn sort<'a>(&mut self, cursor: FrameCursor, rules: Rules, bytes: &'a [u8]) -> Parts<'a> {
        let all = Parts { first: bytes, swallowed: 0, second: &[] };
        self.held.clear();
        match pong::find(cursor, rules, bytes, &self.awaited) {
            pong::Found::Not => all,
            pong::Found::MayBegin(at) => {
                self.held.extend(&bytes[at..]);
                Parts { first: &bytes[..at], ..all }
            }
            pong::Found::At(range, nth) => {
                // Who answers a Ping answers none that came before it (section 5.5.3).
                self.awaited.drain(..=nth);
                self.answered = self.awaited.is_empty();
                Parts {
                    first: &bytes[..range.start],
                    swallowed: range.len(),
                    second: &bytes[range.end..],
                }
            }
        }
    }

    /// S has broken enforced rules.
    pub fn forbid(&mut self, violations: u16) {
        self.forbidden |= violations;
    }

    /// Enforced rules that S has broken.
    pub fn forbidden(&self) -> u16 {
        self.forbidden
    }

    /// Nothing is left to do.
    pub fn is_idle(&self) -> bool {
        self.own.is_empty()
            && self.awaited.is_empty()
            && !self.answered
            && self.held.is_empty()
            && self.unheard.is_none()
            && self.forbidden == 0
    }
}
