//! The options of a segment: timestamps and selective acknowledgements are translated.

use super::{Flow, Segment, Sum, headers::ACK};

/// Bytes of options, at most.
pub const OPTIONS: usize = 40;
/// Words of the buffer: a power of two, so that a masked index needs no check, and one more than
/// the options have.
const ROOM: usize = 16;

const END: u8 = 0;
const PADDING: u8 = 1;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;
/// `NOP NOP TS 10`: how nearly every segment begins its options (RFC 7323, appendix A).
const USUAL: u32 = u32::from_ne_bytes([PADDING, PADDING, TIMESTAMPS, 10]);

/// The options of a segment, being translated: words in network order, as they lie in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Options {
    /// The options; zero behind them.
    pub words: [u32; ROOM],
    /// How many bytes of them there are.
    pub length: u32,
    at: u32,
    ack_add: u32,
    value_add: u32,
    echo_add: u32,
    value: u32,
    has_value: u32,
    reserved: u32,
}

impl Options {
    /// Begins with the options of a segment: `words` are to be filled in.
    #[inline(always)]
    pub fn begin(&mut self, flow: &Flow, segment: &Segment) {
        let mut at = 0;
        while at < ROOM {
            self.words[at] = 0;
            at += 1;
        }
        self.length = segment.options as u32;
        self.at = 0;
        self.ack_add = flow.ack_add;
        self.value_add = flow.value_add;
        // Without ACK the echo says nothing, and is 0 (RFC 7323, section 3.2).
        self.echo_add = if segment.has(ACK) { flow.echo_add } else { 0 };
        self.value = 0;
        self.has_value = 0;
    }

    /// The TSval that was there before the translation, if any.
    #[must_use]
    #[inline(always)]
    pub fn value(&self) -> Option<u32> {
        if self.has_value != 0 { Some(self.value) } else { None }
    }

    /// The TSval, where timestamps come first, behind two bytes of padding or none: as every
    /// TCP known to us begins.
    #[must_use]
    #[inline(always)]
    pub fn first_value(&self) -> Option<u32> {
        let (first, second) = (u32::from_be(self.words[0]), u32::from_be(self.words[1]));
        if self.words[0] == USUAL {
            Some(second)
        } else if first >> 16 == u32::from(TIMESTAMPS) << 8 | 10 {
            Some(first << 16 | second >> 16)
        } else {
            None
        }
    }

    /// Whether there are timestamps and nothing else, in the usual order; if so they are
    /// translated, and this is what the checksum changes by.
    #[inline(always)]
    pub fn usual(&mut self) -> Option<u32> {
        if self.length != 12 || self.words[0] != USUAL {
            return None;
        }
        self.value = u32::from_be(self.words[1]);
        self.has_value = 1;
        let value = self.value.wrapping_add(self.value_add).to_be();
        let echo = u32::from_be(self.words[2]).wrapping_add(self.echo_add).to_be();
        let mut sum = Sum::default();
        sum.word(self.words[1], value);
        sum.word(self.words[2], echo);
        self.words[1] = value;
        self.words[2] = echo;
        Some(sum.folded())
    }

    /// Translates the next option; false at their end. At most [`OPTIONS`] steps.
    #[inline(always)]
    pub fn step(&mut self) -> bool {
        let at = self.at;
        if at >= self.length || at >= OPTIONS as u32 {
            return false;
        }
        let kind = self.byte(at);
        if kind == END {
            return false;
        }
        if kind == PADDING {
            self.at += 1;
            return true;
        }
        let length = u32::from(self.byte(at + 1));
        // Cut short: nothing behind it can be understood (RFC 9293, section 3.1).
        if length < 2 || at + length > self.length {
            return false;
        }
        if kind == TIMESTAMPS && length == 10 {
            self.value = self.add(at + 2, self.value_add);
            self.has_value = 1;
            self.add(at + 6, self.echo_add);
        }
        if kind == SACK {
            let mut edge = 0;
            // Four blocks, at most, have room.
            while edge < 8 && 2 + 4 * (edge + 1) <= length {
                self.add(at + 2 + 4 * edge, self.ack_add);
                edge += 1;
            }
        }
        self.at += length;
        true
    }

    /// The eight bytes from the word in which `at` lies.
    #[inline(always)]
    fn pair(&self, at: u32) -> u64 {
        let word = (at / 4) as usize;
        let (high, low) = (self.words[word % ROOM], self.words[(word + 1) % ROOM]);
        u64::from(u32::from_be(high)) << 32 | u64::from(u32::from_be(low))
    }

    #[inline(always)]
    fn byte(&self, at: u32) -> u8 {
        (self.pair(at) >> (56 - 8 * (at % 4))) as u8
    }

    /// Adds to the number at `at`; gives what it was.
    #[inline(always)]
    fn add(&mut self, at: u32, n: u32) -> u32 {
        let shift = 32 - 8 * (at % 4);
        let pair = self.pair(at);
        let old = (pair >> shift) as u32;
        let new = pair & !(0xffff_ffff << shift) | u64::from(old.wrapping_add(n)) << shift;
        let word = (at / 4) as usize;
        self.words[word % ROOM] = ((new >> 32) as u32).to_be();
        self.words[(word + 1) % ROOM] = (new as u32).to_be();
        old
    }

    /// The sum over all of them, to be compared with that of another moment.
    #[must_use]
    #[inline(always)]
    pub fn sum(&self) -> u32 {
        let mut sum = Sum::default();
        let mut at = 0;
        while at < OPTIONS / 4 {
            sum.word(u32::MAX, self.words[at]);
            at += 1;
        }
        sum.folded()
    }

    /// What the checksum changes by between two sums.
    #[must_use]
    #[inline(always)]
    pub fn change(before: u32, after: u32) -> u32 {
        let mut sum = Sum::default();
        sum.word(before, after);
        sum.folded()
    }
}
