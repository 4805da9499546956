//! The start-up self-test: a datapath of its own carries a few loopback
//! sessions through this kernel. One wrong byte, and the kernel path stays off.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use socket2::SockRef;

use super::{Kernel, LoadError};
use crate::datapath::{
    ClientSocket, Companion, Datapath, Endpoint, Entry, Handover, Mode, Observer, Options,
    SessionEnd, SessionMeta, Terms, UpstreamSocket, start::slots_for,
};

/// Any one wait. All steps together normally take tens of milliseconds; but a start on a machine
/// that has much to do must not be refused, and TCP's own timers take longer with each turn.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes pushed at the slow reader: many times what the small buffers hold.
const PUSHED: usize = 512 * 1024;
/// Send and receive buffers in bytes of the session with the slow reader.
const SMALL_BUFFER: usize = 16 * 1024;
/// Rounds within which the kernel must have carried a message each way.
const ROUNDS: u32 = 50;

/// Why the kernel path stays off.
#[derive(Debug)]
pub enum Failure {
    /// The object can't be loaded.
    Load(LoadError),
    /// A step went wrong: which, and how.
    Wrong(String),
}

type Step<T = ()> = Result<T, Failure>;

fn wrong(step: &str, what: impl std::fmt::Display) -> Failure {
    Failure::Wrong(format!("{step}: {what}"))
}

/// Runs it; says how long it took. Nothing of it stays in the kernel.
///
/// # Errors
/// See [`Failure`].
pub fn run() -> Step<Duration> {
    let started = Instant::now();
    let options = Options {
        farewell: crate::datapath::Farewell::default(),
        window: Duration::ZERO,
        mode: Mode::Sockmap,
        max_sessions: 8,
        workers: 1,
        relay_buffer: 64 * 1024,
        idle: None,
        drain: PATIENCE,
        entry: Entry::AtOnce,
        packets: false,
        tcx: true,
        persist: None,
    };
    let loaded = Kernel::load(slots_for(&options), false, None).map_err(Failure::Load)?;
    let news = Arc::new(News::default());
    let datapath = Datapath::over(Some(loaded), options, Arc::clone(&news) as Arc<dyn Observer>)
        .map_err(|e| wrong("starting an engine", e))?;
    let test = Test { datapath: &datapath, news: &news };

    test.early_bytes_and_talk(Ipv4Addr::LOCALHOST.into())?;
    // A host without IPv6 has nothing to test there.
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        test.early_bytes_and_talk(Ipv6Addr::LOCALHOST.into())?;
    }
    test.slow_reader_and_end()?;
    test.reset()?;
    test.nothing_left()?;
    Ok(started.elapsed())
}

/// What the datapath under test tells.
#[derive(Default)]
struct News {
    fell_back: Mutex<Option<String>>,
}

impl Observer for News {
    fn ended(&self, _: &SessionEnd, _: Option<Companion>) {}

    fn fell_back(&self, _: &SessionMeta, reason: &'static str, error: &io::Error) {
        *self.fell_back.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(format!("{reason} ({error})"));
    }
}

/// The two ends of a session.
struct Ends {
    client: TcpStream,
    server: TcpStream,
}

/// One hop: the connecting end and the accepted one.
fn hop(ip: IpAddr, receive_buffer: Option<usize>) -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((ip, 0))?;
    if let Some(bytes) = receive_buffer {
        // Inherited by the accepted socket, early enough for its first window.
        SockRef::from(&listener).set_recv_buffer_size(bytes)?;
    }
    let connecting = TcpStream::connect_timeout(&listener.local_addr()?, PATIENCE)?;
    let (accepted, _) = listener.accept()?;
    for end in [&connecting, &accepted] {
        end.set_nodelay(true)?;
        end.set_read_timeout(Some(PATIENCE))?;
        end.set_write_timeout(Some(PATIENCE))?;
    }
    Ok((connecting, accepted))
}

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    // 251 is prime: the pattern does not repeat with any block size.
    (0..len).map(|at| (at % 251) as u8 ^ seed).collect()
}

