use rustls::RootCertStore;

use super::*;

#[tokio::test]
async fn servers_are_verified() {
    let authority = Authority::new();
    let stranger = Authority::named("stranger");
    let own = authority.issue("server", &["b.internal", "192.0.2.1"]);
    let mut late = params(&["b.internal"]);
    late.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let key = KeyPair::generate().unwrap();
    let expired = Issued {
        der: own.der.clone(),
        files: CertificateFiles {
            certificate: authority
                .write("expired.pem", late.signed_by(&key, &authority.issuer).unwrap().pem()),
            key: authority.write("expired.key", key.serialize_pem()),
        },
    };
    let good = server(&server_files(&[&own]));
    let expired = server(&server_files(&[&expired]));
    let known = Arc::new(authority.client());
    let unknown = Arc::new(stranger.client());
    let any = Arc::new(anyone());

    let table = [
        ("the right name", &good, &known, "b.internal", None),
        ("the right address", &good, &known, "192.0.2.1", None),
        ("a wrong name", &good, &known, "c.internal", Some("bad_certificate")),
        ("a wrong address", &good, &known, "192.0.2.2", Some("bad_certificate")),
        ("an unknown CA", &good, &unknown, "b.internal", Some("bad_certificate")),
        ("expired", &expired, &known, "b.internal", Some("bad_certificate")),
        ("not verified: name", &good, &any, "c.internal", None),
        ("not verified: expired", &expired, &any, "c.internal", None),
    ];
    for (what, server, client, name, expected) in table {
        let shaken = shake(server, client, name).await;
        let failed = shaken.client.as_ref().err().map(explain);
        assert_eq!(failed, expected, "{what}");
        if expected.is_some() {
            let told = explain(&shaken.server.unwrap_err());
            assert_eq!(told, "certificate_refused", "{what}");
        } else {
            assert_eq!(shaken.client.unwrap().alpn.as_deref(), Some(ALPN), "{what}");
        }
    }
}

/// What `openssl req -x509` makes, given to the server and as `ca`; and what only looks like it.
#[tokio::test]
async fn a_server_is_trusted_by_its_own_certificate() {
    let files = Authority::new();
    let made = |stem: &str, change: &dyn Fn(&mut CertificateParams)| {
        let mut params = params(&["b.internal", "192.0.2.1"]);
        params.distinguished_name.push(DnType::CommonName, "b.internal");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Issued {
            der: certificate.der().clone(),
            files: CertificateFiles {
                certificate: files.write(&format!("{stem}.pem"), certificate.pem()),
                key: files.write(&format!("{stem}.key"), key.serialize_pem()),
            },
        }
    };
    let own = made("own", &|_| ());
    // Another key and another serial number under the same subject, issuer and names.
    let twin = made("twin", &|_| ());
    let expired = made("expired", &|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let early = made("early", &|params| params.not_before = rcgen::date_time_ymd(2999, 1, 1));
    let client_only = made("client", &|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let for_servers = made("server", &|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    // Issued by somebody who is not trusted: this one is, and only this one.
    let nobody = Authority::named("nobody");
    let issued = nobody.issue("issued", &["b.internal"]);
    let table = [
        ("itself", &own, &own, "b.internal", None),
        ("its address", &own, &own, "192.0.2.1", None),
        ("for servers", &for_servers, &for_servers, "b.internal", None),
        ("a leaf of an unknown CA", &issued, &issued, "b.internal", None),
        ("a wrong name", &own, &own, "c.internal", Some("NotValidForName")),
        ("a wrong address", &own, &own, "192.0.2.2", Some("NotValidForName")),
        ("another one", &twin, &own, "b.internal", Some("CaUsedAsEndEntity")),
        ("expired", &expired, &expired, "b.internal", Some("Expired")),
        ("not valid yet", &early, &early, "b.internal", Some("NotValidYet")),
        ("for clients only", &client_only, &client_only, "b.internal", Some("InvalidPurpose")),
    ];
    for (what, shown, trusted, name, expected) in table {
        let ca = Some(trusted.files.certificate.clone());
        let client = client(&ClientFiles { ca, ..ClientFiles::default() });
        let shaken = shake(&server(&server_files(&[shown])), &Arc::new(client), name).await;
        match (shaken.client, expected) {
            (Ok(side), None) => assert_eq!(side.certificate, Some(shown.der.clone()), "{what}"),
            (Err(error), Some(words)) => {
                assert_eq!(explain(&error), "bad_certificate", "{what}: {error}");
                assert!(format!("{error:?}").contains(words), "{what}: {error:?}");
            }
            (other, _) => panic!("{what}: {other:?}"),
        }
    }
}

/// Whoever shows a trusted certificate has to have its key.
#[tokio::test]
async fn a_trusted_certificate_without_its_key_is_worth_nothing() {
    let files = Authority::new();
    let key = KeyPair::generate().unwrap();
    let key = provider().key_provider.load_private_key(key.into()).unwrap();
    let mut named = params(&["b.internal"]);
    named.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = named.self_signed(&KeyPair::generate().unwrap()).unwrap();
    files.write("ca.pem", certificate.pem());
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let key = Arc::clone(&key);
        let stolen = rustls::sign::CertifiedKey::new(vec![certificate.der().clone()], key);
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(stolen)));
        let shaken = shake(&Arc::new(config), &Arc::new(files.client()), "b.internal").await;
        assert_eq!(explain(&shaken.client.unwrap_err()), "bad_certificate");
    }
}

