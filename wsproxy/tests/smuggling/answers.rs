//! Answers of servers: what two clients could read in two ways reaches neither, and what was
//! never asked for is given to nobody.

use super::{
    record::{Reading, Recorder, Reply, Seen, all, answers, exchange},
    support::{ACCEPT, KEY, Peer, Proxy, Server, status},
};

/// What the client must get.
#[derive(Clone, Copy)]
enum Wanted {
    /// A whole answer with this body.
    Whole(u16, &'static str),
    /// A beginning, or nothing: what the client has is not complete.
    Cut,
    /// Our own word about it.
    Refused,
}

use Wanted::{Cut, Refused, Whole};

/// As in tables of requests: `|` is CR LF. Behind `!` the server closes.
const PLAIN: &[(&str, Wanted)] = &[
    ("HTTP/1.1 200 OK|Content-Length: 2||ok", Whole(200, "ok")),
    ("HTTP/1.1 200 OK|Transfer-Encoding: chunked||2|ok|0||", Whole(200, "ok")),
    ("HTTP/1.1 200 OK||ok!", Whole(200, "ok")),
    ("HTTP/1.0 200 OK|Content-Length: 2||ok!", Whole(200, "ok")),
    ("HTTP/1.1 103 Early|Link: x||HTTP/1.1 200 OK|Content-Length: 2||ok", Whole(200, "ok")),
    // Two lengths.
    ("HTTP/1.1 200 OK|Content-Length: 2|Transfer-Encoding: chunked||2|ok|0||", Refused),
    ("HTTP/1.1 200 OK|Transfer-Encoding: chunked|Content-Length: 2||2|ok|0||", Refused),
    ("HTTP/1.1 200 OK|Content-Length: 50|Transfer-Encoding: chunked||2|ok|0||", Refused),
    ("HTTP/1.1 200 OK|Content-Length: 2|Content-Length: 40||ok", Refused),
    ("HTTP/1.1 200 OK|Content-Length: 40|Content-Length: 2||ok", Refused),
    ("HTTP/1.1 200 OK|Content-Length: 2, 40||ok", Refused),
    // Equal ones are one (RFC 9110 section 8.6).
    ("HTTP/1.1 200 OK|Content-Length: 2|Content-Length: 2||ok", Whole(200, "ok")),
    ("HTTP/1.1 200 OK|Content-Length: +2||ok", Refused),
    ("HTTP/1.1 200 OK|Content-Length: 0x2||ok", Refused),
    ("HTTP/1.1 200 OK|Content-Length: -2||ok", Refused),
    ("HTTP/1.1 200 OK|Content-Length: 99999999999999999999||ok", Refused),
    ("HTTP/1.0 200 OK|Transfer-Encoding: chunked||2|ok|0||!", Refused),
    ("HTTP/1.1 200 OK|Transfer-Encoding: gzip||ok!", Refused),
    ("HTTP/1.1 200 OK|Transfer-Encoding: chunked, identity||2|ok|0||!", Refused),
    ("HTTP/1.1 200 OK|Transfer-Encoding: xchunked||2|ok|0||!", Refused),
    ("HTTP/1.1 200 OK|Transfer-Encoding: gzip, chunked||2|ok|0||!", Refused),
    // Heads that are none.
    ("HTTP/1.1 200 OK|Content-Length : 2||ok", Refused),
    ("HTTP/1.1 200 OK|X: y| Content-Length: 2||ok", Refused),
    ("HTTP/1.1 200 OK|X: \0|Content-Length: 2||ok", Refused),
    ("HTTP/1.1 200 OK|: y|Content-Length: 2||ok", Refused),
    ("HTTP/2.0 200 OK|Content-Length: 2||ok", Refused),
    ("ICY 200 OK|Content-Length: 2||ok", Refused),
    ("ok", Refused),
    ("!", Refused),
    // The library takes a bare LF for a line end; what the client gets is written anew.
    ("HTTP/1.1 200 OK\nContent-Length: 2\n\nok", Whole(200, "ok")),
    // Nobody asked for that; what follows it is no answer either.
    (
        "HTTP/1.1 101 Switching Protocols|Upgrade: websocket|Connection: Upgrade||\
         HTTP/1.1 200 OK|Content-Length: 4||evil",
        Refused,
    ),
    // Bytes behind an answer: the start of another one, perhaps for somebody else.
    (
        "HTTP/1.1 200 OK|Content-Length: 2||okHTTP/1.1 200 OK|Content-Length: 4||evil",
        Whole(200, "ok"),
    ),
    (
        "HTTP/1.1 200 OK|Transfer-Encoding: chunked||2|ok|0||HTTP/1.1 200 OK|Content-Length: 4||evil",
        Whole(200, "ok"),
    ),
    ("HTTP/1.1 204 No Content||HTTP/1.1 200 OK|Content-Length: 4||evil", Whole(204, "")),
    (
        "HTTP/1.1 304 Not Modified|Content-Length: 44||HTTP/1.1 200 OK|Content-Length: 4||evil",
        Whole(304, ""),
    ),
    ("HTTP/1.1 200 OK|Content-Length: 0||HTTP/1.1 200 OK|Content-Length: 4||evil", Whole(200, "")),
    ("HTTP/1.1 200 OK|Content-Length: 2||ok|evil", Whole(200, "ok")),
    // The end comes too soon: the client must not take it for the end of the answer.
    ("HTTP/1.1 200 OK|Content-Length: 40||ok!", Cut),
    ("HTTP/1.1 200 OK|Transfer-Encoding: chunked||2|ok|!", Cut),
    ("HTTP/1.1 200 OK|Transfer-Encoding: chunked||2|ok|0|!", Cut),
    ("HTTP/1.1 200 OK|Transfer-Encoding: chunked||2|o!", Cut),
    ("HTTP/1.1 200 OK|Transfer-Encoding: chunked||zz|ok|0||!", Cut),
    ("HTTP/1.1 200 OK|Transfer-Encoding: chunked||0x2|ok|0||!", Cut),
    ("HTTP/1.1 200 OK|Transfer-Encoding: chunked||2|okX|0||!", Cut),
    ("HTTP/1.1 200 OK|Transfer-Encoding: chunked||10000000000000002|ok|0||!", Cut),
];

/// Answers to handshakes.
const SWITCHING: &[(&str, Wanted)] = &[
    ("HTTP/1.1 403 No|Content-Length: 2||ok", Whole(403, "ok")),
    (
        "HTTP/1.1 403 No|Content-Length: 2||okHTTP/1.1 200 OK|Content-Length: 4||evil",
        Whole(403, "ok"),
    ),
    ("HTTP/1.1 403 No|Content-Length: 2|Transfer-Encoding: chunked||2|ok|0||", Refused),
    ("HTTP/1.1 403 No|Content-Length: 2|Content-Length: 40||ok", Refused),
    ("HTTP/1.0 403 No|Transfer-Encoding: chunked||2|ok|0||!", Refused),
    ("HTTP/1.1 403 No|Transfer-Encoding: gzip||ok!", Refused),
    ("HTTP/1.1 403 No|Content-Length: 40||ok!", Cut),
    ("HTTP/1.1 403 No|Transfer-Encoding: chunked||2|ok|!", Cut),
    ("HTTP/1.1 403 No|Transfer-Encoding: chunked||zz|ok|0||!", Cut),
    ("HTTP/1.1 403 No\nContent-Length: 2\n\nok", Refused),
    // A tunnel that the client did not ask for.
    (
        "HTTP/1.1 101 S|Upgrade: websocket|Connection: Upgrade|Sec-WebSocket-Accept: AAAA||evil",
        Refused,
    ),
    ("HTTP/1.1 101 S|Upgrade: websocket|Connection: Upgrade||evil", Refused),
    ("HTTP/1.1 101 S|Upgrade: h2c|Connection: Upgrade|Sec-WebSocket-Accept: {accept}||", Refused),
    ("HTTP/1.1 101 S|Upgrade: websocket|Sec-WebSocket-Accept: {accept}||evil", Refused),
    (
        "HTTP/1.0 101 S|Upgrade: websocket|Connection: Upgrade|Sec-WebSocket-Accept: {accept}||",
        Refused,
    ),
    (
        "HTTP/1.1 101 S|Upgrade: websocket|Connection: Upgrade|Sec-WebSocket-Accept: {accept}|\
         Content-Length: 4||evil",
        Refused,
    ),
    (
        "HTTP/1.1 101 S|Upgrade: websocket|Connection: Upgrade|Sec-WebSocket-Accept: {accept}|\
         Sec-WebSocket-Accept: {accept}||",
        Refused,
    ),
];

/// The bytes of an answer of the tables, and whether the server closes behind them.
fn scripted(text: &str) -> Reply {
    let close = text.ends_with('!');
    let text = text.trim_end_matches('!').replace('|', "\r\n").replace("{accept}", ACCEPT);
    Reply { bytes: text.into_bytes(), close }
}

/// Says of `/N` what stands in the table, and of all else which request it was.
fn server(table: &'static [(&str, Wanted)]) -> Recorder {
    Recorder::start(Reading::Strict, move |seen: &Seen| {
        let number = seen.target.strip_prefix('/').and_then(|n| n.parse::<usize>().ok());
        match number {
            Some(number) => scripted(table[number].0),
            None => {
                let body = seen.line();
                let head = format!("HTTP/1.1 200 OK|Content-Length: {}||", body.len());
                Reply { bytes: [head.replace('|', "\r\n"), body].concat().into(), close: false }
            }
        }
    })
}

fn check(table: &'static [(&str, Wanted)], upgrade: &str) {
    let server = server(table);
    // A server of nonsense is asked again all the same.
    let more = "[timeouts]\nupstream_answer = \"500ms\"";
    let proxy = Proxy::relay(&[server.address], more);
    let mut wrong = Vec::new();
    for (number, (text, wanted)) in table.iter().enumerate() {
        let request = |target: &str, upgrade: &str| {
            format!("GET {target} HTTP/1.1\r\nHost: example\r\n{upgrade}\r\n")
        };
        let target = format!("/{number}");
        let got = exchange(proxy.address, request(&target, upgrade).as_bytes());
        let (whole, cut) = answers(&got);
        let good = match wanted {
            Whole(status, body) => whole == [(*status, (*body).to_owned())] && cut.is_none(),
            Cut => whole.iter().all(|(status, _)| *status == 502) && whole.len() < 2,
            Refused => {
                matches!(&whole[..], [(502 | 504, body)] if !body.contains("evil")) && cut.is_none()
            }
        };
        if !good {
            wrong.push(format!("{text:?}: {:?}", got.escape_ascii().to_string()));
        }
        // Those who come next, on whichever connection, get their own answers.
        for next in ["/next", "/and-next"] {
            let two = [request(next, ""), request("/last", "")].concat();
            let whole = answers(&exchange(proxy.address, two.as_bytes())).0;
            let own = [next, "/last"].map(|target| (200, format!("GET {target}")));
            if whole != own {
                wrong.push(format!("behind {text:?}: {whole:?}"));
            }
        }
        // And so does the same client on its own connection, if it gets a second answer at all.
        let two = [request(&target, upgrade), request("/mine", "")].concat();
        let whole = answers(&exchange(proxy.address, two.as_bytes())).0;
        let second = whole.get(1).map_or("GET /mine", |(_, body)| body);
        if second != "GET /mine" || whole.len() > 2 {
            wrong.push(format!("on the connection of {text:?}: {whole:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    proxy.stop();
    server.finish();
}

#[test]
fn ambiguous_answers_reach_nobody() {
    check(PLAIN, "");
}

#[test]
fn ambiguous_answers_to_handshakes_reach_nobody() {
    let upgrade = format!(
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\n\
         Sec-WebSocket-Version: 13\r\n"
    );
    check(SWITCHING, &upgrade);
}

/// The next answer of a connection whose upstream says `ok`.
fn ask(client: &mut Peer, upstream: &mut Peer, body: &str) {
    client.send(b"GET /x HTTP/1.1\r\nHost: example\r\n\r\n");
    upstream.head();
    let length = body.len();
    upstream.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes());
    assert_eq!(status(&client.head()), 200);
    client.expect(body.as_bytes());
}

#[test]
fn a_late_second_answer_is_given_to_nobody() {
    let server = Server::start();
    // Each worker has connections of its own: with one, clients could meet this one.
    let proxy = Proxy::relay(&[server.address], "[datapath]\nworkers = 1");
    let mut client = proxy.connect();
    client.send(b"GET /x HTTP/1.1\r\nHost: example\r\n\r\n");
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(status(&client.head()), 200);
    client.expect(b"ok");
    // The connection is good for another request, and kept.
    ask(&mut client, &mut upstream, "again");
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
    assert_eq!(upstream.rest(), b"", "it is not used again");
    for mut client in [client, proxy.connect()] {
        client.send(b"GET /y HTTP/1.1\r\nHost: example\r\n\r\n");
        let mut upstream = server.accept();
        assert!(upstream.head().starts_with("GET /y "));
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nmine";
        upstream.send(answer);
        assert_eq!(status(&client.head()), 200);
        client.expect(b"mine");
    }
    proxy.stop();
}

#[test]
fn an_early_answer_makes_no_request_of_a_body() {
    const EVIL: &[u8] = b"GET /evil HTTP/1.1\r\nHost: example\r\n\r\n";
    let server = Server::start();
    let proxy = Proxy::relay(&[server.address], "");
    let chunk = format!("{:x}\r\n", EVIL.len());
    let ends: [(&str, Vec<u8>); 2] = [
        (&format!("Content-Length: {}", EVIL.len() + 4), EVIL.to_vec()),
        ("Transfer-Encoding: chunked", [chunk.as_bytes(), EVIL, b"\r\n0\r\n\r\n"].concat()),
    ];
    for (length, rest) in ends {
        for server_leaves in [false, true] {
            let mut client = proxy.connect();
            let begin = if length.starts_with('T') { "4\r\nbody\r\n" } else { "body" };
            let head = format!("POST /a HTTP/1.1\r\nHost: example\r\n{length}\r\n\r\n{begin}");
            client.send(head.as_bytes());
            let mut upstream = server.accept();
            let mut got = [upstream.head().into_bytes(), upstream.take(4)].concat();
            upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            let mut left = Some(upstream).filter(|_| !server_leaves);
            assert_eq!(status(&client.head()), 200, "{length}");
            client.expect(b"ok");
            // It may have been closed by now.
            let _ = std::io::Write::write_all(&mut client.stream, &rest);
            let _ = client.stream.shutdown(std::net::Shutdown::Write);
            let mut more = Vec::new();
            let _reset = std::io::Read::read_to_end(&mut client.stream, &mut more);
            assert_eq!(more, b"", "{length}: a second answer");
            if let Some(upstream) = &mut left {
                upstream.finish();
                got.extend(upstream.rest());
            }
            let (seen, rest) = all(&got, Reading::Strict);
            assert!(seen.len() + usize::from(!rest.is_empty()) == 1, "{}", got.escape_ascii());
            assert!(got.starts_with(b"POST /a "), "{}", got.escape_ascii());
            assert!(seen.iter().all(|seen| seen.body == [b"body", EVIL].concat()), "{seen:?}");
            assert!(server.try_accept().is_none(), "{length}: a second request");
        }
    }
    proxy.stop();
}
