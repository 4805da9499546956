//! Hostile clients against the real program. While they do their worst another client opens a
//! session; afterwards nothing is left of them, down to the last descriptor.
#![cfg(target_os = "linux")]

#[path = "hostile/silent.rs"]
mod silent;
mod support;
#[path = "hostile/upstream.rs"]
mod upstream;

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    process::Command,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, pki_types::ServerName};
use socket2::{Domain, Socket, Type};
use support::{BINARY, PATIENCE, Peer, Proxy, TempDir, config, request, status, wait_for};
use upstream::Upstream;

/// Most bytes that a server may get rid of towards a client that reads none: what the kernel's
/// buffers of two connections may grow to, and a little of our own.
const STOPPED_BY: u64 = 48 << 20;
/// How much memory an attack may cost, in KiB.
const MEMORY_KIB: u64 = 32 << 10;
const FRAME: &[u8] = b"\x81\x05hello";

/// The program in front of it, and what it had before the attack.
struct Scene {
    proxy: Proxy,
    upstream: Upstream,
    descriptors: usize,
    memory: u64,
    /// Of a listener that speaks TLS.
    dir: Option<TempDir>,
}

/// A client of this address.
fn client_at(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Another client than all the others, for whoever counts addresses.
fn other_client(to: SocketAddr) -> TcpStream {
    client_at(Ipv4Addr::new(127, 0, 0, 2), to)
}

impl Scene {
    fn new(more: &str) -> Self {
        let upstream = Upstream::start();
        let proxy = Proxy::relay(&[upstream.address], more);
        Self::of(proxy, upstream, None)
    }

    fn of(proxy: Proxy, upstream: Upstream, dir: Option<TempDir>) -> Self {
        let mut scene = Self { proxy, upstream, descriptors: 0, memory: 0, dir };
        // Some descriptors come with the first session, and stay.
        if scene.dir.is_none() {
            scene.session_works();
            scene.nothing_runs();
        }
        scene.descriptors = scene.open();
        scene.memory = scene.resident();
        scene
    }

    /// Open descriptors of the program. Asking it anything opens one more for a moment.
    fn open(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.proxy.pid())).unwrap().count()
    }

    /// Its memory in KiB.
    fn resident(&self) -> u64 {
        self.memory_in("VmRSS:")
    }

    /// The most memory that it ever had, in KiB.
    fn peak(&self) -> u64 {
        self.memory_in("VmHWM:")
    }

    fn memory_in(&self, line: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.proxy.pid())).unwrap();
        let value = text.lines().find_map(|found| found.strip_prefix(line)).unwrap();
        value.trim().trim_end_matches(" kB").parse().unwrap()
    }

    fn nothing_runs(&self) {
        for path in ["relay", "sockmap"] {
            self.proxy.wait_metric(&format!("wsproxy_sessions{{datapath=\"{path}\"}}"), |n| n == 0);
        }
    }

    /// Somebody else has his session, and soon.
    fn session_works(&self) {
        let mut client = Peer::new(other_client(self.proxy.address));
        let began = Instant::now();
        client.send([request("").as_bytes(), FRAME].concat().as_slice());
        assert_eq!(status(&client.head()), 101);
        client.expect(FRAME);
        for size in [1, 1000, 100_000] {
            let bytes = vec![7; size];
            client.send(&bytes);
            client.expect(&bytes);
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        client.finish();
        client.rest();
    }

    /// The attack is over: nothing is left of it.
    fn calms_down(self) {
        self.session_works();
        self.ends();
    }

    fn ends(self) {
        self.nothing_runs();
        wait_for("descriptors come back", || (self.open() <= self.descriptors).then_some(()));
        let grown = self.resident().saturating_sub(self.memory);
        assert!(grown < MEMORY_KIB, "{grown} KiB more");
        self.proxy.stop();
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.proxy.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    fn peer(&self) -> Peer {
        Peer::new(self.connect())
    }
}

/// Everything up to the end, whichever that is.
fn to_the_end(stream: &mut TcpStream) -> String {
    let mut got = Vec::new();
    match stream.read_to_end(&mut got) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => String::from_utf8_lossy(&got).into_owned(),
    }
}

