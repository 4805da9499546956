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
use header::{BINARY, CLOSE, CONTINUATION, Header, PING, PONG, TEXT};
pub use rules::{
    MASKING_EITHER, MASKING_FORBIDDEN, MASKING_REQUIRED, RSV1, RSV2, RSV3, Rules,
    close_code_may_travel, violation,
};
pub use walk::{HeaderSource, Walk, WalkEnd, WalkOutcome};

/// What has passed of one direction's stream. Counters wrap; those of a peer who breaks the rules
/// are what can be made of it.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Frames of any kind, reserved opcodes included.
    pub frames: u64,
    /// Text messages whose last frame has begun.
    pub text_messages: u64,
    /// Binary messages whose last frame has begun.
    pub binary_messages: u64,
    /// Payload bytes of text messages that have passed.
    pub text_bytes: u64,
    /// Payload bytes of binary messages that have passed.
    pub binary_bytes: u64,
    /// Payload bytes that have passed of control frames, and of frames that belong to no message.
    pub other_bytes: u64,
    /// Close frames.
    pub closes: u64,
    /// Ping frames.
    pub pings: u64,
    /// Pong frames.
    pub pongs: u64,
    /// Messages by the size of their payload, see [`size_class`].
    pub sizes: [u64; SIZES],
}

impl Counts {
    /// Text and binary messages.
    #[inline(always)]
    pub const fn messages(&self) -> u64 {
        self.text_messages.wrapping_add(self.binary_messages)
    }

    /// Payload bytes of all frames.
    #[inline(always)]
    pub const fn payload_bytes(&self) -> u64 {
        self.text_bytes.wrapping_add(self.binary_bytes).wrapping_add(self.other_bytes)
    }

    /// Adds those of another stream.
    pub fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.frames, other.frames),
            (&mut self.text_messages, other.text_messages),
            (&mut self.binary_messages, other.binary_messages),
            (&mut self.text_bytes, other.text_bytes),
            (&mut self.binary_bytes, other.binary_bytes),
            (&mut self.other_bytes, other.other_bytes),
            (&mut self.closes, other.closes),
            (&mut self.pings, other.pings),
            (&mut self.pongs, other.pongs),
        ];
        for (sum, more) in pairs {
            *sum = sum.wrapping_add(more);
        }
        for (sum, more) in self.sizes.iter_mut().zip(other.sizes) {
            *sum = sum.wrapping_add(more);
        }
    }
}

/// How a Pong begins: FIN, no RSV bit (section 5.5.3).
pub const PONG_FIRST_BYTE: u8 = 0x8A;

/// Classes of message sizes.
pub const SIZES: usize = 16;

/// Largest payload, in bytes, of a class of message sizes: 4, 16, 64 and so on to 1 GiB; the last
/// class has no limit.
pub const fn size_limit(class: usize) -> Option<u64> {
    if class + 1 < SIZES { Some(4 << (2 * class)) } else { None }
}

/// The class of a message with so many bytes of payload.
#[inline(always)]
pub const fn size_class(bytes: u64) -> usize {
    // The limits are powers of 4: half the bits of the largest number that is below the size.
    let bits = 64 - bytes.saturating_sub(1).leading_zeros() as usize;
    let class = bits.saturating_sub(1) / 2;
    if class < SIZES { class } else { SIZES - 1 }
}

/// The position in one direction's stream, and its counters. All zero: a stream not begun.
///
/// Crosses the kernel border in a map: explicit widths, no padding, native endianness (both
/// sides are one machine). Any bit pattern is safe to go on with, a nonsensical one just gives
/// nonsensical counts.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct FrameCursor {
    /// Payload bytes of the present frame that are still to come.
    pub payload_left: u64,
    /// Payload bytes of the message under way, of those frames that have begun.
    pub message_bytes: u64,
    /// The bytes of an incomplete header, zeros behind them. For a Close the code belongs to it.
    pub header: [u8; 14],
    /// How many bytes of `header` are there; 0 while none or while in a payload.
    pub header_have: u8,
    /// The opcode of the fragmented message (section 5.4) under way; 0: there is none.
    pub in_message: u8,
    /// The first close code, unmasked; 0 for none (a code of 0 on the wire is a violation).
    pub close_code: u16,
    /// Bits of `violation`, never cleared here.
    pub violations: u16,
    /// What the payload under way is counted as: the opcode of its message; 0: no message's.
    pub payload_kind: u8,
    /// Room.
    pub reserved: [u8; 3],
    /// What has passed.
    pub counts: Counts,
}

