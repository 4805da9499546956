//! What a failure means, in plain words, and what to try. Pure functions: facts
//! in, sentences out.

mod answers;
mod network;
mod status;
mod tunnel;

pub(super) use answers::{bad_head, ended, fault};
pub(super) use network::{
    Trusted, certificate, connect, connect_words, resolve, rustls_of, tls, tls_error,
};
pub(super) use status::{Refused, refused};
pub(super) use tunnel::{close_code, closed, frame_fault};

use super::link::Lost;
use super::outcome::{Finding, Outcome};

/// What was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Resolve,
    Tls,
    /// The end of the answer's head; nothing of it had come.
    Answer,
    /// The end of the answer's head; its start had come.
    HalfAnswer,
}

/// The time ran out before the tunnel was open.
pub(super) fn timeout(phase: Phase) -> Finding {
    let (summary, hints): (_, &[&str]) = match phase {
        Phase::Resolve => (
            "no DNS server answered in time",
            &["Check the DNS servers of this machine (/etc/resolv.conf) and the way to them."],
        ),
        Phase::Tls => (
            "the TCP connection is open, but the TLS handshake got no answer in time",
            &[
                "The port may not speak TLS: try ws:// instead of wss://.",
                "Or the server is overloaded, or hangs.",
            ],
        ),
        Phase::Answer => (
            "the connection is open, but the request got no answer in time",
            &[
                "The server may be overloaded or hang; behind a gateway, its upstream server may.",
                "The port may speak another protocol and wait for more: is TLS wanted (wss://)?",
            ],
        ),
        Phase::HalfAnswer => (
            "the answer started, but did not end in time",
            &["The server, or something on the way, holds back the end of the answer's head."],
        ),
    };
    found(Outcome::Timeout, summary, hints)
}

/// The connection ended before the answer's head was complete, of which
/// `received` bytes had come.
pub(super) fn lost(lost: &Lost, received: usize, tls: bool) -> Finding {
    match lost {
        Lost::Timeout if received == 0 => timeout(Phase::Answer),
        Lost::Timeout => timeout(Phase::HalfAnswer),
        Lost::Ended => ended(received, tls, false),
        Lost::Io(error) => match rustls_of(error) {
            Some(error) => tls_error(error),
            None => ended(received, tls, true),
        },
    }
}

fn found(outcome: Outcome, summary: impl Into<String>, hints: &[&str]) -> Finding {
    Finding::new(outcome, summary, hints.iter().map(|&hint| hint.to_owned()).collect())
}

#[cfg(test)]
#[path = "../tests/explain.rs"]
mod tests;
