//! The real program, from the handshake of a raw client to its exit.
#![cfg(target_os = "linux")]

mod support;

use std::{
    fs,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr},
    os::unix::net::UnixDatagram,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use support::{
    ACCEPT, BINARY, KEY, PATIENCE, Peer, Proxy, Server, TempDir, bpf_ids, complaint, config,
    finish, header, refusing, request, run, sockmap, status, switch, unprivileged, wait_for,
    ws::{FROM_CLIENT, FROM_SERVER, Frames as _, TEXT, close, frame, parted},
};

/// A frame as any other bytes: the gateway does not look at them.
const FRAME: &[u8] = b"\x81\x05hello";

#[test]
fn a_session_opens_and_carries_bytes_both_ways() {
    let server = Server::start();
    let proxy = Proxy::relay(&[server.address], "");
    let mut client = proxy.connect();
    let hop = "Keep-Alive: timeout=5\r\nTE: trailers\r\nProxy-Authorization: Basic eA==\r\n\
               X-Hop: 1\r\nConnection: X-Hop\r\n";
    let more = format!(
        "{hop}Cookie: a=b\r\nX-Forwarded-For: 192.0.2.7\r\nX-Real-IP: 192.0.2.8\r\n\
         X-Forwarded-Proto: https\r\nSec-WebSocket-Protocol: chat, news\r\n"
    );
    client.send(request(&more).as_bytes());

    let mut upstream = server.accept();
    let head = upstream.head();
    assert!(head.starts_with("GET /chat?a=b HTTP/1.1\r\n"), "{head}");
    for (name, values) in [
        ("Host", &["example.com"][..]),
        ("Connection", &["Upgrade"]),
        ("Upgrade", &["websocket"]),
        ("Sec-WebSocket-Key", &[KEY]),
        ("Sec-WebSocket-Version", &["13"]),
        ("Sec-WebSocket-Protocol", &["chat, news"]),
        ("Cookie", &["a=b"]),
        ("X-Forwarded-For", &["127.0.0.1"]),
        ("X-Forwarded-Host", &["example.com"]),
        ("Forwarded", &["for=127.0.0.1;host=\"example.com\";proto=http"]),
        ("X-Forwarded-Proto", &["http"]),
        ("X-Real-IP", &["127.0.0.1"]),
        ("Keep-Alive", &[]),
        ("TE", &[]),
        ("Proxy-Authorization", &[]),
        ("X-Hop", &[]),
    ] {
        assert_eq!(header(&head, name), values, "{name} in {head}");
    }
    let more = "Sec-WebSocket-Protocol: news\r\nSet-Cookie: c=d\r\nKeep-Alive: max=1\r\n";
    upstream.send(switch(more).as_bytes());
    let head = client.head();
    assert_eq!(status(&head), 101);
    for (name, values) in [
        ("Sec-WebSocket-Accept", &[ACCEPT][..]),
        ("Sec-WebSocket-Protocol", &["news"]),
        ("Set-Cookie", &["c=d"]),
        ("Connection", &["Upgrade"]),
        ("Keep-Alive", &[]),
    ] {
        assert_eq!(header(&head, name), values, "{name} in {head}");
    }
    for round in 0..3 {
        let (there, back) = (vec![round; 70_000], vec![round + 100; 50_000]);
        client.send(&there);
        upstream.expect(&there);
        upstream.send(&back);
        client.expect(&back);
    }
    client.finish();
    assert_eq!(upstream.rest(), b"");
    upstream.send(b"half-closed");
    upstream.finish();
    assert_eq!(client.rest(), b"half-closed");
    proxy.stop();
}

#[test]
fn early_bytes_arrive_first_and_in_order() {
    let server = Server::start();
    let proxy = Proxy::relay(&[server.address], "");
    for one_by_one in [false, true] {
        let mut client = proxy.connect();
        let early = [request("").as_bytes(), b"early there, "].concat();
        if one_by_one {
            early.iter().for_each(|byte| client.send(&[*byte]));
        } else {
            client.send(&early);
        }
        let mut upstream = server.accept();
        upstream.head();
        let early = [switch("").as_bytes(), b"early back, "].concat();
        if one_by_one {
            early.iter().for_each(|byte| upstream.send(&[*byte]));
        } else {
            upstream.send(&early);
        }
        client.send(b"late there");
        upstream.send(b"late back");
        client.finish();
        upstream.finish();
        assert_eq!(upstream.rest_text(), "early there, late there", "{one_by_one}");
        assert_eq!(status(&client.head()), 101);
        assert_eq!(client.rest_text(), "early back, late back", "{one_by_one}");
    }
}

