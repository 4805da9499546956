//! Plain HTTP beside WebSockets: what of a message ends at this hop, old HTTP, handshakes between
//! requests, servers that fail.
#![cfg(target_os = "linux")]

mod support;

use std::{net::SocketAddr, process::Command, thread, time::Duration};

use support::{
    BINARY, Peer, Proxy, Server, TempDir, config, header,
    http::{Origin, answer, get, lines, plain},
    refusing, request, status, switch, wait_for,
};

/// The proxy with these keys of its only route.
fn routed(servers: &[SocketAddr], keys: &str) -> Proxy {
    Proxy::relay(servers, &format!("[route]\nupstream = \"default\"\n{keys}"))
}

#[test]
fn trailers_go_both_ways() {
    let server = Server::start();
    let proxy = Proxy::relay(&[server.address], "");
    for (wanted, te) in [
        (true, "TE: trailers\r\nConnection: TE, close\r\n"),
        (true, "TE: gzip;q=0.5 ,trailers\r\nConnection: TE, close\r\n"),
        (false, "TE: gzip\r\nConnection: TE, close\r\n"),
        (false, "Connection: close\r\n"),
    ] {
        let mut client = proxy.connect();
        let chunked = "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n";
        let body = "4\r\nbody\r\n0\r\nX-Sum: 17\r\n\r\n";
        client.send((plain("POST", "/", &format!("{chunked}{te}"), "") + body).as_bytes());
        let mut upstream = server.accept();
        let head = upstream.head();
        let te: &[_] = if wanted { &["trailers"] } else { &[] };
        assert_eq!(header(&head, "TE"), te, "{head}");
        // RFC 9110 section 10.1.4.
        let options: &[_] = if wanted { &["TE"] } else { &[] };
        assert_eq!(header(&head, "Connection"), options, "{head}");
        let (body, trailers) = upstream.chunked();
        assert_eq!(body, b"body");
        assert_eq!(trailers.len(), 1, "{trailers:?}");
        assert!(trailers[0].eq_ignore_ascii_case("X-Sum: 17"), "{trailers:?}");
        let head = format!("HTTP/1.1 200 OK\r\n{chunked}Connection: close\r\n\r\n");
        upstream.send(format!("{head}5\r\nreply\r\n0\r\nX-Sum: 18\r\n\r\n").as_bytes());
        let head = client.head();
        assert_eq!(header(&head, "Trailer"), ["X-Sum"], "{head}");
        let (body, trailers) = client.chunked();
        assert_eq!(body, b"reply");
        // RFC 9110 section 6.5.1: who does not ask for trailers may have no use for them.
        assert_eq!(trailers.len(), usize::from(wanted), "{trailers:?}");
        assert!(trailers.iter().all(|t| t.eq_ignore_ascii_case("X-Sum: 18")), "{trailers:?}");
    }
    // It is no reason to close the connection.
    let origin = Origin::echo("");
    let proxy = Proxy::relay(&[origin.address], "");
    let mut last = None;
    wait_for("two clients in a row meet the same connection", || {
        let (_, head, _) = proxy.ask(&get("/", "TE: trailers\r\nConnection: TE, close\r\n"));
        let number = header(&head, "X-Connection").join("");
        (last.replace(number.clone()) == Some(number)).then_some(())
    });
}

#[test]
fn old_clients_are_served() {
    let origin = Origin::start(|_, head, peer| {
        let body = format!("4\r\n{}\r\n3\r\nend\r\n0\r\n\r\n", &head[..4]);
        let whole = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let echo = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len());
        peer.send(if head.contains("/chunked") { whole } else { echo }.as_bytes());
        true
    });
    let proxy = Proxy::relay(&[origin.address], "");
    let server = origin.address.to_string();
    for (lines, host) in [("", &*server), ("Host: example.com\r\n", "example.com")] {
        let mut client = proxy.connect();
        client.send(format!("GET /old HTTP/1.0\r\n{lines}\r\n").as_bytes());
        let text = client.rest_text();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 200 ") || head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(body.starts_with("GET /old HTTP/1.1\r\n"), "{body}");
        assert_eq!(header(body, "Host"), [host], "{body}");
        assert_eq!(header(body, "X-Forwarded-Proto"), ["http"]);
    }
    // It knows no chunks: the end of the connection is that of the body.
    let mut client = proxy.connect();
    client.send(b"GET /chunked HTTP/1.0\r\n\r\n");
    let text = client.rest_text();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert_eq!(header(head, "Transfer-Encoding"), [""; 0], "{head}");
    assert_eq!(body, "GET end");
    let mut client = proxy.connect();
    for path in ["/one", "/two"] {
        client.send(format!("GET {path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").as_bytes());
        let head = client.head();
        let connection = header(&head, "Connection").join("").to_ascii_lowercase();
        assert_eq!(connection, "keep-alive", "{head}");
        let body = String::from_utf8(client.body(&head)).unwrap();
        assert!(body.starts_with(&format!("GET {path} ")), "{body}");
    }
}

