//! Control frames of our own (RFC 6455 section 5.5), as bytes.

/// Payload of our Pings, in bytes.
pub const PING_PAYLOAD: usize = 8;
/// Longest reason of a Close, in bytes (section 5.5: 125 bytes of payload, two of them the code).
pub const MOST_REASON: usize = 123;

const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const MASKED: u8 = 0x80;

/// Key of a frame to a server (section 5.3); frames to a client have none.
pub type Mask = Option<[u8; 4]>;

/// A Ping.
#[must_use]
pub fn ping(payload: [u8; PING_PAYLOAD], mask: Mask) -> Vec<u8> {
    frame(PING, &payload, mask)
}

/// A Close. A reason that is too long is cut, between two characters.
#[must_use]
pub fn close(code: u16, reason: &str, mask: Mask) -> Vec<u8> {
    let end = (0..=reason.len().min(MOST_REASON)).rev().find(|at| reason.is_char_boundary(*at));
    let reason = &reason.as_bytes()[..end.unwrap_or_default()];
    frame(CLOSE, &[&code.to_be_bytes()[..], reason].concat(), mask)
}

/// `payload` has at most 125 bytes.
fn frame(first: u8, payload: &[u8], mask: Mask) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 + 4 + payload.len());
    bytes.push(first);
    let length = payload.len() as u8;
    match mask {
        None => {
            bytes.push(length);
            bytes.extend(payload);
        }
        Some(key) => {
            bytes.push(MASKED | length);
            bytes.extend(key);
            bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_as_the_rfc_has_them() {
        assert_eq!(ping(*b"12345678", None), b"\x89\x0812345678");
        assert_eq!(
            ping([1; 8], Some([1, 2, 3, 4])),
            b"\x89\x88\x01\x02\x03\x04\x00\x03\x02\x05\x00\x03\x02\x05"
        );
        assert_eq!(close(1001, "bye", None), b"\x88\x05\x03\xe9bye");
        assert_eq!(close(1014, "", None), b"\x88\x02\x03\xf6");
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let frame = close(1000, &"é".repeat(100), None);
        assert_eq!(frame.len(), 2 + 2 + 122);
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
    }
}
