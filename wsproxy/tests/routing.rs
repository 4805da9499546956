//! Who is let in, and which server gets a session: rules of routes, limits, balancing.
#![cfg(target_os = "linux")]

mod support;

use std::{collections::HashMap, net::SocketAddr, process::Command, time::Duration};

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use support::{
    BINARY, Proxy, Server, TempDir, config, header,
    http::{get, lines},
    opened, refusing, request, status, switch,
};

/// The proxy in front of `servers` with one route that has `keys`.
fn routed(servers: &[SocketAddr], keys: &str) -> Proxy {
    Proxy::relay(servers, &format!("[route]\nupstream = \"default\"\n{keys}"))
}

/// The status that a handshake with these headers gets, without a server's help.
fn refused(proxy: &Proxy, more: &str) -> (u16, String) {
    let mut client = proxy.connect();
    client.send(request(more).as_bytes());
    let head = client.head();
    (status(&head), head)
}

#[test]
fn only_pages_of_the_listed_origins_may_connect() {
    let server = Server::start();
    let proxy =
        routed(&[server.address], "origins = [\"https://example.com\", \"https://*.example.org\"]");
    for origin in ["https://example.com", "https://a.example.org", "HTTPS://Example.Com"] {
        opened(&proxy, &server, &format!("Origin: {origin}\r\n"));
    }
    for origin in ["http://example.com", "https://evil.com", "https://example.org", "null"] {
        let (code, head) = refused(&proxy, &format!("Origin: {origin}\r\n"));
        assert_eq!(code, 403, "{origin}");
        assert_eq!(header(&head, "X-Request-ID").len(), 1);
    }
    assert_eq!(refused(&proxy, "").0, 403);
    assert_eq!(proxy.failures("origin_refused"), 5);
    assert!(proxy.log_text().contains("https://evil.com"));
    assert!(server.try_accept().is_none());
    let proxy = routed(&[server.address], "origins = [\"null\", \"missing\"]");
    opened(&proxy, &server, "Origin: null\r\n");
    opened(&proxy, &server, "");
    assert_eq!(refused(&proxy, "Origin: https://example.com\r\n").0, 403);
}

#[test]
fn only_the_listed_subprotocols_are_passed_on() {
    let server = Server::start();
    let proxy = routed(&[server.address], "subprotocols = [\"chat\", \"news\"]");
    let offer = |list: &str| format!("Sec-WebSocket-Protocol: {list}\r\n");
    let (_, _, head) = opened(&proxy, &server, &offer("old, news, chat"));
    assert_eq!(header(&head, "Sec-WebSocket-Protocol"), ["news, chat"]);
    let (_, _, head) = opened(&proxy, &server, "");
    assert!(header(&head, "Sec-WebSocket-Protocol").is_empty());
    assert_eq!(refused(&proxy, &offer("old")).0, 400);
    assert_eq!(proxy.failures("subprotocol_refused"), 1);
}

#[test]
fn addresses_are_let_in_or_not() {
    let server = Server::start();
    let proxy = routed(&[server.address], "deny = [\"127.0.0.1\"]");
    assert_eq!(refused(&proxy, "").0, 403);
    let proxy = routed(&[server.address], "allow = [\"127.0.0.0/8\"]");
    opened(&proxy, &server, "");
    let proxy = routed(&[server.address], "allow = [\"10.0.0.0/8\"]");
    assert_eq!(refused(&proxy, "").0, 403);
    // Of a listener, not a word is said.
    let text = config(&[server.address], "")
        .replace("[listener]\n", "[listener]\ndeny = [\"127.0.0.0/8\"]\n");
    let proxy = Proxy::with_file(Command::new(BINARY), &text, "relay");
    let mut client = proxy.connect();
    assert_eq!(client.rest(), b"");
    proxy.wait_metric("wsproxy_handshake_failures_total{reason=\"address_refused\"}", |count| {
        count == 1
    });
}

