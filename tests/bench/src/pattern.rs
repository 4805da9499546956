//! Frames prepared once and sent many times: all messages of a size differ in
//! eight bytes, so that building and checking one costs next to nothing.

/// The mask of every client frame here (RFC 6455, section 5.3, wants it
/// unpredictable; a load generator may do without).
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Where the number lies in the payload; it takes the first eight bytes.
const NUMBER_BYTES: usize = 8;

/// Smallest payload: the number and something to tell shifted bytes by.
pub const LEAST_PAYLOAD: usize = 16;

/// A binary frame of a fixed size whose payload begins with a number.
#[derive(Clone, Debug)]
pub struct Pattern {
    frame: Vec<u8>,
    number_at: usize,
    number: u64,
    masked: bool,
}

impl Pattern {
    /// As a client sends it.
    #[must_use]
    pub fn masked(payload: usize) -> Self {
        Self::new(payload, true)
    }

    /// As a server sends it.
    #[must_use]
    pub fn plain(payload: usize) -> Self {
        Self::new(payload, false)
    }

    fn new(payload: usize, masked: bool) -> Self {
        let payload = payload.max(LEAST_PAYLOAD);
        let mut frame = head(0x82, payload as u64, masked);
        if masked {
            frame.extend(KEY);
        }
        let number_at = frame.len();
        frame.resize(number_at + NUMBER_BYTES, 0);
        for at in NUMBER_BYTES..payload {
            // Not periodic in a power of two, so that no shift goes unseen.
            let byte = (at % 251) as u8;
            frame.push(if masked { byte ^ KEY[at % 4] } else { byte });
        }
        let mut pattern = Self { frame, number_at, number: !0, masked };
        pattern.set(0);
        pattern
    }

    /// Bytes of the whole frame.
    #[must_use]
    pub fn size(&self) -> usize {
        self.frame.len()
    }

    /// Bytes of the payload.
    #[must_use]
    pub fn payload(&self) -> usize {
        self.frame.len() - self.number_at
    }

    /// The frame with this number.
    pub fn set(&mut self, number: u64) -> &[u8] {
        if self.number != number {
            self.number = number;
            let mut bytes = number.to_be_bytes();
            if self.masked {
                for (byte, key) in bytes.iter_mut().zip(KEY.iter().cycle()) {
                    *byte ^= key;
                }
            }
            self.frame[self.number_at..][..NUMBER_BYTES].copy_from_slice(&bytes);
        }
        &self.frame
    }
}

/// A frame's header without the key.
#[must_use]
pub fn head(first: u8, payload: u64, masked: bool) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    let mut head = vec![first];
    match payload {
        0..126 => head.push(mask | payload as u8),
        126..65536 => {
            head.push(mask | 126);
            head.extend((payload as u16).to_be_bytes());
        }
        _ => {
            head.push(mask | 127);
            head.extend(payload.to_be_bytes());
        }
    }
    head
}

/// An answer was not what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Number of the frame that was expected.
    pub number: u64,
    /// Offset in the frame of the first wrong byte.
    pub at: usize,
}

/// How far the incoming frames were checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checked {
    /// Bytes of the current frame that were right.
    at: usize,
    /// Number that the current frame must have.
    pub number: u64,
}

impl Checked {
    /// Begins with this number.
    #[must_use]
    pub fn from(number: u64) -> Self {
        Self { at: 0, number }
    }

    /// Compares what came with the frames it must be, numbered upwards; says
    /// how many ended.
    ///
    /// # Errors
    /// The first byte that differs.
    pub fn feed(&mut self, pattern: &mut Pattern, mut data: &[u8]) -> Result<u64, Mismatch> {
        let mut ended = 0;
        while !data.is_empty() {
            let rest = &pattern.set(self.number)[self.at..];
            let length = rest.len().min(data.len());
            if data[..length] != rest[..length] {
                let same = data.iter().zip(rest).take_while(|(a, b)| a == b).count();
                return Err(Mismatch { number: self.number, at: self.at + same });
            }
            data = &data[length..];
            self.at += length;
            if length == rest.len() {
                self.at = 0;
                self.number += 1;
                ended += 1;
            }
        }
        Ok(ended)
    }
}

/// Takes client frames apart and answers each with the same payload.
#[derive(Clone, Debug, Default)]
pub struct Echo {
    head: [u8; 14],
    have: usize,
    left: u64,
    key: [u8; 4],
    opcode: u8,
}

/// What a client's bytes asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Echoed {
    /// Frames that ended.
    pub frames: u64,
    /// A Close frame ended: answer and close.
    pub closed: bool,
}

