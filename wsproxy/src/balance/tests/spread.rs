//! Requests go to the servers in proportion to their weights.

use std::thread;

use proptest::prelude::*;

use super::*;

#[test]
fn round_robin_is_smooth() {
    // nginx's own example for its algorithm.
    let group = group(Method::RoundRobin, &[("a", 5), ("b", 1), ("c", 1)]);
    let order: String = (0..14).map(|_| chosen(&group, &Request::default())).collect();
    assert_eq!(order, "aabacaaaabacaa");
}

#[test]
fn a_request_without_a_key_goes_round_robin() {
    let group = group(Method::Hash, &[("a", 1), ("b", 1)]);
    let order: String = (0..4).map(|_| chosen(&group, &Request::default())).collect();
    assert_eq!(order, "abab");
}

#[test]
fn least_connections_takes_turns_among_equals() {
    let group = group(Method::LeastConnections, &[("a", 2), ("b", 1), ("c", 1)]);
    let order: String = (0..8).map(|_| chosen(&group, &Request::default())).collect();
    assert_eq!(order, "abcaabca");
    let leases: Vec<_> = (0..40).map(|_| lease(&group, &Request::default())).collect();
    assert_eq!(live(&group), [20, 10, 10]);
    drop(leases);
    assert_eq!(live(&group), [0, 0, 0]);
}

#[test]
fn the_best_of_two_evens_out_connections() {
    let group = group(Method::Random, &[("a", 2), ("b", 1), ("c", 1), ("d", 1)]);
    let _leases: Vec<_> = (0..5000).map(|_| lease(&group, &Request::default())).collect();
    for (live, share) in live(&group).into_iter().zip([2000, 1000, 1000, 1000]) {
        assert!(live.abs_diff(share) <= 20, "{live} of {share}");
    }
}

#[test]
fn of_two_servers_the_less_loaded_one_is_chosen() {
    let group = group(Method::Random, &[("a", 1), ("b", 1)]);
    let mut leases = Vec::new();
    for _ in 0..100 {
        leases.push(lease(&group, &Request::default()));
        assert!(live(&group)[0].abs_diff(live(&group)[1]) <= 1);
    }
}

#[test]
fn two_seeds_draw_differently() {
    let servers = || vec![server("a", 1), server("b", 1)];
    let draws = |seed| {
        let group = Group::new(config(Method::Random, servers()), seed).unwrap();
        (0..64).map(|_| chosen(&group, &Request::default())).collect::<String>()
    };
    assert_eq!(draws(1), draws(1));
    assert_ne!(draws(1), draws(2));
}

#[test]
fn slow_start_grows_in_proportion_to_time() {
    for (method, bound) in [(Method::RoundRobin, 1), (Method::Random, 200)] {
        let servers = vec![server("a", 10), server("b", 10)];
        let config = GroupConfig { slow_start: Some(secs(10)), ..config(method, servers) };
        let group = Group::new(config, 1).unwrap();
        assert_eq!(states(&group, secs(0)), ["up", "up"]);
        group.set_health(id("b"), false, secs(0));
        assert_eq!(counts(&group, secs(0), 100), HashMap::from([("a".to_owned(), 100)]));
        group.set_health(id("b"), true, secs(100));
        assert_eq!(states(&group, secs(100)), ["up", "slow_start"]);
        // (seconds, the share of b in percent of its weight)
        for (now, percent) in [(100, 1), (101, 10), (105, 50), (109, 90), (110, 100), (500, 100)] {
            let of_b = counts(&group, secs(now), 10_000).get("b").copied().unwrap_or(0);
            let expected = 10_000 * percent / (100 + percent);
            assert!(of_b.abs_diff(expected) <= bound, "{method:?} {now}: {of_b} of {expected}");
        }
        assert_eq!(states(&group, secs(110)), ["up", "up"]);
    }
}

#[test]
fn slow_start_keeps_least_connections_from_flooding_a_new_server() {
    let servers = vec![server("a", 1), server("b", 1)];
    let config =
        GroupConfig { slow_start: Some(secs(10)), ..config(Method::LeastConnections, servers) };
    let group = Group::new(config, 1).unwrap();
    group.disable(id("b"));
    let _before: Vec<_> = (0..100).map(|_| lease(&group, &Request::default())).collect();
    group.enable(id("b"), secs(0));
    let _after: Vec<_> = (0..10).map(|_| lease(&group, &at(secs(1)))).collect();
    assert_eq!(live(&group), [100, 10]);
    let _later: Vec<_> = (0..11).map(|_| lease(&group, &at(secs(1)))).collect();
    assert_eq!(live(&group), [110, 11]);
    let _full: Vec<_> = (0..99).map(|_| lease(&group, &at(secs(10)))).collect();
    assert_eq!(live(&group), [110, 110]);
}

#[test]
fn threads_never_exceed_max_connections_and_leases_balance_to_zero() {
    for method in METHODS {
        let servers = (0..4)
            .map(|n| ServerConfig { max_connections: Some(3), ..server(&format!("s{n}"), n + 1) })
            .collect();
        let group = Group::new(config(method, servers), 1).unwrap();
        let work = |thread: u64| {
            let mut held = Vec::new();
            for round in 0..2000 {
                match group.acquire(&keyed(thread * 10_000 + round)) {
                    Choice::Server(lease) => held.push(lease),
                    Choice::Full => held.clear(),
                    Choice::Nobody { .. } => panic!("nobody"),
                }
                assert!(live(&group).into_iter().all(|live| live <= 3));
            }
        };
        thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || work(thread));
            }
        });
        assert_eq!(live(&group), [0; 4]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn round_robin_is_exact(weights in prop::collection::vec(1..50_u32, 1..12)) {
        let servers: Vec<_> =
            weights.iter().enumerate().map(|(n, w)| server(&format!("s{n}"), *w)).collect();
        let total: u32 = weights.iter().sum();
        for method in [Method::RoundRobin, Method::LeastConnections] {
            let group = Group::new(config(method, servers.clone()), 1).unwrap();
            for _ in 0..3 {
                let counts = counts(&group, secs(0), total.into());
                for server in &servers {
                    prop_assert_eq!(counts[&*server.name], u64::from(server.weight));
                }
            }
        }
    }

    #[test]
    fn random_and_hash_follow_the_weights(
        weights in prop::collection::vec(1..20_u32, 1..8), seed in any::<u64>(),
    ) {
        const DRAWS: u64 = 20_000;
        let servers: Vec<_> =
            weights.iter().enumerate().map(|(n, w)| server(&format!("{seed}.{n}"), *w)).collect();
        let total = f64::from(weights.iter().sum::<u32>());
        for method in [Method::Random, Method::Hash] {
            let group = Group::new(config(method, servers.clone()), seed).unwrap();
            let counts = counts(&group, secs(0), DRAWS);
            for server in &servers {
                let share = f64::from(server.weight) / total;
                let expected = DRAWS as f64 * share;
                // Six standard deviations of the binomial distribution.
                let bound = 6.0 * (expected * (1.0 - share)).sqrt() + 1.0;
                let count = counts.get(&*server.name).copied().unwrap_or(0) as f64;
                prop_assert!((count - expected).abs() <= bound, "{method:?} {count} {expected}");
            }
        }
    }
}
