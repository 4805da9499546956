//! Which certificate a client is shown (RFC 6066 section 3).

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::Certificate;

/// Certificates for one name, in the order they were given: the first that the
/// client can check is shown.
type Keys = Vec<Arc<CertifiedKey>>;

/// Chooses by the name the client asks for: the exact name first, then a
/// wildcard for its first label (RFC 6125 section 6.4.3), then the default.
#[derive(Debug, Default)]
pub(super) struct ByName {
    names: HashMap<String, Keys>,
    /// Of `*.example.com`, under `example.com`.
    wildcards: HashMap<String, Keys>,
    /// The first certificate, and those with the very same names.
    default: Keys,
}

impl ByName {
    pub(super) fn new(certificates: &[Certificate]) -> Self {
        let mut chosen = Self::default();
        let Some(first) = certificates.first() else { return chosen };
        let first = sorted(&first.facts.names);
        for (index, certificate) in certificates.iter().enumerate() {
            if index == 0 || (!first.is_empty() && sorted(&certificate.facts.names) == first) {
                chosen.default.push(Arc::clone(&certificate.key));
            }
            for name in sorted(&certificate.facts.names) {
                let keys = match name.strip_prefix("*.") {
                    Some(parent) => chosen.wildcards.entry(parent.to_owned()),
                    None => chosen.names.entry(name.to_owned()),
                };
                keys.or_default().push(Arc::clone(&certificate.key));
            }
        }
        chosen
    }

    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let name = name.map(normal);
        let (exact, wildcard) = match &name {
            Some(name) => (self.names.get(&**name), self.wildcard(name)),
            None => (None, None),
        };
        let default = (exact.is_none() && wildcard.is_none()).then_some(&self.default);
        let mut keys = exact.into_iter().chain(wildcard).chain(default).flatten();
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        // If none fits, the handshake fails with the reason of the first.
        let first = keys.clone().next();
        keys.find(fits).or(first).cloned()
    }

    fn wildcard(&self, name: &str) -> Option<&Keys> {
        let (label, parent) = name.split_once('.')?;
        if label.is_empty() { None } else { self.wildcards.get(parent) }
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes())
    }
}

/// Without repetitions.
fn sorted(names: &[String]) -> Vec<&str> {
    let mut names: Vec<&str> = names.iter().map(|name| name.trim_end_matches('.')).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// In lower case, and without the dot of an absolute name.
fn normal(name: &str) -> Cow<'_, str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}
