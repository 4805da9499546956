//! Everything up to the answer, in plain.

use super::*;

/// Probes a server that answers `text`.
async fn answered(text: &'static [u8], flags: &[&str]) -> (Outcome, String) {
    let address = serve(async move |mut stream: TcpStream| {
        request(&mut stream).await;
        stream.write_all(text).await.unwrap();
        stream.shutdown().await.unwrap();
        hold(stream).await;
    });
    let url = format!("ws://{}/ws", address.await);
    run(&[&[url.as_str(), "--timeout", "5"], flags].concat()).await
}

#[tokio::test]
async fn answers_other_than_101() {
    let cases: &[(&str, &[&str])] = &[
        ("200 OK\r\nContent-Length: 5\r\n\r\n<p>hi", &["< <p>hi", "plain HTTP request"]),
        ("400 Bad Request\r\n\r\n", &["400 Bad Request", "proxy_set_header"]),
        ("400 Bad Request\r\n\r\nThe plain HTTP request was sent to HTTPS port", &["use wss://"]),
        ("401 Unauthorized\r\nWWW-Authenticate: Basic\r\n\r\n", &["asks for: Basic"]),
        ("403 Forbidden\r\nX-Request-ID: r1\r\n\r\n", &["--origin", "request id: r1"]),
        ("404 Not Found\r\nSet-Cookie: s=1\r\n\r\n", &["Set-Cookie: ...", "route"]),
        ("426 Upgrade Required\r\nSec-WebSocket-Version: 8\r\n\r\n", &["version 8"]),
        ("301 Moved\r\nLocation: https://a/ws\r\n\r\n", &["try wss://a/ws"]),
        ("307 Moved\r\nLocation: /x\r\n\r\n", &["redirect to /x"]),
        ("429 Too Many\r\nRetry-After: 3\r\n\r\n", &["in 3 s"]),
        ("502 Bad Gateway\r\n\r\n", &["upstream server"]),
        ("503 Busy\r\n\r\n\x1b[2Jx", &["not ready", "< \\u{1b}[2Jx"]),
        ("504 Slow\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", &["< ab", "slow"]),
        ("505 Version\r\n\r\n", &["HTTP/1.1"]),
    ];
    for (text, words) in cases {
        let text: &'static str = format!("HTTP/1.1 {text}").leak();
        let (outcome, report) = answered(text.as_bytes(), &[]).await;
        assert_eq!(outcome, Outcome::Refused, "{report}");
        for word in *words {
            assert!(report.contains(word), "{word}: {report}");
        }
    }
    let (outcome, report) = answered(b"HTTP/1.0 404 Not Found\r\n\r\n", &[]).await;
    assert!(outcome == Outcome::Refused && report.contains("HTTP/1.0: a proxy"), "{report}");
    let origin = &["--origin", "https://a"];
    let (_, report) = answered(b"HTTP/1.1 403 No\r\n\r\n", origin).await;
    assert!(!report.contains("--origin"), "{report}");
}

