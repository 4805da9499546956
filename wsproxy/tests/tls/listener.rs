//! TLS at a listener: versions, protocols, resumption, and clients that do not go on.

use std::io::{ErrorKind, Read as _, Write as _};

use rustls::{AlertDescription, ClientConfig, HandshakeKind, version};

use crate::{
    front::{Front, alert, carries, head_of},
    support::{TempDir, header, request, status, switch},
    tls_support::{
        Authority, BOTH, End, authority, client_config, listener_tls, local, shake, shown,
        write_authority,
    },
};

/// The upstream hears what TLS the client has.
const TOLD: &str = "[route]\nupstream = \"default\"\n\
                    set_request_headers = { \"X-Seen\" = \"$scheme $tls_version $tls_name\" }\n";

fn start(tls: &str, more: &str) -> Front {
    let dir = TempDir::new();
    let files = local().write(&dir, "local");
    let listener = listener_tls(&[&files], tls);
    Front::start(dir, &listener, more)
}

#[test]
fn versions_are_chosen_and_refused() {
    let tls12 = client_config(&[&version::TLS12], None);
    let tls13 = client_config(&[&version::TLS13], None);
    for (key, best, old_too) in [("", "TLSv1.3", true), ("min_version = \"1.3\"", "TLSv1.3", false)]
    {
        let front = start(key, TOLD);
        for (config, seen) in [(&client_config(BOTH, None), best), (&tls13, "TLSv1.3")] {
            let mut client = front.client(config, "localhost");
            let (mut upstream, asked) = front.open(&mut client);
            assert_eq!(header(&asked, "X-Seen"), [format!("https {seen} localhost")]);
            assert_eq!(header(&asked, "X-Forwarded-Proto"), ["https"]);
            carries(&mut client, &mut upstream);
        }
        if old_too {
            let mut client = front.client(&tls12, "localhost");
            let (mut upstream, asked) = front.open(&mut client);
            assert_eq!(header(&asked, "X-Seen"), ["https TLSv1.2 localhost"]);
            carries(&mut client, &mut upstream);
        } else {
            assert_eq!(front.refusal(&tls12), AlertDescription::ProtocolVersion);
            front.shakes("protocol_version", 1);
        }
        front.shakes("ok", if old_too { 3 } else { 2 });
    }
}

#[test]
fn the_protocol_is_http_1() {
    let front = start("", "");
    for (offered, chosen) in [
        (&[][..], None),
        (&["http/1.1"], Some("http/1.1")),
        (&["h2", "http/1.1"], Some("http/1.1")),
        (&["http/1.0"], Some("http/1.0")),
    ] {
        let mut config = client_config(BOTH, None);
        config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut client = front.shaken(&config, "localhost");
        assert_eq!(client.conn.alpn_protocol(), chosen.map(str::as_bytes), "{offered:?}");
        let (mut upstream, _) = front.open(&mut client);
        carries(&mut client, &mut upstream);
    }
    let mut config = client_config(BOTH, None);
    config.alpn_protocols = vec![b"h2".to_vec()];
    assert_eq!(front.refusal(&config), AlertDescription::NoApplicationProtocol);
    front.shakes("alpn", 1);
    front.shakes("ok", 4);
}

#[test]
fn certificates_of_clients_are_asked_for() {
    let stranger = Authority::new("a stranger").issue(&["client"]);
    let friend = authority().issue(&["client"]);
    for (auth, without) in [("", false), ("client_auth = \"optional\"", true)] {
        for versions in [&[&version::TLS12][..], &[&version::TLS13]] {
            let dir = TempDir::new();
            let ca = shown(&write_authority(&dir, "ca.pem", authority()));
            let files = local().write(&dir, "local");
            let tls = listener_tls(&[&files], &format!("client_ca = \"{ca}\"\n{auth}"));
            let front = Front::start(dir, &tls, "");

            let mut client = front.client(&client_config(versions, Some(&friend)), "localhost");
            let (mut upstream, _) = front.open(&mut client);
            carries(&mut client, &mut upstream);
            let config = client_config(versions, None);
            if without {
                let mut client = front.client(&config, "localhost");
                let (mut upstream, _) = front.open(&mut client);
                carries(&mut client, &mut upstream);
            } else {
                let told = front.refusal(&config);
                let alerts =
                    [AlertDescription::CertificateRequired, AlertDescription::HandshakeFailure];
                assert!(alerts.contains(&told), "{told:?}");
                front.shakes("no_certificate", 1);
            }
            let told = front.refusal(&client_config(versions, Some(&stranger)));
            assert_eq!(told, AlertDescription::UnknownCA, "{versions:?}");
            front.shakes("bad_certificate", 1);
            front.shakes("ok", if without { 2 } else { 1 });
            assert!(front.server.try_accept().is_none(), "who is refused reaches no server");
        }
    }
}

