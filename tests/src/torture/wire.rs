//! The connection of one end, with TLS on it or without: what an end says and reads is the same,
//! and so is how it finishes.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, OnceLock},
};

use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
    crypto::ring,
    pki_types::PrivateKeyDer,
    pki_types::ServerName,
    version::{TLS12, TLS13},
};
use wsproxy::datapath::Endpoint;

/// Ciphertext that may wait for the socket, in bytes.
const MOST_PENDING: usize = 64 * 1024;
/// Whom the certificate is for.
const NAME: &str = "torture.test";

/// A non-blocking connection.
#[derive(Debug)]
pub struct Wire {
    socket: TcpStream,
    tls: Option<Box<Tls>>,
}

#[derive(Debug)]
struct Tls {
    connection: Connection,
    /// The other end's close_notify has come: nothing but its FIN may follow.
    notified: bool,
    /// Our close_notify is on its way, and the FIN behind it if there is to be one.
    finishing: bool,
    /// No FIN before the socket is closed.
    without_fin: bool,
    /// Bytes that the socket took.
    written: u64,
}

impl Wire {
    /// On a socket that doesn't block; `tls` has its handshake behind it.
    #[must_use]
    pub fn new(socket: TcpStream, tls: Option<Connection>) -> Self {
        let tls = tls.map(|mut connection| {
            connection.set_buffer_limit(Some(MOST_PENDING));
            let (notified, finishing, without_fin, written) = (false, false, false, 0);
            Box::new(Tls { connection, notified, finishing, without_fin, written })
        });
        Self { socket, tls }
    }

    /// Ends under TLS with a close_notify alone, as many programs do: the FIN comes when the
    /// socket is closed.
    #[must_use]
    pub fn without_fin(mut self) -> Self {
        if let Some(tls) = &mut self.tls {
            tls.without_fin = true;
        }
        self
    }

    /// The same connection as the datapath wants it, with what was read of it and not taken.
    #[must_use]
    pub fn into_endpoint(self) -> Endpoint {
        let socket = OwnedFd::from(self.socket);
        match self.tls {
            Some(tls) => Endpoint::tls(socket, tls.connection),
            None => Endpoint::tcp(socket),
        }
    }

    /// The socket under it.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// The socket under it, without what TLS has still to say.
    #[must_use]
    pub fn into_socket(self) -> TcpStream {
        self.socket
    }

    /// Reads; `Ok(0)` is an end in order: a FIN, and under TLS a close_notify before it.
    ///
    /// # Errors
    /// Those of the socket; `UnexpectedEof` for a FIN without a close_notify; `InvalidData` for
    /// what is no TLS, or comes behind the close_notify.
    pub fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => tls.read(&mut self.socket, buf),
            None => self.socket.read(buf),
        }
    }

    /// Writes; under TLS what is taken may be pending still, see [`Self::has_pending`].
    ///
    /// # Errors
    /// Those of the socket; `WouldBlock` while something is pending.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => tls.write(&mut self.socket, bytes),
            None => self.socket.write(bytes),
        }
    }

    /// Says that nothing more comes; true when that has been sent.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn finish(&mut self) -> io::Result<bool> {
        if let Some(tls) = &mut self.tls {
            if !std::mem::replace(&mut tls.finishing, true) {
                tls.connection.send_close_notify();
            }
            let flushed = tls.flush(&mut self.socket)?;
            if !flushed || tls.without_fin {
                return Ok(flushed);
            }
        }
        self.socket.shutdown(Shutdown::Write)?;
        Ok(true)
    }

    /// Writes what is pending, as far as the socket takes it.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn flush(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        tls.flush(&mut self.socket).map(|_| ())
    }

    /// Bytes that were taken and are not in the socket yet.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.connection.wants_write())
    }

    /// Our close_notify is said, if it is not sent yet.
    #[must_use]
    pub fn is_finishing(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.finishing)
    }

    /// Ciphertext that the socket has taken, in bytes.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.tls.as_ref().map_or(0, |tls| tls.written)
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Tls {
    fn read(&mut self, socket: &mut TcpStream, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.notified {
                return match socket.read(&mut [0])? {
                    0 => Ok(0),
                    _ => Err(io::Error::new(ErrorKind::InvalidData, "bytes behind close_notify")),
                };
            }
            match self.connection.reader().read(buf) {
                Ok(0) => self.notified = true,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.connection.read_tls(socket)?;
                    let processed = self.connection.process_new_packets();
                    processed.map_err(|e| io::Error::new(ErrorKind::InvalidData, e))?;
                }
                other => return other,
            }
        }
    }

    fn write(&mut self, socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
        if !self.flush(socket)? {
            return Err(ErrorKind::WouldBlock.into());
        }
        let taken = self.connection.writer().write(bytes)?;
        self.flush(socket)?;
        Ok(taken)
    }

    /// Whether nothing is left.
    fn flush(&mut self, socket: &mut TcpStream) -> io::Result<bool> {
        while self.connection.wants_write() {
            match self.connection.write_tls(socket) {
                Ok(n) => self.written += n as u64,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }
}

/// What both ends of a connection know of each other.
struct Configs {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Configs {
    fn new(version: &'static SupportedProtocolVersion) -> Self {
        let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let provider = || Arc::new(ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        Self { client: Arc::new(client), server: Arc::new(server) }
    }

    /// For TLS 1.2 and TLS 1.3.
    fn of(old: bool) -> &'static Self {
        static BOTH: [OnceLock<Configs>; 2] = [OnceLock::new(), OnceLock::new()];
        BOTH[usize::from(old)].get_or_init(|| Self::new(if old { &TLS12 } else { &TLS13 }))
    }
}

/// The client's and the server's end of a connection, their handshake over.
///
/// # Panics
/// When they don't understand each other.
#[must_use]
pub fn handshake(old: bool) -> [Connection; 2] {
    let configs = Configs::of(old);
    let name = ServerName::try_from(NAME).unwrap();
    let client = ClientConnection::new(Arc::clone(&configs.client), name).unwrap();
    let server = ServerConnection::new(Arc::clone(&configs.server)).unwrap();
    let mut ends = [Connection::from(client), Connection::from(server)];
    while ends.iter().any(|end| end.is_handshaking() || end.wants_write()) {
        for from in [0, 1] {
            let mut flight = Vec::new();
            while ends[from].wants_write() {
                ends[from].write_tls(&mut flight).unwrap();
            }
            let mut flight = &flight[..];
            while !flight.is_empty() {
                ends[1 - from].read_tls(&mut flight).unwrap();
                ends[1 - from].process_new_packets().unwrap();
            }
        }
    }
    ends
}
