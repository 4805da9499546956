//! A handshake: is the client let in, which server takes it, what does that say.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::{
    Client, Gateway,
    access::Note,
    connection::Story,
    counts::{ClientSession, Counted, Limiter, PerClient},
    limited,
    setup::{RouteSetup, Setup},
    stream::Stream,
    supervision,
    upstreams::{Held, NoServer, UpstreamGroup, Via, Wish, was_asked},
};
use crate::{
    balance::{self, ServerId},
    config::{Action, Balance, Forward, HashKey, WebSocketRule},
    forwarding::{
        ClientKey, Connection, Facts, Headers, Rendered, cookie, lets_in, prepare_request,
        query_value,
    },
    handshake::{
        Answer, Progress, Refusal, RefusalReason, UpgradeRequest, build_request, parse_response,
    },
    routes::rewritten,
    telemetry::Asked,
};

/// What a client over a limit of sessions is told to wait, in s.
const RETRY_AFTER_S: u64 = 5;

/// Places that a session holds in counts, until its end. One of an earlier process may be without
/// those that the configuration has no more.
pub(super) struct Places {
    pub(super) on_listener: Option<Counted>,
    pub(super) _on_route: Option<Counted>,
    /// Few configurations count clients.
    pub(super) _of_client: Vec<ClientSession>,
}

/// What a session takes with it: its places, and what is to be logged at its end.
pub(super) struct Luggage {
    pub(super) places: Places,
    pub(super) held: Option<Held>,
    pub(super) note: Note,
}

impl Luggage {
    pub(super) fn new(places: Places, held: Held, note: Note) -> Self {
        Self { places, held: Some(held), note }
    }

    /// Frees the places.
    pub(super) fn note(self) -> Note {
        self.note
    }
}

/// A server's answer to a handshake, and where it came from.
pub(super) struct Answered {
    pub(super) stream: Stream,
    pub(super) held: Held,
    pub(super) answer: Answer,
    /// What came behind the answer's head.
    pub(super) early: Vec<u8>,
    /// Changes of the answer's headers, the sticky cookie among them.
    pub(super) changes: Rendered,
    pub(super) cookie: Option<String>,
    /// Until the server had answered.
    pub(super) upstream_time: Duration,
}

/// The route's rules: who may, from which page, how many, how fast.
pub(super) fn admit(
    gateway: &Gateway,
    setup: &Setup,
    client: &Client,
    route: &RouteSetup,
    forward: &Forward,
    request: &mut UpgradeRequest,
    facts: &Facts,
) -> Result<Places, Refusal> {
    let rule = |status, reason, detail| Refusal::by_rule(status, reason, detail, None);
    if gateway.draining.load(Ordering::SeqCst) {
        let draw = gateway.epoch.elapsed().subsec_nanos();
        return Err(supervision::draining(&setup.config.drain, u64::from(draw / 64)));
    }
    if forward.websocket == WebSocketRule::Deny {
        let detail = "No WebSocket connections are served here.";
        return Err(rule(403, RefusalReason::WebSocketRefused, detail));
    }
    if let Some(origins) = &forward.origins
        && !lets_in(origins, request.origin.as_deref())
    {
        tracing::info!(client = %facts.client, route = %route.name, origin = request.origin,
            request = facts.request_id, "a handshake from an origin that is not in route.origins");
        let detail = "Pages of this origin may not connect here.";
        return Err(rule(403, RefusalReason::OriginRefused, detail));
    }
    if let Some(allowed) = &forward.subprotocols {
        only_subprotocols(request, allowed)?;
    }
    let key = ClientKey::new(facts.client, setup.config.limits.ipv6_prefix);
    rates(gateway, setup, route, key)?;
    sessions(setup, client, route, key)
}

/// Takes the offers away that the route does not serve.
fn only_subprotocols(request: &mut UpgradeRequest, allowed: &[String]) -> Result<(), Refusal> {
    if request.protocols.is_empty() {
        return Ok(());
    }
    request.protocols.retain(|offered| allowed.contains(offered));
    if request.protocols.is_empty() {
        let detail = "None of the offered subprotocols is served here.";
        let reason = RefusalReason::SubprotocolRefused;
        return Err(Refusal::by_rule(400, reason, detail, None));
    }
    let left = request.protocols.join(", ");
    Headers::remove(&mut request.headers, "sec-websocket-protocol");
    request.headers.add("Sec-WebSocket-Protocol", left.as_bytes());
    Ok(())
}

