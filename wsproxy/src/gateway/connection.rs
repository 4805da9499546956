//! The story of a connection, from accept to the moment the datapath has it:
//!
//! 1. what stands before HTTP: the listener's networks, a PROXY header, TLS (`arrival`);
//! 2. read the request's head. A plain request, and those that follow it, are the HTTP
//!    library's behind a guard (`plain`, `guard`) until a handshake comes;
//! 3. a handshake: is it let in, which server takes it, what does that say (`upgrade`);
//! 4. a valid 101: pass it on, and hand both sockets to the datapath, with the bytes that came
//!    too early; the story goes on in `datapath::session`;
//! 5. any other answer: pass it on as it is, and start over where HTTP allows.

use std::{future::Future, io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::{Instant, timeout},
};

use super::{
    Client, Gateway,
    access::{self, Note},
    fixed,
    guard::Outcome,
    limited, plain, segments,
    setup::{RouteSetup, Setup},
    stream::Stream,
    supervision,
    upgrade::{self, Answered, Luggage, Places},
};
use crate::{
    config::Forward,
    datapath::{ClientSocket, Handover, Reservation, SessionMeta, Terms, UpstreamSocket},
    forwarding::{Facts, Rendered},
    handshake::{
        Answer, BodyTracker, Incoming, OtherAnswer, Progress, Refusal, RefusalReason,
        UpgradeRequest, parse_incoming,
    },
    telemetry,
};

/// Bytes of one read while an ordinary answer is passed on.
const BODY_READ: usize = 32 * 1024;
/// After a refusal: how long and how much we listen on, so that the refusal is
/// not destroyed by a reset for bytes that nobody read (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 256 * 1024;