struct Test<'a> {
    datapath: &'a Datapath,
    news: &'a News,
}

impl Test<'_> {
    /// A session in which each end has already sent two early pieces, and user
    /// space has read the first.
    fn open(&self, ip: IpAddr, small: bool, early: [&[u8]; 4]) -> io::Result<Ends> {
        let buffer = small.then_some(SMALL_BUFFER);
        let (mut client, mut ours_client) = hop(ip, None)?;
        let (mut ours_upstream, mut server) = hop(ip, buffer)?;
        if let Some(bytes) = buffer {
            SockRef::from(&ours_upstream).set_send_buffer_size(bytes)?;
        }
        // What is in hand and what is in the socket come in one packet each: a handshake's
        // reader stops inside a packet, and the rest must not bring its front again.
        client.write_all(&[early[0], early[1]].concat())?;
        server.write_all(&[early[2], early[3]].concat())?;
        ours_client.read_exact(&mut vec![0; early[0].len()])?;
        ours_upstream.read_exact(&mut vec![0; early[2].len()])?;
        let unspecified = SocketAddr::new(ip, 0);
        let meta = SessionMeta {
            id: 0,
            client: client.local_addr().unwrap_or(unspecified),
            local: ours_upstream.local_addr().unwrap_or(unspecified),
            upstream: "self-test".into(),
            route: "self-test".into(),
        };
        ours_client.set_nonblocking(true)?;
        ours_upstream.set_nonblocking(true)?;
        let place = self.datapath.reserve().ok_or(ErrorKind::OutOfMemory)?;
        let handover = Handover {
            client: ClientSocket(Endpoint::tcp(ours_client)),
            upstream: UpstreamSocket(Endpoint::tcp(ours_upstream)),
            early_to_upstream: early[0].to_vec(),
            early_to_client: early[2].to_vec(),
            meta,
            terms: Terms::default(),
        };
        self.datapath.take_over(place, handover);
        Ok(Ends { client, server })
    }

    fn opened(&self, step: &str, ip: IpAddr, small: bool, early: [&[u8]; 4]) -> Step<Ends> {
        self.open(ip, small, early).map_err(|e| wrong(step, format!("opening a session: {e}")))
    }

    /// Early bytes come first and in order; then messages go both ways, and the
    /// counters say that the kernel carried them.
    fn early_bytes_and_talk(&self, ip: IpAddr) -> Step {
        let step = if ip.is_ipv4() { "hand-over (IPv4)" } else { "hand-over (IPv6)" };
        let early: [&[u8]; 4] =
            [b"in hand, ", b"in the socket", b"in our hand, ", b"in its socket"];
        let mut ends = self.opened(step, ip, false, early)?;
        expect(step, &mut ends.server, &[early[0], early[1]].concat())?;
        expect(step, &mut ends.client, &[early[2], early[3]].concat())?;
        for round in 0..ROUNDS {
            let message = pattern(100 + round as usize, round as u8);
            for (from, to) in [(&ends.client, &ends.server), (&ends.server, &ends.client)] {
                let (mut from, mut to) = (from, to);
                from.write_all(&message).map_err(|e| wrong(step, e))?;
                expect(step, &mut to, &message)?;
            }
            let carried = self.datapath.totals();
            let info = self.datapath.sessions();
            let by_kernel = info
                .iter()
                .any(|session| session.to_upstream.kernel > 0 && session.to_client.kernel > 0);
            if by_kernel && carried.to_client.kernel > 0 {
                return Ok(());
            }
        }
        let why = self.news.fell_back.lock().unwrap_or_else(PoisonError::into_inner).take();
        let why = why.unwrap_or_else(|| "the verdict program never redirected".into());
        Err(wrong(step, format!("the kernel carried no message: {why}")))
    }

    /// A reader that starts late: bytes are diverted, none is lost, the FIN
    /// comes after the last one, and the other direction still works.
    fn slow_reader_and_end(&self) -> Step {
        let step = "slow reader";
        let before = self.datapath.totals().to_upstream.relay;
        let mut ends = self.opened(step, Ipv4Addr::LOCALHOST.into(), true, [b""; 4])?;
        let data = pattern(PUSHED, 1);
        let mut sender = ends.client.try_clone().map_err(|e| wrong(step, e))?;
        thread::scope(|scope| {
            let sent = scope.spawn(|| {
                sender.write_all(&data)?;
                sender.shutdown(Shutdown::Write)
            });
            let diverted = wait(|| self.datapath.totals().to_upstream.relay > before);
            let received = expect(step, &mut ends.server, &data);
            let sent = sent.join().map_err(|_| wrong(step, "the sender panicked"))?;
            sent.map_err(|e| wrong(step, format!("sending: {e}")))?;
            received?;
            if !diverted {
                return Err(wrong(step, "a full receiver did not divert the direction"));
            }
            Ok(())
        })?;
        expect_end("end of stream", &mut ends.server)?;
        let answer = pattern(1000, 2);
        ends.server.write_all(&answer).map_err(|e| wrong("half-close", e))?;
        expect("half-close", &mut ends.client, &answer)?;
        ends.server.shutdown(Shutdown::Write).map_err(|e| wrong("half-close", e))?;
        expect_end("half-close", &mut ends.client)
    }

    fn reset(&self) -> Step {
        let step = "reset";
        let mut ends =
            self.opened(step, Ipv4Addr::LOCALHOST.into(), false, [b"x", b"", b"", b""])?;
        expect(step, &mut ends.server, b"x")?;
        let linger = SockRef::from(&ends.client).set_linger(Some(Duration::ZERO));
        linger.map_err(|e| wrong(step, e))?;
        drop(ends.client);
        match ends.server.read(&mut [0; 16]) {
            Err(e) if e.kind() == ErrorKind::ConnectionReset => Ok(()),
            Err(e) => Err(wrong(step, format!("it did not arrive: {e}"))),
            Ok(n) => Err(wrong(step, format!("{n} bytes arrived instead of it"))),
        }
    }

    /// All ends are dropped by now: the sessions must be gone too.
    fn nothing_left(&self) -> Step {
        let live = || self.datapath.live_all();
        if !wait(|| live() == 0) {
            return Err(wrong("clean-up", format!("{} sessions are left", live())));
        }
        match self.datapath.map_entries() {
            0 => Ok(()),
            n => Err(wrong("clean-up", format!("{n} entries are left in the socket map"))),
        }
    }
}

