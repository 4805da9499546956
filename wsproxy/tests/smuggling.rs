//! Requests and answers that two programs may read in two ways, through the real program in front
//! of servers that write down every byte: nobody behind it gets a request that it does not know
//! of, and nobody before it an answer that was not meant for him.
#![cfg(target_os = "linux")]

#[path = "smuggling/answers.rs"]
mod answers;
#[path = "smuggling/headers.rs"]
mod headers;
#[path = "smuggling/record.rs"]
mod record;
#[path = "smuggling/round.rs"]
mod round;
mod support;

use record::Seen;
use round::{BROKEN, HOSTS, Round, WS};

const BAD: &[u16] = &[400];
const OK: &[u16] = &[200];
const NONE: &[&str] = &[];
const ONE: &[&str] = &["POST /{n}"];
const TWO: &[&str] = &["POST /{n}", "GET /evil{n}"];

/// All cases of a table, for both servers.
fn check(more: &str, cases: &[(&str, &[u16], &[&str])]) -> Vec<Seen> {
    let mut round = Round::new(more);
    for (text, statuses, lines) in cases {
        for host in 0..HOSTS.len() {
            round.case(host, text, statuses, lines);
        }
    }
    round.finish()
}

#[test]
fn lengths_have_one_reading_or_none() {
    // Two lengths, in both orders and all spellings; behind them what one of the readings makes
    // a request of its own.
    let mut cases: Vec<(String, &[u16], &[&str])> = Vec::new();
    for coding in [
        "Transfer-Encoding: chunked",
        "transfer-encoding:chunked",
        "TRANSFER-ENCODING: CHUNKED",
        "Transfer-Encoding:\tchunked",
        "Transfer-Encoding: chunked\t",
    ] {
        cases.push((format!("{{post}}{coding}||5|hello|0||"), OK, ONE));
        cases.push((format!("{{post}}{coding}||5|hello|0||{{evil}}"), &[200, 200], TWO));
        cases.push((format!("{{post}}{coding}|Content-Length: 5||0||{{evil}}"), BAD, NONE));
        cases.push((format!("{{post}}Content-Length: 5|{coding}||0||{{evil}}"), BAD, NONE));
        let old = "POST /{n} HTTP/1.0|Host: {h}|";
        cases.push((format!("{old}{coding}||0||{{evil}}"), BAD, NONE));
    }
    for coding in [
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunkedx",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding:",
        "Transfer-Encoding: \u{b}chunked",
        "Transfer-Encoding: chunked\u{c}",
        "Transfer-Encoding: chunked\0",
        "Transfer-Encoding: \u{a0}chunked",
        "Transfer-Encoding: chunked|Transfer-Encoding: chunked",
        "Transfer-Encoding: chunked|Transfer-Encoding: identity",
        "Transfer-Encoding: identity|transfer-encoding: chunked",
        "Transfer-Encoding:| chunked",
        "Transfer-Encoding:|\tchunked",
        "Transfer-Encoding: chunked| , identity",
        "X: y| Transfer-Encoding: chunked",
        " Transfer-Encoding: chunked",
        "X: y\nTransfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "\rTransfer-Encoding: chunked",
        "Transfer-Encoding\0: chunked",
        "\u{b}Transfer-Encoding: chunked",
        "Transfer Encoding: chunked",
        "Transfer-Encoding\u{a0}: chunked",
    ] {
        for other in ["", "Content-Length: 5|"] {
            cases.push((format!("{{post}}{coding}|{other}|0||{{evil}}"), BAD, NONE));
            cases.push((format!("{{post}}{other}{coding}||0||{{evil}}"), BAD, NONE));
        }
    }
    for length in [
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5, 5",
        "Content-Length: 5,6",
        "Content-Length: 5,",
        "Content-Length: 5 5",
        "Content-Length: 5.0",
        "Content-Length: 5e0",
        "Content-Length: five",
        "Content-Length:",
        "Content-Length: \u{664}",
        "Content-Length: 5\u{b}",
        "Content-Length: 99999999999999999999",
        "Content-Length: 18446744073709551621",
        "Content-Length: 5|Content-Length: 5",
        "Content-Length: 5|Content-Length: 0",
        "Content-Length: 0|content-length: 5",
        "Content-Length : 5",
        "Content-Length:| 5",
        "Content-Length: 5| 0",
    ] {
        cases.push((format!("{{post}}{length}||hello{{evil}}"), BAD, NONE));
        cases.push((format!("{{get}}{length}||hello{{evil}}"), BAD, NONE));
    }
    for (text, statuses, lines) in [
        ("{post}Content-Length: 5||hello", OK, ONE),
        ("{post}Content-Length:\t5 ||hello{evil}", &[200, 200], TWO),
        ("{post}Content-Length: 005||hello{evil}", &[200, 200], TWO),
        // The body ends where the head says so, whatever it looks like.
        ("{post}Content-Length: 0||{evil}", &[200, 200], TWO),
        ("{post}|{evil}", &[200, 200], TWO),
        ("{post}Content-Length: 51||GET /evil HTTP/1.1|Host: strict.example|X: yz||", OK, ONE),
        // Not a coding: an upstream that reads it as one has the body's length all the same.
        ("{post}Transfer_Encoding: chunked|Content-Length: 5||0||{evil}", &[200, 200], TWO),
        ("{post}Content-Length: 18446744073709551615||hello", &[431], NONE),
        ("{post}Content-Length: 1048577||hello", &[413], NONE),
    ] {
        cases.push((text.to_owned(), statuses, lines));
    }
    let cases: Vec<_> = cases.iter().map(|(text, s, l)| (text.as_str(), *s, *l)).collect();
    check("", &cases);
}

