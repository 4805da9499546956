//! The frame cursor: where a WebSocket stream stands inside its frames (RFC 6455 section 5.2),
//! and what has passed so far.
//!
//! One piece of code for both sides of the kernel border. BPF reads headers from an skb
//! (`walk_begin`, `walk_one`, `walk_end`), user space hands over slices (`advance`); both end in
//! `take_header` and `skip_payload`, and any split of the same bytes leaves the same cursor.
//! Payload is never looked at, but for the two bytes of a close code.
//!
//! A frame is counted when its header is complete, a message when the header of its last frame
//! is. Violations are recorded and not acted on: whoever owns the stream decides.

mod header;
mod rules;
mod walk;

pub use header::MAX_HEADER;
use header::{BINARY, CLOSE, CONTINUATION, Header, PING, PONG};
pub use rules::{
    MASKING_EITHER, MASKING_FORBIDDEN, MASKING_REQUIRED, RSV1, RSV2, RSV3, Rules,
    close_code_may_travel, violation,
};
pub use walk::{HeaderSource, Walk, WalkEnd, WalkOutcome};

/// The position in one direction's stream, and its counters. All zero: a stream not begun.
///
/// Crosses the kernel border in a map: explicit widths, no padding, native endianness (both
/// sides are one machine), one cache line. Any bit pattern is safe to go on with, a nonsensical
/// one just gives nonsensical counts. Counters wrap.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct FrameCursor {
    /// Payload bytes of the present frame that are still to come.
    pub payload_left: u64,
    /// Frames of any kind, reserved opcodes included.
    pub frames: u64,
    /// Text and binary messages whose last frame has begun.
    pub messages: u64,
    /// Payload bytes that have passed, those of control frames included.
    pub payload_bytes: u64,
    /// Close frames.
    pub closes: u32,
    /// Ping frames.
    pub pings: u32,
    /// Pong frames.
    pub pongs: u32,
    /// The first close code, unmasked; 0 for none (a code of 0 on the wire is a violation).
    pub close_code: u16,
    /// Bits of `violation`, never cleared here.
    pub violations: u16,
    /// The bytes of an incomplete header, zeros behind them. For a Close the code belongs to it.
    pub header: [u8; 14],
    /// How many bytes of `header` are there; 0 while none or while in a payload.
    pub header_have: u8,
    /// 1 inside a fragmented message (section 5.4), else 0.
    pub in_message: u8,
}

const _: () = assert!(size_of::<FrameCursor>() == 64 && align_of::<FrameCursor>() == 8);

/// What the cursor has a use for next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// So many header bytes (1 to 12): to the end of the first two, then to the end of the header.
    Header(u32),
    /// So many bytes that need not be read, only skipped.
    Payload(u64),
    /// Nothing: the cursor is lost.
    Nothing,
}

impl FrameCursor {
    /// Between two frames, where a frame of our own may be inserted: a control frame even inside
    /// a fragmented message (section 5.4). Never true once lost.
    #[inline(always)]
    pub fn at_boundary(&self) -> bool {
        self.payload_left == 0 && self.header_have == 0 && !self.is_lost()
    }

    /// A length with the top bit set was seen: no further byte can be placed.
    #[inline(always)]
    pub fn is_lost(&self) -> bool {
        self.violations & violation::LENGTH_TOP_BIT != 0
    }

    /// What is needed next, given what is known.
    #[inline(always)]
    pub fn wanted(&self) -> Wanted {
        if self.is_lost() {
            return Wanted::Nothing;
        }
        if self.payload_left != 0 {
            return Wanted::Payload(self.payload_left);
        }
        let had = self.header_collected();
        Wanted::Header(self.header_needed().saturating_sub(had).max(1))
    }

    /// The length of the header under way as far as it is known, its close code included: 2 until
    /// two bytes are there.
    #[inline(always)]
    pub fn header_needed(&self) -> u32 {
        if self.header_have < 2 { 2 } else { Header::from_bytes(&self.header).needed() }
    }

    /// `header_have` for arithmetic; the bound is for the verifier, and for a map gone wrong.
    #[inline(always)]
    fn header_collected(&self) -> u32 {
        let have = self.header_have as u32;
        if have < MAX_HEADER { have } else { MAX_HEADER - 1 }
    }

