//! A client's connection, plain or over TLS.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, pki_types::ServerName,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::poll::now_or_later;

/// A peer that says nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// Read at once.
pub const READ: usize = 4 << 10;

/// What is between TCP and what is said.
#[derive(Clone, Debug)]
pub enum Transport {
    /// Nothing.
    Plain,
    /// TLS as it is configured there. Each handshake must be a full one of TLS 1.3.
    Tls {
        /// Whom to trust and what to offer.
        config: Arc<ClientConfig>,
        /// The name that is asked for and must be in the certificate.
        name: ServerName<'static>,
    },
}

/// One connection.
///
/// What a load sends here is so little that it always fits into an empty send buffer: a write that
/// would have to wait is an error.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

/// What a look at the connection brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Nothing that the other side said; TLS may have gone on.
    Nothing,
    /// Some bytes.
    Bytes,
    /// The other side is done.
    End,
}

const IN_PROGRESS: i32 = rustix::io::Errno::INPROGRESS.raw_os_error();

impl Wire {
    /// Begins to connect and does not wait: [`Self::connected`] comes next, once the socket is
    /// writable.
    ///
    /// # Errors
    /// As socket(2) and connect(2).
    pub fn connect(address: SocketAddr, transport: &Transport) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(IN_PROGRESS) => {}
            Err(error) => return Err(error),
        }
        Self::over(socket.into(), transport)
    }

    /// Connects, and waits in each call from then on.
    ///
    /// # Errors
    /// As connect(2), or nobody answers.
    pub fn connect_and_wait(address: SocketAddr, transport: &Transport) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut wire = Self::over(stream, transport)?;
        wire.connected()?;
        Ok(wire)
    }

    fn over(stream: TcpStream, transport: &Transport) -> io::Result<Self> {
        let tls = match transport {
            Transport::Plain => None,
            Transport::Tls { config, name } => {
                let tls = ClientConnection::new(config.clone(), name.clone());
                Some(Box::new(tls.map_err(io::Error::other)?))
            }
        };
        Ok(Self { stream, tls })
    }

    /// The socket, to wait for.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// TCP may be connected: TLS begins.
    ///
    /// # Errors
    /// Why it is not.
    pub fn connected(&mut self) -> io::Result<()> {
        match self.stream.take_error()? {
            Some(error) => Err(error),
            None => self.flush(),
        }
    }

    /// Sends all of it; while TLS is not through yet, as soon as it is.
    ///
    /// # Errors
    /// Of the socket, or there is no room for so much.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.writer().write_all(bytes)?;
            return self.flush();
        }
        let count = (&self.stream).write(bytes)?;
        if count == bytes.len() { Ok(()) } else { Err(io::Error::other("a short write")) }
    }

    /// Appends what arrived to `bytes`, at most [`READ`] bytes of the socket's.
    ///
    /// # Errors
    /// Of the socket and of TLS, and a handshake that was not a full one of TLS 1.3.
    pub fn receive(&mut self, bytes: &mut Vec<u8>) -> io::Result<Received> {
        let Some(tls) = &mut self.tls else {
            let mut buffer = [0; READ];
            return Ok(match now_or_later((&self.stream).read(&mut buffer))? {
                None => Received::Nothing,
                Some(0) => Received::End,
                Some(count) => {
                    bytes.extend_from_slice(&buffer[..count]);
                    Received::Bytes
                }
            });
        };
        let opening = tls.is_handshaking();
        match now_or_later(tls.read_tls(&mut &self.stream))? {
            None => return Ok(Received::Nothing),
            Some(0) => return Ok(Received::End),
            Some(_) => {}
        }
        let state = tls.process_new_packets().map_err(io::Error::other)?;
        if opening && !tls.is_handshaking() {
            is_full(tls)?;
        }
        let count = state.plaintext_bytes_to_read();
        let before = bytes.len();
        bytes.resize(before + count, 0);
        tls.reader().read_exact(&mut bytes[before..])?;
        self.flush()?;
        Ok(if count > 0 { Received::Bytes } else { Received::Nothing })
    }

    /// On a connection that waits: receives until `enough` finds what it looks for in `bytes`.
    ///
    /// # Errors
    /// As [`Self::receive`], an end before that, and a peer that takes too long.
    pub fn receive_until<T>(
        &mut self,
        bytes: &mut Vec<u8>,
        enough: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = enough(bytes) {
                return Ok(found);
            }
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if self.receive(bytes)? == Received::End {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.wants_write() {
            tls.write_tls(&mut &self.stream)?;
        }
        Ok(())
    }
}

