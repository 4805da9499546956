//! Plain requests: the HTTP library serves them behind the guard, keep-alive on both sides,
//! bodies streamed as fast as their receiver takes them.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{self, HeaderName},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioTimer;
use tokio::time::{sleep_until, timeout};

use super::{
    Client, Gateway,
    access::Pending,
    body::{ClientFault, ReplyBody, RequestBody, Upload, has_one_length},
    guard::{Guard, Outcome, Patience, Shared},
    setup::{RouteSetup, Setup},
    stream::Stream,
    upgrade::{self, find_route},
    upstreams::{Held, NoServer, Sender, UpstreamGroup, Via, Wish},
};
use crate::{
    config::{Action, Forward, WebSocketRule},
    files::Target as FileTarget,
    forwarding::{Facts, Rendered, cookie, prepare_request},
    handshake::{Refusal, RefusalReason},
    routes::rewritten,
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
                let exchange = Exchange::new(&gateway, &client, &request);
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
        .half_close(true)
        .max_headers(limits.max_headers)
        .max_buf_size(limits.max_bytes.max(MIN_BUFFER))
        .serve_connection(guard, service);
    let mut stopping = false;
    let ended = loop {
        let served = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx));
        tokio::select! {
            served = served => break served,
            () = shared.is_over(), if !stopping => {}
            () = gateway.until_stopped(), if !stopping => {}
        }
        stopping = true;
        std::pin::Pin::new(&mut connection).graceful_shutdown();
    };
    if let Err(error) = ended {
        tracing::debug!(client = %client.connection.peer, %error, "connection broken off");
    }
    let (owned, rest, outcome) = connection.into_parts().io.into_parts();
    *stream = owned;
    (rest, outcome)
}

/// The least that the library takes as the size of its buffer, in bytes.
const MIN_BUFFER: usize = 8 * 1024;

/// One request and what is known of it.
struct Exchange<'a> {
    gateway: &'a Arc<Gateway>,
    client: &'a Arc<Client>,
    setup: Arc<Setup>,
    facts: Facts,
}

/// A request could not be served: what the client is told, and what the operator is.
struct Failure {
    refusal: Refusal,
    error: Option<String>,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, error: None }
    }
}

