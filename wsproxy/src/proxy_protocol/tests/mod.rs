//! Headers that are right, headers that are wrong, and how they arrive.

use super::*;

mod properties;
mod tables;

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn addresses(source: &str, destination: &str) -> Header {
    Header {
        source: Some(socket(source)),
        destination: Some(socket(destination)),
        ..Header::default()
    }
}

/// A header of version 2 with a right length.
fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let len = u16::try_from(block.len()).unwrap().to_be_bytes();
    [v2::SIGNATURE, &[command, family], &len, block].concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[kind], &len[..], value].concat()
}

/// 192.0.2.1:4660 to 198.51.100.2:443.
const IP4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 2, 0x12, 0x34, 1, 0xbb];

fn ip4() -> Header {
    addresses("192.0.2.1:4660", "198.51.100.2:443")
}

/// 2001:db8::1 port 4660 to 2001:db8::2 port 443.
fn ip6_block() -> Vec<u8> {
    let mut block = [0; 36];
    block[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
    block[15] = 1;
    block[16..20].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
    block[31] = 2;
    block[32..].copy_from_slice(&[0x12, 0x34, 1, 0xbb]);
    block.to_vec()
}

/// The verdict on `bytes`, the same however they are split.
fn verdict(bytes: &[u8]) -> Result<Progress<Header>, ProxyError> {
    let whole = parse(bytes);
    for cut in 0..bytes.len() {
        let part = parse(&bytes[..cut]);
        let same = part == Ok(Progress::Partial) || part == whole;
        assert!(same, "{} at {cut}: {part:?}, then {whole:?}", bytes.escape_ascii());
    }
    if whole != Ok(Progress::Partial) {
        for more in [&b"\0"[..], b"\n", b"\r\n", b"GET / HTTP/1.1\r\n\r\n", &[b'x'; 2000]] {
            assert_eq!(parse(&[bytes, more].concat()), whole, "{}", bytes.escape_ascii());
        }
    }
    whole
}

/// A header that is complete with its last byte and not before.
fn read(bytes: &[u8]) -> Header {
    match verdict(bytes) {
        Ok(Progress::Done { value, consumed }) => {
            assert_eq!(consumed, bytes.len(), "{}", bytes.escape_ascii());
            assert_eq!(parse(&bytes[..consumed - 1]), Ok(Progress::Partial));
            value
        }
        other => panic!("{}: {other:?}", bytes.escape_ascii()),
    }
}
