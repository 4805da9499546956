//! A connection during its handshake, whichever kind it is.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::TlsStream;

use crate::datapath::Endpoint;

/// The address of who has none: the other end of a Unix socket.
pub(super) const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// How long the last word of TLS may take.
const LAST_WORD: Duration = Duration::from_secs(2);

/// A connection of tokio's.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// Somebody else has it for the moment.
    Lent,
}

impl Stream {
    /// Lends the stream to who must own it.
    pub(super) fn lend(&mut self) -> Self {
        std::mem::replace(self, Self::Lent)
    }

    /// Says that nothing more comes, where the end of the connection alone does not: with TLS
    /// somebody in between could have made that one (RFC 8446 section 6.1).
    pub(super) async fn say_end(&mut self) {
        if let Self::Tls(stream) = self {
            // Who is gone or too slow does not hear it.
            let _gone_or_slow = timeout(LAST_WORD, stream.shutdown()).await;
        }
    }

    /// Our own address on it.
    pub(super) fn local(&self) -> SocketAddr {
        let address = match self {
            Self::Tcp(stream) => stream.local_addr(),
            Self::Tls(stream) => stream.get_ref().0.local_addr(),
            Self::Unix(_) | Self::Lent => return NOWHERE,
        };
        address.unwrap_or(NOWHERE)
    }

    /// Out of tokio's reactor, into the datapath's; stays non-blocking.
    pub(super) fn into_endpoint(self) -> io::Result<Endpoint> {
        Ok(match self {
            Self::Tcp(stream) => Endpoint::tcp(stream.into_std()?),
            Self::Unix(stream) => Endpoint::unix(stream.into_std()?),
            Self::Lent => return Err(io::ErrorKind::NotConnected.into()),
            Self::Tls(stream) => match *stream {
                TlsStream::Client(stream) => {
                    let (socket, connection) = stream.into_inner();
                    Endpoint::tls(socket.into_std()?, connection.into())
                }
                TlsStream::Server(stream) => {
                    let (socket, connection) = stream.into_inner();
                    Endpoint::tls(socket.into_std()?, connection.into())
                }
            },
        })
    }
}

/// Calls the same method on whichever stream it is.
macro_rules! each {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream.get_mut() {
            Stream::Tcp(stream) => {
                let $inner = Pin::new(stream);
                $call
            }
            Stream::Unix(stream) => {
                let $inner = Pin::new(stream);
                $call
            }
            Stream::Tls(stream) => {
                let $inner = Pin::new(stream.as_mut());
                $call
            }
            Stream::Lent => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Lent => false,
        }
    }
}
