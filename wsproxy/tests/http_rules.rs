//! Plain HTTP beside WebSockets: which route a request takes, and what that makes of it.
#![cfg(target_os = "linux")]

mod support;

use std::{net::SocketAddr, process::Command};

use serde_json::Value;
use support::{
    BINARY, Proxy, Server, TempDir, config, header,
    http::{Origin, answer, get, lines, plain},
    refusing, request, status, switch,
};

/// The proxy with these keys of its only route, and `more` of the file.
fn routed(servers: &[SocketAddr], keys: &str, more: &str) -> Proxy {
    Proxy::relay(servers, &format!("[route]\nupstream = \"default\"\n{keys}\n{more}"))
}

/// What a client says of itself.
const SAID: &str = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-For: 192.0.2.8, 127.0.0.9\r\n\
                    X-Forwarded-Proto: https\r\nX-Forwarded-Host: public.example\r\n\
                    X-Real-IP: 192.0.2.9\r\nX-Request-ID: their-id\r\n\
                    Forwarded: for=192.0.2.7\r\nForwarded: for=192.0.2.8;proto=https\r\n";

#[test]
fn servers_learn_who_asks() {
    let origin = Origin::echo("");
    let ours = "for=127.0.0.1;host=\"example.com\";proto=http";
    let continued = format!("for=192.0.2.7, for=192.0.2.8;proto=https, {ours}");
    let believed = [
        ("X-Forwarded-For", "192.0.2.7, 192.0.2.8, 127.0.0.9, 127.0.0.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "public.example"),
        ("X-Real-IP", "192.0.2.8"),
        ("X-Request-ID", "their-id"),
        ("Forwarded", &continued),
        ("Host", "example.com"),
    ];
    let replaced = [
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "example.com"),
        ("X-Real-IP", "127.0.0.1"),
        ("Forwarded", ours),
        ("Host", "example.com"),
    ];
    for (clients, said, expected) in [
        ("", "", &replaced[..]),
        ("", SAID, &replaced),
        ("[clients]\ntrusted_proxies = [\"127.0.0.0/30\"]", "", &replaced),
        ("[clients]\ntrusted_proxies = [\"127.0.0.0/24\"]", SAID, &believed),
        ("[clients]\ntrusted_proxies = [\"10.0.0.0/8\"]", SAID, &replaced),
    ] {
        let proxy = Proxy::relay(&[origin.address], clients);
        let (code, head, got) = proxy.ask(&get("/", said));
        assert_eq!(code, 200);
        for (name, value) in expected {
            assert_eq!(header(&got, name), [*value], "{name} with {clients:?} in {got}");
        }
        // The answer's id is the one that the server got.
        let id = header(&got, "X-Request-ID");
        assert_eq!(header(&head, "X-Request-ID"), id, "{head}");
        assert_eq!(id == ["their-id"], expected == believed, "{id:?}");
    }
    let name = "[clients]\ntrusted_proxies = [\"127.0.0.1\"]\naddress_header = ";
    for (kind, client) in [("Forwarded", "192.0.2.8"), ("X-Real-IP", "192.0.2.9")] {
        let proxy = Proxy::relay(&[origin.address], &format!("{name}\"{kind}\""));
        let (_, _, got) = proxy.ask(&get("/", SAID));
        assert_eq!(header(&got, "X-Real-IP"), [client], "{kind}: {got}");
    }
}