#[test]
fn a_refused_handshake_is_logged_with_all_that_is_known() {
    let server = Server::start();
    let (_held, down) = refusing();
    let dir = TempDir::new();
    let log = dir.join("access.log");
    let more = format!(
        r#"
        [access_log]
        format = "json"
        path = "{}"
        [[upstream]]
        name = "up"
        servers = ["{}"]
        [[upstream]]
        name = "down"
        servers = ["{down}"]
        max_fails = 0
        [[route]]
        name = "pages"
        path = "/origin"
        origins = ["https://example.com"]
        upstream = "up"
        [[route]]
        name = "inner"
        path = "/inner"
        deny = ["127.0.0.1"]
        upstream = "up"
        [[route]]
        name = "rare"
        path = "/rare"
        handshake_rate = "1/h"
        handshake_burst = 1
        upstream = "up"
        [[route]]
        name = "nobody"
        path = "/down"
        upstream = "down"
        "#,
        log.display(),
        server.address
    );
    let text = config(&[], &more).replace("[upstream]\nservers = []\n", "");
    let proxy = Proxy::with_file(Command::new(BINARY), &text, "relay");
    let agent = "User-Agent: test/1\r\nReferer: http://a/\r\n";
    let ask = |path: &str| request(agent).replace("/chat?a=b", path);
    let mut first = proxy.connect();
    first.send(ask("/rare").as_bytes());
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(status(&first.head()), 401);
    let mut cases = vec![("/rare", "rare", 401, true)];
    for case in [
        ("/origin", "pages", 403, true),
        ("/inner", "inner", 403, true),
        ("/inner", "inner", 403, false),
        ("/rare", "rare", 429, true),
        ("/down", "nobody", 502, true),
        ("/none", "", 404, true),
    ] {
        let mut client = proxy.connect();
        let text = if case.3 { ask(case.0) } else { get(case.0, agent) };
        client.send(text.as_bytes());
        assert_eq!(status(&client.head()), case.2, "{}", case.0);
        cases.push(case);
    }
    let mut found = lines(&log, cases.len());
    // Two that were answered one after the other may be written by two workers, in any order.
    for (target, route, code, _) in cases {
        let same = |line: &Value| line["target"] == target && line["status"] == code;
        let place = found.iter().position(same);
        let line = found.remove(place.unwrap_or_else(|| panic!("{target} {code}: {found:#?}")));
        assert_eq!(line["route"], route, "{line}");
        assert_eq!(line["user_agent"], "test/1", "{line}");
        assert_eq!(line["referer"], "http://a/", "{line}");
    }
}

#[test]
fn routes_without_a_server_answer_handshakes_as_they_do_requests() {
    let dir = TempDir::new();
    let log = dir.join("access.log");
    let more = format!(
        r#"
        [access_log]
        format = "json"
        path = "{}"
        [[route]]
        name = "old"
        path = "/old"
        redirect = "https://$host/$header_x_in/$cookie_c?$query"
        status = 308
        set_response_headers = {{ "X-Why" = "$method $header_x_in", "X-Request-ID" = "no" }}
        [[route]]
        name = "gone"
        path = "/gone"
        respond = 410
        body = "nothing here\n"
        set_response_headers = {{ "Content-Type" = "text/html", "X-Id" = "$request_id" }}
        remove_response_headers = ["X-Request-ID"]
        [[route]]
        name = "quiet"
        path = "/quiet"
        respond = 204
        [[route]]
        name = "same"
        path = "/same"
        respond = 304
        add_response_headers = {{ "ETag" = "\"a\"" }}
        "#,
        log.display()
    );
    let text = config(&[], &more).replace("[upstream]\nservers = []\n", "");
    let proxy = Proxy::with_file(Command::new(BINARY), &text, "relay");
    let said = "X-In: in\r\nCookie: a=b; c=d\r\nUser-Agent: test/1\r\n";
    let cases = [
        (
            ("old", 308, ""),
            "Location: https://example.com/in/d?a=b|X-Why: GET in|Content-Length: 0",
        ),
        (("gone", 410, "nothing here\n"), "Content-Type: text/html|Content-Length: 13"),
        (("quiet", 204, ""), "Content-Length: |Transfer-Encoding: "),
        (("same", 304, ""), "ETag: \"a\"|Content-Length: "),
    ];
    for (at, ((name, code, body), headers)) in cases.into_iter().enumerate() {
        let mut client = proxy.connect();
        client.send(request(said).replace("/chat", &format!("/{name}")).as_bytes());
        let head = client.head();
        assert_eq!(status(&head), code, "{head}");
        for line in headers.split('|') {
            let (name, value) = line.split_once(": ").unwrap();
            assert_eq!(header(&head, name).join("|"), value, "{name} in {head}");
        }
        assert_eq!(header(&head, "Connection"), ["close"], "{head}");
        assert_eq!(client.rest_text(), body, "{head}");
        let id = header(&head, "X-Request-ID");
        let line = lines(&log, at + 1).remove(at);
        assert_eq!([&line["request_id"]], id[..], "{head}: {line}");
        assert!(code != 410 || header(&head, "X-Id") == id, "{head}");
        assert_eq!((&line["status"], &line["route"]), (&code.into(), &name.into()), "{line}");
        assert_eq!(line["bytes_to_client"], body.len(), "{line}");
        assert_eq!(line["user_agent"], "test/1", "{line}");
    }
}

