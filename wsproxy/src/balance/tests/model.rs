//! Long runs of random events, held against a simple model.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Event {
    Acquire { key: u64, sticky: Option<usize>, tried: Vec<usize> },
    Release(prop::sample::Index),
    Failed(usize),
    Succeeded(usize),
    Health(usize, bool),
    Admin(usize, u8),
    Wait(u64),
    Rebuild(u8),
}

const SERVERS: usize = 5;

fn event() -> impl Strategy<Value = Event> {
    let server = 0..SERVERS;
    let tried = prop::collection::vec(server.clone(), 0..3);
    let sticky = prop::option::weighted(0.2, server.clone());
    prop_oneof![
        8 => (any::<u64>(), sticky, tried)
            .prop_map(|(key, sticky, tried)| Event::Acquire { key, sticky, tried }),
        4 => any::<prop::sample::Index>().prop_map(Event::Release),
        2 => server.clone().prop_map(Event::Failed),
        2 => server.clone().prop_map(Event::Succeeded),
        1 => (server.clone(), any::<bool>()).prop_map(|(server, up)| Event::Health(server, up)),
        1 => (server, 0..4_u8).prop_map(|(server, admin)| Event::Admin(server, admin)),
        3 => (0..15_000_u64).prop_map(Event::Wait),
        1 => any::<u8>().prop_map(Event::Rebuild),
    ]
}

fn name(server: usize) -> String {
    format!("s{server}")
}

/// The servers whose bit is set in `mask`; the last one is a backup.
fn build(method: Method, mask: u8) -> GroupConfig {
    let servers = (0..SERVERS)
        .filter(|n| mask >> n & 1 == 1)
        .map(|n| ServerConfig {
            backup: n == SERVERS - 1,
            max_connections: (n % 2 == 0).then_some(2),
            ..server(&name(n), n as u32 + 1)
        })
        .collect();
    GroupConfig { max_fails: 2, slow_start: Some(secs(5)), ..config(method, servers) }
}

/// What the choice must be one of, from the status alone.
fn check(
    method: Method,
    before: &[ServerStatus],
    out: &[ServerId],
    request: &Request<'_>,
    choice: &Choice<Lease>,
) {
    let sticky = request.sticky.and_then(ServerId::from_token);
    let usable = |status: &&ServerStatus| {
        let up = match status.state {
            ServerState::Up | ServerState::SlowStart => true,
            ServerState::Trial => !out.contains(&status.id),
            _ => false,
        };
        up && !request.tried.contains(&status.id)
    };
    let full = |status: &ServerStatus| status.max_connections.is_some_and(|max| status.live >= max);
    let tier = |backup| before.iter().filter(move |s| s.backup == backup).filter(usable);
    let backup = tier(false).next().is_none();
    match choice {
        Choice::Server(lease) => {
            let status = before.iter().find(|status| status.id == lease.id()).unwrap();
            assert!(!full(status) && !request.tried.contains(&status.id), "{status:?}");
            if sticky == Some(status.id) {
                let states = [ServerState::Draining];
                assert!(usable(&status) || states.contains(&status.state), "{status:?}");
                return;
            }
            assert!(usable(&status) && status.backup == backup, "{status:?} of {before:?}");
            if method == Method::LeastConnections && status.state == ServerState::Up {
                let rate = |s: &ServerStatus| f64::from(s.live) / f64::from(s.weight);
                let mut others = tier(backup).filter(|s| s.state == ServerState::Up && !full(s));
                assert!(others.all(|other| rate(other) >= rate(status)), "{before:?}");
            }
        }
        Choice::Full => {
            assert!(tier(backup).next().is_some() && tier(backup).all(full), "{before:?}");
        }
        Choice::Nobody { .. } => {
            assert!(backup && tier(true).next().is_none(), "{before:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_happens_only_usable_servers_are_chosen(
        method in prop::sample::select(&METHODS[..]),
        events in prop::collection::vec(event(), 1..120),
    ) {
        let mut group = Group::new(build(method, 0xff), 1).unwrap();
        let mut now = Duration::ZERO;
        let mut leases: Vec<Lease> = Vec::new();
        // Trials under way: the server, and until when there is no other one.
        let mut trials: Vec<(ServerId, Duration)> = Vec::new();
        for event in events {
            match event {
                Event::Acquire { key, sticky, tried } => {
                    let tried: Vec<_> = tried.into_iter().map(|n| id(&name(n))).collect();
                    let token = sticky.map(|n| id(&name(n)).to_string());
                    let request =
                        Request { key: Some(key), sticky: token.as_deref(), now, tried: &tried };
                    let before = group.status(now);
                    let out: Vec<_> =
                        trials.iter().filter(|(_, until)| *until > now).map(|(id, _)| *id).collect();
                    let choice = group.acquire(&request);
                    check(method, &before, &out, &request, &choice);
                    if let Choice::Server(lease) = choice {
                        let state = before.iter().find(|s| s.id == lease.id()).map(|s| s.state);
                        if state == Some(ServerState::Trial) {
                            trials.push((lease.id(), now + secs(10)));
                        }
                        leases.push(lease);
                    }
                }
                Event::Release(_) if leases.is_empty() => {}
                Event::Release(index) => drop(leases.swap_remove(index.index(leases.len()))),
                Event::Failed(n) => {
                    group.failed(id(&name(n)), now);
                    let states = group.status(now);
                    let state = states.iter().find(|s| s.id == id(&name(n))).map(|s| s.state);
                    if state != Some(ServerState::Trial) {
                        trials.retain(|(trial, _)| *trial != id(&name(n)));
                    }
                }
                Event::Succeeded(n) => {
                    if group.succeeded(id(&name(n)), now) {
                        trials.retain(|(trial, _)| *trial != id(&name(n)));
                    }
                }
                Event::Health(n, up) => {
                    if group.set_health(id(&name(n)), up, now) && up {
                        trials.retain(|(trial, _)| *trial != id(&name(n)));
                    }
                }
                Event::Admin(n, 0) => drop(group.disable(id(&name(n)))),
                Event::Admin(n, 1) => drop(group.drain(id(&name(n)))),
                Event::Admin(n, _) => {
                    group.enable(id(&name(n)), now);
                    trials.retain(|(trial, _)| *trial != id(&name(n)));
                }
                Event::Wait(wait) => now += millis(wait),
                Event::Rebuild(mask) => {
                    group = Group::rebuilt(build(method, mask), &group, now).unwrap();
                    let kept = group.status(now);
                    trials.retain(|(trial, _)| kept.iter().any(|status| status.id == *trial));
                }
            }
            for status in group.status(now) {
                prop_assert!(status.max_connections.is_none_or(|max| status.live <= max));
            }
        }
        leases.clear();
        prop_assert!(live(&group).iter().all(|live| *live == 0));
    }
}
