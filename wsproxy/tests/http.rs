//! Plain HTTP beside WebSockets: connections on both sides, bodies, what follows what.
#![cfg(target_os = "linux")]

mod support;

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    process::Command,
    thread,
    time::Duration,
};

use socket2::{Domain, Socket, Type};
use support::{
    BINARY, PATIENCE, Peer, Proxy, Server, config, header,
    http::{Origin, answer, chunks, get, pattern, plain},
    request, status, switch, wait_for,
};

/// 5 MiB: more than the buffers of all sockets on the way hold.
const LARGE: usize = 5 << 20;

/// The proxy with these keys of the upstream.
fn with_upstream(servers: &[SocketAddr], keys: &str) -> Proxy {
    let text = config(servers, "").replace("[upstream]\n", &format!("[upstream]\n{keys}\n"));
    Proxy::with_file(Command::new(BINARY), &text, "relay")
}

/// The proxy with these keys of its only route.
fn routed(servers: &[SocketAddr], keys: &str) -> Proxy {
    Proxy::relay(servers, &format!("[route]\nupstream = \"default\"\n{keys}"))
}

/// The number of the connection that a request came on at an [`Origin::echo`].
fn connection(head: &str) -> usize {
    header(head, "X-Connection").join(",").parse().unwrap()
}

#[test]
fn a_client_connection_serves_many_requests() {
    let origin = Origin::echo("");
    let proxy = Proxy::relay(&[origin.address], "");
    let mut client = proxy.connect();
    for n in 0..5 {
        let (code, head, body) = client.ask(&plain("PUT", &format!("/{n}"), "", "the body"));
        assert_eq!(code, 200);
        assert_eq!(header(&head, "Connection"), [""; 0], "{head}");
        assert!(body.starts_with(&format!("PUT /{n} HTTP/1.1\r\n")), "{body}");
        assert!(body.ends_with("\r\n\r\nthe body"), "{body}");
    }
    // All of them at once, and in one write; the last one ends the connection.
    let many = plain("POST", "/a", "", "first")
        + &get("/b", "")
        + &plain("PUT", "/c", "", "third")
        + &get("/d", "Connection: close\r\n");
    client.send(many.as_bytes());
    for (start, end) in
        [("POST /a ", "first"), ("GET /b ", "\n"), ("PUT /c ", "third"), ("GET /d ", "\n")]
    {
        let (head, body) = client.answer();
        assert!(body.starts_with(start) && body.ends_with(end), "{start}: {body}");
        let closes = header(&head, "Connection") == ["close"];
        assert_eq!(closes, start == "GET /d ", "{head}");
    }
    assert_eq!(client.rest(), b"");
    let series = "wsproxy_requests_total{route=\"default\",status=\"2xx\"}";
    assert_eq!(proxy.metric(series), 9, "{}", proxy.metrics());
}

#[test]
fn an_upstream_connection_serves_many_clients() {
    let origin = Origin::echo("");
    // Each worker has connections of its own.
    let proxy = Proxy::relay(&[origin.address], "[datapath]\nworkers = 1");
    let mut last = None;
    // A connection may be back in the pool a moment after its answer has arrived.
    wait_for("two clients in a row meet the same connection", || {
        let (_, head, _) = proxy.ask(&get("/", "Connection: close\r\n"));
        let number = connection(&head);
        (last.replace(number) == Some(number)).then_some(())
    });
    let proxy = with_upstream(&[origin.address], "keepalive = 0");
    let mut client = proxy.connect();
    let mut seen: Vec<_> = (0..20).map(|_| connection(&client.ask(&get("/", "")).1)).collect();
    seen.dedup();
    assert_eq!(seen.len(), 20, "a connection was kept: {seen:?}");
}

