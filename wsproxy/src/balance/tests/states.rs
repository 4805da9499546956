//! Who is usable, and when.

use super::*;

/// A group of equal servers with `max_fails` and 10 s.
fn failing(names: &[&str], max_fails: u32) -> Group {
    let servers = names.iter().map(|name| server(name, 1)).collect();
    let config = GroupConfig { max_fails, ..config(Method::RoundRobin, servers) };
    Group::new(config, 1).unwrap()
}

fn all_chosen(group: &Group, now: Duration) -> String {
    let mut names: Vec<_> = (0..6).map(|_| chosen(group, &at(now))).collect();
    names.sort();
    names.dedup();
    names.concat()
}

#[test]
fn wrong_configurations() {
    let rr = |servers| config(Method::RoundRobin, servers);
    let name = || Arc::from("a");
    let cases = [
        (rr(vec![server("a", 0)]), GroupError::Weight { name: name(), weight: 0 }),
        (rr(vec![server("a", 1001)]), GroupError::Weight { name: name(), weight: 1001 }),
        (rr(vec![server("a", 1), server("a", 2)]), GroupError::Duplicate { name: name() }),
        (
            rr(vec![ServerConfig { max_connections: Some(0), ..server("a", 1) }]),
            GroupError::MaxConnections { name: name() },
        ),
        (GroupConfig { max_fails: 1001, ..rr(vec![]) }, GroupError::MaxFails { max_fails: 1001 }),
        (
            rr((0..1025).map(|n| server(&n.to_string(), 1)).collect()),
            GroupError::TooManyServers { count: 1025 },
        ),
    ];
    let old = group(Method::RoundRobin, &[("a", 1)]);
    for (config, error) in cases {
        assert_eq!(Group::new(config.clone(), 1).unwrap_err(), error);
        assert_eq!(Group::rebuilt(config, &old, secs(0)).unwrap_err(), error);
    }
}

#[test]
fn a_group_of_nobody() {
    for method in METHODS {
        let group = group(method, &[]);
        assert_eq!(retry_after(&group, &keyed(1)), None);
        assert!(group.begin(id("a")).is_none());
        assert!(!group.failed(id("a"), secs(0)) && !group.enable(id("a"), secs(0)));
        assert_eq!((group.token(id("a")), group.name(id("a"))), (None, None));
    }
}

#[test]
fn failures_within_the_window_take_a_server_out() {
    // (times of failures in ms, whether the last one takes it out)
    let cases: &[(&[u64], bool)] = &[
        (&[0], false),
        (&[0, 1], false),
        (&[0, 1, 2], true),
        (&[0, 5000, 10_000], true),
        (&[0, 5000, 10_001], false),
        (&[0, 5000, 10_001, 14_999], true),
        (&[0, 11_000, 22_000, 33_000], false),
    ];
    for (times, out) in cases {
        let group = failing(&["a", "b"], 3);
        let last =
            times.iter().map(|time| group.failed(id("a"), millis(*time))).collect::<Vec<_>>();
        assert_eq!(last.last(), Some(out), "{times:?}");
        assert!(!last[..last.len() - 1].contains(&true), "{times:?}");
        let now = millis(*times.last().unwrap());
        assert_eq!(all_chosen(&group, now), if *out { "b" } else { "ab" }, "{times:?}");
        assert_eq!(group.status(now)[0].failures, times.len() as u64);
    }
}

