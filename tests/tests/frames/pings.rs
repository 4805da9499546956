//! Pings beside what else goes on in a session.

use super::*;

over_all!(
    answers_to_several_pings_at_once,
    pings_in_front_of_a_close_are_counted,
    pings_go_between_frames_and_answers_to_nobody,
    answers_late_twice_split_and_foreign,
    a_client_that_does_not_answer_is_dead,
    a_server_that_does_not_answer_is_dead,
    whoever_talks_is_not_dead,
    half_a_frame_holds_the_ping_back,
    who_pauses_inside_a_frame_is_not_dead,
);

/// Whoever talks is pinged again when it is silent, even if it has not answered; then it answers
/// all, or (RFC 6455 section 5.5.3) the last one only.
fn answers_to_several_pings_at_once(mode: Mode) {
    let Some(bench) = Bench::start(options(mode)) else { return };
    let ping = Duration::from_millis(50);
    let mut ends = open(&bench, pinged(ping, Duration::from_secs(20), true));
    ends.greet();
    let deadline = Instant::now() + Duration::from_secs(20);
    let next_ping = |ends: &mut Ends| loop {
        assert!(Instant::now() < deadline, "no Ping");
        // The client, so that it is not dead.
        if let Some(Some(next)) = ends.to_client.frame_within(Duration::from_millis(1))
            && is_ours(&next)
        {
            ends.client.write_all(&frame(0x8A, true, &next.payload)).unwrap();
        }
        if let Some(Some(next)) = ends.to_server.frame_within(Duration::from_millis(1)) {
            assert!(is_ours(&next), "the client's answer went on: {next:?}");
            return frame(0x8A, false, &next.payload);
        }
    };
    for last_only in [false, true] {
        let mut answers = vec![next_ping(&mut ends)];
        for _ in 0..2 {
            // Times of what is said are those of a coarse clock.
            thread::sleep(Duration::from_millis(20));
            ends.server.write_all(&frame(0x82, false, b"talk")).unwrap();
            answers.push(next_ping(&mut ends));
        }
        answers.insert(2, frame(0x81, false, b"between"));
        answers.push(frame(0x82, false, b"behind"));
        let from = if last_only { 3 } else { 0 };
        ends.server.write_all(&answers[from..].concat()).unwrap();
        let mut came = Vec::new();
        while came.last().is_none_or(|last| last != b"behind") {
            let next = ends.to_client.frame().unwrap();
            if is_ours(&next) && next.opcode() == 9 {
                ends.client.write_all(&frame(0x8A, true, &next.payload)).unwrap();
            } else {
                came.push(next.payload);
            }
        }
        came.retain(|payload| payload != b"talk");
        let expected: &[&[u8]] = if last_only { &[b"behind"] } else { &[b"between", b"behind"] };
        assert_eq!(came, expected);
    }
    drop(ends);
    assert_eq!(counted(&end_of(&bench), 1).pongs, 0);
}

/// A Ping that waits for the end of a frame, behind which a Close comes at once.
fn pings_in_front_of_a_close_are_counted(mode: Mode) {
    for _ in 0..3 {
        let Some(bench) = Bench::start(options(mode)) else { return };
        let ping = Duration::from_millis(20);
        let mut ends = open(&bench, pinged(ping, Duration::from_secs(20), false));
        let whole = frame(0x82, false, &[7; 1000]);
        ends.server.write_all(&whole[..500]).unwrap();
        arrived(&ends.client, 500);
        // Until it waits; if it does not yet, there is none.
        thread::sleep(ping * 5);
        let rest = [&whole[500..], &close(false, 1000, "")].concat();
        ends.server.write_all(&rest).unwrap();
        let mut pings = 0;
        loop {
            let next = ends.to_client.frame().unwrap();
            if next.opcode() == 8 {
                break;
            }
            pings += usize::from(is_ours(&next));
        }
        drop(ends);
        bench.all_gone();
        assert_eq!(bench.record.pinged.lock().unwrap().len(), pings);
    }
}