/// How a handshake went after which a session was opened: the tickets of TLS 1.3 come behind it.
fn visit(front: &Front, config: &ClientConfig) -> HandshakeKind {
    let mut client = front.client(config, "localhost");
    let (mut upstream, _) = front.open(&mut client);
    carries(&mut client, &mut upstream);
    client.conn.handshake_kind().unwrap()
}

#[test]
fn sessions_of_tls_are_resumed_also_after_a_reload() {
    let dir = TempDir::new();
    let files = local().write(&dir, "local");
    let ca = shown(&write_authority(&dir, "ca.pem", authority()));
    let listener = listener_tls(&[&files], "");
    let mut front = Front::start(dir, &listener, "");
    let configs = [&[&version::TLS12][..], &[&version::TLS13]].map(|v| client_config(v, None));
    for config in &configs {
        assert_eq!(visit(&front, config), HandshakeKind::Full);
        assert_eq!(visit(&front, config), HandshakeKind::Resumed);
    }
    front.reload(&listener, "max_fails = 3\n");
    for config in &configs {
        assert_eq!(visit(&front, config), HandshakeKind::Resumed);
    }
    // A ticket of before is no certificate.
    front.reload(&listener_tls(&[&files], &format!("client_ca = \"{ca}\"")), "");
    for config in &configs {
        front.refusal(config);
    }
    front.shakes("no_certificate", 2);
}

#[test]
fn plain_http_at_a_tls_listener_is_told_so() {
    let front = start("", "");
    for first in [request(""), "GET / HTTP/1.0\r\n\r\n".to_owned(), "POST /x".to_owned()] {
        let mut client = front.proxy.connect();
        client.send(first.as_bytes());
        let head = client.head();
        assert_eq!(status(&head), 400);
        assert_eq!(client.rest_text(), "this port speaks TLS: use https:// or wss://\n");
    }
    // Something else gets an alert or nothing, and an end.
    for first in [&b"\0\0\0\0\0\0\0\0"[..], b"\x16\x03\x01\x00\x05hello", b"SSH-2.0-x\r\n"] {
        let mut client = front.proxy.connect();
        client.send(first);
        let said = client.rest();
        assert!(said.is_empty() || said.starts_with(b"\x15\x03"), "{}", said.escape_ascii());
    }
    front.proxy.wait_metric("wsproxy_sessions_total", |count| count == 0);
    assert!(front.server.try_accept().is_none());
}

#[test]
fn clients_that_do_not_go_on_disturb_nobody_and_are_closed() {
    let front = start("", "[timeouts]\ntls_handshake = \"3s\"\n");
    let mut hello = Vec::new();
    let mut unsent = front.client(&client_config(BOTH, None), "localhost");
    unsent.conn.write_tls(&mut hello).unwrap();
    drop(unsent);
    front.shakes("closed", 1);
    // Nothing, a part of a hello, a hello and nothing behind it.
    let stalled: Vec<_> = (0..50)
        .map(|number| {
            let mut client = front.proxy.connect();
            client.send(&hello[..[0, 5, 100, hello.len()][number % 4]]);
            client
        })
        .collect();
    let mut client = front.client(&client_config(BOTH, None), "localhost");
    let (mut upstream, _) = front.open(&mut client);
    for _ in 0..100 {
        carries(&mut client, &mut upstream);
    }
    for mut client in stalled {
        let said = client.rest();
        // Our half of a handshake that the client did not finish.
        assert!(said.is_empty() || said.starts_with(b"\x16\x03"), "{}", said.escape_ascii());
    }
    front.shakes("tls_timeout", 50);
    assert_eq!(front.proxy.failures("tls_timeout"), 50);
    carries(&mut client, &mut upstream);
}

#[test]
fn a_hello_may_come_byte_by_byte() {
    let front = start("", "");
    let mut client = front.client(&client_config(BOTH, None), "localhost");
    let mut hello = Vec::new();
    client.conn.write_tls(&mut hello).unwrap();
    hello.iter().for_each(|byte| client.sock.write_all(&[*byte]).unwrap());
    let (mut upstream, _) = front.open(&mut client);
    carries(&mut client, &mut upstream);
}