#[test]
fn one_trial_decides_if_a_server_is_back() {
    let group = failing(&["a", "b"], 1);
    assert!(group.failed(id("a"), secs(0)));
    assert!(!group.failed(id("a"), secs(5)), "a late failure changes nothing");
    assert!(!group.succeeded(id("a"), secs(5)), "nor does a late success");
    assert_eq!(
        (all_chosen(&group, secs(9)), states(&group, secs(9))),
        ("b".into(), vec!["failed", "up"])
    );
    // The trial: one request of many.
    assert_eq!(states(&group, secs(10)), ["trial", "up"]);
    let of_a = |now| counts(&group, now, 20).get("a").copied().unwrap_or(0);
    assert_eq!((of_a(secs(10)), of_a(secs(19))), (1, 0));
    // Nobody said how it went: the next one.
    assert_eq!((of_a(secs(20)), of_a(secs(21))), (1, 0));
    assert!(!group.failed(id("a"), secs(22)), "it was out already");
    assert_eq!((of_a(secs(31)), of_a(secs(32)), of_a(secs(33))), (0, 1, 0));
    assert!(group.succeeded(id("a"), secs(34)));
    assert!(!group.succeeded(id("a"), secs(34)));
    assert_eq!((of_a(secs(34)), states(&group, secs(34))), (10, vec!["up", "up"]));
    assert!(group.failed(id("a"), secs(35)));
}