#[test]
fn an_answer_until_the_close_gets_an_end() {
    let server = Server::start();
    let proxy = Proxy::relay(&[server.address], "");
    let mut client = proxy.connect();
    for version in ["1.0", "1.1", "1.0"] {
        client.send(get("/", "").as_bytes());
        let mut upstream = server.accept();
        upstream.head();
        upstream.send(format!("HTTP/{version} 200 OK\r\nX-A: b\r\n\r\nfirst, ").as_bytes());
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(header(&head, "X-A"), ["b"]);
        upstream.send(b"second");
        upstream.finish();
        // The next request comes on the same connection.
        assert_eq!(client.body(&head), b"first, second", "{head}");
    }
}

#[test]
fn what_is_meant_for_one_hop_ends_there() {
    let server = Server::start();
    let proxy = Proxy::relay(&[server.address], "");
    let hop = "Connection: X-Hop, keep-alive\r\nConnection: X-Other\r\nX-Hop: 1\r\nX-Other: 2\r\n\
               Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nUpgrade: h2c\r\n";
    let mut client = proxy.connect();
    let more = "Proxy-Authorization: Basic eA==\r\nTE: gzip\r\nHTTP2-Settings: x\r\n";
    let end = "Accept: */*\r\nX-End: 3\r\nX-End: 4\r\nAuthorization: Basic eA==\r\n";
    client.send(get("/", &format!("{hop}{more}{end}")).as_bytes());
    let mut upstream = server.accept();
    let asked = upstream.head();
    // 103 is for who knows it; nobody is told what is not final but 100.
    let more = "Proxy-Authenticate: Basic\r\n";
    let reply = "Set-Cookie: a=b\r\nSet-Cookie: c=d\r\nX-End: 3\r\nX-End: 4\r\n";
    upstream.send(answer(&format!("{hop}{more}{reply}"), "ok").as_bytes());
    let (answered, body) = client.answer();
    assert_eq!(body, "ok");
    for head in [&asked, &answered] {
        for name in [
            "X-Hop",
            "X-Other",
            "Keep-Alive",
            "Proxy-Connection",
            "Upgrade",
            "Proxy-Authorization",
            "Proxy-Authenticate",
            "TE",
            "Connection",
        ] {
            assert_eq!(header(head, name), [""; 0], "{name} in {head}");
        }
        assert_eq!(header(head, "X-End"), ["3", "4"], "{head}");
    }
    assert_eq!(header(&asked, "Authorization"), ["Basic eA=="], "{asked}");
    assert_eq!(header(&asked, "Accept"), ["*/*"], "{asked}");
    assert_eq!(header(&answered, "Set-Cookie"), ["a=b", "c=d"], "{answered}");
    // Nobody can have a header of all hops taken away by naming it.
    client
        .send(get("/", "Connection: Host, X-Forwarded-For, Cookie\r\nCookie: a=b\r\n").as_bytes());
    let mut upstream = next_request(&server, upstream);
    let head = upstream.head();
    assert_eq!(header(&head, "Host"), ["example.com"], "{head}");
    assert_eq!(header(&head, "X-Forwarded-For"), ["127.0.0.1"], "{head}");
    upstream.send(answer("", "").as_bytes());
    client.answer();
}