/// Sends a byte of `bytes` on each connection every 20 ms, over and over, until all are closed.
/// Returns what they got, and when the last one ended.
fn drip(mut streams: Vec<TcpStream>, bytes: &[u8]) -> (Vec<String>, Duration) {
    let began = Instant::now();
    let mut got = Vec::new();
    for byte in bytes.iter().cycle() {
        assert!(began.elapsed() < PATIENCE, "{} may go on for ever", streams.len());
        thread::sleep(Duration::from_millis(20));
        streams.retain_mut(|stream| {
            stream.set_nonblocking(true).unwrap();
            let waits = stream.peek(&mut [0]).is_err_and(|e| e.kind() == ErrorKind::WouldBlock);
            stream.set_nonblocking(false).unwrap();
            let open = waits && stream.write_all(&[*byte]).is_ok();
            if !open {
                got.push(to_the_end(stream));
            }
            open
        });
        if streams.is_empty() {
            break;
        }
    }
    (got, began.elapsed())
}

/// All are answered so, if at all.
fn check_status(got: &[String], wanted: u16) {
    for text in got {
        assert_eq!(status(text), wanted, "{text}");
    }
}

/// One that sends this is answered so, and closed.
fn check_answer(scene: &Scene, bytes: &[u8], wanted: u16) {
    let mut stream = scene.connect();
    stream.write_all(bytes).unwrap();
    check_status(&[to_the_end(&mut stream)], wanted);
}

#[test]
fn slow_heads_are_cut_off() {
    let scene = Scene::new("[timeouts]\nrequest_head = \"1s\"\nkeepalive_idle = \"1s\"");
    let good = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let line =
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    for second in [false, true] {
        let streams: Vec<_> = (0..40)
            .map(|_| {
                let mut peer = scene.peer();
                if second {
                    // Behind a good request the library reads, with the guard before it.
                    peer.send(good);
                    assert_eq!(status(&peer.head()), 200);
                    peer.expect(b"ok");
                }
                peer.stream
            })
            .collect();
        let (got, took) = thread::scope(|scope| {
            let attack = scope.spawn(|| drip(streams, line));
            scene.session_works();
            attack.join().unwrap()
        });
        check_status(&got, 408);
        // Not before their time, and not long after it, although a byte always comes in time.
        let range = Duration::from_millis(900)..Duration::from_secs(6);
        assert!(range.contains(&took), "{took:?}");
    }
    scene.calms_down();
}

/// A certificate of our own for `x.test`, the configuration of a client that believes it, and a
/// TLS listener in the configuration of the program.
fn tls(upstream: &Upstream, dir: &TempDir) -> (String, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(vec!["x.test".to_owned()]).unwrap();
    let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let table = format!(
        "[listener.tls]\ncertificates = [{{ certificate = {certificate:?}, key = {key:?} }}]\n[admin]\n"
    );
    let more = "[timeouts]\ntls_handshake = \"1s\"";
    (config(&[upstream.address], more).replacen("[admin]\n", &table, 1), Arc::new(client))
}

