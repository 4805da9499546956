//! What the datapath tells, as log lines and metrics.

use std::{
    collections::HashSet,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use super::access::{self, Note};
use crate::{
    access_log::AccessLog,
    datapath::{Observer, SessionEnd, SessionMeta},
    metrics::Metrics,
};

/// Writes the line of each session and counts.
pub(super) struct Reporter {
    metrics: Arc<Metrics>,
    access_log: Option<Arc<AccessLog>>,
    /// Fall-back reasons that were said aloud.
    said: Mutex<HashSet<&'static str>>,
}

impl Reporter {
    pub(super) fn new(metrics: Arc<Metrics>, access_log: Option<Arc<AccessLog>>) -> Self {
        Self { metrics, access_log, said: Mutex::default() }
    }
}

impl Observer for Reporter {
    fn ended(&self, end: &SessionEnd) {
        self.metrics.session_ended(end);
        let note = end.meta.note.as_deref().and_then(|note| note.downcast_ref::<Note>());
        if let (Some(log), Some(note)) = (&self.access_log, note) {
            access::session_ended(log, note, end);
        }
        tracing::info!(
            session = end.meta.id,
            request = note.map(|note| &*note.request_id),
            client = %end.meta.client,
            upstream = %end.meta.upstream,
            route = %end.meta.route,
            datapath = end.path.label(),
            duration_ms = u64::try_from(end.duration.as_millis()).unwrap_or(u64::MAX),
            to_upstream_kernel_bytes = end.to_upstream.kernel,
            to_upstream_relay_bytes = end.to_upstream.relay,
            to_client_kernel_bytes = end.to_client.kernel,
            to_client_relay_bytes = end.to_client.relay,
            ended_by = end.ending.label(),
            reset = end.reset,
            error = end.error.as_deref(),
            "session ended"
        );
    }

    fn fell_back(&self, meta: &SessionMeta, reason: &'static str, error: &io::Error) {
        self.metrics.datapath_fallback.with_label_values(&[reason]).inc();
        let first = self.said.lock().unwrap_or_else(PoisonError::into_inner).insert(reason);
        if first {
            tracing::warn!(
                session = meta.id, client = %meta.client, reason, %error,
                "a session can't take the kernel path and is relayed; further ones are only counted"
            );
        } else {
            tracing::debug!(session = meta.id, reason, %error, "relayed");
        }
    }
}
