//! A build with the feature.

use std::{fs, net::TcpListener, path::Path};

use serde_json::Value;

use crate::{
    CALLER, TRACE,
    collector::{Collector, Span},
    start,
    support::{Proxy, Server, TempDir, header, opened, refusing, request, status, wait_for},
    tls_support::{Authority, authority, write_authority},
};

const FAILING: &str = "spans can't be exported and are lost until this is said to be over";
const ROUTE: &str = "[route]\nname = \"talk\"\nupstream = \"default\"\n";

/// The program with a collector that it sends to at once.
fn exporting(servers: &[std::net::SocketAddr], more: &str, collector: &str) -> Proxy {
    let soon = ("OTEL_BSP_SCHEDULE_DELAY", "20");
    start(servers, more, &[("OTEL_EXPORTER_OTLP_ENDPOINT", collector), soon])
}

/// Opens a session and ends it; returns the head that the server got.
fn session(proxy: &Proxy, server: &Server, more: &str) -> String {
    let (mut client, mut upstream, head) = opened(proxy, server, more);
    client.finish();
    // What the server is told of a client that left without a Close is no matter here.
    upstream.rest();
    upstream.finish();
    client.rest();
    head
}

/// What a client gets for a handshake that fails, and its request's id.
fn refused(proxy: &Proxy, request: &str) -> (u16, String) {
    let mut client = proxy.connect();
    client.send(request.as_bytes());
    let head = client.head();
    (status(&head), header(&head, "X-Request-ID")[0].to_owned())
}

fn has_id<'i>(id: &'i str) -> impl Fn(&Span) -> bool + 'i {
    move |span| span.get("wsproxy.request_id") == id
}

#[test]
fn a_good_handshake_can_be_found_in_both_logs_and_at_the_server() {
    let (server, collector, dir) = (Server::start(), Collector::start(), TempDir::new());
    let path = dir.join("access.log");
    let log = format!("[access_log]\npath = \"{}\"\nformat = \"json\"\n{ROUTE}", path.display());
    let proxy = exporting(&[server.address], &log, &collector.url);
    // The first one's number could be right by chance.
    session(&proxy, &server, "");
    let head = session(&proxy, &server, "");
    let id = header(&head, "X-Request-ID")[0];
    let (handshake, servers) = collector.handshake(has_id(id));
    assert_eq!((handshake.service.as_str(), handshake.kind), ("wsproxy", 2));
    assert_eq!(handshake.parent, "");
    assert!(!handshake.is_error, "{handshake:?}");
    let upstream = server.address.to_string();
    let expected = [
        ("client.address", "127.0.0.1"),
        ("wsproxy.route", "talk"),
        ("wsproxy.upstream", &upstream),
        ("http.response.status_code", "101"),
        ("wsproxy.refusal_reason", ""),
    ];
    for (key, value) in expected {
        assert_eq!(handshake.get(key), value, "{key}");
    }
    let [asked] = &servers[..] else { panic!("{servers:?}") };
    assert_eq!((asked.name.as_str(), asked.kind, asked.is_error), ("upstream", 3, false));
    assert_eq!(asked.get("wsproxy.upstream"), upstream);
    assert_eq!(asked.get("http.response.status_code"), "101");
    assert!(handshake.start <= asked.start && asked.start <= asked.end, "{asked:?}");
    assert!(asked.end <= handshake.end, "{asked:?}, {handshake:?}");
    let parent = format!("00-{}-{}-01", asked.trace, asked.id);
    assert_eq!(header(&head, "traceparent"), [parent]);
    // The same numbers everywhere.
    let session = handshake.get("wsproxy.session_id").parse::<u64>().unwrap();
    let logged = wait_for("the session's end in the log", || {
        proxy.all_logged("session ended").into_iter().find(|line| line["request"] == id)
    });
    assert_eq!(logged["session"], session);
    let line = wait_for("the session's line in the access log", || {
        let text = fs::read_to_string(&path).unwrap();
        let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line["request_id"] == id)
    });
    assert_eq!(line["session"], session);
    proxy.stop();
    assert!(collector.lines().iter().all(|line| line == "POST /v1/traces HTTP/1.1"));
}

#[test]
fn a_refusal_of_ours_is_an_error_with_its_reason() {
    let (server, collector) = (Server::start(), Collector::start());
    let origins = "origins = [\"https://good.example\"]\n";
    let deny = "deny = [\"127.0.0.1\"]\n";
    let good = request("Origin: https://evil.example\r\n");
    // Its head is refused before a route is looked for.
    let bad = good.replace("Sec-WebSocket-Key: ", "X: ");
    let cases = [
        (origins, &good, 403, "origin_refused", "talk"),
        (deny, &good, 403, "address_refused", "talk"),
        ("", &bad, 400, "key", ""),
    ];
    for (keys, text, code, reason, route) in cases {
        let proxy = exporting(&[server.address], &format!("{ROUTE}{keys}"), &collector.url);
        let (status, id) = refused(&proxy, text);
        assert_eq!(status, code);
        let (handshake, servers) = collector.handshake(has_id(&id));
        assert_eq!(servers, []);
        assert!(handshake.is_error && handshake.message.contains(' '), "{handshake:?}");
        assert_eq!(handshake.get("http.response.status_code"), code.to_string());
        assert_eq!(handshake.get("wsproxy.refusal_reason"), reason);
        assert_eq!(handshake.get("wsproxy.route"), route);
        assert_eq!(handshake.get("wsproxy.session_id"), "");
    }
    assert!(server.try_accept().is_none());
}

