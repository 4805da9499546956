//! Records to servers. Pure.

use std::{collections::HashSet, net::SocketAddr, time::Duration};

/// Most servers of an answer.
pub const MAX_ADDRESSES: usize = 1_024;
/// An answer is good for at least this long, whatever its records say.
pub const SHORTEST: Duration = Duration::from_secs(1);
/// An answer is good for at most this long, whatever its records say.
pub const LONGEST: Duration = Duration::from_secs(3_600);
/// The largest weight of a server.
pub const MAX_WEIGHT: u32 = 1_000;

/// One server of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Where it is.
    pub address: SocketAddr,
    /// Its share, 1 to [`MAX_WEIGHT`].
    pub weight: u32,
    /// Not of the lowest priority number: for when no other is usable.
    pub backup: bool,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its servers, each once and in an order that does not change: 1 to [`MAX_ADDRESSES`].
    pub servers: Vec<Resolved>,
    /// For how long: the least of all records, within [`SHORTEST`] and [`LONGEST`].
    pub valid_for: Duration,
}

/// One SRV record with the addresses of its target.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) addresses: Vec<SocketAddr>,
}

/// The servers of A and AAAA records; None where there are none.
pub(super) fn of_addresses(mut addresses: Vec<SocketAddr>, valid_for: Duration) -> Option<Answer> {
    addresses.sort_unstable();
    addresses.dedup();
    let server = |address| Resolved { address, weight: 1, backup: false };
    finish(addresses.into_iter().map(server).collect(), valid_for)
}

/// The servers of SRV records (RFC 2782); None where there are none.
///
/// The lowest priority number of those that have addresses comes first, all others are backups.
/// An address that comes more than once counts where it comes first.
pub(super) fn of_services(mut services: Vec<Service>, valid_for: Duration) -> Option<Answer> {
    services.retain(|service| !service.addresses.is_empty());
    // In an order that does not depend on that of the records.
    for service in &mut services {
        service.addresses.sort_unstable();
        service.addresses.dedup();
    }
    services.sort_by(|one, other| {
        let key = |service: &Service| (service.priority, u16::MAX - service.weight);
        (key(one), &one.addresses).cmp(&(key(other), &other.addresses))
    });
    let mut seen = HashSet::new();
    for service in &mut services {
        service.addresses.retain(|&address| seen.insert(address));
    }
    services.retain(|service| !service.addresses.is_empty());
    let best = services.first()?.priority;
    let mut servers = Vec::new();
    for group in services.chunk_by(|one, other| one.priority == other.priority) {
        let mut of_group = weighted(group, group.first().is_some_and(|s| s.priority != best));
        of_group.sort_by_key(|server| server.address);
        servers.append(&mut of_group);
    }
    finish(servers, valid_for)
}

/// The servers of one priority.
///
/// A target's weight is shared by its addresses (RFC 2782 gives it to the target); weights are
/// left alone where they can be, and otherwise scaled so that the largest share is
/// [`MAX_WEIGHT`]. A share below 1, such as that of the weight 0, is 1: "a very small chance".
fn weighted(services: &[Service], backup: bool) -> Vec<Resolved> {
    // In millionths, for a share may be less than 1.
    let share = |service: &Service| {
        let addresses = u64::try_from(service.addresses.len()).unwrap_or(u64::MAX).max(1);
        u64::from(service.weight) * 1_000_000 / addresses
    };
    let simple = services.iter().all(|service| {
        service.addresses.len() == 1 && u32::from(service.weight) <= MAX_WEIGHT
            || service.weight == 0
    });
    let largest = services.iter().map(share).max().unwrap_or(0).max(1);
    let scaled = |service: &Service| {
        let weight = if simple {
            u64::from(service.weight)
        } else {
            (share(service) * u64::from(MAX_WEIGHT) + largest / 2) / largest
        };
        u32::try_from(weight).unwrap_or(MAX_WEIGHT).clamp(1, MAX_WEIGHT)
    };
    let of_service = |service| {
        let weight = scaled(service);
        service.addresses.iter().map(move |&address| Resolved { address, weight, backup })
    };
    services.iter().flat_map(of_service).collect()
}

fn finish(mut servers: Vec<Resolved>, valid_for: Duration) -> Option<Answer> {
    servers.truncate(MAX_ADDRESSES);
    let answer = Answer { servers, valid_for: valid_for.clamp(SHORTEST, LONGEST) };
    (!answer.servers.is_empty()).then_some(answer)
}

#[cfg(test)]
#[path = "tests/answers.rs"]
mod tests;