#[test]
fn slow_tls_hellos_are_cut_off() {
    let (dir, upstream) = (TempDir::new(), Upstream::start());
    let (text, client) = tls(&upstream, &dir);
    let proxy = Proxy::with_file(Command::new(BINARY), &text, "relay");
    let session = |proxy: &Proxy| {
        let name = ServerName::try_from("x.test").unwrap();
        let connection = ClientConnection::new(Arc::clone(&client), name).unwrap();
        let socket = other_client(proxy.address);
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut stream = StreamOwned::new(connection, socket);
        stream.write_all(&[request("").as_bytes(), FRAME].concat()).unwrap();
        let mut got = Vec::new();
        while !got.ends_with(FRAME) {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            got.push(byte[0]);
        }
        assert!(got.starts_with(b"HTTP/1.1 101 "), "{}", got.escape_ascii());
    };
    session(&proxy);
    let scene = Scene::of(proxy, upstream, Some(dir));
    scene.nothing_runs();
    let name = ServerName::try_from("x.test").unwrap();
    let mut hello = Vec::new();
    ClientConnection::new(Arc::clone(&client), name).unwrap().write_tls(&mut hello).unwrap();
    // A record of which the end never comes, byte by byte.
    let streams: Vec<_> = (0..40).map(|_| scene.connect()).collect();
    let (got, took) = thread::scope(|scope| {
        let attack = scope.spawn(|| drip(streams, &hello[..hello.len() - 1]));
        session(&scene.proxy);
        attack.join().unwrap()
    });
    assert!(got.iter().all(String::is_empty), "{got:?}");
    let range = Duration::from_millis(900)..Duration::from_secs(6);
    assert!(range.contains(&took), "{took:?}");
    // A hello and nothing more; and not even that.
    let mut streams: Vec<_> = (0..40).map(|_| scene.connect()).collect();
    for stream in &mut streams[..20] {
        stream.write_all(&hello).unwrap();
    }
    session(&scene.proxy);
    for stream in &mut streams {
        to_the_end(stream);
    }
    scene.proxy.wait_metric("wsproxy_tls_handshakes_total{result=\"tls_timeout\"}", |n| n == 80);
    drop(streams);
    session(&scene.proxy);
    scene.ends();
}

#[test]
fn floods_of_headers_are_refused_and_not_kept() {
    let scene = Scene::new("");
    let many = "X: y\r\n".repeat(101);
    let long = format!("X: {}\r\n", "y".repeat(16 << 10));
    let (long_name, target) = ("X".repeat(17 << 10), "/y".repeat(9 << 10));
    for start in
        ["GET / HTTP/1.1\r\nHost: x\r\n".to_owned(), request("").replace("\r\n\r\n", "\r\n")]
    {
        for head in [&*many, &long, &long_name] {
            check_answer(&scene, [&start, head].concat().as_bytes(), 431);
        }
    }
    check_answer(&scene, format!("GET {target}").as_bytes(), 431);
    // Who does not stop talking is not listened to for long.
    let mut streams: Vec<_> = (0..20).map(|_| scene.connect()).collect();
    scene.session_works();
    for stream in &mut streams {
        let lines = "X: y\r\n".repeat(10_000);
        let mut sent = 0;
        stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let error = loop {
            match stream.write(lines.as_bytes()) {
                Ok(n) => sent += n as u64,
                Err(error) => break error,
            }
            assert!(sent < STOPPED_BY, "{sent} bytes of a head");
        };
        assert!(!matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    }
    drop(streams);
    scene.calms_down();
}

#[test]
fn who_does_not_read_stops_the_server_and_takes_no_memory() {
    let scene = Scene::new("");
    for many in [1, 20] {
        let before = scene.upstream.sent.load(Ordering::Relaxed);
        let clients: Vec<_> = (0..many)
            .map(|_| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.set_recv_buffer_size(64 << 10).unwrap();
                socket.connect(&scene.proxy.address.into()).unwrap();
                let mut stream = TcpStream::from(socket);
                stream.write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
                stream
            })
            .collect();
        // Until nothing has moved for half a second.
        let mut last = (0, Instant::now());
        wait_for("the server is stopped", || {
            let sent = scene.upstream.sent.load(Ordering::Relaxed) - before;
            assert!(sent < many * STOPPED_BY, "{sent} bytes to {many} that read none");
            if sent != last.0 {
                last = (sent, Instant::now());
            }
            (sent > 0 && last.1.elapsed() > Duration::from_millis(500)).then_some(())
        });
        let grown = scene.resident().saturating_sub(scene.memory);
        assert!(grown < MEMORY_KIB, "{grown} KiB more");
        scene.session_works();
        drop(clients);
    }
    scene.calms_down();
}