#[test]
fn each_server_that_was_asked_has_a_span() {
    let ((_first, one), (_second, two)) = (refusing(), refusing());
    let collector = Collector::start();
    let proxy = exporting(&[one, two], "", &collector.url);
    let (code, id) = refused(&proxy, &request(""));
    assert_eq!(code, 502);
    let (handshake, servers) = collector.handshake(has_id(&id));
    assert!(handshake.is_error);
    assert_eq!(handshake.get("wsproxy.refusal_reason"), "bad_gateway");
    assert_eq!(handshake.get("http.response.status_code"), "502");
    assert!(servers.iter().all(|s| s.is_error && s.message.contains("refused")), "{servers:?}");
    let mut asked: Vec<_> = servers.iter().map(|s| s.get("wsproxy.upstream")).collect();
    assert_eq!(handshake.get("wsproxy.upstream"), asked[asked.len() - 1]);
    asked.sort_unstable();
    let mut expected = [one.to_string(), two.to_string()];
    expected.sort_unstable();
    assert_eq!(asked, expected);
}

#[test]
fn an_answer_that_is_no_101_is_the_servers() {
    let (server, collector) = (Server::start(), Collector::start());
    let proxy = exporting(&[server.address], "", &collector.url);
    for (code, is_error) in [(401, false), (503, true)] {
        let mut client = proxy.connect();
        client.send(request("").as_bytes());
        let mut upstream = server.accept();
        upstream.head();
        let answer = format!("HTTP/1.1 {code} No\r\nContent-Length: 0\r\n\r\n");
        upstream.send(answer.as_bytes());
        let head = client.head();
        assert_eq!(status(&head), code);
        let (handshake, servers) = collector.handshake(has_id(header(&head, "X-Request-ID")[0]));
        for span in servers.iter().chain([&handshake]) {
            assert_eq!(span.get("http.response.status_code"), code.to_string());
            assert_eq!(span.is_error, is_error, "{span:?}");
        }
        assert_eq!(servers.len(), 1);
    }
}

#[test]
fn a_callers_trace_goes_on() {
    let (server, collector) = (Server::start(), Collector::start());
    let proxy = exporting(&[server.address], "", &collector.url);
    let head = |flags: &str| {
        let parent = format!("traceparent: 00-{TRACE}-{CALLER}-{flags}\r\n");
        let state = "tracestate: a=1\r\nTraceState: b=2, c=3\r\n";
        session(&proxy, &server, &format!("{parent}{state}"))
    };
    // One that its caller does not record is not recorded here, but goes on.
    let unrecorded = head("00");
    let parent = header(&unrecorded, "traceparent")[0];
    assert!(parent.starts_with(&format!("00-{TRACE}-")) && parent.ends_with("-00"), "{parent}");
    assert!(!parent.contains(CALLER), "{parent}");
    let recorded = head("01");
    let (handshake, servers) = collector.handshake(has_id(header(&recorded, "X-Request-ID")[0]));
    assert_eq!((handshake.trace.as_str(), handshake.parent.as_str()), (TRACE, CALLER));
    assert_eq!(handshake.trace_state, "a=1,b=2,c=3");
    assert_eq!(servers.len(), 1);
    let parent = format!("00-{TRACE}-{}-01", servers[0].id);
    assert_eq!(header(&recorded, "traceparent"), [parent]);
    assert_eq!(header(&recorded, "tracestate"), ["a=1,b=2,c=3"]);
    assert_eq!(collector.spans().len(), 2, "{:?}", collector.spans());
}

/// The trace that a server is told of, and its `tracestate`, where a client says these.
fn told(proxy: &Proxy, server: &Server, parents: &[&str], state: &str) -> (String, Vec<String>) {
    let mut lines = format!("tracestate: {state}\r\n");
    for parent in parents {
        lines.push_str(&format!("traceparent: {parent}\r\n"));
    }
    let head = session(proxy, server, &lines);
    let [ours] = header(&head, "traceparent")[..] else { panic!("not one: {head}") };
    let states = header(&head, "tracestate").into_iter().map(str::to_owned).collect();
    (ours[3..35].to_owned(), states)
}