#[test]
fn a_connection_that_its_server_closed_is_replaced() {
    // Each connection answers once, says nothing about that, and closes.
    let origin = Origin::start(|_, head, peer| {
        let body = String::from_utf8(peer.body(head)).unwrap();
        peer.send(answer("", &body).as_bytes());
        false
    });
    let proxy = Proxy::relay(&[origin.address], "");
    let mut client = proxy.connect();
    for round in 0..100 {
        // Some at once, when the close may not have arrived, some after it has.
        if round % 2 == 0 {
            thread::sleep(Duration::from_millis(5));
        }
        let (code, _, body) = client.ask(&get("/", ""));
        assert_eq!((code, &*body), (200, ""), "round {round}");
    }
    let server = Server::start();
    let proxy = Proxy::relay(&[server.address], "");
    let mut client = proxy.connect();
    for round in 0..3 {
        client.send(plain("POST", "/", "", "not idempotent").as_bytes());
        let mut upstream = server.accept();
        let head = upstream.head();
        assert_eq!(upstream.body(&head), b"not idempotent", "{round}");
        upstream.send(answer("", "ok").as_bytes());
        assert_eq!(client.answer().1, "ok");
        // Closed, and the gateway has seen it.
        upstream.finish();
        assert_eq!(upstream.rest(), b"");
    }
    assert_eq!(proxy.request_failures("bad_gateway"), 0);
}

/// Sends in a thread; fails no test by a connection that its peer has done with.
fn send_all(peer: &Peer, bytes: Vec<u8>) -> thread::JoinHandle<bool> {
    let mut stream = peer.stream.try_clone().unwrap();
    thread::spawn(move || stream.write_all(&bytes).is_ok())
}

#[test]
fn large_bodies_go_both_ways_as_they_came() {
    let body = pattern(LARGE);
    let server = Server::start();
    let proxy = routed(&[server.address], "body_limit = \"off\"");
    let mut client = proxy.connect();
    let mut upstream = None;
    for chunked in [false, true, false] {
        let (framing, wire) = if chunked {
            let wire = [chunks(&body, 70_001), b"0\r\n\r\n".to_vec()].concat();
            ("Transfer-Encoding: chunked\r\n".to_owned(), wire)
        } else {
            (format!("Content-Length: {LARGE}\r\n"), body.clone())
        };
        client.send(plain("POST", "/", &framing, "").as_bytes());
        let there = send_all(&client, wire.clone());
        // Either the pooled connection, or a new one when that was not back yet.
        let mut peer = wait_for("a request at the upstream", || {
            if let Some(peer) = server.try_accept() {
                return Some(peer);
            }
            let kept: &mut Option<Peer> = &mut upstream;
            kept.as_ref()?.stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
            let asked = kept.as_ref()?.stream.peek(&mut [0]).is_ok_and(|n| n > 0);
            if asked { kept.take() } else { None }
        });
        peer.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = peer.head();
        assert_eq!(header(&head, "Content-Length").is_empty(), chunked, "{head}");
        // The answer does not wait for the request.
        peer.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n").as_bytes());
        let back = send_all(&peer, wire);
        assert!(peer.body(&head) == body, "the upload was changed, chunked: {chunked}");
        let head = client.head();
        assert_eq!(header(&head, "Content-Length").is_empty(), chunked, "{head}");
        assert!(client.body(&head) == body, "the answer was changed, chunked: {chunked}");
        assert!(there.join().unwrap() && back.join().unwrap());
        upstream = Some(peer);
    }
}

