//! Plain requests: the HTTP library serves them behind the guard, keep-alive on both sides,
//! bodies streamed as fast as their receiver takes them.

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{self, HeaderName},
};
use hyper::{body::Incoming, ext::ReasonPhrase, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioTimer;

use super::{
    Client, Gateway,
    access::Pending,
    body::ReplyBody,
    fixed,
    guard::{Guard, InFlight, Outcome, Patience, Shared},
    setup::{RouteSetup, Setup},
    stream::Stream,
    timer::Deadline,
    upgrade::{self, Failed, find_route, route_of},
    upstreams::NoServer,
};
use crate::{
    config::Action,
    files::Target as FileTarget,
    forwarding::Facts,
    handshake::{Refusal, RefusalReason},
    routes::behind,
};

/// Serves the requests of a connection that begin in `received`, until a handshake, an end or a
/// request that must not get through. Returns what nobody has read.
pub(super) async fn serve(
    gateway: &Arc<Gateway>,
    client: &Arc<Client>,
    stream: &mut Stream,
    received: Vec<u8>,
) -> (Vec<u8>, Outcome) {
    let setup = gateway.setup.load_full();
    let timeouts = &setup.config.timeouts;
    let patience =
        Patience { idle: timeouts.keepalive_idle.get(), head: timeouts.request_head.get() };
    let shared = Arc::new(Shared::default());
    let owned = stream.lend();
    let guard = Guard::new(owned, received, setup.head_limits, patience, Arc::clone(&shared));
    let limits = setup.head_limits;
    drop(setup);
    let service = {
        let (gateway, client, shared) =
            (Arc::clone(gateway), Arc::clone(client), Arc::clone(&shared));
        service_fn(move |request| {
            let in_flight = shared.request();
            let (gateway, client) = (Arc::clone(&gateway), Arc::clone(&client));
            // Polled without being pinned by us, so that the connection comes back whole.
            Box::pin(async move {
                let exchange = Exchange::new(&gateway, &client, &in_flight, &request);
                let (response, pending) = exchange.run(request).await;
                let response = response.map(|body| body.until_its_end(pending, in_flight));
                Ok::<_, Infallible>(response)
            })
        })
    };
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // The guard sees to that, and lets whole heads through only.
        .header_read_timeout(None)
        // So that it looks for the end of the connection while a request is in flight. It never
        // finds it: the guard keeps it back.
        .half_close(false)
        .max_headers(limits.max_headers)
        .max_buf_size(limits.max_bytes.max(MIN_BUFFER))
        .serve_connection(guard, service);
    let mut stopping = false;
    let mut until_stopped = pin!(gateway.until_stopped());
    // The task that is woken by a stop; asked for once, not with each event.
    let mut woken: Option<Waker> = None;
    let ended = std::future::poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = connection.poll_without_shutdown(cx) {
                return Poll::Ready(ended);
            }
            if shared.was_answered() {
                continue;
            }
            if stopping {
                return Poll::Pending;
            }
            if !woken.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                woken = Some(cx.waker().clone());
                stopping = until_stopped.as_mut().poll(cx).is_ready();
            }
            stopping |= shared.is_over() || gateway.is_stopped();
            if !stopping {
                return Poll::Pending;
            }
            Pin::new(&mut connection).graceful_shutdown();
        }
    })
    .await;
    let (owned, rest, outcome) = connection.into_parts().io.into_parts();
    *stream = owned;
    match (ended, &outcome) {
        // An answer that was cut off must not look whole: no orderly end.
        (Err(error), _) => {
            tracing::debug!(client = %client.connection.peer, %error, "connection broken off");
        }
        (Ok(()), Outcome::Done) => stream.say_end().await,
        (Ok(()), Outcome::Upgrade(..) | Outcome::Refused(..) | Outcome::Unread) => {}
    }
    (rest, outcome)
}

/// The least that the library takes as the size of its buffer, in bytes.
const MIN_BUFFER: usize = 8 * 1024;

/// One request and what is known of it.
pub(super) struct Exchange<'a> {
    pub(super) gateway: &'a Arc<Gateway>,
    pub(super) client: &'a Arc<Client>,
    pub(super) setup: Arc<Setup>,
    pub(super) facts: Facts,
    in_flight: &'a InFlight,
}