#[test]
fn limits_hold_and_places_come_back() {
    let server = Server::start();
    for (keys, more, code, reason) in [
        ("max_sessions = 2", "", 503, "route_sessions"),
        ("max_sessions_per_client = 2", "", 429, "client_sessions"),
        ("", "[limits]\nmax_sessions_per_client = 2", 429, "client_sessions"),
    ] {
        let proxy = routed(&[server.address], &format!("{keys}\n{more}"));
        let first = opened(&proxy, &server, "");
        let second = opened(&proxy, &server, "");
        let (found, head) = refused(&proxy, "");
        assert_eq!(found, code, "{keys} {more}");
        assert_eq!(header(&head, "Retry-After").len(), 1, "{head}");
        assert_eq!(proxy.failures(reason), 1);
        drop(first);
        proxy.wait_metric("wsproxy_sessions{datapath=\"relay\"}", |live| live == 1);
        opened(&proxy, &server, "");
        drop(second);
    }
    // Clients behind a trusted proxy are told apart.
    let proxy = routed(
        &[server.address],
        "max_sessions_per_client = 1\n[clients]\ntrusted_proxies = [\"127.0.0.0/8\"]",
    );
    let from = |ip: &str| format!("X-Forwarded-For: {ip}\r\n");
    let _one = opened(&proxy, &server, &from("192.0.2.1"));
    let _two = opened(&proxy, &server, &from("192.0.2.2"));
    assert_eq!(refused(&proxy, &from("192.0.2.1")).0, 429);
}

#[test]
fn handshakes_come_as_fast_as_they_may() {
    let server = Server::start();
    for (keys, code, reason) in [
        ("handshake_rate = \"1/h\"\nhandshake_burst = 3", 429, "client_rate"),
        ("[limits]\nhandshake_rate_per_client = \"1/h\"\nhandshake_burst = 3", 429, "client_rate"),
        ("[limits]\nhandshake_rate = \"1/h\"\nhandshake_burst = 3", 503, "rate"),
    ] {
        let proxy = routed(&[server.address], keys);
        for _ in 0..3 {
            opened(&proxy, &server, "");
        }
        let (found, head) = refused(&proxy, "");
        assert_eq!(found, code, "{keys}");
        let wait: u64 = header(&head, "Retry-After").join("").parse().unwrap();
        assert!((3_000..=3_600).contains(&wait), "{wait}");
        assert_eq!(proxy.failures(reason), 1);
    }
}