/// Why the story ended without a tunnel.
enum End {
    /// The client is to be told.
    Refused(Refusal),
    /// As well, and nothing else is known of a request that began then: its head is bad.
    BadHead(Refusal, Instant),
    /// There is nobody to tell, or nothing to say: a label for the metric.
    Silent(&'static str),
    /// The client asked for nothing that failed: it closed between requests,
    /// or got an ordinary answer and a close.
    Done,
    /// It is told this, or was told everything; it may still be sending what nobody reads.
    LastWords(Vec<u8>),
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Tells the story from its second part on; `place` is reserved for the session.
pub(super) async fn serve(
    gateway: Arc<Gateway>,
    mut stream: Stream,
    client: Arc<Client>,
    received: Vec<u8>,
    place: Reservation,
) {
    match requests(&gateway, &mut stream, &client, received).await {
        Ok((tunnel, span)) => hand_over(&gateway, stream, &client, place, tunnel, span),
        Err(End::Done) => {}
        Err(End::LastWords(words)) => {
            drop(place);
            say_goodbye(&mut stream, &words).await;
        }
        Err(End::Silent(reason)) => {
            gateway.metrics.handshake_failures.with_label_values(&[reason]).inc();
            tracing::debug!(client = %client.connection.peer, reason, "handshake failed");
        }
        Err(End::Refused(refusal) | End::BadHead(refusal, _)) => {
            // The place is free again while the client reads why.
            drop(place);
            refuse(&gateway, stream, &client, &refusal).await;
        }
    }
}

/// Sends a refusal and closes so that it arrives.
pub(super) async fn refuse(
    gateway: &Gateway,
    mut stream: Stream,
    client: &Client,
    refusal: &Refusal,
) {
    let reason = refusal.reason.label();
    gateway.metrics.handshake_failures.with_label_values(&[reason]).inc();
    tracing::debug!(
        client = %client.connection.peer, status = refusal.status, reason,
        detail = %refusal.detail, "handshake refused"
    );
    say_goodbye(&mut stream, &refusal.to_bytes()).await;
}

/// Says the last words and closes so that they arrive.
pub(super) async fn say_goodbye<S>(client: &mut S, last_words: &[u8])
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let goodbye = async {
        client.write_all(last_words).await?;
        client.shutdown().await?;
        // On the heap: in the task it would make every connection's that much larger.
        let mut rest = vec![0; 4096];
        let mut left = LINGER_BYTES;
        while left > 0 {
            let n = client.read(&mut rest).await?;
            if n == 0 {
                break;
            }
            left = left.saturating_sub(n);
        }
        io::Result::Ok(())
    };
    // A client that is gone or too slow gets no more of our time.
    let _gone_or_slow = timeout(LINGER, goodbye).await;
}

/// A handshake that succeeded on both sides; the client has its 101.
struct Tunnel {
    upstream: Stream,
    server: Arc<str>,
    route: Arc<str>,
    early_to_upstream: Vec<u8>,
    early_to_client: Vec<u8>,
    terms: Terms,
}

/// One request after the other, until one opens a tunnel.
async fn requests(
    gateway: &Arc<Gateway>,
    stream: &mut Stream,
    client: &Arc<Client>,
    mut received: Vec<u8>,
) -> Result<(Tunnel, telemetry::Handshake), End> {
    let mut first = true;
    loop {
        let read = read_request(gateway, stream, &mut received, first).await;
        let (mut request, began) = match read {
            Err(End::BadHead(refusal, began)) => {
                let refusal = access::bad_head(gateway, client, &received, refusal, began);
                return Err(refusal.into());
            }
            Err(other) => return Err(other),
            Ok((Some(request), began)) => (request, began),
            Ok((None, _)) => {
                // On the heap: in the task it would make every connection's that much larger.
                let begun = std::mem::take(&mut received);
                match Box::pin(plain::serve(gateway, client, stream, begun)).await {
                    (rest, Outcome::Upgrade(request, began)) => {
                        received = rest;
                        (request, began)
                    }
                    (rest, Outcome::Refused(refusal, began)) => {
                        let refusal = access::bad_head(gateway, client, &rest, refusal, began);
                        return Err(refusal.into());
                    }
                    (_, Outcome::Done) => return Err(End::Done),
                    (_, Outcome::Unread) => return Err(End::LastWords(Vec::new())),
                }
            }
        };
        first = false;
        let setup = gateway.setup.load_full();
        let line = ("GET", request.target.as_str(), request.host.as_str());
        let clients = &setup.config.clients;
        let facts = Facts::new(&client.connection, clients, &request.headers, line, || {
            gateway.next_request_id()
        });
        let span = telemetry::Handshake::begin(&facts, &request.headers, began);
        let max_segment =
            segments::of_server(&setup.config.datapath, &client.listener.config, stream);
        let mut story =
            Story { gateway, setup: &setup, client, facts: &facts, began, max_segment, span };
        match story.handshake(stream, &mut request, &mut received).await {
            Ok(Some(tunnel)) => return Ok((tunnel, story.span)),
            Ok(None) => {}
            Err(End::Refused(refusal)) => {
                access::refused(&story, &request, &refusal);
                story.span.refused(&refusal);
                return Err(End::Refused(refusal.with_id(&facts.request_id)));
            }
            Err(other) => {
                if let End::Silent(reason) = other {
                    story.span.broke(reason);
                }
                return Err(other);
            }
        }
    }
}

/// Reads a request head. What follows it stays in `received`; of a plain request all of it does.
async fn read_request(
    gateway: &Gateway,
    client: &mut Stream,
    received: &mut Vec<u8>,
    first: bool,
) -> Result<(Option<Box<UpgradeRequest>>, Instant), End> {
    let setup = gateway.setup.load_full();
    let timeouts = &setup.config.timeouts;
    let patience = if first { timeouts.request_head } else { timeouts.keepalive_idle };
    let arrived = Instant::now();
    let mut deadline = arrived + patience.get();
    let mut began = None;
    loop {
        if !received.is_empty() {
            if began.is_none() && !first {
                deadline = Instant::now() + timeouts.request_head.get();
            }
            let start = *began.get_or_insert_with(Instant::now);
            let parsed = parse_incoming(received, &setup.head_limits);
            match parsed.map_err(|refusal| End::BadHead(refusal, start))? {
                Progress::Partial => {}
                Progress::Done { value: Incoming::Upgrade(request), consumed } => {
                    received.drain(..consumed);
                    return Ok((Some(request), start));
                }
                Progress::Done { value: Incoming::Plain(_), .. } => return Ok((None, start)),
            }
        }
        let mut room = limited(received);
        let read = tokio::time::timeout_at(deadline, client.read_buf(&mut room));
        let read = tokio::select! {
            read = read => read,
            // Not a word about it to a client that has asked for nothing yet.
            () = gateway.until_stopped() => return Err(End::Silent("stopping")),
        };
        match read {
            // Nothing asked, nothing failed: a health check, or the end of keep-alive.
            Ok(Ok(0)) if received.is_empty() => return Err(End::Done),
            Ok(Ok(0)) => return Err(End::Silent("client_left")),
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(End::Silent("client_broke")),
            Err(_) if received.is_empty() && !first => {
                client.say_end().await;
                return Err(End::Done);
            }
            Err(_) => {
                return Err(End::BadHead(Refusal::timeout(), began.unwrap_or(arrived)));
            }
        }
    }
}

/// One handshake, and all that is known of it.
pub(super) struct Story<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) setup: &'a Setup,
    pub(super) client: &'a Client,
    pub(super) facts: &'a Facts,
    pub(super) began: Instant,
    /// Bytes of the largest segment that its server may be told to send.
    pub(super) max_segment: Option<u16>,
    pub(super) span: telemetry::Handshake,
}

