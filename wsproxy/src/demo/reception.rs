//! The HTTP side of the upstream: reads one request head, and either makes a
//! WebSocket of the connection or refuses it with a text.
//!
//! Not tungstenite's own `accept`: that drops a request which is no handshake
//! without any answer, and fails when the first frame arrives in the same
//! read as the request, as it may behind a gateway.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::handshake::server::{Request, create_response, write_response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::WEBSOCKET_PATH;

/// For the whole request head to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Of a request head; what a browser sends is 1 to 2 KiB, cookies may add to it.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// For the peer to close its side once ours is closed.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// A request whose handshake is answered.
pub(super) struct Welcome {
    pub(super) websocket: WebSocketStream<TcpStream>,
    pub(super) request: Request,
}

/// Reads the request and answers it: `None` where it was refused.
pub(super) async fn receive(
    mut stream: TcpStream,
    config: WebSocketConfig,
    full: bool,
) -> io::Result<Option<Welcome>> {
    let (request, early) = timeout(HEAD_TIMEOUT, read_request(&mut stream)).await??;
    if full {
        return refuse(stream, StatusCode::SERVICE_UNAVAILABLE, "too many connections\n").await;
    }
    if request.uri().path() != WEBSOCKET_PATH {
        return refuse(stream, StatusCode::NOT_FOUND, "the WebSocket is at /ws\n").await;
    }
    let Ok(response) = create_response(&request) else {
        return refuse(stream, StatusCode::UPGRADE_REQUIRED, "WebSocket only\n").await;
    };
    let mut head = Vec::new();
    write_response(&mut head, &response).map_err(io::Error::other)?;
    stream.write_all(&head).await?;
    let websocket =
        WebSocketStream::from_partially_read(stream, early, Role::Server, Some(config)).await;
    Ok(Some(Welcome { websocket, request }))
}

/// The request and the bytes that came after it.
async fn read_request(stream: &mut TcpStream) -> io::Result<(Request, Vec<u8>)> {
    let mut head = Vec::with_capacity(2 * 1024);
    loop {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some((length, request)) = Request::try_parse(&head).map_err(io::Error::other)? {
            return Ok((request, head.split_off(length)));
        }
        if head.len() > MAX_HEAD_BYTES {
            return Err(io::Error::other("request head too long"));
        }
    }
}

async fn refuse(
    mut stream: TcpStream,
    status: StatusCode,
    text: &str,
) -> io::Result<Option<Welcome>> {
    let upgrade = match status {
        // RFC 9110, 15.5.22: a 426 names the protocol it wants.
        StatusCode::UPGRADE_REQUIRED => "Upgrade: websocket\r\nConnection: Upgrade, close\r\n",
        _ => "Connection: close\r\n",
    };
    let length = text.len();
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {length}\r\n{upgrade}\r\n{text}"
    );
    stream.write_all(response.as_bytes()).await?;
    linger(stream).await;
    Ok(None)
}

/// Closes our side and reads the peer's to its end for a while: closing with
/// unread bytes would reset the connection and could take our last words.
pub(super) async fn linger(mut stream: TcpStream) {
    let mut waste = [0; 4 * 1024];
    let drained = async {
        stream.shutdown().await?;
        while stream.read(&mut waste).await? != 0 {}
        io::Result::Ok(())
    };
    // The connection ends here however this went.
    let _ = timeout(LINGER_TIMEOUT, drained).await;
}
