//! Units of nginx's values, and of ours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Our longest wait: 30 days.
pub(super) const WAIT_MAX_MS: u64 = 30 * 86_400_000;

/// Milliseconds of `90`, `90s`, `1m30s`, `500ms`, `1h 30m`, `1d`; a number alone is seconds.
pub(super) fn millis(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    let mut total = 0u64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = match &rest[..letters] {
            "ms" => 1,
            "" | "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            "M" => 30 * 86_400_000,
            "y" => 365 * 86_400_000,
            _ => return None,
        };
        rest = rest[letters..].trim_start();
        total = total.checked_add(number.checked_mul(unit)?)?;
    }
    Some(total)
}

/// `250ms`, `75s`, `5m`, `2h30m`.
pub(super) fn duration(millis: u64) -> String {
    if millis < 120_000 {
        return match millis.is_multiple_of(1_000) {
            true => format!("{}s", millis / 1_000),
            false if millis < 1_000 => format!("{millis}ms"),
            false => format!("{}s{}ms", millis / 1_000, millis % 1_000),
        };
    }
    let mut rest = millis;
    let mut text = String::new();
    for (name, unit) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if rest >= unit {
            text.push_str(&format!("{}{name}", rest / unit));
            rest %= unit;
        }
    }
    text
}

/// Bytes of `1024`, `8k`, `1m`, `2g`.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "" => 1u64,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// `16KiB`, `1MiB`.
pub(super) fn size(bytes: u64) -> String {
    for (unit, name) in [(1u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes != 0 && bytes.is_multiple_of(unit) {
            return format!("{}{name}", bytes / unit);
        }
    }
    format!("{bytes}B")
}

/// A network or an address, without the bits behind the prefix, which nginx lets pass.
pub(super) fn network(text: &str) -> Option<Network> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
        Some(_) => return None,
        None => most,
    };
    (prefix <= most).then(|| Network { address: masked(address, prefix), prefix })
}

/// A network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    /// Whether they have an address in common.
    pub(super) fn overlaps(self, other: Self) -> bool {
        let prefix = self.prefix.min(other.prefix);
        self.address.is_ipv4() == other.address.is_ipv4()
            && masked(self.address, prefix) == masked(other.address, prefix)
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.address, self.prefix) {
            (IpAddr::V4(ip), 32) => ip.fmt(f),
            (IpAddr::V6(ip), 128) => ip.fmt(f),
            (ip, prefix) => write!(f, "{ip}/{prefix}"),
        }
    }
}

fn masked(address: IpAddr, prefix: u32) -> IpAddr {
    match address {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - prefix.min(32)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & mask))
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - prefix.min(128)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask))
        }
    }
}

/// A path as nginx compares it, decoded, in the form that a URL has it; none if no request
/// can have it.
pub(super) fn url_path(text: &str) -> Option<String> {
    let dots = text.split('/').any(|segment| segment == "." || segment == "..");
    if !text.starts_with('/') || dots {
        return None;
    }
    let mut path = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'%') {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    Some(path)
}

/// A name as RFC 1123 has it, with the underscore that container networks use. A last label of
/// digits alone is a mistyped address.
pub(super) fn is_host_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let last = name.rsplit('.').next().unwrap_or(name);
    name.len() <= 253 && name.split('.').all(label) && !last.bytes().all(|b| b.is_ascii_digit())
}

/// `host:port` or `[v6]:port` of `host`, `host:port`, `[v6]`, with the port that it has without
/// one; none if it is no address to connect to.
pub(super) fn authority(text: &str, default_port: u16) -> Option<String> {
    let bracketed = text.starts_with('[');
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !bracketed || host.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port = match port {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
        Some(_) => return None,
        None => default_port,
    };
    let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let fine = match inner {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<Ipv4Addr>().is_ok() || is_host_name(host),
    };
    (fine && port > 0).then(|| format!("{}:{port}", host.to_ascii_lowercase()))
}

/// An absolute path; a relative one is taken as below `base`. None with variables in it.
pub(super) fn absolute(path: &str, base: &str) -> Option<String> {
    if path.is_empty() || path.contains(['$', '\0', ':']) || path.chars().any(char::is_control) {
        return None;
    }
    if path.starts_with('/') {
        return Some(path.to_owned());
    }
    Some(format!("{base}/{path}"))
}

/// A name of a header or cookie (RFC 9110 section 5.6.2).
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, shown) in [
            ("3600s", "1h"),
            ("3600", "1h"),
            ("75", "75s"),
            ("1m", "60s"),
            ("1m30s", "90s"),
            ("1h 30m", "1h30m"),
            ("500ms", "500ms"),
            ("1500ms", "1s500ms"),
            ("1d", "24h"),
            ("2w", "336h"),
            ("0", "0s"),
        ] {
            assert_eq!(duration(millis(text).unwrap()), shown, "{text}");
        }
        for text in ["", "x", "1x", "s", "-1", "1s é", "99999999999999999999", "9999999999999999y"]
        {
            assert_eq!(millis(text), None, "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, shown) in [("10m", "10MiB"), ("8k", "8KiB"), ("100", "100B"), ("2G", "2GiB")] {
            assert_eq!(size(bytes(text).unwrap()), shown, "{text}");
        }
        for text in ["", "m", "1t", "-1", "99999999999999999999g"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn networks() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3"),
            ("10.1.2.3/32", "10.1.2.3"),
            ("1.2.3.4/0", "0.0.0.0/0"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("::1", "::1"),
        ] {
            assert_eq!(network(text).unwrap().to_string(), shown, "{text}");
        }
        for text in ["", "all", "10.0.0.0/33", "10.0.0.0/x", "10.0.0.0/", "unix:"] {
            assert_eq!(network(text), None, "{text}");
        }
        let overlap = |a, b| network(a).unwrap().overlaps(network(b).unwrap());
        assert!(overlap("10.0.0.0/8", "10.1.1.1"));
        assert!(overlap("0.0.0.0/0", "10.1.1.1"));
        assert!(!overlap("10.0.0.0/8", "11.0.0.0/8"));
        assert!(!overlap("0.0.0.0/0", "::1"));
    }

    #[test]
    fn authorities() {
        for (text, shown) in [
            ("127.0.0.1:3000", Some("127.0.0.1:3000")),
            ("Backend.local", Some("backend.local:80")),
            ("[::1]", Some("[::1]:80")),
            ("[::1]:8080", Some("[::1]:8080")),
            ("[::1", None),
            ("::1", None),
            ("a:b", None),
            ("a:0", None),
            ("a:+1", None),
            ("", None),
            ("$x:80", None),
        ] {
            assert_eq!(authority(text, 80).as_deref(), shown, "{text}");
        }
    }

    #[test]
    fn paths() {
        for (text, shown) in [
            ("/ws/", Some("/ws/")),
            ("/a b", Some("/a%20b")),
            ("/é%", Some("/%C3%A9%25")),
            ("/a?b", Some("/a%3Fb")),
            ("ws", None),
            ("/a/../b", None),
        ] {
            assert_eq!(url_path(text).as_deref(), shown, "{text}");
        }
    }
}
