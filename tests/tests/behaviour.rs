//! What every datapath must do, over real sockets: one suite, run for each.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    thread,
    time::{Duration, Instant},
};

use wsproxy::datapath::{Ending, Farewell, Mode, Options, Path};
use wsproxy_tests::sessions::{Bench, Dice, FAMILIES, Hops, Stream, options, wait_for};

const MIB: usize = 1 << 20;

/// A datapath under test.
#[derive(Clone, Copy, Debug)]
enum Over {
    Relay,
    Sockmap,
    /// The packet path as this kernel has it best.
    Packet,
    /// The packet path as kernels without tcx have it (before Linux 6.6).
    Classical,
}

impl Over {
    fn options(self) -> Options {
        let mode = match self {
            Self::Relay => Mode::Relay,
            Self::Sockmap => Mode::Sockmap,
            Self::Packet | Self::Classical => Mode::Packet,
        };
        Options { tcx: !matches!(self, Self::Classical), ..options(mode) }
    }
}

/// Time enough for a drain that is to come to its end, on any machine.
const PATIENT: Duration = Duration::from_secs(60);

/// A module with one test for each function.
macro_rules! over {
    ($module:ident, $over:ident, $($name:ident),* $(,)?) => {
        mod $module { $(#[test] fn $name() { super::$name(super::Over::$over); })* }
    };
}

/// One test a datapath for each function.
macro_rules! over_all {
    ($($name:ident),* $(,)?) => {
        over!(relay, Relay, $($name),*);
        over!(sockmap, Sockmap, $($name),*);
        over!(packet, Packet, $($name),*);
    };
}

over_all!(
    echoes_in_random_chunks,
    all_families,
    fin_behind_a_queue_to_a_slow_reader,
    half_close_and_talk_on,
    reset_travels,
    never_reading_peer_stops_the_sender,
    early_bytes_come_first,
    many_sessions_come_and_go,
    idle_sessions_end,
    drain_ends_sessions_after_their_last_byte,
    drain_waits_for_what_a_closed_window_holds_back,
    drain_gives_up_at_its_deadline,
    one_byte_at_a_time,
    ping_pong,
    two_at_once,
);

// The same program attached in another way: each starts a datapath again, and stops one.
over!(
    classical,
    Classical,
    all_families,
    half_close_and_talk_on,
    reset_travels,
    drain_ends_sessions_after_their_last_byte,
    ping_pong,
    two_at_once,
);

fn bench(over: Over) -> Option<Bench> {
    Bench::start(over.options())
}

/// Sends `total` bytes in pieces of up to `max`.
fn send(mut to: &TcpStream, seed: u64, total: usize, max: usize) {
    let (mut stream, mut dice) = (Stream::new(seed), Dice::new(seed));
    while (stream.position() as usize) < total {
        let left = total - stream.position() as usize;
        let piece = stream.take(dice.size(max).min(left));
        to.write_all(&piece).unwrap();
    }
}

/// Receives and checks `total` bytes.
fn receive(mut from: &TcpStream, seed: u64, total: usize) {
    let mut stream = Stream::new(seed);
    let mut buf = vec![0; 256 * 1024];
    while (stream.position() as usize) < total {
        let n = from.read(&mut buf).unwrap();
        assert_ne!(n, 0, "the stream ended after {} of {total} bytes", stream.position());
        stream.check(&buf[..n]);
    }
    assert_eq!(stream.position() as usize, total);
}

fn expect_end(mut from: &TcpStream) {
    assert_eq!(from.read(&mut [0; 1]).unwrap(), 0, "more bytes than were sent");
}

fn both_ways(client: &TcpStream, server: &TcpStream, total: usize, max: usize, seed: u64) {
    thread::scope(|scope| {
        scope.spawn(|| send(client, seed, total, max));
        scope.spawn(|| send(server, seed + 1, total, max));
        scope.spawn(|| receive(server, seed, total));
        scope.spawn(|| receive(client, seed + 1, total));
    });
}

fn close_in_order(client: &TcpStream, server: &TcpStream) {
    client.shutdown(Shutdown::Write).unwrap();
    expect_end(server);
    server.shutdown(Shutdown::Write).unwrap();
    expect_end(client);
}

fn echoes_in_random_chunks(over: Over) {
    let Some(bench) = bench(over) else { return };
    for (seed, max) in [(1, 100), (2, 5_000), (3, 4 * MIB)] {
        let (client, server) = bench.session();
        let total = (max * 2_000).min(48 * MIB);
        both_ways(&client, &server, total, max, seed * 10);
        close_in_order(&client, &server);
        bench.all_gone();
        let end = bench.ends().pop().unwrap();
        assert_eq!(end.path, bench.path);
        assert_eq!(end.ending, Ending::ClientFinished);
        assert!(!end.reset, "{end:?}");
        assert_eq!(end.to_upstream.total(), total as u64);
        assert_eq!(end.to_client.total(), total as u64);
    }
}

fn all_families(over: Over) {
    let Some(bench) = bench(over) else { return };
    for hops in FAMILIES {
        let (client, server) = bench.session_with(hops, |_, _| {}, b"", b"");
        both_ways(&client, &server, 2 * MIB, 20_000, 7);
        close_in_order(&client, &server);
        bench.all_gone();
        // An IPv4 packet can't become an IPv6 one.
        let mixed = hops.client.is_ipv4() != hops.server.is_ipv4();
        let second_best = mixed && bench.path == Path::Packet;
        let path = if second_best { Path::Sockmap } else { bench.path };
        assert_eq!(bench.ends().pop().unwrap().path, path, "{hops:?}");
    }
}

fn fin_behind_a_queue_to_a_slow_reader(over: Over) {
    let Some(bench) = bench(over) else { return };
    const TOTAL: usize = 64 * MIB;
    for towards_server in [true, false] {
        let (client, server) = bench.session();
        let (from, to) = if towards_server { (client, server) } else { (server, client) };
        thread::scope(|scope| {
            scope.spawn(|| {
                send(&from, 5, TOTAL, 4 * MIB);
                from.shutdown(Shutdown::Write).unwrap();
            });
            // Everything that fits is queued before the first read.
            thread::sleep(Duration::from_millis(700));
            let mut stream = Stream::new(5);
            let mut buf = vec![0; 300_000];
            let mut reader = &to;
            loop {
                let n = reader.read(&mut buf).unwrap();
                if n == 0 {
                    break;
                }
                stream.check(&buf[..n]);
                if stream.position() < 20 * MIB as u64 {
                    thread::sleep(Duration::from_millis(3));
                }
            }
            assert_eq!(stream.position() as usize, TOTAL, "the FIN came before the last byte");
        });
        // The other direction still works, and ends.
        (&to).write_all(b"thanks").unwrap();
        to.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        (&from).read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"thanks");
        bench.all_gone();
        let ending = bench.ends().pop().unwrap().ending;
        let expected =
            if towards_server { Ending::ClientFinished } else { Ending::UpstreamFinished };
        assert_eq!(ending, expected);
    }
}

fn half_close_and_talk_on(over: Over) {
    let Some(bench) = bench(over) else { return };
    for client_first in [true, false] {
        let (client, server) = bench.session();
        both_ways(&client, &server, MIB, 10_000, 40);
        let (closed, open) = if client_first { (&client, &server) } else { (&server, &client) };
        closed.shutdown(Shutdown::Write).unwrap();
        expect_end(open);
        // Long after one direction ended, the other goes on.
        for round in 0..20 {
            send(open, round, 50_000, 9_000);
            receive(closed, round, 50_000);
            thread::sleep(Duration::from_millis(5));
        }
        open.shutdown(Shutdown::Write).unwrap();
        expect_end(closed);
        bench.all_gone();
    }
}

fn linger_reset(stream: TcpStream) {
    let socket = socket2::Socket::from(stream);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

fn reset_travels(over: Over) {
    let Some(bench) = bench(over) else { return };
    for (client_resets, idle) in [(true, false), (false, false), (true, true), (false, true)] {
        let (client, server) = bench.session();
        both_ways(&client, &server, MIB, 50_000, 60);
        let (breaks, other) = if client_resets { (client, server) } else { (server, client) };
        if !idle {
            (&breaks).write_all(&[7; 100_000]).unwrap();
        }
        linger_reset(breaks);
        other.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut buf = vec![0; 200_000];
        let error = loop {
            match (&other).read(&mut buf) {
                Ok(0) => panic!("the reset arrived as an orderly end"),
                Ok(_) => {}
                Err(e) => break e,
            }
        };
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        bench.all_gone();
        let end = bench.ends().pop().unwrap();
        let expected = if client_resets { Ending::ClientBroke } else { Ending::UpstreamBroke };
        assert_eq!(end.ending, expected, "{end:?}");
        assert!(end.reset);
    }
}

/// Bytes of memory that belong to the kernel, or to this process: a queue that
/// nobody is charged for shows here, and what other processes do does not.
fn kernel_and_own_memory() -> i64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let kib = |name: &str| {
        let line = text.lines().find(|l| l.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<i64>().unwrap()
    };
    let others = ["MemFree:", "Buffers:", "Cached:", "AnonPages:", "SReclaimable:", "PageTables:"];
    let kernel = kib("MemTotal:") - others.iter().map(|name| kib(name)).sum::<i64>();
    let own = std::fs::read_to_string("/proc/self/statm").unwrap();
    let own_pages: i64 = own.split_whitespace().nth(1).unwrap().parse().unwrap();
    kernel * 1024 + own_pages * rustix::param::page_size() as i64
}

fn never_reading_peer_stops_the_sender(over: Over) {
    let Some(bench) = bench(over) else { return };
    const PUSH: Duration = Duration::from_secs(10);
    for towards_server in [true, false] {
        let (client, server) = bench.session();
        let (from, to) = if towards_server { (client, server) } else { (server, client) };
        from.set_nonblocking(true).unwrap();
        let before = kernel_and_own_memory();
        let end = Instant::now() + PUSH;
        let (mut stream, mut accepted, mut piece) = (Stream::new(9), 0, Vec::new());
        let mut last_progress = Instant::now();
        // The least of the last half: what others do with memory comes and goes, a queue stays.
        let mut lasting = i64::MAX;
        while Instant::now() < end {
            if piece.is_empty() {
                piece = stream.take(64 * 1024);
            }
            match (&from).write(&piece) {
                Ok(n) => {
                    piece.drain(..n);
                    accepted += n;
                    last_progress = Instant::now();
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    thread::sleep(Duration::from_millis(10));
                }
                Err(e) => panic!("{e}"),
            }
            if end.saturating_duration_since(Instant::now()) < PUSH / 2 {
                lasting = lasting.min(kernel_and_own_memory());
            }
        }
        let stalled = last_progress.elapsed();
        eprintln!("{over:?}: accepted {accepted} bytes, then stalled for {stalled:?}");
        assert!(stalled > Duration::from_secs(5), "the sender was never stopped");
        assert!(accepted < 32 * MIB, "{accepted} bytes were taken from a sender nobody reads");
        let grown = lasting - before;
        eprintln!("{over:?}: memory grew by {grown} bytes");
        assert!(grown < 32 * MIB as i64, "memory grew by {grown} bytes");
        // And nothing of it is lost when the reader comes to life.
        from.set_nonblocking(false).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                (&from).write_all(&piece).unwrap();
                from.shutdown(Shutdown::Write).unwrap();
            });
            receive(&to, 9, stream.position() as usize);
            expect_end(&to);
        });
        drop((from, to));
        bench.all_gone();
    }
}

