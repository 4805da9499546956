//! The additional fields of version 2: type, length, value (section 2.2).

use super::{Header, ProxyError};

const AUTHORITY: u8 = 0x02;
const CRC32C: u8 = 0x03;
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_CN: u8 = 0x22;

/// The client connected with TLS.
const CLIENT_SSL: u8 = 0x01;
/// The client showed a certificate, now or earlier in its TLS session.
const CLIENT_CERT: u8 = 0x02 | 0x04;

/// The TLS of a client that ended at the proxy (section 2.2.6).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProxyTls {
    /// Such as `TLSv1.3`, if it is printable ASCII.
    pub version: Option<String>,
    /// The client showed a certificate, and the proxy found it good.
    pub verified: bool,
    /// The common name of the client's certificate, if it is UTF-8 without
    /// control characters. Believe it only with `verified`.
    pub common_name: Option<String>,
}

/// Reads the TLVs of a complete header from `start` on. Of several TLVs of one
/// type the first one counts.
pub(super) fn read(header: &[u8], start: usize, value: &mut Header) -> Result<(), ProxyError> {
    let mut tlvs = Tlvs { bytes: header, at: start };
    while let Some(tlv) = tlvs.next()? {
        match tlv.kind {
            AUTHORITY if value.authority.is_none() => value.authority = ascii(tlv.value),
            SSL if value.tls.is_none() => value.tls = tls(tlv.value)?,
            CRC32C => check(header, &tlv)?,
            _ => {}
        }
    }
    Ok(())
}

struct Tlv<'a> {
    kind: u8,
    value: &'a [u8],
    /// Where the value begins.
    at: usize,
}

struct Tlvs<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Tlvs<'a> {
    /// The next TLV, if there is one.
    fn next(&mut self) -> Result<Option<Tlv<'a>>, ProxyError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let [kind, high, low, rest @ ..] = rest else { return Err(ProxyError::Tlv) };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let value = rest.get(..len).ok_or(ProxyError::Tlv)?;
        let at = self.at + 3;
        self.at = at + len;
        Ok(Some(Tlv { kind: *kind, value, at }))
    }
}

/// Reads an SSL TLV: flags, the result of the verification (zero: good), and
/// TLVs of its own.
fn tls(value: &[u8]) -> Result<Option<ProxyTls>, ProxyError> {
    let [client, verify @ ..] = value else { return Err(ProxyError::Tlv) };
    let verify = verify.first_chunk::<4>().ok_or(ProxyError::Tlv)?;
    let good = *verify == [0; 4] && client & CLIENT_CERT != 0;
    let mut tls = ProxyTls { verified: good, ..ProxyTls::default() };
    let mut tlvs = Tlvs { bytes: value, at: 5 };
    while let Some(tlv) = tlvs.next()? {
        match tlv.kind {
            SSL_VERSION if tls.version.is_none() => tls.version = ascii(tlv.value),
            SSL_CN if tls.common_name.is_none() => tls.common_name = utf8(tlv.value),
            _ => {}
        }
    }
    Ok((client & CLIENT_SSL != 0).then_some(tls))
}

/// Text that may go into a header field; nothing else is believed.
fn ascii(value: &[u8]) -> Option<String> {
    let text = str::from_utf8(value).ok()?;
    let clean = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    clean.then(|| text.to_owned())
}

fn utf8(value: &[u8]) -> Option<String> {
    let text = str::from_utf8(value).ok()?;
    (!text.is_empty() && !text.contains(char::is_control)).then(|| text.to_owned())
}

/// The checksum of the whole header, with zeros in its own place (section
/// 2.2.3).
fn check(header: &[u8], tlv: &Tlv<'_>) -> Result<(), ProxyError> {
    let found = <[u8; 4]>::try_from(tlv.value).map_err(|_| ProxyError::Tlv)?;
    let own = tlv.at..tlv.at + 4;
    let bytes = header.iter().enumerate();
    let sum = crc32c(bytes.map(|(at, byte)| if own.contains(&at) { 0 } else { *byte }));
    if sum == u32::from_be_bytes(found) { Ok(()) } else { Err(ProxyError::Checksum) }
}

/// CRC32c (RFC 9260 appendix A), bit by bit: headers are short and seldom have
/// one.
pub(super) fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    const REVERSED: u32 = 0x82f6_3b78;
    !bytes.fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| (sum >> 1) ^ (REVERSED * (sum & 1)))
    })
}
