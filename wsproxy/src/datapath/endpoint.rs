//! One side of a session: a socket, and what stands between it and the bytes.

use std::{
    fmt,
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{RecvFlags, SendFlags, Shutdown};

/// Ciphertext that rustls may hold for us before it is written, in bytes; the lane waits for it.
const MOST_PENDING: usize = 64 * 1024;

#[derive(Debug)]
enum Kind {
    /// May enter the socket map.
    Tcp,
    Unix,
    Tls(Box<Tls>),
}

struct Tls {
    connection: rustls::Connection,
    /// A FIN is to follow what is pending.
    fin_due: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("fin_due", &self.fin_due).finish_non_exhaustive()
    }
}

/// An established, non-blocking stream socket, with TLS on it or without.
///
/// Sockets with TLS, and Unix sockets, never enter the kernel's socket map: their sessions are
/// relayed, by the same lanes as every other one.
#[derive(Debug)]
pub struct Endpoint {
    socket: OwnedFd,
    kind: Kind,
}

impl Endpoint {
    /// A TCP socket.
    #[must_use]
    pub fn tcp(socket: impl Into<OwnedFd>) -> Self {
        Self { socket: socket.into(), kind: Kind::Tcp }
    }

    /// A Unix stream socket.
    #[must_use]
    pub fn unix(socket: impl Into<OwnedFd>) -> Self {
        Self { socket: socket.into(), kind: Kind::Unix }
    }

    /// A socket whose TLS handshake is over.
    #[must_use]
    pub fn tls(socket: impl Into<OwnedFd>, mut connection: rustls::Connection) -> Self {
        connection.set_buffer_limit(Some(MOST_PENDING));
        let tls = Box::new(Tls { connection, fin_due: false });
        Self { socket: socket.into(), kind: Kind::Tls(tls) }
    }

    pub(super) fn is_plain_tcp(&self) -> bool {
        matches!(self.kind, Kind::Tcp)
    }

    /// What is read is what the socket had: a short read means that it is empty.
    pub(super) fn is_plain(&self) -> bool {
        !matches!(self.kind, Kind::Tls(_))
    }

    /// Reads without waiting; `Ok(0)` is the end of the stream.
    pub(super) fn recv(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.kind {
            Kind::Tcp | Kind::Unix => recv(self.socket.as_fd(), buf),
            Kind::Tls(tls) => tls.recv(self.socket.as_fd(), buf),
        }
    }

    /// Writes without waiting. Under TLS what is taken may be pending still, see
    /// [`Self::has_pending`].
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.kind {
            Kind::Tcp | Kind::Unix => send(self.socket.as_fd(), bytes),
            Kind::Tls(tls) => tls.send(self.socket.as_fd(), bytes),
        }
    }

    /// Tells the peer that nothing more comes. With `last` the socket is closed right after,
    /// which sends the FIN.
    pub(super) fn finish(&mut self, last: bool) -> io::Result<()> {
        if let Kind::Tls(tls) = &mut self.kind {
            tls.connection.send_close_notify();
            tls.fin_due = !last;
            return self.flush();
        }
        if last { Ok(()) } else { Ok(rustix::net::shutdown(&self.socket, Shutdown::Write)?) }
    }

    /// Writes what is pending, as far as the socket takes it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let Kind::Tls(tls) = &mut self.kind else { return Ok(()) };
        tls.flush(self.socket.as_fd())?;
        if tls.fin_due && !tls.connection.wants_write() {
            tls.fin_due = false;
            match rustix::net::shutdown(&self.socket, Shutdown::Write) {
                // The peer is gone already; the socket's own event says how.
                Ok(()) | Err(rustix::io::Errno::NOTCONN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Bytes that were taken and are not in the socket yet: the socket is full.
    pub(super) fn has_pending(&self) -> bool {
        matches!(&self.kind, Kind::Tls(tls) if tls.connection.wants_write())
    }
}

impl AsFd for Endpoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Tls {
    /// Reads until `buf` is full or the socket is empty.
    fn recv(&mut self, socket: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        loop {
            match self.connection.reader().read(&mut buf[filled..]) {
                // The peer's close_notify; the next call says so again.
                Ok(0) => return Ok(filled),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if !self.fetch(socket)? {
                        return if filled > 0 { Ok(filled) } else { Err(e) };
                    }
                }
                // The end without a close_notify. Whether it comes too early, the frames tell.
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(filled),
                Err(e) => return Err(e),
            }
            if filled == buf.len() {
                return Ok(filled);
            }
        }
    }

    /// Takes records from the socket; false when it is empty.
    fn fetch(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        match self.connection.read_tls(&mut Socket(socket)) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) => return Err(e),
        }
        let processed = self.connection.process_new_packets();
        // Alerts and answers to key updates; what the socket does not take stays pending.
        self.flush(socket)?;
        processed.map(|_| true).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }

    fn send(&mut self, socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
        self.flush(socket)?;
        if self.connection.wants_write() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = self.connection.writer().write(bytes)?;
        self.flush(socket)?;
        Ok(taken)
    }

    fn flush(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut Socket(socket)) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

fn recv(socket: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    let (read, _) =
        rustix::io::retry_on_intr(|| rustix::net::recv(socket, &mut *buf, RecvFlags::DONTWAIT))?;
    Ok(read)
}

fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    Ok(rustix::io::retry_on_intr(|| rustix::net::send(socket, bytes, flags))?)
}

/// A socket as rustls wants it.
struct Socket<'a>(BorrowedFd<'a>);

impl Read for Socket<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        recv(self.0, buf)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        send(self.0, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