fn early_bytes_come_first(over: Over) {
    let Some(bench) = bench(over) else { return };
    bench.cold.store(true, std::sync::atomic::Ordering::Relaxed);
    for (in_hand, in_socket, end_too) in
        [(0, 1, false), (1, 0, false), (5_000, 70_000, false), (300_000, 100, false), (3, 4, true)]
    {
        let (mut up, mut down) = (Stream::new(70), Stream::new(71));
        let early_up = up.take(in_hand);
        let early_down = down.take(in_hand * 2);
        let (client, server) = bench.session_with(
            Hops::default(),
            |client, server| {
                client.write_all(&up.take(in_socket)).unwrap();
                server.write_all(&down.take(in_socket * 2)).unwrap();
                if end_too {
                    client.shutdown(Shutdown::Write).unwrap();
                    server.shutdown(Shutdown::Write).unwrap();
                }
            },
            &early_up,
            &early_down,
        );
        if !end_too {
            (&client).write_all(&up.take(1000)).unwrap();
            (&server).write_all(&down.take(1000)).unwrap();
        }
        receive(&server, 70, up.position() as usize);
        receive(&client, 71, down.position() as usize);
        if end_too {
            expect_end(&server);
            expect_end(&client);
        } else {
            close_in_order(&client, &server);
        }
        bench.all_gone();
    }
}

