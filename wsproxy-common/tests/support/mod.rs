//! A reference for the frame cursor: it reads a whole buffer, frame by frame, with slices, as
//! RFC 6455 section 5.2 draws them. It shares nothing with the cursor but the names of the bits.
#![allow(dead_code)] // every test file uses its own part of this

use wsproxy_common::cursor::{Counts, FrameCursor, Rules, SIZES, size_limit, violation as v};

/// One frame to be written: anything may be wrong with it.
#[derive(Clone, Debug)]
pub struct Frame {
    pub first_byte: u8,
    pub mask: Option<[u8; 4]>,
    /// 0: the 7-bit form, 1: 16 bits, 2: 64 bits. A form too short for the payload is lengthened.
    pub form: u8,
    pub payload: Vec<u8>,
    /// Written instead of the payload's length.
    pub claimed: Option<u64>,
}

impl Frame {
    pub fn new(first_byte: u8, payload: &[u8]) -> Self {
        Self { first_byte, mask: None, form: 0, payload: payload.to_vec(), claimed: None }
    }

    pub fn masked(mut self) -> Self {
        self.mask = Some([0x37, 0xFA, 0x21, 0x3D]);
        self
    }

    pub fn form(mut self, form: u8) -> Self {
        self.form = form;
        self
    }

    pub fn claiming(mut self, length: u64) -> Self {
        self.claimed = Some(length);
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let length = self.claimed.unwrap_or(self.payload.len() as u64);
        let least = match length {
            0..=125 => 0,
            126..=0xFFFF => 1,
            _ => 2,
        };
        let mask_bit = if self.mask.is_some() { 0x80 } else { 0 };
        let mut out = vec![self.first_byte];
        match self.form.max(least) {
            0 => out.push(mask_bit | length as u8),
            1 => {
                out.push(mask_bit | 126);
                out.extend((length as u16).to_be_bytes());
            }
            _ => {
                out.push(mask_bit | 127);
                out.extend(length.to_be_bytes());
            }
        }
        match self.mask {
            None => out.extend(&self.payload),
            Some(key) => {
                out.extend(key);
                out.extend(self.payload.iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k));
            }
        }
        out
    }
}

pub fn stream(frames: &[Frame]) -> Vec<u8> {
    frames.iter().flat_map(Frame::bytes).collect()
}

/// What the reference found; the cursor must say the same.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub counts: Counts,
    pub close_code: u16,
    pub violations: u16,
    pub payload_left: u64,
    pub in_message: u8,
    pub message_bytes: u64,
    pub between_frames: bool,
    pub header_bytes: Vec<u8>,
}

impl Summary {
    pub fn of_cursor(c: &FrameCursor) -> Self {
        Self {
            counts: c.counts,
            close_code: c.close_code,
            violations: c.violations,
            payload_left: c.payload_left,
            in_message: c.in_message,
            message_bytes: c.message_bytes,
            between_frames: c.at_boundary(),
            header_bytes: c.header[..c.header_have as usize].to_vec(),
        }
    }
}

/// The fields of one header, and how many bytes it takes.
struct Parsed {
    fin: bool,
    rsv: u8,
    opcode: u8,
    masked: bool,
    length: u64,
    minimal: bool,
    close_code: Option<[u8; 2]>,
    size: usize,
}

/// `None`: it does not end in these bytes.
fn parse_header(bytes: &[u8]) -> Option<Parsed> {
    let &[first, second, ..] = bytes else {
        return None;
    };
    let masked = second >= 0x80;
    let mut at = 2;
    let (length, minimal) = match second % 0x80 {
        126 => {
            let field = bytes.get(2..4)?;
            at = 4;
            let length = u16::from_be_bytes(field.try_into().unwrap());
            (u64::from(length), length >= 126)
        }
        127 => {
            let field = bytes.get(2..10)?;
            at = 10;
            let length = u64::from_be_bytes(field.try_into().unwrap());
            (length, length >= 0x1_0000)
        }
        short => (u64::from(short), true),
    };
    let mut key = [0; 4];
    if masked {
        key.copy_from_slice(bytes.get(at..at + 4)?);
        at += 4;
    }
    let opcode = first % 16;
    let mut close_code = None;
    if opcode == 8 && (2..126).contains(&(second % 0x80)) {
        let code = bytes.get(at..at + 2)?;
        close_code = Some([code[0] ^ key[0], code[1] ^ key[1]]);
        at += 2;
    }
    Some(Parsed {
        fin: first >= 0x80,
        rsv: first & 0b0111_0000,
        opcode,
        masked,
        length,
        minimal,
        close_code,
        size: at,
    })
}