/// Which of the servers gets each of `count` handshakes, with headers by number.
fn spread(
    proxy: &Proxy,
    servers: &[Server],
    count: usize,
    more: impl Fn(usize) -> String,
) -> Vec<usize> {
    let mut kept = Vec::new();
    let chosen = (0..count).map(|number| {
        let mut client = proxy.connect();
        client.send(request(&more(number)).as_bytes());
        let (at, mut upstream) = support::wait_for("a server is asked", || {
            servers.iter().enumerate().find_map(|(at, s)| Some((at, s.try_accept()?)))
        });
        upstream.head();
        upstream.send(switch("").as_bytes());
        assert_eq!(status(&client.head()), 101);
        kept.push((client, upstream));
        at
    });
    chosen.collect()
}

fn with_balance(servers: &[Server], keys: &str) -> Proxy {
    let list: Vec<_> = servers.iter().map(|s| s.address).collect();
    let text = config(&list, "").replace("[upstream]\n", &format!("[upstream]\n{keys}\n"));
    Proxy::with_file(Command::new(BINARY), &text, "relay")
}

fn counted(chosen: &[usize]) -> Vec<usize> {
    let mut counts = HashMap::new();
    chosen.iter().for_each(|at| *counts.entry(*at).or_insert(0) += 1);
    (0..3).map(|at| counts.get(&at).copied().unwrap_or(0)).collect()
}

#[test]
fn sessions_are_spread_as_configured() {
    let servers = [Server::start(), Server::start(), Server::start()];
    let none = |_| String::new();
    let proxy = with_balance(&servers, "");
    assert_eq!(counted(&spread(&proxy, &servers, 9, none)), [3, 3, 3]);
    let proxy = with_balance(&servers, "balance = \"least_conn\"");
    assert_eq!(counted(&spread(&proxy, &servers, 9, none)), [3, 3, 3]);
    let proxy = with_balance(&servers, "balance = \"ip_hash\"");
    let chosen = spread(&proxy, &servers, 6, none);
    assert!(chosen.iter().all(|at| *at == chosen[0]), "{chosen:?}");
    // Two gateways that share nothing choose alike, and by the key alone.
    let keys = "balance = \"hash\"\nhash_key = \"header:X-User\"";
    let user = |number: usize| format!("X-User: {}\r\n", number % 8);
    let one = spread(&with_balance(&servers, keys), &servers, 16, user);
    let other = spread(&with_balance(&servers, keys), &servers, 16, user);
    assert_eq!(one, other);
    assert_eq!(one[..8], one[8..]);
    assert!(counted(&one).iter().filter(|count| **count > 0).count() > 1, "{one:?}");
}