impl Echo {
    /// Unmasks `data` in place and appends the answer to `out`. A Close frame is
    /// answered with an empty one.
    ///
    /// # Errors
    /// A frame without a mask.
    pub fn feed(&mut self, data: &mut [u8], out: &mut Vec<u8>) -> Result<Echoed, &'static str> {
        let mut echoed = Echoed::default();
        let mut at = 0;
        while at < data.len() {
            if self.left == 0 {
                self.head[self.have] = data[at];
                self.have += 1;
                at += 1;
                if !self.head_is_whole()? {
                    continue;
                }
                self.begin(out);
            } else {
                let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(data.len() - at);
                let piece = &mut data[at..][..length];
                unmask(piece, self.key);
                self.key.rotate_left(length % 4);
                if self.opcode != 8 {
                    out.extend_from_slice(piece);
                }
                at += length;
                self.left -= length as u64;
            }
            if self.left == 0 && self.have == 0 {
                echoed.frames += 1;
                echoed.closed |= self.opcode == 8;
            }
        }
        Ok(echoed)
    }

    fn head_is_whole(&self) -> Result<bool, &'static str> {
        if self.have < 2 {
            return Ok(false);
        }
        if self.head[1] & 0x80 == 0 {
            return Err("a client's frame without a mask");
        }
        Ok(self.have == self.head_size())
    }

    fn head_size(&self) -> usize {
        6 + match self.head[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        }
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        let size = self.head_size();
        let mut long = [0; 8];
        long[8 - (size - 6)..].copy_from_slice(&self.head[2..size - 4]);
        self.left = match size {
            6 => u64::from(self.head[1] & 0x7f),
            _ => u64::from_be_bytes(long),
        };
        self.key.copy_from_slice(&self.head[size - 4..size]);
        self.opcode = self.head[0] & 0xf;
        // A Ping is answered with a Pong.
        let first = if self.opcode == 9 { self.head[0] + 1 } else { self.head[0] };
        let length = if self.opcode == 8 { 0 } else { self.left };
        out.extend(head(first, length, false));
        self.have = 0;
    }
}

fn unmask(data: &mut [u8], key: [u8; 4]) {
    let wide = u64::from_ne_bytes([key, key].concat().try_into().unwrap_or_default());
    let mut chunks = data.chunks_exact_mut(8);
    for chunk in &mut chunks {
        if let Ok(eight) = <&mut [u8; 8]>::try_from(chunk) {
            *eight = (u64::from_ne_bytes(*eight) ^ wide).to_ne_bytes();
        }
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_echoed_is_the_plain_frame_however_it_is_split() {
        for payload in [16, 64, 125, 126, 1000, 65535, 65536, 70_000] {
            let mut sent = Pattern::masked(payload);
            let mut expected = Pattern::plain(payload);
            for step in [1, 3, 7, 4096, 1 << 20] {
                let mut input = [sent.set(5), &[]].concat();
                input.extend_from_slice(sent.set(6));
                let mut echo = Echo::default();
                let mut checked = Checked::from(5);
                let mut frames = 0;
                for piece in input.chunks_mut(step) {
                    let mut out = Vec::new();
                    frames += echo.feed(piece, &mut out).expect("masked").frames;
                    checked.feed(&mut expected, &out).expect("the same");
                }
                assert_eq!((frames, checked.number), (2, 7), "{payload} by {step}");
            }
        }
    }

    #[test]
    fn a_changed_lost_or_repeated_byte_is_found() {
        let mut pattern = Pattern::plain(64);
        let frame = pattern.set(1).to_vec();
        let mut changed = frame.clone();
        changed[40] ^= 1;
        let found = Checked::from(1).feed(&mut pattern, &changed);
        assert_eq!(found, Err(Mismatch { number: 1, at: 40 }));
        let mut lost = frame.clone();
        lost.remove(30);
        assert!(Checked::from(1).feed(&mut pattern, &lost).is_err());
        let twice = [frame.clone(), frame].concat();
        assert!(Checked::from(1).feed(&mut pattern, &twice).is_err());
    }

    #[test]
    fn close_is_answered_with_close() {
        let mut out = Vec::new();
        let mut close = [0x88, 0x82, 1, 2, 3, 4, 3 ^ 1, 0xe8 ^ 2];
        let echoed = Echo::default().feed(&mut close, &mut out);
        assert_eq!(echoed, Ok(Echoed { frames: 1, closed: true }));
        assert_eq!(out, [0x88, 0]);
    }

    #[test]
    fn an_unmasked_frame_is_refused() {
        assert!(Echo::default().feed(&mut [0x82, 1, 2], &mut Vec::new()).is_err());
    }
}
