//! What a name is before anybody is asked about it. Pure.

use std::net::{IpAddr, Ipv6Addr};

use hickory_resolver::proto::rr::Name;

/// Longest text of a name, with the dot at its end: RFC 1035, section 2.3.4.
const LONGEST: usize = 254;

/// What a name is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// An address: nobody is asked about it.
    Address(IpAddr),
    /// This machine (RFC 6761, section 6.3): nobody is asked about it.
    Localhost,
    /// A name to look up.
    Name(Name),
}

/// What a name is, or why it can't be one.
pub(super) fn named(name: &str) -> Result<Named, &'static str> {
    if let Some(address) = address(name) {
        return Ok(Named::Address(address));
    }
    if name.len() > LONGEST {
        return Err("it is longer than names may be");
    }
    let bare = name.strip_suffix('.').unwrap_or(name);
    if bare.is_empty() || bare.split('.').any(str::is_empty) {
        return Err("it has a part without letters");
    }
    if bare.contains(|c: char| c.is_whitespace() || c.is_control() || "[]:/%\\\"".contains(c)) {
        return Err("it has characters that no name has");
    }
    let last = bare.rsplit('.').next().unwrap_or(bare);
    // Half an address, such as 127.1: a name's last part is never a number (RFC 3696, section 2).
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("it is neither an address nor a name");
    }
    if last.eq_ignore_ascii_case("localhost") {
        return Ok(Named::Localhost);
    }
    dns_name(name).map(Named::Name)
}

/// As it goes to name servers. ASCII is taken as it is, for names of containers have underscores.
fn dns_name(name: &str) -> Result<Name, &'static str> {
    let parsed = if name.is_ascii() { Name::from_ascii(name) } else { Name::from_utf8(name) };
    parsed.map_err(|_| "it is not a name")
}

/// `192.0.2.1`, `2001:db8::1` or `[2001:db8::1]`.
fn address(name: &str) -> Option<IpAddr> {
    if let Some(inner) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    name.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_told_from_addresses_and_from_this_machine() {
        for address in ["127.0.0.1", "::1", "[2001:db8::1]", "0.0.0.0", "::ffff:192.0.2.1"] {
            assert!(matches!(named(address), Ok(Named::Address(_))), "{address}");
        }
        for local in ["localhost", "localhost.", "LocalHost", "a.localhost", "a.b.localhost."] {
            assert_eq!(named(local), Ok(Named::Localhost), "{local}");
        }
        for name in [
            "a",
            "a.example",
            "a.example.",
            "_ws._tcp.example",
            "my_service",
            "localhost.example",
            "notlocalhost",
            "1.example",
            "1a",
            "bücher.example",
            "A.EXAMPLE",
        ] {
            assert!(matches!(named(name), Ok(Named::Name(_))), "{name}");
        }
        let long = "a.".repeat(128);
        let label = "a".repeat(64);
        for bad in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a b",
            "a\n",
            "a:80",
            "127.1",
            "2130706433",
            "1.2.3.4.",
            "[::1",
            "fe80::1%eth0",
            "a/b",
            &long,
            &label,
        ] {
            assert!(named(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = named(&text);
        }
    }
}
