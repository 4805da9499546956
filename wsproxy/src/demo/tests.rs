use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::protocol::MAX_CHAT_CHARS;
use super::*;

type Client = WebSocketStream<TcpStream>;

const PATIENCE: Duration = Duration::from_secs(20);

/// An upstream on a port of its own, and the paths its `path_of` tells.
struct Upstream {
    address: SocketAddr,
    paths: Arc<Mutex<HashMap<SocketAddr, Carrier>>>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl Upstream {
    async fn start(max_connections: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let paths: Arc<Mutex<HashMap<_, _>>> = Arc::default();
        let asked = paths.clone();
        let path_of: PathOf = Arc::new(move |peer| asked.lock().unwrap().get(&peer).copied());
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(upstream::serve(listener, path_of, stopped, max_connections));
        Self { address, paths, stop, served }
    }

    async fn open(&self) -> Client {
        self.try_open("/ws").await.unwrap()
    }

    async fn try_open(&self, path: &str) -> Result<Client, Error> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        self.upgrade(stream, path).await
    }

    async fn upgrade(&self, stream: TcpStream, path: &str) -> Result<Client, Error> {
        let url = format!("ws://{}{path}", self.address);
        Ok(client_async(url, stream).await?.0)
    }

    /// What a plain HTTP request is answered, to the end of the connection.
    async fn plain(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }
}

async fn next(client: &mut Client) -> Message {
    timeout(PATIENCE, client.next()).await.unwrap().unwrap().unwrap()
}

async fn next_json(client: &mut Client) -> Value {
    serde_json::from_str(next(client).await.to_text().unwrap()).unwrap()
}

async fn send(client: &mut Client, value: Value) {
    client.send(Message::text(value.to_string())).await.unwrap();
}