fn many_sessions_come_and_go(over: Over) {
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let Some(bench) = bench(over) else { return };
    // The first one may leave something for all: a program on a device.
    let (client, server) = bench.session();
    both_ways(&client, &server, 1, 1, 0);
    close_in_order(&client, &server);
    bench.all_gone();
    let before = descriptors();
    const SESSIONS: u64 = 2_000;
    const AT_ONCE: u64 = 8;
    thread::scope(|scope| {
        let bench = &bench;
        for worker in 0..AT_ONCE {
            scope.spawn(move || {
                let mut dice = Dice::new(worker + 1);
                for round in 0..SESSIONS / AT_ONCE {
                    let (client, server) = bench.session();
                    // A session without a byte may be over before it begins.
                    let total = dice.size(200_000).max(1);
                    both_ways(&client, &server, total, 30_000, worker * 1000 + round);
                    match dice.below(4) {
                        0 => close_in_order(&client, &server),
                        1 => drop(client),
                        2 => drop(server),
                        _ => linger_reset(client),
                    }
                }
            });
        }
    });
    bench.all_gone();
    assert_eq!(bench.ends().len() as u64, SESSIONS + 1);
    assert_eq!(*bench.record.fallbacks.lock().unwrap(), [""; 0]);
    let left = wait_for(Duration::from_secs(5), || (descriptors() <= before).then_some(()));
    assert!(left.is_some(), "{} descriptors instead of {before}", descriptors());
}