fn code_is_valid(code: u16) -> bool {
    let registered = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014];
    registered.contains(&code) || (3000..5000).contains(&code)
}

fn judge(p: &Parsed, rules: Rules) -> Vec<u16> {
    let mut found = vec![];
    let mut check = |bad: bool, bit: u16| {
        if bad {
            found.push(bit);
        }
    };
    check(p.rsv & !rules.allowed_rsv != 0, v::RSV);
    check(matches!(p.opcode, 3..=7 | 11..=15), v::RESERVED_OPCODE);
    check(p.opcode >= 8 && !p.fin, v::CONTROL_FRAGMENTED);
    check(p.opcode >= 8 && p.length > 125, v::CONTROL_TOO_LONG);
    check(rules.must_be_masked == 0 && p.masked, v::MASKING);
    check(rules.must_be_masked == 1 && !p.masked, v::MASKING);
    check(!p.minimal, v::LENGTH_NOT_MINIMAL);
    check(p.length > i64::MAX as u64, v::LENGTH_TOP_BIT);
    check(p.opcode == 8 && p.length == 1, v::CLOSE_ONE_BYTE);
    check(rules.max_frame != 0 && p.length > rules.max_frame, v::FRAME_TOO_LONG);
    found
}

/// Parses `bytes` from the start of a stream.
pub fn reference(bytes: &[u8], rules: Rules) -> Summary {
    let mut sum = Summary::default();
    let mut rest = bytes;
    loop {
        if rest.is_empty() {
            sum.between_frames = true;
            return sum;
        }
        let Some(p) = parse_header(rest) else {
            sum.header_bytes = rest.to_vec();
            return sum;
        };
        for bit in judge(&p, rules) {
            sum.violations |= bit;
        }
        if p.length > i64::MAX as u64 {
            return sum;
        }
        sum.counts.frames += 1;
        let mut kind = 0;
        match (p.opcode, sum.in_message) {
            (0, 0) => sum.violations |= v::CONTINUATION_WITHOUT_START,
            (0, of) => kind = of,
            (of @ (1 | 2), inside) => {
                sum.violations |= if inside != 0 { v::DATA_INSIDE_MESSAGE } else { 0 };
                sum.message_bytes = 0;
                kind = of;
            }
            (8, _) => sum.counts.closes += 1,
            (9, _) => sum.counts.pings += 1,
            (10, _) => sum.counts.pongs += 1,
            _ => {}
        }
        if kind != 0 {
            let total = sum.message_bytes.saturating_add(p.length);
            if rules.max_message != 0 && total > rules.max_message {
                sum.violations |= v::MESSAGE_TOO_LONG;
            }
            if p.fin {
                *match kind {
                    1 => &mut sum.counts.text_messages,
                    _ => &mut sum.counts.binary_messages,
                } += 1;
                let limits = (0..SIZES).map(|class| size_limit(class).unwrap_or(u64::MAX));
                let class = limits.into_iter().position(|limit| total <= limit).unwrap();
                sum.counts.sizes[class] += 1;
            }
            sum.in_message = if p.fin { 0 } else { kind };
            sum.message_bytes = if p.fin { 0 } else { total };
        }
        let counted = match kind {
            1 => &mut sum.counts.text_bytes,
            2 => &mut sum.counts.binary_bytes,
            _ => &mut sum.counts.other_bytes,
        };
        let mut left = p.length;
        if let Some(code) = p.close_code.map(u16::from_be_bytes) {
            *counted += 2;
            left -= 2;
            sum.violations |= if code_is_valid(code) { 0 } else { v::CLOSE_CODE_INVALID };
            if sum.close_code == 0 {
                sum.close_code = code;
            }
        }
        rest = &rest[p.size..];
        let here = left.min(rest.len() as u64);
        *counted += here;
        if here < left {
            sum.payload_left = left - here;
            return sum;
        }
        rest = &rest[here as usize..];
    }
}