/// A request could not be served: what the client is told, and what the operator is.
pub(super) struct Failure {
    pub(super) refusal: Refusal,
    pub(super) error: Option<String>,
    /// It says something about the server, if there was one.
    pub(super) asked: bool,
}

impl Failure {
    /// No connection to a server.
    pub(super) fn to_connect(server: &str, Failed { refusal, error, asked }: Failed) -> Self {
        Self { asked, ..Self::of_server(refusal, server, &error) }
    }

    /// Of a server.
    pub(super) fn of_server(refusal: Refusal, server: &str, error: &str) -> Self {
        Self { refusal, error: Some(format!("{server}: {error}")), asked: true }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, error: None, asked: true }
    }
}

impl<'a> Exchange<'a> {
    fn new(
        gateway: &'a Arc<Gateway>,
        client: &'a Arc<Client>,
        in_flight: &'a InFlight,
        request: &Request<Incoming>,
    ) -> Self {
        let setup = gateway.setup.load_full();
        let headers = request.headers();
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let target = origin_form(request.uri());
        let line = (request.method().as_str(), target.as_str(), host.unwrap_or_default());
        let facts = Facts::new(&client.connection, &setup.config.clients, headers, line, || {
            gateway.next_request_id()
        });
        Self { gateway, client, setup, facts, in_flight }
    }

    async fn run(self, request: Request<Incoming>) -> (Response<ReplyBody>, Option<Box<Pending>>) {
        let mut pending = Pending::new(self.gateway, &self.facts, self.client, &request);
        let head_only = request.method() == Method::HEAD;
        let route = find_route(&self.setup, self.client, &self.facts).map(Arc::clone);
        let answered = match &route {
            Ok(route) => {
                if let Some(pending) = &mut pending {
                    pending.on_route(&route.name);
                }
                self.by_route(route, request, &mut pending).await
            }
            Err(refusal) => {
                // A route that does not let the client in is known all the same.
                let route = route_of(&self.setup, self.client, &self.facts);
                if let (Some(pending), Some(route)) = (&mut pending, route) {
                    pending.on_route(&route.name);
                }
                Err(refusal.clone().into())
            }
        };
        let mut response = answered.unwrap_or_else(|failure| {
            self.tell(&failure);
            refused(&failure.refusal.with_id(&self.facts.request_id), head_only)
        });
        let id = HeaderValue::from_str(&self.facts.request_id);
        if let Ok(id) = id {
            response.headers_mut().insert(HeaderName::from_static("x-request-id"), id);
        }
        let status = response.status();
        let label = route.as_ref().map_or("none", |route| &*route.name);
        self.gateway.metrics.requests.with_label_values(&[label, class(status)]).inc();
        if let Some(pending) = &mut pending {
            pending.answered(status.as_u16());
        }
        (response, pending)
    }

    fn tell(&self, failure: &Failure) {
        let refusal = &failure.refusal;
        let reason = refusal.reason.label();
        self.gateway.metrics.request_failures.with_label_values(&[reason]).inc();
        match &failure.error {
            Some(error) => tracing::warn!(client = %self.facts.client, error,
                request = self.facts.request_id, reason, "no server answered a request"),
            None => tracing::debug!(client = %self.facts.client, reason,
                request = self.facts.request_id, detail = %refusal.detail, "request refused"),
        }
    }