#[test]
fn only_one_thread_gets_the_trial() {
    for _ in 0..20 {
        let group = failing(&["a", "b"], 1);
        group.failed(id("a"), secs(0));
        let trials = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let of_a = lease(&group, &at(secs(10))).id() == id("a");
                        trials.fetch_add(of_a.into(), std::sync::atomic::Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(trials.into_inner(), 1);
    }
}

#[test]
fn who_is_never_taken_out() {
    let single = failing(&["a"], 1);
    let never = failing(&["a", "b"], 0);
    for group in [single, never] {
        for _ in 0..5 {
            assert!(!group.failed(id("a"), secs(0)));
        }
        assert_eq!((group.status(secs(0))[0].failures, states(&group, secs(0))[0]), (5, "up"));
        assert!(all_chosen(&group, secs(0)).contains('a'));
    }
}

#[test]
fn nobody_is_asked_when_all_are_out() {
    for method in METHODS {
        let group = group(method, &[("a", 1), ("b", 1)]);
        group.failed(id("a"), secs(1));
        group.failed(id("b"), secs(3));
        let at = |now| Request { now, ..keyed(1) };
        assert_eq!(retry_after(&group, &at(secs(4))), Some(secs(7)));
        group.disable(id("a"));
        assert_eq!(retry_after(&group, &at(secs(4))), Some(secs(9)));
        group.set_health(id("b"), false, secs(4));
        assert_eq!(retry_after(&group, &at(secs(4))), None);
        group.enable(id("a"), secs(5));
        assert_eq!(chosen(&group, &at(secs(5))), "a");
        let tried = &[id("a"), id("b")];
        assert_eq!(retry_after(&group, &Request { tried, ..at(secs(5)) }), Some(secs(0)));
    }
}

#[test]
fn health_checks_and_the_operator() {
    let group = failing(&["a", "b"], 1);
    assert!(!group.set_health(id("a"), true, secs(0)), "no news");
    assert!(group.set_health(id("a"), false, secs(0)));
    assert!(!group.set_health(id("a"), false, secs(0)));
    assert_eq!(
        (all_chosen(&group, secs(0)), states(&group, secs(0))),
        ("b".into(), vec!["unhealthy", "up"])
    );
    group.failed(id("a"), secs(0));
    assert!(group.set_health(id("a"), true, secs(1)), "this also forgets the failure");
    assert_eq!(all_chosen(&group, secs(1)), "ab");
    // A check that stays up says nothing about failed requests.
    group.failed(id("a"), secs(2));
    assert!(!group.set_health(id("a"), true, secs(3)));
    assert_eq!(all_chosen(&group, secs(3)), "b");
    assert!(group.enable(id("a"), secs(3)));
    assert_eq!(all_chosen(&group, secs(3)), "ab");
    for (order, label) in
        [(Group::drain as fn(&Group, ServerId) -> bool, "draining"), (Group::disable, "disabled")]
    {
        let held = group.begin(id("a"));
        assert!(held.is_some() && order(&group, id("a")));
        assert_eq!(
            (all_chosen(&group, secs(3)), states(&group, secs(3))),
            ("b".into(), vec![label, "up"])
        );
        assert_eq!(live(&group), [1, 0]);
        group.enable(id("a"), secs(4));
        assert_eq!(all_chosen(&group, secs(4)), "ab");
    }
}

#[test]
fn backups_wait_until_no_primary_server_is_usable() {
    for method in METHODS {
        let servers = vec![
            ServerConfig { backup: true, ..server("b", 5) },
            ServerConfig { max_connections: Some(1), ..server("p", 1) },
            server("q", 1),
        ];
        let group = Group::new(config(method, servers), 1).unwrap();
        assert!(!counts(&group, secs(0), 100).contains_key("b"));
        group.disable(id("q"));
        let held = lease(&group, &keyed(1));
        assert_eq!(chosen(&group, &keyed(1)), "full", "a full server is usable");
        let tried = &[id("p")];
        assert_eq!(chosen(&group, &Request { tried, ..keyed(1) }), "b");
        drop(held);
        assert_eq!(chosen(&group, &keyed(1)), "p");
        group.failed(id("p"), secs(0));
        assert_eq!(chosen(&group, &keyed(1)), "b");
        assert_eq!(group.status(secs(0)).iter().map(|s| &*s.name).collect::<String>(), "pqb");
    }
}

#[test]
fn sticky_clients_stay_while_their_server_is_usable() {
    for method in METHODS {
        let servers = vec![
            ServerConfig { max_connections: Some(1), ..server("a", 1) },
            server("b", 1),
            ServerConfig { backup: true, ..server("c", 1) },
        ];
        let group = Group::new(config(method, servers), 1).unwrap();
        let token = |name: &str| group.token(id(name)).unwrap();
        let (a, b, c) = (token("a"), token("b"), token("c"));
        let go =
            |token: &str, now| chosen(&group, &Request { sticky: Some(token), now, ..keyed(3) });
        for _ in 0..3 {
            assert_eq!([&a, &b, &c].map(|token| go(token, secs(0))).concat(), "abc");
        }
        let tried = [id("a")];
        let request = Request { sticky: Some(&a), tried: &tried, ..keyed(3) };
        assert_eq!(chosen(&group, &request), "b");
        let held = group.begin(id("a"));
        assert_eq!(go(&a, secs(0)), "b", "full");
        drop(held);
        group.drain(id("a"));
        assert_eq!(go(&a, secs(0)), "a", "draining");
        assert_eq!(counts(&group, secs(0), 20).len(), 1, "others do not come");
        group.disable(id("a"));
        assert_eq!(go(&a, secs(0)), "b", "disabled");
        group.enable(id("a"), secs(0));
        group.failed(id("a"), secs(0));
        assert_eq!(go(&a, secs(1)), "b", "failed");
        assert_eq!((go(&a, secs(10)), go(&a, secs(10))), ("a".into(), "b".into()), "the trial");
        group.succeeded(id("a"), secs(11));
        group.set_health(id("a"), false, secs(11));
        assert_eq!(go(&a, secs(11)), "b", "unhealthy");
        for wrong in
            ["", "a", "é", "+000000000000001", &a[1..], &format!("{a}0"), "A0000000000000000"]
        {
            assert_eq!(go(wrong, secs(11)), "b", "{wrong}");
        }
        assert_eq!(ServerId::from_token(&a), Some(id("a")));
        assert_eq!(ServerId::from_token(&"AB".repeat(8)), None);
    }
}

#[test]
fn counts_of_connections() {
    let servers = vec![ServerConfig { max_connections: Some(2), ..server("a", 1) }];
    let group = Group::new(config(Method::RoundRobin, servers), 1).unwrap();
    let one = lease(&group, &Request::default());
    let two = group.begin(id("a")).unwrap();
    assert!(group.begin(id("a")).is_none());
    assert!(matches!(group.acquire(&Request::default()), Choice::Full));
    assert_eq!((one.id(), &**two.name()), (id("a"), "a"));
    drop(one);
    drop(two);
    let status = &group.status(secs(0))[0];
    assert_eq!((status.live, status.total, status.max_connections), (0, 2, Some(2)));
}
