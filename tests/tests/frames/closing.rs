//! How sessions end: Close frames, sides that leave, rules that are broken.

use super::*;

over_all!(
    close_says_why_to_both_sides,
    close_waits_for_the_end_of_a_frame,
    close_in_a_frame_that_never_ends_is_a_reset,
    close_comes_between_the_fragments_of_a_long_message,
    peers_that_are_closing_get_no_second_close,
    a_server_that_leaves_without_a_close,
    a_server_that_leaves_inside_a_frame,
    bad_frames_are_refused,
    long_messages_are_refused,
    half_closed_sessions_end,
    closes_are_spread,
);

fn close_says_why_to_both_sides(mode: Mode) {
    let Some(bench) = Bench::start(options(mode)) else { return };
    let mut ends = open(&bench, terms(PLAN));
    ends.greet();
    let shown = bench.datapath.sessions_with_tcp().pop().unwrap();
    assert!(shown.tcp.iter().all(|view| view.is_some_and(|view| view.rtt_us > 0)), "{shown:?}");
    assert!(bench.datapath.sessions()[0].tcp.iter().all(Option::is_none));
    close_all(&bench, &Farewell::new(1012, "back soon"));
    let told = Some((1012, "back soon".to_owned()));
    assert_eq!(ends.to_client.frame().unwrap().close(), told);
    assert_eq!(ends.to_server.frame().unwrap().close(), told);
    ends.say_goodbye(1012);
    let end = end_of(&bench);
    assert_eq!((end.ending, end.reset), (Ending::Closed, false));
    assert_eq!((end.codes.to_client, end.codes.to_upstream), (1012, 1012));
}

fn close_waits_for_the_end_of_a_frame(mode: Mode) {
    let Some(bench) = Bench::start(options(mode)) else { return };
    let mut ends = open(&bench, terms(PLAN));
    ends.greet();
    let whole = frame(0x82, false, &[9; 70_000]);
    ends.server.write_all(&whole[..30_000]).unwrap();
    arrived(&ends.client, 30_000);
    close_all(&bench, &Farewell::default());
    // The server is told at once; the client only behind its frame.
    assert_eq!(ends.to_server.frame().unwrap().close().unwrap().0, 1001);
    assert_eq!(ends.to_client.frame_within(Duration::from_millis(100)), None);
    ends.server.write_all(&whole[30_000..]).unwrap();
    ends.server.write_all(&frame(0x81, false, b"too late")).unwrap();
    assert_eq!(ends.to_client.frame().unwrap().payload, [9; 70_000]);
    assert_eq!(ends.to_client.frame().unwrap().close().unwrap().0, 1001);
    ends.say_goodbye(1001);
    assert!(!end_of(&bench).reset);
}

fn close_in_a_frame_that_never_ends_is_a_reset(mode: Mode) {
    let drain = Duration::from_millis(500);
    let Some(bench) = Bench::start(Options { drain, ..options(mode) }) else { return };
    let mut ends = open(&bench, terms(PLAN));
    ends.greet();
    ends.client.write_all(&frame(0x82, true, &[9; 70_000])[..30_000]).unwrap();
    arrived(&ends.server, 30_000);
    close_all(&bench, &Farewell::default());
    assert_eq!(ends.to_client.frame().unwrap().close().unwrap().0, 1001);
    let end = end_of(&bench);
    assert_eq!((end.ending, end.reset), (Ending::Closed, true));
    assert_eq!((end.codes.to_client, end.codes.to_upstream), (1001, 0));
}

/// Fragments of 1 MiB of a message.
const FRAGMENTS: usize = 200;