impl Story<'_> {
    /// The route, whether or not it lets the client in.
    pub(super) fn route(&self) -> Option<&RouteSetup> {
        upgrade::route_of(self.setup, self.client, self.facts).map(Arc::as_ref)
    }

    /// From the request to the 101; `None`: the client got another answer and may ask again.
    async fn handshake(
        &mut self,
        stream: &mut Stream,
        request: &mut UpgradeRequest,
        received: &mut Vec<u8>,
    ) -> Result<Option<Tunnel>, End> {
        let (setup, client, facts) = (self.setup, self.client, self.facts);
        let route = match upgrade::find_route(setup, client, facts) {
            Ok(route) => route,
            Err(refusal) => {
                // A route that does not let the client in is known all the same.
                if let Some(route) = upgrade::route_of(setup, client, facts) {
                    self.span.on_route(&route.name);
                }
                return Err(refusal.into());
            }
        };
        self.span.on_route(&route.name);
        let Some(forward) = upgrade::forward_of(route) else {
            return Err(self.without_server(route, request));
        };
        let places = upgrade::admit(self.gateway, setup, client, route, forward, request, facts)?;
        let mut answered = upgrade::ask_servers(self, route, forward, request).await?;
        match &mut answered.answer {
            Answer::Switched(switched) => {
                change(&mut switched.headers, &answered.changes, answered.cookie.as_deref(), facts);
                let head = switched.to_bytes();
                self.pass_on_101(stream, forward, &head).await?;
                let seconds = self.began.elapsed().as_secs_f64();
                self.gateway.metrics.handshake_seconds.observe(seconds);
                let early = std::mem::take(received);
                let note = Note::new(setup, facts, client, request, answered.upstream_time);
                let mut terms = terms(setup, route, forward, &switched.extensions);
                terms.no_packets |= !client.listener.config.packets;
                Ok(Some(tunnel(answered, route, terms, places, early, note)))
            }
            Answer::Other(other) => {
                let label = "upstream_refused";
                self.gateway.metrics.handshake_failures.with_label_values(&[label]).inc();
                tracing::debug!(client = %facts.client, server = %answered.held.target.name,
                    status = other.status, request = facts.request_id,
                    "the upstream refused the upgrade");
                change(&mut other.headers, &answered.changes, answered.cookie.as_deref(), facts);
                // Bytes behind the request were meant for a tunnel that did not open: they must
                // not be read as the next request.
                let stays = request.keep_alive && received.is_empty();
                self.span.answered(other.status);
                let done = self.pass_on(stream, forward, &mut answered, stays).await;
                access::answered(self, request, &answered);
                done.map(|()| None)
            }
        }
    }

    /// A handshake where no server is asked: a redirect or a fixed answer say the same to it
    /// as to every request; files are no tunnel.
    fn without_server(&mut self, route: &RouteSetup, request: &UpgradeRequest) -> End {
        let connection = &self.client.connection;
        match fixed::answer(route, self.facts, connection, &request.headers) {
            Some(answer) => {
                access::local(self, request, &answer);
                self.span.answered(answer.status().as_u16());
                End::LastWords(fixed::to_bytes(&answer, &self.facts.request_id))
            }
            None => {
                let detail = "No WebSocket connections are served here.";
                let reason = RefusalReason::WebSocketRefused;
                Refusal::by_rule(403, reason, detail, None).into()
            }
        }
    }

    /// Waits as long as an upstream may take to answer.
    async fn in_time<T>(&self, forward: &Forward, what: impl Future<Output = T>) -> Result<T, ()> {
        let patience = forward.answer.unwrap_or(self.setup.config.timeouts.upstream_answer);
        timeout(patience.get(), what).await.map_err(|_| ())
    }

    async fn pass_on_101(
        &self,
        stream: &mut Stream,
        forward: &Forward,
        head: &[u8],
    ) -> Result<(), End> {
        let write = async {
            stream.write_all(head).await?;
            stream.flush().await
        };
        match self.in_time(forward, write).await {
            Ok(Ok(())) => Ok(()),
            // It may have had half of the 101: no refusal can follow.
            Ok(Err(_)) | Err(()) => Err(End::Silent("client_broke")),
        }
    }

    /// Passes on an answer that is no 101, its body included. `Ok`: the client may
    /// ask again.
    async fn pass_on(
        &self,
        client: &mut Stream,
        forward: &Forward,
        answered: &mut Answered,
        stays: bool,
    ) -> Result<(), End> {
        let Answer::Other(answer) = &answered.answer else { return Err(End::Done) };
        let answer: &OtherAnswer = answer;
        let mut body = std::mem::take(&mut answered.early);
        let upstream = &mut answered.stream;
        let stays = stays && !answer.closes();
        let cut = |_| End::Silent("answer_cut_short");
        let slow = |()| End::Silent("client_slow");
        let mut tracker = BodyTracker::new(answer.framing);
        // From here on the client has bytes of an answer: what fails now ends in a close.
        let head = self.in_time(forward, client.write_all(&answer.to_bytes(stays))).await;
        head.map_err(slow)?.map_err(cut)?;
        loop {
            let progress = tracker.feed(&body).map_err(|_| End::Silent("upstream_body_invalid"))?;
            let sent = self.in_time(forward, client.write_all(&body[..progress.used])).await;
            sent.map_err(slow)?.map_err(cut)?;
            if progress.complete {
                break;
            }
            let flushed = self.in_time(forward, client.flush()).await;
            flushed.map_err(slow)?.map_err(cut)?;
            body.clear();
            body.reserve(BODY_READ);
            let read = self.in_time(forward, upstream.read_buf(&mut body)).await;
            if read.map_err(|()| End::Silent("upstream_slow"))?.map_err(cut)? == 0 {
                if answer.closes() {
                    break;
                }
                return Err(End::Silent("answer_cut_short"));
            }
        }
        let flushed = self.in_time(forward, client.flush()).await;
        flushed.map_err(slow)?.map_err(cut)?;
        if stays {
            return Ok(());
        }
        say_goodbye(client, b"").await;
        Err(End::Done)
    }
}

