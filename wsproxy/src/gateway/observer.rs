//! What the datapath tells, as log lines and metrics.

use std::{
    any::Any,
    collections::HashSet,
    io,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use serde_json::Value;

use super::{
    access::{self, RequestId},
    adoption,
    setup::Setup,
    upgrade::Luggage,
};
use crate::{
    access_log::AccessLog,
    datapath::{Companion, Observer, SessionEnd, SessionMeta, Side},
    forwarding::request_id,
    metrics::Metrics,
};

/// Writes the line of each session and counts.
pub(super) struct Reporter {
    metrics: Arc<Metrics>,
    access_log: Option<Arc<AccessLog>>,
    /// What the ids of requests are made of.
    seed: u64,
    /// What the process started with: sessions of an earlier one are counted there.
    first: Weak<Setup>,
    /// Fall-back reasons, and kinds of what is missing, that were said aloud.
    said: Mutex<HashSet<&'static str>>,
}

impl Reporter {
    pub(super) fn new(
        metrics: Arc<Metrics>,
        access_log: Option<Arc<AccessLog>>,
        seed: u64,
        first: Weak<Setup>,
    ) -> Self {
        Self { metrics, access_log, seed, first, said: Mutex::default() }
    }

    /// Whether this is said for the first time.
    fn is_first(&self, what: &'static str) -> bool {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).insert(what)
    }
}

impl Observer for Reporter {
    fn ended(&self, end: &SessionEnd, companion: Option<Companion>) {
        self.metrics.session_ended(end);
        let note = companion.and_then(|companion| companion.downcast::<Luggage>().ok());
        // Its places are free before anybody hears of its end.
        let note = note.map(|luggage| luggage.note());
        if let (Some(log), Some(note)) = (&self.access_log, &note) {
            access::session_ended(log, note, end);
        }
        let request = note.map(|note| match note.request_id {
            RequestId::Ours(number) => request_id(self.seed, number),
            RequestId::Foreign(id) => id.into(),
        });
        tracing::info!(
            session = end.meta.id,
            request,
            client = %end.meta.client,
            upstream = %end.meta.upstream,
            route = %end.meta.route,
            datapath = end.path.label(),
            duration_ms = u64::try_from(end.duration.as_millis()).unwrap_or(u64::MAX),
            to_upstream_kernel_bytes = end.to_upstream.kernel,
            to_upstream_relay_bytes = end.to_upstream.relay,
            to_upstream_packet_bytes = end.to_upstream.packet,
            to_client_kernel_bytes = end.to_client.kernel,
            to_client_relay_bytes = end.to_client.relay,
            to_client_packet_bytes = end.to_client.packet,
            messages_to_upstream = end.counts.map(|counts| counts[0].messages()),
            messages_to_client = end.counts.map(|counts| counts[1].messages()),
            close_of_client = code(end.codes.of_client),
            close_of_upstream = code(end.codes.of_upstream),
            close_to_client = code(end.codes.to_client),
            close_to_upstream = code(end.codes.to_upstream),
            ended_by = end.ending.label(),
            reset = end.reset,
            error = end.error.as_deref(),
            "session ended"
        );
    }

    fn saved(&self, companion: &(dyn Any + Send + Sync)) -> Value {
        let luggage = companion.downcast_ref::<Luggage>();
        luggage.map_or(Value::Null, |luggage| adoption::save(luggage, self.seed))
    }

    fn restored(&self, meta: &SessionMeta, saved: &Value) -> Option<Companion> {
        let setup = self.first.upgrade()?;
        let missing = |kind: &'static str, name: &str| {
            if self.is_first(kind) {
                tracing::warn!(
                    session = meta.id,
                    missing = kind,
                    name,
                    "a session of an earlier process belongs to what this configuration does not \
                     have: it is counted there no more; further ones are not named"
                );
            }
        };
        let luggage = adoption::restore(&setup, meta, saved, missing);
        if luggage.is_none() && self.is_first("note") {
            tracing::warn!(
                session = meta.id,
                "what an earlier process noted of a session's handshake can't be used: it is counted \
                 nowhere and gets no line in the access log; further ones are not named"
            );
        }
        Some(Box::new(luggage?))
    }

    fn pinged(&self, to: Side) {
        self.metrics.pinged(to);
    }

    fn answered(&self, by: Side, after: Duration) {
        self.metrics.ping_answered(by, after);
    }

    fn fell_back(&self, meta: &SessionMeta, reason: &'static str, error: &io::Error) {
        self.metrics.datapath_fallback.with_label_values(&[reason]).inc();
        let first = self.is_first(reason);
        if first && reason.starts_with("packet_") {
            // No fault of the machine's: TLS is enough.
            tracing::info!(
                session = meta.id, client = %meta.client, reason, %error,
                "the packets of a session can't be translated, so it takes another path; further \
                 ones are only counted (see docs/PACKET-PATH.md)"
            );
        } else if first {
            tracing::warn!(
                session = meta.id, client = %meta.client, reason, %error,
                "a session can't take the kernel path and is relayed; further ones are only counted"
            );
        } else {
            tracing::debug!(session = meta.id, reason, %error, "not on the path it should be");
        }
    }
}

/// A close code; `None`: there was none.
fn code(code: u16) -> Option<u16> {
    (code != 0).then_some(code)
}
