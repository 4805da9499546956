//! Whether a server is who it has to be.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::validity::Validity;

/// Verifies servers by their CAs as webpki does (RFC 5280 section 6), and takes besides a server
/// whose certificate is, byte for byte, one of those that were given as trusted.
///
/// webpki refuses each CA as a server, also where it is trusted itself. But `openssl req -x509`
/// makes CAs unless told otherwise, and operators give such a certificate to the server and to
/// its clients. Who was told of this very certificate needs nobody to vouch for it; its dates, its
/// names and its purpose count all the same, and so does the proof that the server has its key.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    authorities: Arc<WebPkiServerVerifier>,
    given: Vec<CertificateDer<'static>>,
}

impl ServerVerifier {
    /// `given` is what was given by hand to be trusted; none for the system's CAs.
    ///
    /// # Errors
    /// There is no root.
    pub(crate) fn new(
        roots: Arc<RootCertStore>,
        given: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, VerifierBuilderError> {
        let builder = WebPkiServerVerifier::builder_with_provider(roots, provider);
        Ok(Self { authorities: builder.build()?, given })
    }
}

/// Whether a certificate that is trusted itself holds for this server and now.
fn check_given(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<ServerCertVerified, Error> {
    // It also refuses critical extensions that nobody here understands.
    let parsed = ParsedCertificate::try_from(certificate)?;
    let validity = Validity::of(certificate).ok_or(CertificateError::BadEncoding)?;
    let time = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if time < validity.not_before {
        let not_before = moment(validity.not_before);
        return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
    }
    if time > validity.not_after {
        let not_after = moment(validity.not_after);
        return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
    }
    if !is_for_servers(certificate).ok_or(CertificateError::BadEncoding)? {
        return Err(CertificateError::InvalidPurpose.into());
    }
    verify_server_name(&parsed, name)?;
    Ok(ServerCertVerified::assertion())
}

/// No extended key usage, or one with serverAuth (RFC 5280 section 4.2.1.12). None: unreadable.
fn is_for_servers(certificate: &[u8]) -> Option<bool> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let usage = parsed.extended_key_usage().ok()?;
    Some(usage.is_none_or(|usage| usage.value.server_auth))
}

fn moment(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let vouched = self.authorities.verify_server_cert(
            end_entity,
            intermediates,
            name,
            ocsp_response,
            now,
        );
        match vouched {
            Err(_) if self.given.iter().any(|given| given == end_entity) => {
                check_given(end_entity, name, now)
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}