    async fn by_route(
        &self,
        route: &Arc<RouteSetup>,
        request: Request<Incoming>,
        pending: &mut Option<Box<Pending>>,
    ) -> Result<Response<ReplyBody>, Failure> {
        let connection = &self.client.connection;
        match &route.config.action {
            Action::Upstream(forward) => {
                if let Some(page) = self.demo_page(route, &request) {
                    return Ok(page);
                }
                let answer = pin!(self.forward(route, forward, request, pending));
                unless_it_leaves(self.in_flight, answer).await
            }
            Action::Files { .. } => {
                let Some(files) = &route.files else { return Err(no_route().into()) };
                let target = FileTarget {
                    path: behind(&route.config.path, self.facts.path()),
                    original_path: self.facts.path(),
                    query: self.facts.query(),
                };
                let (method, headers) = (request.method(), request.headers());
                let mut response = files.respond(method, target, headers).await;
                fixed::change(route, &self.facts, connection, headers, response.headers_mut());
                Ok(response.map(ReplyBody::file))
            }
            Action::Redirect { .. } | Action::Respond { .. } => {
                let response = fixed::answer(route, &self.facts, connection, request.headers());
                let mut response = response.ok_or_else(no_route)?;
                if request.method() == Method::HEAD && !response.body().is_empty() {
                    let length = std::mem::take(response.body_mut()).len();
                    response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
                }
                Ok(response.map(ReplyBody::text))
            }
        }
    }

    fn demo_page(
        &self,
        route: &RouteSetup,
        request: &Request<Incoming>,
    ) -> Option<Response<ReplyBody>> {
        let embedded = route.upstream.as_ref().is_some_and(|group| group.config.embedded);
        if !embedded || !matches!(*request.method(), Method::GET | Method::HEAD) {
            return None;
        }
        let page = crate::demo::page(self.facts.path())?;
        let head_only = request.method() == Method::HEAD;
        let mut response = Response::new(ReplyBody::text(if head_only { "" } else { page.body }));
        for (name, value) in page.headers() {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(HeaderName::from_static(name), value);
            }
        }
        if head_only {
            response.headers_mut().insert(header::CONTENT_LENGTH, page.body.len().into());
        }
        Some(response)
    }
}

/// How long a client that has ended its side of the connection is answered all the same: some
/// send a request, end their side, and listen (RFC 9112 section 9.6), but most that end it have
/// closed their connection, which looks the same.
const HALF_CLOSED: Duration = Duration::from_secs(5);

/// Gives up what the client does not wait for: its connection and its place at a server are for
/// others then.
async fn unless_it_leaves<T>(
    request: &InFlight,
    mut what: Pin<&mut impl Future<Output = Result<T, Failure>>>,
) -> Result<T, Failure> {
    let mut patience = Deadline::default();
    std::future::poll_fn(|cx| {
        let done = what.as_mut().poll(cx);
        if done.is_ready() {
            return done;
        }
        let may_listen = !request.client_broke();
        if may_listen && !(request.client_finished() && patience.poll_after(HALF_CLOSED, cx)) {
            return Poll::Pending;
        }
        Poll::Ready(Err(Refusal::client_left().into()))
    })
    .await
}

/// Path and query, whatever form the target had.
fn origin_form(uri: &Uri) -> String {
    match uri.path_and_query() {
        Some(target) if target.as_str().starts_with(['/', '*']) => target.as_str().to_owned(),
        // With a slash for the path that an absolute form need not have.
        Some(target) => target.to_string(),
        None => "/".to_owned(),
    }
}

pub(super) fn no_route() -> Refusal {
    let detail = "Nothing is served under this host and path.";
    Refusal::by_rule(404, RefusalReason::NoRoute, detail, None)
}

pub(super) fn no_server(none: &NoServer) -> Refusal {
    upgrade::refusal_of(none)
}

pub(super) fn body_too_large() -> Refusal {
    let detail = "The body of this request is longer than is taken here.";
    Refusal::by_rule(413, RefusalReason::BodyTooLarge, detail, None)
}

/// A refusal as the library sends it.
fn refused(refusal: &Refusal, head_only: bool) -> Response<ReplyBody> {
    let text = format!("{}\n", refusal.detail);
    let length = text.len();
    let body = if head_only { String::new() } else { text };
    let mut response = Response::new(ReplyBody::text(body));
    *response.status_mut() =
        StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CONTENT_LENGTH, length.into());
    for (name, value) in &refusal.extra {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
    if refusal.status == 426 {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    if matches!(refusal.status, 400 | 408 | 413 | 499) {
        // The rest of the body is not waited for.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if refusal.status == 499 {
        let phrase = ReasonPhrase::from_static(b"Client Closed Request");
        response.extensions_mut().insert(phrase);
    }
    response
}

/// `2xx` and so on, for a metric.
fn class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}