fn idle_sessions_end(over: Over) {
    let mut options = over.options();
    options.idle = Some(Duration::from_millis(2500));
    let Some(bench) = Bench::start(options) else { return };
    let (client, server) = bench.session();
    // Traffic in one direction keeps a session alive, on the kernel path too.
    for _ in 0..8 {
        thread::sleep(Duration::from_millis(500));
        (&server).write_all(b"still here").unwrap();
    }
    assert!(bench.ends().is_empty(), "ended although bytes moved: {:?}", bench.ends());
    receive_exactly(&client, 80);
    expect_end(&client);
    expect_end(&server);
    drop((client, server));
    bench.all_gone();
    assert_eq!(bench.ends()[0].ending, Ending::Idle);
}

fn receive_exactly(mut from: &TcpStream, n: usize) {
    from.read_exact(&mut vec![0; n]).unwrap();
}

fn drain_ends_sessions_after_their_last_byte(over: Over) {
    let options = Options { drain: PATIENT, ..over.options() };
    let Some(bench) = Bench::start(options) else { return };
    let sessions: Vec<_> = (0..20).map(|_| bench.session()).collect();
    for (seed, (client, server)) in sessions.iter().enumerate() {
        both_ways(client, server, 300_000, 20_000, seed as u64);
        send(client, 3, 100_000, 1000);
    }
    thread::scope(|scope| {
        scope.spawn(|| bench.datapath.drain(&Farewell::default(), Duration::ZERO));
        for (client, server) in &sessions {
            receive(server, 3, 100_000);
            expect_end(server);
            expect_end(client);
            client.shutdown(Shutdown::Write).unwrap();
            server.shutdown(Shutdown::Write).unwrap();
        }
    });
    bench.all_gone();
    assert!(bench.ends().iter().all(|e| e.ending == Ending::Drained && !e.reset));
}

/// A client that has more to say than its server takes: nothing moves, and nobody knows of it.
fn drain_waits_for_what_a_closed_window_holds_back(over: Over) {
    const TOTAL: usize = 200_000;
    let options = Options { drain: PATIENT, ..over.options() };
    let Some(bench) = Bench::start(options) else { return };
    let small = |client: &mut TcpStream, server: &mut TcpStream| {
        socket2::SockRef::from(&*client).set_send_buffer_size(4 * TOTAL).unwrap();
        socket2::SockRef::from(&*server).set_recv_buffer_size(16 * 1024).unwrap();
    };
    let (client, server) = bench.session_with(Hops::default(), small, b"", b"");
    send(&client, 3, TOTAL, 1000);
    // Longer than a session is taken to be in the middle of something; by then the client asks for
    // a window every few seconds only.
    thread::sleep(Duration::from_secs(2));
    thread::scope(|scope| {
        scope.spawn(|| bench.datapath.drain(&Farewell::default(), Duration::ZERO));
        thread::sleep(Duration::from_secs(1));
        receive(&server, 3, TOTAL);
        expect_end(&server);
        expect_end(&client);
        client.shutdown(Shutdown::Write).unwrap();
        server.shutdown(Shutdown::Write).unwrap();
    });
    bench.all_gone();
    assert!(bench.ends().iter().all(|e| e.ending == Ending::Drained && !e.reset));
}

