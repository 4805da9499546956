//! WebSocket frames as the two ends of a session see them (RFC 6455 section 5.2): an own small
//! reader and writer, which shares nothing with the program.

use super::Peer;

/// First byte of a text message in one frame.
pub const TEXT: u8 = 0x81;
/// First byte of a binary message in one frame.
pub const BINARY_MESSAGE: u8 = 0x82;
/// First byte of a Close.
pub const CLOSE: u8 = 0x88;
/// First byte of a Ping.
pub const PING: u8 = 0x89;
/// First byte of a Pong.
pub const PONG: u8 = 0x8A;

/// Frames from a client are masked, those to it are not (section 5.1).
pub const FROM_CLIENT: bool = true;
/// See [`FROM_CLIENT`].
pub const FROM_SERVER: bool = false;

/// A frame that came, unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// FIN, RSV bits and opcode.
    pub first: u8,
    pub masked: bool,
    pub payload: Vec<u8>,
}

/// A frame as bytes, in the shortest form.
pub fn frame(first: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
    let mask_bit = u8::from(masked) << 7;
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
    let key = if masked { [0x5A, 0x00, 0xC3, 0x11] } else { [0; 4] };
    if masked {
        bytes.extend(key);
    }
    bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// A Close as bytes (section 5.5.1).
pub fn close(masked: bool, code: u16, reason: &str) -> Vec<u8> {
    frame(CLOSE, masked, &[&code.to_be_bytes()[..], reason.as_bytes()].concat())
}

/// One end of a session, whatever carries its bytes.
pub trait Frames {
    fn send(&mut self, bytes: &[u8]);

    /// The next `n` bytes.
    fn take(&mut self, n: usize) -> Vec<u8>;

    /// Everything up to an orderly end.
    fn rest(&mut self) -> Vec<u8>;

    /// The next frame.
    fn frame(&mut self) -> Frame {
        let head = self.take(2);
        let (first, second) = (head[0], head[1]);
        let length = match second & 0x7F {
            126 => usize::from(u16::from_be_bytes(self.take(2).try_into().unwrap())),
            127 => u64::from_be_bytes(self.take(8).try_into().unwrap()) as usize,
            short => usize::from(short),
        };
        let masked = second & 0x80 != 0;
        let key = if masked { self.take(4) } else { vec![0; 4] };
        let payload = self.take(length);
        let payload = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key);
        Frame { first, masked, payload: payload.collect() }
    }

    /// Panics unless the next frame is this one, sent by such a side.
    fn expect_frame(&mut self, first: u8, masked: bool, payload: &[u8]) {
        let found = self.frame();
        assert_eq!((found.first, found.masked), (first, masked), "{found:?}");
        assert!(found.payload == payload, "{}", found.payload.escape_ascii());
    }

    /// Panics unless a Close of the program's comes next; to a server it is masked.
    fn expect_close(&mut self, masked: bool, code: u16, reason: &str) {
        self.expect_frame(CLOSE, masked, &[&code.to_be_bytes()[..], reason.as_bytes()].concat());
    }
}

impl Frames for Peer {
    fn send(&mut self, bytes: &[u8]) {
        Peer::send(self, bytes);
    }

    fn take(&mut self, n: usize) -> Vec<u8> {
        Peer::take(self, n)
    }

    fn rest(&mut self) -> Vec<u8> {
        Peer::rest(self)
    }
}

/// Both ends of a session are told so by a Close frame of the program's, answer it, and get their
/// end behind it (section 5.5.1, section 7.1.1).
pub fn parted(client: &mut impl Frames, server: &mut impl Frames, code: u16, reason: &str) {
    client.expect_close(FROM_SERVER, code, reason);
    server.expect_close(FROM_CLIENT, code, reason);
    client.send(&close(FROM_CLIENT, code, ""));
    server.send(&close(FROM_SERVER, code, ""));
    // Nobody's answer goes to the other side.
    assert_eq!((client.rest(), server.rest()), (Vec::new(), Vec::new()));
}