impl<'a> Exchange<'a> {
    fn new(
        gateway: &'a Arc<Gateway>,
        client: &'a Arc<Client>,
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
        Self { gateway, client, setup, facts }
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
            Err(refusal) => Err(refusal.clone().into()),
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
                self.forward(route, forward, request, pending).await
            }
            Action::Files { .. } => {
                let Some(files) = &route.files else { return Err(no_route().into()) };
                let target = FileTarget {
                    path: below(&route.config.path, self.facts.path()),
                    original_path: self.facts.path(),
                    query: self.facts.query(),
                };
                let (method, headers) = (request.method(), request.headers());
                let response = files.respond(method, target, headers).await;
                Ok(self.changed(route, headers, response.map(ReplyBody::file), ""))
            }
            Action::Redirect { to, status } => {
                let headers = request.headers();
                let place = to.render(|v| self.facts.value(v, connection, headers, ""));
                let mut response = Response::new(ReplyBody::text(""));
                *response.status_mut() = StatusCode::from_u16(*status).unwrap_or(StatusCode::FOUND);
                if let Ok(place) = HeaderValue::from_str(&place) {
                    response.headers_mut().insert(header::LOCATION, place);
                }
                Ok(self.changed(route, headers, response, ""))
            }
            Action::Respond { status, body } => {
                let head_only = request.method() == Method::HEAD;
                let mut response = Response::new(ReplyBody::text(body.clone()));
                *response.status_mut() =
                    StatusCode::from_u16(*status).unwrap_or(StatusCode::NOT_FOUND);
                let kind = HeaderValue::from_static("text/plain; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                if head_only {
                    response.headers_mut().insert(header::CONTENT_LENGTH, body.len().into());
                    *response.body_mut() = ReplyBody::text("");
                }
                Ok(self.changed(route, request.headers(), response, ""))
            }
        }
    }

    /// The route's changes of an answer that we made ourselves.
    fn changed(
        &self,
        route: &RouteSetup,
        request: &HeaderMap,
        mut response: Response<ReplyBody>,
        server: &str,
    ) -> Response<ReplyBody> {
        let changes = &route.config.response_headers;
        if !changes.is_empty() {
            let connection = &self.client.connection;
            let rendered = Rendered::new(changes, &self.facts, connection, request, server);
            rendered.apply(response.headers_mut());
        }
        response
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

    /// To a server of the route's group and back.
    async fn forward(
        &self,
        route: &Arc<RouteSetup>,
        forward: &Forward,
        request: Request<Incoming>,
        pending: &mut Option<Box<Pending>>,
    ) -> Result<Response<ReplyBody>, Failure> {
        if forward.websocket == WebSocketRule::Only {
            return Err(Refusal::not_websocket(request.method().as_str()).into());
        }
        let limit = forward.body_limit.map(|limit| u64::from(limit.get()));
        let announced = http_body::Body::size_hint(request.body()).lower();
        if limit.is_some_and(|limit| announced > limit) {
            return Err(body_too_large().into());
        }
        let group = route.upstream.as_ref().ok_or_else(|| no_server(&NoServer::Nobody(None)))?;
        let (head, body) = request.into_parts();
        let sticky_name = group.config.sticky_cookie.as_ref();
        let sticky = sticky_name.and_then(|name| cookie(&head.headers, name)).map(str::to_owned);
        let key = upgrade::hash_key(&group.config.balance, &self.facts, &head.headers);
        let upload = Arc::new(Upload::default());
        let pause = self.setup.config.timeouts.request_body.get();
        let body = RequestBody::new(body, limit, pause, &upload);
        let sticky = sticky.as_deref();

        // The next server is asked only while nothing of the request has gone to one.
        let mut tried = Vec::new();
        let mut last: Option<Failure> = None;
        let (sender, held) = loop {
            let held = match group.acquire(Wish { key, sticky, tried: &tried }).await {
                Ok(held) => held,
                Err(none) => return Err(last.unwrap_or_else(|| no_server(&none).into())),
            };
            match self.connection_to(group, forward, &held).await {
                Ok(sender) => break (sender, held),
                Err(failure) => {
                    group.failed(held.target.id);
                    let server = &*held.target.name;
                    self.gateway.metrics.upstream_failures.with_label_values(&[server]).inc();
                    tried.push(held.target.id);
                    last = Some(failure);
                }
            }
        };
        if let Some(pending) = pending {
            pending.at_server(&held.target.name);
        }
        let changes = &route.config.response_headers;
        let server = &held.target.name;
        let connection = &self.client.connection;
        let rendered = Rendered::new(changes, &self.facts, connection, &head.headers, server);
        let request = self.request_for(route, forward, &held, head, body)?;
        let answer = self.answer(group, forward, sender, request, &upload, &held).await?;
        let (sender, response) = answer;
        group.succeeded(held.target.id);
        if let Some(pending) = pending {
            pending.upstream_answered(&upload);
        }
        let cookie = upgrade::sticky_cookie(group, sticky, held.target.id, &self.facts.scheme);
        Ok(self.reply(group, forward, held, sender, response, &rendered, cookie))
    }

    /// An idle connection to the server, or a new one.
    async fn connection_to(
        &self,
        group: &UpstreamGroup,
        forward: &Forward,
        held: &Held,
    ) -> Result<Sender, Failure> {
        if let Some(sender) = group.pool.take(held.target.id) {
            return Ok(sender);
        }
        self.new_connection(group, forward, held).await
    }

    async fn new_connection(
        &self,
        group: &UpstreamGroup,
        forward: &Forward,
        held: &Held,
    ) -> Result<Sender, Failure> {
        let via = Via { tcp: self.setup.tcp, client: Some(&self.client.connection) };
        let patience = forward.connect.unwrap_or(self.setup.config.timeouts.upstream_connect);
        let failure = |refusal, error: String| Failure {
            refusal,
            error: Some(format!("{}: {error}", held.target.name)),
        };
        let unreachable = || Refusal::bad_gateway("No upstream server could be reached.");
        let stream = match timeout(patience.get(), group.connect(&held.target, &via)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(failure(unreachable(), error.to_string())),
            Err(_) => {
                let late = "no connection in time".to_owned();
                return Err(failure(Refusal::gateway_timeout(), late));
            }
        };
        let sender = Sender::new(stream, self.setup.head_limits).await;
        sender.map_err(|error| failure(unreachable(), error.to_string()))
    }

    /// The request as the server gets it.
    fn request_for(
        &self,
        route: &RouteSetup,
        forward: &Forward,
        held: &Held,
        head: http::request::Parts,
        body: RequestBody,
    ) -> Result<Request<RequestBody>, Failure> {
        let connection = &self.client.connection;
        let mut headers = head.headers;
        let wants_trailers = headers
            .get_all(header::TE)
            .iter()
            .any(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
        let changes = &route.config.request_headers;
        let rendered = Rendered::new(changes, &self.facts, connection, &headers, &held.target.name);
        without_hop_by_hop(&mut headers);
        headers.remove(header::EXPECT);
        if http_body::Body::size_hint(&body).exact().is_none() {
            // The library would take it that a GET has none, and drop it.
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if wants_trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        prepare_request(
            &mut headers,
            &self.facts,
            connection,
            &forward.host,
            &held.target.host,
            &rendered,
        );
        if !headers.contains_key(header::HOST) {
            // HTTP/1.0 has none; we speak HTTP/1.1 to servers.
            if let Ok(host) = HeaderValue::from_str(&held.target.host) {
                headers.insert(header::HOST, host);
            }
        }
        let target = match &forward.rewrite {
            Some(with) if self.facts.target != "*" => {
                rewritten(&route.config, with, &self.facts.target)
            }
            _ => self.facts.target.clone(),
        };
        let uri = target.parse::<Uri>().map_err(|_| no_route())?;
        let mut request = Request::new(body);
        *request.method_mut() = head.method;
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// Sends the request and waits for the head of the answer, as long as something moves.
    async fn answer(
        &self,
        group: &UpstreamGroup,
        forward: &Forward,
        mut sender: Sender,
        mut request: Request<RequestBody>,
        upload: &Upload,
        held: &Held,
    ) -> Result<(Sender, Response<Incoming>), Failure> {
        let patience = forward.answer.unwrap_or(self.setup.config.timeouts.upstream_answer).get();
        // A pooled connection may have been closed by its server while it was idle.
        for fresh in [false, true] {
            if fresh {
                sender = self.new_connection(group, forward, held).await?;
            }
            let sent = while_moving(upload, patience, sender.send(request)).await;
            let Some(sent) = sent else {
                group.failed(held.target.id);
                let error = format!("{}: no answer in time", held.target.name);
                return Err(Failure { refusal: Refusal::gateway_timeout(), error: Some(error) });
            };
            match sent {
                Ok(response) if !has_one_length(response.headers()) => {
                    group.failed(held.target.id);
                    let text = "The answer of the upstream server has no clear end.";
                    let error = Some(format!("{}: an answer of two lengths", held.target.name));
                    return Err(Failure { refusal: Refusal::bad_gateway(text), error });
                }
                Ok(response) => return Ok((sender, response)),
                Err(mut failed) => {
                    // What was never sent may be sent again.
                    if let Some(back) = failed.take_message().filter(|_| !fresh) {
                        request = back;
                        continue;
                    }
                    if upload.is_too_large() {
                        return Err(body_too_large().into());
                    }
                    if let Some(fault) = upload.fault() {
                        // No server is to suffer for it.
                        return Err(body_missing(fault).into());
                    }
                    group.failed(held.target.id);
                    let error = failed.error();
                    let text = "The upstream server broke off the request.";
                    let error = Some(format!("{}: {error}", held.target.name));
                    return Err(Failure { refusal: Refusal::bad_gateway(text), error });
                }
            }
        }
        Err(Refusal::bad_gateway("The upstream server broke off the request.").into())
    }

    #[expect(clippy::too_many_arguments, reason = "the answer and what is to become of it")]
    fn reply(
        &self,
        group: &Arc<UpstreamGroup>,
        forward: &Forward,
        held: Held,
        sender: Sender,
        response: Response<Incoming>,
        rendered: &Rendered,
        cookie: Option<String>,
    ) -> Response<ReplyBody> {
        let (mut head, body) = response.into_parts();
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            // Nobody asked for that.
            let text = "The upstream server switched protocols without being asked.";
            return refused(&Refusal::bad_gateway(text), false);
        }
        without_hop_by_hop(&mut head.headers);
        rendered.apply(&mut head.headers);
        if let Some(cookie) = cookie.and_then(|cookie| HeaderValue::try_from(cookie).ok()) {
            head.headers.append(header::SET_COOKIE, cookie);
        }
        head.version = Version::HTTP_11;
        head.extensions = http::Extensions::new();
        let pause = forward.idle.unwrap_or(self.setup.config.timeouts.idle);
        let pause = pause.map(|pause| pause.get());
        let body = ReplyBody::upstream(body, pause, held, Arc::clone(group), sender);
        Response::from_parts(head, body)
    }
}

/// Waits for `what` until nothing of the upload has moved for `patience`.
async fn while_moving<T>(
    upload: &Upload,
    patience: Duration,
    what: impl Future<Output = T>,
) -> Option<T> {
    let mut what = std::pin::pin!(what);
    loop {
        let steps = upload.steps();
        let deadline = tokio::time::Instant::now() + patience;
        tokio::select! {
            done = &mut what => return Some(done),
            () = sleep_until(deadline) => {
                // A client may pause for longer: `timeouts.request_body` is for that.
                if upload.steps() == steps && !upload.is_awaited() {
                    return None;
                }
            }
        }
    }
}

/// What ends at this hop (RFC 9110 section 7.6.1).
fn without_hop_by_hop(headers: &mut HeaderMap) {
    let mut named = Vec::new();
    for value in headers.get_all(header::CONNECTION) {
        let Ok(text) = value.to_str() else { continue };
        let names = text.split(',').filter_map(|name| name.trim().parse::<HeaderName>().ok());
        named.extend(names);
    }
    for name in named {
        if !crate::handshake::is_for_all_recipients(name.as_str()) {
            headers.remove(name);
        }
    }
    for name in [
        header::CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ] {
        headers.remove(name);
    }
}

/// Path and query, whatever form the target had.
fn origin_form(uri: &Uri) -> String {
    match uri.path_and_query() {
        // With a slash for the path that an absolute form need not have.
        Some(target) => target.to_string(),
        None => "/".to_owned(),
    }
}

/// What stands behind a route's path, for files below it.
fn below<'p>(prefix: &str, path: &'p str) -> &'p str {
    path.strip_prefix(prefix).unwrap_or(path)
}

fn no_route() -> Refusal {
    let detail = "Nothing is served under this host and path.";
    Refusal::by_rule(404, RefusalReason::NoRoute, detail, None)
}

fn no_server(none: &NoServer) -> Refusal {
    upgrade::refusal_of(none)
}

fn body_too_large() -> Refusal {
    let detail = "The body of this request is longer than is taken here.";
    Refusal::by_rule(413, RefusalReason::BodyTooLarge, detail, None)
}

fn body_missing(fault: ClientFault) -> Refusal {
    match fault {
        ClientFault::Late => {
            let detail = "The body of this request did not arrive in time.";
            Refusal::by_rule(408, RefusalReason::Timeout, detail, None)
        }
        ClientFault::Broken => Refusal::bad_body("it ends too soon, or is malformed"),
    }
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
    if matches!(refusal.status, 400 | 408 | 413) {
        // The rest of the body is not waited for.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
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
