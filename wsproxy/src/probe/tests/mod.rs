//! Probes against scripted servers of this process.

mod plain;
mod secure;
mod tunnel;

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{Outcome, ProbeArgs, probe};
use crate::handshake::accept_for_key;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: ProbeArgs,
}

fn args(flags: &[&str]) -> ProbeArgs {
    Cli::try_parse_from(["probe"].iter().chain(flags)).unwrap().args
}

/// Probes and returns the text, too.
async fn run(flags: &[&str]) -> (Outcome, String) {
    let mut out = Vec::new();
    let outcome = probe(args(flags), &mut out).await.unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    (outcome, text)
}

/// Probes and returns the JSON object, too.
async fn run_json(flags: &[&str]) -> (Outcome, Value) {
    let (outcome, text) = run(&[flags, &["--json"]].concat()).await;
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["exit_status"], outcome.exit_status());
    (outcome, value)
}

fn step<'a>(value: &'a Value, name: &str) -> &'a Value {
    let steps = value["steps"].as_array().unwrap();
    steps.iter().find(|step| step["step"] == name).unwrap_or_else(|| panic!("no {name}: {value}"))
}

/// Serves one connection.
async fn serve<F>(script: impl FnOnce(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        script(stream).await;
    });
    address
}

/// Reads a request; its head and its key.
async fn request(stream: &mut (impl AsyncRead + Unpin)) -> (String, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
    let key = key.unwrap().to_owned();
    (head, key)
}

/// The right 101, with further header lines.
fn right(key: &str, more: &str) -> String {
    let accept = accept_for_key(key);
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{more}\r\n"
    )
}

/// Opens a tunnel as a server.
async fn accept(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let (_, key) = request(stream).await;
    stream.write_all(right(&key, "").as_bytes()).await.unwrap();
}

/// Reads a client's frame, which must be masked: opcode and payload.
async fn frame(stream: &mut (impl AsyncRead + Unpin)) -> (u8, Vec<u8>) {
    let first = stream.read_u8().await.unwrap();
    let second = stream.read_u8().await.unwrap();
    assert_eq!(first & 0xf0, 0x80);
    assert_eq!(second & 0x80, 0x80, "clients mask");
    let len = match second & 0x7f {
        126 => usize::from(stream.read_u16().await.unwrap()),
        short => usize::from(short),
    };
    let mut mask = [0; 4];
    stream.read_exact(&mut mask).await.unwrap();
    let mut payload = vec![0; len];
    stream.read_exact(&mut payload).await.unwrap();
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    (first & 0x0f, payload)
}

/// Sends a short frame.
async fn reply(stream: &mut (impl AsyncWrite + Unpin), first: u8, payload: &[u8]) {
    let mut frame = vec![first, u8::try_from(payload.len()).unwrap()];
    frame.extend_from_slice(payload);
    stream.write_all(&frame).await.unwrap();
}

/// Answers pings with pongs, messages with themselves, and close with close.
async fn echo(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    loop {
        let (opcode, payload) = frame(stream).await;
        match opcode {
            0x9 => reply(stream, 0x8a, &payload).await,
            0x8 => {
                assert_eq!(payload, 1000_u16.to_be_bytes());
                return reply(stream, 0x88, &payload).await;
            }
            opcode => reply(stream, 0x80 | opcode, &payload).await,
        }
    }
}

/// Keeps the connection open until the client closes it.
async fn hold(mut stream: impl AsyncRead + Unpin) {
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
}