    /// Takes header bytes: the first `have` of `bytes` follow in the stream. More than wanted is
    /// welcome (14 whenever there are so many saves a second read): returns how many belonged to
    /// the header. Takes none inside a payload or when lost.
    #[inline(always)]
    pub fn take_header(&mut self, bytes: [u8; 14], have: u32, rules: Rules) -> u32 {
        if self.payload_left != 0 || self.is_lost() {
            return 0;
        }
        self.take(Header::from_bytes(&bytes), have, rules)
    }

    /// `take_header` for a cursor that is neither lost nor inside a payload.
    #[inline(always)]
    fn take(&mut self, more: Header, have: u32, rules: Rules) -> u32 {
        let had = self.header_collected();
        let have = if have < MAX_HEADER { have } else { MAX_HEADER };
        let total = had + have;
        let header =
            if had == 0 { more } else { Header::from_bytes(&self.header).followed_by(had, more) };
        let needed = if total < 2 { 2 } else { header.needed() };
        let complete = total >= needed;
        let keep = if complete { 0 } else { total };
        if had != 0 || keep != 0 {
            self.header = header.first(keep).to_bytes();
            self.header_have = keep as u8;
        }
        if !complete {
            return have;
        }
        self.begin_frame(header, rules);
        needed.saturating_sub(had)
    }

    /// Follows `n` bytes of payload, or what is left of it; returns how many that was.
    #[inline(always)]
    pub fn skip_payload(&mut self, n: u64) -> u64 {
        let n = if n < self.payload_left { n } else { self.payload_left };
        self.payload_left -= n;
        self.payload_bytes = self.payload_bytes.wrapping_add(n);
        n
    }

    /// Follows all of `bytes` (those after getting lost are ignored).
    pub fn advance(&mut self, bytes: &[u8], rules: Rules) {
        let mut rest = bytes;
        while !rest.is_empty() && !self.is_lost() {
            let used = self.step(rest, rules);
            rest = rest.get(used..).unwrap_or_default();
        }
    }

    /// Follows `bytes` up to the next place between two frames and returns how many that were: 0
    /// if the cursor is there already, all of them if the frame does not end in them.
    pub fn advance_to_boundary(&mut self, bytes: &[u8], rules: Rules) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() && !self.at_boundary() && !self.is_lost() {
            let used = self.step(rest, rules);
            rest = rest.get(used..).unwrap_or_default();
        }
        if self.is_lost() { bytes.len() } else { bytes.len() - rest.len() }
    }

    /// One header, or one stretch of payload.
    fn step(&mut self, bytes: &[u8], rules: Rules) -> usize {
        if self.payload_left != 0 {
            return self.skip_payload(bytes.len() as u64) as usize;
        }
        let mut front = [0; 14];
        let mut have = 0;
        for (to, from) in front.iter_mut().zip(bytes) {
            *to = *from;
            have += 1;
        }
        self.take_header(front, have, rules) as usize
    }

    /// A header is complete: judge it, count it, and stand at its payload.
    #[inline(always)]
    fn begin_frame(&mut self, header: Header, rules: Rules) {
        self.violations |= header.violations(rules);
        if self.is_lost() {
            return;
        }
        self.frames = self.frames.wrapping_add(1);
        self.payload_left = header.payload_length();
        match header.opcode() {
            CONTINUATION..=BINARY => self.count_data(header),
            CLOSE => self.count_close(header),
            PING => self.pings = self.pings.wrapping_add(1),
            PONG => self.pongs = self.pongs.wrapping_add(1),
            _ => {}
        }
    }

    /// Fragmentation (section 5.4). A data frame inside a message starts a new one; a continuation
    /// of nothing belongs to none.
    #[inline(always)]
    fn count_data(&mut self, header: Header) {
        let continues = header.opcode() == CONTINUATION;
        if continues && self.in_message == 0 {
            self.violations |= violation::CONTINUATION_WITHOUT_START;
            return;
        }
        if !continues && self.in_message != 0 {
            self.violations |= violation::DATA_INSIDE_MESSAGE;
        }
        self.messages = self.messages.wrapping_add(header.fin() as u64);
        self.in_message = 1 - header.fin() as u8;
    }

    /// A Close (section 5.5.1). Its code came with the header, so those two bytes have passed.
    #[inline(always)]
    fn count_close(&mut self, header: Header) {
        self.closes = self.closes.wrapping_add(1);
        if !header.has_close_code() {
            return;
        }
        self.skip_payload(2);
        let code = header.close_code();
        if !close_code_may_travel(code) {
            self.violations |= violation::CLOSE_CODE_INVALID;
        }
        if self.close_code == 0 {
            self.close_code = code;
        }
    }
}
