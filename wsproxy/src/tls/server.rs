//! Configurations of listeners.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::{TLS12, TLS13};

use super::certificate::{self, Certificate};
use super::problem::{BadFiles, Loaded};
use super::resumption::{ClientRule, Resumption};
use super::roots;
use super::sni::ByName;
use super::{ALPN, CertificateFiles, now, provider};

/// Most certificates of a listener.
pub const CERTIFICATES_MAX: usize = 1_024;

/// How many tickets a client of TLS 1.3 gets (RFC 8446 section 4.6.1): browsers
/// open a second connection.
const TICKETS: usize = 2;

/// What a listener's configuration is made of: `[listener.tls]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerFiles {
    /// The certificates, 1 to [`CERTIFICATES_MAX`]. The first is for clients
    /// that ask for no name or an unknown one.
    pub certificates: Vec<CertificateFiles>,
    /// The CAs of client certificates; none: clients are not asked for one.
    pub client_ca: Option<PathBuf>,
    /// A client without a certificate is let in. One with a bad certificate
    /// is not.
    pub client_optional: bool,
    /// TLS 1.2 is not spoken.
    pub only_tls13: bool,
}

/// Makes a listener's configuration. Clients keep the sessions of
/// `resumption`, which belongs to this listener alone.
///
/// # Errors
///
/// All that is wrong with the files.
pub fn load_server(
    files: &ServerFiles,
    resumption: &Resumption,
) -> Result<Loaded<ServerConfig>, BadFiles> {
    load_at(files, resumption, now())
}

/// [`load_server`] at another time, in seconds since 1970.
pub(super) fn load_at(
    files: &ServerFiles,
    resumption: &Resumption,
    now: i64,
) -> Result<Loaded<ServerConfig>, BadFiles> {
    let provider = provider();
    let mut found = BadFiles::default();
    let certificates = load_certificates(files, &provider, now, &mut found);
    let clients = load_clients(files, &provider, &mut found);
    let Some(clients) = clients.filter(|_| found.problems.is_empty()) else {
        return Err(found);
    };
    let mut config = match build(files, provider, &certificates, clients.verifier) {
        Ok(config) => config,
        Err(error) => {
            found.problem(Path::new(""), error.to_string());
            return Err(found);
        }
    };
    resumption.apply(clients.rule, &mut config);
    Ok(Loaded {
        config: Arc::new(config),
        certificates: certificates.into_iter().map(|it| it.facts).collect(),
        warnings: found.warnings,
    })
}

fn load_certificates(
    files: &ServerFiles,
    provider: &CryptoProvider,
    now: i64,
    found: &mut BadFiles,
) -> Vec<Certificate> {
    let count = files.certificates.len();
    if count == 0 || count > CERTIFICATES_MAX {
        found.problem(
            Path::new(""),
            format!("a TLS listener has 1 to {CERTIFICATES_MAX} certificates, not {count}"),
        );
        return Vec::new();
    }
    let mut certificates = Vec::new();
    for (index, pair) in files.certificates.iter().enumerate() {
        let Some(certificate) = certificate::load(pair, provider, now, found) else { continue };
        if index > 0 && certificate.facts.names.is_empty() {
            found.warn(
                &pair.certificate,
                "no client is shown this certificate: it has no DNS name (subjectAltName) and is \
                 not the first",
            );
        }
        certificates.push(certificate);
    }
    certificates
}

/// What is asked of clients, and what checks it.
struct Clients {
    rule: ClientRule,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

/// None: a problem was told.
fn load_clients(
    files: &ServerFiles,
    provider: &Arc<CryptoProvider>,
    found: &mut BadFiles,
) -> Option<Clients> {
    let Some(path) = &files.client_ca else {
        return Some(Clients { rule: ClientRule::None, verifier: None });
    };
    let roots = roots::load(path, found)?;
    let builder = WebPkiClientVerifier::builder_with_provider(roots.store, Arc::clone(provider));
    let builder = if files.client_optional { builder.allow_unauthenticated() } else { builder };
    match builder.build() {
        Ok(verifier) => Some(Clients {
            rule: ClientRule::certificate(roots.certificates, files.client_optional),
            verifier: Some(verifier),
        }),
        Err(error) => {
            found.problem(path, error.to_string());
            None
        }
    }
}

fn build(
    files: &ServerFiles,
    provider: Arc<CryptoProvider>,
    certificates: &[Certificate],
    verifier: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<ServerConfig, rustls::Error> {
    let versions = if files.only_tls13 { &[&TLS13][..] } else { &[&TLS13, &TLS12][..] };
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(ByName::new(certificates)));
    // Old clients offer nothing but the older version, which is spoken too.
    config.alpn_protocols = vec![ALPN.to_vec(), b"http/1.0".to_vec()];
    config.send_tls13_tickets = TICKETS;
    Ok(config)
}