/// Sends until nobody takes more for a while; how much that was.
fn send_until_full(peer: &mut Peer, most: usize) -> usize {
    let block = vec![b'x'; 1 << 16];
    peer.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut sent = 0;
    while sent < most {
        match peer.stream.write(&block[..block.len().min(most - sent)]) {
            Ok(n) => sent += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    peer.stream.set_write_timeout(Some(PATIENCE)).unwrap();
    sent
}

#[test]
fn who_reads_nothing_holds_the_sender_back() {
    // More than any kernel keeps for two connections.
    const ALL: usize = 64 << 20;
    let server = Server::start();
    let proxy = routed(&[server.address], "body_limit = \"off\"");
    let mut client = proxy.connect();
    let length = format!("Content-Length: {ALL}\r\n");
    client.send(plain("POST", "/", &length, "").as_bytes());
    let mut upstream = server.accept();
    upstream.head();
    let sent = send_until_full(&mut client, ALL);
    assert!(sent < ALL, "the gateway took a whole upload that nobody reads");
    let rest = send_all(&client, vec![b'x'; ALL - sent]);
    let mut buffer = vec![0; 1 << 16];
    let mut left = ALL - upstream.take_ahead();
    while left > 0 {
        let n = upstream.stream.read(&mut buffer).unwrap();
        assert!(n > 0 && buffer[..n].iter().all(|byte| *byte == b'x'));
        left -= n;
    }
    assert!(rest.join().unwrap());
    upstream.send(format!("HTTP/1.1 200 OK\r\n{length}\r\n").as_bytes());
    let sent = send_until_full(&mut upstream, ALL);
    assert!(sent < ALL, "the gateway took a whole answer that nobody reads");
    // A client that leaves in the middle takes the upstream's connection with it.
    client.head();
    drop(client);
    wait_for("the upstream's connection breaks", || {
        let mut stream = &upstream.stream;
        stream.write(&[b'x'; 1 << 16]).is_err().then_some(())
    });
}

/// A client whose kernel takes little.
fn narrow(proxy: &Proxy) -> Peer {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&proxy.address.into()).unwrap();
    Peer::new(socket.into())
}

#[test]
fn a_slow_reader_gets_the_end_of_an_answer() {
    let body = pattern(LARGE);
    let server = Server::start();
    let proxy = Proxy::relay(&[server.address], "");
    // What comes behind the request ends the HTTP library's part of the connection as soon as
    // the answer is in its hands, not when it is in the client's.
    for behind in ["close", "upgrade", "garbage", "end"] {
        let mut client = narrow(&proxy);
        let more = if behind == "close" { "Connection: close\r\n" } else { "" };
        client.send(get("/large", more).as_bytes());
        match behind {
            "upgrade" => client.send(request("").as_bytes()),
            "garbage" => client.send(b"\0\0\0\0\r\n\r\n"),
            "end" => client.finish(),
            _ => {}
        }
        let mut upstream = server.accept();
        upstream.head();
        let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {LARGE}\r\n");
        upstream.send(format!("{head}\r\n").as_bytes());
        let sent = send_all(&upstream, body.clone());
        let head = client.head();
        assert_eq!(status(&head), 200);
        // The gateway closes the upstream's connection when it has the whole answer: until then
        // the client takes little at a time, so that the gateway has to keep the end for it.
        let mut got = Vec::new();
        let mut reading = upstream.stream.try_clone().unwrap();
        let closed = thread::spawn(move || reading.read(&mut [0]).unwrap());
        while !closed.is_finished() && got.len() < LARGE {
            got.extend(client.take(4096));
            thread::sleep(Duration::from_micros(200));
        }
        let left = LARGE - got.len();
        got.extend(client.take(left));
        assert!(got == body, "{behind}: the answer was changed");
        assert_eq!(closed.join().unwrap(), 0);
        assert!(sent.join().unwrap());
        match behind {
            "upgrade" => {
                let mut upstream = server.accept();
                upstream.head();
                upstream.send(switch("").as_bytes());
                assert_eq!(status(&client.head()), 101);
            }
            "garbage" => assert_eq!(status(&client.head()), 400),
            _ => assert_eq!(client.rest(), b"", "{behind}"),
        }
    }
}

#[test]
fn answers_without_a_body_leave_the_connection_in_step() {
    let origin = Origin::start(|_, head, peer| {
        let answer = match head.split(' ').nth(1).unwrap() {
            "/length" => "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
            "/chunked" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "/204" => "HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
            "/304" => "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 99\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext",
        };
        peer.send(answer.as_bytes());
        true
    });
    let proxy = Proxy::relay(&[origin.address], "");
    let mut client = proxy.connect();
    for (method, path, code, name, values) in [
        ("HEAD", "/length", 200, "Content-Length", &["1234"][..]),
        ("HEAD", "/chunked", 200, "Content-Length", &[]),
        ("GET", "/204", 204, "X-A", &["b"]),
        ("GET", "/204", 204, "Content-Length", &[]),
        ("GET", "/204", 204, "Transfer-Encoding", &[]),
        ("GET", "/304", 304, "ETag", &["\"a\""]),
        ("HEAD", "/304", 304, "Transfer-Encoding", &[]),
    ] {
        client.send(plain(method, path, "", "").as_bytes());
        let head = client.head();
        assert_eq!(status(&head), code, "{method} {path}");
        assert_eq!(header(&head, name), values, "{method} {path}: {head}");
        // A body that should not be there would be read as the next answer.
        assert_eq!(client.ask(&get("/next", "")).2, "next", "{method} {path}");
    }
}

#[test]
fn a_client_that_asks_first_is_told_to_go_on() {
    let origin = Origin::echo("");
    let proxy = routed(&[origin.address], "body_limit = \"1KiB\"");
    let expect = "Expect: 100-continue\r\n";
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send(plain("PUT", "/", &format!("Content-Length: 4\r\n{expect}"), "").as_bytes());
        assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
        let (code, _, body) = client.ask("body");
        assert_eq!(code, 200);
        assert!(body.ends_with("\r\n\r\nbody"), "{body}");
        assert_eq!(header(&body, "Expect"), [""; 0], "we have answered that: {body}");
    }
    // A final answer instead, when it is known before the body.
    client.send(plain("PUT", "/", &format!("Content-Length: 4000\r\n{expect}"), "").as_bytes());
    assert_eq!(status(&client.head()), 413);
    drop(origin);

    let server = Server::start();
    let proxy = Proxy::relay(&[server.address], "");
    let mut client = proxy.connect();
    client.send(plain("PUT", "/", &format!("Content-Length: 4000\r\n{expect}"), "").as_bytes());
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\nConnection: close\r\n\r\ngone");
    let head = client.head();
    // The gateway takes the body by itself, so it may have said so first.
    let head = if status(&head) == 100 { client.head() } else { head };
    assert_eq!(status(&head), 403);
    assert_eq!(client.body(&head), b"gone");
}