fn rates(
    gateway: &Gateway,
    setup: &Setup,
    route: &RouteSetup,
    key: ClientKey,
) -> Result<(), Refusal> {
    let now = gateway.epoch.elapsed();
    let per_client = |limiter: &Option<Limiter>| match limiter {
        Some(limiter) => limiter.take_for(key, now),
        None => Ok(()),
    };
    per_client(&setup.each).and_then(|()| per_client(&route.limiter)).map_err(|wait| {
        let detail = "Too many handshakes from this address.";
        let seconds = wait.as_secs_f64().ceil() as u64;
        Refusal::by_rule(429, RefusalReason::ClientRate, detail, Some(seconds))
    })?;
    let all = setup.all.as_ref().map_or(Ok(()), |limiter| limiter.take(now));
    all.map_err(|wait| {
        let detail = "Too many handshakes at the moment.";
        let seconds = wait.as_secs_f64().ceil() as u64;
        Refusal::by_rule(503, RefusalReason::Rate, detail, Some(seconds))
    })
}

fn sessions(
    setup: &Setup,
    client: &Client,
    route: &RouteSetup,
    key: ClientKey,
) -> Result<Places, Refusal> {
    let full = || {
        let detail = "There is no room for another session.";
        Refusal::by_rule(503, RefusalReason::RouteSessions, detail, Some(RETRY_AFTER_S))
    };
    let enough = || {
        let detail = "This address has as many sessions as it may have.";
        Refusal::by_rule(429, RefusalReason::ClientSessions, detail, Some(RETRY_AFTER_S))
    };
    let listener = &client.listener;
    let most = listener.config.max_sessions.map(|most| most.get());
    let on_listener = listener.count.enter(most).ok_or_else(full)?;
    let most = route.config.max_sessions.map(|most| most.get());
    let on_route = route.count.enter(most).ok_or_else(full)?;
    let mut of_client = Vec::new();
    for (table, most) in client_tables(setup, Some(route)) {
        of_client.push(table.enter(key, most).ok_or_else(enough)?);
    }
    Ok(Places { on_listener: Some(on_listener), _on_route: Some(on_route), _of_client: of_client })
}

/// Where sessions of a client are counted, and how many it may have.
pub(super) fn client_tables<'s>(
    setup: &'s Setup,
    route: Option<&'s RouteSetup>,
) -> impl Iterator<Item = (&'s Arc<PerClient>, u32)> {
    let all = (&setup.clients, setup.config.limits.max_sessions_per_client);
    let here = route.map(|route| (&route.clients, route.config.max_sessions_per_client));
    let tables = std::iter::once(all).chain(here);
    tables.filter_map(|(table, most)| Some((table, most?.get())))
}

/// What of a request consistent hashing goes by.
pub(super) fn hash_key(balance: &Balance, facts: &Facts, headers: &impl Headers) -> Option<u64> {
    match balance {
        Balance::RoundRobin | Balance::LeastConnections | Balance::Random => None,
        Balance::IpHash => Some(balance::client_key(facts.client)),
        Balance::Hash(HashKey::Client) => {
            Some(balance::hash_key(facts.client.to_string().as_bytes()))
        }
        Balance::Hash(HashKey::Header(name)) => headers.values(name).next().map(balance::hash_key),
        Balance::Hash(HashKey::Cookie(name)) => {
            cookie(headers, name).map(|value| balance::hash_key(value.as_bytes()))
        }
        Balance::Hash(HashKey::Query(name)) => {
            let value = query_value(facts.query().unwrap_or_default(), name);
            value.map(|value| balance::hash_key(value.as_bytes()))
        }
    }
}

/// The sticky cookie for who went to `server`, unless the client has it.
pub(super) fn sticky_cookie(
    group: &UpstreamGroup,
    had: Option<&str>,
    server: ServerId,
    scheme: &str,
) -> Option<String> {
    let name = group.config.sticky_cookie.as_ref()?;
    let token = server.to_string();
    if had == Some(token.as_str()) {
        return None;
    }
    let secure = if scheme == "https" { "; Secure" } else { "" };
    Some(format!("{name}={token}; Path=/; HttpOnly; SameSite=Lax{secure}"))
}