#[test]
fn bad_requests_are_refused_with_a_reason() {
    let server = Server::start();
    let more = "[limits]\nhead_bytes = \"2KiB\"\n[timeouts]\nrequest_head = \"300ms\"";
    let proxy = Proxy::relay(&[server.address], more);
    let good = request("");
    let without = |line: &str| {
        assert!(good.contains(line), "{line}");
        good.replacen(line, "", 1)
    };
    let instead = |line: &str, other: &str| {
        assert!(good.contains(line), "{line}");
        good.replacen(line, other, 1)
    };
    let plus = |line: &str| request(&format!("{line}\r\n"));
    let cases: [(String, u16, &str, &str); 13] = [
        (instead("Version: 13", "Version: 8"), 426, "websocket_version", "Sec-WebSocket-Version"),
        (instead(KEY, "c2hvcnQ="), 400, "key", "Sec-WebSocket-Key: \"c2hvcnQ=\""),
        (without("Host: example.com\r\n"), 400, "host", "no Host header"),
        (plus("Host: example.org"), 400, "host", "Host: \"example.com, example.org\""),
        (
            plus("Content-Length: 3\r\nTransfer-Encoding: chunked"),
            400,
            "content_length",
            "Transfer-Encoding",
        ),
        (plus("Content-Length: 3"), 400, "body", "Content-Length: \"3\""),
        (plus("Transfer-Encoding: chunked"), 400, "body", "Transfer-Encoding"),
        (without("Connection: Upgrade\r\n"), 400, "connection", "Connection"),
        (instead("GET ", "POST "), 405, "method", "POST"),
        (instead("HTTP/1.1\r\n", "HTTP/1.1\n"), 400, "line_ending", "LF alone"),
        (plus(&format!("X: {}", "x".repeat(2048))), 431, "head_too_large", "larger"),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03".into(), 400, "tls_on_plain_port", "TLS"),
        (good[..good.len() - 2].to_owned(), 408, "timeout", "in time"),
    ];
    for (bytes, code, reason, text) in cases {
        let before = proxy.failures(reason);
        let mut client = proxy.connect();
        client.send(bytes.as_bytes());
        let head = client.head();
        let shown = bytes.escape_debug().to_string();
        assert_eq!(status(&head), code, "{shown}: {head}");
        let body = client.rest_text();
        assert!(body.contains(text), "{shown}: {body}");
        assert_eq!(header(&head, "Content-Length"), [body.len().to_string()], "{shown}");
        let connection = header(&head, "Connection").join("");
        assert!(connection.ends_with("close"), "{shown}: {head}");
        let wants_13 = reason == "websocket_version";
        assert_eq!(header(&head, "Sec-WebSocket-Version").contains(&"13"), wants_13, "{head}");
        assert_eq!(proxy.failures(reason), before + 1, "{shown}");
    }
    assert!(server.try_accept().is_none(), "a refused request reached the upstream");
    assert_eq!(proxy.metric("wsproxy_sessions_total"), 0);
}

#[test]
fn a_server_that_is_down_is_stepped_over() {
    let (_held, down) = refusing();
    let proxy = Proxy::relay(&[down], "");
    let mut client = proxy.connect();
    client.send(request("").as_bytes());
    assert_eq!(status(&client.head()), 502);
    let body = client.rest_text();
    assert!(!body.contains("127.0.0.1"), "the client learns of an inner address: {body}");
    assert_eq!(proxy.failures("bad_gateway"), 1);

    let server = Server::start();
    let proxy = Proxy::relay(&[down, server.address], "");
    let (mut client, mut upstream) = proxy.session(&server);
    client.send(FRAME);
    upstream.expect(FRAME);
    let series = format!("wsproxy_upstream_failures_total{{upstream=\"{down}\"}}");
    assert_eq!(proxy.metric(&series), 1);
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    let server = Server::start();
    let proxy = Proxy::relay(&[server.address], "[timeouts]\nupstream_answer = \"300ms\"");
    let mut client = proxy.connect();
    client.send(request("").as_bytes());
    let mut upstream = server.accept();
    upstream.head();
    assert_eq!(status(&client.head()), 504);
    assert!(client.rest_text().contains("in time"));
    assert_eq!(upstream.rest(), b"");
    assert_eq!(proxy.failures("gateway_timeout"), 1);
}

