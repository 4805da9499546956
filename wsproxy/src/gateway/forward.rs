//! A plain request on its way to a server of its route's group, and the answer back.

use std::{error::Error as _, sync::Arc, time::Duration};

use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version,
    header::{self, HeaderName},
};
use hyper::body::Incoming;
use tokio::time::{sleep_until, timeout};

use super::{
    access::Pending,
    body::{ClientFault, ReplyBody, RequestBody, Upload, has_one_length},
    plain::{Exchange, Failure, body_too_large, no_route, no_server},
    setup::RouteSetup,
    upgrade,
    upstreams::{Held, NoServer, Sender, UpstreamGroup, Via, Wish},
};
use crate::{
    config::{Forward, WebSocketRule},
    forwarding::{Rendered, cookie, prepare_request},
    handshake::{Refusal, RefusalReason},
    routes::rewritten,
};

impl Exchange<'_> {
    /// To a server of the route's group and back.
    pub(super) async fn forward(
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
        let (sender, kept, held) = loop {
            let held = match group.acquire(Wish { key, sticky, tried: &tried }).await {
                Ok(held) => held,
                Err(none) => return Err(last.unwrap_or_else(|| no_server(&none).into())),
            };
            match self.connection_to(group, forward, &held).await {
                Ok((sender, kept)) => break (sender, kept, held),
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
        let answer = self.answer(group, forward, (sender, kept), request, &upload, &held).await?;
        let (sender, response) = answer;
        group.succeeded(held.target.id);
        if let Some(pending) = pending {
            pending.upstream_answered(&upload);
        }
        let cookie = upgrade::sticky_cookie(group, sticky, held.target.id, &self.facts.scheme);
        self.reply(group, forward, held, sender, response, &rendered, cookie)
    }

    /// An idle connection to the server, or a new one; and whether it is one that was kept.
    async fn connection_to(
        &self,
        group: &UpstreamGroup,
        forward: &Forward,
        held: &Held,
    ) -> Result<(Sender, bool), Failure> {
        if let Some(sender) = group.pool.take(held.target.id) {
            return Ok((sender, true));
        }
        let sender = self.new_connection(group, forward, held).await?;
        Ok((sender, false))
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
        (mut sender, kept): (Sender, bool),
        mut request: Request<RequestBody>,
        upload: &Arc<Upload>,
        held: &Held,
    ) -> Result<(Sender, Response<Incoming>), Failure> {
        let patience = forward.answer.unwrap_or(self.setup.config.timeouts.upstream_answer).get();
        // A pooled connection may have been closed by its server while it was idle. What was sent
        // into the close may be sent again where that changes nothing (RFC 9110 section 9.2.2).
        let mut spare = if kept { again(&request, upload) } else { None };
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
                Ok(response) => {
                    if !upload.is_over() {
                        sender.detach();
                    }
                    return Ok((sender, response));
                }
                Err(mut failed) => {
                    // What was never sent may be sent again.
                    let closed = failed.error().is_incomplete_message() || is_io(failed.error());
                    let back = failed.take_message().or(spare.take().filter(|_| closed));
                    if let Some(back) = back.filter(|_| !fresh) {
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
                    let error = with_causes(failed.error());
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
    ) -> Result<Response<ReplyBody>, Failure> {
        let (mut head, body) = response.into_parts();
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            // Nobody asked for that.
            let text = "The upstream server switched protocols without being asked.";
            return Err(Refusal::bad_gateway(text).into());
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
        Ok(Response::from_parts(head, body))
    }
}

/// The same request once more, where it has no body and may come twice.
fn again(request: &Request<RequestBody>, upload: &Arc<Upload>) -> Option<Request<RequestBody>> {
    let body = request.body().again(upload)?;
    if !request.method().is_idempotent() {
        return None;
    }
    let mut again = Request::new(body);
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.version_mut() = request.version();
    *again.headers_mut() = request.headers().clone();
    Some(again)
}

/// What failed, and why, down to the system's or TLS's own word for it.
fn with_causes(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// The connection broke.
fn is_io(error: &hyper::Error) -> bool {
    error.source().is_some_and(|source| source.is::<std::io::Error>())
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

fn body_missing(fault: ClientFault) -> Refusal {
    match fault {
        ClientFault::Late => {
            let detail = "The body of this request did not arrive in time.";
            Refusal::by_rule(408, RefusalReason::Timeout, detail, None)
        }
        ClientFault::Broken => Refusal::bad_body("it ends too soon, or is malformed"),
    }
}
