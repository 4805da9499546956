use rustls::version::{TLS12, TLS13};

use super::*;

fn with_certificate(authority: &Authority, files: &CertificateFiles) -> Arc<ClientConfig> {
    Arc::new(client(&ClientFiles {
        ca: Some(authority.ca()),
        certificate: Some(files.clone()),
        ..ClientFiles::default()
    }))
}

/// Trusts everybody and speaks one version.
fn speaking(version: &'static rustls::SupportedProtocolVersion) -> ClientConfig {
    let base = anyone();
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(client::AnyCertificate {
            algorithms: provider().signature_verification_algorithms,
        }))
        .with_no_client_auth();
    config.alpn_protocols = base.alpn_protocols;
    config
}

#[tokio::test]
async fn client_certificates() {
    let authority = Authority::new();
    let own = authority.issue("server", &["a.example"]);
    let good = authority.issue("good", &["client"]);
    let stranger = Authority::named("stranger");
    // Issued by somebody else in the name of the same CA, so that it is shown.
    let forger = Authority::new();
    let bad = forger.issue("bad", &["client"]);
    let unknown = stranger.issue("unknown", &["client"]);

    let none = Arc::new(authority.client());
    let good_client = with_certificate(&authority, &good.files);
    let bad_client = with_certificate(&authority, &bad.files);
    let unknown_client = with_certificate(&authority, &unknown.files);
    for only_tls13 in [false, true] {
        for optional in [false, true] {
            let server = server(&ServerFiles {
                client_ca: Some(authority.ca()),
                client_optional: optional,
                only_tls13,
                ..server_files(&[&own])
            });
            let shaken = shake(&server, &good_client, "a.example").await;
            assert!(shaken.server.unwrap().certificate == Some(good.der.clone()));
            let shaken = shake(&server, &none, "a.example").await;
            match shaken.server {
                Ok(side) => assert!(optional && side.certificate.is_none()),
                Err(error) => {
                    assert!(!optional);
                    assert_eq!(explain(&error), "no_certificate");
                    let told = shaken.client.unwrap_err();
                    assert_eq!(explain(&told), "no_certificate");
                }
            }
            for client in [&bad_client, &unknown_client] {
                let shaken = shake(&server, client, "a.example").await;
                assert_eq!(explain(&shaken.server.unwrap_err()), "bad_certificate");
                let told = explain(&shaken.client.unwrap_err());
                assert!(["certificate_refused", "other"].contains(&told), "{told}");
            }
        }
    }
}

#[tokio::test]
async fn versions() {
    let authority = Authority::new();
    let own = authority.issue("server", &["a.example"]);
    let old = Arc::new(speaking(&TLS12));
    let new = Arc::new(speaking(&TLS13));
    let both = server(&server_files(&[&own]));
    let only_new = server(&ServerFiles { only_tls13: true, ..server_files(&[&own]) });

    let table = [
        (&both, &old, Some(ProtocolVersion::TLSv1_2)),
        (&both, &new, Some(ProtocolVersion::TLSv1_3)),
        (&only_new, &new, Some(ProtocolVersion::TLSv1_3)),
        (&only_new, &old, None),
    ];
    for (server, client, expected) in table {
        let shaken = shake(server, client, "a.example").await;
        match shaken.server {
            Ok(side) => assert_eq!(side.version, expected),
            Err(error) => {
                assert_eq!(expected, None);
                assert_eq!(explain(&error), "protocol_version");
                assert_eq!(explain(&shaken.client.unwrap_err()), "protocol_version");
            }
        }
    }
}

#[tokio::test]
async fn application_protocols() {
    let authority = Authority::new();
    let own = authority.issue("server", &["a.example"]);
    let server = server(&server_files(&[&own]));
    let table: [(&[&str], Option<Option<&str>>); 4] = [
        (&["http/1.1"], Some(Some("http/1.1"))),
        (&["h2", "http/1.1"], Some(Some("http/1.1"))),
        (&[], Some(None)),
        (&["h2"], None),
    ];
    for (offered, expected) in table {
        let mut client = authority.client();
        client.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let shaken = shake(&server, &Arc::new(client), "a.example").await;
        match (shaken.server, expected) {
            (Ok(side), Some(expected)) => {
                assert_eq!(side.alpn.as_deref(), expected.map(str::as_bytes), "{offered:?}");
            }
            (Err(error), None) => {
                assert_eq!(explain(&error), "alpn");
                assert_eq!(explain(&shaken.client.unwrap_err()), "alpn");
            }
            (side, expected) => panic!("{offered:?}: {side:?} instead of {expected:?}"),
        }
    }
}

#[test]
fn nothing_logs_keys() {
    let authority = Authority::new();
    let own = authority.issue("server", &["a.example"]);
    assert!(!server(&server_files(&[&own])).key_log.will_log("CLIENT_RANDOM"));
    assert!(!authority.client().key_log.will_log("CLIENT_RANDOM"));
}
