//! Networks of addresses, and lists of them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::problem::Invalid;

const EXPECTED: &str = "a network such as \"10.0.0.0/8\" or \"2001:db8::/32\", or an address";

/// A network, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network(IpNet);

impl Network {
    /// Whether the address is in it. An IPv4 address in IPv6 form counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Network {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(address.to_canonical().into()));
        }
        let Ok(network) = text.parse::<IpNet>() else {
            return Err(Invalid::new("not a network", EXPECTED));
        };
        // Bits behind the prefix are most often a slip of the prefix.
        if network.trunc() != network {
            return Err(Invalid::new(
                "an address inside the network where its first one belongs",
                format!("\"{}\"", network.trunc()),
            ));
        }
        Ok(Self(network))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who may: nobody in `deny`; if `allow` has any, only those in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// If any, everybody else may not.
    pub allow: Vec<Network>,
    /// Looked at first.
    pub deny: Vec<Network>,
}

impl Access {
    /// Whether this address may.
    #[must_use]
    pub fn admits(&self, address: IpAddr) -> bool {
        let lists = |list: &[Network]| list.iter().any(|network| network.contains(address));
        !lists(&self.deny) && (self.allow.is_empty() || lists(&self.allow))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn reads_networks_and_addresses() {
        for text in ["10.0.0.0/8", "::/0", "2001:db8::/32", "0.0.0.0/0"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        assert_eq!("10.1.2.3".parse::<Network>().unwrap().to_string(), "10.1.2.3/32");
        for text in ["", "10.0.0.0/33", "10.0.0.1/8", "host", "10/8", "::1/64", "10.0.0.0/"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn deny_comes_first_and_allow_is_all_there_is() {
        let access =
            Access { allow: networks(&["10.0.0.0/8", "::1"]), deny: networks(&["10.9.0.0/16"]) };
        for (address, admitted) in [
            ("10.1.1.1", true),
            ("::ffff:10.1.1.1", true),
            ("10.9.1.1", false),
            ("11.1.1.1", false),
            ("::1", true),
            ("::2", false),
        ] {
            assert_eq!(access.admits(address.parse().unwrap()), admitted, "{address}");
        }
        assert!(Access::default().admits("1.2.3.4".parse().unwrap()));
    }
}