/// Where the next request arrives: at the kept connection or at a new one.
fn next_request(server: &Server, kept: Peer) -> Peer {
    let mut kept = Some(kept);
    wait_for("a request at the upstream", || {
        if let Some(peer) = server.try_accept() {
            return Some(peer);
        }
        let peer = kept.as_ref()?;
        peer.stream.set_nonblocking(true).unwrap();
        let asked = peer.stream.peek(&mut [0]).is_ok_and(|n| n > 0);
        peer.stream.set_nonblocking(false).unwrap();
        if asked { kept.take() } else { None }
    })
}

#[test]
fn a_handshake_follows_plain_requests() {
    let origin = Origin::start(|_, head, peer| {
        if !head.contains("Sec-WebSocket-Key") {
            peer.send(answer("", &head[..6]).as_bytes());
            return true;
        }
        peer.send(switch("").as_bytes());
        // A session: what comes goes back.
        peer.expect(b"early late");
        peer.send(b"got it");
        false
    });
    let proxy = Proxy::relay(&[origin.address], "");
    for pipelined in [false, true] {
        let mut client = proxy.connect();
        let (one, two) = (get("/1", ""), get("/2", ""));
        let handshake = request("") + "early";
        if pipelined {
            client.send(format!("{one}{two}{handshake}").as_bytes());
        } else {
            client.send(one.as_bytes());
        }
        assert_eq!(client.answer().1, "GET /1", "{pipelined}");
        if !pipelined {
            client.send(two.as_bytes());
        }
        assert_eq!(client.answer().1, "GET /2", "{pipelined}");
        if !pipelined {
            client.send(handshake.as_bytes());
        }
        let head = client.head();
        assert_eq!(status(&head), 101, "{head}");
        client.send(b" late");
        client.expect(b"got it");
        client.finish();
        assert_eq!(client.rest(), b"");
    }
    proxy.wait_metric("wsproxy_sessions_total", |count| count == 2);
}

#[test]
fn a_refused_handshake_is_followed_by_requests() {
    let server = Server::start();
    let proxy = Proxy::relay(&[server.address], "");
    let mut client = proxy.connect();
    for (framing, body) in [
        ("Content-Length: 9\r\n", "forbidden"),
        ("Transfer-Encoding: chunked\r\n", "4\r\nforb\r\n5\r\nidden\r\n0\r\n\r\n"),
    ] {
        client.send(request("").as_bytes());
        let mut upstream = server.accept();
        upstream.head();
        upstream.send(format!("HTTP/1.1 403 Forbidden\r\n{framing}\r\n{body}").as_bytes());
        let (head, body) = client.answer();
        assert_eq!((status(&head), &*body), (403, "forbidden"));
        client.send(get("/plain", "").as_bytes());
        let mut upstream = server.accept();
        assert!(upstream.head().starts_with("GET /plain "));
        // So that the next one comes on a connection of its own.
        upstream.send(answer("Connection: close\r\n", "plain").as_bytes());
        assert_eq!(client.answer().1, "plain");
    }
    client.send(request("").as_bytes());
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(switch("").as_bytes());
    assert_eq!(status(&client.head()), 101);
    client.send(b"there");
    upstream.expect(b"there");
}

#[test]
fn a_server_that_is_down_is_stepped_over() {
    let (_held, down) = refusing();
    let origin = Origin::echo("");
    let proxy = Proxy::relay(&[down, origin.address], "");
    let mut client = proxy.connect();
    for n in 0..4 {
        let (code, _, body) = client.ask(&plain("POST", "/", "", "whole"));
        assert_eq!(code, 200, "{n}: {body}");
        assert!(body.ends_with("whole"), "{body}");
    }
    // It failed once, and is left alone for a while.
    let series = format!("wsproxy_upstream_failures_total{{upstream=\"{down}\"}}");
    assert_eq!(proxy.metric(&series), 1);
    let proxy = Proxy::relay(&[down], "");
    let mut client = proxy.connect();
    let (code, head, body) = client.ask(&get("/", ""));
    assert_eq!(code, 502);
    assert!(!body.contains("127.0.0.1"), "the client learns of an inner address: {body}");
    assert_eq!(header(&head, "X-Request-ID").len(), 1, "{head}");
    assert_eq!(proxy.request_failures("bad_gateway"), 1);
    // The connection is as good as before.
    assert_eq!(client.ask(&get("/", "")).0, 502);
}