/// A drain in the middle of 200 MiB.
fn close_comes_between_the_fragments_of_a_long_message(mode: Mode) {
    let Some(bench) = Bench::start(options(mode)) else { return };
    let mut ends = open(&bench, terms(PLAN));
    ends.greet();
    let piece = vec![3; 1 << 20];
    thread::scope(|scope| {
        let mut server = ends.server.try_clone().unwrap();
        scope.spawn(move || {
            for nth in 0..FRAGMENTS {
                let opcode = if nth == 0 { 2 } else { 0 };
                let fin = if nth == FRAGMENTS - 1 { 0x80 } else { 0 };
                server.write_all(&frame(fin | opcode, false, &piece)).unwrap();
            }
            server.write_all(&close(false, 1001, "")).unwrap();
        });
        let mut fragments = 0;
        loop {
            let next = ends.to_client.frame().unwrap();
            if let Some((code, _)) = next.close() {
                assert_eq!(code, 1001);
                break;
            }
            assert_eq!(next.payload.len(), 1 << 20);
            fragments += 1;
            if fragments == 10 {
                close_all(&bench, &Farewell::default());
            }
        }
        assert!((10..FRAGMENTS).contains(&fragments), "{fragments} fragments");
        ends.client.write_all(&close(true, 1001, "")).unwrap();
        assert_eq!(ends.to_client.frame(), None);
        assert_eq!(ends.to_server.frame().unwrap().close().unwrap().0, 1001);
        assert_eq!(ends.to_server.frame(), None);
    });
    drop(ends);
    assert!(!end_of(&bench).reset);
}

fn peers_that_are_closing_get_no_second_close(mode: Mode) {
    let Some(bench) = Bench::start(options(mode)) else { return };
    let mut ends = open(&bench, terms(PLAN));
    ends.greet();
    ends.client.write_all(&close(true, 1000, "enough")).unwrap();
    assert_eq!(ends.to_server.frame().unwrap().close(), Some((1000, "enough".into())));
    close_all(&bench, &Farewell::default());
    // Behind the client's Close there is nothing but the end; the server has not closed yet.
    assert_eq!(ends.to_server.frame(), None);
    assert_eq!(ends.to_client.frame().unwrap().close().unwrap().0, 1001);
    drop(ends);
    let end = end_of(&bench);
    assert_eq!((end.codes.of_client, end.codes.to_upstream), (1000, 0));
}

fn a_server_that_leaves_without_a_close(mode: Mode) {
    // A reset goes through the packet path as it is: see below.
    let resets: &[bool] = if mode == Mode::Packet { &[false] } else { &[false, true] };
    for &reset in resets {
        let Some(bench) = Bench::start(options(mode)) else { return };
        let mut ends = open(&bench, terms(PLAN));
        ends.greet();
        ends.server.write_all(&frame(0x81, false, b"last words")).unwrap();
        assert_eq!(ends.to_client.frame().unwrap().payload, b"last words");
        if reset {
            let linger = Some(Duration::ZERO);
            rustix::net::sockopt::set_socket_linger(&ends.server, linger).unwrap();
        }
        drop((ends.server, ends.to_server));
        assert_eq!(ends.to_client.frame().unwrap().close(), Some((1014, String::new())));
        // The end comes behind the client's answer.
        assert_eq!(ends.to_client.frame_within(Duration::from_millis(50)), None);
        ends.client.write_all(&close(true, 1014, "")).unwrap();
        assert_eq!(ends.to_client.frame(), None);
        drop((ends.client, ends.to_client));
        let end = end_of(&bench);
        let expected = if reset { Ending::UpstreamBroke } else { Ending::UpstreamFinished };
        assert_eq!((end.ending, end.codes.to_client), (expected, 1014), "{end:?}");
        assert_eq!(end.error.is_some(), reset, "{end:?}");
    }
}

/// What comes out of a packet's translation is a packet: nobody is there to make a Close of it.
#[test]
fn a_reset_goes_through_the_packet_path() {
    let Some(bench) = Bench::start(options(Mode::Packet)) else { return };
    let mut ends = open(&bench, terms(PLAN));
    let translated = || bench.datapath.sessions().iter().any(|s| s.path == Path::Packet);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !translated() {
        assert!(Instant::now() < deadline, "the packets are not translated");
        ends.greet();
        thread::sleep(Duration::from_millis(2));
    }
    rustix::net::sockopt::set_socket_linger(&ends.server, Some(Duration::ZERO)).unwrap();
    drop((ends.server, ends.to_server));
    let end = std::io::Read::read(&mut ends.client, &mut [0]);
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    let end = end_of(&bench);
    assert_eq!((end.ending, end.codes.to_client), (Ending::UpstreamBroke, 0), "{end:?}");
}

fn a_server_that_leaves_inside_a_frame(mode: Mode) {
    let Some(bench) = Bench::start(options(mode)) else { return };
    let mut ends = open(&bench, terms(PLAN));
    ends.greet();
    let half = &frame(0x81, false, b"never complete")[..9];
    ends.server.write_all(half).unwrap();
    drop((ends.server, ends.to_server));
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut ends.client, &mut rest).unwrap();
    assert_eq!(rest, half, "a Close would be taken for payload");
    drop((ends.client, ends.to_client));
    assert_eq!(end_of(&bench).codes.to_client, 0);
}

