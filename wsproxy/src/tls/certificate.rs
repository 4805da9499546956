//! A certificate with its chain and its private key.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{Error, InconsistentKeys};
use webpki::EndEntityCert;

use super::CertificateFiles;
use super::pem;
use super::problem::{BadFiles, CertificateFacts};
use super::validity::Validity;

/// The most certificates of a chain. Clients take 64 KiB of them at most, and a
/// whole bundle of CAs is here by mistake.
const CHAIN_MAX: usize = 16;

/// A certificate that can be shown.
pub(super) struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) facts: CertificateFacts,
}

/// Reads a certificate and its key. `now` is in seconds since 1970. None: a
/// problem was told.
pub(super) fn load(
    files: &CertificateFiles,
    provider: &CryptoProvider,
    now: i64,
    found: &mut BadFiles,
) -> Option<Certificate> {
    let chain = read_chain(&files.certificate, found);
    let key = read_key(&files.key, provider, found);
    let (names, chain) = chain.and_then(|chain| {
        let names = names(&files.certificate, &chain, found)?;
        warn_of_validity(&files.certificate, &chain, now, found);
        warn_of_order(&files.certificate, &chain, found);
        Some((names, chain))
    })?;
    let expires = chain.first().and_then(|leaf| Validity::of(leaf)).and_then(Validity::expires);
    let certified = Arc::new(CertifiedKey::new(chain, key?));
    check_pair(files, &certified, found)?;
    let facts = CertificateFacts { path: files.certificate.clone(), names, expires };
    Some(Certificate { key: certified, facts })
}

fn read_chain(path: &Path, found: &mut BadFiles) -> Option<Vec<CertificateDer<'static>>> {
    match pem::certificates(path) {
        Ok(chain) if chain.len() > CHAIN_MAX => {
            found.problem(
                path,
                format!("has {} certificates: a chain has {CHAIN_MAX} at most", chain.len()),
            );
            None
        }
        Ok(chain) => Some(chain),
        Err(message) => {
            found.problem(path, message);
            None
        }
    }
}

fn read_key(
    path: &Path,
    provider: &CryptoProvider,
    found: &mut BadFiles,
) -> Option<Arc<dyn SigningKey>> {
    let key = match pem::key(path) {
        Ok(key) => key,
        Err(message) => {
            found.problem(path, message);
            return None;
        }
    };
    if key.open_to_all {
        found.warn(path, "every user can read this private key: take the right away (chmod o-r)");
    }
    let Ok(key) = provider.key_provider.load_private_key(key.der) else {
        found.problem(
            path,
            "the private key is damaged or of a kind that is not supported: RSA with 2048 to \
             8192 bits, ECDSA with P-256 or P-384 and Ed25519 are",
        );
        return None;
    };
    Some(key)
}

/// The DNS names of the first certificate, in lower case.
fn names(
    path: &Path,
    chain: &[CertificateDer<'static>],
    found: &mut BadFiles,
) -> Option<Vec<String>> {
    match EndEntityCert::try_from(chain.first()?) {
        Ok(leaf) => Some(leaf.valid_dns_names().map(str::to_ascii_lowercase).collect()),
        Err(error) => {
            found.problem(path, format!("the certificate and its names cannot be read: {error}"));
            None
        }
    }
}

fn warn_of_validity(
    path: &Path,
    chain: &[CertificateDer<'static>],
    now: i64,
    found: &mut BadFiles,
) {
    for (index, certificate) in chain.iter().enumerate() {
        let Some(warning) = Validity::of(certificate).and_then(|it| it.warning(now)) else {
            continue;
        };
        let which = match index {
            0 => "the certificate".to_owned(),
            _ => format!("certificate {} of the chain", index + 1),
        };
        found.warn(path, format!("{which} {warning}"));
    }
}

/// Every certificate is to be followed by that of its issuer: TLS 1.2 clients
/// may insist (RFC 5246 section 7.4.2; RFC 8446 section 4.4.2 is milder).
fn warn_of_order(path: &Path, chain: &[CertificateDer<'static>], found: &mut BadFiles) {
    for (index, pair) in chain.windows(2).enumerate() {
        let [lower, upper] = pair else { continue };
        let issued = match (EndEntityCert::try_from(lower), EndEntityCert::try_from(upper)) {
            (Ok(lower), Ok(upper)) => lower.issuer() == upper.subject(),
            _ => continue,
        };
        if !issued {
            found.warn(
                path,
                format!(
                    "certificate {} of the chain did not issue the one before it: clients may \
                     not trust it",
                    index + 2
                ),
            );
        }
    }
}

fn check_pair(
    files: &CertificateFiles,
    certified: &CertifiedKey,
    found: &mut BadFiles,
) -> Option<()> {
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Some(()),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            found.problem(&files.key, mismatch(files, certified));
            None
        }
        Err(error) => {
            found.problem(&files.certificate, format!("the certificate cannot be used: {error}"));
            None
        }
    }
}

fn mismatch(files: &CertificateFiles, certified: &CertifiedKey) -> String {
    let file = files.certificate.display();
    let other = certified.cert.iter().position(|certificate| {
        CertifiedKey::new(vec![certificate.clone()], Arc::clone(&certified.key))
            .keys_match()
            .is_ok()
    });
    match other {
        Some(index) => format!(
            "the private key belongs to certificate {} of {file}: that one must come first",
            index + 1
        ),
        None => format!("the private key does not belong to the certificate of {file}"),
    }
}
