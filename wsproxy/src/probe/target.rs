//! Where to connect and what to ask for: the URL (RFC 6455 section 3) and
//! `--resolve`.

use std::net::{IpAddr, Ipv6Addr};

use crate::handshake::{decimal, is_reg_name};

/// The most bytes of a URL.
pub(super) const MAX_URL_BYTES: usize = 8 * 1024;

/// A host and a port to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// A name or an address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Place {
    /// The value of `--resolve`: `ip`, `[ip]:port`, `ip:port`, `name` or `name:port`.
    pub(super) fn read(text: &str, default_port: u16) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self { host: address.to_string(), port: default_port });
        }
        let (host, port) = cut_port(text)?;
        Ok(Self { host: host.to_owned(), port: port.unwrap_or(default_port) })
    }
}

/// A URL in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) tls: bool,
    pub(super) place: Place,
    /// What `Host` says: the port only where it is not the scheme's own.
    pub(super) authority: String,
    /// Path and query.
    pub(super) path: String,
}

impl Target {
    /// Reads a URL; the error is a sentence without its full stop.
    pub(super) fn read(url: &str) -> Result<Self, String> {
        if url.len() > MAX_URL_BYTES {
            return Err(format!("the URL is longer than {MAX_URL_BYTES} bytes"));
        }
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err("the URL has no scheme: it must start with ws:// or wss://".to_owned());
        };
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "ws" | "http" => false,
            "wss" | "https" => true,
            _ => return Err("the scheme must be ws, wss, http or https".to_owned()),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let place = place_of(authority, if tls { 443 } else { 80 })?;
        let slash = if path.starts_with('/') { "" } else { "/" };
        check_path(path)?;
        let host =
            if place.host.contains(':') { format!("[{}]", place.host) } else { place.host.clone() };
        let authority = match (tls, place.port) {
            (false, 80) | (true, 443) => host,
            (_, port) => format!("{host}:{port}"),
        };
        Ok(Self { tls, place, authority, path: format!("{slash}{path}") })
    }

    /// The URL of this target, with a scheme of WebSocket.
    pub(super) fn url(&self) -> String {
        format!("{}://{}{}", if self.tls { "wss" } else { "ws" }, self.authority, self.path)
    }
}

fn place_of(authority: &str, default_port: u16) -> Result<Place, String> {
    if authority.contains('@') {
        return Err(
            "a user name in the URL is not sent: use --header \"Authorization: ...\"".to_owned()
        );
    }
    let (host, port) = cut_port(authority)?;
    Ok(Place { host: host.to_owned(), port: port.unwrap_or(default_port) })
}

/// Cuts `host[:port]` or `[ip][:port]`.
fn cut_port(text: &str) -> Result<(&str, Option<u16>), String> {
    let (host, after) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, after) =
                rest.split_once(']').ok_or_else(|| "a \"]\" is missing".to_owned())?;
            if address.parse::<Ipv6Addr>().is_err() {
                return Err("what stands in the brackets is no IPv6 address".to_owned());
            }
            (address, after)
        }
        None => {
            let (name, after) = text.split_at(text.find(':').unwrap_or(text.len()));
            check_name(name)?;
            (name, after)
        }
    };
    let bad_port = || "the port must be a number from 1 to 65535".to_owned();
    match after.strip_prefix(':') {
        None if after.is_empty() => Ok((host, None)),
        // RFC 3986 section 3.2.3: the number may be missing.
        Some("") => Ok((host, None)),
        Some(digits) => {
            let port = decimal(digits.as_bytes()).and_then(|port| u16::try_from(port).ok());
            port.filter(|&port| port > 0).map(|port| (host, Some(port))).ok_or_else(bad_port)
        }
        None => Err(bad_port()),
    }
}

fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        Err("the host is missing".to_owned())
    } else if !name.is_ascii() {
        Err("the host is not ASCII: write it as its xn-- form (punycode)".to_owned())
    } else if !is_reg_name(name.as_bytes()) {
        Err("the host contains a character that is not allowed there".to_owned())
    } else {
        Ok(())
    }
}

fn check_path(path: &str) -> Result<(), String> {
    if path.contains('#') {
        return Err("a WebSocket URL has no fragment (\"#\"): RFC 6455 section 3".to_owned());
    }
    if path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err("the path contains a character that must be percent-encoded, as a space is %20".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn good_urls() {
        let cases = [
            ("ws://a", "a", 80, "a", "/", "ws://a/"),
            ("WSS://A.b:443/x?y=1", "A.b", 443, "A.b", "/x?y=1", "wss://A.b/x?y=1"),
            ("http://a:8080?q", "a", 8080, "a:8080", "/?q", "ws://a:8080/?q"),
            ("https://[::1]:8443/", "::1", 8443, "[::1]:8443", "/", "wss://[::1]:8443/"),
            ("wss://a:80/", "a", 80, "a:80", "/", "wss://a:80/"),
            ("ws://127.0.0.1:/", "127.0.0.1", 80, "127.0.0.1", "/", "ws://127.0.0.1/"),
        ];
        for (url, host, port, authority, path, again) in cases {
            let target = Target::read(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(target.place, Place { host: host.into(), port }, "{url}");
            assert_eq!((target.authority.as_str(), target.path.as_str()), (authority, path));
            assert_eq!(target.url(), again);
        }
    }

    #[test]
    fn bad_urls_say_why() {
        let long = format!("ws://a/{}", "x".repeat(MAX_URL_BYTES));
        let cases = [
            ("example.com/chat", "no scheme"),
            ("ftp://a/", "scheme must be"),
            ("ws:///x", "host is missing"),
            ("ws://u:p@a/", "Authorization"),
            ("ws://a:0/", "port"),
            ("ws://a:65536/", "port"),
            ("ws://a:x/", "port"),
            ("ws://[::1/", "\"]\""),
            ("ws://[a]/", "IPv6"),
            ("ws://[::1]8/", "port"),
            ("ws://b\u{fc}cher.de/", "punycode"),
            ("ws://a b/", "host contains"),
            ("ws://a/x y", "percent-encoded"),
            ("ws://a/\r\nX: y", "percent-encoded"),
            ("ws://a/#x", "fragment"),
            (long.as_str(), "longer"),
        ];
        for (url, why) in cases {
            let error = Target::read(url).expect_err(url);
            assert!(error.contains(why), "{url}: {error}");
        }
    }

    #[test]
    fn places() {
        for (text, host, port) in [
            ("::1", "::1", 9),
            ("[::1]", "::1", 9),
            ("[::1]:80", "::1", 80),
            ("10.0.0.1", "10.0.0.1", 9),
            ("10.0.0.1:80", "10.0.0.1", 80),
            ("b:80", "b", 80),
            ("b", "b", 9),
        ] {
            assert_eq!(Place::read(text, 9), Ok(Place { host: host.into(), port }), "{text}");
        }
        for bad in ["", ":80", "a:x", "a/b", "[x]"] {
            assert!(Place::read(bad, 9).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_read_url_holds_no_line_end(rest in ".{0,40}") {
            if let Ok(target) = Target::read(&format!("ws://a{rest}")) {
                let written = format!("{}{}", target.authority, target.path);
                prop_assert!(written.bytes().all(|byte| byte.is_ascii_graphic()));
            }
        }
    }
}
