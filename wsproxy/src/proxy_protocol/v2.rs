//! The binary format (section 2.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::tlv;
use super::{Header, MAX_V2_BYTES, Progress, ProxyError};

pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2 and LOCAL, in the 13th byte.
pub(super) const LOCAL: u8 = 0x20;
/// Version 2 and PROXY, in the 13th byte.
pub(super) const PROXY: u8 = 0x21;
/// The 14th byte.
pub(super) const UNSPEC: u8 = 0x00;
/// The 14th byte.
pub(super) const TCP4: u8 = 0x11;
/// The 14th byte.
pub(super) const TCP6: u8 = 0x21;

/// The signature, the version and command, the family, and the length.
const FIXED_BYTES: usize = 16;

/// What stands in front of the TLVs.
enum Addresses {
    /// Not said: the whole block is ignored.
    Unspecified,
    /// Nothing that a TCP connection can have (UDP, or UNIX sockets): so many
    /// bytes are ignored.
    Ignored(usize),
    Ip4,
    Ip6,
}

impl Addresses {
    fn from_byte(family: u8) -> Result<Self, ProxyError> {
        match (family >> 4, family & 0x0f) {
            (4.., _) | (_, 3..) => Err(ProxyError::Family { family }),
            (0, _) | (_, 0) => Ok(Self::Unspecified),
            (1, 1) => Ok(Self::Ip4),
            (2, 1) => Ok(Self::Ip6),
            (1, _) => Ok(Self::Ignored(12)),
            (2, _) => Ok(Self::Ignored(36)),
            (3, _) => Ok(Self::Ignored(216)),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Unspecified => 0,
            Self::Ignored(bytes) => *bytes,
            Self::Ip4 => 12,
            Self::Ip6 => 36,
        }
    }
}

/// Reads a header that begins with the signature. Each byte is judged as soon
/// as it is there; addresses and TLVs when all of them are.
pub(super) fn parse(buffer: &[u8]) -> Result<Progress<Header>, ProxyError> {
    let mut fixed = buffer.iter().skip(SIGNATURE.len());
    let Some(local) = fixed.next().map(|byte| is_local(*byte)).transpose()? else {
        return Ok(Progress::Partial);
    };
    let Some(family) = fixed.next() else { return Ok(Progress::Partial) };
    // A LOCAL header's family and block are ignored, whatever they are.
    let addresses = if local { Addresses::Unspecified } else { Addresses::from_byte(*family)? };
    let (Some(high), Some(low)) = (fixed.next(), fixed.next()) else {
        return Ok(Progress::Partial);
    };
    let announced = u16::from_be_bytes([*high, *low]);
    let consumed = FIXED_BYTES + usize::from(announced);
    if consumed > MAX_V2_BYTES {
        return Err(ProxyError::TooLong { announced });
    }
    if usize::from(announced) < addresses.len() {
        return Err(ProxyError::TooShort { announced });
    }
    let Some(header) = buffer.get(..consumed) else { return Ok(Progress::Partial) };
    Ok(Progress::Done { value: block(header, &addresses)?, consumed })
}

fn is_local(byte: u8) -> Result<bool, ProxyError> {
    match (byte >> 4, byte) {
        (_, LOCAL) => Ok(true),
        (_, PROXY) => Ok(false),
        (2, _) => Err(ProxyError::Command { command: byte & 0x0f }),
        (version, _) => Err(ProxyError::Version { version }),
    }
}

/// Reads what follows the length in a complete header.
fn block(header: &[u8], addresses: &Addresses) -> Result<Header, ProxyError> {
    let mut value = Header::default();
    let (source, destination) = match addresses {
        Addresses::Unspecified => return Ok(value),
        Addresses::Ignored(_) => (None, None),
        Addresses::Ip4 => sockets(header, |bytes: [u8; 4]| Ipv4Addr::from(bytes).into()),
        Addresses::Ip6 => sockets(header, |bytes: [u8; 16]| Ipv6Addr::from(bytes).to_canonical()),
    };
    value.source = source;
    value.destination = destination;
    tlv::read(header, FIXED_BYTES + addresses.len(), &mut value)?;
    Ok(value)
}

/// The addresses of both ends, then their ports.
fn sockets<const BYTES: usize>(
    header: &[u8],
    ip: fn([u8; BYTES]) -> IpAddr,
) -> (Option<SocketAddr>, Option<SocketAddr>) {
    let socket = |place: usize| {
        let address = array(header, FIXED_BYTES + place * BYTES)?;
        let port = array(header, FIXED_BYTES + 2 * BYTES + place * 2)?;
        Some(SocketAddr::new(ip(address), u16::from_be_bytes(port)))
    };
    (socket(0), socket(1))
}

fn array<const BYTES: usize>(bytes: &[u8], at: usize) -> Option<[u8; BYTES]> {
    bytes.get(at..)?.first_chunk().copied()
}