#[test]
fn a_stop_does_not_wait_for_handshakes() {
    let front = start("", "");
    let mut stalled = front.proxy.connect();
    stalled.send(b"\x16\x03\x01");
    front.proxy.wait_metric("wsproxy_accepted_total", |count| count == 1);
    let Front { mut proxy, .. } = front;
    proxy.terminate();
    assert!(proxy.wait().success());
    // Reset or closed, as the bytes were read or not.
    let end = stalled.stream.read(&mut [0]);
    assert!(matches!(end, Ok(0)) || end.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset));
}

#[test]
fn plain_requests_and_a_handshake_on_one_connection() {
    let front = start("", TOLD);
    let mut client = front.shaken(&client_config(BOTH, None), "localhost");
    let mut upstream = None;
    for page in ["/one", "/two?x=y"] {
        let get =
            format!("GET {page} HTTP/1.1\r\nHost: example.com\r\nX-Forwarded-Proto: no\r\n\r\n");
        client.write_all(get.as_bytes()).unwrap();
        let upstream: &mut End =
            upstream.get_or_insert_with(|| End::new(front.server.accept().stream));
        let head = upstream.head();
        assert!(head.starts_with(&format!("GET {page} HTTP/1.1\r\n")), "{head}");
        for (name, value) in [
            ("X-Forwarded-Proto", "https"),
            ("X-Seen", "https TLSv1.3 localhost"),
            ("Forwarded", "for=127.0.0.1;host=\"example.com\";proto=https"),
        ] {
            assert_eq!(header(&head, name), [value], "{head}");
        }
        let body = vec![b'b'; 100_000];
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        upstream.send(&[answer.as_bytes(), &body].concat());
        assert_eq!(status(&head_of(&mut client)), 200);
        let mut found = vec![0; body.len()];
        client.read_exact(&mut found).unwrap();
        assert!(found == body);
    }
    client.write_all(request("").as_bytes()).unwrap();
    let mut upstream = End::new(front.server.accept().stream);
    let head = upstream.head();
    assert_eq!(header(&head, "X-Seen"), ["https TLSv1.3 localhost"]);
    upstream.send(switch("").as_bytes());
    assert_eq!(status(&head_of(&mut client)), 101);
    carries(&mut client, &mut upstream);
}

/// An answer that ends with the connection ends with a close_notify: else it could be cut short.
#[test]
fn answers_end_with_a_close_notify() {
    let front = start("", "[route]\nrespond = 200\nbody = \"well\"\n");
    let mut client = front.shaken(&client_config(BOTH, None), "localhost");
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    // Without a close_notify this is an error.
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(status(&answer), 200);
    assert!(answer.ends_with("\r\n\r\nwell"), "{answer}");
    let mut client = front.shaken(&client_config(BOTH, None), "localhost");
    client.write_all(b"no request at all\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(status(&answer), 400);
}

#[test]
fn an_answer_that_is_cut_off_does_not_end_in_order() {
    let front = start("", "");
    for (length, reset) in [("Content-Length: 100\r\n", false), ("Connection: close\r\n", true)] {
        let mut client = front.shaken(&client_config(BOTH, None), "localhost");
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut upstream = End::new(front.server.accept().stream);
        upstream.head();
        upstream.send(format!("HTTP/1.1 200 OK\r\n{length}\r\nhalf").as_bytes());
        // The reset must not overtake what was sent.
        assert_eq!(status(&head_of(&mut client)), 200);
        if reset {
            upstream.reset()
        } else {
            drop(upstream)
        }
        let end = client.read_to_end(&mut Vec::new());
        let error = end.expect_err("half an answer ends as a whole one");
        let kinds = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
        assert!(kinds.contains(&error.kind()), "{error:?}");
    }
}

/// Errors of records inside of a session end it, and the client is told by an alert.
#[test]
fn garbage_in_a_session_ends_it() {
    let front = start("", "");
    let mut client = front.client(&client_config(BOTH, None), "localhost");
    let (mut upstream, _) = front.open(&mut client);
    carries(&mut client, &mut upstream);
    client.sock.write_all(b"\x17\x03\x03\x00\x20 this was never encrypted by us ").unwrap();
    assert_eq!(upstream.failure(), ErrorKind::ConnectionReset);
    let error = client.read(&mut [0]).unwrap_err();
    // The reset behind the alert may overtake it.
    if error.kind() != ErrorKind::ConnectionReset {
        assert_eq!(alert(&error), AlertDescription::BadRecordMac);
    }
    let ends = "wsproxy_session_ends_total{ending=\"client_broke\"}";
    front.proxy.wait_metric(ends, |count| count == 1);
    assert!(shake(&mut front.client(&client_config(BOTH, None), "localhost")).is_ok());
}