#[test]
fn chunks_have_one_reading_or_none() {
    let mut cases: Vec<(String, &[u16], &[&str])> = Vec::new();
    for (chunks, statuses, lines) in [
        ("5;a=b|hello|0||", OK, ONE),
        ("5;a=\"b c\"|hello|0;x||{evil}", &[200, 200], TWO),
        ("5 |hello|0||", OK, ONE),
        ("0005|hello|000||{evil}", &[200, 200], TWO),
        ("A|helloworld|0||", OK, ONE),
        // Trailers that would be believed as headers are not passed on.
        ("5|hello|0|Content-Length: 50|Host: evil|Transfer-Encoding: x||", OK, ONE),
        ("5|hello|0|Authorization: x|Content-Length: 5||{evil}", &[200, 200], TWO),
        ("0x5|hello|0||{evil}", BROKEN, NONE),
        ("-5|hello|0||{evil}", BROKEN, NONE),
        ("+5|hello|0||{evil}", BROKEN, NONE),
        (" 5|hello|0||{evil}", BROKEN, NONE),
        ("|5|hello|0||{evil}", BROKEN, NONE),
        ("g|hello|0||{evil}", BROKEN, NONE),
        ("5 5|hello|0||{evil}", BROKEN, NONE),
        (";a=b|hello|0||{evil}", BROKEN, NONE),
        ("5\u{b}|hello|0||{evil}", BROKEN, NONE),
        ("5_0|hello|0||{evil}", BROKEN, NONE),
        ("10000000000000005|hello|0||{evil}", BROKEN, NONE),
        ("fffffffffffffffff|hello|0||{evil}", BROKEN, NONE),
        ("fffffffffffffffe|hello|0||{evil}", BROKEN, NONE),
        ("5|helloX|0||{evil}", BROKEN, NONE),
        ("5|hello0||{evil}", BROKEN, NONE),
        ("5|hello\n0||{evil}", BROKEN, NONE),
        ("5|hell|0||{evil}", BROKEN, NONE),
        ("5\nhello|0||{evil}", BROKEN, NONE),
        ("5\rhello|0||{evil}", BROKEN, NONE),
        ("5;a=\n|hello|0||{evil}", BROKEN, NONE),
        ("5;a=\0|hello|0||{evil}", BROKEN, NONE),
        ("5|hello|0\n\n{evil}", BROKEN, NONE),
        ("5|hello|0|\n{evil}", BROKEN, NONE),
        ("5|hello|0|X: y\n|{evil}", BROKEN, NONE),
        ("5|hello|0|X: y\0||{evil}", BROKEN, NONE),
        ("5|hello|0|{evil}", BROKEN, NONE),
        ("5|hello|0", BROKEN, NONE),
        ("5|hel", BROKEN, NONE),
    ] {
        cases.push((format!("{{post}}Transfer-Encoding: chunked||{chunks}"), statuses, lines));
    }
    // Announced trailers are passed on, if no server would mind what they say.
    let text = "{post}Transfer-Encoding: chunked|Trailer: Content-Length, Host, X-Sum||\
                5|hello|0|Content-Length: 50|Host: evil|X-Sum: 1||{evil}";
    cases.push((text.to_owned(), &[200, 200], TWO));
    // No method loses its body.
    let text = "{get}Transfer-Encoding: chunked||5|hello|0||";
    cases.push((text.to_owned(), OK, &["GET /{n}"]));
    let text = "{get}Content-Length: 5||hello";
    cases.push((text.to_owned(), OK, &["GET /{n}"]));
    let cases: Vec<_> = cases.iter().map(|(text, s, l)| (text.as_str(), *s, *l)).collect();
    for seen in check("", &cases) {
        let body = String::from_utf8_lossy(&seen.body);
        let wanted = if seen.target.starts_with("/evil") { "" } else { "hello" };
        assert!(body == wanted || body == "helloworld", "{seen:?}");
        // Nothing that only trailers said is among the headers.
        let evil = |(_, value): &(String, String)| matches!(&**value, "evil" | "50" | "x");
        assert!(!seen.headers.iter().any(evil), "{seen:?}");
    }
}

