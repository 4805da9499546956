use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::version::{TLS12, TLS13};
use rustls::{SignatureAlgorithm, SignatureScheme, SupportedProtocolVersion};

use super::super::client::AnyCertificate;
use super::*;

/// A client that trusts everybody and knows one kind of signature and one
/// version.
fn client_of(
    kind: SignatureAlgorithm,
    version: &'static SupportedProtocolVersion,
) -> Arc<ClientConfig> {
    let base = provider();
    let algorithms = base.signature_verification_algorithms;
    let mapping: Vec<_> = algorithms
        .mapping
        .iter()
        .filter(|(scheme, _)| match kind {
            SignatureAlgorithm::ECDSA => *scheme == SignatureScheme::ECDSA_NISTP256_SHA256,
            _ => !matches!(
                scheme,
                SignatureScheme::ECDSA_NISTP256_SHA256
                    | SignatureScheme::ECDSA_NISTP384_SHA384
                    | SignatureScheme::ED25519
            ),
        })
        .copied()
        .collect();
    let algorithms = WebPkiSupportedAlgorithms {
        all: algorithms.all,
        mapping: Box::leak(mapping.into_boxed_slice()),
    };
    let provider =
        CryptoProvider { signature_verification_algorithms: algorithms, ..(*base).clone() };
    Arc::new(
        ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate { algorithms }))
            .with_no_client_auth(),
    )
}

#[tokio::test]
async fn certificates_are_chosen_by_name() {
    let authority = Authority::new();
    let first = authority.issue("first", &["first.example", "shared.example"]);
    let second = authority.issue("second", &["Second.Example", "shared.example"]);
    let wild = authority.issue("wild", &["*.example.com"]);
    let exact = authority.issue("exact", &["a.example.com"]);
    let server = server(&server_files(&[&first, &second, &wild, &exact]));
    let client = Arc::new(anyone());
    let table = [
        ("first.example", &first),
        ("second.example", &second),
        ("SECOND.example", &second),
        ("shared.example", &first),
        ("a.example.com", &exact),
        ("b.example.com", &wild),
        ("B.Example.Com", &wild),
        ("example.com", &first),
        ("a.b.example.com", &first),
        ("unknown.example", &first),
        // No name is sent for an address (RFC 6066 section 3).
        ("192.0.2.1", &first),
    ];
    for (name, expected) in table {
        assert!(shown(&server, &client, name).await == expected.der, "{name}");
    }
    let mut nameless = anyone();
    nameless.enable_sni = false;
    let nameless = Arc::new(nameless);
    assert!(shown(&server, &nameless, "second.example").await == first.der);
}

#[tokio::test]
async fn the_kind_of_key_is_one_the_client_knows() {
    let Some(key) = rsa_key() else { return };
    let authority = Authority::new();
    let ecdsa = authority.issue("ecdsa", &["a.example", "*.b.example"]);
    let rsa = authority.issue_for("rsa", &["*.b.example", "a.example"], &key);
    let other = authority.issue("other", &["other.example"]);
    let both = Arc::new(anyone());
    let server = server(&server_files(&[&ecdsa, &rsa, &other]));
    for version in [&TLS12, &TLS13] {
        let rsa_only = client_of(SignatureAlgorithm::RSA, version);
        let ecdsa_only = client_of(SignatureAlgorithm::ECDSA, version);
        for name in ["a.example", "x.b.example", "unknown.example"] {
            assert!(shown(&server, &ecdsa_only, name).await == ecdsa.der, "{name}");
            assert!(shown(&server, &rsa_only, name).await == rsa.der, "{name}");
            assert!(shown(&server, &both, name).await == ecdsa.der, "{name}");
        }
        // Nothing fits: the handshake fails for that reason, not for want of a
        // certificate.
        let shaken = shake(&server, &rsa_only, "other.example").await;
        assert_eq!(explain(&shaken.server.unwrap_err()), "no_shared_cipher");
    }
}

#[tokio::test]
async fn a_wildcard_helps_where_the_exact_key_does_not_fit() {
    let Some(key) = rsa_key() else { return };
    let authority = Authority::new();
    let exact = authority.issue("exact", &["a.example.com"]);
    let wild = authority.issue_for("wild", &["*.example.com"], &key);
    let server = server(&server_files(&[&exact, &wild]));
    let rsa_only = client_of(SignatureAlgorithm::RSA, &TLS13);
    assert!(shown(&server, &rsa_only, "a.example.com").await == wild.der);
    assert!(shown(&server, &Arc::new(anyone()), "a.example.com").await == exact.der);
}