/// No server takes the request.
pub(super) fn refusal_of(none: &NoServer) -> Refusal {
    match none {
        NoServer::Busy => {
            let detail = "Every server is busy.";
            Refusal::by_rule(503, RefusalReason::Busy, detail, Some(1))
        }
        NoServer::Nobody(wait) => {
            let detail = "No server is available.";
            let seconds = wait.map_or(RETRY_AFTER_S, |wait| wait.as_secs_f64().ceil() as u64);
            Refusal::by_rule(503, RefusalReason::NoServer, detail, Some(seconds))
        }
    }
}

/// One attempt that failed, and with which server.
struct Attempt {
    refusal: Refusal,
    error: String,
    server: Arc<str>,
}

/// What a client is told of an attempt that failed, and what the operator.
pub(super) struct Failed {
    pub(super) refusal: Refusal,
    pub(super) error: String,
    /// It says something about the server.
    pub(super) asked: bool,
}

impl Failed {
    fn new(refusal: Refusal, error: impl Into<String>) -> Self {
        Self { refusal, error: error.into(), asked: true }
    }
}

/// Asks one server after the other, until one has answered.
pub(super) async fn ask_servers(
    story: &mut Story<'_>,
    route: &RouteSetup,
    forward: &Forward,
    request: &UpgradeRequest,
) -> Result<Answered, Refusal> {
    let facts = story.facts;
    let group = route.upstream.as_ref().ok_or_else(|| refusal_of(&NoServer::Nobody(None)))?;
    let key = hash_key(&group.config.balance, facts, &request.headers);
    let sticky = group.config.sticky_cookie.as_ref();
    let sticky = sticky.and_then(|name| cookie(&request.headers, name));
    let mut tried = Vec::new();
    let mut last: Option<Attempt> = None;
    loop {
        let held = match group.acquire(Wish { key, sticky, tried: &tried }).await {
            Ok(held) => held,
            Err(none) => {
                let Some(attempt) = last else { return Err(refusal_of(&none)) };
                tracing::warn!(client = %facts.client, request = facts.request_id,
                    server = %attempt.server, error = attempt.error, tried = tried.len(),
                    "no server took the handshake");
                return Err(attempt.refusal);
            }
        };
        let id = held.target.id;
        let began = Instant::now();
        let span = story.span.ask(&held.target.name);
        match ask(story, group, &held, (route, forward), request, &span).await {
            Ok((stream, answer, early)) => {
                group.succeeded(id);
                span.answered(answer.status());
                let connection = &story.client.connection;
                let changes = &route.config.response_headers;
                let headers = &request.headers;
                let name = &held.target.name;
                return Ok(Answered {
                    changes: Rendered::new(changes, facts, connection, headers, name),
                    cookie: sticky_cookie(group, sticky, id, &facts.scheme),
                    upstream_time: began.elapsed(),
                    stream,
                    held,
                    answer,
                    early,
                });
            }
            Err(Failed { refusal, error, asked }) => {
                count_failure(story.gateway, group, &held, asked);
                span.failed(&error);
                let server = Arc::clone(&held.target.name);
                tracing::debug!(client = %facts.client, %server, error, "a server failed");
                last = Some(Attempt { refusal, error, server });
                tried.push(id);
            }
        }
    }
}

/// Counts a failure; one that says something about the server counts against it.
pub(super) fn count_failure(gateway: &Gateway, group: &UpstreamGroup, held: &Held, asked: bool) {
    if asked {
        group.failed(held.target.id);
    }
    let server = &*held.target.name;
    gateway.metrics.upstream_failures.with_label_values(&[server]).inc();
}

/// Connects to a server, in the time that there is for that.
pub(super) async fn dial(
    setup: &Setup,
    group: &UpstreamGroup,
    held: &Held,
    forward: &Forward,
    client: &Connection,
    max_segment: Option<u16>,
) -> Result<Stream, Failed> {
    let via = Via { tcp: setup.tcp, client: Some(client), max_segment };
    let patience = forward.connect.unwrap_or(setup.config.timeouts.upstream_connect).get();
    match timeout(patience, group.connect(&held.target, &via)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => {
            let asked = was_asked(&error);
            Err(Failed { asked, ..Failed::new(unreachable(), error.to_string()) })
        }
        Err(_) => Err(Failed::new(Refusal::gateway_timeout(), "no connection in time")),
    }
}

