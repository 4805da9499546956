//! WebSocket frames as a client and a server would see them: an own small reader and writer,
//! which shares nothing with the frame cursor.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use wsproxy::datapath::SessionEnd;

use crate::sessions::Dice;

/// A frame that came, unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// FIN, RSV bits and opcode.
    pub first: u8,
    /// It had a mask.
    pub masked: bool,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// 9 for a Ping, and so on.
    #[must_use]
    pub fn opcode(&self) -> u8 {
        self.first & 0x0F
    }

    /// Code and reason of a Close.
    #[must_use]
    pub fn close(&self) -> Option<(u16, String)> {
        if self.opcode() != 8 {
            return None;
        }
        let (code, reason) = self.payload.split_at_checked(2)?;
        let code = u16::from_be_bytes([code[0], code[1]]);
        Some((code, String::from_utf8_lossy(reason).into_owned()))
    }
}

/// A frame as bytes, masked or not, in the shortest form.
#[must_use]
pub fn frame(first: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
    let mask_bit = if masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..=125 => bytes.push(mask_bit | len as u8),
        len @ 126..=0xFFFF => {
            bytes.push(mask_bit | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(mask_bit | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    if masked {
        let key = [0x5A, 0x00, 0xC3, 0x11];
        bytes.extend(key);
        bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    } else {
        bytes.extend(payload);
    }
    bytes
}

/// A Close as bytes.
#[must_use]
pub fn close(masked: bool, code: u16, reason: &str) -> Vec<u8> {
    frame(0x88, masked, &[&code.to_be_bytes()[..], reason.as_bytes()].concat())
}

/// What was sent, to be compared with what was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Frames of any kind.
    pub frames: u64,
    /// Text messages.
    pub texts: u64,
    /// Binary messages.
    pub binaries: u64,
    /// Payload of text messages, in bytes.
    pub text_bytes: u64,
    /// Payload of binary messages, in bytes.
    pub binary_bytes: u64,
    /// Payload of control frames, in bytes.
    pub control_bytes: u64,
    /// Ping frames.
    pub pings: u64,
    /// Pong frames.
    pub pongs: u64,
}

/// Random frames of a side that keeps the rules: messages whole or in fragments, control frames
/// between them and inside them.
pub struct Talk {
    dice: Dice,
    masked: bool,
    most: usize,
    /// What was taken.
    pub sent: Sent,
}

impl Talk {
    /// Frames with payloads of up to `most` bytes.
    #[must_use]
    pub fn new(seed: u64, masked: bool, most: usize) -> Self {
        Self { dice: Dice::new(seed), masked, most, sent: Sent::default() }
    }

    /// Whether its frames are masked.
    #[must_use]
    pub fn is_masked(&self) -> bool {
        self.masked
    }

    fn control(&mut self, out: &mut Vec<u8>) {
        let ping = self.dice.below(2) == 0;
        // Never 8 bytes: that is how tests know a Ping of the gateway.
        let payload = vec![b'c'; [0, 3, 9, 125][self.dice.below(4) as usize]];
        out.extend(frame(if ping { 0x89 } else { 0x8A }, self.masked, &payload));
        self.sent.frames += 1;
        self.sent.control_bytes += payload.len() as u64;
        *if ping { &mut self.sent.pings } else { &mut self.sent.pongs } += 1;
    }

    /// The next message, and perhaps control frames.
    pub fn message(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let text = self.dice.below(2) == 0;
        let fragments = if self.dice.below(4) == 0 { 1 + self.dice.below(4) } else { 1 };
        for nth in 0..fragments {
            if self.dice.below(8) == 0 {
                self.control(&mut out);
            }
            let len = self.dice.size(self.most);
            let payload: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let opcode = match (nth, text) {
                (0, true) => 1,
                (0, false) => 2,
                _ => 0,
            };
            let fin = if nth + 1 == fragments { 0x80 } else { 0 };
            out.extend(frame(fin | opcode, self.masked, &payload));
            self.sent.frames += 1;
            let bytes = len as u64;
            *if text { &mut self.sent.text_bytes } else { &mut self.sent.binary_bytes } += bytes;
        }
        *if text { &mut self.sent.texts } else { &mut self.sent.binaries } += 1;
        out
    }
}

/// Reads frames from a socket, strictly: everything that RFC 6455 forbids is a panic.
pub struct Reader {
    socket: TcpStream,
    /// Whether frames must be masked.
    masked: bool,
    bytes: Vec<u8>,
    in_message: bool,
    closed: bool,
}

impl Reader {
    /// The frames that come to this socket: masked ones if it is a server's.
    #[must_use]
    pub fn new(socket: &TcpStream, masked: bool) -> Self {
        let socket = socket.try_clone().unwrap();
        Self { socket, masked, bytes: Vec::new(), in_message: false, closed: false }
    }

    /// The next frame; `None`: the end of the stream.
    ///
    /// # Panics
    /// Where a rule is broken, the stream ends inside a frame, or nothing comes for 20 s.
    pub fn frame(&mut self) -> Option<Frame> {
        self.frame_within(Duration::from_secs(20)).expect("a frame in time")
    }

    /// As [`Self::frame`]; outer `None`: nothing came in time.
    pub fn frame_within(&mut self, patience: Duration) -> Option<Option<Frame>> {
        let end = Instant::now() + patience;
        loop {
            if let Some((frame, len)) = parse(&self.bytes) {
                self.bytes.drain(..len);
                self.judge(&frame);
                return Some(Some(frame));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.socket.set_read_timeout(Some(left)).unwrap();
            let mut piece = [0; 16 * 1024];
            match self.socket.read(&mut piece) {
                Ok(0) => {
                    assert!(self.bytes.is_empty(), "the stream ends inside a frame");
                    return Some(None);
                }
                Ok(n) => self.bytes.extend(&piece[..n]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(e) => panic!("reading: {e}"),
            }
        }
    }

    /// Whether the stream ends now in a reset.
    pub fn is_reset(&mut self) -> bool {
        self.socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let read = self.socket.read(&mut [0; 1024]);
        matches!(read, Err(e) if e.kind() == ErrorKind::ConnectionReset)
    }

    fn judge(&mut self, frame: &Frame) {
        assert!(!self.closed, "{frame:?} behind a Close");
        assert_eq!(frame.masked, self.masked, "the mask of {frame:?}");
        assert_eq!(frame.first & 0x70, 0, "RSV bits of {frame:?}");
        let fin = frame.first & 0x80 != 0;
        match frame.opcode() {
            0 => assert!(self.in_message, "a continuation of nothing"),
            1 | 2 => assert!(!self.in_message, "a message inside another"),
            8..=10 => assert!(fin && frame.payload.len() <= 125, "{frame:?}"),
            other => panic!("opcode {other}"),
        }
        if frame.opcode() < 8 {
            self.in_message = !fin;
        }
        self.closed = frame.opcode() == 8;
    }
}

/// The frame at the front, and its length; `None`: it does not end in these bytes.
fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (len, mut at) = match second & 0x7F {
        126 => (u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?), 10),
        short => (u64::from(short), 2),
    };
    let masked = second & 0x80 != 0;
    let key: [u8; 4] = if masked { bytes.get(at..at + 4)?.try_into().ok()? } else { [0; 4] };
    at += if masked { 4 } else { 0 };
    let end = at + usize::try_from(len).ok()?;
    let body = bytes.get(at..end)?;
    let payload = body.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    Some((Frame { first, masked, payload }, end))
}

/// What the cursor of a direction has counted; 0 is the client's.
///
/// # Panics
/// When its frames were not followed.
#[must_use]
pub fn counted(end: &SessionEnd, direction: usize) -> Sent {
    let counts = end.counts.expect("frames are followed")[direction];
    Sent {
        frames: counts.frames,
        texts: counts.text_messages,
        binaries: counts.binary_messages,
        text_bytes: counts.text_bytes,
        binary_bytes: counts.binary_bytes,
        control_bytes: counts.other_bytes,
        pings: counts.pings,
        pongs: counts.pongs,
    }
}

/// Writes in pieces of random sizes.
pub fn write_in_pieces(mut to: &TcpStream, bytes: &[u8], dice: &mut Dice, most: usize) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(dice.size(most).min(rest.len()));
        to.write_all(piece).unwrap();
        rest = later;
    }
}