#[test]
fn nothing_gets_through_a_broken_answer() {
    let server = Server::start();
    let proxy = Proxy::relay(&[server.address], "");
    let good = switch("");
    let plus = |line: &str| switch(&format!("{line}\r\n"));
    let cases = [
        (good.replace(ACCEPT, "AAAAAAAAAAAAAAAAAAAAAAAAAAA="), "Sec-WebSocket-Accept"),
        (good.replace("Upgrade: websocket", "Upgrade: h2c"), "Upgrade \"h2c\""),
        (plus("Sec-WebSocket-Protocol: other"), "subprotocol \"other\""),
        (plus("Sec-WebSocket-Extensions: permessage-deflate"), "permessage-deflate"),
        (plus("Content-Length: 5"), "Content-Length"),
        (good.replace("HTTP/1.1", "HTTP/1.0"), "HTTP/1.0"),
        (String::new(), "start line"),
        (good[..good.len() - 4].to_owned() + "\n", "LF"),
    ];
    for (at, (answer, text)) in cases.iter().enumerate() {
        let mut client = proxy.connect();
        // Bytes for the tunnel, in the same segment: they must not arrive before there is one.
        client.send(&[request("Sec-WebSocket-Protocol: chat\r\n").as_bytes(), FRAME].concat());
        let mut upstream = server.accept();
        upstream.head();
        upstream.send(&[answer.as_bytes(), b"\x81\x06secret"].concat());
        assert_eq!(upstream.rest(), b"", "{text}");
        assert_eq!(status(&client.head()), 502, "{text}");
        let body = client.rest_text();
        assert!(body.contains(text), "{text}: {body}");
        assert!(!body.contains("secret"), "{text}: {body}");
        assert_eq!(proxy.failures("bad_gateway"), at as u64 + 1);
    }
    // Half a 101, and no more: not a byte of it is passed on.
    let mut client = proxy.connect();
    client.send(request("").as_bytes());
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(&good.as_bytes()[..good.len() - 1]);
    upstream.finish();
    assert_eq!(status(&client.head()), 502);
    assert_eq!(proxy.metric("wsproxy_sessions_total"), 0);
}

#[test]
fn an_ordinary_answer_passes_and_the_client_may_try_again() {
    let server = Server::start();
    let proxy = Proxy::relay(&[server.address], "");
    let mut client = proxy.connect();
    let chunked = "5;x=y\r\nhello\r\n0\r\nTrailer: z\r\n\r\n";
    for (head, body, same) in [
        ("401 No\r\nWWW-Authenticate: Basic\r\nContent-Length: 4\r\n", "log\n", "Content-Length"),
        ("403 Forbidden\r\nTransfer-Encoding: chunked\r\n", chunked, "Transfer-Encoding"),
        ("304 Not Modified\r\nETag: \"x\"\r\n", "", "ETag"),
    ] {
        client.send(request("").as_bytes());
        let mut upstream = server.accept();
        upstream.head();
        upstream.send(format!("HTTP/1.1 {head}\r\n{body}behind the body").as_bytes());
        let got = client.head();
        assert!(got.starts_with(&format!("HTTP/1.1 {}", head.lines().next().unwrap())), "{got}");
        assert_eq!(header(&got, same), header(head, same), "{got}");
        assert_eq!(header(&got, "WWW-Authenticate"), header(head, "WWW-Authenticate"), "{got}");
        assert_eq!(header(&got, "Connection"), ["keep-alive"], "{got}");
        client.expect(body.as_bytes());
        // What the server gets is the request and no more.
        assert_eq!(upstream.rest(), b"");
    }
    assert_eq!(proxy.failures("upstream_refused"), 3);
    client.send(request("").as_bytes());
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(switch("").as_bytes());
    // And nothing from behind a body has come before the 101.
    assert_eq!(status(&client.head()), 101);
    client.send(FRAME);
    upstream.expect(FRAME);
}

