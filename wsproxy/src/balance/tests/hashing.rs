//! Consistent hashing: gateways agree, and few keys move.

use proptest::prelude::*;

use super::*;

const KEYS: u64 = 300;

/// Which server each key gets.
fn map(group: &Group) -> Vec<String> {
    (0..KEYS).map(|key| chosen(group, &keyed(key))).collect()
}

fn hashed(servers: Vec<ServerConfig>) -> Group {
    Group::new(config(Method::Hash, servers), 1).unwrap()
}

fn servers() -> impl Strategy<Value = Vec<ServerConfig>> {
    prop::collection::hash_map("[a-z0-9.:]{1,20}", 1..100_u32, 2..12)
        .prop_map(|servers| servers.iter().map(|(name, weight)| server(name, *weight)).collect())
}

#[test]
fn the_choices_never_change() {
    // Gateways of different versions must agree: these values are for ever.
    let servers = [("10.0.0.1:80", 1), ("10.0.0.2:80", 2), ("10.0.0.3:80", 3), ("10.0.0.4:80", 1)];
    let group = group(Method::Hash, &servers);
    let last = |key| chosen(&group, &keyed(key)).as_bytes()[7] as char;
    assert_eq!((0..40).map(last).collect::<String>(), PINNED);
    assert_eq!(id("10.0.0.1:80").to_string(), TOKEN);
}

/// Computed by another program from the description in `hash.rs` and `pick.rs`.
const PINNED: &str = "3324332121113224431234322411233332121143";
const TOKEN: &str = "dbbc907f21531a73";

#[test]
fn a_key_is_the_same_whoever_hashes() {
    let group = group(Method::Hash, &[("a", 1), ("b", 1), ("c", 1)]);
    let request = |address: &str| {
        let key = Some(client_key(address.parse().unwrap()));
        chosen(&group, &Request { key, ..Request::default() })
    };
    for n in 0..50 {
        let v4 = request(&format!("192.0.2.{n}"));
        assert_eq!(v4, request(&format!("::ffff:192.0.2.{n}")));
        let v6 = request(&format!("2001:db8:0:{n}::1"));
        assert_eq!(v6, request(&format!("2001:db8:0:{n}:ffff::2")));
    }
}

#[test]
fn full_servers_are_stepped_over() {
    let all = ["a", "b", "c"]
        .map(|name| ServerConfig { max_connections: Some(1), ..server(name, 1) })
        .to_vec();
    let group = hashed(all);
    let mut leases =
        vec![lease(&group, &keyed(7)), lease(&group, &keyed(7)), lease(&group, &keyed(7))];
    assert_eq!(live(&group), [1, 1, 1]);
    assert_eq!(chosen(&group, &keyed(7)), "full");
    let first = leases.remove(0).name().to_string();
    assert_eq!(chosen(&group, &keyed(7)), first);
}

#[test]
fn it_is_fast_enough_for_the_largest_group() {
    let group = hashed((0..MAX_SERVERS).map(|n| server(&format!("server-{n}"), 1)).collect());
    let begin = std::time::Instant::now();
    let used: std::collections::HashSet<_> =
        (0..5000).map(|key| chosen(&group, &keyed(key))).collect();
    // Far above what it takes, to catch only a wrong order of growth.
    assert!(begin.elapsed() < secs(10), "{:?}", begin.elapsed());
    assert!(used.len() > 900, "{}", used.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn gateways_agree_in_any_order(servers in servers(), seed in any::<u64>()) {
        let mut other = servers.clone();
        other.reverse();
        other.rotate_left(usize::from(seed as u8) % servers.len());
        let other = Group::new(config(Method::Hash, other), seed).unwrap();
        prop_assert_eq!(map(&hashed(servers)), map(&other));
    }

    #[test]
    fn only_the_keys_of_a_leaving_or_joining_server_move(servers in servers()) {
        let gone = servers[0].name.to_string();
        let all = map(&hashed(servers.clone()));
        let fewer = map(&hashed(servers[1..].to_vec()));
        for (with, without) in all.iter().zip(&fewer) {
            prop_assert!(with == without || *with == gone);
            prop_assert_ne!(without, &gone);
        }
    }

    #[test]
    fn an_unusable_server_is_as_good_as_gone(servers in servers(), how in 0..5) {
        let gone = servers[0].name.clone();
        let tried = [id(&gone)];
        let fewer = map(&hashed(servers[1..].to_vec()));
        let group = hashed(servers);
        match how {
            0 => drop(group.disable(id(&gone))),
            1 => drop(group.drain(id(&gone))),
            2 => drop(group.set_health(id(&gone), false, secs(0))),
            3 => assert!(group.failed(id(&gone), secs(0)) || fewer.is_empty()),
            _ => {}
        }
        let tried = if how == 4 { &tried[..] } else { &[] };
        for (key, without) in (0..KEYS).zip(&fewer) {
            prop_assert_eq!(&chosen(&group, &Request { tried, ..keyed(key) }), without);
        }
    }

    #[test]
    fn a_larger_weight_only_draws_keys(servers in servers(), more in 1..100_u32) {
        let before = map(&hashed(servers.clone()));
        let mut heavier = servers;
        heavier[0].weight += more;
        let grown = heavier[0].name.to_string();
        for (before, after) in before.iter().zip(map(&hashed(heavier))) {
            prop_assert!(*before == after || after == grown);
        }
    }
}
