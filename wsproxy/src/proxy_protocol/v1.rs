//! The text format (section 2.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Header, MAX_V1_BYTES, Progress, ProxyError};

pub(super) const SIGNATURE: &[u8] = b"PROXY ";

/// Reads a line that begins with the signature.
pub(super) fn parse(buffer: &[u8]) -> Result<Progress<Header>, ProxyError> {
    let Some(line) = line(buffer)? else { return Ok(Progress::Partial) };
    let value = fields(&line[SIGNATURE.len()..])?;
    Ok(Progress::Done { value, consumed: line.len() + 2 })
}

/// The line without its CRLF. It is looked at from left to right, so that what
/// is wrong first is the verdict wherever the bytes end.
fn line(buffer: &[u8]) -> Result<Option<&str>, ProxyError> {
    let window = &buffer[..buffer.len().min(MAX_V1_BYTES)];
    for (index, byte) in window.iter().enumerate() {
        match (*byte, window.get(index + 1)) {
            (b' '..=b'~', _) => {}
            (b'\r', Some(b'\n')) => {
                let line = str::from_utf8(&window[..index]);
                return line.map(Some).map_err(|_| ProxyError::LineByte { byte: *byte });
            }
            (b'\r', None) => break,
            (byte, _) => return Err(ProxyError::LineByte { byte }),
        }
    }
    if window.len() < MAX_V1_BYTES { Ok(None) } else { Err(ProxyError::LineTooLong) }
}

/// Reads what follows `PROXY` and a space.
fn fields(text: &str) -> Result<Header, ProxyError> {
    let (protocol, rest) = match text.split_once(' ') {
        Some((protocol, rest)) => (protocol, Some(rest)),
        None => (text, None),
    };
    let address: fn(&str) -> Option<IpAddr> = match protocol {
        "TCP4" => |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        // Also with the last 32 bits as a.b.c.d, as inet_ntop writes them.
        "TCP6" => |text| text.parse::<Ipv6Addr>().ok().map(|ip| ip.to_canonical()),
        // Whatever follows must be ignored.
        "UNKNOWN" => return Ok(Header::default()),
        _ => return Err(ProxyError::LineProtocol),
    };
    let mut fields = rest.ok_or(ProxyError::LineFields)?.split(' ');
    let mut next = || fields.next().ok_or(ProxyError::LineFields);
    let [source, destination, source_port, destination_port] = [next()?, next()?, next()?, next()?];
    if fields.next().is_some() {
        return Err(ProxyError::LineFields);
    }
    let socket = |ip: &str, number: &str| {
        let ip = address(ip).ok_or(ProxyError::LineAddress)?;
        Ok(SocketAddr::new(ip, port(number).ok_or(ProxyError::LinePort)?))
    };
    Ok(Header {
        source: Some(socket(source, source_port)?),
        destination: Some(socket(destination, destination_port)?),
        ..Header::default()
    })
}

fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let zeros = text.len() > 1 && text.starts_with('0');
    if digits && !zeros { text.parse().ok() } else { None }
}