/// Which server it was is the operator's business, not the client's.
pub(super) fn unreachable() -> Refusal {
    Refusal::bad_gateway("No upstream server could be reached.")
}

/// Asks one server: connects, sends the request, reads the head of the answer.
async fn ask(
    story: &Story<'_>,
    group: &UpstreamGroup,
    held: &Held,
    (route, forward): (&RouteSetup, &Forward),
    request: &UpgradeRequest,
    span: &Asked,
) -> Result<(Stream, Answer, Vec<u8>), Failed> {
    let (setup, facts) = (story.setup, story.facts);
    let connection = &story.client.connection;
    let timeouts = &setup.config.timeouts;
    let target = &held.target;
    let max_segment = story.max_segment.filter(|_| forward.packets);
    let mut stream = dial(setup, group, held, forward, connection, max_segment).await?;
    let mut headers = request.headers.clone();
    let changes =
        Rendered::new(&route.config.request_headers, facts, connection, &headers, &target.name);
    // Before the changes: the configuration has the last word.
    span.write(&mut headers);
    prepare_request(&mut headers, facts, connection, &forward.host, &target.host, &changes);
    let path = match &forward.rewrite {
        Some(with) => rewritten(&route.config, with, &request.target),
        None => request.target.clone(),
    };
    let head = build_request(&path, &headers);
    let patience = forward.answer.unwrap_or(timeouts.upstream_answer).get();
    match timeout(patience, exchange(setup, &mut stream, &head, request)).await {
        Ok(Ok((answer, early))) => Ok((stream, answer, early)),
        Ok(Err(failed)) => Err(failed),
        Err(_) => Err(Failed::new(Refusal::gateway_timeout(), "no answer in time")),
    }
}

async fn exchange(
    setup: &Setup,
    upstream: &mut Stream,
    head: &[u8],
    request: &UpgradeRequest,
) -> Result<(Answer, Vec<u8>), Failed> {
    let broke = |e: io::Error| {
        let text = "The upstream server broke off the handshake.";
        Failed::new(Refusal::bad_gateway(text), format!("it broke off the handshake: {e}"))
    };
    upstream.write_all(head).await.map_err(broke)?;
    upstream.flush().await.map_err(broke)?;
    let mut received = Vec::with_capacity(1024);
    loop {
        if upstream.read_buf(&mut limited(&mut received)).await.map_err(broke)? == 0 {
            return Err(broke(io::ErrorKind::UnexpectedEof.into()));
        }
        match parse_response(&received, request, &setup.head_limits) {
            Ok(Progress::Partial) => {}
            Ok(Progress::Done { value, consumed }) => {
                received.drain(..consumed);
                return Ok((value, received));
            }
            Err(bad) => {
                return Err(Failed::new(bad.refusal(), format!("its answer is invalid: {bad}")));
            }
        }
    }
}

/// The route that takes a request, whether or not it lets this client in.
pub(super) fn route_of<'s>(
    setup: &'s Setup,
    client: &Client,
    facts: &Facts,
) -> Option<&'s Arc<RouteSetup>> {
    // The listener may be older than this setup, or gone from it.
    let listener = setup.listeners.get(&client.listener.config.name);
    let router = listener.map_or(&client.listener.router, |listener| &listener.router);
    router.find(&facts.host, facts.path()).and_then(|number| setup.routes.get(number))
}

/// The route of a request.
pub(super) fn find_route<'s>(
    setup: &'s Setup,
    client: &Client,
    facts: &Facts,
) -> Result<&'s Arc<RouteSetup>, Refusal> {
    let route = route_of(setup, client, facts).ok_or_else(|| {
        let detail = "Nothing is served under this host and path.";
        Refusal::by_rule(404, RefusalReason::NoRoute, detail, None)
    })?;
    if !route.config.access.admits(facts.client) {
        let detail = "This address may not use this.";
        return Err(Refusal::by_rule(403, RefusalReason::AddressRefused, detail, None));
    }
    Ok(route)
}

/// What a route that forwards says about it.
pub(super) fn forward_of(route: &RouteSetup) -> Option<&Forward> {
    match &route.config.action {
        Action::Upstream(forward) => Some(forward),
        _ => None,
    }
}
