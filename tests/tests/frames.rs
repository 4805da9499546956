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
    frames::{Frame, Reader, Talk, close, counted, frame, write_in_pieces},
    sessions::{Bench, Dice, Hops, options, wait_for},
};

/// One test a datapath for each function.
macro_rules! over_all {
    ($($name:ident),* $(,)?) => {
        mod relay { $(#[test] fn $name() { super::$name(super::Mode::Relay); })* }
        mod sockmap { $(#[test] fn $name() { super::$name(super::Mode::Sockmap); })* }
        mod packet { $(#[test] fn $name() { super::$name(super::Mode::Packet); })* }
    };
}

over_all!(
    counts_are_what_was_sent,
    many_tiny_frames_are_counted,
    nonsense_is_followed_alike_on_every_path,
    without_frames_nothing_is_said,
);

#[path = "frames/closing.rs"]
mod closing;
#[path = "frames/pings.rs"]
mod pings;
#[path = "frames/talk.rs"]
mod talk;

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
    // A thread that writes to nobody would hide for ever what has failed in the one that waits for it.
    for end in [&client, &server] {
        end.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
    }
    let (to_client, to_server) = (Reader::new(&client, false), Reader::new(&server, true));
    Ends { client, server, to_client, to_server }
}

impl Ends {
    /// A message each way, so that the kernel path is entered where there is one.
    fn greet(&mut self) {
        for _ in 0..2 {
            self.client.write_all(&frame(0x81, true, b"hello")).unwrap();
            assert_eq!(message(&mut self.to_server, &self.server, false), b"hello");
            self.server.write_all(&frame(0x81, false, b"welcome")).unwrap();
            assert_eq!(message(&mut self.to_client, &self.client, true), b"welcome");
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

/// The next message to an end; Pings before it are answered: on a slow machine one may be due already.
fn message(reader: &mut Reader, mut end: &TcpStream, masked: bool) -> Vec<u8> {
    loop {
        let next = reader.frame().unwrap();
        if !is_ours(&next) {
            return next.payload;
        }
        end.write_all(&frame(0x8A, masked, &next.payload)).unwrap();
    }
}

fn end_of(bench: &Bench) -> SessionEnd {
    bench.all_gone();
    // What is left is told last.
    wait_for(Duration::from_secs(20), || bench.ends().pop()).expect("an end")
}

fn is_ours(frame: &Frame) -> bool {
    frame.opcode() == 9 && frame.payload.len() == 8
}

fn counts_are_what_was_sent(mode: Mode) {
    let Some(bench) = Bench::start(options(mode)) else { return };
    let before = bench.datapath.counts();
    let mut ends = open(&bench, terms(PLAN));
    let talk = |socket: &TcpStream, masked: bool, seed: u64| {
        let (mut talk, mut dice) = (Talk::new(seed, masked, 3000), Dice::new(seed));
        for _ in 0..400 {
            write_in_pieces(socket, &talk.message(), &mut dice, 2000);
        }
        (&mut &*socket).write_all(&close(masked, 1000 + seed as u16, "done")).unwrap();
        let mut sent = talk.sent;
        sent.frames += 1;
        sent.control_bytes += 6;
        // And the greetings.
        sent.frames += 2;
        sent.texts += 2;
        sent.text_bytes += 2 * if masked { "hello" } else { "welcome" }.len() as u64;
        sent
    };
    // What comes without a pause from the first byte on may be over before the kernel has it.
    ends.greet();
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
    for seed in 0..25 {
        let (mut talk, mut dice) = (Talk::new(seed, true, 400), Dice::new(seed));
        let mut bytes: Vec<u8> = (0..40).flat_map(|_| talk.message()).collect();
        for _ in 0..dice.below(12) {
            let at = dice.below(bytes.len() as u64) as usize;
            bytes[at] = dice.below(256) as u8;
        }
        let Ends { client, mut server, mut to_client, to_server } = open(&bench, terms(PLAN));
        drop(to_server);
        if bench.path == Path::Sockmap {
            let inside = || (bench.datapath.entered() > seed).then_some(());
            wait_for(Duration::from_secs(20), inside).expect("in the kernel");
        }
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
        assert!(bench.path != Path::Sockmap || end.to_upstream.kernel > 0, "seed {seed}: {end:?}");
    }
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
