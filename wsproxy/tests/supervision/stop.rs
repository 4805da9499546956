//! SIGTERM, and `wsproxy drain`: sessions are told, then the program ends.

use std::io::Read as _;

use crate::{
    bench::{Bench, Carrier},
    support::{
        Proxy, Server, header, request, status, switch, wait_for,
        ws::{CLOSE, FROM_CLIENT, FROM_SERVER, Frames as _, close, parted},
    },
};

over! {
    all: a_stop_tells_both_sides;
    plain: an_operators_drain_is_a_stop, a_second_sigterm_cuts_off;
}

/// Sessions are told `drain.code` and `drain.reason`; the rest of the configuration is for what is
/// served meanwhile.
const DRAIN: &str = "[drain]\nwindow = \"off\"\ncode = 1012\nreason = \"back à dix heures\"\n\
    retry_after = \"20s\"\n\
    [[route]]\nupstream = \"default\"\n\
    [[route]]\npath = \"/fixed\"\nrespond = 200\nbody = \"still here\"\n";
const REASON: &str = "back à dix heures";

fn a_stop_tells_both_sides(carrier: Carrier) {
    stops(carrier, |bench| bench.proxy.terminate());
}

fn an_operators_drain_is_a_stop(carrier: Carrier) {
    stops(carrier, |bench| {
        bench.order(&["drain"]);
        // Nothing that an operator wants of the whole process is left to wait for its end.
        for again in ["drain", "reload"] {
            let output = wait_for("it is stopping", || {
                let output = bench.ask(&[again]);
                (output.status.code() == Some(1)).then_some(output)
            });
            let said = String::from_utf8(output.stdout).unwrap();
            assert_eq!(said, "wsproxy is stopping\n", "{again}");
        }
    });
}

fn stops(carrier: Carrier, stop: impl Fn(&Bench)) {
    let Some(bench) = Bench::start(carrier, "", DRAIN) else { return };
    let mut all: Vec<_> = (0..4).map(|_| bench.session()).collect();
    // The last one has said nothing yet.
    all[..3].iter_mut().for_each(|ends| ends.greet());
    assert_eq!(bench.proxy.get("/readyz").unwrap().0, 200);
    assert_eq!(bench.proxy.metric("wsproxy_draining"), 0);
    stop(&bench);
    wait_for("not ready any more", || {
        bench.proxy.get("/readyz").ok().filter(|(code, _)| *code == 503)
    });
    assert_eq!(bench.proxy.metric("wsproxy_draining"), 1);
    assert_eq!(bench.proxy.get("/healthz").unwrap().0, 200);
    for ends in &mut all {
        ends.client.expect_close(FROM_SERVER, 1012, REASON);
        ends.server.expect_close(FROM_CLIENT, 1012, REASON);
    }
    refuses_handshakes(&bench);
    serves_requests(&bench);
    // It waits for everybody's answer; a side gets its FIN when it has answered.
    for ends in &mut all {
        ends.client.send(&close(FROM_CLIENT, 1012, ""));
        assert_eq!(ends.client.rest(), b"");
        ends.server.send(&close(FROM_SERVER, 1012, ""));
        assert_eq!(ends.server.rest(), b"");
    }
    drop(all);
    bench.ended_in_order(4);
}

impl Bench {
    fn ended_in_order(mut self, sessions: usize) {
        let status = self.proxy.wait();
        assert_eq!(status.code(), Some(0), "{}", self.proxy.log_text());
        for line in self.lines(sessions) {
            assert_eq!((&line["ended_by"], &line["reset"]), (&"drained".into(), &false.into()));
            assert_eq!(line["close_to_client"], 1012, "{line}");
            assert_eq!(line["close_to_upstream"], 1012, "{line}");
        }
    }
}

/// Clients come back at different times: after half to one and a half of `drain.retry_after`.
fn refuses_handshakes(bench: &Bench) {
    let mut waits = std::collections::HashSet::new();
    for _ in 0..10 {
        let mut late = bench.client();
        late.send(request("").as_bytes());
        let head = late.head();
        assert_eq!(status(&head), 503, "{head}");
        let wait: u64 = header(&head, "Retry-After").join("").parse().unwrap();
        assert!((10..=30).contains(&wait), "{wait}");
        waits.insert(wait);
    }
    assert!(waits.len() > 1, "all are told the same: {waits:?}");
    assert_eq!(bench.proxy.failures("draining"), 10);
    assert!(bench.server.try_accept().is_none(), "the server was asked");
}