/// A resumed handshake, or an older one, costs the server something else.
fn is_full(tls: &ClientConnection) -> io::Result<()> {
    let (version, kind) = (tls.protocol_version(), tls.handshake_kind());
    if version == Some(ProtocolVersion::TLSv1_3) && kind == Some(HandshakeKind::Full) {
        return Ok(());
    }
    Err(io::Error::other(format!("not a full handshake of TLS 1.3: {version:?}, {kind:?}")))
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread::JoinHandle};

    use rustls::{
        RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer},
        version::{TLS12, TLS13},
    };

    use super::*;

    const NAME: &str = "wire.test";

    /// Says "hi" first and then what it hears, twice, to one connection each.
    fn server(listener: TcpListener, config: Option<Arc<ServerConfig>>) -> JoinHandle<()> {
        std::thread::spawn(move || {
            for _ in 0..2 {
                let (stream, _) = listener.accept().expect("somebody connects");
                // The client may refuse us: then there is nobody to talk to.
                let _refused = match &config {
                    None => talk(stream),
                    Some(config) => {
                        let tls = ServerConnection::new(config.clone()).expect("it is valid");
                        talk(StreamOwned::new(tls, stream))
                    }
                };
            }
        })
    }

    fn talk(mut stream: impl io::Read + io::Write) -> io::Result<()> {
        stream.write_all(b"hi")?;
        let mut heard = [0; 5];
        stream.read_exact(&mut heard)?;
        stream.write_all(&heard)
    }

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it has one");
        (listener, address)
    }

    fn converse(address: SocketAddr, transport: &Transport) -> io::Result<Vec<u8>> {
        let mut wire = Wire::connect_and_wait(address, transport)?;
        wire.send(b"hello")?;
        let mut bytes = Vec::new();
        wire.receive_until(&mut bytes, |bytes| (bytes.len() >= 7).then_some(()))?;
        // It closes then; an end before what was looked for is an error.
        let end = wire.receive_until(&mut Vec::new(), |_| None::<()>);
        assert_eq!(end.map_err(|error| error.kind()), Err(io::ErrorKind::UnexpectedEof));
        Ok(bytes)
    }

    /// A server with a certificate of its own, and clients that trust it.
    fn pair(version: &'static SupportedProtocolVersion) -> (Arc<ServerConfig>, Transport) {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("it is made");
        let certificate: CertificateDer<'static> = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).expect("a certificate");
        let provider = Arc::new(ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[version])
            .and_then(|b| b.with_no_client_auth().with_single_cert(vec![certificate], key))
            .expect("they fit");
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("there are cipher suites")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(NAME).expect("a name");
        (Arc::new(server), Transport::Tls { config: Arc::new(client), name })
    }

    #[test]
    fn both_transports_carry_the_same() {
        let (tls, client) = pair(&TLS13);
        for (server_config, transport) in [(None, Transport::Plain), (Some(tls), client)] {
            let (listener, address) = listener();
            let server = server(listener, server_config);
            let heard = converse(address, &transport).expect("they understand each other");
            assert_eq!(heard, b"hihello");
            drop(TcpStream::connect(address));
            server.join().expect("it ended");
        }
    }

    #[test]
    fn what_is_not_a_full_handshake_of_tls_1_3_is_an_error() {
        // The client keeps the ticket of the first connection for the second one.
        for (version, first_is_right) in [(&TLS13, true), (&TLS12, false)] {
            let (config, transport) = pair(version);
            let (listener, address) = listener();
            let server = server(listener, Some(config));
            let first = converse(address, &transport);
            assert_eq!(first.is_ok(), first_is_right, "{first:?}");
            let second = converse(address, &transport).expect_err("old or resumed");
            assert!(second.to_string().contains("not a full handshake"), "{second}");
            server.join().expect("it ended");
        }
    }

    #[test]
    fn a_certificate_that_is_not_trusted_is_refused() {
        let (config, _) = pair(&TLS13);
        let (_, stranger) = pair(&TLS13);
        let (listener, address) = listener();
        let server = server(listener, Some(config));
        for _ in 0..2 {
            let error = converse(address, &stranger).expect_err("nobody vouches for it");
            assert!(error.to_string().contains("invalid peer certificate"), "{error}");
        }
        server.join().expect("it ended");
    }
}
