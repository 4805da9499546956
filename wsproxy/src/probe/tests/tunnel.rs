//! What happens in the open tunnel.

use super::*;

/// Opens a tunnel and hands it to `script`.
async fn opened<F>(
    script: impl FnOnce(TcpStream) -> F + Send + 'static,
    flags: &[&str],
) -> (Outcome, String)
where
    F: Future<Output = ()> + Send + 'static,
{
    let address = serve(async move |mut stream: TcpStream| {
        accept(&mut stream).await;
        script(stream).await;
    });
    let url = format!("ws://{}", address.await);
    run(&[&[url.as_str()], flags].concat()).await
}

#[tokio::test]
async fn ping_message_close() {
    let echo = async |mut stream: TcpStream| echo(&mut stream).await;
    let (outcome, report) = opened(echo, &["--message", "-h\u{e9}"]).await;
    assert_eq!(outcome, Outcome::Open, "{report}");
    for words in ["pong with the same", "text, 4 bytes: \"-h\u{e9}\"", "< close 1000 (normal"] {
        assert!(report.contains(words), "{words}: {report}");
    }
    assert!(report.contains("\nok: the tunnel is open and answers pings and the message\n"));
    let (outcome, report) = opened(echo, &["--no-ping"]).await;
    assert!(outcome == Outcome::Open && !report.contains("pong"), "{report}");
}

#[tokio::test]
async fn other_frames_meanwhile() {
    let script = async |mut stream: TcpStream| {
        let (_, ping) = frame(&mut stream).await;
        reply(&mut stream, 0x8a, b"old").await;
        reply(&mut stream, 0x01, b"\x1b[").await;
        reply(&mut stream, 0x89, b"you").await;
        assert_eq!(frame(&mut stream).await, (0xa, b"you".to_vec()));
        reply(&mut stream, 0x80, b"2J").await;
        // In pieces, byte by byte.
        let pong = [&[0x8a, u8::try_from(ping.len()).unwrap()], ping.as_slice()].concat();
        for byte in pong {
            stream.write_all(&[byte]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        echo(&mut stream).await;
    };
    let (outcome, report) = opened(script, &[]).await;
    assert_eq!(outcome, Outcome::Open, "{report}");
    for words in [
        "meanwhile < pong to no ping: \"old\"",
        "meanwhile < ping, 3 bytes, answered",
        "meanwhile < text, 4 bytes in 2 frames: \"\\u{1b}[2J\"",
    ] {
        assert!(report.contains(words), "{words}: {report}");
    }
}

#[tokio::test]
async fn a_flood_is_cut() {
    let script = async |mut stream: TcpStream| {
        for _ in 0..100 {
            reply(&mut stream, 0x82, &[0; 100]).await;
        }
        echo(&mut stream).await;
    };
    let (outcome, report) = opened(script, &[]).await;
    assert!(outcome == Outcome::Open && report.contains("meanwhile and 80 more"), "{report}");
}

#[tokio::test]
async fn frames_right_behind_the_head() {
    let address = serve(async |mut stream: TcpStream| {
        let (_, key) = request(&mut stream).await;
        let bytes = [right(&key, "").as_bytes(), b"\x81\x02hi"].concat();
        stream.write_all(&bytes).await.unwrap();
        echo(&mut stream).await;
    });
    let (outcome, report) = run(&[&format!("ws://{}", address.await)]).await;
    assert!(outcome == Outcome::Open && report.contains("text, 2 bytes: \"hi\""), "{report}");
}

#[tokio::test]
async fn no_pong() {
    let silent = async |mut stream: TcpStream| {
        frame(&mut stream).await;
        assert_eq!(frame(&mut stream).await.0, 0x8);
    };
    let (outcome, report) = opened(silent, &["--timeout", "1"]).await;
    assert!(outcome == Outcome::NoPong && report.contains("nothing came in time"), "{report}");
    let closes = async |mut stream: TcpStream| {
        reply(&mut stream, 0x88, b"\x03\xf0log in\x1b").await;
        let _ = frame(&mut stream).await;
        assert_eq!(frame(&mut stream).await, (0x8, b"\x03\xf0".to_vec()));
    };
    let (outcome, report) = opened(closes, &[]).await;
    assert_eq!(outcome, Outcome::NoPong);
    assert!(report.contains("close 1008 (against its policy"), "{report}");
    assert!(report.contains(": \"log in\\u{1b}\""), "{report}");
    let ends = async |mut stream: TcpStream| {
        frame(&mut stream).await;
    };
    let (outcome, report) = opened(ends, &[]).await;
    assert!(outcome == Outcome::NoPong && report.contains("without a close frame"), "{report}");
}

#[tokio::test]
async fn wrong_frames() {
    let cases: &[(&[u8], &str)] = &[
        (b"\x81\x81abcde", "only clients mask"),
        (b"\xc1\x01a", "reserved bit"),
        (b"\x83\x00", "opcode 3"),
        (b"\x80\x01a", "out of order"),
        (b"\x88\x02\x03\xed", "must not be sent"),
    ];
    for (bytes, words) in cases {
        let bytes = bytes.to_vec();
        let script = async move |mut stream: TcpStream| {
            stream.write_all(&bytes).await.unwrap();
            frame(&mut stream).await;
            assert_eq!(frame(&mut stream).await, (0x8, 1002_u16.to_be_bytes().to_vec()));
        };
        let (outcome, report) = opened(script, &[]).await;
        assert_eq!(outcome, Outcome::NoPong, "{report}");
        assert!(report.contains(words), "{words}: {report}");
    }
}

#[tokio::test]
async fn no_answer_to_the_message() {
    let script = async |mut stream: TcpStream| {
        let (_, ping) = frame(&mut stream).await;
        reply(&mut stream, 0x8a, &ping).await;
        hold(stream).await;
    };
    let (outcome, report) = opened(script, &["--message", "x", "--timeout", "1"]).await;
    assert_eq!(outcome, Outcome::NoPong);
    assert!(report.contains("no answer to the message came"), "{report}");
}

#[tokio::test]
async fn a_close_without_answer_is_a_note() {
    let script = async |mut stream: TcpStream| {
        let (_, ping) = frame(&mut stream).await;
        reply(&mut stream, 0x8a, &ping).await;
        hold(stream).await;
    };
    let (outcome, report) = opened(script, &["--timeout", "10"]).await;
    assert_eq!(outcome, Outcome::Open);
    assert!(report.contains("note: the session did not close in order"), "{report}");
}