fn bad_frames_are_refused(mode: Mode) {
    let Some(bench) = Bench::start(options(mode)) else { return };
    let mut ends = open(&bench, terms(FramePlan { enforce: true, ..PLAN }));
    ends.greet();
    let good = frame(0x81, true, b"good");
    let bad = frame(0x83, true, b"opcode 3");
    ends.client.write_all(&[&good[..], &bad, &good].concat()).unwrap();
    assert_eq!(ends.to_server.frame().unwrap().payload, b"good");
    assert_eq!(ends.to_server.frame().unwrap().close().unwrap().0, 1001);
    let told = ends.to_client.frame().unwrap().close();
    assert_eq!(told, Some((1002, "reserved_opcode".into())));
    // No answer is waited for from a side that can't be understood.
    assert_eq!(ends.to_client.frame(), None);
    drop((ends.client, ends.to_client));
    ends.server.write_all(&close(false, 1001, "")).unwrap();
    assert_eq!(ends.to_server.frame(), None);
    drop(ends.server);
    let end = end_of(&bench);
    assert_eq!(end.ending, Ending::BadFrame, "{end:?}");
    assert_eq!((end.codes.to_client, end.codes.to_upstream), (1002, 1001));
}

fn long_messages_are_refused(mode: Mode) {
    let Some(bench) = Bench::start(options(mode)) else { return };
    let mut ends = open(&bench, terms(FramePlan { max_message: 1000, ..PLAN }));
    ends.greet();
    ends.server.write_all(&frame(0x02, false, &[1; 600])).unwrap();
    ends.server.write_all(&frame(0x80, false, &[1; 400])).unwrap();
    ends.server.write_all(&frame(0x02, false, &[2; 600])).unwrap();
    for _ in 0..3 {
        assert!(ends.to_client.frame().unwrap().payload.len() <= 600);
    }
    ends.server.write_all(&frame(0x80, false, &[2; 401])).unwrap();
    assert_eq!(ends.to_client.frame().unwrap().close().unwrap().0, 1001);
    let told = ends.to_server.frame().unwrap().close();
    assert_eq!(told, Some((1009, "message_too_long".into())));
    drop(ends);
    assert_eq!(end_of(&bench).ending, Ending::TooBig);
}

fn half_closed_sessions_end(mode: Mode) {
    if mode == Mode::Packet {
        // A session whose end has begun does not come back to its sockets: its limit is a reset.
        return;
    }
    let drain = Duration::from_millis(300);
    let Some(bench) = Bench::start(Options { drain, ..options(mode) }) else { return };
    let half_closed = Some(Duration::from_millis(500));
    let mut ends = open(&bench, Terms { half_closed, ..terms(PLAN) });
    ends.greet();
    ends.client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(ends.to_server.frame(), None);
    assert_eq!(ends.to_client.frame().unwrap().close().unwrap().0, 1001);
    assert_eq!(end_of(&bench).ending, Ending::HalfClosed);
}

fn closes_are_spread(mode: Mode) {
    const SESSIONS: usize = 200;
    let Some(bench) = Bench::start(options(mode)) else { return };
    let mut all: Vec<_> = (0..SESSIONS).map(|_| open(&bench, terms(PLAN))).collect();
    let every: Which = Arc::new(|_| true);
    let began = Instant::now();
    let window = Duration::from_secs(2);
    bench.datapath.close(&every, Ending::Closed, &Farewell::default(), Some(window));
    let mut told: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = all
            .chunks_mut(20)
            .map(|some| {
                scope.spawn(|| {
                    let told = |ends: &mut Ends| {
                        assert!(ends.to_client.frame().unwrap().close().is_some());
                        began.elapsed()
                    };
                    // Those of one thread are told in any order: the last one counts.
                    some.iter_mut().map(told).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    told.sort();
    // How even it is, the benchmark measures; here, that they are not told all at once.
    let last = told[SESSIONS - 1];
    assert!(last > window / 2, "all were told within {last:?}");
    assert_eq!(told.len(), SESSIONS);
    drop(all);
    bench.all_gone();
}
