//! Certificates, and ends of connections that speak TLS or do not.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    fs,
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, ServerConfig,
    ServerConnection, SignatureScheme, StreamOwned, SupportedProtocolVersion,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    server::WebPkiClientVerifier,
};
use socket2::SockRef;

use crate::support::{PATIENCE, Peer, TempDir, ws::Frames};

pub type Client = StreamOwned<ClientConnection, TcpStream>;
pub type Accepted = StreamOwned<ServerConnection, TcpStream>;
pub type Versions<'a> = &'a [&'static SupportedProtocolVersion];

/// Both versions that there are.
pub const BOTH: Versions<'static> = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// Who issues certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pub pem: String,
}

/// A certificate and its key.
pub struct Identity {
    pub certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    pub pem: String,
    pub key_pem: String,
}

/// Where an identity was written to.
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let (der, pem) = (certificate.der().clone(), certificate.pem());
        Self { issuer: Issuer::new(params, key), der, pem }
    }

    /// A certificate for these names and addresses.
    pub fn issue(&self, names: &[&str]) -> Identity {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            certificate: certificate.der().clone(),
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        roots
    }
}

impl Identity {
    /// A certificate that vouches for itself, as `openssl req -x509` makes it: also a CA.
    pub fn of_its_own(names: &[&str]) -> Self {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "its own");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self {
            certificate: certificate.der().clone(),
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        }
    }

    pub fn write(&self, dir: &TempDir, name: &str) -> Files {
        let certificate = dir.join(&format!("{name}.pem"));
        let key = dir.join(&format!("{name}.key"));
        fs::write(&certificate, &self.pem).unwrap();
        fs::write(&key, &self.key_pem).unwrap();
        Files { certificate, key }
    }
}

impl Files {
    /// As a table of `listener.tls.certificates`.
    pub fn table(&self) -> String {
        let (certificate, key) = (self.certificate.display(), self.key.display());
        format!("{{ certificate = \"{certificate}\", key = \"{key}\" }}")
    }
}

/// The table `[listener.tls]` with these certificates, and `more` keys.
pub fn listener_tls(certificates: &[&Files], more: &str) -> String {
    let tables: Vec<_> = certificates.iter().map(|files| files.table()).collect();
    format!("[listener.tls]\ncertificates = [{}]\n{more}\n", tables.join(", "))
}

/// A configuration: what stands in `[listener]` and behind it, the list of servers, and the rest,
/// which begins inside of `[upstream]`.
pub fn text(listener: &str, servers: &str, more: &str) -> String {
    format!(
        "[log]\nformat = \"json\"\nlevel = \"debug\"\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [listener]\naddress = \"127.0.0.1:0\"\n{listener}\n\
         [upstream]\nservers = [{servers}]\n{more}\n"
    )
}

/// The authority of all certificates that are in order.
pub fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| Authority::new("the right authority"))
}

/// A certificate for our own machine.
pub fn local() -> &'static Identity {
    static LOCAL: OnceLock<Identity> = OnceLock::new();
    LOCAL.get_or_init(|| authority().issue(&["localhost", "127.0.0.1"]))
}

pub fn write_authority(dir: &TempDir, name: &str, authority: &Authority) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, &authority.pem).unwrap();
    path
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// A client that trusts [`authority`], with a certificate of its own or without.
pub fn client_config(versions: Versions<'_>, own: Option<&Identity>) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_protocol_versions(versions).unwrap();
    let builder = builder.with_root_certificates(authority().roots());
    match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let chain = vec![own.certificate.clone()];
            builder.with_client_auth_cert(chain, own.key.clone_key()).unwrap()
        }
    }
}

/// A client that takes every certificate, to look at it.
pub fn curious_config() -> ClientConfig {
    let mut config = client_config(BOTH, None);
    config.dangerous().set_certificate_verifier(Arc::new(AnyCertificate));
    config
}

/// A server; with `clients` it wants a certificate of that authority.
pub fn server_config(
    versions: Versions<'_>,
    own: &Identity,
    clients: Option<&Authority>,
) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(provider());
    let builder = builder.with_protocol_versions(versions).unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let roots = Arc::new(authority.roots());
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let chain = vec![own.certificate.clone()];
    Arc::new(builder.with_single_cert(chain, own.key.clone_key()).unwrap())
}

#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// TLS on a connection, before its handshake, which the first read or write does.
pub fn secure(stream: TcpStream, config: ClientConfig, name: &str) -> Client {
    let stream = Peer::new(stream).stream;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream)
}

/// The same for a server.
pub fn accepted(peer: Peer, config: &Arc<ServerConfig>) -> Accepted {
    StreamOwned::new(ServerConnection::new(Arc::clone(config)).unwrap(), peer.stream)
}

/// Does the handshake of a client; the error is what it fails with. With TLS 1.3 a client may
/// hear only later that it is refused.
pub fn shake(client: &mut Client) -> io::Result<()> {
    while client.conn.is_handshaking() {
        client.conn.complete_io(&mut client.sock)?;
    }
    Ok(())
}

/// What a stream of bytes has to be for an [`End`].
pub trait Link: Read + Write + Send {
    fn socket(&self) -> SockRef<'_>;
    /// No more bytes from us, said as the protocol says it.
    fn finish(&mut self) -> io::Result<()>;
}