fn wait(mut until: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    loop {
        if until() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(Duration::from_micros(200));
    }
}

fn expect(step: &str, from: &mut impl Read, expected: &[u8]) -> Step {
    let mut found = vec![0; expected.len()];
    from.read_exact(&mut found).map_err(|e| wrong(step, format!("receiving: {e}")))?;
    match found.iter().zip(expected).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(at) => Err(wrong(step, format!("byte {at} of {} is wrong", expected.len()))),
    }
}

fn expect_end(step: &str, from: &mut impl Read) -> Step {
    match from.read(&mut [0; 16]) {
        Ok(0) => Ok(()),
        Ok(n) => Err(wrong(step, format!("{n} bytes too many"))),
        Err(e) => Err(wrong(step, format!("the FIN did not arrive: {e}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_passes_where_the_kernel_path_works() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("!!! SKIPPED: the self-test needs root");
            return;
        }
        let took = run().unwrap();
        eprintln!("self-test: {took:?}");
    }

    #[test]
    fn wrong_bytes_and_early_ends_are_seen() {
        assert!(expect("x", &mut &b"abc"[..], b"abc").is_ok());
        assert!(expect("x", &mut &b"abd"[..], b"abc").is_err());
        assert!(expect("x", &mut &b"ab"[..], b"abc").is_err());
        assert!(expect_end("x", &mut &b""[..]).is_ok());
        assert!(expect_end("x", &mut &b"a"[..]).is_err());
    }
}