#[test]
fn a_body_up_to_the_close_ends_the_connection() {
    let server = Server::start();
    let proxy = Proxy::relay(&[server.address], "");
    let mut client = proxy.connect();
    // A second request, pipelined, is not answered by what was meant for nobody.
    client.send([request(""), request("")].concat().as_bytes());
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(b"HTTP/1.1 200 OK\r\n\r\n");
    upstream.send(&[7; 100_000]);
    upstream.finish();
    let head = client.head();
    assert_eq!((status(&head), header(&head, "Connection")), (200, vec!["close"]));
    assert_eq!(client.rest(), [7; 100_000]);
    assert_eq!(upstream.rest(), b"");
    assert!(server.try_accept().is_none(), "the second request was sent");
}

#[test]
fn the_session_limit_holds_and_frees() {
    let server = Server::start();
    let proxy = Proxy::relay(&[server.address], "[limits]\nmax_sessions = 1");
    let (client, mut upstream) = proxy.session(&server);
    let mut second = proxy.connect();
    second.send(request("").as_bytes());
    let head = second.head();
    assert_eq!((status(&head), header(&head, "Retry-After")), (503, vec!["5"]));
    assert!(second.rest_text().contains("limit"));
    assert_eq!(proxy.failures("session_limit"), 1);
    client.finish();
    upstream.rest();
    upstream.finish();
    proxy.wait_metric("wsproxy_sessions{datapath=\"relay\"}", |n| n == 0);
    let (mut client, mut upstream) = proxy.session(&server);
    upstream.send(FRAME);
    client.expect(FRAME);
}

#[test]
fn running_out_of_descriptors_is_survived() {
    let server = Server::start();
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 40; exec \"$0\" \"$@\"", BINARY]);
    let mut proxy = Proxy::with_file(shell, &config(&[server.address], ""), "relay");
    // Nobody says a word: the first waits for its request, the others linger over a refusal.
    let flood: Vec<Peer> = (0..150).map(|_| proxy.connect()).collect();
    wait_for("accept fails", || proxy.logged("accept failed; pausing"));
    assert!(proxy.ended().is_none());
    drop(flood);
    wait_for("it answers again", || proxy.get("/healthz").ok().filter(|(code, _)| *code == 200));
    let errors = "wsproxy_accept_errors_total{reason=\"descriptors\"}";
    assert!(proxy.metric(errors) > 0);
    // The flood's own connections may hold the one place for a moment.
    let mut client = wait_for("it takes sessions again", || {
        let mut client = proxy.connect();
        client.send(request("").as_bytes());
        wait_for("an upstream's turn, or a refusal", || {
            if let Some(mut upstream) = server.try_accept() {
                upstream.head();
                upstream.send(&[switch("").as_bytes(), FRAME].concat());
                return Some(true);
            }
            let mut byte = [0];
            client.stream.set_nonblocking(true).unwrap();
            let waits = client.stream.peek(&mut byte);
            client.stream.set_nonblocking(false).unwrap();
            let refused = !waits.is_err_and(|e| e.kind() == ErrorKind::WouldBlock);
            refused.then_some(false)
        })
        .then_some(client)
    });
    assert_eq!(status(&client.head()), 101);
    client.expect(FRAME);
    drop(client);
    proxy.stop();
}

#[test]
fn an_idle_session_is_closed_and_logged() {
    let server = Server::start();
    let proxy = Proxy::relay(&[server.address], "[timeouts]\nidle = \"1s\"");
    let (mut client, mut upstream) = proxy.session(&server);
    client.send(&frame(TEXT, FROM_CLIENT, b"there"));
    upstream.expect_frame(TEXT, FROM_CLIENT, b"there");
    upstream.send(&frame(TEXT, FROM_SERVER, b"back"));
    client.expect_frame(TEXT, FROM_SERVER, b"back");
    parted(&mut client, &mut upstream, 1001, "going away");
    let from = client.stream.local_addr().unwrap();
    drop((client, upstream));
    let line = wait_for("the session's line", || proxy.logged("session ended"));
    let expected = serde_json::json!({
        "session": 1,
        "client": from.to_string(),
        "upstream": server.address.to_string(),
        "route": "default",
        "datapath": "relay",
        "to_upstream_kernel_bytes": 0,
        "to_upstream_relay_bytes": 2 + 4 + 5,
        "to_client_kernel_bytes": 0,
        "to_client_relay_bytes": 2 + 4,
        "close_to_client": 1001,
        "close_to_upstream": 1001,
        "ended_by": "idle_timeout",
        "reset": false,
        "level": "INFO",
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&line[name], value, "{name} in {line}");
    }
    assert!(line["duration_ms"].as_u64().is_some_and(|ms| ms >= 900), "{line}");
    assert!(line["timestamp"].is_string(), "{line}");
    assert_eq!(proxy.metric("wsproxy_session_ends_total{ending=\"idle_timeout\"}"), 1);
}

