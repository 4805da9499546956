//! Why handshakes fail.

use std::io;

use rustls::{AlertDescription, Error, InvalidMessage, PeerIncompatible};

const NOT_TLS: &str = "not_tls";
const NO_CERTIFICATE: &str = "no_certificate";
const BAD_CERTIFICATE: &str = "bad_certificate";
const CERTIFICATE_REFUSED: &str = "certificate_refused";
const PROTOCOL_VERSION: &str = "protocol_version";
const NO_SHARED_CIPHER: &str = "no_shared_cipher";
const NO_SUCH_ALPN: &str = "alpn";
const CLOSED: &str = "closed";
const OTHER: &str = "other";

/// All that [`explain`] answers: the values of a metric's label.
pub const FAILURES: [&str; 9] = [
    NOT_TLS,
    NO_CERTIFICATE,
    BAD_CERTIFICATE,
    CERTIFICATE_REFUSED,
    PROTOCOL_VERSION,
    NO_SHARED_CIPHER,
    NO_SUCH_ALPN,
    CLOSED,
    OTHER,
];

/// Why a handshake failed, as a metric label: one of [`FAILURES`]. `not_tls`:
/// the peer speaks something else. `no_certificate`: a client must show one.
/// `bad_certificate`: the peer's is not accepted. `certificate_refused`: the
/// peer does not accept ours. `protocol_version`, `no_shared_cipher`, `alpn`:
/// nothing in common (ciphers, groups or signatures). `closed`: the connection
/// ended.
#[must_use]
pub fn explain(error: &io::Error) -> &'static str {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    if let Some(inner) = inner {
        return explain_tls(inner);
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::NotConnected
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::WriteZero
        | io::ErrorKind::TimedOut => CLOSED,
        _ => OTHER,
    }
}

/// [`explain`] for the error of the TLS library itself.
#[must_use]
pub fn explain_tls(error: &Error) -> &'static str {
    match error {
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => NOT_TLS,
        Error::NoCertificatesPresented => NO_CERTIFICATE,
        Error::InvalidCertificate(_)
        | Error::InvalidCertRevocationList(_)
        | Error::UnsupportedNameType => BAD_CERTIFICATE,
        Error::PeerIncompatible(what) => incompatible(what),
        Error::NoApplicationProtocol => NO_SUCH_ALPN,
        Error::AlertReceived(alert) => alerted(*alert),
        _ => OTHER,
    }
}

fn incompatible(what: &PeerIncompatible) -> &'static str {
    match what {
        PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        | PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled => PROTOCOL_VERSION,
        PeerIncompatible::NoCipherSuitesInCommon
        | PeerIncompatible::NoKxGroupsInCommon
        | PeerIncompatible::NoSignatureSchemesInCommon
        | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon
        | PeerIncompatible::NoEcPointFormatsInCommon
        | PeerIncompatible::NamedGroupsExtensionRequired
        | PeerIncompatible::SignatureAlgorithmsExtensionRequired => NO_SHARED_CIPHER,
        _ => OTHER,
    }
}

/// What the peer says (RFC 8446 section 6).
fn alerted(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA => CERTIFICATE_REFUSED,
        AlertDescription::NoCertificate | AlertDescription::CertificateRequired => NO_CERTIFICATE,
        AlertDescription::ProtocolVersion => PROTOCOL_VERSION,
        AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => {
            NO_SHARED_CIPHER
        }
        AlertDescription::NoApplicationProtocol => NO_SUCH_ALPN,
        AlertDescription::CloseNotify | AlertDescription::UserCanceled => CLOSED,
        _ => OTHER,
    }
}

/// The methods that plain HTTP is known by. No TLS record begins with a letter
/// (RFC 8446 section 5.1).
const METHODS: [&[u8]; 9] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"CONNECT ",
    b"TRACE ",
];

const USE_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 45\r\n\
    Connection: close\r\n\
    \r\n\
    this port speaks TLS: use https:// or wss://\n";

/// The answer for a client that speaks plain HTTP to a TLS port; none if its
/// first bytes are no HTTP request. Some of a method is enough, if it is all
/// that came.
#[must_use]
pub fn plain_http_answer(first_bytes: &[u8]) -> Option<&'static [u8]> {
    let http = METHODS
        .iter()
        .any(|method| first_bytes.iter().zip(*method).all(|(came, expected)| came == expected));
    (http && !first_bytes.is_empty()).then_some(USE_TLS)
}
