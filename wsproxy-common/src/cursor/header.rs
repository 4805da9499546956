//! The bytes of one frame header (RFC 6455 section 5.2) as two big-endian words.
//!
//! Words instead of an array, so that every field is a shift and a mask: the BPF verifier sees
//! scalars only, no index to bound, and no panic path exists.

use super::rules::{MASKING_EITHER, Rules, violation};

/// The longest header: 2 bytes, 8 of extended length, 4 of masking key.
pub const MAX_HEADER: u32 = 14;

/// The first 7 bits of the length that announce a 16-bit or a 64-bit length.
const LENGTH_16: u32 = 126;
const LENGTH_64: u32 = 127;

/// Opcodes (section 11.8).
pub(super) const CONTINUATION: u32 = 0x0;
pub(super) const TEXT: u32 = 0x1;
pub(super) const BINARY: u32 = 0x2;
pub(super) const CLOSE: u32 = 0x8;
pub(super) const PING: u32 = 0x9;
pub(super) const PONG: u32 = 0xA;

/// Bytes 0 to 7 in `hi`, bytes 8 to 13 in the upper 48 bits of `lo`.
#[derive(Clone, Copy)]
pub(super) struct Header {
    hi: u64,
    lo: u64,
}

impl Header {
    #[inline(always)]
    pub(super) fn from_bytes(b: &[u8; 14]) -> Self {
        Self {
            hi: u64::from_be_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
            lo: u64::from_be_bytes([b[8], b[9], b[10], b[11], b[12], b[13], 0, 0]),
        }
    }

    #[inline(always)]
    pub(super) fn to_bytes(self) -> [u8; 14] {
        let [a, b, c, d, e, f, g, h] = self.hi.to_be_bytes();
        let [i, j, k, l, m, n, _, _] = self.lo.to_be_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n]
    }

    /// `self` has `had` bytes (1 to 13) and zeros behind them: puts `more` there.
    #[inline(always)]
    pub(super) fn followed_by(self, had: u32, more: Header) -> Self {
        let bits = (had * 8) & 127;
        if bits < 64 {
            let carry = more.hi << ((64 - bits) & 63);
            Self { hi: self.hi | (more.hi >> bits), lo: self.lo | (more.lo >> bits) | carry }
        } else {
            Self { hi: self.hi, lo: self.lo | (more.hi >> (bits & 63)) }
        }
    }

    /// Keeps the first `count` bytes (0 to 13), zeros the rest.
    #[inline(always)]
    pub(super) fn first(self, count: u32) -> Self {
        let bits = (count * 8) & 127;
        if bits < 64 {
            Self { hi: self.hi & !(u64::MAX >> bits), lo: 0 }
        } else {
            Self { hi: self.hi, lo: self.lo & !(u64::MAX >> (bits & 63)) }
        }
    }

    #[inline(always)]
    pub(super) fn fin(self) -> u32 {
        (self.hi >> 63) as u32
    }

    #[inline(always)]
    pub(super) fn opcode(self) -> u32 {
        (self.hi >> 56) as u32 & 0xF
    }

    #[inline(always)]
    pub(super) fn is_control(self) -> bool {
        self.hi & (1 << 59) != 0
    }

    #[inline(always)]
    fn masked(self) -> u32 {
        (self.hi >> 55) as u32 & 1
    }

    #[inline(always)]
    fn length_7(self) -> u32 {
        (self.hi >> 48) as u32 & 0x7F
    }

    /// A Close whose first two payload bytes are read along with the header (section 5.5.1).
    /// One that spends an extended length is a violation already; its code is not looked for.
    #[inline(always)]
    pub(super) fn has_close_code(self) -> bool {
        self.opcode() == CLOSE && self.length_7().wrapping_sub(2) < LENGTH_16 - 2
    }

    /// How long this header is, the close code included. Right once two bytes are there.
    #[inline(always)]
    pub(super) fn needed(self) -> u32 {
        let extended = match self.length_7() {
            LENGTH_16 => 2,
            LENGTH_64 => 8,
            _ if self.has_close_code() => 2,
            _ => 0,
        };
        2 + extended + self.masked() * 4
    }

    #[inline(always)]
    pub(super) fn payload_length(self) -> u64 {
        match self.length_7() {
            LENGTH_16 => (self.hi >> 32) & 0xFFFF,
            LENGTH_64 => (self.hi << 16) | (self.lo >> 48),
            short => short as u64,
        }
    }

    /// The close code, unmasked with the key (section 5.3); meaningful if `has_close_code`.
    #[inline(always)]
    pub(super) fn close_code(self) -> u16 {
        let third_and_fourth = (self.hi >> 32) as u16;
        if self.masked() == 0 { third_and_fourth } else { third_and_fourth ^ self.hi as u16 }
    }

    /// What is wrong with this header in itself, whatever came before it.
    #[inline(always)]
    pub(super) fn violations(self, rules: Rules) -> u16 {
        let length = self.payload_length();
        let opcode = self.opcode();
        let mut found = 0;
        if (self.hi >> 56) as u8 & 0x70 & !rules.allowed_rsv != 0 {
            found |= violation::RSV;
        }
        if rules.must_be_masked < MASKING_EITHER && self.masked() != rules.must_be_masked as u32 {
            found |= violation::MASKING;
        }
        let shortest = match self.length_7() {
            LENGTH_16 => 126,
            LENGTH_64 => 1 << 16,
            _ => 0,
        };
        if length < shortest {
            found |= violation::LENGTH_NOT_MINIMAL;
        }
        if length >> 63 != 0 {
            found |= violation::LENGTH_TOP_BIT;
        }
        if rules.max_frame != 0 && length > rules.max_frame {
            found |= violation::FRAME_TOO_LONG;
        }
        if opcode & 7 > 2 {
            found |= violation::RESERVED_OPCODE;
        }
        if self.is_control() {
            if self.fin() == 0 {
                found |= violation::CONTROL_FRAGMENTED;
            }
            if length > 125 {
                found |= violation::CONTROL_TOO_LONG;
            }
            if opcode == CLOSE && length == 1 {
                found |= violation::CLOSE_ONE_BYTE;
            }
        }
        found
    }
}
