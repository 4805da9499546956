//! Why a name has no servers.

use hickory_resolver::{
    net::{DnsError, NetError, NoRecords},
    proto::op::ResponseCode,
};

/// Why a name has no servers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// There is no such name.
    #[error("\"{name}\" does not exist")]
    NotFound {
        /// The name.
        name: String,
    },
    /// There is such a name, but it has no A and no AAAA record.
    #[error("\"{name}\" has no addresses")]
    NoAddresses {
        /// The name.
        name: String,
    },
    /// It has no SRV records, or they say that the service is not offered (RFC 2782: target ".").
    #[error("\"{name}\" has no servers: it needs SRV records that name some")]
    NoService {
        /// The name.
        name: String,
    },
    /// The name servers said nothing in time, or can't be reached.
    #[error("the name servers do not answer for \"{name}\"")]
    NoAnswer {
        /// The name.
        name: String,
    },
    /// The name servers do not want to say.
    #[error("the name servers refuse to answer for \"{name}\"")]
    Refused {
        /// The name.
        name: String,
    },
    /// Something else.
    #[error("\"{name}\" can't be looked up: {why}")]
    Failed {
        /// The name.
        name: String,
        /// Why.
        why: String,
    },
}

impl ResolveError {
    pub(super) fn failed(name: &str, why: impl Into<String>) -> Self {
        Self::Failed { name: name.to_owned(), why: why.into() }
    }

    /// What name servers, or the lack of them, mean for a name.
    pub(super) fn of_dns(name: &str, error: &NetError) -> Self {
        let named = || name.to_owned();
        match error {
            NetError::Dns(DnsError::NoRecordsFound(NoRecords { response_code, .. })) => {
                match *response_code {
                    ResponseCode::NXDomain => Self::NotFound { name: named() },
                    _ => Self::NoAddresses { name: named() },
                }
            }
            NetError::Dns(DnsError::ResponseCode(ResponseCode::Refused)) => {
                Self::Refused { name: named() }
            }
            NetError::Dns(DnsError::ResponseCode(code)) => {
                Self::failed(name, format!("the name servers say \"{code}\""))
            }
            NetError::Timeout | NetError::NoConnections | NetError::Busy | NetError::Io(_) => {
                Self::NoAnswer { name: named() }
            }
            _ => Self::failed(name, error.to_string()),
        }
    }

    /// What the system's own resolver means for a name. It says so in words only: those of glibc
    /// and musl, which are not translated unless a program asks for it.
    pub(super) fn of_system(name: &str, error: &std::io::Error) -> Self {
        let named = || name.to_owned();
        let text = error.to_string();
        let says = |words: &[&str]| words.iter().any(|words| text.contains(words));
        if says(&["Name or service not known", "Name does not resolve"]) {
            Self::NotFound { name: named() }
        } else if says(&["No address associated", "Name has no usable address"]) {
            Self::NoAddresses { name: named() }
        } else if says(&["Temporary failure in name resolution", "Try again"]) {
            Self::NoAnswer { name: named() }
        } else {
            Self::failed(name, text)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn every_failure_names_the_name() {
        let code = |code| NetError::Dns(DnsError::ResponseCode(code));
        for (error, text) in [
            (NetError::Timeout, "the name servers do not answer for \"a.example\""),
            (NetError::NoConnections, "the name servers do not answer for \"a.example\""),
            (
                io::Error::from(io::ErrorKind::ConnectionRefused).into(),
                "the name servers do not answer for \"a.example\"",
            ),
            (code(ResponseCode::Refused), "the name servers refuse to answer for \"a.example\""),
            (
                code(ResponseCode::ServFail),
                "\"a.example\" can't be looked up: the name servers say \"Server Failure\"",
            ),
            (NetError::Message("odd"), "\"a.example\" can't be looked up: odd"),
        ] {
            assert_eq!(ResolveError::of_dns("a.example", &error).to_string(), text);
        }
    }

    #[test]
    fn the_words_of_the_system_are_understood() {
        for (words, text) in [
            ("Name or service not known", "\"a\" does not exist"),
            ("Name does not resolve", "\"a\" does not exist"),
            ("No address associated with hostname", "\"a\" has no addresses"),
            ("Temporary failure in name resolution", "the name servers do not answer for \"a\""),
            ("Try again", "the name servers do not answer for \"a\""),
            ("odd", "\"a\" can't be looked up: failed to lookup address information: odd"),
        ] {
            let error = io::Error::other(format!("failed to lookup address information: {words}"));
            assert_eq!(ResolveError::of_system("a", &error).to_string(), text);
        }
    }
}