const _: () = assert!(size_of::<FrameCursor>() == 240 && align_of::<FrameCursor>() == 8);

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

    /// A length with the top bit set was seen, or bytes were not seen at all: no further byte can
    /// be placed.
    #[inline(always)]
    pub fn is_lost(&self) -> bool {
        self.violations & (violation::LENGTH_TOP_BIT | violation::UNSEEN) != 0
    }

    /// Some bytes were not seen, and never will be.
    #[inline(always)]
    pub fn lose(&mut self) {
        self.violations |= violation::UNSEEN;
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
        let passed = match self.payload_kind as u32 {
            TEXT => &mut self.counts.text_bytes,
            BINARY => &mut self.counts.binary_bytes,
            _ => &mut self.counts.other_bytes,
        };
        *passed = passed.wrapping_add(n);
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

    /// Follows `bytes` up to the first frame that breaks an enforced rule, and returns where in
    /// them that begins: 0 also if it began before them. `None`: none does, all are followed.
    pub fn advance_to_forbidden(&mut self, bytes: &[u8], rules: Rules) -> Option<usize> {
        let mut at = 0;
        let mut frame = 0;
        while at < bytes.len() {
            if self.is_forbidden(rules) {
                return Some(frame);
            }
            if self.is_lost() {
                return None;
            }
            if self.at_boundary() {
                frame = at;
            }
            at += self.step(bytes.get(at..).unwrap_or_default(), rules);
        }
        self.is_forbidden(rules).then_some(frame)
    }

    /// An enforced rule was broken.
    #[inline(always)]
    pub fn is_forbidden(&self, rules: Rules) -> bool {
        self.violations & rules.enforced != 0
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
        let counts = &mut self.counts;
        counts.frames = counts.frames.wrapping_add(1);
        self.payload_left = header.payload_length();
        self.payload_kind = 0;
        match header.opcode() {
            CONTINUATION..=BINARY => self.count_data(header, rules),
            CLOSE => self.count_close(header),
            PING => counts.pings = counts.pings.wrapping_add(1),
            PONG => counts.pongs = counts.pongs.wrapping_add(1),
            _ => {}
        }
    }

    /// Fragmentation (section 5.4). A data frame inside a message starts a new one; a continuation
    /// of nothing belongs to none.
    #[inline(always)]
    fn count_data(&mut self, header: Header, rules: Rules) {
        let continues = header.opcode() == CONTINUATION;
        if continues && self.in_message == 0 {
            self.violations |= violation::CONTINUATION_WITHOUT_START;
            return;
        }
        if !continues && self.in_message != 0 {
            self.violations |= violation::DATA_INSIDE_MESSAGE;
        }
        let before = if continues { self.message_bytes } else { 0 };
        let bytes = before.saturating_add(self.payload_left);
        if rules.max_message != 0 && bytes > rules.max_message {
            self.violations |= violation::MESSAGE_TOO_LONG;
        }
        let kind = if continues { self.in_message } else { header.opcode() as u8 };
        self.payload_kind = kind;
        if header.fin() == 0 {
            self.in_message = kind;
            self.message_bytes = bytes;
            return;
        }
        self.in_message = 0;
        self.message_bytes = 0;
        let counts = &mut self.counts;
        let messages = if kind as u32 == TEXT {
            &mut counts.text_messages
        } else {
            &mut counts.binary_messages
        };
        *messages = messages.wrapping_add(1);
        // The mask says to the verifier, and to the compiler, what `size_class` promises.
        let class = &mut counts.sizes[size_class(bytes) & (SIZES - 1)];
        *class = class.wrapping_add(1);
    }

    /// A Close (section 5.5.1). Its code came with the header, so those two bytes have passed.
    #[inline(always)]
    fn count_close(&mut self, header: Header) {
        self.counts.closes = self.counts.closes.wrapping_add(1);
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
