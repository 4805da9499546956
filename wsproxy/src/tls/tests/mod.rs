use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion, ServerConfig};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

mod choice;
mod clients;
mod failures;
mod files;
mod reloading;
mod resuming;
mod upstream;

/// A CA and a directory for what it issues.
struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        Self::named("test CA")
    }

    fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let this = Self { folder: TempDir::new().unwrap(), issuer };
        this.write("ca.pem", this.certificate().pem());
        this
    }

    fn certificate(&self) -> &Certificate {
        self.issuer.as_ref()
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn write(&self, file: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(file);
        fs::write(&path, text).unwrap();
        private(&path);
        path
    }

    fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    fn sign(&self, names: &[&str], key: &KeyPair) -> Certificate {
        params(names).signed_by(key, &self.issuer).unwrap()
    }

    /// A certificate for `names`, in `stem.pem` and `stem.key`.
    fn issue(&self, stem: &str, names: &[&str]) -> Issued {
        self.issue_for(stem, names, &KeyPair::generate().unwrap())
    }

    fn issue_for(&self, stem: &str, names: &[&str], key: &KeyPair) -> Issued {
        let certificate = self.sign(names, key);
        let files = CertificateFiles {
            certificate: self.write(&format!("{stem}.pem"), certificate.pem()),
            key: self.write(&format!("{stem}.key"), key.serialize_pem()),
        };
        Issued { files, der: certificate.der().clone() }
    }

    /// Trusts this CA, and shows nothing.
    fn client(&self) -> ClientConfig {
        let files = ClientFiles { ca: Some(self.ca()), ..ClientFiles::default() };
        client(&files)
    }
}

struct Issued {
    files: CertificateFiles,
    der: CertificateDer<'static>,
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    CertificateParams::new(names).unwrap()
}

fn private(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn client(files: &ClientFiles) -> ClientConfig {
    (*load_client(files, &SystemRoots::default()).unwrap().config).clone()
}

/// Trusts everybody.
fn anyone() -> ClientConfig {
    client(&ClientFiles { verify: false, ..ClientFiles::default() })
}

fn server_files(certificates: &[&Issued]) -> ServerFiles {
    ServerFiles {
        certificates: certificates.iter().map(|issued| issued.files.clone()).collect(),
        ..ServerFiles::default()
    }
}

fn server(files: &ServerFiles) -> Arc<ServerConfig> {
    load_server(files, &Resumption::default()).unwrap().config
}

/// An RSA key, if openssl is here: ring makes none.
fn rsa_key() -> Option<KeyPair> {
    let made = Command::new("openssl")
        .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
        .output();
    let Ok(made) = made.map(|made| made.stdout) else {
        eprintln!("skipped: no openssl");
        return None;
    };
    Some(KeyPair::from_pem(&String::from_utf8(made).unwrap()).unwrap())
}

/// What each side came to.
struct Shaken {
    server: io::Result<Side>,
    client: io::Result<Side>,
}

#[derive(Debug)]
struct Side {
    certificate: Option<CertificateDer<'static>>,
    kind: Option<HandshakeKind>,
    version: Option<ProtocolVersion>,
    alpn: Option<Vec<u8>>,
}

impl Side {
    fn of(connection: &rustls::CommonState) -> Self {
        Self {
            certificate: connection
                .peer_certificates()
                .and_then(|chain| chain.first())
                .map(|it| it.clone().into_owned()),
            kind: connection.handshake_kind(),
            version: connection.protocol_version(),
            alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
        }
    }
}

/// A handshake, and a byte in both directions: tickets come after it.
async fn shake(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>, name: &str) -> Shaken {
    let (near, far) = tokio::io::duplex(64 << 10);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let both = async {
        tokio::join!(
            accept(TlsAcceptor::from(Arc::clone(server)), near),
            connect(TlsConnector::from(Arc::clone(client)), name, far)
        )
    };
    let (server, client) = tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
    Shaken { server, client }
}

async fn accept(acceptor: TlsAcceptor, stream: DuplexStream) -> io::Result<Side> {
    let mut stream = acceptor.accept(stream).await?;
    stream.read_u8().await?;
    stream.write_u8(1).await?;
    stream.shutdown().await?;
    Ok(Side::of(stream.get_ref().1))
}

async fn connect(
    connector: TlsConnector,
    name: ServerName<'static>,
    stream: DuplexStream,
) -> io::Result<Side> {
    let mut stream = connector.connect(name, stream).await?;
    stream.write_u8(1).await?;
    stream.read_u8().await?;
    Ok(Side::of(stream.get_ref().1))
}

/// The certificate that a client which asks for `name` is shown.
async fn shown(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
    name: &str,
) -> CertificateDer<'static> {
    let shaken = shake(server, client, name).await;
    shaken.server.unwrap();
    shaken.client.unwrap().certificate.unwrap()
}
