//! Frames (RFC 6455 section 5): masked ones to the server, unmasked ones from
//! it. A frame may be of any length; only its start is kept.

/// The most bytes of a frame or message that are kept.
pub(super) const KEPT_BYTES: usize = 4 * 1024;
/// The most bytes of a control frame (RFC 6455 section 5.5).
pub(super) const MAX_CONTROL_BYTES: usize = 125;

/// What a frame is (RFC 6455 section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    const ALL: [(u8, Self); 6] = [
        (0x0, Self::Continuation),
        (0x1, Self::Text),
        (0x2, Self::Binary),
        (0x8, Self::Close),
        (0x9, Self::Ping),
        (0xa, Self::Pong),
    ];

    fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    fn bits(self) -> u8 {
        Self::ALL.iter().find(|(_, opcode)| *opcode == self).map_or(0, |(bits, _)| *bits)
    }

    fn from_bits(bits: u8) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == bits).map(|(_, opcode)| *opcode)
    }
}

/// What the server got wrong about its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameFault {
    /// A server must not mask (RFC 6455 section 5.1).
    Masked,
    /// RSV bits without an extension (RFC 6455 section 5.2).
    Reserved,
    /// An opcode that is not assigned (RFC 6455 section 5.2).
    Opcode(u8),
    /// A control frame in fragments or of more than [`MAX_CONTROL_BYTES`] (RFC
    /// 6455 section 5.5).
    Control,
    /// A length in more bytes than it takes, or of 2^63 and more (RFC 6455
    /// section 5.2).
    Length,
    /// A continuation of nothing, or a new message within one (RFC 6455 section
    /// 5.4).
    Order,
    /// A close frame with one byte, or with a code that must not be sent (RFC
    /// 6455 sections 5.5.1 and 7.4).
    Close,
}

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) fin: bool,
    pub(super) opcode: Opcode,
    /// The length of the payload in bytes.
    pub(super) len: u64,
    /// The first [`KEPT_BYTES`] of it.
    pub(super) payload: Vec<u8>,
}

/// A whole message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) text: bool,
    pub(super) frames: u64,
    /// In bytes.
    pub(super) len: u64,
    /// The first [`KEPT_BYTES`] of it.
    pub(super) payload: Vec<u8>,
}

/// A frame for the server. Every frame needs a fresh mask (RFC 6455 section
/// 5.3).
pub(super) fn encode(opcode: Opcode, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode.bits()];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(len), _) if len < 126 => frame.push(0x80 | len),
        (_, Ok(len)) => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&len.to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The payload of a close frame (RFC 6455 section 5.5.1).
pub(super) fn close_payload(code: u16) -> [u8; 2] {
    code.to_be_bytes()
}

/// Code and reason of a close frame; no code where it has no payload.
pub(super) fn read_close(payload: &[u8]) -> Result<(Option<u16>, &[u8]), FrameFault> {
    match payload {
        [] => Ok((None, payload)),
        [high, low, reason @ ..] => match u16::from_be_bytes([*high, *low]) {
            // RFC 6455 sections 7.4.1 and 7.4.2.
            0..=999 | 1004..=1006 | 1015..=2999 | 5000.. => Err(FrameFault::Close),
            code => Ok((Some(code), reason)),
        },
        [_] => Err(FrameFault::Close),
    }
}

/// Cuts the server's bytes into frames.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// The frame under way, and how much of its payload is still to come.
    current: Option<(Frame, u64)>,
}

impl Decoder {
    /// The next whole frame. What it takes leaves `input`; `None` while more
    /// must come.
    pub(super) fn next(&mut self, input: &mut Vec<u8>) -> Result<Option<Frame>, FrameFault> {
        let (mut frame, left) = match self.current.take() {
            Some(current) => current,
            None => match header(input)? {
                None => return Ok(None),
                Some((frame, len)) => {
                    input.drain(..len);
                    let left = frame.len;
                    (frame, left)
                }
            },
        };
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        let keep = take.min(KEPT_BYTES - frame.payload.len());
        frame.payload.extend_from_slice(&input[..keep]);
        input.drain(..take);
        match left - take as u64 {
            0 => Ok(Some(frame)),
            left => {
                self.current = Some((frame, left));
                Ok(None)
            }
        }
    }
}

/// The header at the start of `input` and its length.
fn header(input: &[u8]) -> Result<Option<(Frame, usize)>, FrameFault> {
    let Some(&first) = input.first() else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(FrameFault::Reserved);
    }
    let bits = first & 0x0f;
    let opcode = Opcode::from_bits(bits).ok_or(FrameFault::Opcode(bits))?;
    let fin = first & 0x80 != 0;
    let Some(&second) = input.get(1) else { return Ok(None) };
    if second & 0x80 != 0 {
        return Err(FrameFault::Masked);
    }
    if opcode.is_control() && (!fin || usize::from(second) > MAX_CONTROL_BYTES) {
        return Err(FrameFault::Control);
    }
    let (len, least, end) = match second {
        126 => match input.get(2..4) {
            Some(&[a, b]) => (u64::from(u16::from_be_bytes([a, b])), 126, 4),
            _ => return Ok(None),
        },
        127 => match input.get(2..10).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok()) {
            Some(bytes) => (u64::from_be_bytes(bytes), 1 << 16, 10),
            None => return Ok(None),
        },
        short => (u64::from(short), 0, 2),
    };
    if len < least || len > i64::MAX as u64 {
        return Err(FrameFault::Length);
    }
    Ok(Some((Frame { fin, opcode, len, payload: Vec::new() }, end)))
}

/// Joins data frames to messages (RFC 6455 section 5.4).
#[derive(Debug, Default)]
pub(super) struct Joiner {
    current: Option<Message>,
}

impl Joiner {
    /// Takes a data frame; the message if this was its last one.
    pub(super) fn push(&mut self, frame: Frame) -> Result<Option<Message>, FrameFault> {
        let mut message = match (self.current.take(), frame.opcode) {
            (None, Opcode::Text | Opcode::Binary) => {
                let text = frame.opcode == Opcode::Text;
                Message { text, frames: 0, len: 0, payload: Vec::new() }
            }
            (Some(message), Opcode::Continuation) => message,
            _ => return Err(FrameFault::Order),
        };
        message.frames += 1;
        message.len = message.len.saturating_add(frame.len);
        let room = KEPT_BYTES - message.payload.len();
        message.payload.extend_from_slice(&frame.payload[..frame.payload.len().min(room)]);
        if frame.fin {
            return Ok(Some(message));
        }
        self.current = Some(message);
        Ok(None)
    }
}

#[cfg(test)]
#[path = "tests/frame.rs"]
mod tests;
