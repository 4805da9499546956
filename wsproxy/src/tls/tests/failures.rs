use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use super::*;

/// What the server makes of bytes that are no handshake.
async fn server_on(bytes: &'static [u8]) -> &'static str {
    let authority = Authority::new();
    let own = authority.issue("server", &["a.example"]);
    let (near, mut far) = tokio::io::duplex(64 << 10);
    let acceptor = TlsAcceptor::from(server(&server_files(&[&own])));
    let send = async {
        far.write_all(bytes).await.unwrap();
        far.shutdown().await.unwrap();
        let _ = far.read_to_end(&mut Vec::new()).await;
    };
    let (accepted, ()) = tokio::join!(acceptor.accept(near), send);
    explain(&accepted.err().unwrap())
}

#[tokio::test]
async fn what_is_no_handshake() {
    let table: [(&[u8], &str); 6] = [
        (b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", "not_tls"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "not_tls"),
        (b"\x16\x05\x01\x00\x05hello", "not_tls"),
        (b"", "closed"),
        (b"\x16\x03\x01", "closed"),
        // An alert, fatal: handshake_failure.
        (b"\x15\x03\x01\x00\x02\x02\x28", "no_shared_cipher"),
    ];
    for (bytes, expected) in table {
        assert_eq!(server_on(bytes).await, expected, "{}", bytes.escape_ascii());
    }
}

#[tokio::test]
async fn a_client_on_a_plain_port() {
    let (near, mut far) = tokio::io::duplex(64 << 10);
    let connector = TlsConnector::from(Arc::new(anyone()));
    let answer = async {
        far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let _ = far.read(&mut [0; 1024]).await;
    };
    let name = ServerName::try_from("a.example").unwrap();
    let (connected, ()) = tokio::join!(connector.connect(name, near), answer);
    assert_eq!(explain(&connected.err().unwrap()), "not_tls");
}

#[test]
fn labels() {
    let table = [
        (Error::NoCertificatesPresented, "no_certificate"),
        (Error::AlertReceived(AlertDescription::CertificateRequired), "no_certificate"),
        (Error::InvalidCertificate(CertificateError::Expired), "bad_certificate"),
        (Error::AlertReceived(AlertDescription::UnknownCA), "certificate_refused"),
        (Error::AlertReceived(AlertDescription::CertificateExpired), "certificate_refused"),
        (Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered), "protocol_version"),
        (Error::AlertReceived(AlertDescription::ProtocolVersion), "protocol_version"),
        (Error::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon), "no_shared_cipher"),
        (Error::PeerIncompatible(PeerIncompatible::NullCompressionRequired), "other"),
        (Error::NoApplicationProtocol, "alpn"),
        (Error::AlertReceived(AlertDescription::UserCanceled), "closed"),
        (Error::AlertReceived(AlertDescription::InternalError), "other"),
        (Error::DecryptError, "other"),
    ];
    for (error, expected) in table {
        assert_eq!(explain_tls(&error), expected, "{error}");
        assert!(FAILURES.contains(&expected));
        assert_eq!(explain(&io::Error::new(io::ErrorKind::InvalidData, error)), expected);
    }
    let table = [
        (io::ErrorKind::UnexpectedEof, "closed"),
        (io::ErrorKind::ConnectionReset, "closed"),
        (io::ErrorKind::BrokenPipe, "closed"),
        (io::ErrorKind::OutOfMemory, "other"),
    ];
    for (kind, expected) in table {
        assert_eq!(explain(&kind.into()), expected, "{kind}");
    }
}

#[test]
fn plain_http_is_told() {
    let table: [(&[u8], bool); 14] = [
        (b"GET / HTTP/1.1\r\n", true),
        (b"GET ", true),
        (b"GE", true),
        (b"P", true),
        (b"OPTIONS * HTTP/1.1\r\n", true),
        (b"CONNECT a:443 HTTP/1.1\r\n", true),
        (b"", false),
        (b"get / HTTP/1.1", false),
        (b"GETX", false),
        (b"EHLO a", false),
        (b"SSH-2.0", false),
        (b"\x16\x03\x01\x02\x00", false),
        (b"\x00", false),
        (b" GET /", false),
    ];
    for (bytes, expected) in table {
        let answer = plain_http_answer(bytes);
        assert_eq!(answer.is_some(), expected, "{}", bytes.escape_ascii());
    }
    let answer = std::str::from_utf8(plain_http_answer(b"GET ").unwrap()).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"));
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
    assert!(head.contains("\r\nConnection: close"));
    assert_eq!(body, "this port speaks TLS: use https:// or wss://\n");
}
