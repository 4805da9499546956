//! The packet path through the real program: who goes it, what an operator sees of it, and how
//! sessions leave it. Needs root.
#![cfg(target_os = "linux")]

mod support;
#[path = "support/tls.rs"]
mod tls_support;

use std::{net::TcpStream, process::Command};

use serde_json::Value;
use socket2::{Domain, SockRef, Socket, Type};
use support::{
    BINARY, Peer, Proxy, Server, TempDir, is_root, request, run, say, status, switch, wait_for,
    ws::{BINARY_MESSAGE, FROM_CLIENT, FROM_SERVER, Frames, TEXT, close, frame},
};
use tls_support::{BOTH, End, client_config, listener_tls, local, secure};

/// The route that goes the packet path.
const ROUTE: &str = "[[route]]\nname = \"way\"\nupstream = \"default\"\nframes = false\n";

struct Bench {
    proxy: Proxy,
    server: Server,
    dir: TempDir,
}

impl Bench {
    /// `listener` has keys of `[listener]`, `more` other tables. `None`, said loudly: not here.
    fn start(listener: &str, more: &str) -> Option<Self> {
        if !is_root() {
            let promised = std::env::var_os("CI").is_some_and(|ci| ci == "true");
            assert!(!promised, "the packet path needs root");
            say("!!! SKIPPED: the packet path needs root (sudo)");
            return None;
        }
        let (server, dir) = (Server::start(), TempDir::new());
        let text = format!(
            "[log]\nformat = \"json\"\nlevel = \"debug\"\n\
             [admin]\naddress = \"127.0.0.1:0\"\nsocket = \"{}\"\n\
             [listener]\naddress = \"127.0.0.1:0\"\n{listener}\n\
             [upstream]\nservers = [\"{}\"]\n[limits]\nmax_sessions = 64\n{more}\n",
            dir.join("admin.sock").display(),
            server.address,
        );
        let proxy = Proxy::with_file(Command::new(BINARY), &text, "packet");
        Some(Self { proxy, server, dir })
    }

    /// Both ends of a session.
    fn session(&self, path: &str) -> (Peer, Peer) {
        self.session_of(self.proxy.connect(), path)
    }

    /// The same of this client.
    fn session_of(&self, mut client: Peer, path: &str) -> (Peer, Peer) {
        client.send(request("").replace("/chat?a=b", path).as_bytes());
        let mut server = self.server.accept();
        server.head();
        server.send(switch("").as_bytes());
        assert_eq!(status(&client.head()), 101);
        (client, server)
    }

    /// The same on the packet path: it gets there once something was heard of both sides.
    fn translated(&self) -> (Peer, Peer) {
        self.translated_of(self.proxy.connect())
    }

    /// The same of this client.
    fn translated_of(&self, client: Peer) -> (Peer, Peer) {
        let known = self.paths().iter().filter(|path| *path == "packet").count();
        let (mut client, mut server) = self.session_of(client, "/chat");
        wait_for("its packets are translated", || {
            greet(&mut client, &mut server);
            (self.paths().iter().filter(|path| *path == "packet").count() > known).then_some(())
        });
        (client, server)
    }

    /// The running sessions, as an operator sees them.
    fn sessions(&self) -> Vec<Value> {
        let answer: Value = serde_json::from_str(&self.ask(&["sessions", "--json"])).unwrap();
        answer["sessions"].as_array().unwrap().clone()
    }

    /// What carries them.
    fn paths(&self) -> Vec<Value> {
        self.sessions().iter().map(|session| session["datapath"].clone()).collect()
    }