#[test]
fn a_broken_answer_is_seen_as_broken() {
    let server = Server::start();
    let proxy = Proxy::relay(&[server.address], "");
    for (framing, body) in [
        ("Content-Length: 10\r\n", "half"),
        ("Transfer-Encoding: chunked\r\n", "4\r\nhalf\r\n"),
        ("Transfer-Encoding: chunked\r\n", "4\r\nhalf\r\n8\r\nqua"),
        ("Transfer-Encoding: chunked\r\n", "4\r\nhalf\r\nxyz\r\n"),
    ] {
        let mut client = proxy.connect();
        client.send(get("/", "").as_bytes());
        let mut upstream = server.accept();
        upstream.head();
        upstream.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n{body}").as_bytes());
        upstream.finish();
        // An end, in order or not, before the end of the body, and behind what came of it.
        let answer = String::from_utf8(client.rest_or_reset()).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("the head of an answer");
        assert_eq!(status(head), 200);
        // The begun chunk may arrive as a whole one, but nothing that ends the body.
        let begin = if framing.starts_with('C') { "half" } else { "4\r\nhalf\r\n" };
        assert!(body.starts_with(begin), "{answer:?}");
        let whole = begin.to_owned() + if framing.starts_with('C') { "" } else { "3\r\nqua\r\n" };
        assert!(whole.starts_with(body), "{answer:?}");
        drop(upstream);
    }
    // Nonsense, or nothing, instead of an answer.
    for nonsense in [
        "",
        "HTTP/1.1 2",
        "SSH-2.0-x\r\n\r\n",
        "HTTP/1.1 101 Yes\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        // Broken before a byte of the body, and before the head has gone out.
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ] {
        let before = proxy.request_failures("bad_gateway");
        let failures =
            format!("wsproxy_upstream_failures_total{{upstream=\"{}\"}}", server.address);
        let failed = proxy.metric(&failures);
        let mut client = proxy.connect();
        client.send(get("/", "").as_bytes());
        let mut upstream = server.accept();
        upstream.head();
        upstream.send(nonsense.as_bytes());
        upstream.finish();
        let (head, _) = client.answer();
        assert_eq!(status(&head), 502, "{nonsense:?}");
        assert_eq!(proxy.request_failures("bad_gateway"), before + 1, "{nonsense:?}");
        assert_eq!(proxy.metric(&failures), failed + 1, "{nonsense:?}");
        // An answer of ours: the client may go on.
        client.send(get("/again", "").as_bytes());
        let mut upstream = server.accept();
        assert!(upstream.head().starts_with("GET /again "));
        upstream.send(answer("Connection: close\r\n", "good").as_bytes());
        assert_eq!(client.answer().1, "good", "{nonsense:?}");
    }
}

#[test]
fn a_slow_server_is_given_up_and_a_slow_upload_is_not() {
    let server = Server::start();
    let proxy = routed(&[server.address], "upstream_answer = \"1500ms\"");
    let late = thread::scope(|scope| {
        let late = scope.spawn(|| {
            let server = Server::start();
            let proxy = routed(&[server.address], "upstream_answer = \"200ms\"");
            let mut client = proxy.connect();
            client.send(get("/", "").as_bytes());
            let mut upstream = server.accept();
            upstream.head();
            upstream.send(b"HTTP/1.1 200 OK\r\nX-Never: ");
            let (head, _) = client.answer();
            assert_eq!(header(&head, "X-Request-ID").len(), 1, "{head}");
            // It does not get a second chance on that connection.
            let gone = upstream.rest_or_reset();
            let failures = "wsproxy_upstream_failures_total";
            let series = format!("{failures}{{upstream=\"{}\"}}", server.address);
            assert_eq!(proxy.metric(&series), 1);
            (status(&head), gone, proxy.request_failures("gateway_timeout"))
        });
        let mut client = proxy.connect();
        client.send(plain("POST", "/", "Content-Length: 40\r\n", "").as_bytes());
        let mut upstream = server.accept();
        upstream.head();
        // Longer than a server may take to answer: it can't know before the end.
        for n in 0..40 {
            client.send(&[n]);
            upstream.expect(&[n]);
            thread::sleep(Duration::from_millis(100));
        }
        upstream.send(answer("", "all of it").as_bytes());
        assert_eq!(client.answer().1, "all of it");
        late.join().unwrap()
    });
    assert_eq!(late, (504, Vec::new(), 1));
}

