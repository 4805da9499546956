//! TLS.

use std::path::PathBuf;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, version};

use super::*;

/// A file that leaves with the test.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("wsproxy-probe-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

struct Identity {
    pem: String,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

/// A self-signed certificate that ends in `year`.
fn identity(name: &str, year: i32) -> Identity {
    signed_by_itself(name, year, rcgen::IsCa::NoCa)
}

/// The same with CA:TRUE.
fn authority(name: &str, year: i32) -> Identity {
    signed_by_itself(name, year, rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained))
}

fn signed_by_itself(name: &str, year: i32, is_ca: rcgen::IsCa) -> Identity {
    let mut params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    params.is_ca = is_ca;
    // Two of one name and two keys would be one forging the other.
    params.distinguished_name.push(rcgen::DnType::CommonName, format!("{name} {year}"));
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    Identity { pem: certificate.pem(), certificate: certificate.der().clone(), key }
}

/// A TLS echo server; with `client_auth` it wants a certificate.
async fn server(identity: &Identity, tls12: bool, client_auth: bool) -> SocketAddr {
    let versions = if tls12 { &[&version::TLS12][..] } else { &[&version::TLS13] };
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_protocol_versions(versions).unwrap();
    let builder = if client_auth {
        let mut roots = RootCertStore::empty();
        roots.add(identity.certificate.clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
        builder.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        builder.with_no_client_auth()
    };
    let chain = vec![identity.certificate.clone()];
    let mut config = builder.with_single_cert(chain, identity.key.clone_key()).unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    serve(async move |stream: TcpStream| {
        if let Ok(mut stream) = acceptor.accept(stream).await {
            accept(&mut stream).await;
            echo(&mut stream).await;
        }
    })
    .await
}

#[tokio::test]
async fn trusted_by_a_file() {
    let identity = identity("a.example", 2099);
    let file = File::new("trusted", &identity.pem);
    for (tls12, name) in [(false, "TLS 1.3"), (true, "TLS 1.2")] {
        let address = server(&identity, tls12, false).await.to_string();
        let flags = ["wss://a.example/", "--resolve", &address, "--ca", file.path()];
        let (outcome, value) = run_json(&flags).await;
        assert_eq!(outcome, Outcome::Open, "{value}");
        let tls = step(&value, "tls");
        assert_eq!((&tls["version"], &tls["alpn"]), (&name.into(), &"http/1.1".into()));
        assert_eq!(tls["verified"], true);
        assert_eq!(tls["certificate"]["names"][0], "a.example");
        assert_eq!(tls["certificate"]["not_after"], "2099-01-01");
    }
}

/// What `openssl req -x509` makes is a CA, and is trusted as the server that it is.
#[tokio::test]
async fn trusted_by_its_own_certificate() {
    let own = [authority("a.example", 2099), authority("a.example", 2021)];
    let twin = authority("a.example", 2099);
    for (shown, trusted, host, expected) in [
        (&own[0], &own[0], "a.example", None),
        (&own[0], &own[0], "b.example", Some("it is not for b.example")),
        (&own[1], &own[1], "a.example", Some("it has expired")),
        (&twin, &own[0], "a.example", Some("certificate of a CA")),
    ] {
        let file = File::new("its-own", &trusted.pem);
        let address = server(shown, false, false).await.to_string();
        let url = format!("wss://{host}/");
        let flags = [url.as_str(), "--resolve", &address, "--ca", file.path()];
        let (outcome, report) = run(&flags).await;
        match expected {
            None => assert_eq!(outcome, Outcome::Open, "{report}"),
            Some(words) => {
                assert_eq!(outcome, Outcome::Tls, "{report}");
                assert!(report.contains(words), "{words}: {report}");
            }
        }
    }
}

#[tokio::test]
async fn not_trusted() {
    let good = identity("a.example", 2099);
    let old = identity("a.example", 2021);
    let other = identity("b.example", 2099);
    let file = File::new("not-trusted", &[good.pem.as_str(), &old.pem].concat());
    for (identity, host, words) in [
        (&other, "b.example", "nobody trusted has issued it"),
        (&old, "a.example", "it has expired"),
        (&good, "b.example", "it is not for b.example"),
    ] {
        let address = server(identity, false, false).await.to_string();
        let url = format!("wss://{host}/");
        let flags = [url.as_str(), "--resolve", &address, "--ca", file.path()];
        let (outcome, report) = run(&flags).await;
        assert_eq!(outcome, Outcome::Tls, "{report}");
        assert!(report.contains(words) && report.contains("self-signed"), "{words}: {report}");
        let address = server(identity, true, false).await.to_string();
        let flags = [url.as_str(), "--resolve", &address, "--ca", file.path(), "--insecure"];
        let (outcome, report) = run(&flags).await;
        assert_eq!(outcome, Outcome::Open, "{report}");
        assert!(report.contains("note: without --insecure") && report.contains(words), "{report}");
    }
}

#[tokio::test]
async fn the_system_does_not_know_it() {
    let identity = identity("127.0.0.1", 2099);
    let address = server(&identity, false, false).await;
    let (outcome, report) = run(&[&format!("wss://{address}/")]).await;
    assert!(outcome == Outcome::Tls && report.contains("nobody trusted"), "{report}");
}

#[tokio::test]
async fn a_client_certificate_is_wanted() {
    let identity = identity("a.example", 2099);
    for tls12 in [false, true] {
        let address = server(&identity, tls12, true).await.to_string();
        let flags = ["wss://a.example/", "--resolve", &address, "--insecure"];
        let (outcome, report) = run(&flags).await;
        assert!(outcome == Outcome::Tls && report.contains("client certificate"), "{report}");
    }
}

#[tokio::test]
async fn tls_to_a_plain_port() {
    let address = serve(async |mut stream: TcpStream| {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        hold(stream).await;
    });
    let (outcome, report) = run(&[&format!("wss://{}/", address.await)]).await;
    assert!(outcome == Outcome::Tls && report.contains("use ws://"), "{report}");
    let address = serve(async |stream: TcpStream| {
        let mut hello = [0; 16];
        let _ = stream.readable().await;
        let _ = stream.try_read(&mut hello);
    });
    let (outcome, report) = run(&[&format!("wss://{}/", address.await)]).await;
    assert!(outcome == Outcome::Tls && report.contains("try ws://"), "{report}");
    let address = serve(hold).await;
    let (outcome, report) = run(&[&format!("wss://{address}/"), "--timeout", "1"]).await;
    assert!(outcome == Outcome::Timeout && report.contains("TLS handshake got no"), "{report}");
}

#[tokio::test]
async fn bad_ca_files() {
    let empty = File::new("empty", "nothing");
    for (path, words) in [(empty.path(), "no certificate"), ("/nonexistent", "No such file")] {
        let (outcome, report) = run(&["wss://127.0.0.1:1/", "--ca", path]).await;
        assert!(outcome == Outcome::Usage && report.contains(words), "{report}");
    }
}
