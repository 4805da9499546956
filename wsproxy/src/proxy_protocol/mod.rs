//! The PROXY protocol, versions 1 and 2, as pure functions: bytes in, a header
//! out, and back. Section numbers are those of HAProxy's
//! `doc/proxy-protocol.txt`.
//!
//! [`parse`] is for connections from a proxy that is known to speak the
//! protocol (section 2: a receiver must not guess). It sees everything that
//! was received so far and is asked again with a longer buffer while the
//! answer is [`Progress::Partial`]. [`write_v1`] and [`write_v2`] make the
//! header for a connection to a server.

use std::net::SocketAddr;

mod tlv;
mod v1;
mod v2;
mod write;

#[cfg(test)]
mod tests;

pub use tlv::ProxyTls;
pub use write::{write_v1, write_v2};

/// The longest header of version 1, its CRLF included (section 2.1).
pub const MAX_V1_BYTES: usize = 107;

/// The longest header of version 2. The protocol means it to fit into 536
/// bytes (section 2); a proxy that passes on every standard TLV at its full
/// size needs somewhat more.
pub const MAX_V2_BYTES: usize = 16 + 1024;

/// What [`parse`] has to say about bytes that are not wrong so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress<T> {
    /// The header is not complete: ask again with a longer buffer that starts
    /// at the same byte. It never takes more than [`MAX_V2_BYTES`].
    Partial,
    /// The header is complete.
    Done {
        /// What the header says.
        value: T,
        /// The length of the header in bytes. What follows is the client's.
        consumed: usize,
    },
}

/// What a proxy says about the connection it passes on.
///
/// An IPv6 address that stands for an IPv4 one (`::ffff:a.b.c.d`) comes as the
/// IPv4 address, so that it meets the networks of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Header {
    /// The client. `None`: the proxy speaks for itself or knows no IP address,
    /// the addresses of the connection itself count.
    pub source: Option<SocketAddr>,
    /// What the client connected to. There is none without `source`.
    pub destination: Option<SocketAddr>,
    /// The host name of the client's TLS handshake (section 2.2.2), if it is
    /// printable ASCII.
    pub authority: Option<String>,
    /// The client's TLS, if it ended at the proxy (section 2.2.6).
    pub tls: Option<ProxyTls>,
}

/// Why the connection must be closed: what came is no PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// Neither of the two signatures.
    #[error("no PROXY protocol header")]
    NoHeader,
    /// Version 1: no CRLF within [`MAX_V1_BYTES`].
    #[error("PROXY line without an end within {MAX_V1_BYTES} bytes")]
    LineTooLong,
    /// Version 1: something other than printable ASCII, or CR without LF.
    #[error("byte {byte:#04x} in a PROXY line")]
    LineByte {
        /// The byte.
        byte: u8,
    },
    /// Version 1: neither TCP4, TCP6 nor UNKNOWN.
    #[error("unknown protocol in a PROXY line")]
    LineProtocol,
    /// Version 1: not exactly two addresses and two ports, with single spaces.
    #[error("PROXY line with too few or too many fields")]
    LineFields,
    /// Version 1: no address of the announced family.
    #[error("bad address in a PROXY line")]
    LineAddress,
    /// Version 1: no number from 0 to 65535, or one with leading zeros.
    #[error("bad port in a PROXY line")]
    LinePort,
    /// The binary format in another version than 2.
    #[error("PROXY header of version {version}")]
    Version {
        /// The version.
        version: u8,
    },
    /// Version 2: neither LOCAL nor PROXY.
    #[error("PROXY header with the unknown command {command}")]
    Command {
        /// The command.
        command: u8,
    },
    /// Version 2: an unassigned address family or transport.
    #[error("PROXY header with the unknown family {family:#04x}")]
    Family {
        /// The 14th byte.
        family: u8,
    },
    /// Version 2: longer than [`MAX_V2_BYTES`].
    #[error("PROXY header with {announced} bytes after the first 16")]
    TooLong {
        /// The announced length, in bytes.
        announced: u16,
    },
    /// Version 2: too short for the addresses of its family.
    #[error("PROXY header with only {announced} bytes for its addresses")]
    TooShort {
        /// The announced length, in bytes.
        announced: u16,
    },
    /// Version 2: a TLV that reaches beyond the header, or has a wrong size.
    #[error("PROXY header with a broken TLV")]
    Tlv,
    /// Version 2: the CRC32c does not match (section 2.2.3).
    #[error("PROXY header with a wrong checksum")]
    Checksum,
}

impl ProxyError {
    /// A word for metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoHeader => "no_header",
            Self::LineTooLong => "line_too_long",
            Self::LineByte { .. } => "line_byte",
            Self::LineProtocol => "line_protocol",
            Self::LineFields => "line_fields",
            Self::LineAddress => "line_address",
            Self::LinePort => "line_port",
            Self::Version { .. } => "version",
            Self::Command { .. } => "command",
            Self::Family { .. } => "family",
            Self::TooLong { .. } => "too_long",
            Self::TooShort { .. } => "too_short",
            Self::Tlv => "tlv",
            Self::Checksum => "checksum",
        }
    }
}

/// Reads a header of either version from the start of `buffer`. The verdict
/// depends on the bytes only, not on how they were split: once it is there,
/// more bytes do not change it.
///
/// # Errors
///
/// When the bytes are no PROXY header, and no more bytes can make them one.
pub fn parse(buffer: &[u8]) -> Result<Progress<Header>, ProxyError> {
    // The signatures differ in their first byte.
    if let Some(rest) = after(v1::SIGNATURE, buffer) {
        return if rest { v1::parse(buffer) } else { Ok(Progress::Partial) };
    }
    match after(v2::SIGNATURE, buffer) {
        Some(true) => v2::parse(buffer),
        Some(false) => Ok(Progress::Partial),
        None => Err(ProxyError::NoHeader),
    }
}

/// Whether `buffer` begins with `signature`. `Some(false)`: so far, it is too
/// short to tell.
fn after(signature: &[u8], buffer: &[u8]) -> Option<bool> {
    let complete = buffer.starts_with(signature);
    (complete || signature.starts_with(buffer)).then_some(complete)
}
