//! What user space does to the frames of sessions, over real sockets, on both datapaths: counts,
//! pings, Close frames, limits.

use std::{
    io::Write as _,
    net::{Shutdown, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use wsproxy::datapath::{
    Ending, Farewell, FramePlan, Frames, Mode, Options, Path, PingPlan, SessionEnd, Terms, Which,
};
use wsproxy_common::cursor::{FrameCursor, Rules};
use wsproxy_tests::{
    frames::{Frame, Reader, Sent, Talk, close, frame, write_in_pieces},
    sessions::{Bench, Dice, Hops, options, wait_for},
};

/// One test a datapath for each function.
macro_rules! over_both {
    ($($name:ident),* $(,)?) => {
        mod relay { $(#[test] fn $name() { super::$name(super::Mode::Relay); })* }
        mod sockmap { $(#[test] fn $name() { super::$name(super::Mode::Sockmap); })* }
    };
}

over_both!(
    counts_are_what_was_sent,
    many_tiny_frames_are_counted,
    nonsense_is_followed_alike_on_every_path,
    pings_go_between_frames_and_answers_to_nobody,
    answers_late_twice_split_and_foreign,
    a_client_that_does_not_answer_is_dead,
    a_server_that_does_not_answer_is_dead,
    whoever_talks_is_not_dead,
    half_a_frame_holds_the_ping_back,
    who_pauses_inside_a_frame_is_not_dead,
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
    without_frames_nothing_is_said,
    pings_at_random_and_a_drain_in_the_middle,
);

#[path = "frames/pings.rs"]
mod pings;

const PLAN: FramePlan =
    FramePlan { ping: None, enforce: false, max_frame: 0, max_message: 0, gone_code: 1014 };

fn terms(plan: FramePlan) -> Terms {
    Terms { frames: Some(Frames { plan: Arc::new(plan), allowed_rsv: 0 }), ..Terms::default() }
}

fn pinged(interval: Duration, timeout: Duration, upstream: bool) -> Terms {
    terms(FramePlan { ping: Some(PingPlan { interval, timeout, upstream }), ..PLAN })
}

/// A session with readers for both ends: the client's, the server's.
struct Ends {
    client: TcpStream,
    server: TcpStream,
    to_client: Reader,
    to_server: Reader,
}

fn open(bench: &Bench, terms: Terms) -> Ends {
    let (client, server) = bench.session_on(terms, Hops::default(), |_, _| {}, [b"", b""]);
    let (to_client, to_server) = (Reader::new(&client, false), Reader::new(&server, true));
    Ends { client, server, to_client, to_server }
}

impl Ends {
    /// A message each way, so that the kernel path is entered where there is one.
    fn greet(&mut self) {
        for _ in 0..2 {
            self.client.write_all(&frame(0x81, true, b"hello")).unwrap();
            assert_eq!(self.to_server.frame().unwrap().payload, b"hello");
            self.server.write_all(&frame(0x81, false, b"welcome")).unwrap();
            assert_eq!(self.to_client.frame().unwrap().payload, b"welcome");
        }
    }

    /// Answers a Close on both sides and ends both streams.
    fn say_goodbye(mut self, code: u16) {
        self.client.write_all(&close(true, code, "")).unwrap();
        self.server.write_all(&close(false, code, "")).unwrap();
        assert_eq!(self.to_client.frame(), None);
        assert_eq!(self.to_server.frame(), None);
    }
}

fn end_of(bench: &Bench) -> SessionEnd {
    bench.all_gone();
    // What is left is told last.
    wait_for(Duration::from_secs(20), || bench.ends().pop()).expect("an end")
}

fn counted(end: &SessionEnd, direction: usize) -> Sent {
    let counts = end.counts.expect("frames are followed")[direction];
    Sent {
        frames: counts.frames,
        texts: counts.text_messages,
        binaries: counts.binary_messages,
        text_bytes: counts.text_bytes,
        binary_bytes: counts.binary_bytes,
        control_bytes: counts.other_bytes,
        pings: counts.pings,
        pongs: counts.pongs,
    }
}

fn is_ours(frame: &Frame) -> bool {
    frame.opcode() == 9 && frame.payload.len() == 8
}

fn counts_are_what_was_sent(mode: Mode) {
    let Some(bench) = Bench::start(options(mode)) else { return };
    let before = bench.datapath.counts();
    let ends = open(&bench, terms(PLAN));
    let talk = |socket: &TcpStream, masked: bool, seed: u64| {
        let (mut talk, mut dice) = (Talk::new(seed, masked, 3000), Dice::new(seed));
        for _ in 0..400 {
            write_in_pieces(socket, &talk.message(), &mut dice, 2000);
        }
        (&mut &*socket).write_all(&close(masked, 1000 + seed as u16, "done")).unwrap();
        let mut sent = talk.sent;
        sent.frames += 1;
        sent.control_bytes += 6;
        sent
    };
    let Ends { client, server, mut to_client, mut to_server } = ends;
    let [up, down] = thread::scope(|scope| {
        let up = scope.spawn(|| talk(&client, true, 2));
        let down = scope.spawn(|| talk(&server, false, 3));
        let reads = [&mut to_client, &mut to_server]
            .map(|reader| scope.spawn(|| while reader.frame().unwrap().opcode() != 8 {}));
        for read in reads {
            read.join().unwrap();
        }
        [up.join().unwrap(), down.join().unwrap()]
    });
    client.shutdown(Shutdown::Write).unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    assert_eq!((to_client.frame(), to_server.frame()), (None, None));
    let end = end_of(&bench);
    assert_eq!((counted(&end, 0), counted(&end, 1)), (up, down));
    assert_eq!((end.codes.of_client, end.codes.of_upstream), (1002, 1003));
    assert_eq!((end.codes.to_client, end.codes.to_upstream), (0, 0));
    assert_eq!(end.violations, [0; 2]);
    if bench.path == Path::Sockmap {
        assert!(end.to_upstream.kernel > 0 && end.to_client.kernel > 0, "{end:?}");
    }
    let after = bench.datapath.counts();
    for (direction, sent) in [up, down].iter().enumerate() {
        let messages = after[direction].messages() - before[direction].messages();
        assert_eq!(messages, sent.texts + sent.binaries);
        let sizes: u64 = after[direction].sizes.iter().sum();
        assert_eq!(sizes, after[direction].messages());
    }
}

/// More frames in a packet than the verdict program follows.
fn many_tiny_frames_are_counted(mode: Mode) {
    const FRAMES: usize = 30_000;
    let Some(bench) = Bench::start(options(mode)) else { return };
    let mut ends = open(&bench, terms(PLAN));
    ends.greet();
    let bytes = frame(0x81, false, b"").repeat(FRAMES);
    thread::scope(|scope| {
        scope.spawn(|| (&ends.server).write_all(&bytes).unwrap());
        for _ in 0..FRAMES {
            assert_eq!(ends.to_client.frame().unwrap().payload, b"");
        }
    });
    drop(ends);
    let end = end_of(&bench);
    assert_eq!(counted(&end, 1).texts, FRAMES as u64 + 2);
}

/// Frames with bytes changed at random: what the path made of them is what the cursor makes of
/// them at once, in user space.
fn nonsense_is_followed_alike_on_every_path(mode: Mode) {
    let Some(bench) = Bench::start(options(mode)) else { return };
    let mut by_kernel = 0;
    for seed in 0..25 {
        let (mut talk, mut dice) = (Talk::new(seed, true, 400), Dice::new(seed));
        let mut bytes: Vec<u8> = (0..40).flat_map(|_| talk.message()).collect();
        for _ in 0..dice.below(12) {
            let at = dice.below(bytes.len() as u64) as usize;
            bytes[at] = dice.below(256) as u8;
        }
        let Ends { client, mut server, mut to_client, to_server } = open(&bench, terms(PLAN));
        drop(to_server);
        thread::scope(|scope| {
            scope.spawn(|| {
                write_in_pieces(&client, &bytes, &mut dice, 700);
                client.shutdown(Shutdown::Write).unwrap();
            });
            let mut came = Vec::new();
            std::io::Read::read_to_end(&mut server, &mut came).unwrap();
            assert!(came == bytes, "seed {seed}: {} of {} bytes", came.len(), bytes.len());
        });
        server.write_all(&close(false, 1000, "")).unwrap();
        server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(to_client.frame().unwrap().close().unwrap().0, 1000);
        assert_eq!(to_client.frame(), None);
        drop((client, server, to_client));
        let ended = || bench.ends().get(seed as usize).cloned();
        let end = wait_for(Duration::from_secs(20), ended).expect("an end");
        let mut expected = FrameCursor::default();
        expected.advance(&bytes, Rules::FROM_CLIENT);
        assert_eq!(end.counts.unwrap()[0], expected.counts, "seed {seed}");
        let found = (end.violations[0], end.codes.of_client);
        assert_eq!(found, (expected.violations, expected.close_code), "seed {seed}");
        by_kernel += u64::from(end.to_upstream.kernel > 0);
    }
    // Some are over before the sockets are in the kernel.
    assert!(bench.path == Path::Relay || by_kernel > 10, "{by_kernel} in the kernel");
    bench.all_gone();
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

/// Waits until so many bytes can be read here: the gateway has passed them on.
fn arrived(at: &TcpStream, bytes: usize) {
    let mut peeked = vec![0; bytes];
    let all = || (at.peek(&mut peeked).unwrap() == bytes).then_some(());
    assert!(wait_for(Duration::from_secs(20), all).is_some(), "{bytes} bytes");
}

fn close_all(bench: &Bench, farewell: &Farewell) {
    let all: Which = Arc::new(|_| true);
    bench.datapath.close(&all, Ending::Closed, farewell, Some(Duration::ZERO));
}

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

/// A drain in the middle of 100 MiB.
fn close_comes_between_the_fragments_of_a_long_message(mode: Mode) {
    let Some(bench) = Bench::start(options(mode)) else { return };
    let mut ends = open(&bench, terms(PLAN));
    ends.greet();
    let piece = vec![3; 1 << 20];
    thread::scope(|scope| {
        let mut server = ends.server.try_clone().unwrap();
        scope.spawn(move || {
            for nth in 0..100 {
                let opcode = if nth == 0 { 2 } else { 0 };
                let fin = if nth == 99 { 0x80 } else { 0 };
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
        assert!((10..100).contains(&fragments), "{fragments} fragments");
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
    for reset in [false, true] {
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

fn without_frames_nothing_is_said(mode: Mode) {
    let Some(bench) = Bench::start(options(mode)) else { return };
    let mut ends = open(&bench, Terms::default());
    ends.greet();
    close_all(&bench, &Farewell::default());
    assert_eq!((ends.to_client.frame(), ends.to_server.frame()), (None, None));
    drop(ends);
    let end = end_of(&bench);
    assert_eq!((end.counts, end.ending), (None, Ending::Closed));
}

/// One end of a session in the torture: what it said, and what it heard.
struct Party {
    socket: TcpStream,
    reader: Reader,
    talk: Talk,
    dice: Dice,
    masked: bool,
}

/// What an end said and heard but for Close frames, our Pings and the answers to them.
struct Heard {
    said: Vec<u8>,
    heard: Vec<u8>,
    pings: usize,
    /// The Close that ended it.
    close: Option<u16>,
}

impl Party {
    fn new(socket: &TcpStream, reader: Reader, masked: bool, seed: u64) -> Self {
        let (talk, dice) = (Talk::new(seed, masked, 6000), Dice::new(seed));
        Self { socket: socket.try_clone().unwrap(), reader, talk, dice, masked }
    }

    /// Talks and listens until a Close comes, or `until` and its own Close was answered.
    fn live(mut self, messages: usize) -> Heard {
        let lock = std::sync::Mutex::new(());
        let quiet = std::sync::atomic::AtomicBool::new(false);
        let (talk, dice, masked) = (&mut self.talk, &mut self.dice, self.masked);
        let (socket, reader, lock, quiet) = (&self.socket, &mut self.reader, &lock, &quiet);
        thread::scope(|scope| {
            let talker = scope.spawn(move || {
                let mut said = Vec::new();
                for _ in 0..messages {
                    let _whole = lock.lock().unwrap();
                    if quiet.load(std::sync::atomic::Ordering::SeqCst) {
                        return said;
                    }
                    let message = talk.message();
                    said.extend(&message);
                    write_in_pieces(socket, &message, dice, 4000);
                }
                let _whole = lock.lock().unwrap();
                if !quiet.load(std::sync::atomic::Ordering::SeqCst) {
                    (&mut &*socket).write_all(&close(masked, 1000, "")).unwrap();
                    quiet.store(true, std::sync::atomic::Ordering::SeqCst);
                }
                said
            });
            let mut slow = Dice::new(messages as u64);
            let (mut heard, mut pings, mut code) = (Vec::new(), 0, None);
            while let Some(next) = reader.frame() {
                if slow.below(200) == 0 {
                    thread::sleep(Duration::from_millis(slow.below(30)));
                }
                if is_ours(&next) {
                    pings += 1;
                    let _whole = lock.lock().unwrap();
                    if !quiet.load(std::sync::atomic::Ordering::SeqCst) {
                        (&mut &*socket).write_all(&frame(0x8A, masked, &next.payload)).unwrap();
                    }
                    continue;
                }
                if let Some((found, _)) = next.close() {
                    code = Some(found);
                    let _whole = lock.lock().unwrap();
                    // One Close of each side, whoever began.
                    if !quiet.swap(true, std::sync::atomic::Ordering::SeqCst) {
                        (&mut &*socket).write_all(&close(masked, found, "")).unwrap();
                    }
                    socket.shutdown(Shutdown::Write).unwrap();
                    continue;
                }
                heard.extend(frame(next.first, !masked, &next.payload));
            }
            Heard { said: talker.join().unwrap(), heard, pings, close: code }
        })
    }
}

/// Streams are equal but for our own frames; a drain cuts them between two frames.
fn pings_at_random_and_a_drain_in_the_middle(mode: Mode) {
    const SESSIONS: usize = 12;
    let Some(bench) = Bench::start(options(mode)) else { return };
    for drained in [false, true] {
        let parties: Vec<_> = (0..SESSIONS as u64)
            .map(|seed| {
                let Ends { client, server, to_client, to_server } = open(&bench, terms(PLAN));
                let seed = seed * 2 + 100 * u64::from(drained);
                [
                    Party::new(&client, to_client, true, seed),
                    Party::new(&server, to_server, false, seed + 1),
                ]
            })
            .collect();
        let results: Vec<[Heard; 2]> = thread::scope(|scope| {
            let bench = &bench;
            scope.spawn(move || {
                let began = Instant::now();
                let all: Which = Arc::new(|_| true);
                while bench.datapath.live(Path::Relay) + bench.datapath.live(Path::Sockmap) > 0 {
                    bench.datapath.ping(&all);
                    thread::sleep(Duration::from_millis(3));
                    if drained && began.elapsed() > Duration::from_millis(700) {
                        close_all(bench, &Farewell::default());
                        return;
                    }
                }
            });
            let messages = if drained { usize::MAX } else { 1500 };
            let talks: Vec<_> = parties
                .into_iter()
                .map(|pair| pair.map(|party| scope.spawn(move || party.live(messages))))
                .collect();
            talks.into_iter().map(|pair| pair.map(|talk| talk.join().unwrap())).collect()
        });
        let mut pings = 0;
        for pair in &results {
            for (from, to) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
                pings += to.pings;
                let heard = &to.heard;
                assert!(from.said.starts_with(heard), "{} of {}", heard.len(), from.said.len());
                assert!(drained || from.said.len() == heard.len(), "the end is missing");
                assert_eq!(to.close, Some(if drained { 1001 } else { 1000 }));
            }
        }
        assert!(pings >= SESSIONS, "{pings} pings");
        bench.all_gone();
    }
}

/// The order of the first session's end does not matter here: nothing is left is what counts.
#[test]
fn a_plan_alone_costs_nothing() {
    let Some(bench) = Bench::start(options(Mode::Relay)) else { return };
    let ends = open(&bench, pinged(Duration::from_secs(3600), Duration::from_secs(1), true));
    let before = bench.datapath.wakeups();
    assert!(wait_for(Duration::from_millis(300), || None::<()>).is_none());
    let woken = bench.datapath.wakeups() - before;
    assert!(woken < 30, "{woken} wake-ups of an idle engine");
    drop(ends);
    bench.all_gone();
}