impl Link for TcpStream {
    fn socket(&self) -> SockRef<'_> {
        SockRef::from(self)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Link for UnixStream {
    fn socket(&self) -> SockRef<'_> {
        SockRef::from(self)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Link for Client {
    fn socket(&self) -> SockRef<'_> {
        SockRef::from(&self.sock)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.conn.send_close_notify();
        self.flush()
    }
}

impl Link for Accepted {
    fn socket(&self) -> SockRef<'_> {
        SockRef::from(&self.sock)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.conn.send_close_notify();
        self.flush()
    }
}

/// One end of a connection, whatever carries it.
pub struct End {
    pub link: Box<dyn Link>,
    ahead: Vec<u8>,
}

impl End {
    pub fn new(link: impl Link + 'static) -> Self {
        link.socket().set_read_timeout(Some(PATIENCE)).unwrap();
        link.socket().set_write_timeout(Some(PATIENCE)).unwrap();
        Self { link: Box::new(link), ahead: Vec::new() }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.link.write_all(bytes).unwrap();
        self.link.flush().unwrap();
    }

    pub fn finish(&mut self) {
        self.link.finish().unwrap();
    }

    /// Reads once more; false at the orderly end: under TLS, that is a close_notify.
    fn more(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        let n = self.link.read(&mut buffer)?;
        self.ahead.extend_from_slice(&buffer[..n]);
        Ok(n > 0)
    }

    /// The next head, its empty line included.
    pub fn head(&mut self) -> String {
        loop {
            if let Some(at) = self.ahead.windows(4).position(|w| w == b"\r\n\r\n") {
                let rest = self.ahead.split_off(at + 4);
                return String::from_utf8(std::mem::replace(&mut self.ahead, rest)).unwrap();
            }
            assert!(self.more().unwrap(), "the end in a head");
        }
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Vec<u8> {
        while self.ahead.len() < n {
            assert!(self.more().unwrap(), "the end after {} bytes of {n}", self.ahead.len());
        }
        let rest = self.ahead.split_off(n);
        std::mem::replace(&mut self.ahead, rest)
    }

    pub fn expect(&mut self, bytes: &[u8]) {
        same(&self.take(bytes.len()), bytes);
    }

    /// Everything up to an orderly end.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.more().unwrap() {}
        std::mem::take(&mut self.ahead)
    }

    /// How it ends that did not end in order.
    pub fn failure(&mut self) -> ErrorKind {
        loop {
            match self.more() {
                Ok(true) => {}
                Ok(false) => panic!("an orderly end"),
                Err(error) => return error.kind(),
            }
        }
    }

    /// Sends all of `out` and takes `wanted` bytes at the same time. What was taken before, and
    /// nobody reads, does not stop it.
    pub fn exchange(&mut self, out: &[u8], wanted: usize) -> Vec<u8> {
        let end = Instant::now() + 3 * PATIENCE;
        self.link.socket().set_nonblocking(true).unwrap();
        let mut sent = 0;
        while sent < out.len() || self.ahead.len() < wanted {
            let mut moved = false;
            if sent < out.len() {
                if let Some(n) = ready(self.link.write(&out[sent..])) {
                    (sent, moved) = (sent + n, true);
                }
            } else {
                ready(self.link.flush());
            }
            if self.ahead.len() < wanted
                && let Some(more) = ready(self.more())
            {
                assert!(more, "the end after {} bytes of {wanted}", self.ahead.len());
                moved = true;
            }
            assert!(Instant::now() < end, "{sent} sent, {} of {wanted} here", self.ahead.len());
            if !moved {
                thread::sleep(Duration::from_millis(1));
            }
        }
        self.link.socket().set_nonblocking(false).unwrap();
        if !out.is_empty() {
            self.link.flush().unwrap();
        }
        self.take(wanted)
    }

    /// Sends `bytes` over and over until nothing was taken for half a second; how many were. More
    /// than `most`: a panic.
    pub fn send_until_stopped(&mut self, bytes: &[u8], most: usize) -> usize {
        self.link.socket().set_nonblocking(true).unwrap();
        let (mut sent, mut last) = (0, Instant::now());
        while last.elapsed() < Duration::from_millis(500) {
            match ready(self.link.write(&bytes[sent % bytes.len()..])) {
                Some(n) => (sent, last) = (sent + n, Instant::now()),
                None => thread::sleep(Duration::from_millis(5)),
            }
            assert!(sent <= most, "{sent} bytes were taken from who nobody reads");
        }
        self.link.socket().set_nonblocking(false).unwrap();
        sent
    }

    /// Closes with a reset.
    pub fn reset(self) {
        self.link.socket().set_linger(Some(Duration::ZERO)).unwrap();
    }
}

impl Frames for End {
    fn send(&mut self, bytes: &[u8]) {
        End::send(self, bytes);
    }

    fn take(&mut self, n: usize) -> Vec<u8> {
        End::take(self, n)
    }

    fn rest(&mut self) -> Vec<u8> {
        End::rest(self)
    }
}

/// What came of an attempt that may have to wait.
fn ready<T>(result: io::Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

/// Panics, in a few words, unless both are the same.
pub fn same(found: &[u8], expected: &[u8]) {
    let differ = found.iter().zip(expected).position(|(a, b)| a != b);
    let (found, expected) = (found.len(), expected.len());
    assert!(differ.is_none() && found == expected, "{found} of {expected}, differ at {differ:?}");
}

/// Bytes that differ from place to place.
pub fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at / 7) as u8 ^ (at >> 9) as u8 ^ (at >> 16) as u8 ^ seed).collect()
}

pub fn shown(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// [`shake`] for a server.
pub fn shake_server(server: &mut Accepted) -> io::Result<()> {
    while server.conn.is_handshaking() {
        server.conn.complete_io(&mut server.sock)?;
    }
    Ok(())
}
