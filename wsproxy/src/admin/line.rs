//! A connection to the admin socket of a running wsproxy: questions, orders and their answers.

use std::{io, path::Path, time::Duration};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Method, Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::UnixStream, task::JoinHandle, time::timeout};

/// Most bytes of an answer.
const MOST: usize = 16 << 20;

/// A connection, which takes one question after the other. It ends when this is dropped.
pub(crate) struct Line {
    sender: http1::SendRequest<Empty<Bytes>>,
    connection: JoinHandle<hyper::Result<()>>,
}

impl Line {
    /// # Errors
    /// Nobody is at the socket, or it may not be used.
    pub(crate) async fn open(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket).await?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        Ok(Self { sender, connection: tokio::spawn(connection) })
    }

    /// The answer, and whether it is a good one; `path` with its query.
    ///
    /// # Errors
    /// The other side went away, or its answer is no JSON or longer than 16 MiB.
    pub(crate) async fn ask(&mut self, method: Method, path: &str) -> io::Result<(bool, Value)> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("Host", "wsproxy")
            .body(Empty::<Bytes>::new())
            .map_err(io::Error::other)?;
        self.sender.ready().await.map_err(io::Error::other)?;
        let response = self.sender.send_request(request).await.map_err(io::Error::other)?;
        let good = response.status().is_success();
        let body = Limited::new(response.into_body(), MOST);
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        Ok((good, serde_json::from_slice(&body)?))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// What `asked` comes to within `patience`; an error says which socket was meant.
///
/// # Errors
/// Those of `asked`, and that it took too long.
pub(crate) async fn within<T>(
    patience: Duration,
    socket: &Path,
    asked: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let answer = timeout(patience, asked).await;
    answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|error| {
        let text = format!(
            "{}: {error} (admin.socket in its configuration names the socket; --socket here)",
            socket.display()
        );
        io::Error::new(error.kind(), text)
    })
}