#[test]
fn an_early_answer_survives_the_rest_of_the_upload() {
    let server = Server::start();
    let proxy = routed(&[server.address], "body_limit = \"6MiB\"");
    let length = format!("Content-Length: {LARGE}\r\n");
    // Who answers early: the upstream, the limit on a length, that on what came in chunks.
    let early = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
    let too_long = "Content-Length: 9999999\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    for (framing, code) in [(&*length, 403), (too_long, 413), (chunked, 413)] {
        for _ in 0..5 {
            let mut client = proxy.connect();
            client.send(plain("POST", "/", framing, "").as_bytes());
            let wire = if framing == chunked {
                chunks(&vec![b'x'; 9_999_999], 9_999)
            } else {
                vec![b'x'; LARGE]
            };
            let sent = send_all(&client, wire);
            let upstream = (framing != too_long).then(|| {
                let mut upstream = server.accept();
                upstream.head();
                if code == 403 {
                    upstream.send(early.as_bytes());
                    return (None, upstream);
                }
                // Takes what comes, whose end is none.
                let mut stream = upstream.stream.try_clone().unwrap();
                let taking =
                    thread::spawn(
                        move || while stream.read(&mut [0; 65_536]).is_ok_and(|n| n > 0) {},
                    );
                (Some(taking), upstream)
            });
            let (head, body) = client.answer();
            assert_eq!(status(&head), code, "{head}");
            assert!(code == 413 || body == "no", "{body}");
            drop(client);
            sent.join().unwrap();
            if let Some((Some(taking), _)) = upstream {
                taking.join().unwrap();
            }
        }
    }
    assert_eq!(proxy.request_failures("body_too_large"), 10);
}