/// The proxy with one place at this server, and no line before it.
fn with_one_place(server: &Server, more: &str) -> Proxy {
    let place = format!("servers = [{{ address = \"{}\", max_connections = 1 }}]", server.address);
    let text = config(&[], &format!("{more}\n[timeouts]\nupstream_answer = \"1h\""));
    let text = text.replace("servers = []", &place);
    Proxy::with_file(Command::new(BINARY), &text, "relay")
}

/// A client whose request, with `more` behind it, has that place, and the server's connection.
fn waiting(proxy: &Proxy, server: &Server, more: &str) -> (Peer, Peer) {
    let mut client = proxy.connect();
    client.send((get("/slow", "") + more).as_bytes());
    let mut upstream = server.accept();
    upstream.head();
    assert_eq!(proxy.ask(&get("/", "")).0, 503, "the place is taken");
    (client, upstream)
}

#[test]
fn a_client_that_leaves_takes_its_request_with_it() {
    let server = Server::start();
    let dir = TempDir::new();
    let log = dir.join("access.log");
    let more = format!("[access_log]\nformat = \"json\"\npath = \"{}\"", log.display());
    let proxy = with_one_place(&server, &more);
    // What follows the request does not hide its end.
    for (at, (reset, more)) in
        [(true, ""), (false, "GET /half HTTP/1.1\r\n")].into_iter().enumerate()
    {
        let (client, mut upstream) = waiting(&proxy, &server, more);
        let socket = socket2::SockRef::from(&client.stream);
        socket.set_linger(reset.then_some(Duration::ZERO)).unwrap();
        drop(client);
        assert_eq!(upstream.rest_or_reset(), b"", "{at}: the server's connection goes on");
        let found = lines(&log, 2 * at + 2);
        let line = found.iter().rfind(|line| line["target"] == "/slow").unwrap();
        assert_eq!(line["status"], 499, "{line}");
        assert_eq!(line["upstream"], server.address.to_string(), "{line}");
        proxy.wait_metric("wsproxy_request_failures_total{reason=\"client_left\"}", |count| {
            count == at as u64 + 1
        });
    }
    waiting(&proxy, &server, "");
}

#[test]
fn a_client_that_only_listens_is_answered_or_told() {
    let server = Server::start();
    let proxy = with_one_place(&server, "");
    for answered in [true, false] {
        let (mut client, mut upstream) = waiting(&proxy, &server, "");
        client.finish();
        if answered {
            upstream.send(answer("Connection: close\r\n", "soon").as_bytes());
        }
        let (head, body) = client.answer();
        assert_eq!(status(&head), if answered { 200 } else { 499 }, "{head}");
        let id = header(&head, "X-Request-ID");
        assert!(body == "soon" || body.contains(id[0]), "{body}");
        assert_eq!(client.rest(), b"");
        assert_eq!(upstream.rest_or_reset(), b"");
    }
}

#[test]
fn an_answered_client_has_its_time_for_the_next_request() {
    let server = Server::start();
    let more = "[timeouts]\nkeepalive_idle = \"1500ms\"\nrequest_head = \"1s\"\n\
                [[route]]\npath = \"/here\"\nrespond = 200\n[[route]]\nupstream = \"default\"\n";
    let proxy = Proxy::relay(&[server.address], more);
    // Answered at once, without a server.
    let mut client = proxy.connect();
    assert_eq!(client.ask(&get("/here", "")).0, 200);
    assert_eq!(client.rest(), b"", "a silent client keeps its connection");
    let mut client = proxy.connect();
    client.send(get("/slow", "").as_bytes());
    let mut upstream = server.accept();
    upstream.head();
    // Its time does not run while it is us who are late; nor that of what it sends meanwhile.
    client.send(b"GET /here HTTP/1.1\r\n");
    thread::sleep(Duration::from_millis(2000));
    client.send(b"Host: example.com\r\n\r\n");
    upstream.send(answer("Connection: close\r\n", "late").as_bytes());
    assert_eq!(client.answer().1, "late");
    assert_eq!(status(&client.head()), 200);
}