/// A head with a body to come.
fn post(length: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\n").into_bytes()
}

#[test]
fn slow_bodies_are_cut_off_and_no_server_suffers() {
    // Two servers: one that is taken for bad gets nothing for a minute.
    let (one, two) = (Upstream::start(), Upstream::start());
    let more = "[timeouts]\nrequest_body = \"1500ms\"\nupstream_answer = \"500ms\"";
    let proxy = Proxy::relay(&[one.address, two.address], more);
    let scene = Scene::of(proxy, one, None);
    for length in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let mut streams: Vec<_> = (0..20).map(|_| scene.connect()).collect();
        let began = Instant::now();
        for stream in &mut streams {
            stream.write_all(&[&*post(length), b"5\r\nhello\r\n"].concat()).unwrap();
        }
        scene.session_works();
        let got: Vec<_> = streams.iter_mut().map(to_the_end).collect();
        check_status(&got, 408);
        assert!(began.elapsed() >= Duration::from_millis(1400), "{:?}", began.elapsed());
        // And those that just leave, or send nonsense.
        for mut stream in (0..20).map(|_| scene.connect()) {
            stream.write_all(&post(length)).unwrap();
            stream.write_all(b"zz\r\n").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            to_the_end(&mut stream);
        }
    }
    let failed = "too many failures: the server gets nothing for upstream.fail_timeout";
    assert!(scene.proxy.logged(failed).is_none(), "the servers did nothing wrong");
    scene.calms_down();
}

#[test]
fn endless_bodies_end_at_the_limit() {
    let scene = Scene::new("[route]\nupstream = \"default\"\nbody_limit = \"1MiB\"");
    let chunk = [b"10000\r\n", &[b'x'; 0x10000][..], b"\r\n"].concat();
    let (mut refused, before) = (0, scene.upstream.received.load(Ordering::Relaxed));
    for number in 0..20_u64 {
        let mut stream = scene.connect();
        stream.write_all(&post("Transfer-Encoding: chunked")).unwrap();
        let mut sent = 0;
        while stream.write_all(&chunk).is_ok() {
            sent += chunk.len() as u64;
            assert!(sent < STOPPED_BY, "{sent} bytes of a body");
        }
        if number == 10 {
            scene.session_works();
        }
        let got = to_the_end(&mut stream);
        // The answer may be lost behind what was sent and not read.
        assert!(got.is_empty() || status(&got) == 413, "{got}");
        refused += u64::from(!got.is_empty());
    }
    assert_eq!(scene.proxy.request_failures("body_too_large"), 20, "{refused} were told");
    let passed = scene.upstream.received.load(Ordering::Relaxed) - before;
    assert!(passed <= 20 * (1100 << 10), "{passed} bytes were passed on");
    // Announced is enough.
    check_answer(&scene, &post("Content-Length: 1048577"), 413);
    scene.calms_down();
}

