use proptest::prelude::*;

use super::*;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// From priority, weight and addresses.
fn service((priority, weight, addresses): (u16, u16, &[&str])) -> Service {
    Service { priority, weight, addresses: addresses.iter().map(|text| address(text)).collect() }
}

#[test]
fn addresses_come_once_and_in_order() {
    let found = ["2.2.2.2:1", "[::1]:1", "1.1.1.1:1", "2.2.2.2:1"].map(address).to_vec();
    let answer = of_addresses(found, Duration::ZERO).unwrap();
    let shown: Vec<_> = answer.servers.iter().map(|s| s.address.to_string()).collect();
    assert_eq!(shown, ["1.1.1.1:1", "2.2.2.2:1", "[::1]:1"]);
    assert!(answer.servers.iter().all(|server| server.weight == 1 && !server.backup));
    assert_eq!(of_addresses(Vec::new(), Duration::ZERO), None);
}

#[test]
fn an_answer_is_good_for_a_second_to_an_hour() {
    for (least, valid_for) in [(0, 1), (1, 1), (30, 30), (3_600, 3_600), (86_400, 3_600)] {
        let answer = of_addresses(vec![address("1.1.1.1:1")], Duration::from_secs(least)).unwrap();
        assert_eq!(answer.valid_for, Duration::from_secs(valid_for));
    }
}

#[test]
fn an_answer_is_not_endless() {
    let many = |n: u32| (0..n).map(|n| SocketAddr::from((n.to_be_bytes(), 1))).rev().collect();
    let answer = of_addresses(many(3_000), Duration::ZERO).unwrap();
    assert_eq!(answer.servers.len(), MAX_ADDRESSES);
    assert_eq!(answer.servers.last().unwrap().address, address("0.0.3.255:1"));
    let backups = Service { priority: 2, weight: 1, addresses: many(3_000) };
    let answer =
        of_services(vec![backups, service((1, 1, &["9.9.9.9:1"]))], Duration::ZERO).unwrap();
    assert_eq!(answer.servers.len(), MAX_ADDRESSES);
    assert_eq!(answer.servers[0].address, address("9.9.9.9:1"));
    assert!(answer.servers[1..].iter().all(|server| server.backup));
}

/// Records, and the servers they stand for: address, weight and whether it is a backup.
type Case = (&'static [(u16, u16, &'static [&'static str])], &'static [(&'static str, u32, bool)]);

#[test]
fn priorities_and_weights() {
    let cases: &[Case] = &[
        // Small weights stay as they are.
        (
            &[(10, 20, &["2.2.2.2:1"]), (10, 10, &["1.1.1.1:1"])],
            &[("1.1.1.1:1", 10, false), ("2.2.2.2:1", 20, false)],
        ),
        // No weight is a small one.
        (
            &[(0, 0, &["1.1.1.1:1"]), (0, 5, &["2.2.2.2:1"])],
            &[("1.1.1.1:1", 1, false), ("2.2.2.2:1", 5, false)],
        ),
        (
            &[(0, 0, &["1.1.1.1:1", "3.3.3.3:1"]), (0, 0, &["2.2.2.2:1"])],
            &[("1.1.1.1:1", 1, false), ("2.2.2.2:1", 1, false), ("3.3.3.3:1", 1, false)],
        ),
        // Large ones keep their proportions.
        (
            &[(1, 60_000, &["1.1.1.1:1"]), (1, 30_000, &["2.2.2.2:1"]), (1, 7, &["3.3.3.3:1"])],
            &[("1.1.1.1:1", 1_000, false), ("2.2.2.2:1", 500, false), ("3.3.3.3:1", 1, false)],
        ),
        (&[(1, 65_535, &["1.1.1.1:1"])], &[("1.1.1.1:1", 1_000, false)]),
        // Within a priority only.
        (
            &[(2, 65_535, &["2.2.2.2:1"]), (1, 3, &["1.1.1.1:1"]), (7, 4, &["0.0.0.1:1"])],
            &[("1.1.1.1:1", 3, false), ("2.2.2.2:1", 1_000, true), ("0.0.0.1:1", 4, true)],
        ),
        // A target's addresses share its weight.
        (
            &[(1, 10, &["1.1.1.1:1", "[::1]:1"]), (1, 10, &["2.2.2.2:1"])],
            &[("1.1.1.1:1", 500, false), ("2.2.2.2:1", 1_000, false), ("[::1]:1", 500, false)],
        ),
        // An address counts where it comes first, and whole.
        (
            &[(2, 9, &["1.1.1.1:1"]), (1, 5, &["1.1.1.1:1"]), (1, 6, &["1.1.1.1:1"])],
            &[("1.1.1.1:1", 6, false)],
        ),
        (
            &[(1, 1, &["1.1.1.1:1"]), (1, 1, &["1.1.1.1:2"])],
            &[("1.1.1.1:1", 1, false), ("1.1.1.1:2", 1, false)],
        ),
        // What has no addresses is no better priority.
        (
            &[(1, 5, &[]), (2, 6, &["1.1.1.1:1"]), (3, 7, &["2.2.2.2:1"])],
            &[("1.1.1.1:1", 6, false), ("2.2.2.2:1", 7, true)],
        ),
    ];
    for (records, servers) in cases {
        let resolved = |&(text, weight, backup): &(&str, u32, bool)| Resolved {
            address: address(text),
            weight,
            backup,
        };
        let services: Vec<_> = records.iter().copied().map(service).collect();
        let answer = of_services(services, Duration::from_secs(5)).unwrap();
        let expected: Vec<_> = servers.iter().map(resolved).collect();
        assert_eq!(answer.servers, expected, "{records:?}");
    }
    assert_eq!(of_services(Vec::new(), Duration::ZERO), None);
    assert_eq!(of_services(vec![service((1, 1, &[]))], Duration::ZERO), None);
}

fn services() -> impl Strategy<Value = Vec<Service>> {
    let address = (0u8..6, 1u16..3).prop_map(|(n, port)| SocketAddr::from(([192, 0, 2, n], port)));
    let addresses = proptest::collection::vec(address, 0..5);
    let weight = prop_oneof![0u16..4, any::<u16>()];
    let service = (0u16..4, weight, addresses);
    let service =
        service.prop_map(|(priority, weight, addresses)| Service { priority, weight, addresses });
    proptest::collection::vec(service, 0..8)
}

proptest! {
    #[test]
    fn whatever_the_records(given in services(), mut order: u64) {
        let answer = of_services(given.clone(), Duration::ZERO);
        let mut shuffled = given.clone();
        for n in (1..shuffled.len()).rev() {
            shuffled.swap(n, (order % (n as u64 + 1)) as usize);
            order /= n as u64 + 1;
        }
        prop_assert_eq!(&of_services(shuffled, Duration::ZERO), &answer);
        let mut all: Vec<_> = given.iter().flat_map(|service| &service.addresses).collect();
        all.sort();
        all.dedup();
        prop_assert_eq!(answer.is_none(), all.is_empty());
        let Some(answer) = answer else { return Ok(()) };
        let mut found: Vec<_> = answer.servers.iter().map(|server| &server.address).collect();
        found.sort();
        prop_assert_eq!(found, all);
        prop_assert!(answer.servers.iter().all(|server| (1..=MAX_WEIGHT).contains(&server.weight)));
        prop_assert!(!answer.servers[0].backup);
    }
}