fn refusal(result: Result<Client, Error>) -> (u16, String) {
    match result {
        Err(Error::Http(response)) => {
            let text = response.body().clone().unwrap_or_default();
            (response.status().as_u16(), String::from_utf8(text).unwrap())
        }
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn everything_that_is_no_command_comes_back_as_it_is() {
    let upstream = Upstream::start(MAX_CONNECTIONS).await;
    let mut client = upstream.open().await;
    let messages = [
        Message::text("hello"),
        Message::text(""),
        Message::text("{\"type\":\"pi"),
        Message::text("{\"type\":\"other\"}"),
        Message::text("[1, 2]"),
        Message::text("é".repeat(MAX_MESSAGE_BYTES / 2)),
        Message::binary(Bytes::new()),
        Message::binary(vec![0, 255, 1]),
        Message::binary(b"{\"type\":\"ping\",\"t\":1}".to_vec()),
        Message::binary(vec![7; MAX_MESSAGE_BYTES]),
    ];
    for message in messages {
        client.send(message.clone()).await.unwrap();
        assert!(next(&mut client).await == message);
    }
    client.send(Message::Ping("are you there".into())).await.unwrap();
    assert_eq!(next(&mut client).await, Message::Pong("are you there".into()));
    send(&mut client, json!({ "type": "echo", "text": "\u{0}<b>é" })).await;
    assert_eq!(next_json(&mut client).await, json!({ "type": "echo", "text": "\u{0}<b>é" }));
}

#[tokio::test]
async fn each_pong_tells_the_path_of_the_moment() {
    let upstream = Upstream::start(MAX_CONNECTIONS).await;
    let mut client = upstream.open().await;
    let _other = upstream.open().await;
    let local = client.get_ref().local_addr().unwrap();
    let table = [
        (None, "unknown", json!(0)),
        (Some(Carrier::Relay), "relay", json!(-12)),
        (Some(Carrier::Kernel), "kernel", json!(1234.5)),
        (Some(Carrier::Packet), "packet", json!(7)),
        (None, "unknown", json!(u64::MAX)),
    ];
    for (path, name, t) in table {
        match path {
            Some(path) => upstream.paths.lock().unwrap().insert(local, path),
            None => upstream.paths.lock().unwrap().remove(&local),
        };
        send(&mut client, json!({ "type": "ping", "t": t })).await;
        assert_eq!(next_json(&mut client).await, json!({ "type": "pong", "t": t, "path": name }));
    }
}

#[tokio::test]
async fn chat_reaches_everyone_but_those_who_stay_out() {
    let upstream = Upstream::start(MAX_CONNECTIONS).await;
    let mut out = upstream.try_open("/ws?chat=off").await.unwrap();
    let (mut ann, mut bob) = (upstream.open().await, upstream.open().await);
    // An answer proves that the session has joined the room.
    for client in [&mut ann, &mut bob] {
        client.send(Message::text("here")).await.unwrap();
        next(client).await;
    }
    let mut speakers = Vec::new();
    for round in 0..2 {
        let speaker = if round == 0 { &mut ann } else { &mut bob };
        send(speaker, json!({ "type": "chat", "text": "<i>hi</i>" })).await;
        let heard = next_json(&mut ann).await;
        assert_eq!(heard["type"], "chat");
        assert_eq!(heard["text"], "<i>hi</i>");
        assert_eq!(next_json(&mut bob).await, heard);
        speakers.push(heard["from"].as_str().unwrap().to_owned());
    }
    assert_ne!(speakers[0], speakers[1]);
    out.send(Message::text("only this")).await.unwrap();
    assert_eq!(next(&mut out).await, Message::text("only this"));
}

#[tokio::test]
async fn a_chat_text_is_cut_at_its_limit() {
    let upstream = Upstream::start(MAX_CONNECTIONS).await;
    let mut client = upstream.open().await;
    send(&mut client, json!({ "type": "chat", "text": "€".repeat(MAX_CHAT_CHARS + 1) })).await;
    let heard = next_json(&mut client).await;
    assert_eq!(heard["text"].as_str().unwrap().chars().count(), MAX_CHAT_CHARS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_member_loses_messages_and_holds_up_nobody() {
    // 8 KB each: far more than the socket buffers and the backlog together.
    const SAID: u64 = 2_000;
    let upstream = Upstream::start(MAX_CONNECTIONS).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    let stream = socket.connect(upstream.address).await.unwrap();
    let mut slow = upstream.upgrade(stream, "/ws").await.unwrap();
    slow.send(Message::text("here")).await.unwrap();
    next(&mut slow).await;

    let mut quick = upstream.open().await;
    let text = "\u{10348}".repeat(MAX_CHAT_CHARS);
    for _ in 0..SAID {
        send(&mut quick, json!({ "type": "chat", "text": text })).await;
        assert_eq!(next_json(&mut quick).await["type"], "chat");
    }
    let (mut heard, mut missed) = (0, 0);
    while heard + missed < SAID {
        let message = next_json(&mut slow).await;
        match message["type"].as_str() {
            Some("chat") => heard += 1,
            Some("lagged") => missed += message["missed"].as_u64().unwrap(),
            _ => panic!("unexpected {message}"),
        }
    }
    assert!(missed > 0);
    assert_eq!(heard + missed, SAID);
}

#[tokio::test]
async fn other_requests_are_refused_with_a_text() {
    let upstream = Upstream::start(MAX_CONNECTIONS).await;
    for path in ["/", "/ws/", "/wss", "/chat?x=/ws"] {
        let (status, text) = refusal(upstream.try_open(path).await);
        assert_eq!((status, text.as_str()), (404, "the WebSocket is at /ws\n"), "{path}");
    }
    let table = [("/other", "HTTP/1.1 404 Not Found"), ("/ws", "HTTP/1.1 426 Upgrade Required")];
    for (path, status) in table {
        let response = upstream.plain(&format!("GET {path} HTTP/1.1\r\nHost: demo\r\n\r\n")).await;
        assert!(response.starts_with(status), "{response}");
    }
}

#[tokio::test]
async fn one_connection_too_many_is_refused_and_a_freed_place_is_taken() {
    let upstream = Upstream::start(2).await;
    let (mut first, mut second) = (upstream.open().await, upstream.open().await);
    let (status, _) = refusal(upstream.try_open("/ws").await);
    assert_eq!(status, 503);
    first.close(None).await.unwrap();
    while first.next().await.is_some() {}
    drop(first);
    let reopened = async {
        loop {
            match upstream.try_open("/ws").await {
                Ok(client) => return client,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let mut third = timeout(PATIENCE, reopened).await.unwrap();
    for client in [&mut second, &mut third] {
        client.send(Message::text("here")).await.unwrap();
        assert_eq!(next(client).await, Message::text("here"));
    }
}

#[tokio::test]
async fn a_frame_right_behind_the_request_is_not_lost() {
    let upstream = Upstream::start(MAX_CONNECTIONS).await;
    let mut stream = TcpStream::connect(upstream.address).await.unwrap();
    let mut bytes = b"GET /ws HTTP/1.1\r\nHost: demo\r\nConnection: Upgrade\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        .to_vec();
    // "hi" with a masking key of zeros.
    bytes.extend([0x81, 0x82, 0, 0, 0, 0, b'h', b'i']);
    stream.write_all(&bytes).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(&[0x81, 2, b'h', b'i']) {
        let read = timeout(PATIENCE, stream.read_buf(&mut answer)).await.unwrap().unwrap();
        assert_ne!(read, 0, "{}", String::from_utf8_lossy(&answer));
    }
    // RFC 6455, 1.3, gives the answer to this key.
    assert!(String::from_utf8_lossy(&answer).contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
}

#[tokio::test]
async fn the_close_handshake_is_answered_alike() {
    let upstream = Upstream::start(MAX_CONNECTIONS).await;
    let frames = [None, Some(CloseFrame { code: CloseCode::Normal, reason: "bye".into() })];
    for frame in frames {
        let mut client = upstream.open().await;
        client.close(frame.clone()).await.unwrap();
        assert_eq!(next(&mut client).await, Message::Close(frame));
        assert!(timeout(PATIENCE, client.next()).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_message_over_the_limit_closes_with_1009() {
    let upstream = Upstream::start(MAX_CONNECTIONS).await;
    let mut client = upstream.open().await;
    client.send(Message::binary(vec![0; MAX_MESSAGE_BYTES + 1])).await.unwrap();
    let Message::Close(Some(frame)) = next(&mut client).await else {
        panic!("no close frame");
    };
    assert_eq!(frame.code, CloseCode::Size);
}

#[tokio::test]
async fn a_stop_closes_every_session_with_1001() {
    let upstream = Upstream::start(MAX_CONNECTIONS).await;
    let mut clients = [upstream.open().await, upstream.open().await];
    upstream.stop.send(()).unwrap();
    for client in &mut clients {
        let Message::Close(Some(frame)) = next(client).await else {
            panic!("no close frame");
        };
        assert_eq!(frame.code, CloseCode::Away);
        assert!(timeout(PATIENCE, client.next()).await.unwrap().is_none());
    }
    drop(clients);
    timeout(PATIENCE, upstream.served).await.unwrap().unwrap();
    assert!(TcpStream::connect(upstream.address).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_never_reads_is_not_read_without_end() {
    // Well above what the socket buffers of both sides may grow to.
    const ENOUGH: usize = 64 * 1024 * 1024;
    let upstream = Upstream::start(MAX_CONNECTIONS).await;
    let (ping, text) = (0x89, 0x81);
    for opcode in [ping, text] {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(8 * 1024).unwrap();
        let stream = socket.connect(upstream.address).await.unwrap();
        let mut stream = upstream.upgrade(stream, "/ws").await.unwrap().into_inner();
        let mut frame = vec![opcode, 0x80 | 125, 0, 0, 0, 0];
        frame.resize(frame.len() + 125, b'x');
        let frames = frame.repeat(500);
        let mut written = 0;
        loop {
            // A write may end inside a frame: the next goes on from there.
            let rest = &frames[written % frames.len()..];
            let Ok(wrote) = timeout(Duration::from_secs(2), stream.write(rest)).await else {
                break;
            };
            written += wrote.expect("the session is still open");
            assert!(written < ENOUGH, "opcode {opcode:#x}");
        }
    }
}