/// Leaves with a reset.
fn reset(stream: TcpStream) {
    Socket::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn connections_may_break_in_every_phase() {
    // Whether a client that says no more has left shows when it is to get something: until then
    // its request waits for the server, so long at most.
    let scene = Scene::new("[timeouts]\nupstream_answer = \"1s\"");
    let ws = request("");
    let mute = "GET /mute HTTP/1.1\r\nHost: x\r\n\r\n";
    let (endless, plain) = (mute.replace("/mute", "/endless"), mute.replace("/mute", "/"));
    let upload = [&*post("Content-Length: 100000"), &[0; 5000]].concat();
    let chunked = [&*post("Transfer-Encoding: chunked"), b"5\r\nhel"].concat();
    let framed = [ws.as_bytes(), FRAME].concat();
    for (sent, answered) in [
        (&b""[..], false),
        (&ws.as_bytes()[..40], false),
        (ws.as_bytes(), false),
        (ws.as_bytes(), true),
        (&framed, true),
        (&framed[..framed.len() - 3], true),
        (&plain.as_bytes()[..10], false),
        (plain.as_bytes(), false),
        (plain.as_bytes(), true),
        (mute.as_bytes(), false),
        (endless.as_bytes(), true),
        (&upload, false),
        (&chunked, false),
        (b"\x16\x03\x01", false),
        (b"nonsense", false),
    ] {
        for leave in [reset, drop, |stream: TcpStream| {
            // Half-open: it says no more, and listens on.
            stream.shutdown(Shutdown::Write).unwrap();
            thread::sleep(Duration::from_millis(1));
        }] {
            for _ in 0..10 {
                let mut stream = scene.connect();
                stream.write_all(sent).unwrap();
                if answered {
                    assert!(stream.read(&mut [0; 64]).unwrap() > 0);
                }
                leave(stream);
            }
        }
        scene.session_works();
    }
    scene.calms_down();
}

#[test]
fn half_open_connections_end_when_there_is_nothing_to_say() {
    let scene = Scene::new("");
    let plain = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    for (sent, answers) in [("", 0), (plain, 1), (&plain[..9], 0), (&plain.repeat(3), 3)] {
        let mut streams: Vec<_> = (0..20).map(|_| scene.connect()).collect();
        for stream in &mut streams {
            stream.write_all(sent.as_bytes()).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        }
        scene.session_works();
        for stream in &mut streams {
            let got = to_the_end(stream);
            assert_eq!(got.matches("HTTP/1.1 200 OK").count(), answers, "{sent}: {got}");
        }
    }
    scene.calms_down();
}

#[test]
fn floods_of_handshakes_are_counted_off() {
    const MANY: u64 = 2000;
    let more = "[route]\nupstream = \"default\"\nhandshake_rate = \"10/s\"\nhandshake_burst = 20";
    let scene = Scene::new(more);
    let began = Instant::now();
    let (mut opened, mut refused) = (0, 0);
    for number in 0..MANY {
        let mut peer = scene.peer();
        peer.send(request("").as_bytes());
        match status(&peer.head()) {
            101 => opened += 1,
            429 => refused += 1,
            other => panic!("{other}"),
        }
        if number == MANY / 2 {
            scene.session_works();
        }
    }
    // The burst, and what the rate has let in meanwhile.
    let most = 20 + began.elapsed().as_millis() as u64 / 100 + 1;
    assert!((20..=most).contains(&opened), "{opened} of at most {most}");
    assert_eq!(opened + refused, MANY);
    assert_eq!(scene.proxy.failures("client_rate"), refused);
    scene.calms_down();
}

#[test]
fn a_client_has_so_many_sessions_and_no_more() {
    for table in ["limits", "route"] {
        let upstream = if table == "route" { "upstream = \"default\"\n" } else { "" };
        let scene = Scene::new(&format!("[{table}]\n{upstream}max_sessions_per_client = 5"));
        let open = || {
            let mut peer = scene.peer();
            peer.send(request("").as_bytes());
            (status(&peer.head()), peer)
        };
        let mut mine: Vec<_> = (0..5).map(|_| open()).collect();
        assert!(mine.iter().all(|(status, _)| *status == 101), "{table}");
        for _ in 0..50 {
            assert_eq!(open().0, 429, "{table}");
        }
        assert_eq!(scene.proxy.failures("client_sessions"), 50);
        scene.session_works();
        // The place of one that ends is free, and no more than that.
        mine.pop();
        let sixth = wait_for("its place is free", || Some(open()).filter(|(s, _)| *s == 101));
        assert_eq!(open().0, 429, "{table}");
        drop((mine, sixth));
        scene.calms_down();
    }
}