/// The server talks without a pause, the client says nothing but Pongs.
fn pings_go_between_frames_and_answers_to_nobody(mode: Mode) {
    const PINGS: usize = 25;
    let Some(bench) = Bench::start(options(mode)) else { return };
    let ping = Duration::from_millis(25);
    let mut ends = open(&bench, pinged(ping, Duration::from_secs(20), false));
    ends.greet();
    let done = std::sync::atomic::AtomicBool::new(false);
    let (sent, came) = thread::scope(|scope| {
        let server = &ends.server;
        let done = &done;
        let talker = scope.spawn(move || {
            let (mut talk, mut dice) = (Talk::new(5, false, 4000), Dice::new(6));
            let mut messages = Vec::new();
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let message = talk.message();
                write_in_pieces(server, &message, &mut dice, 3000);
                messages.push(message);
                // Else all there is to read stands between a Ping and its answer.
                thread::sleep(Duration::from_micros(100));
            }
            (&mut &*server).write_all(&close(false, 1000, "")).unwrap();
            (messages.concat(), talk.sent)
        });
        let (mut came, mut pings) = (Vec::new(), 0);
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let next = ends.to_client.frame().expect("no end yet");
            if next.opcode() == 8 {
                break;
            }
            if is_ours(&next) {
                pings += 1;
                ends.client.write_all(&frame(0x8A, true, &next.payload)).unwrap();
            } else {
                came.extend(frame(next.first, false, &next.payload));
            }
            if pings >= PINGS || Instant::now() > end {
                done.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        }
        assert!(pings >= PINGS, "{pings} pings");
        (talker.join().unwrap(), came)
    });
    assert!(sent.0 == came, "{} bytes sent, {} came", sent.0.len(), came.len());
    // The server has got what the client said, and not one of its answers.
    ends.client.write_all(&close(true, 1000, "")).unwrap();
    assert_eq!(ends.to_server.frame().unwrap().opcode(), 8);
    let info = bench.datapath.sessions().pop().unwrap();
    assert!(info.ping_rtt[0].is_some() && info.ping_rtt[1].is_none(), "{info:?}");
    drop(ends);
    let end = end_of(&bench);
    assert_eq!(counted(&end, 0).pongs, 0, "swallowed ones did not pass");
    assert_eq!(counted(&end, 1).pings, sent.1.pings, "ours are not counted");
}

fn answers_late_twice_split_and_foreign(mode: Mode) {
    let Some(bench) = Bench::start(options(mode)) else { return };
    let mut ends = open(&bench, pinged(Duration::from_millis(300), Duration::from_secs(20), true));
    ends.greet();
    // The server's Ping, so that it is out of the way: it is answered at once from here on.
    let answer_server = |to_server: &mut Reader, server: &TcpStream| loop {
        let next = to_server.frame().unwrap();
        if !is_ours(&next) {
            return next;
        }
        (&mut &*server).write_all(&frame(0x8A, false, &next.payload)).unwrap();
    };
    let ping = loop {
        let next = ends.to_client.frame().unwrap();
        if is_ours(&next) {
            break next;
        }
    };
    let pong = frame(0x8A, true, &ping.payload);
    // A foreign one passes, ours comes in pieces and does not, its twin passes.
    ends.client.write_all(&frame(0x8A, true, b"foreign!")).unwrap();
    assert_eq!(answer_server(&mut ends.to_server, &ends.server).payload, b"foreign!");
    for byte in &pong {
        ends.client.write_all(&[*byte]).unwrap();
        thread::sleep(Duration::from_millis(2));
    }
    ends.client.write_all(&frame(0x81, true, b"between")).unwrap();
    assert_eq!(answer_server(&mut ends.to_server, &ends.server).payload, b"between");
    ends.client.write_all(&pong).unwrap();
    ends.client.write_all(&frame(0x82, true, b"behind")).unwrap();
    let twin = answer_server(&mut ends.to_server, &ends.server);
    assert_eq!((twin.opcode(), &twin.payload), (10, &ping.payload));
    assert_eq!(answer_server(&mut ends.to_server, &ends.server).payload, b"behind");
    drop(ends);
    let end = end_of(&bench);
    assert_eq!(counted(&end, 0).pongs, 2);
}

