//! Configurations for servers behind the gateway.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme, sign};

use super::certificate::{self, Certificate};
use super::problem::{BadFiles, Loaded};
use super::roots::{self, Roots, SystemRoots};
use super::verifier::ServerVerifier;
use super::{ALPN, CertificateFiles, now, provider};

/// What stands for the system's CAs in a problem.
const SYSTEM: &str = "system CA certificates";

/// What an upstream's configuration is made of: `[upstream.tls]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFiles {
    /// The CAs of the servers; none: the system's.
    pub ca: Option<PathBuf>,
    /// Whether the certificate of a server is checked at all. If not, anybody
    /// in between can read and change what is sent.
    pub verify: bool,
    /// Shown to servers that ask for one.
    pub certificate: Option<CertificateFiles>,
}

impl Default for ClientFiles {
    fn default() -> Self {
        Self { ca: None, verify: true, certificate: None }
    }
}

/// Makes an upstream's configuration.
///
/// # Errors
///
/// All that is wrong with the files; no CA in the system where none is given.
pub fn load_client(
    files: &ClientFiles,
    system: &SystemRoots,
) -> Result<Loaded<ClientConfig>, BadFiles> {
    let provider = provider();
    let mut found = BadFiles::default();
    let trust = load_trust(files, system, &mut found);
    let own = files
        .certificate
        .as_ref()
        .and_then(|pair| certificate::load(pair, &provider, now(), &mut found));
    let Some(trust) = trust.filter(|_| found.problems.is_empty()) else {
        return Err(found);
    };
    match build(provider, trust, own.as_ref()) {
        Ok(config) => Ok(Loaded {
            config: Arc::new(config),
            certificates: own.into_iter().map(|own| own.facts).collect(),
            warnings: found.warnings,
        }),
        Err(error) => {
            found.problem(Path::new(""), error.to_string());
            Err(found)
        }
    }
}

enum Trust {
    Roots(Roots),
    Everybody,
}

/// None: a problem was told.
fn load_trust(files: &ClientFiles, system: &SystemRoots, found: &mut BadFiles) -> Option<Trust> {
    match &files.ca {
        Some(ca) if !files.verify => {
            found.warn(ca, "is not used: the certificates of servers are not verified");
            Some(Trust::Everybody)
        }
        None if !files.verify => Some(Trust::Everybody),
        Some(ca) => roots::load(ca, found).map(Trust::Roots),
        None => match system.get() {
            Ok(store) => Some(Trust::Roots(Roots { store, certificates: Vec::new() })),
            Err(message) => {
                found.problem(Path::new(SYSTEM), message);
                None
            }
        },
    }
}

fn build(
    provider: Arc<CryptoProvider>,
    trust: Trust,
    own: Option<&Certificate>,
) -> Result<ClientConfig, Error> {
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Roots(Roots { store, certificates }) => Arc::new(
            ServerVerifier::new(store, certificates, provider)
                .map_err(|error| Error::General(error.to_string()))?,
        ),
        Trust::Everybody => Arc::new(AnyCertificate { algorithms }),
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(sign::SingleCertAndKey::from(
            Arc::clone(&own.key),
        ))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// Takes every certificate of a server that has its private key.
#[derive(Debug)]
pub(super) struct AnyCertificate {
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