#[test]
fn sigterm_ends_sessions_in_order() {
    let server = Server::start();
    let dir = TempDir::new();
    let socket = UnixDatagram::bind(dir.join("notify")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut text = [0; 128];
        let n = socket.recv(&mut text).unwrap();
        String::from_utf8(text[..n].to_vec()).unwrap()
    };
    let mut program = Command::new(BINARY);
    program.env("NOTIFY_SOCKET", dir.join("notify"));
    let mut proxy = Proxy::with_file(program, &config(&[server.address], ""), "relay");
    assert_eq!(hear().trim_end(), "READY=1");
    assert_eq!(proxy.get("/readyz").unwrap().0, 200);
    let (mut client, mut upstream) = proxy.session(&server);
    client.send(&frame(TEXT, FROM_CLIENT, b"last words"));
    proxy.terminate();
    // The window, twice `timeouts.drain`, and some seconds for the end.
    assert_eq!(hear().trim_end(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=35000000");
    // Close frames behind what was sent.
    upstream.expect_frame(TEXT, FROM_CLIENT, b"last words");
    upstream.expect_close(FROM_CLIENT, 1001, "going away");
    client.expect_close(FROM_SERVER, 1001, "going away");
    wait_for("not ready any more", || proxy.get("/readyz").ok().filter(|(code, _)| *code == 503));
    // It waits for the peers' own, each of which is followed by a FIN.
    client.send(&close(FROM_CLIENT, 1001, ""));
    assert_eq!(client.rest(), b"");
    assert!(proxy.ended().is_none());
    upstream.send(&close(FROM_SERVER, 1001, ""));
    assert_eq!(upstream.rest(), b"");
    drop((client, upstream));
    assert_eq!(proxy.wait().code(), Some(0));
    let line = wait_for("the session's line", || proxy.logged("session ended"));
    assert_eq!(line["ended_by"], "drained", "{line}");
    assert_eq!(line["reset"], false, "{line}");
}

/// A running session's bytes show under `path` within a second.
fn check_live_bytes(proxy: &Proxy, server: &Server, path: &str) {
    let sessions = format!("wsproxy_sessions{{datapath=\"{path}\"}}");
    let (mut client, mut upstream) = proxy.session(server);
    // It enters the kernel when it has been silent for a second.
    proxy.wait_metric(&sessions, |count| count == 1);
    // A first round trip; on the kernel path the relay may carry it.
    client.send(FRAME);
    upstream.expect(FRAME);
    for direction in ["to_upstream", "to_client"] {
        let (from, to) = match direction {
            "to_upstream" => (&mut client, &mut upstream),
            _ => (&mut upstream, &mut client),
        };
        let labels = format!("datapath=\"{path}\",direction=\"{direction}\"");
        let series = format!("wsproxy_session_bytes_total{{{labels}}}");
        let before = proxy.metric(&series);
        // The kernel takes a direction over when nothing is under way: once is enough, in time.
        wait_for("bytes by this path", || {
            from.send(&[1; 1000]);
            let sent = Instant::now();
            to.expect(&[1; 1000]);
            let grown = proxy.metric(&series) >= before + 1000;
            grown.then(|| assert!(sent.elapsed() < Duration::from_secs(1)))
        });
    }
    assert_eq!(proxy.metric("wsproxy_sessions_total"), 1);
    assert_eq!(proxy.metric("wsproxy_handshake_seconds_count"), 1);
    client.finish();
    upstream.rest();
    drop((client, upstream));
    proxy.wait_metric(&sessions, |n| n == 0);
    proxy.wait_metric("wsproxy_session_ends_total{ending=\"client_finished\"}", |n| n == 1);
}

#[test]
fn the_admin_address_shows_a_running_session() {
    let server = Server::start();
    let proxy = Proxy::relay(&[server.address], "");
    check_live_bytes(&proxy, &server, "relay");
    assert_eq!(proxy.get("/healthz").unwrap(), (200, "ok\n".to_owned()));
    assert_eq!(proxy.get("/else").unwrap().0, 404);
    proxy.stop();
}

#[test]
fn the_kernel_path_counts_live_and_leaves_nothing() {
    let server = Server::start();
    let Some(mut proxy) = sockmap(&[server.address], "") else { return };
    check_live_bytes(&proxy, &server, "sockmap");
    let process = format!("/proc/{}", proxy.pid());
    let ids = bpf_ids(Path::new(&process)).unwrap();
    for kind in ["prog_id:", "map_id:"] {
        assert!(ids.iter().any(|id| id.starts_with(kind)), "no {kind} in {ids:?}");
    }
    let (client, upstream) = proxy.session(&server);
    proxy.terminate();
    drop((client, upstream));
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(!Path::new(&process).join("fd").exists(), "the process is not gone");
    for entry in fs::read_dir("/proc").unwrap() {
        let process = entry.unwrap().path();
        // Others come and go.
        let left = bpf_ids(&process).unwrap_or_default();
        assert!(!left.iter().any(|id| ids.contains(id)), "{} has {left:?}", process.display());
    }
}

#[test]
fn without_privilege_sockmap_refuses_and_auto_relays() {
    let dir = TempDir::new();
    let server = Server::start();
    let upstream = server.address.to_string();
    let arguments = |mode: &str| {
        let mut command = unprivileged(&dir);
        command.args(["run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(["--upstream", &upstream, "--log-format", "json", "--datapath", mode]);
        command
    };
    let output = finish(&mut arguments("sockmap"));
    let said = complaint(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("datapath \"sockmap\" is demanded"), "{said}");
    assert!(said.contains("wsproxy doctor"), "{said}");

    let proxy = Proxy::spawn(arguments("auto")).unwrap_or_else(|log| panic!("{log}"));
    let message =
        "the kernel path is off: sessions are relayed in user space (see `wsproxy doctor`)";
    for _ in 0..2 {
        let (mut client, mut upstream) = proxy.session(&server);
        client.send(FRAME);
        upstream.expect(FRAME);
        assert_eq!(proxy.metric("wsproxy_sessions{datapath=\"sockmap\"}"), 0);
        let warnings = proxy.all_logged(message);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert_eq!(warnings[0]["level"], "WARN");
    }
    let text = proxy.metrics();
    let grown = text.lines().filter(|line| line.starts_with("wsproxy_datapath_fallback_total{"));
    let grown: Vec<_> = grown.collect();
    assert!(grown.len() == 1 && grown[0].ends_with("} 1"), "{grown:?}");
    proxy.stop();
}

#[test]
fn the_command_line_says_what_is_wrong() {
    let dir = TempDir::new();
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        path.into_os_string().into_string().unwrap()
    };
    let text = config(&[SocketAddr::from((Ipv4Addr::LOCALHOST, 9000))], "");
    let good = file("good.toml", &text);
    let bad = file("bad.toml", &format!("[limits]\nmax = 1\n{text}"));
    let broken = file("broken.toml", "[upstream\n");
    let missing = format!("{good}.missing");
    let (at_bad, at_broken) = (format!("{bad}:2:1"), format!("{broken}:1:"));
    for (args, code, text) in [
        (&["run", "--nonsense"][..], 64, "--nonsense"),
        (&["run", "--listen", "nowhere"], 64, "--listen"),
        (&["run", "--datapath", "magic"], 64, "magic"),
        (&[], 64, "Usage"),
        (&["check"], 64, "FILE"),
        (&["check", &good], 0, ""),
        (&["check", &bad], 78, &at_bad),
        (&["check", &broken], 78, &at_broken),
        (&["run", "--config", &bad], 78, &at_bad),
        (&["run", "--config", &missing], 78, "cannot be read"),
        (&["check", &missing], 1, &missing),
    ] {
        let output = run(args);
        let said = complaint(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(text), "{args:?}: {said}");
    }
    let output = run(["check", &good]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{good}: ok\n"));
    assert_eq!(run(["--version"]).status.code(), Some(0));
}

#[test]
fn a_taken_address_is_named() {
    let taken = Server::start();
    let address = taken.address.to_string();
    let output =
        run(["run", "--listen", &address, "--upstream", "127.0.0.1:9", "--datapath=relay"]);
    let said = complaint(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&address) && said.contains("--listen"), "{said}");
}