fn change(
    headers: &mut Vec<(String, Vec<u8>)>,
    changes: &Rendered,
    cookie: Option<&str>,
    facts: &Facts,
) {
    changes.apply(headers);
    headers.retain(|(name, _)| !name.eq_ignore_ascii_case("x-request-id"));
    headers.push(("X-Request-ID".to_owned(), facts.request_id.as_bytes().to_vec()));
    if let Some(cookie) = cookie {
        headers.push(("Set-Cookie".to_owned(), cookie.as_bytes().to_vec()));
    }
}

fn tunnel(
    answered: Answered,
    route: &RouteSetup,
    terms: Terms,
    places: Places,
    early_to_upstream: Vec<u8>,
    note: Note,
) -> Tunnel {
    Tunnel {
        upstream: answered.stream,
        server: Arc::clone(&answered.held.target.name),
        route: Arc::clone(&route.name),
        early_to_upstream,
        early_to_client: answered.early,
        terms: Terms {
            companion: Some(Box::new(Luggage::new(places, answered.held, note))),
            ..terms
        },
    }
}

fn terms(setup: &Setup, route: &RouteSetup, forward: &Forward, extensions: &[String]) -> Terms {
    Terms {
        idle: forward.idle.map(|idle| idle.map(|idle| idle.get())),
        lifetime: forward.lifetime.map(|lifetime| lifetime.get()),
        half_closed: setup.config.timeouts.half_closed.map(|limit| limit.get()),
        frames: supervision::frames(&route.plan, extensions),
        no_packets: !forward.packets,
        companion: None,
    }
}

fn hand_over(
    gateway: &Gateway,
    stream: Stream,
    client: &Client,
    place: Reservation,
    tunnel: Tunnel,
    span: telemetry::Handshake,
) {
    let id = gateway.next_id();
    span.switched(id);
    let address = client.connection.peer;
    let local = tunnel.upstream.local();
    let (client, upstream) = match (stream.into_endpoint(), tunnel.upstream.into_endpoint()) {
        (Ok(client), Ok(upstream)) => (client, upstream),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(client = %address, %error, "a socket can't leave the reactor");
            return;
        }
    };
    let meta =
        SessionMeta { id, client: address, local, upstream: tunnel.server, route: tunnel.route };
    let handover = Handover {
        client: ClientSocket(client),
        upstream: UpstreamSocket(upstream),
        early_to_upstream: tunnel.early_to_upstream,
        early_to_client: tunnel.early_to_client,
        meta,
        terms: tunnel.terms,
    };
    gateway.datapath.take_over(place, handover);
}
