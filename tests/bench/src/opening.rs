//! The opening handshake, as either end needs it for a benchmark.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use sha1::{Digest, Sha1};

/// A peer that says nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest head of a request or an answer.
pub const MOST_HEAD: usize = 4096;
/// The key of RFC 6455, section 1.3; its answer is known.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const KEY_ANSWER: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What a client sends.
#[must_use]
pub fn request(host: SocketAddr, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\
         User-Agent: wsproxy-bench\r\nOrigin: http://{host}\r\n\r\n"
    )
}

/// How long the head is, once it is whole.
#[must_use]
pub fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// Whether a whole head accepts our request.
#[must_use]
pub fn accepts(head: &[u8]) -> bool {
    let head = String::from_utf8_lossy(head);
    head.starts_with("HTTP/1.1 101 ") && head.contains(KEY_ANSWER)
}

/// The path that a whole request asks for, and the answer to it.
#[must_use]
pub fn answer(head: &[u8]) -> Option<(String, String)> {
    let head = std::str::from_utf8(head).ok()?;
    let path = head.strip_prefix("GET ")?.split(' ').next()?;
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
    })?;
    let digest = Sha1::new().chain_update(key).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let accept = BASE64_STANDARD.encode(digest.finalize());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    Some((path.to_owned(), answer))
}

/// Opens a session and leaves the socket non-blocking. What came behind the
/// answer's head is returned too.
///
/// # Errors
/// Of the sockets, and what was answered instead of a 101.
pub fn open(address: SocketAddr, path: &str) -> io::Result<(TcpStream, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request(address, path).as_bytes())?;
    let mut bytes = Vec::new();
    let mut piece = [0; MOST_HEAD];
    let length = loop {
        if let Some(length) = head_length(&bytes) {
            break length;
        }
        let count = stream.read(&mut piece)?;
        if count == 0 || bytes.len() > MOST_HEAD {
            return Err(not_accepted(&bytes));
        }
        bytes.extend_from_slice(&piece[..count]);
    };
    if !accepts(&bytes[..length]) {
        return Err(not_accepted(&bytes));
    }
    stream.set_nonblocking(true)?;
    Ok((stream, bytes.split_off(length)))
}

/// The answer was not a 101.
#[must_use]
pub fn not_accepted(answer: &[u8]) -> io::Error {
    let text = String::from_utf8_lossy(answer);
    let line = text.lines().next().unwrap_or("nothing");
    io::Error::other(format!("the handshake was answered by: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_answer_accepts_our_request() {
        let host = SocketAddr::from(([127, 0, 0, 1], 80));
        let request = request(host, "/echo");
        assert_eq!(head_length(request.as_bytes()), Some(request.len()));
        let (path, answer) = answer(request.as_bytes()).expect("a request");
        assert_eq!(path, "/echo");
        assert!(accepts(answer.as_bytes()));
        assert!(!accepts(b"HTTP/1.1 502 Bad Gateway\r\n\r\n"));
    }
}
