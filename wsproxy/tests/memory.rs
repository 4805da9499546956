//! What an idle session costs in user space: less than 1 KiB, whatever its handshake needed.
#![cfg(target_os = "linux")]

mod support;

use std::fs;

use support::{ACCEPT, Peer, Proxy, Server, request, say, sockmap, status, switch};
use wsproxy::limits;

/// Sessions to measure; fewer where descriptors don't suffice for our own ends of them.
const SESSIONS: u64 = 5_000;
/// Sessions before the first measurement: threads, arenas and tables are there after them.
const WARM_UP: u64 = 200;
/// Handshakes under way at the same time.
const AT_ONCE: u64 = 50;
/// Descriptors of this process for everything else.
const RESERVED: u64 = 200;
/// Private memory per session, in bytes, at most.
const MOST: i64 = 1024;

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    /// Its own: heap, stacks, data.
    private: i64,
    /// Mapped from BPF maps: the records of sessions, which the kernel allocated at the start.
    bpf: i64,
}

impl Memory {
    fn of(pid: u32) -> Self {
        let mut memory = Self::default();
        let mut of_bpf = false;
        for line in fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap().lines() {
            let mut words = line.split_whitespace();
            let field = words.next().unwrap();
            let mut bytes = || words.next().unwrap().parse::<i64>().unwrap() * 1024;
            match field {
                "Rss:" if of_bpf => memory.bpf += bytes(),
                "Private_Clean:" | "Private_Dirty:" if !of_bpf => memory.private += bytes(),
                // The first line of a mapping; its fields have a colon.
                _ if !field.ends_with(':') => of_bpf = line.contains("bpf"),
                _ => {}
            }
        }
        memory
    }
}

/// Opens this many sessions, some of them at the same time.
fn open(proxy: &Proxy, server: &Server, count: u64) -> Vec<(Peer, Peer)> {
    let mut sessions = Vec::new();
    let mut left = count;
    while left > 0 {
        let now = left.min(AT_ONCE);
        left -= now;
        let mut clients: Vec<_> = (0..now)
            .map(|_| {
                let mut client = proxy.connect();
                client.send(request("").as_bytes());
                client
            })
            .collect();
        let mut upstreams: Vec<_> = clients.iter().map(|_| server.accept()).collect();
        for upstream in &mut upstreams {
            upstream.head();
            upstream.send(switch("").as_bytes());
        }
        for client in &mut clients {
            let head = client.head();
            assert_eq!(status(&head), 101, "{head}");
            assert!(head.contains(ACCEPT), "{head}");
        }
        // Which belongs to which does not matter: nothing is sent.
        sessions.extend(clients.into_iter().zip(upstreams));
    }
    proxy.wait_metric("wsproxy_sessions{datapath=\"sockmap\"}", |n| n == count);
    sessions
}

fn close(proxy: &Proxy, sessions: Vec<(Peer, Peer)>) {
    drop(sessions);
    proxy.wait_metric("wsproxy_sessions{datapath=\"sockmap\"}", |n| n == 0);
}

#[test]
fn an_idle_session_costs_less_than_a_kibibyte() {
    let descriptors = limits::raise_descriptors(SESSIONS * 2 + RESERVED);
    let count = SESSIONS.min(descriptors.saturating_sub(RESERVED) / 2);
    assert!(count >= 100, "{descriptors} descriptors are too few to measure anything");
    let server = Server::start();
    let limits = format!("[limits]\nmax_sessions = {SESSIONS}");
    let Some(proxy) = sockmap(&[server.address], &limits) else { return };
    close(&proxy, open(&proxy, &server, WARM_UP.min(count)));
    let before = Memory::of(proxy.pid());
    let sessions = open(&proxy, &server, count);
    let with = Memory::of(proxy.pid());
    close(&proxy, sessions);
    let after = Memory::of(proxy.pid());

    assert!(before.private > 0 && before.bpf > 0, "nothing is measured: {before:?}");
    let each = |bytes: i64| bytes / i64::try_from(count).unwrap();
    let private = each(with.private - before.private);
    say(&format!(
        "{count} idle sessions: {private} bytes of private memory each, {} of the BPF records; \
         KiB private before/with/after: {}/{}/{}, BPF records: {}/{}/{}",
        each(with.bpf - before.bpf),
        before.private / 1024,
        with.private / 1024,
        after.private / 1024,
        before.bpf / 1024,
        with.bpf / 1024,
        after.bpf / 1024,
    ));
    assert!(private < MOST, "{private} bytes of private memory per session");
    assert_eq!(proxy.metric("wsproxy_sessions_total"), WARM_UP.min(count) + count);
    proxy.stop();
}
