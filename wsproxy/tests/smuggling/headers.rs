//! Headers: what a client can't take away, can't say twice, and can't make lines of.

use super::{
    OK,
    record::{Seen, answers, exchange},
    round::{Round, WS},
    support::header,
};

/// Lines of a request, and what the server must see of some headers.
type Case = (&'static str, &'static [(&'static str, &'static [&'static str])]);

const CASES: &[Case] = &[
    ("Connection: Host|", &[("Host", &["strict.example"])]),
    ("Connection: close, host|", &[("Host", &["strict.example"])]),
    (
        "Connection: X-Real-IP, Cookie, Content-Length|X-Real-IP: 6.6.6.6|Cookie: a=b|",
        &[("X-Real-IP", &["127.0.0.1"]), ("Cookie", &["a=b"]), ("Connection", &[])],
    ),
    (
        "Connection: X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, Forwarded|",
        &[
            ("X-Forwarded-For", &["127.0.0.1"]),
            ("X-Forwarded-Proto", &["http"]),
            ("X-Forwarded-Host", &["strict.example"]),
            ("Forwarded", &["for=127.0.0.1;host=\"strict.example\";proto=http"]),
        ],
    ),
    (
        "Connection: Authorization, Origin|Authorization: Basic eA==|Origin: http://a|",
        &[("Authorization", &["Basic eA=="]), ("Origin", &["http://a"])],
    ),
    (
        "Connection: X-Gone|X-Gone: 1|x-gone: 2|X-Stays: 1|X-Stays: 2|",
        &[("X-Gone", &[]), ("X-Stays", &["1", "2"])],
    ),
    (
        "Keep-Alive: timeout=5|Proxy-Connection: keep-alive|TE: gzip|Proxy-Authorization: x|",
        &[
            ("Keep-Alive", &[]),
            ("Proxy-Connection", &[]),
            ("TE", &[]),
            ("Proxy-Authorization", &[]),
        ],
    ),
    (
        "X-Real-IP: 6.6.6.6|X-Forwarded-For: 6.6.6.6|x-forwarded-for: 7.7.7.7|Forwarded: for=6|",
        &[
            ("X-Real-IP", &["127.0.0.1"]),
            ("X-Forwarded-For", &["127.0.0.1"]),
            ("Forwarded", &["for=127.0.0.1;host=\"strict.example\";proto=http"]),
        ],
    ),
    // For a server that makes variables of headers (CGI, WSGI, PHP) these are the same names as
    // those that the gateway vouches for.
    (
        "X_Real_IP: 6.6.6.6|X-Real_IP: 6.6.6.6|X_Forwarded_For: 6.6.6.6|X_Forwarded-For: 6.6.6.6|\
         x_forwarded_proto: https|X-Forwarded_Host: evil|X_Request_ID: evil|",
        &[
            ("X_Real_IP", &[]),
            ("X-Real_IP", &[]),
            ("X_Forwarded_For", &[]),
            ("X_Forwarded-For", &[]),
            ("X_Forwarded_Proto", &[]),
            ("X-Forwarded_Host", &[]),
            ("X_Request_ID", &[]),
        ],
    ),
    // So are those that the configuration sets.
    ("X_Path: evil|x-PATH: evil|", &[("X_Path", &[])]),
    ("X_Other: 1|", &[("X_Other", &["1"])]),
    ("Expect: 100-continue|", &[]),
    // Tabs and bytes beyond ASCII are values as others.
    ("X-Odd: a\tb \u{e9}\"\\|", &[("X-Odd", &["a\tb \u{e9}\"\\"])]),
];

#[test]
fn nothing_said_of_headers_deceives_a_server() {
    let more = "[route.set_request_headers]\nX-Path = \"$path\"\n";
    let mut round = Round::new(more);
    for (lines, _) in CASES {
        round.case(0, &format!("GET /{{n}} HTTP/1.1|Host: {{h}}|{lines}|"), OK, &["GET /{n}"]);
        let (ws, lines) = match lines.strip_prefix("Connection: ") {
            Some(rest) => {
                (WS.replace("Connection: Upgrade|", ""), format!("Connection: Upgrade, {rest}"))
            }
            None => (WS.to_owned(), (*lines).to_owned()),
        };
        // Not every server knows what to do with 100-continue: neither handshake nor plain
        // request passes it on.
        round.case(0, &format!("{ws}{lines}|"), &[403], &["GET /{n}"]);
    }
    let seen = round.finish();
    assert_eq!(seen.len(), 2 * CASES.len());
    let number = |seen: &Seen| seen.target[1..].parse::<usize>().unwrap();
    for request in &seen {
        let (lines, wanted) = CASES[(number(request) - 1) / 2];
        assert_eq!(request.header("X-Path"), [&*request.target], "{lines}");
        for (name, values) in wanted {
            let is_upgrade = !request.header("Upgrade").is_empty();
            let values = if *name == "Connection" && is_upgrade { &["Upgrade"] } else { *values };
            assert_eq!(request.header(name), values, "{name} of {lines} in {request:?}");
        }
    }
}

#[test]
fn connection_cannot_take_a_body_from_its_length() {
    let mut round = Round::new("");
    for host in [0, 1] {
        for lines in [
            "Connection: Content-Length|Content-Length: 5||hello",
            "Connection: Transfer-Encoding|Transfer-Encoding: chunked||5|hello|0||",
            "Connection: Content-Length, Transfer-Encoding|Content-Length: 5||hello",
        ] {
            let (text, next) = (format!("{{post}}{lines}{{evil}}"), "GET /evil{n}");
            round.case(host, &text, &[200, 200], &["POST /{n}", next]);
        }
    }
    let bodies = round.finish().into_iter().filter(|seen| seen.method == "POST");
    assert!(bodies.map(|seen| seen.body).all(|body| body == b"hello"));
}

#[test]
fn variables_and_values_make_no_lines() {
    let more = "[route.set_request_headers]\nX-All = \"$path $query $cookie_c $header_x_b $host\"\n\
                [route.set_response_headers]\nX-Back = \"$request_uri $header_x_b\"\n\
                [[route]]\nhosts = [\"{host}\"]\npath = \"/go\"\n\
                redirect = \"http://$host$request_uri\"\n";
    let mut round = Round::new(more);
    let line = "GET /a%0d%0aEvil:%201?b%0D%0AEvil:+2";
    let lines = "Cookie: c=%0d%0aEvil: 3|X-B: \\r\\nEvil: 4%0a|";
    round.case(0, &format!("{line} HTTP/1.1|Host: {{h}}|{lines}|"), OK, &[line]);
    // Both paths of the gateway render them.
    let ws = WS.replacen("GET /{n}", line, 1);
    round.case(0, &format!("{ws}{lines}|"), &[403], &[line]);
    // What would be a line of its own never gets that far.
    for value in ["a\rEvil: 5", "a\nEvil: 5", "a\r\n\tEvil: 5", "a\0Evil: 5"] {
        round.case(0, &format!("{{get}}X-B: {value}||"), &[400], &[]);
        round.case(0, &format!("{WS}X-B: {value}||"), &[400], &[]);
    }
    let address = round.address();
    for upgrade in ["", "Upgrade: websocket\r\nConnection: Upgrade\r\n"] {
        let text = format!(
            "GET /go/%0d%0aEvil:%201?x=%0aEvil HTTP/1.1\r\nHost: strict.example\r\n{upgrade}\
             Sec-WebSocket-Key: {}\r\nSec-WebSocket-Version: 13\r\n\r\n",
            super::support::KEY
        );
        let got = exchange(address, text.as_bytes());
        assert_eq!(answers(&got).0.len(), 1);
        let head = String::from_utf8(got).unwrap();
        let place = "http://strict.example/go/%0d%0aEvil:%201?x=%0aEvil";
        assert_eq!(header(&head, "Location"), [place], "{head}");
        assert_eq!(header(&head, "Evil"), [""; 0], "{head}");
    }
    let text = format!("{line} HTTP/1.1|Host: strict.example|X-B: %0d%0aEvil: 6||");
    let got = exchange(address, text.replace('|', "\r\n").as_bytes());
    let head = String::from_utf8(got).unwrap();
    let back = "/a%0d%0aEvil:%201?b%0D%0AEvil:+2 %0d%0aEvil: 6";
    assert_eq!(header(&head, "X-Back"), [back], "{head}");
    assert_eq!(header(&head, "Evil"), [""; 0], "{head}");
    round.expect(0, line);
    let all = "/a%0d%0aEvil:%201 b%0D%0AEvil:+2 %0d%0aEvil: 3 \\r\\nEvil: 4%0a strict.example";
    let seen = round.finish();
    assert_eq!(seen.iter().filter(|seen| seen.header("X-All") == [all]).count(), 2);
    assert!(seen.iter().all(|seen| seen.header("Evil").is_empty()), "{seen:?}");
}