    fn ask(&self, args: &[&str]) -> String {
        let socket = self.dir.join("admin.sock");
        let output = run(args.iter().chain(&["--socket", socket.to_str().unwrap()]));
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The line of the only session that has ended so.
    fn ended(&self, ending: &str) -> Value {
        let series = format!("wsproxy_session_ends_total{{ending=\"{ending}\"}}");
        self.proxy.wait_metric(&series, |ended| ended == 1);
        let line = wait_for("its line", || self.proxy.logged("session ended"));
        assert_eq!((&line["ended_by"], &line["reset"]), (&ending.into(), &false.into()), "{line}");
        line
    }

    fn live(&self) -> u64 {
        self.proxy.metric("wsproxy_sessions{datapath=\"packet\"}")
    }

    fn bytes(&self, direction: &str) -> u64 {
        let labels = format!("datapath=\"packet\",direction=\"{direction}\"");
        self.proxy.metric(&format!("wsproxy_session_bytes_total{{{labels}}}"))
    }
}

/// A message each way.
fn greet(client: &mut impl Frames, server: &mut impl Frames) {
    client.send(&frame(TEXT, FROM_CLIENT, b"hello"));
    server.expect_frame(TEXT, FROM_CLIENT, b"hello");
    server.send(&frame(TEXT, FROM_SERVER, b"welcome"));
    client.expect_frame(TEXT, FROM_SERVER, b"welcome");
}

/// Larger than what is taken for noise; how long their frames are.
fn exchange(client: &mut Peer, server: &mut Peer) -> [u64; 2] {
    let payload = vec![0xA5; 20_000];
    let mut sent = [0; 2];
    for _ in 0..20 {
        let message = frame(BINARY_MESSAGE, FROM_CLIENT, &payload);
        client.send(&message);
        server.expect_frame(BINARY_MESSAGE, FROM_CLIENT, &payload);
        let answer = frame(BINARY_MESSAGE, FROM_SERVER, &payload);
        server.send(&answer);
        client.expect_frame(BINARY_MESSAGE, FROM_SERVER, &payload);
        sent[0] += message.len() as u64;
        sent[1] += answer.len() as u64;
    }
    sent
}

/// A Close of one side and the answer of the other, then FIN and FIN.
fn part(first: &mut Peer, second: &mut Peer, from_client: bool) {
    first.send(&close(from_client, 1000, "bye"));
    second.expect_close(from_client, 1000, "bye");
    second.send(&close(!from_client, 1000, ""));
    first.expect_close(!from_client, 1000, "");
    first.finish();
    assert_eq!(second.rest(), b"");
    second.finish();
    assert_eq!(first.rest(), b"");
}

#[test]
fn an_operator_sees_what_is_translated() {
    let Some(bench) = Bench::start("", ROUTE) else { return };
    let (mut client, mut server) = bench.translated();
    let sent = exchange(&mut client, &mut server);
    assert_eq!(bench.live(), 1);
    let session = wait_for("everything is acknowledged", || {
        let session = bench.sessions().remove(0);
        let all = session["packet_bytes_to_client"].as_u64() >= Some(sent[1]);
        all.then_some(session)
    });
    assert_eq!(session["datapath"], "packet", "{session}");
    assert_eq!(session["owner_to_client"], "packet", "{session}");
    assert!(session["packet_bytes_to_upstream"].as_u64() >= Some(sent[0]), "{session}");
    let table = bench.ask(&["sessions"]);
    assert!(table.lines().nth(1).is_some_and(|line| line.contains(" packet ")), "{table}");
    assert!(bench.bytes("to_upstream") >= sent[0] && bench.bytes("to_client") >= sent[1]);
    let translated = bench.proxy.metric("wsproxy_kernel_verdicts_total{verdict=\"translated\"}");
    assert!(translated > 0);
    part(&mut client, &mut server, FROM_CLIENT);
    let line = bench.ended("client_finished");
    assert_eq!(line["datapath"], "packet", "{line}");
    let carried = |direction: &str, way: &str| {
        line[format!("{direction}_{way}_bytes")].as_u64().unwrap_or_else(|| panic!("{line}"))
    };
    for (direction, sent) in [("to_upstream", sent[0]), ("to_client", sent[1])] {
        assert!(carried(direction, "packet") >= sent, "{line}");
        assert_eq!(carried(direction, "kernel"), 0, "{line}");
    }
    wait_for("it is gone", || (bench.live() == 0).then_some(()));
    bench.proxy.stop();
}

#[test]
fn a_server_may_close_first() {
    let Some(bench) = Bench::start("", ROUTE) else { return };
    let (mut client, mut server) = bench.translated();
    part(&mut server, &mut client, FROM_SERVER);
    assert_eq!(bench.ended("upstream_finished")["datapath"], "packet");
    bench.proxy.stop();
}

#[test]
fn a_route_or_a_listener_keeps_its_sessions_off_it() {
    let kept = format!("{ROUTE}packets = false\n");
    for (listener, more) in [("", kept.as_str()), ("packets = false", ROUTE)] {
        let Some(bench) = Bench::start(listener, more) else { return };
        let (mut client, mut server) = bench.session("/chat");
        // As a session that may would have got there: see `translated`.
        for _ in 0..50 {
            greet(&mut client, &mut server);
        }
        exchange(&mut client, &mut server);
        assert_eq!(bench.paths(), ["sockmap"], "{listener} {more}");
        part(&mut client, &mut server, FROM_CLIENT);
        bench.ended("client_finished");
        assert_eq!(bench.bytes("to_upstream"), 0);
        // Nobody wanted it there.
        let text = bench.proxy.metrics();
        assert!(!text.contains("wsproxy_datapath_fallback_total{"), "{text}");
        bench.proxy.stop();
    }
}

#[test]
fn a_drain_brings_sessions_back_and_ends_them_in_order() {
    let more = format!("[drain]\nwindow = \"off\"\n{ROUTE}");
    let Some(mut bench) = Bench::start("", &more) else { return };
    let (mut client, mut server) = bench.translated();
    // The last greeting may have been the relay's yet.
    greet(&mut client, &mut server);
    bench.ask(&["drain"]);
    ends_by_fin(&mut client, &mut server);
    let ended = bench.proxy.wait();
    assert_eq!(ended.code(), Some(0), "{}", bench.proxy.log_text());
    let line = bench.proxy.logged("session ended").unwrap();
    assert_eq!((&line["ended_by"], &line["reset"]), (&"drained".into(), &false.into()), "{line}");
    assert!(line["to_client_packet_bytes"].as_u64() > Some(0), "{line}");
}

/// Without frames there are no words of parting: each side gets the other one's end.
fn ends_by_fin(client: &mut Peer, server: &mut Peer) {
    assert_eq!(client.rest(), b"");
    assert_eq!(server.rest(), b"");
    client.finish();
    server.finish();
}

#[test]
fn an_operator_closes_a_session() {
    let Some(bench) = Bench::start("", ROUTE) else { return };
    let (mut client, mut server) = bench.translated();
    let (mut other, mut others) = bench.translated();
    let id = bench.sessions()[0]["id"].to_string();
    bench.ask(&["close", &id]);
    ends_by_fin(&mut client, &mut server);
    bench.ended("closed");
    // That was one session's matter.
    exchange(&mut other, &mut others);
    assert_eq!(bench.paths(), ["packet"]);
    part(&mut other, &mut others, FROM_CLIENT);
    bench.proxy.stop();
}

#[test]
fn a_silent_session_is_closed() {
    let Some(bench) = Bench::start("", &format!("{ROUTE}idle = \"1s\"\n")) else { return };
    let (mut client, mut server) = bench.translated();
    ends_by_fin(&mut client, &mut server);
    bench.ended("idle_timeout");
    bench.proxy.stop();
}

/// Bytes of payload in a segment that this end sends.
fn segment(of: &Peer) -> u32 {
    SockRef::from(&of.stream).tcp_mss().unwrap()
}

#[test]
fn a_server_is_told_how_large_the_clients_segments_are() {
    const SMALL: u32 = 1000;
    let other = "[[route]]\npath = \"/kept\"\nupstream = \"default\"\npackets = false\n";
    let Some(bench) = Bench::start("", &format!("{ROUTE}{other}")) else { return };
    let small = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_tcp_mss(SMALL).unwrap();
        socket.connect(&bench.proxy.address.into()).unwrap();
        Peer::new(socket.into())
    };
    let (mut client, mut server) = bench.translated_of(small());
    assert!(segment(&server) <= SMALL, "{}", segment(&server));
    exchange(&mut client, &mut server);
    // Where nothing is translated, each connection has segments of its own.
    let (kept, at_server) = bench.session_of(small(), "/kept");
    assert!(segment(&kept) <= SMALL && segment(&at_server) > 10 * SMALL);
    part(&mut client, &mut server, FROM_CLIENT);
    drop((kept, at_server));
    // On loopback, two segments of a train fit one packet.
    let (client, server) = bench.translated();
    assert!(segment(&client) <= 32_732 && segment(&server) <= 32_732);
    drop((client, server));
    bench.proxy.stop();
}

#[test]
fn what_is_no_plain_tcp_is_counted_once() {
    let files = TempDir::new();
    let identity = local().write(&files, "local");
    let listener = listener_tls(&[&identity], "");
    let Some(bench) = Bench::start(&listener, ROUTE) else { return };
    let stream = TcpStream::connect(bench.proxy.address).unwrap();
    let mut client = End::new(secure(stream, client_config(BOTH, None), "localhost"));
    client.send(request("").as_bytes());
    let mut server = bench.server.accept();
    server.head();
    server.send(switch("").as_bytes());
    assert_eq!(status(&client.head()), 101);
    for _ in 0..20 {
        greet(&mut client, &mut server);
    }
    assert_eq!(bench.paths(), ["relay"]);
    let series = "wsproxy_datapath_fallback_total{reason=\"packet_not_tcp\"}";
    assert_eq!(bench.proxy.metric(series), 1);
    drop(client);
    assert_eq!(server.rest(), b"");
    drop(server);
    bench.proxy.stop();
}
