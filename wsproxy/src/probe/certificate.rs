//! What a certificate says (RFC 5280), for people.

use std::net::IpAddr;

use serde_json::{Value, json};
use x509_parser::prelude::{ASN1Time, FromDer as _, GeneralName, X509Certificate};

use super::shown::shown;

/// The most bytes shown of one name.
const MAX_NAME_BYTES: usize = 256;
/// The most names of one certificate that are kept.
const MAX_NAMES: usize = 100;
/// The most names in the line for people.
const FEW_NAMES: usize = 6;
const DAY: i64 = 24 * 60 * 60;

/// What a certificate says.
#[derive(Debug, Clone)]
pub(super) struct Certificate {
    subject: String,
    issuer: String,
    /// The subject's alternative names: hosts and addresses.
    names: Vec<String>,
    not_before: String,
    not_after: String,
    /// Negative where it has expired.
    days_left: i64,
}

impl Certificate {
    /// Reads a certificate in DER; `now` is in seconds since 1970. `None` for
    /// what is no certificate.
    pub(super) fn read(der: &[u8], now: i64) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        let validity = parsed.validity();
        Some(Self {
            subject: shown(parsed.subject().to_string().as_bytes(), MAX_NAME_BYTES),
            issuer: shown(parsed.issuer().to_string().as_bytes(), MAX_NAME_BYTES),
            names: names(&parsed),
            not_before: date(validity.not_before),
            not_after: date(validity.not_after),
            days_left: (validity.not_after.timestamp() - now).div_euclid(DAY),
        })
    }

    /// The lines for people.
    pub(super) fn lines(&self) -> Vec<String> {
        let few = self.names.iter().take(FEW_NAMES).cloned().collect::<Vec<_>>().join(", ");
        let names = match self.names.len() {
            0 => "no names".to_owned(),
            count if count > FEW_NAMES => format!("{few} and {} more", count - FEW_NAMES),
            _ => few,
        };
        let subject = if self.subject.is_empty() { "(no subject)" } else { &self.subject };
        let issuer =
            if self.subject == self.issuer { "itself (self-signed)" } else { &self.issuer };
        let days = match self.days_left {
            left if left < 0 => "expired".to_owned(),
            left => format!("{left} days left"),
        };
        vec![
            format!("certificate {subject}, for {names}"),
            format!("  issued by {issuer}"),
            format!("  valid from {} to {} ({days})", self.not_before, self.not_after),
        ]
    }

    /// The same for scripts.
    pub(super) fn json(&self) -> Value {
        json!({
            "subject": self.subject,
            "issuer": self.issuer,
            "names": self.names,
            "not_before": self.not_before,
            "not_after": self.not_after,
            "days_left": self.days_left,
        })
    }
}

fn names(parsed: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = parsed.subject_alternative_name() else { return Vec::new() };
    let all = extension.value.general_names.iter();
    let names = all.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(shown(name.as_bytes(), MAX_NAME_BYTES)),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    });
    names.take(MAX_NAMES).collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4().or_else(|_| v6()).ok()
}

fn date(time: ASN1Time) -> String {
    let date = time.to_datetime();
    format!("{}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_self_signed_certificate() {
        let names = ["a.example".to_owned(), "127.0.0.1".to_owned()];
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.not_before = rcgen::date_time_ymd(2024, 1, 2);
        params.not_after = rcgen::date_time_ymd(2024, 3, 4);
        let key = rcgen::KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        let end = rcgen::date_time_ymd(2024, 3, 4).unix_timestamp();
        let read = |now| Certificate::read(&der, now).unwrap();
        let lines = read(end - DAY).lines();
        assert!(lines[0].ends_with("for a.example, 127.0.0.1"), "{lines:?}");
        assert!(lines[1].ends_with("itself (self-signed)"));
        assert_eq!(lines[2].trim(), "valid from 2024-01-02 to 2024-03-04 (1 days left)");
        assert!(read(end + 1).lines()[2].ends_with("(expired)"));
        assert_eq!(read(end).json()["not_after"], "2024-03-04");
    }

    #[test]
    fn no_certificate() {
        assert!(Certificate::read(b"\x30\x03abc", 0).is_none());
    }
}
