//! Sessions that clients may resume (RFC 8446 section 2.2, RFC 5077).

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::crypto::ring::Ticketer;
use rustls::pki_types::CertificateDer;
use rustls::server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions};

/// Most sessions that are remembered for clients of TLS 1.2 without tickets.
pub const SESSIONS_MAX: usize = 1_024;

/// The ticket keys and the remembered sessions of one listener. They outlive
/// its certificates: clients resume over a reload.
///
/// rustls does not look at a client's certificate again when a session is
/// resumed. So both are dropped when the rule for clients changes: else a
/// session from before would get past it.
#[derive(Default)]
pub struct Resumption {
    held: Mutex<Option<Held>>,
}

/// What is asked of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ClientRule {
    /// No certificate.
    None,
    /// A certificate of one of these CAs, sorted.
    Certificate { authorities: Vec<CertificateDer<'static>>, optional: bool },
}

impl ClientRule {
    pub(super) fn certificate(
        mut authorities: Vec<CertificateDer<'static>>,
        optional: bool,
    ) -> Self {
        authorities.sort_unstable_by(|a, b| a.as_ref().cmp(b.as_ref()));
        authorities.dedup();
        Self::Certificate { authorities, optional }
    }
}

#[derive(Clone)]
struct Held {
    rule: ClientRule,
    sessions: Arc<dyn StoresServerSessions>,
    /// None if the system gave no random bytes for the keys.
    tickets: Option<Arc<dyn ProducesTickets>>,
}

impl Held {
    fn new(rule: ClientRule) -> Self {
        let tickets = Ticketer::new()
            .inspect_err(|error| tracing::warn!(%error, "TLS sessions get no tickets"))
            .ok();
        Self { rule, sessions: ServerSessionMemoryCache::new(SESSIONS_MAX), tickets }
    }
}

impl Resumption {
    /// Sets up `config`, which asks `rule` of its clients.
    pub(super) fn apply(&self, rule: ClientRule, config: &mut ServerConfig) {
        let held = self.hold(rule);
        config.session_storage = held.sessions;
        if let Some(tickets) = held.tickets {
            config.ticketer = tickets;
        }
    }

    fn hold(&self, rule: ClientRule) -> Held {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match &*held {
            Some(held) if held.rule == rule => held.clone(),
            _ => held.insert(Held::new(rule)).clone(),
        }
    }
}

impl fmt::Debug for Resumption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resumption").finish_non_exhaustive()
    }
}
