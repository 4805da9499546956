//! Names, TCP connections and TLS.

use std::io;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use super::super::outcome::{Finding, Outcome};
use super::super::shown::shown;
use super::found;

/// What an error of the resolver means; these have no codes, only texts.
pub(in super::super) fn resolve(error: &str) -> Vec<String> {
    const TABLE: &[(&str, &str)] = &[
        (
            "Temporary failure",
            "The DNS server did not answer: check /etc/resolv.conf and the network.",
        ),
        (
            "No address associated",
            "The name exists in DNS, but has no address (no A or AAAA record).",
        ),
        ("not known", "The name does not exist in DNS: check its spelling."),
    ];
    let known = TABLE.iter().find(|(text, _)| error.contains(text)).map(|(_, words)| *words);
    let words = known.unwrap_or("Check the spelling of the name and the DNS servers.");
    let instead = "To connect without DNS, give the address with --resolve.";
    vec![words.to_owned(), instead.to_owned()]
}

/// An error of `connect`, as the words behind an address.
pub(in super::super) fn connect_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused".to_owned(),
        io::ErrorKind::TimedOut => "no answer".to_owned(),
        io::ErrorKind::HostUnreachable => "host unreachable".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        io::ErrorKind::ConnectionReset => "reset".to_owned(),
        _ => error.to_string(),
    }
}

/// No address took the connection.
pub(in super::super) fn connect(error: Option<&io::Error>) -> Finding {
    let Some(error) = error else {
        return found(Outcome::Connect, "there is no address to connect to", &[]);
    };
    let hint = match error.kind() {
        io::ErrorKind::TimedOut => {
            let hints = [
                "Packets get lost without a word: a firewall may drop them.",
                "Or the host is down, or the address is wrong.",
            ];
            return found(Outcome::Timeout, "no address answered in time", &hints);
        }
        io::ErrorKind::ConnectionRefused => {
            "Nothing listens on that port: is the server running, and on this address? A firewall may refuse, too."
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            "This machine has no way to that address: check routes, VPN and IPv6."
        }
        io::ErrorKind::PermissionDenied => "A firewall of this machine forbids the connection.",
        io::ErrorKind::ConnectionReset => {
            "Something on the way, or the server, ends the connection at once."
        }
        _ => "The system refuses the connection.",
    };
    let summary = format!("no TCP connection: {}", connect_words(error));
    found(Outcome::Connect, summary, &[hint])
}

/// Whose certificates were accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Trusted {
    /// Those of a file instead of the system's.
    pub(in super::super) file: bool,
    /// There are none.
    pub(in super::super) none: bool,
}

/// Why a certificate is not accepted.
pub(in super::super) fn certificate(
    error: &CertificateError,
    host: &str,
    trusted: &Trusted,
) -> Finding {
    let (why, hint) = match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            "it has expired".to_owned(),
            "Renew it, and reload the server. If the date above is in the future, check the clock of this machine.",
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
            "it is not valid yet".to_owned(),
            "Check the clock of this machine, and the dates of the certificate.",
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            format!("it is not for {host}"),
            "The URL has another name than the certificate, or the server picked the wrong certificate.",
        ),
        CertificateError::UnknownIssuer => {
            ("nobody trusted has issued it".to_owned(), unknown_issuer(trusted))
        }
        CertificateError::BadSignature => (
            "its signature is wrong".to_owned(),
            "Its issuer has the name of a trusted CA, but another key: an old or new CA certificate of the same name may be in use.",
        ),
        CertificateError::Revoked => {
            ("it has been revoked".to_owned(), "Get a new one from the CA.")
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => (
            "it is not for servers".to_owned(),
            "Its extended key usage does not contain serverAuth.",
        ),
        CertificateError::BadEncoding => {
            ("it can't be read".to_owned(), "The certificate is malformed, or very old (X.509 v1).")
        }
        other if other.to_string().contains("CaUsedAsEndEntity") => (
            "it is the certificate of a CA".to_owned(),
            "A server needs a certificate of its own, one without CA:TRUE. If it is meant to be just this one, give it with --ca.",
        ),
        other => (other.to_string(), "The certificate breaks the rules of RFC 5280."),
    };
    let why = shown(why.as_bytes(), 512);
    let insecure = "To go on in spite of it, for a test: --insecure.";
    found(Outcome::Tls, format!("the certificate can't be verified: {why}"), &[hint, insecure])
}