#[test]
fn heads_have_one_reading_or_none() {
    const OLD: &[u16] = &[505];
    let one: &[&str] = &["GET /{n}"];
    let two: &[&str] = &["GET /{n}", "GET /evil{n}"];
    check(
        "",
        &[
            ("{get}|", OK, one),
            ("{get}|{evil}", &[200, 200], two),
            ("|{get}|{evil}", &[200, 200], two),
            ("{get}||{evil}", &[200, 200], two),
            ("{get}|||{evil}", &[200, 400], one),
            ("||{get}|", BAD, NONE),
            ("\n{get}|", BAD, NONE),
            ("\r{get}|", BAD, NONE),
            (" {get}|", BAD, NONE),
            ("\t|{get}|", BAD, NONE),
            ("\0{get}|", BAD, NONE),
            ("GET /{n} HTTP/1.1\nHost: {h}\n\n", BAD, NONE),
            ("GET /{n} HTTP/1.1|Host: {h}\n\n{evil}", BAD, NONE),
            ("{get}X: y\n\n{evil}", BAD, NONE),
            ("{get}X: y\r\r{evil}", BAD, NONE),
            ("{get}X: y\rZ: y||{evil}", BAD, NONE),
            ("{get}\n{evil}", BAD, NONE),
            ("{get}\r{evil}", BAD, NONE),
            ("{get}X: a\0b||{evil}", BAD, NONE),
            ("{get}X\0: b||{evil}", BAD, NONE),
            ("{get}X: \u{7f}||{evil}", BAD, NONE),
            ("{get}X : y||{evil}", BAD, NONE),
            ("{get}X\t: y||{evil}", BAD, NONE),
            ("{get}: y||{evil}", BAD, NONE),
            ("{get}X||{evil}", BAD, NONE),
            ("{get} X: y||{evil}", BAD, NONE),
            ("{get}X: y| z||{evil}", BAD, NONE),
            ("{get}X(y): z||{evil}", BAD, NONE),
            ("{get}\u{e9}: z||{evil}", BAD, NONE),
            ("GET /{n} HTTP/1.1| Host: {h}||", BAD, NONE),
            ("GET /{n} HTTP/1.1| X: y|Host: {h}||", BAD, NONE),
            ("GET  /{n} HTTP/1.1|Host: {h}||", BAD, NONE),
            ("GET\t/{n} HTTP/1.1|Host: {h}||", BAD, NONE),
            ("GET /{n}  HTTP/1.1|Host: {h}||", BAD, NONE),
            ("GET /{n} HTTP/1.1 |Host: {h}||", BAD, NONE),
            ("GET /{n} /x HTTP/1.1|Host: {h}||", BAD, NONE),
            ("GET /{n}\u{b}HTTP/1.1|Host: {h}||", BAD, NONE),
            ("GET /\0{n} HTTP/1.1|Host: {h}||", BAD, NONE),
            ("GET /{n}\u{e9} HTTP/1.1|Host: {h}||", BAD, NONE),
            ("GE(T /{n} HTTP/1.1|Host: {h}||", BAD, NONE),
            ("GET /{n}|Host: {h}||", BAD, NONE),
            ("GET /{n}|", BAD, NONE),
            ("GET /{n} http/1.1|Host: {h}||", BAD, NONE),
            ("GET /{n} HTTP/01.1|Host: {h}||", BAD, NONE),
            ("GET /{n} HTTP/1.1.1|Host: {h}||", BAD, NONE),
            ("GET /{n} HTTP/1.2|Host: {h}||{evil}", OLD, NONE),
            ("GET /{n} HTTP/2.0|Host: {h}||{evil}", OLD, NONE),
            ("GET /{n} HTTP/0.9|Host: {h}||{evil}", OLD, NONE),
            ("PRI * HTTP/2.0||SM||", OLD, NONE),
            ("GET /{n} HTTP/1.1||{evil}", BAD, NONE),
            ("CONNECT {h}:80 HTTP/1.1|Host: {h}:80||{evil}", &[405], NONE),
            ("TRACE /{n} HTTP/1.1|Host: {h}||{evil}", &[405], NONE),
            ("{get}Connection: a b||{evil}", BAD, NONE),
            ("{get}Connection: close||{evil}", OK, one),
            // HTTP/1.0 ends with its first answer.
            ("GET /{n} HTTP/1.0|Host: {h}||{evil}", OK, one),
        ],
    );
}