#[test]
fn only_a_valid_parent_is_one() {
    let (server, collector) = (Server::start(), Collector::start());
    let proxy = exporting(&[server.address], "", &collector.url);
    let good = format!("00-{TRACE}-{CALLER}-01");
    // W3C Trace Context, section 3.2: higher versions may have more parts.
    let (next, more) = (good.replacen("00", "01", 1), good.replacen("00", "cc", 1) + "-what.else");
    for line in [&good, &next, &more] {
        let (trace, state) = told(&proxy, &server, &[line], "a=1");
        assert_eq!((trace.as_str(), state), (TRACE, vec!["a=1".to_owned()]), "{line:?}");
    }
    let (trace, state) = told(&proxy, &server, &[&good], "no list");
    assert_eq!((trace.as_str(), state), (TRACE, vec![]));
    let bad = [
        "",
        "00",
        &good.to_uppercase(),
        &good.replacen("00", "ff", 1),
        &good.replacen("00", "+0", 1),
        &format!("{good}-"),
        &format!("{good}0"),
        &format!("{next}0"),
        &good[..54],
        &good.replace(TRACE, &"0".repeat(32)),
        &good.replace(CALLER, &"0".repeat(16)),
        &good.replace(CALLER, "b7ad6b716920333g"),
        &good.replace("c80319c-b", "c80319-cb"),
        &good.replace("1-01", "\u{e9}-1"),
    ];
    let bad = bad.iter().map(|line| vec![*line]).chain([vec![good.as_str(); 2]]);
    for lines in bad {
        let (trace, state) = told(&proxy, &server, &lines, "a=1");
        // Whose tree it would be is not known, and whose state neither.
        assert!(trace.len() == 32 && trace != TRACE && trace != "0".repeat(32), "{lines:?}");
        assert_eq!(state, Vec::<String>::new(), "{lines:?}");
    }
}

#[test]
fn the_environment_says_who_and_how_much() {
    let (server, collector) = (Server::start(), Collector::start());
    let here = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", format!("{}/here", collector.url));
    let with = |more: &[(&str, &str)]| {
        let here = [(here.0, here.1.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "20")];
        start(&[server.address], "", &[&here, more].concat())
    };
    // What is left is sent at the end: there would be spans.
    for (name, value) in [("OTEL_TRACES_SAMPLER", "always_off"), ("OTEL_SDK_DISABLED", "true")] {
        let proxy = with(&[(name, value)]);
        session(&proxy, &server, "");
        proxy.stop();
        assert_eq!(collector.spans(), [], "{name}");
    }
    let proxy = with(&[("OTEL_SERVICE_NAME", "edge"), ("OTEL_BSP_SCHEDULE_DELAY", "600000")]);
    session(&proxy, &server, "");
    proxy.stop();
    let spans = collector.spans();
    assert_eq!(spans.len(), 2);
    assert!(spans.iter().all(|span| span.service == "edge"), "{spans:?}");
    assert_eq!(collector.lines(), ["POST /here HTTP/1.1"]);
}

#[test]
fn a_collector_behind_tls_must_be_who_it_says() {
    let (server, collector, dir) = (Server::start(), Collector::secure(), TempDir::new());
    let right = write_authority(&dir, "right.pem", authority());
    let wrong = write_authority(&dir, "wrong.pem", &Authority::new("somebody else"));
    let with = |ca: &Path| {
        let here = ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str());
        let ca = ("OTEL_EXPORTER_OTLP_CERTIFICATE", ca.to_str().unwrap());
        start(&[server.address], "", &[here, ca, ("OTEL_BSP_SCHEDULE_DELAY", "20")])
    };
    let proxy = with(&right);
    let head = session(&proxy, &server, "");
    collector.handshake(has_id(header(&head, "X-Request-ID")[0]));
    let proxy = with(&dir.join("none.pem"));
    assert!(proxy.logged("spans can't be exported").is_some());
    let proxy = with(&wrong);
    session(&proxy, &server, "");
    let line = wait_for("it says so", || proxy.logged(FAILING));
    assert!(line["error"].as_str().unwrap().contains("certificate"), "{line}");
}

#[test]
fn a_collector_that_is_down_costs_one_line() {
    let (_nobody, address) = refusing();
    let server = Server::start();
    let proxy = exporting(&[server.address], "", &format!("http://{address}"));
    session(&proxy, &server, "");
    wait_for("it says so", || proxy.logged(FAILING));
    for _ in 0..20 {
        session(&proxy, &server, "");
    }
    proxy.terminate();
    let mut proxy = proxy;
    assert!(proxy.wait().success());
    assert_eq!(proxy.all_logged(FAILING).len(), 1);
}

#[test]
fn a_collector_that_says_nothing_holds_nobody_up() {
    // Its backlog takes the connection, and nobody ever reads from it.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let collector = format!("http://{}", listener.local_addr().unwrap());
    let server = Server::start();
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.as_str()),
        // Longer than the test waits for the end.
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "120000"),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "4"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4"),
    ];
    let proxy = start(&[server.address], "", &variables);
    // Many more than wait in the queue.
    for _ in 0..20 {
        session(&proxy, &server, "");
    }
    proxy.stop();
}