#[test]
fn a_cookie_brings_a_client_back() {
    let servers = [Server::start(), Server::start(), Server::start()];
    let proxy = with_balance(&servers, "sticky_cookie = \"where\"");
    let mut client = proxy.connect();
    client.send(request("").as_bytes());
    let (first, mut upstream) = support::wait_for("a server is asked", || {
        servers.iter().enumerate().find_map(|(at, s)| Some((at, s.try_accept()?)))
    });
    upstream.head();
    upstream.send(switch("").as_bytes());
    let head = client.head();
    let cookie = header(&head, "Set-Cookie").join("");
    assert!(cookie.starts_with("where=") && cookie.contains("HttpOnly"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let chosen = spread(&proxy, &servers, 6, |_| format!("Cookie: a=b; {cookie}\r\n"));
    assert_eq!(chosen, [first; 6]);
    // One that names nobody is no better than none.
    let chosen = spread(&proxy, &servers, 6, |_| "Cookie: where=0123456789abcdef\r\n".to_owned());
    assert_eq!(counted(&chosen).iter().filter(|count| **count > 0).count(), 3);
}

#[test]
fn a_server_that_fails_is_left_out_and_a_backup_steps_in() {
    let (_held, down) = refusing();
    let (server, reserve) = (Server::start(), Server::start());
    let text = config(&[], "").replace(
        "servers = []",
        &format!(
            "servers = [\"{down}\", \"{}\", {{ address = \"{}\", backup = true }}]\n\
             fail_timeout = \"1h\"",
            server.address, reserve.address
        ),
    );
    let proxy = Proxy::with_file(Command::new(BINARY), &text, "relay");
    for _ in 0..6 {
        opened(&proxy, &server, "");
    }
    let series = format!("wsproxy_upstream_failures_total{{upstream=\"{down}\"}}");
    assert_eq!(proxy.metric(&series), 1, "it is not asked again");
    drop(server);
    opened(&proxy, &reserve, "");
    drop(reserve);
    let (code, _) = refused(&proxy, "");
    assert_eq!(code, 502, "somebody was asked");
    let (code, head) = refused(&proxy, "");
    assert_eq!(code, 503, "nobody is left: {head}");
    let wait: u64 = header(&head, "Retry-After").join("").parse().unwrap();
    assert!((1..=3_600).contains(&wait), "{wait}");
    assert_eq!(proxy.failures("no_server"), 1);
}

#[test]
fn a_full_server_makes_others_wait_in_line() {
    let server = Server::start();
    let text = config(&[], "").replace(
        "servers = []",
        &format!(
            "servers = [{{ address = \"{}\", max_connections = 1 }}]\nqueue = 1\n\
             queue_timeout = \"1h\"",
            server.address
        ),
    );
    let proxy = Proxy::with_file(Command::new(BINARY), &text, "relay");
    let first = opened(&proxy, &server, "");
    let mut waiting = proxy.connect();
    waiting.send(request("").as_bytes());
    // Nobody else has room in the line, whichever of the two came first.
    let mut third = proxy.connect();
    third.send(request("").as_bytes());
    let deadline = Some(Duration::from_millis(50));
    let refused_head = support::wait_for("one of them is refused", || {
        for client in [&mut waiting, &mut third] {
            client.stream.set_read_timeout(deadline).unwrap();
            let mut byte = [0];
            if client.stream.peek(&mut byte).is_ok() {
                client.stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
                return Some(client.head());
            }
        }
        None
    });
    assert_eq!(status(&refused_head), 503);
    assert_eq!(proxy.failures("busy"), 1);
    assert!(server.try_accept().is_none());
    drop(first);
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(switch("").as_bytes());
}

#[test]
fn health_checks_find_servers_dead_and_alive() {
    let server = Server::start();
    let address = server.address;
    let text = config(&[address], "")
        .replace("[upstream]\n", "[upstream]\nmax_fails = 0\nclose_dead = true\n")
        + "[upstream.health]\nkind = \"tcp\"\ninterval = \"100ms\"\nrise = 1\nfall = 2\n";
    let proxy = Proxy::with_file(Command::new(BINARY), &text, "relay");
    let (mut client, mut upstream) = {
        // Checks connect too: the session is who sends a request.
        let mut client = proxy.connect();
        client.send(request("").as_bytes());
        let upstream = support::wait_for("the handshake's connection", || {
            let mut peer = server.try_accept()?;
            peer.stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            let mut byte = [0];
            let asked = peer.stream.peek(&mut byte).is_ok_and(|n| n > 0);
            peer.stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
            asked.then(|| {
                peer.head();
                peer
            })
        });
        (client, upstream)
    };
    upstream.send(switch("").as_bytes());
    assert_eq!(status(&client.head()), 101);
    drop(server);
    // The session of the dead server is closed, and nobody is sent there.
    support::ws::parted(&mut client, &mut upstream, 1001, "the server is gone");
    drop((client, upstream));
    let ended =
        proxy.wait_metric("wsproxy_session_ends_total{ending=\"server_dead\"}", |count| count == 1);
    assert_eq!(ended, 1);
    assert_eq!(refused(&proxy, "").0, 503);
    let again = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    again.set_reuse_address(true).unwrap();
    again.bind(&address.into()).unwrap();
    again.listen(128).unwrap();
    support::wait_for("the server is found well again", || {
        proxy.logged("the server is well again").map(|_| ())
    });
}
