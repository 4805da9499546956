//! The connection to the server, with a bound on every wait.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};

/// The most bytes of one read.
const READ_BYTES: usize = 4 * 1024;

/// A TCP connection, or TLS on top of one.
pub(super) trait Link: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Link for T {}

pub(super) type AnyLink = Box<dyn Link>;

/// Why nothing more comes.
#[derive(Debug)]
pub(super) enum Lost {
    /// The time ran out.
    Timeout,
    /// The peer closed the connection.
    Ended,
    /// The connection broke.
    Io(io::Error),
}

/// Appends to `buf` what comes next, at least one byte.
pub(super) async fn read_some(
    link: &mut AnyLink,
    buf: &mut Vec<u8>,
    until: Instant,
) -> Result<(), Lost> {
    let mut chunk = [0; READ_BYTES];
    match timeout_at(until, link.read(&mut chunk)).await {
        Err(_) => Err(Lost::Timeout),
        Ok(Ok(0)) => Err(Lost::Ended),
        // TLS that ends without close_notify: nobody can cut off half of
        // something here that would be taken for the whole.
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Lost::Ended),
        Ok(Err(error)) => Err(Lost::Io(error)),
        Ok(Ok(len)) => {
            buf.extend_from_slice(&chunk[..len]);
            Ok(())
        }
    }
}

/// Sends all of `bytes`.
pub(super) async fn send(link: &mut AnyLink, bytes: &[u8], until: Instant) -> Result<(), Lost> {
    let all = async {
        link.write_all(bytes).await?;
        link.flush().await
    };
    match timeout_at(until, all).await {
        Err(_) => Err(Lost::Timeout),
        Ok(sent) => sent.map_err(Lost::Io),
    }
}