fn serves_requests(bench: &Bench) {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: example.com\r\n\r\n");
    let mut client = bench.client();
    client.send(get("/fixed").as_bytes());
    assert_eq!(status(&client.head()), 200);
    client.expect(b"still here");
    client.send(get("/other").as_bytes());
    let mut server = bench.upstream();
    assert!(server.head().starts_with("GET /other "));
    server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntoo.");
    assert_eq!(status(&client.head()), 200);
    client.expect(b"too.");
}

/// Whoever asks twice does not want to wait for the sessions.
fn a_second_sigterm_cuts_off(carrier: Carrier) {
    let more = "[timeouts]\ndrain = \"1h\"\n[drain]\nwindow = \"off\"\n";
    let Some(mut bench) = Bench::start(carrier, "", more) else { return };
    let mut ends = bench.session();
    ends.greet();
    bench.proxy.terminate();
    // Neither answers.
    ends.client.expect_close(FROM_SERVER, 1001, "going away");
    ends.server.expect_close(FROM_CLIENT, 1001, "going away");
    assert!(bench.proxy.ended().is_none());
    bench.proxy.terminate();
    assert_eq!(bench.proxy.wait().code(), Some(0));
    for end in [&mut ends.client, &mut ends.server] {
        // An end or a reset: nobody is left.
        assert!(!end.link.read(&mut [0]).is_ok_and(|n| n > 0));
    }
    let said = "SIGTERM again: sessions are cut off";
    wait_for(said, || bench.proxy.logged(said));
}

/// Sessions that do not answer, a handshake under way, a connection that says nothing, and one at
/// the admin address hold nobody up for longer than `timeouts.drain`.
#[test]
fn sigterm_does_not_wait_for_ever() {
    let server = Server::start();
    let more = "[timeouts]\ndrain = \"1s\"\nupstream_answer = \"1h\"\n[drain]\nwindow = \"1h\"\n";
    let mut proxy = Proxy::relay(&[server.address], more);
    let (mut client, mut upstream) = proxy.session(&server);
    let mut half = proxy.connect();
    half.send(request("").as_bytes());
    let _asked = server.accept();
    let _silent = proxy.connect();
    let _admin = std::net::TcpStream::connect(proxy.admin).unwrap();
    proxy.terminate();
    client.expect_close(FROM_SERVER, 1001, "going away");
    upstream.expect_close(FROM_CLIENT, 1001, "going away");
    assert_eq!(proxy.wait().code(), Some(0));
    let line = wait_for("the session's line", || proxy.logged("session ended"));
    assert_eq!(line["ended_by"], "drained", "{line}");
    assert_eq!(line["reset"], true, "{line}");
    assert_eq!(line["error"], "did not close in time", "{line}");
}

/// Its client gets the 101 that it waits for, and a Close right behind it.
#[test]
fn a_handshake_under_way_becomes_a_session_that_is_closed() {
    let server = Server::start();
    let proxy = Proxy::relay(&[server.address], "");
    let mut client = proxy.connect();
    client.send(request("").as_bytes());
    let mut upstream = server.accept();
    upstream.head();
    proxy.terminate();
    // Nobody listens any more: there was no session to wait for.
    wait_for("it stops", || proxy.logged("stopping"));
    upstream.send(switch("").as_bytes());
    assert_eq!(status(&client.head()), 101);
    parted(&mut client, &mut upstream, 1001, "going away");
    drop((client, upstream));
    ended(proxy);
}

#[test]
fn a_stop_without_sessions_is_over_at_once() {
    let server = Server::start();
    let more = "[timeouts]\ndrain = \"1h\"\n[drain]\nwindow = \"1h\"\n";
    let proxy = Proxy::relay(&[server.address], more);
    let (mut client, mut upstream) = proxy.session(&server);
    client.send(&close(FROM_CLIENT, 1000, ""));
    upstream.expect_frame(CLOSE, FROM_CLIENT, &1000_u16.to_be_bytes());
    drop((client, upstream));
    proxy.wait_metric("wsproxy_sessions{datapath=\"relay\"}", |live| live == 0);
    proxy.stop();
}

/// A session is told only when its turn comes, evenly over `drain.window`.
#[test]
fn sessions_are_told_one_by_one() {
    let server = Server::start();
    let more = "[drain]\nwindow = \"1h\"\n";
    let proxy = Proxy::relay(&[server.address], more);
    let mut all: Vec<_> = (0..3).map(|_| proxy.session(&server)).collect();
    proxy.terminate();
    // Few sessions are done with sooner than the window: in whichever order.
    for (client, upstream) in &mut all {
        parted(client, upstream, 1001, "going away");
    }
    drop(all);
    ended(proxy);
}

/// It ends by itself, in order.
fn ended(mut proxy: Proxy) {
    let status = proxy.wait();
    assert_eq!(status.code(), Some(0), "{}", proxy.log_text());
}
