//! TLS configurations: certificates and CAs are read from PEM files, checked
//! with every problem told at once, and loaded again when the files change.
//! The connections themselves are the caller's.
//!
//! ALPN is `http/1.1` on both sides, for clients also `http/1.0` (RFC 7301). Session keys are never logged.

mod certificate;
mod client;
mod failure;
#[cfg(feature = "otel")]
mod outbound;
mod pem;
mod problem;
mod reload;
mod resumption;
mod roots;
mod server;
mod sni;
mod validity;
mod verifier;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::crypto::{CryptoProvider, ring};

pub use client::{ClientFiles, load_client};
pub use failure::{FAILURES, explain, explain_tls, plain_http_answer};
#[cfg(feature = "otel")]
pub(crate) use outbound::Outbound;
pub use pem::FILE_BYTES_MAX;
pub use problem::{BadFiles, CertificateFacts, FileProblem, Loaded};
pub use reload::{ClientSource, LOOK_MIN, Reloading, ServerSource, Source};
pub use resumption::{Resumption, SESSIONS_MAX};
pub use roots::SystemRoots;
pub use server::{CERTIFICATES_MAX, ServerFiles, load_server};
pub(crate) use verifier::ServerVerifier;

/// The one application protocol that is spoken over TLS (RFC 7301 section 6).
const ALPN: &[u8] = b"http/1.1";

/// The PEM files of a certificate. Both may be the same file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, then the intermediate ones in order.
    pub certificate: PathBuf,
    /// Its private key, not encrypted: PKCS #8, PKCS #1 (RSA) or SEC 1 (EC).
    pub key: PathBuf,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
