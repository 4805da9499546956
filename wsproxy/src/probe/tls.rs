//! The TLS handshake (RFC 8446), and what its certificate says.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::net::TcpStream;
use tokio::time::{self, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{self, CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    self, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use super::certificate::Certificate;
use super::explain;
use super::outcome::{Finding, Outcome};
use super::report::{Report, Step, Stop};
use super::shown::shown;
use crate::tls::ServerVerifier;

/// Largest file of `--ca`, in bytes: 4 MiB.
const MAX_CA_BYTES: u64 = 4 << 20;

/// Whose certificates to accept.
#[derive(Debug)]
pub(super) struct Trust {
    roots: RootCertStore,
    /// The certificates of the file.
    given: Vec<CertificateDer<'static>>,
    /// Any certificate is accepted.
    insecure: bool,
    from_file: bool,
}

impl Trust {
    /// The certificates of `ca`, or those of the system. The error is a
    /// sentence without its full stop.
    pub(super) fn load(ca: Option<&Path>, insecure: bool) -> Result<Self, String> {
        let (mut roots, mut given) = (RootCertStore::empty(), Vec::new());
        if let Some(path) = ca {
            let fail = |why: String| format!("--ca {}: {why}", path.display());
            given = read_pem(path).map_err(|error| fail(error.to_string()))?;
            let (added, _) = roots.add_parsable_certificates(given.iter().cloned());
            if added == 0 {
                return Err(fail("no certificate in it (it must be PEM)".to_owned()));
            }
        } else {
            // What is missing shows as an issuer that is not known.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Ok(Self { roots, given, insecure, from_file: ca.is_some() })
    }
}

fn read_pem(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_CA_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_CA_BYTES {
        return Err(io::Error::other(format!("longer than {MAX_CA_BYTES} bytes")));
    }
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    found.map_err(|error| io::Error::other(error.to_string()))
}

/// Random bytes.
pub(super) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let random = ring::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| io::Error::other("no random numbers"))?;
    Ok(bytes)
}

/// Speaks TLS to the server called `host`.
pub(super) async fn handshake<W: Write>(
    tcp: TcpStream,
    host: &str,
    trust: Trust,
    report: &mut Report<'_, W>,
    until: time::Instant,
) -> Result<TlsStream<TcpStream>, Stop> {
    let scope = explain::Trusted { file: trust.from_file, none: trust.roots.is_empty() };
    let bad_name = |_| {
        let summary = format!("\"{host}\" can't be the name of a TLS server");
        Stop::Found(Finding::new(Outcome::Usage, summary, Vec::new()))
    };
    let name = ServerName::try_from(host.to_owned()).map_err(bad_name)?;
    let recorder = Arc::new(Recorder::new(trust));
    let config = config(Arc::clone(&recorder)).map_err(io::Error::other)?;
    let started = Instant::now();
    let connector = TlsConnector::from(Arc::new(config));
    let result = timeout_at(until, connector.connect(name, tcp)).await;
    let step = Step::new("tls").took(started.elapsed());
    let (certificate, failure) = recorder.seen();
    let hints = |error| explain::certificate(error, host, &scope);
    match result {
        Ok(Ok(stream)) => {
            let step = described(step, &stream);
            let step = with_certificate(step, certificate, failure.as_ref());
            report.step(step)?;
            if let Some(error) = &failure {
                let words = hints(error).summary;
                report.note(format!("without --insecure the probe would end here: {words}"));
            }
            Ok(stream)
        }
        Ok(Err(error)) => {
            let finding = match explain::rustls_of(&error) {
                Some(rustls::Error::InvalidCertificate(why)) => hints(why),
                _ => explain::tls(&error),
            };
            let step = step.error(&shown(error.to_string().as_bytes(), 512));
            report.step(with_certificate(step, certificate, failure.as_ref()))?;
            Err(finding.into())
        }
        Err(_) => {
            report.step(step.error("no answer"))?;
            Err(explain::timeout(explain::Phase::Tls).into())
        }
    }
}

fn config(recorder: Arc<Recorder>) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::clone(&recorder.provider);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(recorder)
        .with_no_client_auth();
    // WebSocket over HTTP/2 (RFC 8441) is another handshake.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn described(step: Step, stream: &TlsStream<TcpStream>) -> Step {
    let (_, tls) = stream.get_ref();
    let version = match tls.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2",
        _ => "TLS",
    };
    let cipher = tls.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()));
    let cipher = cipher.unwrap_or_default();
    let alpn = tls.alpn_protocol().map(|name| shown(name, 64));
    let shown_alpn = alpn.as_deref().unwrap_or("none");
    step.line(format!("{version}, {cipher}, ALPN {shown_alpn}"))
        .detail("version", version)
        .detail("cipher", cipher)
        .detail("alpn", alpn)
}

fn with_certificate(
    step: Step,
    der: Option<CertificateDer<'static>>,
    failure: Option<&CertificateError>,
) -> Step {
    let Some(der) = der else { return step };
    let step = step.detail("verified", failure.is_none());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    match Certificate::read(&der, i64::try_from(now).unwrap_or(i64::MAX)) {
        Some(read) => step.lines("", &read.lines()).detail("certificate", read.json()),
        None => step.line("certificate: can't be read"),
    }
}

/// Verifies as ever, and keeps what it saw for the report.
#[derive(Debug)]
struct Recorder {
    provider: Arc<CryptoProvider>,
    /// `None` where no CA is trusted.
    inner: Option<ServerVerifier>,
    insecure: bool,
    seen: Mutex<(Option<CertificateDer<'static>>, Option<CertificateError>)>,
}

impl Recorder {
    fn new(trust: Trust) -> Self {
        let provider = Arc::new(ring::default_provider());
        let roots = Arc::new(trust.roots);
        let inner = ServerVerifier::new(roots, trust.given, Arc::clone(&provider)).ok();
        let insecure = trust.insecure;
        Self { provider, inner, insecure, seen: Mutex::default() }
    }

    fn seen(&self) -> (Option<CertificateDer<'static>>, Option<CertificateError>) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let result = match &self.inner {
            None => Err(CertificateError::UnknownIssuer.into()),
            Some(inner) => {
                inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
        };
        let failure = match &result {
            Ok(_) => None,
            Err(rustls::Error::InvalidCertificate(error)) => Some(error.clone()),
            Err(_) => Some(CertificateError::BadEncoding),
        };
        let seen = (Some(end_entity.clone().into_owned()), failure);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        if self.insecure { Ok(ServerCertVerified::assertion()) } else { result }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // Who owns the key of a certificate that anybody may have made says
        // nothing, and old certificates can't even be checked.
        if self.insecure {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if self.insecure {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
