//! Groups that are built anew.

use super::*;

fn rebuilt(old: &Group, servers: Vec<ServerConfig>, now: Duration) -> Group {
    Group::rebuilt(config(Method::RoundRobin, servers), old, now).unwrap()
}

#[test]
fn servers_that_stay_keep_their_counts_and_states() {
    let old = group(Method::LeastConnections, &[("a", 1), ("b", 1), ("c", 1), ("d", 1), ("e", 1)]);
    let leases = ["a", "a", "e"].map(|name| old.begin(id(name)).unwrap());
    old.failed(id("b"), secs(1));
    old.drain(id("c"));
    old.set_health(id("d"), false, secs(1));
    let names = ["f", "d", "c", "b", "a"];
    let new = rebuilt(&old, names.map(|name| server(name, 7)).to_vec(), secs(2));
    assert_eq!(states(&new, secs(2)), ["up", "unhealthy", "draining", "failed", "up"]);
    assert_eq!(live(&new), [0, 0, 0, 0, 2]);
    assert_eq!(new.status(secs(2))[3].failures, 1);
    assert!(new.begin(id("e")).is_none());
    assert!(!new.failed(id("e"), secs(2)), "reports on a server that is gone are no news");
    // Both groups go on with one state.
    let more = old.begin(id("a"));
    assert_eq!(live(&new), [0, 0, 0, 0, 3]);
    drop((leases, more));
    drop(old);
    assert_eq!(live(&new), [0; 5]);
}

#[test]
fn a_server_that_returns_begins_afresh() {
    let first = group(Method::RoundRobin, &[("a", 1), ("b", 1)]);
    let lease = first.begin(id("a"));
    first.failed(id("a"), secs(0));
    let second = rebuilt(&first, vec![server("b", 1)], secs(1));
    let third = rebuilt(&second, vec![server("a", 1), server("b", 1)], secs(2));
    assert_eq!((states(&third, secs(2)), live(&third)), (vec!["up", "up"], vec![0, 0]));
    drop(lease);
    assert_eq!((live(&third), live(&first)), (vec![0, 0], vec![0, 0]));
}

#[test]
fn a_changed_setting_wins_over_the_operator_and_an_unchanged_one_does_not() {
    let with = |disabled| vec![ServerConfig { disabled, ..server("a", 1) }, server("b", 1)];
    // (configured before, the operator enables or not, configured after, state)
    let cases = [
        (false, None, false, "up"),
        (false, None, true, "disabled"),
        (false, Some(false), false, "disabled"),
        (false, Some(false), true, "disabled"),
        (true, None, true, "disabled"),
        (true, None, false, "up"),
        (true, Some(true), true, "up"),
        (true, Some(true), false, "up"),
    ];
    for (before, order, after, state) in cases {
        let old = Group::new(config(Method::RoundRobin, with(before)), 1).unwrap();
        match order {
            Some(true) => assert!(old.enable(id("a"), secs(0))),
            Some(false) => assert!(old.disable(id("a"))),
            None => {}
        }
        let new = rebuilt(&old, with(after), secs(1));
        assert_eq!(states(&new, secs(1))[0], state, "{before} {order:?} {after}");
    }
}

#[test]
fn a_wrong_configuration_changes_nothing() {
    let old = group(Method::RoundRobin, &[("a", 1), ("b", 1)]);
    let servers = vec![ServerConfig { disabled: true, ..server("a", 1) }, server("b", 0)];
    let wrong = config(Method::RoundRobin, servers);
    assert!(Group::rebuilt(wrong, &old, secs(0)).is_err());
    assert_eq!(states(&old, secs(0)), ["up", "up"]);
}

#[test]
fn new_servers_start_slowly() {
    let old = group(Method::RoundRobin, &[("a", 1)]);
    let servers = vec![server("a", 1), server("b", 1)];
    let slow = GroupConfig { slow_start: Some(secs(10)), ..config(Method::RoundRobin, servers) };
    let new = Group::rebuilt(slow, &old, secs(100)).unwrap();
    assert_eq!(states(&new, secs(105)), ["up", "slow_start"]);
    assert_eq!(counts(&new, secs(105), 30), HashMap::from([("a".into(), 20), ("b".into(), 10)]));
    assert_eq!(states(&new, secs(110)), ["up", "up"]);
}

#[test]
fn the_only_server_left_is_asked_again() {
    let old = group(Method::RoundRobin, &[("a", 1), ("b", 1)]);
    old.failed(id("a"), secs(0));
    let new = rebuilt(&old, vec![server("a", 1)], secs(1));
    assert_eq!((chosen(&new, &at(secs(1))), states(&new, secs(1))), ("a".into(), vec!["up"]));
    new.succeeded(id("a"), secs(1));
    let back = rebuilt(&new, vec![server("a", 1), server("b", 1)], secs(2));
    assert_eq!(states(&back, secs(2)), ["up", "up"]);
}

#[test]
fn turns_go_on_through_rebuilding() {
    let servers = || vec![server("a", 3), server("b", 2), server("c", 1)];
    let mut group = Group::new(config(Method::RoundRobin, servers()), 1).unwrap();
    let mut order = String::new();
    for n in 0..12 {
        order += &chosen(&group, &Request::default());
        let mut servers = servers();
        servers.rotate_left(n % 3);
        group = rebuilt(&group, servers, secs(0));
    }
    let count = |name| order.matches(name).count();
    assert_eq!((count("a"), count("b"), count("c")), (6, 4, 2), "{order}");
}

#[test]
fn a_group_that_keeps_changing_stays_fair() {
    let mut group = group(Method::RoundRobin, &[]);
    let mut counts = [0_u32; 8];
    for round in 0..4000_usize {
        let names = (0..8).filter(|n| *n == 0 || *n == 7 || (round / 3 + n) % 5 != 0);
        let servers = names.map(|n| server(&n.to_string(), 1)).collect();
        group = rebuilt(&group, servers, secs(0));
        for _ in 0..2 {
            let name: usize = chosen(&group, &Request::default()).parse().unwrap();
            counts[name] += 1;
        }
    }
    assert!(counts.iter().all(|count| (500..2000).contains(count)), "{counts:?}");
}