#[test]
fn one_id_leads_from_the_answer_to_the_log() {
    let origin = Origin::echo("X-Request-ID: of the server\r\n");
    let (_held, down) = refusing();
    let dir = TempDir::new();
    let log = dir.join("access.log");
    let server = Server::start();
    let more = format!(
        "[access_log]\nformat = \"json\"\npath = \"{}\"\n\
         [[upstream]]\nname = \"up\"\nservers = [\"{}\"]\n\
         [[upstream]]\nname = \"down\"\nservers = [\"{down}\"]\n\
         [[upstream]]\nname = \"ws\"\nservers = [\"{}\"]\n\
         [[route]]\npath = \"/up\"\nupstream = \"up\"\n\
         [[route]]\npath = \"/down\"\nname = \"to nobody\"\nupstream = \"down\"\n\
         [[route]]\npath = \"/chat\"\nname = \"sockets\"\nupstream = \"ws\"\n",
        log.display(),
        origin.address,
        server.address,
    );
    let text = config(&[], &more).replace("[upstream]\nservers = []\n", "");
    let proxy = Proxy::with_file(Command::new(BINARY), &text, "relay");
    let mut client = proxy.connect();
    let agent = "User-Agent: test \"1\"\r\nReferer: http://a/\r\n";
    let cases = [
        (plain("POST", "/up/a?b=c", agent, "12345"), 200, "/up", 5),
        (get("/down", agent), 502, "to nobody", 0),
        (get("/none", agent), 404, "", 0),
    ];
    for (n, (text, code, route, uploaded)) in cases.iter().enumerate() {
        let (got, head, body) = client.ask(text);
        assert_eq!(got, *code);
        let id = header(&head, "X-Request-ID");
        assert_eq!(id.len(), 1, "{head}");
        assert!(*code == 200 || body.contains(id[0]), "the page does not name it: {body}");
        let line = lines(&log, n + 1).remove(n);
        assert_eq!(line["request_id"], id[0], "{line}");
        assert_eq!(line["kind"], "request", "{line}");
        assert_eq!(line["status"], *code, "{line}");
        assert_eq!(line["route"], *route, "{line}");
        assert_eq!(line["client"], "127.0.0.1", "{line}");
        assert_eq!(line["host"], "example.com", "{line}");
        assert_eq!(line["user_agent"], "test \"1\"", "{line}");
        assert_eq!(line["referer"], "http://a/", "{line}");
        assert_eq!(line["bytes_to_client"], body.len(), "{line}");
        assert_eq!(line["bytes_to_upstream"], *uploaded, "{line}");
        let upstream =
            if *code == 200 { Value::from(origin.address.to_string()) } else { Value::Null };
        assert_eq!(line["upstream"], upstream, "{line}");
        let target = text.split(' ').nth(1).unwrap();
        assert_eq!(line["target"], target, "{line}");
    }
    // Handshakes as well: refused by the server, by us, and one that becomes a session.
    let mut ids = Vec::new();
    for code in [403, 101] {
        client.send(request("").as_bytes());
        let mut upstream = server.accept();
        let sent = upstream.head();
        let forbidden = "HTTP/1.1 403 Forbidden\r\nX-Request-ID: x\r\nContent-Length: 0\r\n\r\n";
        let switched = switch("X-Request-ID: x\r\n");
        upstream.send(if code == 403 { forbidden } else { &switched }.as_bytes());
        let head = client.head();
        assert_eq!(status(&head), code);
        let id = header(&sent, "X-Request-ID");
        assert_eq!(header(&head, "X-Request-ID"), id, "{head}");
        ids.push(id[0].to_owned());
    }
    drop(client);
    let found = lines(&log, 5);
    assert_eq!(found[3]["request_id"], *ids[0], "{}", found[3]);
    assert_eq!(found[3]["status"], 403, "{}", found[3]);
    assert_eq!(found[4]["request_id"], *ids[1], "{}", found[4]);
    assert_eq!(found[4]["kind"], "session", "{}", found[4]);
    assert_eq!(found[4]["route"], "sockets", "{}", found[4]);
    let mut ids: Vec<_> = found.iter().map(|line| line["request_id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 5, "two requests share an id");
}

#[test]
fn a_bad_head_has_an_id_and_a_line() {
    let origin = Origin::echo("");
    let dir = TempDir::new();
    let log = dir.join("access.log");
    let more = format!(
        "[access_log]\nformat = \"json\"\npath = \"{}\"\n[timeouts]\nrequest_head = \"300ms\"\n\
         [limits]\nhead_bytes = \"2KiB\"",
        log.display()
    );
    let proxy = Proxy::relay(&[origin.address], &more);
    let long = format!("GET /{} HTTP/1.1\r\nHost: a b\r\n\r\n", "x".repeat(1000));
    let cut = format!("/{}...", "x".repeat(255));
    let large = format!("GET /large HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(2048));
    let handshake = request("").replace("Version: 13", "Version: 8");
    let cases: [(&str, u16, [&str; 3]); 9] = [
        ("GET /\"q\" HTTP/1.1\r\nHost: a b\r\n\r\n", 400, ["GET", "/\"q\"", "HTTP/1.1"]),
        ("PUT /x HTTP/2.0\r\nHost: a\r\n\r\n", 505, ["PUT", "/x", "HTTP/2.0"]),
        (&long, 400, ["GET", &cut, "HTTP/1.1"]),
        (&large, 431, ["GET", "/large", "HTTP/1.1"]),
        (&handshake, 426, ["GET", "/chat?a=b", "HTTP/1.1"]),
        ("GET /late HTTP/1.1\r\nHost:", 408, ["GET", "/late", "HTTP/1.1"]),
        ("GET /late", 408, ["GET", "/late", "-"]),
        ("GE", 408, ["-", "-", "-"]),
        ("\u{16}\u{3}\u{1}", 400, ["-", "-", "-"]),
    ];
    // As the first request of a connection, and behind a good one.
    let mut before = 0;
    for (text, code, parts) in cases {
        for behind in [false, true] {
            let mut client = proxy.connect();
            if behind {
                assert_eq!(client.ask(&get("/good", "")).0, 200);
            }
            client.send(text.as_bytes());
            let head = client.head();
            assert_eq!(status(&head), code, "{text}");
            let id = header(&head, "X-Request-ID");
            assert!(id.len() == 1 && client.rest_text().contains(id[0]), "{text}: {head}");
            before += usize::from(behind);
            let line = lines(&log, before + 1).remove(before);
            before += 1;
            assert_eq!([&line["request_id"]], id[..], "{line}");
            assert_eq!((&line["status"], &line["client"]), (&code.into(), &"127.0.0.1".into()));
            let found = ["method", "target", "http_version"].map(|name| &line[name]);
            assert_eq!(found, parts, "{line}");
        }
    }
}

#[test]
fn who_comes_over_the_limit_has_an_id_and_a_line() {
    let server = Server::start();
    let dir = TempDir::new();
    let log = dir.join("access.log");
    let path = format!("[access_log]\nformat = \"json\"\npath = \"{}\"", log.display());
    let proxy = Proxy::relay(&[server.address], &format!("[limits]\nmax_sessions = 1\n{path}"));
    let _session = proxy.session(&server);
    let head = proxy.connect().head();
    assert_eq!(status(&head), 503);
    let line = lines(&log, 1).remove(0);
    assert_eq!([&line["request_id"]], header(&head, "X-Request-ID")[..], "{line}");
    assert_eq!((&line["status"], &line["method"]), (&503.into(), &"-".into()), "{line}");
}

#[test]
fn headers_are_changed_as_configured() {
    let origin = Origin::echo("Server: secret/1.0\r\nX-Set: old\r\nX-Add: first\r\n");
    let keys = r#"
        set_request_headers = { "X-Set" = "$client_ip $method $path?$query", "X-Empty" = "$cookie_none", "X-Both" = "${host}-$http_host" }
        add_request_headers = { "X-Add" = "$cookie_c, $header_x_in, $$5", "X-Not" = "$tls_name" }
        remove_request_headers = ["X-Secret", "X-Real-IP"]
        set_response_headers = { "X-Set" = "$upstream", "X-Id" = "$request_id", "Strict-Transport-Security" = "max-age=1" }
        add_response_headers = { "X-Add" = "$request_uri $scheme" }
        remove_response_headers = ["server"]
    "#;
    let proxy = routed(&[origin.address], keys, "");
    let more = "X-Set: old\r\nX-Add: first\r\nX-Secret: s\r\nX-Empty: e\r\nX-In: in\r\n\
                Cookie: a=b; c=d\r\nX-Not: n\r\n";
    let server = origin.address.to_string();
    let line = format!("GET /p%20q/?x=y HTTP/1.1\r\nHost: Example.COM:8080\r\n{more}\r\n");
    let (code, head, got) = proxy.ask(&line);
    assert_eq!(code, 200);
    for (name, values) in [
        ("X-Set", &["127.0.0.1 GET /p%20q/?x=y"][..]),
        ("X-Empty", &[]),
        ("X-Both", &["example.com-Example.COM:8080"]),
        ("X-Add", &["first", "d, in, $5"]),
        ("X-Not", &["n"]),
        ("X-Secret", &[]),
        ("X-Real-IP", &[]),
        ("X-Forwarded-Host", &["Example.COM:8080"]),
    ] {
        assert_eq!(header(&got, name), values, "{name} in {got}");
    }
    let id = header(&head, "X-Request-ID");
    for (name, values) in [
        ("X-Set", &[&*server][..]),
        ("X-Id", &id),
        ("Strict-Transport-Security", &["max-age=1"]),
        ("X-Add", &["first", "/p%20q/?x=y http"]),
        ("Server", &[]),
    ] {
        assert_eq!(header(&head, name), values, "{name} in {head}");
    }
}

#[test]
fn servers_see_the_host_that_is_configured() {
    let origin = Origin::echo("");
    let server = origin.address.to_string();
    for (key, host) in
        [("keep", "example.com"), ("upstream", &*server), ("inner.example:81", "inner.example:81")]
    {
        let proxy = routed(&[origin.address], &format!("host_header = \"{key}\""), "");
        let (code, _, got) = proxy.ask(&get("/", ""));
        assert_eq!(code, 200, "{got}");
        assert_eq!(header(&got, "Host"), [host], "{got}");
        assert_eq!(header(&got, "X-Forwarded-Host"), ["example.com"], "{got}");
    }
}

#[test]
fn requests_find_their_route() {
    let origin = Origin::echo("");
    let more = r#"
        [[route]]
        path = "/api"
        upstream = "default"
        rewrite = "/"
        [[route]]
        path = "/deep/"
        upstream = "default"
        rewrite = "/v1/inner"
        [[route]]
        path = "/only"
        exact = true
        upstream = "default"
        rewrite = "/other"
        [[route]]
        path = "/old"
        redirect = "https://$host$request_uri"
        status = 308
        [[route]]
        path = "/gone"
        respond = 410
        body = "nothing here\n"
        set_response_headers = { "X-Why" = "$method" }
        [[route]]
        path = "/quiet"
        respond = 204
        [[route]]
        hosts = ["a.example"]
        path = "/api"
        respond = 200
        body = "exact host"
        [[route]]
        hosts = ["*.example"]
        respond = 200
        body = "wildcard"
        [[route]]
        hosts = ["*.b.example"]
        respond = 200
        body = "longer wildcard"
    "#;
    let proxy = Proxy::relay(&[origin.address], more);
    // All on one connection: no answer leaves anything behind.
    let mut client = proxy.connect();
    for (target, sent) in [
        ("/api/x?y=z", "/x?y=z"),
        ("/api", "/"),
        ("/api/", "/"),
        ("/%61pi/x", "/x"),
        ("//api//x", "//x"),
        ("/api/%2561", "/%2561"),
        ("/deep/a", "/v1/inner/a"),
        ("/only?a", "/other?a"),
    ] {
        let (code, _, got) = client.ask(&get(target, ""));
        assert_eq!(code, 200, "{target}");
        let start = format!("GET {sent} HTTP/1.1\r\n");
        assert!(got.starts_with(&start), "{target} is not {sent}: {got}");
    }
    for target in ["/", "/apix", "/ap", "/only/", "/only/a", "/deep", "/API"] {
        let (code, _, body) = client.ask(&get(target, ""));
        assert_eq!(code, 404, "{target}: {body}");
    }
    assert_eq!(proxy.request_failures("no_route"), 7);
    for (host, target, body) in [
        ("a.example", "/api", "exact host"),
        ("A.Example.:80", "/api/x", "exact host"),
        ("c.example", "/api", "wildcard"),
        ("x.c.example", "/", "wildcard"),
        ("x.b.example", "/", "longer wildcard"),
        ("b.example", "/", "wildcard"),
    ] {
        let text = get(target, "").replace("Host: example.com", &format!("Host: {host}"));
        assert_eq!(client.ask(&text).2, body, "{host} {target}");
    }
    // What an exact name has is all there is for it, whatever a wildcard has.
    let text = get("/", "").replace("Host: example.com", "Host: a.example");
    assert_eq!(client.ask(&text).0, 404);

    let (code, head, _) = client.ask(&get("/old/x?y", ""));
    assert_eq!(code, 308);
    assert_eq!(header(&head, "Location"), ["https://example.com/old/x?y"], "{head}");
    let (code, head, body) = client.ask(&plain("POST", "/gone", "", "a body"));
    assert_eq!((code, &*body), (410, "nothing here\n"));
    assert_eq!(header(&head, "X-Why"), ["POST"], "{head}");
    let mut client = proxy.connect();
    for (path, code, length) in
        [("/gone", 410, &["13"][..]), ("/old", 308, &[]), ("/none", 404, &[])]
    {
        client.send(plain("HEAD", path, "", "").as_bytes());
        let head = client.head();
        assert_eq!(status(&head), code, "{head}");
        let found = header(&head, "Content-Length");
        assert!(length.is_empty() && found.len() <= 1 || found == length, "{path}: {head}");
    }
    client.send(get("/quiet", "").as_bytes());
    let head = client.head();
    assert_eq!(status(&head), 204);
    for name in ["Content-Length", "Transfer-Encoding"] {
        assert_eq!(header(&head, name), [""; 0], "{name} in {head}");
    }
    assert_eq!(client.ask(&get("/gone", "")).0, 410);
    // A dot segment is refused in whichever spelling, before any route.
    for target in ["/api/../gone", "/api/%2e%2e/gone", "/./gone", "/api/%2E./gone", "/api/.."] {
        let mut client = proxy.connect();
        client.send(get(target, "").as_bytes());
        assert_eq!(status(&client.head()), 400, "{target}");
    }
}

#[test]
fn routes_are_for_handshakes_or_not() {
    let server = Server::start();
    let proxy = routed(&[server.address], "websocket = \"only\"", "");
    let mut client = proxy.connect();
    for method in ["GET", "HEAD", "DELETE"] {
        client.send(plain(method, "/chat", "", "").as_bytes());
        let head = client.head();
        assert_eq!(status(&head), 426, "{head}");
        assert_eq!(header(&head, "Upgrade"), ["websocket"], "{head}");
        assert_eq!(header(&head, "Connection").join(",").to_ascii_lowercase(), "upgrade", "{head}");
        if method != "HEAD" {
            let body = String::from_utf8(client.body(&head)).unwrap();
            assert!(body.contains("WebSocket"), "{body}");
        }
    }
    assert_eq!(proxy.request_failures("not_websocket"), 3);
    // The client may do what it was told to on the same connection.
    client.send(request("").as_bytes());
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(switch("").as_bytes());
    assert_eq!(status(&client.head()), 101);
    client.send(b"there");
    upstream.expect(b"there");

    let proxy = routed(&[server.address], "websocket = \"deny\"", "");
    let mut client = proxy.connect();
    client.send(get("/", "").as_bytes());
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(answer("", "plain").as_bytes());
    assert_eq!(client.answer().1, "plain");
    client.send(request("").as_bytes());
    let (head, body) = client.answer();
    assert_eq!(status(&head), 403);
    assert!(body.contains(header(&head, "X-Request-ID")[0]), "{head}{body}");
    assert_eq!(proxy.failures("websocket_refused"), 1);
    assert!(server.try_accept().is_none());
}

#[test]
fn bodies_are_as_long_as_they_may_be() {
    let origin = Origin::echo("");
    let proxy = routed(&[origin.address], "body_limit = 10", "");
    let chunked = |body: &str| plain("POST", "/", "Transfer-Encoding: chunked\r\n", "") + body;
    for (text, code) in [
        (plain("POST", "/", "", "0123456789"), 200),
        (plain("POST", "/", "", "0123456789a"), 413),
        (chunked("5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n"), 200),
        (chunked("5\r\n01234\r\n6\r\n56789a\r\n0\r\n\r\n"), 413),
        // Known to be too long before its end.
        (chunked("b\r\n0123456789a\r\n"), 413),
        (plain("POST", "/", "Content-Length: 4000000000\r\n", ""), 413),
    ] {
        let mut client = proxy.connect();
        client.send(text.as_bytes());
        let head = client.head();
        assert_eq!(status(&head), code, "{text:?}: {head}");
        let body = String::from_utf8(client.body(&head)).unwrap();
        assert!(code == 413 || body.ends_with("\r\n\r\n0123456789"), "{body}");
        if code == 413 {
            assert_eq!(header(&head, "Connection"), ["close"], "{head}");
            // In order: a reset could take the answer away from who has not read it yet.
            assert_eq!(client.rest(), b"", "{text:?}");
        }
    }
    assert_eq!(proxy.request_failures("body_too_large"), 4);
    let proxy = routed(&[origin.address], "body_limit = 0", "");
    assert_eq!(proxy.ask(&get("/", "")).0, 200);
    assert_eq!(proxy.ask(&plain("POST", "/", "", "x")).0, 413);
}

#[test]
fn an_answer_before_the_body_is_not_lost_in_a_reset() {
    let origin = Origin::echo("");
    let proxy =
        routed(&[origin.address], "body_limit = 10\nwebsocket = \"only\"\npath = \"/only\"", "");
    let part = "x".repeat(100_000);
    for path in ["/only", "/none"] {
        let mut client = proxy.connect();
        let head = plain("POST", path, "Content-Length: 200000\r\n", "");
        client.send(head.as_bytes());
        // Nobody reads it, but it is on its way.
        client.send(part.as_bytes());
        let (head, _) = client.answer();
        assert!([404, 426].contains(&status(&head)), "{head}");
        client.send(part.as_bytes());
        // Whoever reads the answer late must find it: the end is in order.
        assert_eq!(client.rest(), b"", "{path}");
    }
}

#[test]
fn addresses_are_let_in_or_not() {
    let origin = Origin::echo("");
    let trusting = "[clients]\ntrusted_proxies = [\"127.0.0.1\"]";
    for (keys, from, code) in [
        ("deny = [\"192.0.2.0/24\"]", "192.0.2.7", 403),
        ("deny = [\"192.0.2.0/24\"]", "198.51.100.7", 200),
        ("allow = [\"192.0.2.0/24\"]", "192.0.2.7", 200),
        ("allow = [\"192.0.2.0/24\"]", "198.51.100.7", 403),
        ("allow = [\"192.0.2.0/24\"]\ndeny = [\"192.0.2.7\"]", "192.0.2.7", 403),
        ("allow = [\"2001:db8::/32\"]", "2001:db8::1", 200),
    ] {
        let proxy = routed(&[origin.address], keys, trusting);
        let (got, head, _) = proxy.ask(&get("/", &format!("X-Forwarded-For: {from}\r\n")));
        assert_eq!(got, code, "{keys} {from}: {head}");
        assert_eq!(proxy.request_failures("address_refused"), u64::from(code == 403));
    }
    // A listener lets nobody say a word.
    let text = config(&[origin.address], "").replace("[admin]", "deny = [\"127.0.0.1\"]\n[admin]");
    let proxy = Proxy::with_file(Command::new(BINARY), &text, "relay");
    assert_eq!(proxy.connect().rest_or_reset(), b"");
}