#[test]
fn handshakes_that_open_no_tunnel_carry_nothing() {
    // Both servers refuse every handshake: what the client sends behind one was meant for a
    // tunnel, and must become nothing.
    const NO: &[u16] = &[403];
    let one: &[&str] = &["GET /{n}"];
    let both: &[&str] = &["GET /{n}", "GET /{n}"];
    check(
        "",
        &[
            ("{ws}|", NO, one),
            ("{ws}|{evil}", NO, one),
            ("{ws}|\u{1}\u{5}hello{evil}{ws}|", NO, one),
            ("{ws}|\r\n{evil}", NO, one),
            ("{ws}Content-Length: 0||{evil}", NO, one),
            ("{ws}Upgrade: h2c||{evil}", NO, one),
            ("{ws}Connection: close||{evil}", NO, one),
            ("{ws}Content-Length: 5||hello{evil}", BAD, NONE),
            ("{ws}Content-Length: 0|Content-Length: 0||{evil}", BAD, NONE),
            ("{ws}Content-Length: +0||{evil}", BAD, NONE),
            ("{ws}Transfer-Encoding: chunked||0||{evil}", BAD, NONE),
            ("{ws}Transfer-Encoding: identity||{evil}", BAD, NONE),
            ("{ws}Content-Length: 3|Transfer-Encoding: chunked||0||{evil}", BAD, NONE),
            ("{ws}Host: other||{evil}", BAD, NONE),
            ("{ws}Sec-WebSocket-Key: {key}||{evil}", BAD, NONE),
            ("{ws}Sec-WebSocket-Version: 8||{evil}", BAD, NONE),
            ("{post}Upgrade: websocket|Connection: Upgrade||{evil}", &[405], NONE),
            ("{get}Upgrade: websocket||{evil}", BAD, NONE),
            ("{get}Upgrade: websocket|Connection: close||{evil}", BAD, NONE),
            (
                "GET /{n} HTTP/1.0|Host: {h}|Upgrade: websocket|Connection: Upgrade||{evil}",
                &[505],
                NONE,
            ),
            // Another protocol is not upgraded to, so that the rest is a request again.
            (
                "{get}Upgrade: h2c|Connection: Upgrade, HTTP2-Settings|HTTP2-Settings: x||{evil}",
                &[200, 200],
                &["GET /{n}", "GET /evil{n}"],
            ),
            ("{get}Upgrade: websocket/13|Connection: Upgrade||", OK, one),
            ("{get}|{ws}|{evil}", &[200, 403], both),
            ("{post}Content-Length: 5||hello{ws}|{evil}", &[200, 403], &["POST /{n}", "GET /{n}"]),
            ("{post}Content-Length: 5||hell{ws}|{evil}", &[200, 405], ONE),
        ],
    );
}

