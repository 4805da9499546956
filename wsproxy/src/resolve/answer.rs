//! Records to servers. Pure.

use std::{net::SocketAddr, time::Duration};

use super::ResolveError;

/// Most servers of an answer.
const MOST: usize = 1_024;
/// Answers are good for at least and at most this long, whatever their records say.
const VALID: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3_600));
/// The largest weight of a server.
const MOST_WEIGHT: u32 = 1_000;

/// One server of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Where it is.
    pub address: SocketAddr,
    /// Its share, 1 to 1000.
    pub weight: u32,
    /// Not of the best priority: for when no other is usable.
    pub backup: bool,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its servers, in a stable order; at least one.
    pub servers: Vec<Resolved>,
    /// For how long; 1 s to 1 h.
    pub valid_for: Duration,
}

/// One SRV record with the addresses of its target.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) addresses: Vec<SocketAddr>,
}

pub(super) fn of_addresses(
    name: &str,
    mut addresses: Vec<SocketAddr>,
    valid_for: Duration,
) -> Result<Answer, ResolveError> {
    addresses.sort_unstable();
    addresses.dedup();
    let server = |address| Resolved { address, weight: 1, backup: false };
    finish(name, addresses.into_iter().map(server).collect(), valid_for)
}

pub(super) fn of_services(
    name: &str,
    services: Vec<Service>,
    valid_for: Duration,
) -> Result<Answer, ResolveError> {
    let best = services.iter().map(|service| service.priority).min();
    let heaviest = services.iter().map(|s| u32::from(s.weight)).max().unwrap_or(1).max(1);
    // Weights go up to 65535; the proportions count.
    let scaled = |weight: u16| match heaviest {
        ..=MOST_WEIGHT => u32::from(weight).max(1),
        _ => (u32::from(weight) * MOST_WEIGHT / heaviest).max(1),
    };
    let mut servers: Vec<Resolved> = Vec::new();
    for service in &services {
        for &address in &service.addresses {
            if servers.iter().all(|known| known.address != address) {
                let backup = Some(service.priority) != best;
                servers.push(Resolved { address, weight: scaled(service.weight), backup });
            }
        }
    }
    servers.sort_by_key(|server| (server.backup, server.address));
    finish(name, servers, valid_for)
}

fn finish(
    name: &str,
    mut servers: Vec<Resolved>,
    valid_for: Duration,
) -> Result<Answer, ResolveError> {
    if servers.is_empty() {
        return Err(ResolveError::NoAddresses { name: name.to_owned() });
    }
    servers.truncate(MOST);
    Ok(Answer { servers, valid_for: valid_for.clamp(VALID.0, VALID.1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_sorted_and_come_once() {
        let found = ["2.2.2.2:1", "1.1.1.1:1", "2.2.2.2:1"].map(address).to_vec();
        let answer = of_addresses("n", found, Duration::ZERO).unwrap();
        let shown: Vec<_> = answer.servers.iter().map(|s| s.address.to_string()).collect();
        assert_eq!(shown, ["1.1.1.1:1", "2.2.2.2:1"]);
        assert_eq!(answer.valid_for, Duration::from_secs(1));
        let none = of_addresses("n", Vec::new(), Duration::ZERO);
        assert_eq!(none, Err(ResolveError::NoAddresses { name: "n".into() }));
    }

    #[test]
    fn services_have_weights_and_backups() {
        let service = |priority, weight, text: &str| Service {
            priority,
            weight,
            addresses: vec![address(text)],
        };
        let services = vec![
            service(20, 5, "3.3.3.3:1"),
            service(10, 60_000, "1.1.1.1:1"),
            service(10, 0, "2.2.2.2:1"),
            service(10, 30_000, "4.4.4.4:1"),
        ];
        let answer = of_services("n", services, Duration::from_secs(9_999)).unwrap();
        let shown: Vec<_> =
            answer.servers.iter().map(|s| (s.address.port(), s.weight, s.backup)).collect();
        assert_eq!(shown, [(1, 1000, false), (1, 1, false), (1, 500, false), (1, 1, true)]);
        assert_eq!(answer.valid_for, Duration::from_secs(3_600));
    }
}
