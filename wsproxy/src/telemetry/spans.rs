//! A handshake and its servers as spans.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use opentelemetry::{
    Context, KeyValue,
    trace::{
        Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _,
    },
};
use opentelemetry_sdk::trace::{SdkTracer, Span};
use tokio::time::Instant;

use super::trace_context;
use crate::{
    forwarding::{Facts, Headers},
    handshake::{Refusal, RefusalReason},
};

/// Makes spans, once there is somewhere to send them.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// From now on there are spans. A second tracer changes nothing.
pub(super) fn trace_with(tracer: SdkTracer) {
    // Ignored: the first one's exporter is the one that runs.
    let _already = TRACER.set(tracer);
}

/// A status of HTTP from which on an answer means that something failed (RFC 9110 section 15.6).
const FAILURE: u16 = 500;

/// The span of a handshake: from the first byte of the request to its 101 or refusal. Dropped
/// before its end is known, it ends then.
pub(crate) struct Handshake(Option<Box<Open>>);

/// On the heap: in the task it would make every connection's that much larger.
struct Open {
    tracer: &'static SdkTracer,
    span: Span,
    /// The last one that was asked.
    server: Option<Arc<str>>,
}

impl Handshake {
    /// The span of a request with these `headers`, whose first byte came when it `began`.
    pub(crate) fn begin(facts: &Facts, headers: &impl Headers, began: Instant) -> Self {
        let open = TRACER.get().map(|tracer| {
            let parent = trace_context::read(headers);
            Box::new(Open::new(tracer, parent, facts.client, &facts.request_id, began))
        });
        Self(open)
    }

    /// A route takes it.
    pub(crate) fn on_route(&mut self, route: &Arc<str>) {
        if let Some(open) = &mut self.0 {
            open.span.set_attribute(KeyValue::new("wsproxy.route", Arc::clone(route)));
        }
    }

    /// A server is asked.
    pub(crate) fn ask(&mut self, server: &Arc<str>) -> Asked {
        Asked(self.0.as_mut().map(|open| Box::new(open.ask(server))))
    }

    /// It was answered with something else than 101, by a server or by the route.
    pub(crate) fn answered(&mut self, status: u16) {
        let Some(mut open) = self.0.take() else { return };
        if status >= FAILURE {
            open.span.set_status(Status::error(format!("answered {status}")));
        }
        open.end(status);
    }

    /// We refused it.
    pub(crate) fn refused(&mut self, refusal: &Refusal) {
        if let Some(open) = self.0.take() {
            open.refused(refusal);
        }
    }

    /// It ended without an answer; `reason` is what the metric says.
    pub(crate) fn broke(&mut self, reason: &'static str) {
        if let Some(mut open) = self.0.take() {
            open.span.set_status(Status::error(reason));
            open.at_server();
        }
    }

    /// The client has its 101, and the session its number.
    pub(crate) fn switched(self, session: u64) {
        let Some(mut open) = self.0 else { return };
        open.span.set_attribute(KeyValue::new("wsproxy.session_id", number(session)));
        open.end(101);
    }
}

impl Open {
    fn new(
        tracer: &'static SdkTracer,
        parent: Option<SpanContext>,
        client: IpAddr,
        request_id: &str,
        began: Instant,
    ) -> Self {
        let now = SystemTime::now();
        let builder = SpanBuilder::from_name("handshake")
            .with_kind(SpanKind::Server)
            .with_start_time(now.checked_sub(began.elapsed()).unwrap_or(now))
            .with_attributes([
                KeyValue::new("client.address", client.to_string()),
                KeyValue::new("wsproxy.request_id", request_id.to_owned()),
            ]);
        let span = tracer.build_with_context(builder, &under(parent));
        Self { tracer, span, server: None }
    }

    fn ask(&mut self, server: &Arc<str>) -> Span {
        self.server = Some(Arc::clone(server));
        let builder = SpanBuilder::from_name("upstream")
            .with_kind(SpanKind::Client)
            .with_attributes([KeyValue::new("wsproxy.upstream", Arc::clone(server))]);
        self.tracer.build_with_context(builder, &under(Some(self.span.span_context().clone())))
    }

    fn refused(mut self, refusal: &Refusal) {
        let reason = refusal.reason.label();
        self.span.set_attribute(KeyValue::new("wsproxy.refusal_reason", reason));
        self.span.set_status(Status::error(refusal.detail.clone()));
        self.end(refusal.status);
    }

    fn at_server(&mut self) {
        if let Some(server) = self.server.take() {
            self.span.set_attribute(KeyValue::new("wsproxy.upstream", server));
        }
    }

    fn end(mut self, status: u16) {
        self.at_server();
        self.span.set_attribute(status_code(status));
        self.span.end();
    }
}

/// The span of one server's part in a handshake: from connecting to its answer.
pub(crate) struct Asked(Option<Box<Span>>);

impl Asked {
    /// Tells the server whose child its own span is.
    pub(crate) fn write(&self, headers: &mut impl Headers) {
        if let Some(span) = &self.0 {
            trace_context::write(span.span_context(), headers);
        }
    }

    /// It answered.
    pub(crate) fn answered(self, status: u16) {
        let Some(mut span) = self.0 else { return };
        span.set_attribute(status_code(status));
        if status >= FAILURE {
            span.set_status(Status::error(format!("answered {status}")));
        }
        span.end();
    }

    /// It could not be reached, or did not answer as it must.
    pub(crate) fn failed(self, error: &str) {
        let Some(mut span) = self.0 else { return };
        span.set_status(Status::error(error.to_owned()));
        span.end();
    }
}

/// The span of a handshake that was refused for its head: of those refusals that nothing but a
/// handshake gets. Of its headers nothing is known, a parent neither.
pub(crate) fn bad_head(client: IpAddr, request_id: &str, refusal: &Refusal, began: Instant) {
    use RefusalReason::{Extensions, Key, Origin, Protocols, WebSocketVersion};
    let Some(tracer) = TRACER.get() else { return };
    if let Key | WebSocketVersion | Protocols | Extensions | Origin = refusal.reason {
        Open::new(tracer, None, client, request_id, began).refused(refusal);
    }
}

fn under(parent: Option<SpanContext>) -> Context {
    match parent {
        Some(parent) => Context::new().with_remote_span_context(parent),
        None => Context::new(),
    }
}

fn status_code(status: u16) -> KeyValue {
    KeyValue::new("http.response.status_code", i64::from(status))
}

/// Attributes have no unsigned numbers.
fn number(session: u64) -> i64 {
    i64::try_from(session).unwrap_or(i64::MAX)
}