#[test]
fn no_spelling_of_a_target_or_a_host_slips_past_a_route() {
    let more = "[[route]]\nhosts = [\"{host}\"]\npath = \"/admin\"\nupstream = \"{host}\"\n\
                deny = [\"127.0.0.0/8\"]\n";
    let (no, denied, unknown) = (BAD, &[403_u16][..], &[404_u16][..]);
    let mut round = Round::new(more);
    for (target, statuses, seen) in [
        ("/admin", denied, None),
        ("/admin/", denied, None),
        ("/admin/x", denied, None),
        ("//admin", denied, None),
        ("///admin//x", denied, None),
        ("/%61dmin", denied, None),
        ("/%61%64%6d%69%6E", denied, None),
        ("/admin%2fx", denied, None),
        ("/%2fadmin", denied, None),
        ("/%2F/%2fadmin", denied, None),
        ("http://{h}/admin", denied, None),
        ("http://{h}//%61dmin", denied, None),
        ("/./admin", no, None),
        ("/x/../admin", no, None),
        ("/x/..", no, None),
        ("/..", no, None),
        ("/.", no, None),
        ("/%2e/admin", no, None),
        ("/x/%2e%2e/admin", no, None),
        ("/x/%2E./admin", no, None),
        ("/x/.%2e/admin", no, None),
        ("/x%2f..%2fadmin", no, None),
        ("/x%2f%2e%2e%2fadmin", no, None),
        ("/x\\..\\admin", no, None),
        ("/x/..\\admin", no, None),
        ("/x/..%5cadmin", no, None),
        ("/x%5c..%5Cadmin", no, None),
        // What servers take away, or take for a slash, before they look.
        ("/x/..;/admin", no, None),
        ("/x/..;a=b/admin", no, None),
        ("/x/..;a=b;c/admin", no, None),
        ("/x/.;/../admin", no, None),
        ("/.;/admin", no, None),
        ("/x/..;", no, None),
        ("/x/%2e%2e;/admin", no, None),
        ("/x/.%2E;a/admin", no, None),
        ("/x/..%3b/admin", no, None),
        ("/x/%2e%2e%3B%2fadmin", no, None),
        ("http://{h}/x/..;/admin", no, None),
        ("/\\admin", no, None),
        ("/x/\\..\\admin", no, None),
        ("/x/\\admin", no, None),
        ("/x\\", no, None),
        ("/%5cadmin", no, None),
        ("/%5Cadmin", no, None),
        ("http://{h}/\\admin", no, None),
        ("http://{h}/x/../admin", no, None),
        ("/x#/../admin", no, None),
        ("http://evil.example/x", no, None),
        ("http://{h}.evil.example/x", no, None),
        ("http://{h}:80/x", no, None),
        ("http://u@{h}/x", no, None),
        ("http://{h}@evil.example/x", no, None),
        ("http://{h}\\@evil.example/x", no, None),
        ("https://{h}/x", no, None),
        ("ftp://{h}/x", no, None),
        ("http:/x", no, None),
        ("http:///x", no, None),
        ("{h}:80", no, None),
        ("{h}", no, None),
        ("*", no, None),
        ("x/y", no, None),
        ("?x", no, None),
        ("\\admin", no, None),
        ("http://{h}/x?{n}", OK, Some("/x?{n}")),
        ("HTTP://{h}/x?{n}", OK, Some("/x?{n}")),
        ("http://{h}?{n}", OK, Some("/?{n}")),
        ("//evil.example/x?{n}", OK, Some("//evil.example/x?{n}")),
        ("/x?{n}/../admin", OK, Some("/x?{n}/../admin")),
        ("/.x/..y/%2e%2e%2ez?{n}", OK, Some("/.x/..y/%2e%2e%2ez?{n}")),
        ("/x;..;/..y;/;/;.?{n}", OK, Some("/x;..;/..y;/;/;.?{n}")),
        ("/x?{n}\\..\\..;/%5c", OK, Some("/x?{n}\\..\\..;/%5c")),
        ("/x%255cadmin?{n}", OK, Some("/x%255cadmin?{n}")),
        ("/adminx?{n}", OK, Some("/adminx?{n}")),
        // Decoded once, as servers do: this is a file of an odd name.
        ("/%2561dmin?{n}", OK, Some("/%2561dmin?{n}")),
    ] {
        let text = format!("GET {target} HTTP/1.1|Host: {{h}}||");
        let line = seen.map(|seen| format!("GET {seen}"));
        let line = line.as_deref();
        let lines = line.as_slice();
        for host in 0..HOSTS.len() {
            round.case(host, &text, statuses, lines);
            // The same to a handshake, which every server here refuses.
            let text = WS.replacen("/{n}", target, 1) + "|";
            let statuses = if seen.is_some() { denied } else { statuses };
            round.case(host, &text, statuses, lines);
        }
    }
    for (hosts, statuses) in [
        ("{h}:81", OK),
        ("{h}:", OK),
        ("{h}.", OK),
        ("", no),
        ("u@{h}", no),
        ("u:p@{h}", no),
        ("{h}@evil.example", no),
        ("{h}:99999", no),
        ("{h}:8x", no),
        ("{h}:-1", no),
        ("{h}:80:80", no),
        ("{h} evil.example", no),
        ("evil.example, {h}", no),
        ("{h},evil.example", no),
        ("{h}|Host: {h}", no),
        ("{h}|host: evil.example", no),
        ("evil.example|X: y|HOST: {h}", no),
        ("{h}/x", no),
        ("{h}\\x", no),
        ("{h}#x", no),
        ("{h}?x", no),
        ("{h}\"", no),
        ("[::1", no),
        ("::1", no),
        ("{h}%", no),
        ("\u{e9}{h}", no),
        ("{h}%00", unknown),
        ("evil.example", unknown),
        ("x.{h}", unknown),
    ] {
        let line: &[&str] = if statuses == OK { &["GET /{n}"] } else { NONE };
        for host in 0..HOSTS.len() {
            let text = format!("GET /{{n}} HTTP/1.1|Host: {hosts}||");
            round.case(host, &text, statuses, line);
            let text = format!("OPTIONS * HTTP/1.1|Host: {hosts}||");
            // `*` is no path, so that no route takes it.
            let statuses = if statuses == OK { unknown } else { statuses };
            round.case(host, &text, statuses, NONE);
        }
    }
    round.finish();
}