fn unknown_issuer(trusted: &Trusted) -> &'static str {
    match (trusted.none, trusted.file) {
        (true, _) => {
            "This machine has no CA certificates: install the package ca-certificates, or use --ca."
        }
        (_, true) => {
            "None of the certificates in the file of --ca has issued it. The server may also leave out an intermediate certificate: give it the full chain."
        }
        (_, false) => {
            "The server may leave out an intermediate certificate: give it the full chain. For a self-signed certificate or a private CA use --ca."
        }
    }
}

/// The error of rustls inside of an I/O error.
pub(in super::super) fn rustls_of(error: &io::Error) -> Option<&Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// Why a TLS handshake failed, other than for its certificate.
pub(in super::super) fn tls(error: &io::Error) -> Finding {
    if let Some(error) = rustls_of(error) {
        return tls_error(error);
    }
    let how = match error.kind() {
        io::ErrorKind::UnexpectedEof => "closed",
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "reset",
        _ => {
            let text = shown(error.to_string().as_bytes(), 512);
            return found(Outcome::Tls, format!("the TLS handshake failed: {text}"), &[]);
        }
    };
    found(
        Outcome::Tls,
        format!("the server {how} the connection during the TLS handshake"),
        &[
            "The port may not speak TLS: try ws:// instead of wss://.",
            "Or the server has no certificate for this name, or something on the way cuts TLS off.",
        ],
    )
}

/// An error of TLS itself.
pub(in super::super) fn tls_error(error: &Error) -> Finding {
    match error {
        Error::AlertReceived(alert) => {
            let hint = alert_hint(*alert);
            found(Outcome::Tls, format!("the server ended TLS with the alert {alert:?}"), &[hint])
        }
        Error::InvalidMessage(_) => found(
            Outcome::Tls,
            "the server does not speak TLS on this port",
            &[
                "It is a plain port that was spoken to in TLS: use ws:// instead of wss://, or the port of TLS.",
            ],
        ),
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => found(Outcome::Tls, "the server speaks neither TLS 1.2 nor TLS 1.3", &[OLD]),
        Error::PeerIncompatible(_) => found(
            Outcome::Tls,
            "the server and this client have no TLS parameters in common",
            &[OLD],
        ),
        other => {
            let text = shown(other.to_string().as_bytes(), 512);
            found(Outcome::Tls, format!("the TLS handshake failed: {text}"), &[])
        }
    }
}

const OLD: &str = "Its TLS is too old: allow TLS 1.2 with ECDHE and AES-GCM or ChaCha20 at least.";

fn alert_hint(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::UnrecognisedName => {
            "It knows no server of this name (SNI): check the name in the URL; --resolve keeps it."
        }
        AlertDescription::HandshakeFailure => {
            "It may want a client certificate, have none itself for this name, or know no cipher in common."
        }
        AlertDescription::ProtocolVersion | AlertDescription::InsufficientSecurity => OLD,
        AlertDescription::NoApplicationProtocol => {
            "It refuses http/1.1 (ALPN): is HTTP/1.1 turned off? WebSocket needs it."
        }
        AlertDescription::CertificateRequired
        | AlertDescription::BadCertificate
        | AlertDescription::AccessDenied
        | AlertDescription::CertificateUnknown => {
            "It may want a client certificate, which this command does not have."
        }
        AlertDescription::InternalError => {
            "Something failed in the server: often no certificate for this name."
        }
        _ => "Search the log of the server for it.",
    }
}
