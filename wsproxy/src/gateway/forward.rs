//! A plain request on its way to a server of its route's group, and the answer back.

use std::{error::Error as _, sync::Arc, task::Poll};

use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version,
    header::{self, HeaderName},
};
use http_body::Body as _;
use hyper::body::Incoming;

use super::{
    access::Pending,
    body::{ClientFault, First, ReplyBody, RequestBody, Upload, has_one_length},
    plain::{Exchange, Failure, body_too_large, no_route, no_server},
    setup::RouteSetup,
    upgrade::{self, count_failure, unreachable},
    upstreams::{Held, NoServer, Sender, UpstreamGroup, Wish, asleep},
};
use crate::{
    config::{Forward, WebSocketRule},
    forwarding::{Rendered, cookie, prepare_request},
    handshake::{Refusal, RefusalReason},
    routes::rewritten,
};

/// Where a request goes.
#[derive(Clone, Copy)]
struct Way<'a> {
    route: &'a RouteSetup,
    forward: &'a Forward,
    group: &'a UpstreamGroup,
    held: &'a Held,
}

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
        let limit = forward.body_limit.map(|limit| limit.get());
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
                    count_failure(self.gateway, group, &held, failure.asked);
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
        let way = Way { route, forward, group, held: &held };
        let answer = self.answer(way, (sender, kept), &head, body, &upload).await?;
        let (mut sender, mut response) = answer;
        let first = match first_frame(&mut sender, &mut response, &upload) {
            Ok(first) => first,
            Err(error) => {
                self.server_failed(group, &held);
                let text = "The upstream server broke off its answer.";
                let (refusal, error) = (Refusal::bad_gateway(text), with_causes(&error));
                return Err(Failure::of_server(refusal, &held.target.name, &error));
            }
        };
        group.succeeded(held.target.id);
        if let Some(pending) = pending {
            pending.upstream_answered(&upload);
        }
        let cookie = upgrade::sticky_cookie(group, sticky, held.target.id, &self.facts.scheme);
        let mut reply = self.reply(group, forward, held, sender, response, &rendered, cookie);
        reply.body_mut().begin_with(first);
        Ok(reply)
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
        let (server, client) = (&*held.target.name, &self.client.connection);
        let dialled = upgrade::dial(&self.setup, group, held, forward, client, None).await;
        let stream = dialled.map_err(|failed| Failure::to_connect(server, failed))?;
        let sender = Sender::new(stream, self.setup.head_limits).await;
        let failure =
            |error: hyper::Error| Failure::of_server(unreachable(), server, &error.to_string());
        sender.map_err(failure)
    }

    /// The request as the server gets it.
    fn request_for(
        &self,
        Way { route, forward, held, .. }: Way<'_>,
        head: &http::request::Parts,
        body: RequestBody,
    ) -> Result<Request<RequestBody>, Failure> {
        let connection = &self.client.connection;
        let wants_trailers = wants_trailers(&head.headers);
        let changes = &route.config.request_headers;
        let server = &*held.target.name;
        let rendered = Rendered::new(changes, &self.facts, connection, &head.headers, server);
        let mut headers = beyond_this_hop(&head.headers);
        headers.remove(header::EXPECT);
        if http_body::Body::size_hint(&body).exact().is_none() {
            // The library would take it that a GET has none, and drop it.
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if wants_trailers {
            // RFC 9110 section 10.1.4: TE is for one hop, and Connection has to say so.
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
            headers.insert(header::CONNECTION, HeaderValue::from_static("TE"));
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
        let uri = match &forward.rewrite {
            Some(with) if self.facts.target != "*" => {
                let target = rewritten(&route.config, with, &self.facts.target);
                target.parse::<Uri>().map_err(|_| no_route())?
            }
            _ if head.uri.authority().is_none() => head.uri.clone(),
            _ => self.facts.target.parse::<Uri>().map_err(|_| no_route())?,
        };
        let mut request = Request::new(body);
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// Sends the request and waits for the head of the answer, as long as something moves.
    async fn answer(
        &self,
        way: Way<'_>,
        (mut sender, kept): (Sender, bool),
        head: &http::request::Parts,
        body: RequestBody,
        upload: &Arc<Upload>,
    ) -> Result<(Sender, Response<Incoming>), Failure> {
        let Way { forward, group, held, .. } = way;
        let patience = forward.answer.unwrap_or(self.setup.config.timeouts.upstream_answer).get();
        // A pooled connection may have been closed by its server while it was idle. What was sent
        // into the close may be sent again where that changes nothing (RFC 9110 section 9.2.2).
        let may_repeat = kept && head.method.is_idempotent();
        let mut spare = if may_repeat { body.again(upload) } else { None };
        let mut request = self.request_for(way, head, body)?;
        for fresh in [false, true] {
            if fresh {
                let connected = self.new_connection(group, forward, held).await;
                sender =
                    connected.inspect_err(|f| count_failure(self.gateway, group, held, f.asked))?;
            }
            let Some(sent) = sender.send(request, upload, patience).await else {
                self.server_failed(group, held);
                let refusal = Refusal::gateway_timeout();
                return Err(Failure::of_server(refusal, &held.target.name, "no answer in time"));
            };
            match sent {
                Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    // Nobody asked for that.
                    self.server_failed(group, held);
                    let text = "The upstream server switched protocols without being asked.";
                    let (refusal, error) = (Refusal::bad_gateway(text), "an unasked 101");
                    return Err(Failure::of_server(refusal, &held.target.name, error));
                }
                Ok(response) if !has_one_length(response.headers()) => {
                    self.server_failed(group, held);
                    let text = "The answer of the upstream server has no clear end.";
                    let (refusal, error) = (Refusal::bad_gateway(text), "an answer of two lengths");
                    return Err(Failure::of_server(refusal, &held.target.name, error));
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
                    let unsent = failed.take_message();
                    let again = spare.take().filter(|_| closed);
                    match (unsent, again) {
                        _ if fresh => {}
                        (Some(unsent), _) => {
                            request = unsent;
                            continue;
                        }
                        (None, Some(body)) => {
                            request = self.request_for(way, head, body)?;
                            continue;
                        }
                        (None, None) => {}
                    }
                    if upload.is_too_large() {
                        return Err(body_too_large().into());
                    }
                    if let Some(fault) = upload.fault() {
                        // No server is to suffer for it.
                        return Err(body_missing(fault).into());
                    }
                    self.server_failed(group, held);
                    let error = with_causes(failed.error());
                    let text = "The upstream server broke off the request.";
                    let refusal = Refusal::bad_gateway(text);
                    return Err(Failure::of_server(refusal, &held.target.name, &error));
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

    /// The server's fault: it counts against it.
    fn server_failed(&self, group: &UpstreamGroup, held: &Held) {
        count_failure(self.gateway, group, held, true);
    }
}

/// What has come of an answer's body together with its head. One that has broken off already is
/// no answer: the client's head is not sent yet.
fn first_frame(
    sender: &mut Sender,
    response: &mut Response<Incoming>,
    upload: &Upload,
) -> hyper::Result<First> {
    // With an upload under way an end may be the client's fault.
    if response.body().is_end_stream() || !upload.is_over() {
        return Ok(First::Unknown);
    }
    match sender.poll_body(response.body_mut(), &mut asleep()) {
        Poll::Pending => Ok(First::Unknown),
        Poll::Ready(None) => Ok(First::End),
        Poll::Ready(Some(frame)) => frame.map(First::Frame),
    }
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

/// The headers of a request that go further than this hop (RFC 9110 section 7.6.1), with room for
/// those that we add.
fn beyond_this_hop(from: &HeaderMap) -> HeaderMap {
    const ADDED: usize = 8;
    let named: Vec<&str> = from.get_all(header::CONNECTION).iter().flat_map(tokens).collect();
    let is_named = |name: &HeaderName| named.iter().any(|n| n.eq_ignore_ascii_case(name.as_str()));
    let mut to = HeaderMap::with_capacity(from.len() + ADDED);
    for (name, value) in from.iter().filter(|(name, _)| !ends_here(name) && !is_named(name)) {
        to.append(name, value.clone());
    }
    to
}

/// Takes what ends at this hop out of an answer.
fn without_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<_> = headers.get_all(header::CONNECTION).iter().cloned().collect();
    for name in named.iter().flat_map(tokens) {
        headers.remove(name);
    }
    while let Some(name) = headers.keys().find(|name| ends_here(name)).cloned() {
        headers.remove(name);
    }
}

/// The names in a `Connection` header, but for those that it can't take away.
fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    let names = value.to_str().unwrap_or_default().split(',').map(str::trim);
    names.filter(|name| !crate::handshake::is_for_all_recipients(name))
}

fn ends_here(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Whether the client takes trailers. Other codings that it may list end at this hop.
fn wants_trailers(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::TE).iter().map(HeaderValue::as_bytes);
    let mut codings = lines.flat_map(|line| line.split(|&byte| byte == b','));
    codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
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
