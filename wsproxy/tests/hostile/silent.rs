//! Thousands of connections that say nothing.

use std::{
    net::{Ipv4Addr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use wsproxy::limits;

use super::{
    Scene, check_status, client_at, other_client,
    support::{Peer, request, say, status},
    to_the_end,
};

/// Silent connections; fewer, said loudly, where there are not enough descriptors. The program
/// keeps two for each connection, since each may become a session.
const MANY: u64 = 10_000;
/// Places that are free beside them.
const SPARE: u64 = 100;
/// How long one may be silent. All of them come much faster than that, one hopes.
const SILENCE: Duration = Duration::from_secs(4);
/// In bytes, for each: its task, and no buffer before there is something to read. Measured
/// without optimisation: 4.5 KiB.
const MEMORY: u64 = 12 << 10;
/// What the second wave may take beyond the most that the first one took, in KiB: if what the
/// connections of one wave take were not used again, it would be 40 MiB.
const LEFT_KIB: u64 = 20 << 10;

/// Connections of several addresses, opened by several threads.
fn open(scene: &Scene, many: u64) -> Vec<TcpStream> {
    const THREADS: u64 = 4;
    let accepted = scene.proxy.metric("wsproxy_accepted_total");
    let open = |thread: u64| {
        let from = Ipv4Addr::new(127, 0, 1, 1 + thread as u8);
        let numbers = (thread..many).step_by(THREADS as usize);
        numbers.map(|_| client_at(from, scene.proxy.address)).collect::<Vec<_>>()
    };
    let open = &open;
    let streams = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|t| scope.spawn(move || open(t))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    scene.proxy.wait_metric("wsproxy_accepted_total", |n| n == accepted + many);
    streams
}

/// They come, cost little, keep nobody out but those who come when all places are taken, and
/// are asked to leave.
fn wave(scene: &Scene, many: u64) {
    let (timeouts, refusals) =
        (scene.proxy.failures("timeout"), scene.proxy.failures("session_limit"));
    let before = scene.resident();
    let began = Instant::now();
    let mut silent = open(scene, many);
    let memory = scene.resident().saturating_sub(before) * 1024 / many;
    let descriptors = scene.open().saturating_sub(scene.descriptors);
    scene.session_works();
    // Its place is free before it is not counted any more.
    scene.nothing_runs();
    silent.extend(open(scene, SPARE));
    let mut late = Peer::new(other_client(scene.proxy.address));
    late.send(request("").as_bytes());
    let answer = status(&late.head());
    let took = began.elapsed();
    say(&format!("{many} silent connections within {took:.1?}: {memory} bytes of memory each"));
    assert!(memory < MEMORY, "{memory} bytes of memory for each connection");
    if took < SILENCE {
        // All at once; a few others come and go, questions of ours among them.
        assert!(descriptors as u64 + 10 >= many, "{descriptors} descriptors of {many} connections");
        assert_eq!(answer, 503);
        assert_eq!(scene.proxy.failures("session_limit"), refusals + 1);
    } else {
        say("!!! NOT CHECKED: the first of them had left before the last one came");
    }
    let got: Vec<_> = silent.iter_mut().map(to_the_end).collect();
    check_status(&got, 408);
    assert_eq!(scene.proxy.failures("timeout"), timeouts + many + SPARE);
    drop((silent, late));
    scene.nothing_runs();
}

#[test]
fn many_silent_connections_are_asked_to_leave() {
    // The program has no more than we: it inherits what we may raise here.
    let descriptors = limits::raise_descriptors(limits::descriptors_for((MANY + SPARE) as u32));
    let places = u64::from(limits::sessions_for(descriptors));
    let many = MANY.min(places.saturating_sub(SPARE));
    assert!(many > 0, "{descriptors} descriptors are too few");
    if many < MANY {
        say(&format!("!!! ONLY {many} silent connections: no more than {descriptors} descriptors"));
    }
    let mut scene = Scene::new(&format!(
        "[timeouts]\nrequest_head = \"{}s\"\n[limits]\nmax_sessions = {}",
        SILENCE.as_secs(),
        many + SPARE
    ));
    wave(&scene, many);
    // What the first wave took serves the second one. Of the peaks, since the allocator gives
    // memory back when it likes, or does not.
    let first = scene.peak();
    wave(&scene, many);
    let more = scene.peak() - first;
    say(&format!("{more} KiB more in the second wave"));
    assert!(more < LEFT_KIB, "{more} KiB more in the second wave");
    scene.memory = first;
    scene.calms_down();
}