#[tokio::test]
async fn answers_that_are_invalid() {
    let cases: &[(&[u8], &str)] = &[
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 101 Swi", "in the middle"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "use wss://"),
        (b"SSH-2.0-x\r\n", "SSH"),
        (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", "HTTP/2"),
        (b"HTTP/2 200\r\n\r\n", "neither HTTP/1.1"),
        (b"HTTP/1.1 101 X\nUpgrade: websocket\n\n", "LF alone"),
        (b"HTTP/1.1 101 X\r\n\r\n", "101 without Upgrade"),
        (b"HTTP/1.0 101 X\r\n\r\n", "101 in HTTP/1.0"),
        (b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\n\r\n", "101 without Connection"),
        (
            b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            "without Sec-WebSocket-Accept",
        ),
        (
            b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            "example of RFC 6455",
        ),
    ];
    for (text, words) in cases {
        let (outcome, report) = answered(text, &[]).await;
        assert_eq!(outcome, Outcome::BadAnswer, "{report}");
        assert!(report.contains(words), "{words}: {report}");
    }
    let long: &'static [u8] =
        format!("HTTP/1.1 101 X\r\nX: {}", "a".repeat(20_000)).leak().as_bytes();
    let (outcome, report) = answered(long, &[]).await;
    assert!(outcome == Outcome::BadAnswer && report.contains("16384"), "{report}");
    assert!(report.len() < 4_000, "the head is cut in the report");
}

#[tokio::test]
async fn an_alert_byte_by_byte() {
    let address = serve(async |mut stream: TcpStream| {
        request(&mut stream).await;
        for byte in b"\x15\x03\x03\x00\x02\x02\x46" {
            stream.write_all(&[*byte]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let (outcome, report) = run(&[&format!("ws://{}", address.await)]).await;
    assert!(outcome == Outcome::BadAnswer && report.contains("use wss://"), "{report}");
}

/// Probes a server whose 101 has further header lines.
async fn switched(more: &'static str, flags: &[&str]) -> (Outcome, String) {
    let address = serve(async move |mut stream: TcpStream| {
        let (_, key) = request(&mut stream).await;
        stream.write_all(right(&key, more).as_bytes()).await.unwrap();
        echo(&mut stream).await;
    });
    let url = format!("ws://{}/ws", address.await);
    run(&[&[url.as_str()], flags].concat()).await
}

#[tokio::test]
async fn what_a_101_selects() {
    let chat = "Sec-WebSocket-Protocol: chat\r\n";
    let (outcome, report) = switched(chat, &[]).await;
    assert!(outcome == Outcome::BadAnswer && report.contains("\"chat\", which was not offered"));
    let (outcome, _) = switched(chat, &["--subprotocol", "chat"]).await;
    assert_eq!(outcome, Outcome::Open);
    let (outcome, report) = switched("", &["--subprotocol", "chat"]).await;
    assert!(
        outcome == Outcome::Open && report.contains("note: the server selected no subprotocol")
    );
    let (outcome, report) = switched("Sec-WebSocket-Extensions: permessage-deflate\r\n", &[]).await;
    assert!(outcome == Outcome::BadAnswer && report.contains("none was offered"), "{report}");
}

#[tokio::test]
async fn silence_ends_in_time() {
    let address = serve(hold).await;
    let (outcome, report) = run(&[&format!("ws://{address}"), "--timeout", "1"]).await;
    assert!(outcome == Outcome::Timeout && report.contains("no answer in time"), "{report}");
    let address = serve(async |mut stream: TcpStream| {
        stream.write_all(b"HTTP/1.1 101 X\r\n").await.unwrap();
        hold(stream).await;
    });
    let url = format!("ws://{}", address.await);
    let (outcome, report) = run(&[&url, "--timeout", "1"]).await;
    assert!(outcome == Outcome::Timeout && report.contains("did not end"), "{report}");
}

#[tokio::test]
async fn addresses() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    let (outcome, value) = run_json(&[&format!("ws://{closed}/")]).await;
    assert_eq!(outcome, Outcome::Connect);
    assert_eq!(step(&value, "connect")["attempts"][0]["address"], closed.to_string());
    assert!(value["explanation"][0].as_str().unwrap().contains("Nothing listens"));
    // A label of 64 bytes is no name of DNS: nobody is asked.
    let long = format!("ws://{}.invalid/", "a".repeat(64));
    let (outcome, report) = run(&[&long]).await;
    assert!(outcome == Outcome::Resolve && report.contains("no address found"), "{report}");
    let (outcome, report) = run(&["example.com"]).await;
    assert!(outcome == Outcome::Usage && report.contains("no scheme"), "{report}");
    assert!(Cli::try_parse_from(["probe", "ws://a", "--timeout", "0"]).is_err());
}

#[tokio::test]
async fn flags_reach_the_request() {
    let address = serve(async |mut stream: TcpStream| {
        let (head, key) = request(&mut stream).await;
        for line in ["GET /x HTTP/1.1", "Host: b.example", "Cookie: secret", "Origin: null"] {
            assert!(head.lines().any(|l| l == line), "{line}");
        }
        stream.write_all(right(&key, "X-Request-ID: id7\r\n").as_bytes()).await.unwrap();
        echo(&mut stream).await;
    });
    let address = address.await.to_string();
    let flags = ["ws://a.invalid/x", "--resolve", &address, "--host", "b.example"];
    let more = ["--header", "Cookie:secret", "--origin", "null", "--json"];
    let (outcome, text) = run(&[&flags[..], &more[..]].concat()).await;
    assert_eq!(outcome, Outcome::Open);
    assert!(text.contains("Cookie: ...") && !text.contains("secret"), "{text}");
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["request_id"], "id7");
    assert_eq!(value["verdict"], "ok");
    assert_eq!(step(&value, "answer")["status"], 101);
    assert!(step(&value, "ping")["us"].as_u64().is_some());
    assert_eq!(step(&value, "close")["code"], 1000);
}
