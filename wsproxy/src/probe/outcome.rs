//! How a probe ended.

/// How a probe ended. Every outcome has its own exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// 0: the tunnel opened, and everything sent through it was answered.
    Open,
    /// 2: the name of the host has no address.
    Resolve,
    /// 3: no address took the TCP connection.
    Connect,
    /// 4: the TLS handshake failed, or the certificate can't be verified.
    Tls,
    /// 5: an HTTP answer other than 101.
    Refused,
    /// 6: no answer, no HTTP, or a 101 that breaks RFC 6455 section 4.1.
    BadAnswer,
    /// 7: the tunnel opened, but no pong came, or no answer to the message.
    NoPong,
    /// 8: the time ran out before the tunnel was open.
    Timeout,
    /// 64: the URL or a flag is wrong (`EX_USAGE` of `sysexits.h`).
    Usage,
}

impl Outcome {
    /// The exit status of the process.
    #[must_use]
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Open => 0,
            Self::Resolve => 2,
            Self::Connect => 3,
            Self::Tls => 4,
            Self::Refused => 5,
            Self::BadAnswer => 6,
            Self::NoPong => 7,
            Self::Timeout => 8,
            Self::Usage => 64,
        }
    }

    /// The verdict as one word for scripts, in snake_case.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Open => "ok",
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Refused => "refused",
            Self::BadAnswer => "bad_answer",
            Self::NoPong => "no_pong",
            Self::Timeout => "timeout",
            Self::Usage => "usage",
        }
    }
}

/// An outcome in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) outcome: Outcome,
    /// What happened, as one sentence without its full stop.
    pub(super) summary: String,
    /// What it may mean and what to try.
    pub(super) hints: Vec<String>,
}

impl Finding {
    pub(super) fn new(outcome: Outcome, summary: impl Into<String>, hints: Vec<String>) -> Self {
        Self { outcome, summary: summary.into(), hints }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_its_own_status_and_label() {
        let all = [
            Outcome::Open,
            Outcome::Resolve,
            Outcome::Connect,
            Outcome::Tls,
            Outcome::Refused,
            Outcome::BadAnswer,
            Outcome::NoPong,
            Outcome::Timeout,
            Outcome::Usage,
        ];
        let status = all.map(Outcome::exit_status);
        assert_eq!(status, [0, 2, 3, 4, 5, 6, 7, 8, 64]);
        let labels: std::collections::HashSet<_> = all.map(Outcome::label).into();
        assert_eq!(labels.len(), all.len());
    }
}
