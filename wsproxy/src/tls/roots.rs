//! CAs that are trusted.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use super::pem;
use super::problem::BadFiles;

/// The CAs of a file.
pub(super) struct Roots {
    pub(super) store: Arc<RootCertStore>,
    /// What they were made of.
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

/// Reads the CAs of a file. None: a problem was told.
pub(super) fn load(path: &Path, found: &mut BadFiles) -> Option<Roots> {
    let certificates = match pem::certificates(path) {
        Ok(certificates) => certificates,
        Err(message) => {
            found.problem(path, message);
            return None;
        }
    };
    let mut store = RootCertStore::empty();
    let (added, ignored) = store.add_parsable_certificates(certificates.iter().cloned());
    if added == 0 {
        found.problem(path, "none of the certificates can be read");
        return None;
    }
    if ignored > 0 {
        found.warn(path, format!("{ignored} certificates cannot be read and are not trusted"));
    }
    Some(Roots { store: Arc::new(store), certificates })
}

/// The CAs that the system trusts, read at the first use and then shared: one
/// of these is meant for all upstreams of a configuration.
#[derive(Debug, Default)]
pub struct SystemRoots {
    loaded: OnceLock<Result<Arc<RootCertStore>, String>>,
}

impl SystemRoots {
    pub(super) fn get(&self) -> Result<Arc<RootCertStore>, String> {
        self.loaded.get_or_init(read_system).clone()
    }

    #[cfg(test)]
    pub(super) fn fixed(loaded: Result<Arc<RootCertStore>, String>) -> Self {
        Self { loaded: OnceLock::from(loaded) }
    }
}

fn read_system() -> Result<Arc<RootCertStore>, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    let (added, _) = store.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(Arc::new(store));
    }
    let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
    Err(format!("this system has no CA certificates{why}: install them or set `ca`"))
}