fn a_client_that_does_not_answer_is_dead(mode: Mode) {
    let Some(bench) = Bench::start(options(mode)) else { return };
    let ping = Duration::from_millis(200);
    let mut ends = open(&bench, pinged(ping, ping, false));
    ends.greet();
    let told = ends.to_server.frame().unwrap();
    assert_eq!(told.close(), Some((1001, "the client does not answer".into())));
    ends.server.write_all(&close(false, 1001, "")).unwrap();
    assert_eq!(ends.to_server.frame(), None);
    ends.server.shutdown(Shutdown::Write).unwrap();
    let end = end_of(&bench);
    assert_eq!((end.ending, end.reset), (Ending::DeadPeer, true));
    assert_eq!(end.codes.to_upstream, 1001);
    assert!(is_ours(&ends.to_client.frame().unwrap()));
    assert!(ends.to_client.is_reset());
}

fn a_server_that_does_not_answer_is_dead(mode: Mode) {
    let Some(bench) = Bench::start(options(mode)) else { return };
    let ping = Duration::from_millis(200);
    let mut ends = open(&bench, pinged(ping, ping, true));
    ends.greet();
    loop {
        let next = ends.to_client.frame().unwrap();
        if is_ours(&next) {
            ends.client.write_all(&frame(0x8A, true, &next.payload)).unwrap();
        } else {
            assert_eq!(next.close(), Some((1011, "the server does not answer".into())));
            break;
        }
    }
    ends.client.write_all(&close(true, 1011, "")).unwrap();
    assert_eq!(ends.to_client.frame(), None);
    drop((ends.client, ends.to_client));
    let end = end_of(&bench);
    assert_eq!((end.ending, end.codes.to_client), (Ending::DeadPeer, 1011));
}

fn whoever_talks_is_not_dead(mode: Mode) {
    let Some(bench) = Bench::start(options(mode)) else { return };
    let ping = Duration::from_millis(400);
    let mut ends = open(&bench, pinged(ping, ping, false));
    ends.greet();
    // Never a Pong, but a message now and then.
    for _ in 0..30 {
        ends.client.write_all(&frame(0x82, true, b"tick")).unwrap();
        assert_eq!(ends.to_server.frame().unwrap().payload, b"tick");
        thread::sleep(Duration::from_millis(50));
    }
    assert!(bench.ends().is_empty(), "{:?}", bench.ends());
    drop(ends);
    bench.all_gone();
}

fn half_a_frame_holds_the_ping_back(mode: Mode) {
    let Some(bench) = Bench::start(options(mode)) else { return };
    let ping = Duration::from_millis(100);
    let mut ends = open(&bench, pinged(ping, Duration::from_secs(20), false));
    let whole = frame(0x82, false, &[7; 1000]);
    ends.server.write_all(&whole[..500]).unwrap();
    arrived(&ends.client, 500);
    // No Ping may come in the middle: the reader would take it for payload, and find it wrong.
    thread::sleep(Duration::from_millis(400));
    ends.server.write_all(&whole[500..]).unwrap();
    let next = loop {
        let next = ends.to_client.frame().unwrap();
        if !is_ours(&next) {
            break next;
        }
        ends.client.write_all(&frame(0x8A, true, &next.payload)).unwrap();
    };
    assert_eq!(next.payload, [7; 1000]);
    assert!(is_ours(&ends.to_client.frame().unwrap()), "the Ping comes behind it");
    drop(ends);
    bench.all_gone();
}

/// Inside a frame of its own a side may not answer (RFC 6455 section 5.4).
fn who_pauses_inside_a_frame_is_not_dead(mode: Mode) {
    let Some(bench) = Bench::start(options(mode)) else { return };
    let ping = Duration::from_millis(200);
    let mut ends = open(&bench, pinged(ping, ping, false));
    ends.greet();
    let whole = frame(0x82, true, &[5; 1000]);
    ends.client.write_all(&whole[..500]).unwrap();
    thread::sleep(Duration::from_millis(1000));
    assert!(bench.ends().is_empty(), "{:?}", bench.ends());
    ends.client.write_all(&whole[500..]).unwrap();
    assert_eq!(ends.to_server.frame().unwrap().payload, [5; 1000]);
    drop(ends);
    bench.all_gone();
}
