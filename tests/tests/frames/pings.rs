//! Pings beside what else goes on in a session.

use super::*;

over_both!(answers_to_several_pings_at_once, pings_in_front_of_a_close_are_counted);

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
