//! Groups under test.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::*;

mod hashing;
mod model;
mod reload;
mod spread;
mod states;

const METHODS: [Method; 4] =
    [Method::RoundRobin, Method::LeastConnections, Method::Random, Method::Hash];

fn server(name: &str, weight: u32) -> ServerConfig {
    let name = Arc::from(name);
    ServerConfig { name, weight, backup: false, max_connections: None, disabled: false }
}

fn config(method: Method, servers: Vec<ServerConfig>) -> GroupConfig {
    let fail_timeout = secs(10);
    GroupConfig { method, servers, max_fails: 1, fail_timeout, slow_start: None }
}

/// A group of servers by name and weight.
fn group(method: Method, servers: &[(&str, u32)]) -> Group {
    let servers = servers.iter().map(|(name, weight)| server(name, *weight)).collect();
    Group::new(config(method, servers), 1).unwrap()
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn at(now: Duration) -> Request<'static> {
    Request { now, ..Request::default() }
}

fn keyed(key: u64) -> Request<'static> {
    Request { key: Some(hash_key(&key.to_be_bytes())), ..Request::default() }
}

fn id(name: &str) -> ServerId {
    ServerId::of(name)
}

/// The name of the chosen server, "full" or "nobody".
fn chosen(group: &Group, request: &Request<'_>) -> String {
    match group.choose(request) {
        Choice::Server(id) => group.name(id).unwrap().to_string(),
        Choice::Full => "full".to_owned(),
        Choice::Nobody { .. } => "nobody".to_owned(),
    }
}

fn retry_after(group: &Group, request: &Request<'_>) -> Option<Duration> {
    match group.choose(request) {
        Choice::Nobody { retry_after } => retry_after,
        other => panic!("{other:?}"),
    }
}

fn lease(group: &Group, request: &Request<'_>) -> Lease {
    match group.acquire(request) {
        Choice::Server(lease) => lease,
        other => panic!("{other:?}"),
    }
}

/// How often each server is chosen at `now` for the keys from 0 to `count`.
fn counts(group: &Group, now: Duration, count: u64) -> HashMap<String, u64> {
    let mut counts = HashMap::new();
    for key in 0..count {
        *counts.entry(chosen(group, &Request { now, ..keyed(key) })).or_default() += 1;
    }
    counts
}

fn states(group: &Group, now: Duration) -> Vec<&'static str> {
    group.status(now).iter().map(|status| status.state.label()).collect()
}

fn live(group: &Group) -> Vec<u32> {
    group.status(Duration::ZERO).iter().map(|status| status.live).collect()
}