/// Without verification a server still has to have the key of what it shows.
#[tokio::test]
async fn signatures_are_checked_without_verification() {
    #[derive(Debug)]
    struct Thief(Arc<rustls::sign::CertifiedKey>);
    impl rustls::server::ResolvesServerCert for Thief {
        fn resolve(
            &self,
            _: rustls::server::ClientHello<'_>,
        ) -> Option<Arc<rustls::sign::CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
    }
    let authority = Authority::new();
    let stolen = authority.issue("server", &["b.internal"]);
    let key = KeyPair::generate().unwrap();
    let key = provider().key_provider.load_private_key(key.into()).unwrap();
    let mut config = (*server(&server_files(&[&stolen]))).clone();
    config.cert_resolver =
        Arc::new(Thief(Arc::new(rustls::sign::CertifiedKey::new(vec![stolen.der], key))));
    let shaken = shake(&Arc::new(config), &Arc::new(anyone()), "b.internal").await;
    assert_eq!(explain(&shaken.client.unwrap_err()), "bad_certificate");
}

#[tokio::test]
async fn the_system_is_asked_without_a_ca() {
    let authority = Authority::new();
    let own = authority.issue("server", &["b.internal"]);
    let server = server(&server_files(&[&own]));
    let mut store = RootCertStore::empty();
    store.add(authority.certificate().der().clone()).unwrap();
    let system = SystemRoots::fixed(Ok(Arc::new(store)));
    let client = load_client(&ClientFiles::default(), &system).unwrap().config;
    shake(&server, &client, "b.internal").await.client.unwrap();
}

#[test]
fn problems_of_upstreams() {
    let authority = Authority::new();
    let own = authority.issue("client", &["client"]);
    let none = SystemRoots::fixed(Err("this system has no CA certificates".to_owned()));
    let bad = load_client(&ClientFiles::default(), &none).unwrap_err();
    assert_eq!(bad.to_string(), "system CA certificates: this system has no CA certificates");

    let unverified = ClientFiles { verify: false, ..ClientFiles::default() };
    assert_eq!(load_client(&unverified, &none).unwrap().warnings, []);
    let unused = ClientFiles { ca: Some(authority.ca()), ..unverified };
    let warnings = load_client(&unused, &none).unwrap().warnings;
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].message.contains("not verified"), "{}", warnings[0]);

    // The problems of all files at once.
    let files = ClientFiles {
        ca: Some(authority.path("no-ca.pem")),
        verify: true,
        certificate: Some(CertificateFiles {
            certificate: authority.path("no.pem"),
            key: own.files.certificate.clone(),
        }),
    };
    let bad = load_client(&files, &none).unwrap_err();
    let paths: Vec<_> = bad.problems.iter().map(|problem| problem.path.clone()).collect();
    assert_eq!(
        paths,
        [authority.path("no-ca.pem"), authority.path("no.pem"), own.files.certificate.clone()]
    );

    let files = ClientFiles {
        ca: Some(authority.ca()),
        verify: true,
        certificate: Some(own.files.clone()),
    };
    let loaded = load_client(&files, &none).unwrap();
    assert_eq!(loaded.certificates.len(), 1);
    assert_eq!(loaded.certificates[0].names, ["client"]);
    assert!(loaded.config.client_auth_cert_resolver.has_certs());
}