fn drain_gives_up_at_its_deadline(over: Over) {
    let drain = Duration::from_millis(300);
    let Some(bench) = Bench::start(Options { drain, ..over.options() }) else { return };
    let (client, server) = bench.session();
    both_ways(&client, &server, 10_000, 1000, 1);
    bench.datapath.drain(&Farewell::default(), Duration::ZERO);
    bench.all_gone();
    let end = bench.ends().pop().unwrap();
    assert_eq!((end.ending, end.reset), (Ending::Drained, true));
}

fn one_byte_at_a_time(over: Over) {
    let Some(bench) = bench(over) else { return };
    let (client, server) = bench.session();
    both_ways(&client, &server, 20_000, 1, 90);
    close_in_order(&client, &server);
    bench.all_gone();
}

/// Unhurried request and answer: on the kernel path nobody in user space wakes up.
fn ping_pong(over: Over) {
    let Some(bench) = bench(over) else { return };
    let (client, server) = bench.session();
    const MESSAGES: u64 = 10_000;
    // The hand-over itself may wake somebody.
    (&client).write_all(b"first").unwrap();
    receive_exactly(&server, 5);
    thread::sleep(Duration::from_millis(50));
    let wakeups = bench.datapath.wakeups();
    let started = Instant::now();
    let mut message = [0u8; 64];
    for round in 0..MESSAGES {
        message[..8].copy_from_slice(&round.to_le_bytes());
        (&client).write_all(&message).unwrap();
        receive_exactly(&server, 64);
        (&server).write_all(&message).unwrap();
        receive_exactly(&client, 64);
    }
    let woken = bench.datapath.wakeups() - wakeups;
    let seconds = started.elapsed().as_secs();
    close_in_order(&client, &server);
    bench.all_gone();
    let end = bench.ends().pop().unwrap();
    eprintln!("{over:?}: {woken} wake-ups for {MESSAGES} messages, {end:?}");
    if bench.path == Path::Sockmap {
        // One a second is the sweep for time limits.
        assert!(woken < 10 + seconds, "{woken} wake-ups");
        for carried in [end.to_upstream, end.to_client] {
            assert!(carried.kernel * 100 >= carried.total() * 95, "{carried:?}");
        }
    } else {
        assert_eq!(end.to_upstream.kernel + end.to_client.kernel, 0);
    }
}

/// Datapaths of one host have nothing to do with each other, whichever goes first.
fn two_at_once(over: Over) {
    let talk = |bench: &Bench, seed| {
        let (client, server) = bench.session();
        both_ways(&client, &server, MIB, 20_000, seed);
        (client, server)
    };
    for first_goes in [true, false] {
        let Some(first) = bench(over) else { return };
        let first_ends = talk(&first, 1);
        let second = Bench::start_beside(&first, over.options());
        let second_ends = talk(&second, 3);
        let (goes, stays) = if first_goes { (first, second) } else { (second, first) };
        let (of_gone, of_staying) =
            if first_goes { (first_ends, second_ends) } else { (second_ends, first_ends) };
        close_in_order(&of_gone.0, &of_gone.1);
        goes.all_gone();
        let alone = goes.stop();
        let (client, server) = &of_staying;
        both_ways(client, server, MIB, 20_000, 5);
        close_in_order(client, server);
        let (client, server) = talk(&stays, 7);
        close_in_order(&client, &server);
        stays.all_gone();
        assert!(stays.ends().iter().all(|end| end.path == stays.path), "{:?}", stays.ends());
        assert_eq!(*stays.record.fallbacks.lock().unwrap(), [""; 0]);
        drop((stays, alone));
    }
}
